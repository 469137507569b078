//! What is due: expiry, deadlines, what an older term had started, subscriptions that are behind, and what is long over.

use caxton_proto::mailbox::Outcome;
use rusqlite::{Result, params};

use super::Run;
use crate::tables::{given, stored};

impl Run<'_> {
    pub(super) fn tick(&self, term: u64) -> Result<Outcome> {
        let most = self.limits.tick_max;
        let mut changed = self.release(stored(term), most)?;
        changed += self.shorten_pauses(most.saturating_sub(changed))?;
        changed += self.expire(most.saturating_sub(changed))?;
        changed += self.lapse(most.saturating_sub(changed))?;
        // After the deadlines: what those say in the conversation of a wait is for its turn.
        changed += self.end_waits(most.saturating_sub(changed))?;
        changed += self.pump(most.saturating_sub(changed))?;
        // However much is published, what is long over goes.
        let share = (most / 4).max(1);
        changed += self.forget_conversations(most.saturating_sub(changed).max(share))?;
        changed += self.forget_keys(most.saturating_sub(changed).max(share))?;
        Ok(Outcome::Ticked { changed: given(changed), more: changed >= most })
    }

    /// What an older term had started is tried again at once: nobody knows how far it came. An agent's attempt counts, since its
    /// message may be what ended the node; one of a message that is carried does not, since nothing is done with that here.
    fn release(&self, term: i64, most: i64) -> Result<i64> {
        let mut left = self.deliveries("state = 1 AND term < ?2", term, most)?;
        let sql = "SELECT instr(owner, '@') > 0 FROM mailbox WHERE mailbox = ?1";
        for of in &mut left {
            let is_carried: bool = self.db.prepare_cached(sql)?.query_row([of.mailbox], |row| row.get(0))?;
            of.attempts = of.attempts.saturating_sub(u32::from(is_carried));
            // Due as it was: this leader's clock may be ahead of the next one's.
            let pause_ms = of.due_ms.saturating_sub(self.now_ms).min(0);
            self.retry(of, "its node stopped leading before there was an outcome", pause_ms)?;
        }
        Ok(left.len() as i64)
    }

    /// A leader whose clock was ahead gave pauses that end late by this one's: they last as long as the longest from now on.
    fn shorten_pauses(&self, most: i64) -> Result<i64> {
        let sql = "UPDATE mailbox_delivery SET due_ms = ?2 WHERE delivery IN (SELECT delivery FROM mailbox_delivery
            WHERE state = 2 AND attempts > 0 AND due_ms > ?2 AND workspace = ?1 ORDER BY +delivery LIMIT ?3)";
        let latest_ms = self.now_ms.saturating_add(self.limits.retry_ms_max);
        let shortened = self.db.prepare_cached(sql)?.execute(params![self.workspace(), latest_ms, most])?;
        Ok(shortened as i64)
    }

    fn expire(&self, most: i64) -> Result<i64> {
        let condition = "expires_ms IS NOT NULL AND state IN (0, 2) AND expires_ms <= ?2";
        let old = self.deliveries(condition, self.now_ms, most)?;
        old.iter().try_for_each(|of| self.bury(of, "it expired"))?;
        Ok(old.len() as i64)
    }

    fn forget_keys(&self, most: i64) -> Result<i64> {
        let sql = "DELETE FROM mailbox_message WHERE message IN (SELECT message FROM mailbox_message
            WHERE workspace = ?1 AND gone_ms IS NOT NULL AND gone_ms < ?2 ORDER BY message LIMIT ?3)";
        let before_ms = self.now_ms.saturating_sub(self.limits.key_ms);
        let gone = self.db.prepare_cached(sql)?.execute(params![self.workspace(), before_ms, most])?;
        Ok(gone as i64)
    }
}
