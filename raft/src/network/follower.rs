//! What a leader has told one follower, and what is on the way to it. openraft sends a follower one message at a time, an
//! entry only once the leader has it on disk, and how far the log counts in a message of its own. Here, beside that:
//!
//! - entries go *ahead*: as soon as they are in the leader's log, while its disk syncs (Ongaro, *Consensus: Bridging Theory
//!   and Practice*, section 10.2.1). openraft's message for them then only waits for the answer to what went ahead;
//! - how far the log counts, the next entries say. Where none follow at once, a message of its own does, a moment later and
//!   beside the entries.
//!
//! openraft hears only what is true: the follower said it, to this leader in this term. And a leader counts itself only
//! when its own disk has synced; what it sent ahead and lost it must never number again, so that it does not go on in its
//! term after a restart (`LogStore::stand_again`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::NodeId;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::time::Instant;

use super::{CallError, Links, TransportError, wire};
use crate::type_config::{RaftEntry, TypeConfig};
use crate::types::{LogId, Vote};

/// How long a commit waits for entries that carry it.
const WAIT: Duration = Duration::from_millis(1);
/// The same where entries follow each other closely: then most commits need no message of their own, and who follows is this
/// much behind at most.
const WAIT_AMONG_MANY: Duration = Duration::from_millis(10);
/// Entries follow each other closely when they come in less than this.
const CLOSELY: Duration = Duration::from_millis(20);
/// How many messages are on the way ahead to one follower.
const AHEAD_MAX: usize = 8;
/// The longest message that goes ahead, in bytes: what transports keep in order.
const AHEAD_BYTES_MAX: usize = 64 << 10;

type Append = AppendEntriesRequest<TypeConfig>;

/// One follower, as its leader knows it. A handle: clones share it.
#[derive(Clone, Default)]
pub struct Follower {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The last entry that the follower said it has, and to whom.
    has: Option<(Vote, LogId)>,
    /// The last entry of the message that openraft waits for, if it is one that keeps its place among others.
    under_way: Option<(Vote, LogId)>,
    ahead: VecDeque<Ahead>,
    /// How far the follower was told that the log counts.
    told: Option<LogId>,
    /// Says how far the log counts, and when, unless something else does before.
    commit: Option<(Append, Instant)>,
    /// A task will look.
    scheduled: bool,
    /// When entries were sent last, and whether others were sent closely before them.
    sent_at: Option<Instant>,
    among_many: bool,
    /// How long a message may take.
    within: Duration,
}

/// Entries that went ahead.
struct Ahead {
    vote: Vote,
    before: LogId,
    last: LogId,
    answer: Answer,
}

/// What will come of a message that went ahead.
pub type Answer = BoxFuture<'static, Result<Bytes, TransportError>>;

impl State {
    /// Where entries that go ahead have to begin.
    fn end(&self, vote: &Vote) -> Option<LogId> {
        let ahead = self.ahead.back().map(|ahead| (ahead.vote, ahead.last));
        let (to, end) = ahead.or(self.under_way).or(self.has)?;
        (to == *vote).then_some(end)
    }

    /// Entries are sent.
    fn sends_entries(&mut self) {
        let now = Instant::now();
        self.among_many = self.sent_at.replace(now).is_some_and(|before| now - before < CLOSELY);
    }
}

impl Follower {
    /// Sends the entries that the leader with `vote` has just put into its log, if the follower has, or is being sent,
    /// all before them.
    pub fn send_ahead(&self, links: &Arc<Links>, node: u64, vote: &Vote, entries: &[RaftEntry]) {
        let mut state = self.lock();
        let (Some(before), Some(first), Some(last)) = (state.end(vote), entries.first(), entries.last()) else {
            return;
        };
        if before.index + 1 != first.log_id.index || state.ahead.len() >= AHEAD_MAX {
            return;
        }
        let entries = entries.to_vec();
        let last = last.log_id;
        let request = Append { vote: *vote, prev_log_id: Some(before), entries, leader_commit: state.told };
        let message = wire::append(links.group, &request);
        if message.len() > AHEAD_BYTES_MAX {
            return;
        }
        state.commit = None;
        state.sends_entries();
        let (links, within) = (Arc::clone(links), state.within);
        let mut call = async move { links.transport.call(NodeId(node), message, within).await }.boxed();
        // This sends it, if there is a connection; who needs the answer waits for it, and no task in between.
        let answer = match call.as_mut().now_or_never() {
            Some(answer) => ready(answer).boxed(),
            None => call,
        };
        state.ahead.push_back(Ahead { vote: *vote, before, last, answer });
    }

