//! Between the beginning of a turn and what is kept of it (`caxton_proto::shard`).

use caxton_proto::shard::{self, TIME_MS_MAX};

use super::kept::Beginning;

impl From<&Beginning> for shard::Beginning {
    fn from(it: &Beginning) -> Self {
        Self {
            workspace: it.workspace.clone(),
            conversation: it.conversation.clone(),
            turn: it.turn.clone(),
            subject: it.subject.clone(),
            route: it.route.clone(),
            brought: it.brought.clone(),
            files: it.files.clone(),
            time_ms: it.time_ms.min(TIME_MS_MAX),
            request_digest: it.asked.clone(),
            request: it.request.clone(),
            run: (&it.run).into(),
        }
    }
}

impl From<shard::Beginning> for Beginning {
    fn from(it: shard::Beginning) -> Self {
        Self {
            workspace: it.workspace,
            conversation: it.conversation,
            turn: it.turn,
            subject: it.subject,
            route: it.route,
            brought: it.brought,
            files: it.files,
            time_ms: it.time_ms,
            asked: it.request_digest,
            request: it.request,
            run: it.run.into(),
        }
    }
}
