//! Messages of other workspaces: each is taken in once, however often it is brought.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::Address;
use caxton_proto::mailbox::{Fate, Outcome, Reason, Receipt, Submission};
use rusqlite::{Result, params};

use super::Run;
use crate::tables::count;

/// How many that are long known go with one that comes.
const FORGOTTEN_MAX: i64 = 16;

impl Run<'_> {
    /// Takes a message of another workspace in, unless it is known. Only one that was taken in is known.
    pub(super) fn receive(&self, source: &WorkspaceId, submission: &Submission) -> Result<Outcome> {
        let message = &submission.message;
        let from = matches!(&message.sender, Some(Address::Elsewhere { workspace, .. }) if workspace == source);
        if !from || !message.receivers.iter().all(|to| matches!(to, Address::Agent(_))) {
            let field = format!("sender is no agent of `{source}`, or it is for more than agents");
            return Ok(Outcome::Refused(Reason::Field { field }));
        }
        let id = submission.id;
        let sql = "SELECT EXISTS (SELECT 1 FROM mailbox_received WHERE workspace = ?1 AND id = ?2)";
        if self.db.prepare_cached(sql)?.query_row(params![self.workspace(), id.as_bytes()], |row| row.get(0))? {
            return Ok(Outcome::Sent(vec![Receipt { id, fate: Fate::Duplicate(id) }]));
        }
        let fate = self.accept(submission)?;
        if matches!(fate, Fate::Accepted { .. }) {
            let number = count(self.db, &self.of_workspace("received"))?;
            let sql = "INSERT INTO mailbox_received (workspace, id, number, received_ms) VALUES (?1, ?2, ?3, ?4)";
            self.db.prepare_cached(sql)?.execute(params![self.workspace(), id.as_bytes(), number, self.now_ms])?;
            self.forget_received(number)?;
        }
        Ok(Outcome::Sent(vec![Receipt { id, fate }]))
    }

    fn forget_received(&self, newest: i64) -> Result<()> {
        let sql = "DELETE FROM mailbox_received WHERE workspace = ?1 AND number IN (
            SELECT number FROM mailbox_received WHERE workspace = ?1 ORDER BY number LIMIT ?4)
            AND (number <= ?2 OR received_ms < ?3)";
        let kept_after = newest.saturating_sub(self.limits.received_kept);
        let before_ms = self.now_ms.saturating_sub(self.limits.received_ms);
        let values = params![self.workspace(), kept_after, before_ms, FORGOTTEN_MAX];
        self.db.prepare_cached(sql)?.execute(values).map(drop)
    }
}