    /// openraft sends `request`. Returns what will answer the entries in it, if all of them went ahead.
    pub fn begin(&self, request: &Append, within: Duration) -> Option<Vec<Answer>> {
        let mut state = self.lock();
        state.within = within;
        state.under_way = None;
        let last = request.entries.last()?.log_id;
        let (mut at, mut answers) = (request.prev_log_id, Vec::new());
        while let Some(next) = state.ahead.pop_front() {
            if next.vote != request.vote || at != Some(next.before) || next.last.index > last.index {
                break;
            }
            answers.push(next.answer);
            if next.last == last {
                state.under_way = Some((request.vote, last));
                return Some(answers);
            }
            at = Some(next.last);
        }
        // What is on the way does no harm, and nobody waits for its answers.
        state.ahead.clear();
        None
    }

    /// A message of openraft's own begins its way.
    pub fn sends(&self, request: &Append, bytes: usize) {
        let mut state = self.lock();
        state.told = state.told.max(request.leader_commit);
        state.commit = None;
        if !request.entries.is_empty() {
            state.sends_entries();
        }
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        state.under_way = last.filter(|_| bytes <= AHEAD_BYTES_MAX).map(|last| (request.vote, last));
    }

    /// The follower answered a request of `vote` whose last entry was `sent`.
    pub fn answered(&self, vote: Vote, sent: Option<LogId>, answer: &AppendEntriesResponse<u64>) {
        let has = match answer {
            AppendEntriesResponse::Success => sent,
            AppendEntriesResponse::PartialSuccess(matching) => *matching,
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
        };
        let mut state = self.lock();
        state.under_way = None;
        state.has = has.map(|has| (vote, has));
    }

    /// Whether `request` says nothing but how far the log counts, to a follower that has all before.
    pub fn is_commit_only(&self, request: &Append) -> bool {
        let state = self.lock();
        let has = request.prev_log_id.map(|before| (request.vote, before));
        request.entries.is_empty() && has.is_some() && state.has == has && request.leader_commit > state.told
    }

