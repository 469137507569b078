//! What a shard's state knows of a turn: nothing, how it began, what it waits for, or how it ended.

use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::shard::{self, DocumentKind, Route, Suspension, TurnRecord};

use super::{InvokeError, Invoker, TurnEnd};
use crate::agent::attachments::{Attachment, Visible};
use crate::agent::run::Run;
use crate::conversations::{Documents, ReadError, State};

/// How a turn began: with the steps that came after it, all that is needed to go on.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    pub(super) workspace: WorkspaceId,
    pub(super) conversation: String,
    pub(super) turn: String,
    pub(super) subject: String,
    pub(super) route: Route,
    pub(super) brought: Visible,
    pub(super) files: Vec<Arc<Attachment>>,
    /// When, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// A digest of what was asked, where the sender gave it a key.
    pub(super) asked: Option<String>,
    /// What was said, as it was said; none in what an older program kept.
    pub(super) request: Option<String>,
    pub(super) run: Run,
}

/// What a shard's state knows of a turn.
pub(super) enum TurnStatus {
    Nothing,
    Over(Box<TurnRecord>),
    /// It waits for a person, with its journal.
    Waits(Box<Suspension>, Documents),
    /// It began, and is not over.
    Begun(Documents),
}

impl Invoker {
    pub(super) async fn known(&self, workspace: &WorkspaceId, turn: &str) -> Result<TurnStatus, InvokeError> {
        let (name, turn) = (workspace.clone(), turn.to_owned());
        let known = move |state: &State| -> Result<TurnStatus, ReadError> {
            if let Some(record) = state.turn(&name, &turn)? {
                return Ok(TurnStatus::Over(Box::new(record)));
            }
            let waiting = state.waits(&name, &turn)?;
            let documents = state.kept(&name, &turn, DocumentKind::Journal)?;
            if let Some(waiting) = waiting {
                return Ok(TurnStatus::Waits(Box::new(waiting), documents));
            }
            Ok(if documents.whole.is_empty() { TurnStatus::Nothing } else { TurnStatus::Begun(documents) })
        };
        Ok(self.conversations().of(workspace).read_few(known).await?)
    }
}

pub(super) fn waits(waiting: Suspension) -> TurnEnd {
    let Suspension { conversation, turn, approvals, .. } = waiting;
    TurnEnd::Waiting { conversation, turn, approvals }
}

/// A digest of what a turn was asked that is not over, where its sender gave it a key.
pub(super) fn request_digest(documents: &Documents) -> Result<Option<String>, InvokeError> {
    let Some(first) = documents.whole.first() else { return Ok(None) };
    Ok(shard::Beginning::decode(first).map_err(InvokeError::PutDown)?.request_digest)
}

/// Whose turn it is that is not over.
pub(super) fn subject(documents: &Documents) -> Result<String, InvokeError> {
    let first = documents.whole.first().ok_or(InvokeError::Unfinished)?;
    Ok(shard::Beginning::decode(first).map_err(InvokeError::PutDown)?.subject)
}
