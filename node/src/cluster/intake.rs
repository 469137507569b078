//! Messages that peers bring to the leader of a shard, from workspaces of other shards.

use async_trait::async_trait;
use caxton_proto::WorkspaceId;
use caxton_proto::peer::pb::CarryReply;
use caxton_proto::peer::pb::carry_reply::Fate;

/// What came of a message that was brought to the leader of its receiver's shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntakeOutcome {
    /// The other workspace has it.
    Taken,
    /// It never will have it, for this reason.
    Refused(String),
    /// It may have it later; this is in the way now.
    Later(String),
}

impl IntakeOutcome {
    /// What a peer answered.
    pub fn of(reply: CarryReply) -> IntakeOutcome {
        match reply.fate {
            Some(Fate::Taken(_)) => IntakeOutcome::Taken,
            Some(Fate::Refused(reason)) => IntakeOutcome::Refused(reason),
            Some(Fate::Later(reason)) => IntakeOutcome::Later(reason),
            None => IntakeOutcome::Later(
                "the node that leads its shard answered something that this one does not know".to_owned(),
            ),
        }
    }

    /// The answer to a peer.
    pub(super) fn reply(self) -> CarryReply {
        let fate = match self {
            IntakeOutcome::Taken => Fate::Taken(true),
            IntakeOutcome::Refused(reason) => Fate::Refused(reason),
            IntakeOutcome::Later(reason) => Fate::Later(reason),
        };
        CarryReply { fate: Some(fate) }
    }
}

/// Takes messages in that other workspaces send, for the shards that this node leads.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Takes in the bytes of one, or says why not.
    async fn take(&self, source: WorkspaceId, workspace: WorkspaceId, submission: &[u8]) -> IntakeOutcome;
}
