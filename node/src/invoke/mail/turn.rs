//! The turns that messages of a mailbox began, for whoever settles the deliveries.

use caxton_proto::WorkspaceId;

use super::super::check::MessageKey;
use super::super::kept::TurnStatus;
use super::super::{InvokeError, Invoker, TurnEnd};

/// What is known of a turn that a message began.
#[derive(Debug)]
pub enum MailedTurn {
    /// There is none: it has not begun, or it was deleted.
    Nothing,
    /// It runs or waits.
    Underway,
    /// It ended, with an answer or without.
    Over(Result<TurnEnd, InvokeError>),
}

impl Invoker {
    /// What became of the turn that a message began in the name of `subject` under this key. It is read and nothing is begun, so
    /// that it takes no place among the turns. An error says that it is not known, and not how the turn ended.
    pub async fn mailed_turn(
        &self,
        workspace: &WorkspaceId,
        subject: &str,
        key: &str,
    ) -> Result<MailedTurn, InvokeError> {
        self.lead(workspace).await?;
        Ok(match self.known(workspace, &MessageKey::mailed(workspace, subject, key)).await? {
            TurnStatus::Nothing => MailedTurn::Nothing,
            TurnStatus::Waits(..) | TurnStatus::Begun(_) => MailedTurn::Underway,
            TurnStatus::Over(record) => match self.again(workspace, *record).await {
                Err(error) if error.is_ours() => return Err(error),
                ended => MailedTurn::Over(ended),
            },
        })
    }
}
