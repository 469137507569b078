//! A message for an agent of another workspace is carried there. Until it was taken in there it lies in its sender's workspace, in
//! a mailbox of the receiver's address, where it is tried again, expires, and becomes a dead letter as any other.

use caxton_messages::Ready;
use caxton_messages::acl::Address;
use caxton_messages::mailbox::Verdict;

use super::words::{cut, now_ms};
use super::{Courier, LEAD_WAIT, PAUSES_MAX, REASON_BYTES_MAX, Settling};
use crate::activity::line;
use crate::app::places::MailboxOf;
use crate::cluster::intake::IntakeOutcome;

impl Courier {
    /// Brings a message to another workspace, and settles it once that has it, or will not have it.
    pub(in crate::app) async fn carry(&self, term: u64, of: &MailboxOf, ready: Ready) {
        let (workspace, owner) = of;
        let Address::Elsewhere { agent, workspace: other } = owner else { return };
        let name = owner.to_string();
        let whose = (workspace, name.as_str());
        self.note_as(whose, &ready, line("carried", ready.submission.message.performative.name()));
        let (mut pauses, mut was_refused) = (0, false);
        loop {
            let reason = match self.forged(workspace, owner, &ready).await {
                Some(Ok(forged)) => return self.settle_as(term, whose, &ready, forged).await,
                Some(Err(reason)) => reason,
                None => match self.post.carry(workspace, (agent, other), &ready.submission).await {
                    IntakeOutcome::Taken => {
                        let taken = Settling::done(&format!("workspace {other} has it"), Vec::new());
                        return self.settle_as(term, whose, &ready, taken).await;
                    }
                    // This node may not know yet what was deployed a moment ago: a refusal counts when it is the second.
                    IntakeOutcome::Refused(reason) if !std::mem::replace(&mut was_refused, true) => {
                        cut(reason, REASON_BYTES_MAX)
                    }
                    IntakeOutcome::Refused(reason) => {
                        let dead = Settling::of(Verdict::Dead(cut(reason, REASON_BYTES_MAX)));
                        return self.settle_as(term, whose, &ready, dead).await;
                    }
                    IntakeOutcome::Later(reason) => cut(reason, REASON_BYTES_MAX),
                },
            };
            let expired = ready.submission.expires_ms.is_some_and(|at_ms| at_ms <= now_ms());
            if pauses >= PAUSES_MAX || expired {
                return self.settle_as(term, whose, &ready, Settling::of(Verdict::Retry(reason))).await;
            }
            self.pause_as(whose, &ready, pauses, reason).await;
            pauses += 1;
            if !matches!(self.mailboxes.shard().lead(LEAD_WAIT).await, Ok(leads) if leads == term) {
                return;
            }
        }
    }
}