    /// Sends `request`, which says how far the log counts, in a moment, unless something else says as much before.
    pub fn tell_later(&self, links: &Arc<Links>, node: u64, request: Append, within: Duration) {
        let mut state = self.lock();
        state.told = request.leader_commit;
        let wait = if state.among_many { WAIT_AMONG_MANY } else { WAIT };
        let due = Instant::now() + wait;
        let due = state.commit.as_ref().map_or(due, |(_, before)| due.min(*before));
        state.commit = Some((request, due));
        if std::mem::replace(&mut state.scheduled, true) {
            return;
        }
        let (links, follower) = (Arc::clone(links), self.clone());
        tokio::spawn(async move {
            let mut due = due;
            let request = loop {
                tokio::time::sleep_until(due).await;
                let mut state = follower.lock();
                match &state.commit {
                    Some((_, later)) if *later > due => due = *later,
                    Some(_) | None => {
                        state.scheduled = false;
                        break state.commit.take().map(|(request, _)| request);
                    }
                }
            };
            if let Some(request) = request {
                let message = wire::append(links.group, &request);
                // One that is lost is made up for by the next heartbeat.
                if let Err(error) = links.transport.call(NodeId(node), message, within).await {
                    tracing::debug!(node = %format_args!("{node:x}"), %error, "a commit was not told");
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what answers entries that went ahead. Returns nothing where they have to be sent again.
pub async fn heard(
    node: u64,
    vote: Vote,
    answers: Vec<Answer>,
) -> Option<Result<AppendEntriesResponse<u64>, CallError>> {
    for answer in answers {
        let answer = match answer.await {
            Ok(answer) => wire::take_append_answer(&answer),
            Err(error) => return Some(Err(error.into())),
        };
        match answer {
            Ok(AppendEntriesResponse::Success) => {}
            Ok(AppendEntriesResponse::HigherVote(higher)) if higher > vote => {
                return Some(Ok(AppendEntriesResponse::HigherVote(higher)));
            }
            Ok(_) => return None,
            Err(source) => return Some(Err(CallError::Answer { node, source })),
        }
    }
    Some(Ok(AppendEntriesResponse::Success))
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::*;

    fn at(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    fn entry(index: u64) -> RaftEntry {
        RaftEntry { log_id: at(1, index), payload: EntryPayload::Blank }
    }

    fn request(term: u64, before: u64, commit: u64) -> Append {
        AppendEntriesRequest {
            vote: Vote::new_committed(term, 1),
            prev_log_id: Some(at(term, before)),
            entries: Vec::new(),
            leader_commit: Some(at(term, commit)),
        }
    }

    fn answer(follower: &Follower, request: &Append, answer: AppendEntriesResponse<u64>) {
        follower.sends(request, 100);
        follower.answered(request.vote, request.prev_log_id, &answer);
    }

    #[test]
    fn only_a_follower_that_has_said_so_in_this_term_is_told_later() {
        let follower = Follower::default();
        assert!(!follower.is_commit_only(&request(1, 5, 5)), "nothing was heard of the follower");
        answer(&follower, &request(1, 5, 4), AppendEntriesResponse::Success);
        assert!(follower.is_commit_only(&request(1, 5, 5)));
        assert!(!follower.is_commit_only(&request(1, 5, 4)), "it was told: this is a heartbeat");
        assert!(!follower.is_commit_only(&request(1, 6, 6)), "whether it has entry 6 is to be asked");
        assert!(!follower.is_commit_only(&request(2, 5, 6)), "another term's leader has not heard from it");
        let mut without = request(1, 5, 5);
        without.prev_log_id = None;
        assert!(!follower.is_commit_only(&without));
        answer(&follower, &request(1, 5, 4), AppendEntriesResponse::Conflict);
        assert!(!follower.is_commit_only(&request(1, 5, 5)), "it does not have it after all");
    }

    /// Keeps what was sent, and finds no fault with it.
    #[derive(Default)]
    struct Sent(Mutex<Vec<(Option<LogId>, usize)>>);

    #[async_trait::async_trait]
    impl super::super::Transport for Sent {
        async fn call(&self, _to: NodeId, message: Bytes, _within: Duration) -> Result<Bytes, TransportError> {
            if let Ok((_, wire::Request::Append(request))) = wire::request(&message) {
                self.0.lock().unwrap().push((request.prev_log_id, request.entries.len()));
            }
            Ok(wire::append_answer(&AppendEntriesResponse::Success))
        }
    }

    #[tokio::test]
    async fn entries_go_ahead_of_a_follower_that_has_all_before_and_are_not_sent_again() {
        let sent = Arc::new(Sent::default());
        let links = Arc::new(Links::new(crate::group_id::GroupId(0), NodeId(1), Arc::clone(&sent) as _, None));
        let (follower, vote) = (Follower::default(), Vote::new_committed(1, 1));
        let ahead = |vote: &Vote, from, to| {
            follower.send_ahead(&links, 2, vote, &(from..=to).map(entry).collect::<Vec<_>>());
            follower.lock().ahead.len()
        };
        assert_eq!(ahead(&vote, 6, 6), 0, "nothing was heard of it");
        answer(&follower, &request(1, 5, 4), AppendEntriesResponse::Success);
        assert_eq!(ahead(&vote, 7, 7), 0, "it lacks entry 6");
        assert_eq!(ahead(&Vote::new_committed(2, 1), 6, 6), 0, "another leader has not heard from it");
        assert_eq!(ahead(&vote, 6, 7), 1);
        assert_eq!(ahead(&vote, 8, 8), 2);
        assert_eq!(ahead(&vote, 9, 9), 3);

        let wanted = |from, to| Append { entries: (from..=to).map(entry).collect(), ..request(1, from - 1, 4) };
        let answers = follower.begin(&wanted(6, 8), WAIT).expect("both messages are on the way");
        assert_eq!(answers.len(), 2);
        assert!(matches!(heard(2, vote, answers).await, Some(Ok(AppendEntriesResponse::Success))));
        follower.answered(vote, Some(at(1, 8)), &AppendEntriesResponse::Success);
        assert_eq!(*sent.0.lock().unwrap(), [(Some(at(1, 5)), 2), (Some(at(1, 7)), 1), (Some(at(1, 8)), 1)]);

        assert!(follower.begin(&request(1, 8, 8), WAIT).is_none(), "a heartbeat");
        assert_eq!(follower.lock().ahead.len(), 1, "which takes nothing back");
        assert!(follower.begin(&wanted(7, 9), WAIT).is_none(), "openraft begins elsewhere: it has to send");
        assert_eq!(follower.lock().ahead.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_entries_that_carry_it_and_longer_where_they_follow_each_other_closely() {
        let sent = Arc::new(Sent::default());
        let links = Arc::new(Links::new(crate::group_id::GroupId(0), NodeId(1), Arc::clone(&sent) as _, None));
        let (follower, vote) = (Follower::default(), Vote::new_committed(1, 1));
        answer(&follower, &request(1, 5, 5), AppendEntriesResponse::Success);
        let has = |index| {
            follower.send_ahead(&links, 2, &vote, &[entry(index)]);
            let wanted = Append { entries: vec![entry(index)], ..request(1, index - 1, index - 1) };
            assert!(follower.begin(&wanted, WAIT).is_some(), "entry {index} went ahead");
            follower.answered(vote, Some(at(1, index)), &AppendEntriesResponse::Success);
        };
        let is_told = |index| sent.0.lock().unwrap().contains(&(Some(at(1, index)), 0));
        let told_after = async |index| {
            let began = Instant::now();
            follower.tell_later(&links, 2, request(1, index, index), WAIT);
            while !is_told(index) {
                tokio::time::sleep(WAIT / 10).await;
            }
            began.elapsed()
        };
        has(6);
        let alone = told_after(6).await;
        assert!(alone >= WAIT && alone < WAIT_AMONG_MANY / 2, "{alone:?}");
        has(7);
        let among_many = told_after(7).await;
        assert!(among_many >= WAIT_AMONG_MANY && among_many < 2 * WAIT_AMONG_MANY, "{among_many:?}");

        has(8);
        follower.tell_later(&links, 2, request(1, 8, 8), WAIT);
        tokio::time::sleep(WAIT_AMONG_MANY / 2).await;
        // It carries the commit; its own one comes later, and gets all of its time.
        has(9);
        let after = told_after(9).await;
        assert!(after >= WAIT_AMONG_MANY && after < 2 * WAIT_AMONG_MANY, "{after:?}");
        assert!(!is_told(8), "the entries said so");

        tokio::time::sleep(CLOSELY).await;
        has(10);
        assert!(told_after(10).await < WAIT_AMONG_MANY / 2);
    }

    #[tokio::test]
    async fn a_follower_that_did_not_take_what_went_ahead_is_sent_it_again() {
        let say = |answer: AppendEntriesResponse<u64>| ready(Ok(wire::append_answer(&answer))).boxed();
        let vote = Vote::new_committed(3, 1);
        let conflict = vec![say(AppendEntriesResponse::Success), say(AppendEntriesResponse::Conflict)];
        assert!(heard(2, vote, conflict).await.is_none());
        assert!(heard(2, vote, vec![say(AppendEntriesResponse::PartialSuccess(None))]).await.is_none());
        let higher = Vote::new_committed(4, 2);
        let deposed = heard(2, vote, vec![say(AppendEntriesResponse::HigherVote(higher))]).await;
        assert!(matches!(deposed, Some(Ok(AppendEntriesResponse::HigherVote(found))) if found == higher));
        let lost = ready(Err(TransportError::Refused { why: "no".to_owned() })).boxed();
        assert!(matches!(heard(2, vote, vec![lost]).await, Some(Err(CallError::Transport(_)))));
    }
}
