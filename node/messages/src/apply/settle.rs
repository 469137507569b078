//! What becomes of deliveries: they are started, settled, tried again and dropped.

use std::collections::BTreeMap;

use caxton_proto::mailbox::{Fate, Outcome, Reason, Receipt, Settlement, Submission, Verdict};
use rusqlite::Result;

use super::Run;
use super::deliver::{Change, Delivery};
use crate::tables::{state, stored};

impl Run<'_> {
    /// Notes that deliveries are given to their receivers: those that are ready, once each.
    pub(super) fn start(&self, deliveries: &[u64]) -> Result<Vec<u64>> {
        let mut started = Vec::new();
        for number in deliveries {
            let Some(of) = self.delivery(stored(*number))? else { continue };
            let waits = of.state == state::READY || (of.state == state::RETRY && of.due_ms <= self.now_ms);
            if !waits || of.expires_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
                continue;
            }
            self.served(&of)?;
            let (attempts, due_ms, expires_ms) = (of.attempts.saturating_add(1), of.due_ms, of.expires_ms);
            self.change(&of, &Change { state: state::STARTED, attempts, due_ms, expires_ms, reason: None })?;
            started.push(*number);
        }
        Ok(started)
    }

    /// Says what became of a delivery. One that is not under way in this attempt changes nothing, so that there is one outcome.
    pub(super) fn settle(
        &self,
        delivery: u64,
        attempt: u32,
        verdict: &Verdict,
        submissions: &[Submission],
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Outcome> {
        let Some(of) = self.delivery(stored(delivery))? else { return Ok(Outcome::Stale) };
        if !matches!(of.state, state::STARTED | state::PARKED) || of.attempts != attempt {
            return Ok(Outcome::Stale);
        }
        let settlement = match verdict {
            Verdict::Retry(_) | Verdict::Dead(_) if !submissions.is_empty() || !changes.is_empty() => {
                let field = "messages and state come only with a delivery that is done".to_owned();
                return Ok(Outcome::Refused(Reason::Field { field }));
            }
            Verdict::Done(_) => {
                if let Some(reason) = self.change_state(of.mailbox, changes)? {
                    return Ok(Outcome::Refused(reason));
                }
                self.remove(&of)?;
                Settlement::Done
            }
            Verdict::Retry(reason) => {
                self.next_round(&of)?;
                self.retry(&of, reason, self.limits.pause_ms(of.attempts))?
            }
            Verdict::Dead(reason) => {
                self.bury(&of, reason)?;
                Settlement::Dead { reason: reason.clone() }
            }
        };
        let mut receipts = Vec::new();
        for submission in submissions {
            let fate = self.accept(submission)?;
            if let Fate::Refused(reason) = &fate {
                self.keep_refused(submission, reason)?;
            }
            receipts.push(Receipt { id: submission.id, fate });
        }
        Ok(Outcome::Settled { settlement, receipts })
    }

    /// The turn of a delivery that is under way was put down.
    pub(super) fn park(&self, delivery: u64, attempt: u32) -> Result<Outcome> {
        let Some(of) = self.delivery(stored(delivery))? else { return Ok(Outcome::Stale) };
        if of.state != state::STARTED || of.attempts != attempt {
            return Ok(Outcome::Stale);
        }
        let (attempts, due_ms, expires_ms) = (of.attempts, of.due_ms, of.expires_ms);
        self.change(&of, &Change { state: state::PARKED, attempts, due_ms, expires_ms, reason: None })?;
        Ok(Outcome::Started(vec![delivery]))
    }

    /// Another attempt after a pause, or none where that was the last.
    pub(super) fn retry(&self, of: &Delivery, reason: &str, pause_ms: i64) -> Result<Settlement> {
        if of.attempts >= self.limits.attempts_max {
            let reason = format!("{} attempts failed; the last: {reason}", of.attempts);
            self.bury(of, &reason)?;
            return Ok(Settlement::Dead { reason });
        }
        let at_ms = self.now_ms.saturating_add(pause_ms);
        let (attempts, expires_ms) = (of.attempts, of.expires_ms);
        self.change(of, &Change { state: state::RETRY, attempts, due_ms: at_ms, expires_ms, reason: Some(reason) })?;
        Ok(Settlement::Retry { at_ms })
    }

    /// Dead letters wait once more, as if they had just come, and do not expire.
    pub(super) fn redrive(&self, deliveries: &[u64]) -> Result<Vec<u64>> {
        let mut moved = Vec::new();
        for number in deliveries {
            let Some(of) = self.delivery(stored(*number))?.filter(|of| of.state == state::DEAD) else { continue };
            let due_ms = self.now_ms;
            self.next_round(&of)?;
            self.change(&of, &Change { state: state::READY, attempts: 0, due_ms, expires_ms: None, reason: None })?;
            moved.push(*number);
        }
        Ok(moved)
    }

    /// Deletes what waits for an attempt or is dead; the sender of what waits is told, as of any other failure. What is under way
    /// is settled by whoever has it, and what is kept for a turn goes with that turn's wait.
    pub(super) fn drop(&self, deliveries: &[u64]) -> Result<Vec<u64>> {
        let mut moved = Vec::new();
        for number in deliveries {
            let Some(of) = self.delivery(stored(*number))? else { continue };
            match of.state {
                state::READY | state::RETRY => self.tell_sender(&of, "it was dropped")?,
                state::DEAD => {}
                _ => continue,
            }
            self.remove(&of)?;
            moved.push(*number);
        }
        Ok(moved)
    }
}
