//! Between the commands of the conversations and the messages of the .proto file. The term is the envelope's.

use bytes::Bytes;
use prost::Message as _;

use super::message::{agent, all, count, each, read_route, time, workspace};
use super::pb::{self, conversations_command::Body};
use super::{DecodeError, field};
use crate::Revision;
use crate::shard::{Abandon, Command, DocumentKind, Ending, Forget, Keep, Piece, Suspension, TurnRecord};

pub(super) fn body_of(command: &Command) -> Bytes {
    let body = match command {
        Command::Record(record) => Body::Record((&**record).into()),
        Command::Keep(keep) => Body::Keep(keep.into()),
        Command::Suspend(suspension) => Body::Suspend((&**suspension).into()),
        Command::Abandon(Abandon { workspace, turn, term: _ }) => {
            Body::Abandon(pb::Abandon { workspace: workspace.to_string(), turn: turn.clone() })
        }
        Command::Forget(Forget { workspace, conversation }) => {
            Body::Forget(pb::Forget { workspace: workspace.to_string(), conversation: conversation.clone() })
        }
    };
    pb::ConversationsCommand { body: Some(body) }.encode_to_vec().into()
}

pub(super) fn read(body: &[u8], term: u64) -> Result<Command, DecodeError> {
    let command = pb::ConversationsCommand::decode(body)?;
    Ok(match command.body.ok_or(field("body"))? {
        Body::Record(record) => Command::Record(Box::new(TurnRecord { term, ..record.try_into()? })),
        Body::Keep(keep) => Command::Keep(Keep { term, ..keep.try_into()? }),
        Body::Suspend(suspend) => Command::Suspend(Box::new(Suspension { term, ..suspend.try_into()? })),
        Body::Abandon(pb::Abandon { workspace: name, turn }) => {
            Command::Abandon(Abandon { workspace: workspace(name)?, turn, term })
        }
        Body::Forget(pb::Forget { workspace: name, conversation }) => {
            Command::Forget(Forget { workspace: workspace(name)?, conversation })
        }
    })
}

impl From<&TurnRecord> for pb::Record {
    fn from(it: &TurnRecord) -> Self {
        Self {
            workspace: it.workspace.to_string(),
            conversation: it.conversation.clone(),
            turn: it.turn.clone(),
            agent: it.agent.to_string(),
            subject: it.subject.clone(),
            time_ms: it.time_ms,
            messages: each(&it.messages),
            files: each(&it.attachments),
            usage: Some(it.usage.into()),
            spent: it
                .spent
                .iter()
                .map(|(agent, spent)| pb::AgentSpent { agent: agent.to_string(), spent: Some((*spent).into()) })
                .collect(),
            duration_ms: it.duration_ms,
            revision: it.revision.0,
            failure: it.failure.clone(),
            ending: it.ending.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::Record> for TurnRecord {
    type Error = DecodeError;
    fn try_from(it: pb::Record) -> Result<Self, DecodeError> {
        let spent = it.spent.into_iter().map(|row| Ok((agent(row.agent)?, row.spent.into())));
        Ok(Self {
            workspace: workspace(it.workspace)?,
            conversation: it.conversation,
            turn: it.turn,
            agent: agent(it.agent)?,
            subject: it.subject,
            time_ms: time(it.time_ms),
            messages: all(it.messages)?,
            attachments: it.files.into_iter().map(Into::into).collect(),
            usage: it.usage.into(),
            spent: spent.collect::<Result<_, DecodeError>>()?,
            duration_ms: time(it.duration_ms),
            revision: Revision(count(it.revision)),
            failure: it.failure,
            ending: it.ending.map(TryInto::try_into).transpose()?,
            term: 0,
        })
    }
}

impl From<&Ending> for pb::Ending {
    fn from(it: &Ending) -> Self {
        Self {
            route: Some((&it.route).into()),
            truncated: it.truncated,
            steps: it.steps,
            failure: it.failure.as_ref().map(Into::into),
            files: each(&it.files),
            files_omitted: it.files_omitted,
            request_digest: it.request_digest.clone(),
            request: it.request.clone(),
        }
    }
}

impl TryFrom<pb::Ending> for Ending {
    type Error = DecodeError;
    fn try_from(it: pb::Ending) -> Result<Self, DecodeError> {
        Ok(Self {
            route: read_route(it.route)?,
            truncated: it.truncated,
            steps: it.steps,
            failure: it.failure.map(TryInto::try_into).transpose()?,
            files: all(it.files)?,
            files_omitted: it.files_omitted,
            request_digest: it.request_digest,
            request: it.request,
        })
    }
}

impl From<&Keep> for pb::Keep {
    fn from(it: &Keep) -> Self {
        let kind = match it.kind {
            DocumentKind::Journal => pb::DocumentKind::Journal,
            DocumentKind::Files => pb::DocumentKind::Files,
            DocumentKind::Brought => pb::DocumentKind::Brought,
        };
        let piece =
            |piece: &Piece| pb::Piece { number: piece.number, last: piece.last, content: piece.content.clone() };
        Self {
            workspace: it.workspace.to_string(),
            turn: it.turn.clone(),
            kind: kind.into(),
            pieces: it.pieces.iter().map(piece).collect(),
        }
    }
}

impl TryFrom<pb::Keep> for Keep {
    type Error = DecodeError;
    fn try_from(it: pb::Keep) -> Result<Self, DecodeError> {
        let kind = match it.kind() {
            pb::DocumentKind::Unspecified => return Err(field("kind")),
            pb::DocumentKind::Journal => DocumentKind::Journal,
            pb::DocumentKind::Files => DocumentKind::Files,
            pb::DocumentKind::Brought => DocumentKind::Brought,
        };
        let piece = |pb::Piece { number, last, content }: pb::Piece| Piece { number, last, content };
        let pieces = it.pieces.into_iter().map(piece).collect();
        Ok(Self { workspace: workspace(it.workspace)?, turn: it.turn, term: 0, kind, pieces })
    }
}

impl From<&Suspension> for pb::Suspend {
    fn from(it: &Suspension) -> Self {
        Self {
            workspace: it.workspace.to_string(),
            turn: it.turn.clone(),
            conversation: it.conversation.clone(),
            approvals: each(&it.approvals),
        }
    }
}

impl TryFrom<pb::Suspend> for Suspension {
    type Error = DecodeError;
    fn try_from(it: pb::Suspend) -> Result<Self, DecodeError> {
        let approvals = all(it.approvals)?;
        let workspace = workspace(it.workspace)?;
        Ok(Self { workspace, turn: it.turn, conversation: it.conversation, term: 0, approvals })
    }
}
