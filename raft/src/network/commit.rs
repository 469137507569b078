//! Tells a follower how far the log counts. Mostly the next entries say so; where none follow at once, a message of its own
//! does, a moment later and beside the entries: openraft sends a follower one message at a time, and an entry that comes
//! meanwhile would have to wait for this one's answer.
//!
//! openraft hears that the follower has what it has: only a follower that has said so, to this leader in this term, is
//! told this way. So the answer that openraft gets is true, and nothing is counted that was not said.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caxton_proto::NodeId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::{Links, wire};
use crate::types::{LogId, TypeConfig, Vote};

/// How long a commit waits for entries that carry it.
const WAIT: Duration = Duration::from_millis(1);

type Append = AppendEntriesRequest<TypeConfig>;

/// What a leader has told one follower.
#[derive(Default)]
pub struct Commits {
    /// The last entry that the follower said it has, and to whom.
    has: Option<(Vote, LogId)>,
    told: Option<LogId>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    message: Option<Append>,
    /// A task will look.
    scheduled: bool,
}

impl Commits {
    /// Whether `request` says nothing but how far the log counts, to a follower that has all before.
    pub fn is_only(&self, request: &Append) -> bool {
        let has = request.prev_log_id.map(|before| (request.vote, before));
        request.entries.is_empty() && has.is_some() && self.has == has && request.leader_commit > self.told
    }

    /// Sends `request` in a moment, unless something else says as much before.
    pub fn tell_later(&mut self, links: &Arc<Links>, node: u64, request: Append, within: Duration) {
        self.told = request.leader_commit;
        let mut waiting = lock(&self.waiting);
        waiting.message = Some(request);
        if std::mem::replace(&mut waiting.scheduled, true) {
            return;
        }
        let (links, waiting) = (Arc::clone(links), Arc::clone(&self.waiting));
        tokio::spawn(async move {
            tokio::time::sleep(WAIT).await;
            let message = {
                let mut waiting = lock(&waiting);
                waiting.scheduled = false;
                waiting.message.take()
            };
            if let Some(request) = message {
                let message = wire::append(links.group, &request);
                // One that is lost is made up for by the next heartbeat.
                if let Err(error) = links.transport.call(NodeId(node), message, within).await {
                    tracing::debug!(node = %format_args!("{node:x}"), %error, "a commit was not told");
                }
            }
        });
    }

    /// `request` is being sent: what waits has nothing to add to it.
    pub fn carried_by(&mut self, request: &Append) {
        self.told = self.told.max(request.leader_commit);
        lock(&self.waiting).message = None;
    }

    /// The follower answered a request of `vote` whose last entry was `sent`.
    pub fn answered(&mut self, vote: Vote, sent: Option<LogId>, answer: &AppendEntriesResponse<u64>) {
        let has = match answer {
            AppendEntriesResponse::Success => sent,
            AppendEntriesResponse::PartialSuccess(matching) => *matching,
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
        };
        self.has = has.map(|has| (vote, has));
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn at(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    fn request(term: u64, before: u64, commit: u64) -> Append {
        AppendEntriesRequest {
            vote: Vote::new_committed(term, 1),
            prev_log_id: Some(at(term, before)),
            entries: Vec::new(),
            leader_commit: Some(at(term, commit)),
        }
    }

    #[test]
    fn only_a_follower_that_has_said_so_in_this_term_is_told_later() {
        let mut commits = Commits::default();
        assert!(!commits.is_only(&request(1, 5, 5)), "nothing was heard of the follower");
        let answer = |commits: &mut Commits, request: &Append, answer| {
            commits.carried_by(request);
            commits.answered(request.vote, request.prev_log_id, &answer);
        };
        answer(&mut commits, &request(1, 5, 4), AppendEntriesResponse::Success);
        assert!(commits.is_only(&request(1, 5, 5)));
        assert!(!commits.is_only(&request(1, 5, 4)), "it was told: this is a heartbeat");
        assert!(!commits.is_only(&request(1, 6, 6)), "whether it has entry 6 is to be asked");
        assert!(!commits.is_only(&request(2, 5, 6)), "another term's leader has not heard from it");
        let mut without = request(1, 5, 5);
        without.prev_log_id = None;
        assert!(!commits.is_only(&without));
        answer(&mut commits, &request(1, 5, 4), AppendEntriesResponse::Conflict);
        assert!(!commits.is_only(&request(1, 5, 5)), "it does not have it after all");
    }
}
