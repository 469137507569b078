//! A voter asks before it stands for election by its timer: only where a majority, itself included, hears no leader, does
//! it stand. One that is cut off, or was just started, so never raises the group's term for nothing, and never takes the
//! group from a leader that is there: "PreVote" in section 9.6 of <https://github.com/ongardie/dissertation>.
//!
//! Only time is lost on it, and nothing decided: a vote is a vote. openraft's own timer stands as soon as it may, which is
//! while the gate here is open. A voter that was just started waits first: the others have to find it, which takes them
//! longer than the timer does, the more so when it has another address than before.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::NodeId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Timers;
use crate::network::{Links, TransportError, wire};
use crate::type_config::Raft;
use crate::types::Vote;

/// For so long after a leader was heard a voter votes for nobody else: openraft's lease.
pub fn lease(timers: &Timers) -> Duration {
    timers.election_max / 2
}

/// Keeps the gate, in a task that ends with the group.
pub fn start(raft: &Raft, links: &Arc<Links>, timers: &Timers) -> JoinHandle<()> {
    raft.runtime_config().elect(false);
    let gate = Gate {
        raft: raft.clone(),
        links: Arc::clone(links),
        lease: lease(timers),
        heartbeat: timers.heartbeat,
        longest: timers.election_max,
        hope_until: Instant::now() + timers.election_max + drawn(timers.election_max),
    };
    tokio::spawn(gate.keep())
}

struct Gate {
    raft: Raft,
    links: Arc<Links>,
    lease: Duration,
    heartbeat: Duration,
    longest: Duration,
    /// Until then a leader is hoped for that never was heard.
    hope_until: Instant,
}

/// What a voter knows of its group.
struct VoterView {
    vote: Vote,
    leads: bool,
    votes: bool,
    others: Vec<NodeId>,
}

impl Gate {
    async fn keep(self) {
        let mut pause = self.heartbeat;
        let mut leads_since = None;
        loop {
            let Some(seen) = self.look().await else { return };
            // Who is the only voter is asked by nobody and has nobody to ask.
            let alone = seen.others.is_empty();
            if alone || !seen.votes || seen.leads {
                self.raft.runtime_config().elect(alone);
                leads_since = seen.leads.then(|| leads_since.unwrap_or_else(Instant::now));
                let absent = match leads_since {
                    Some(since) => {
                        since.elapsed() > self.patience() && !self.links.is_followed(&seen.others, self.patience())
                    }
                    None => self.links.unled().is_some_and(|silence| silence > self.patience()),
                };
                self.links.set_absent(absent.then_some(seen.vote));
                tokio::time::sleep(if absent { self.heartbeat } else { self.lease }).await;
                continue;
            }
            leads_since = None;
            if self.links.unled().is_some_and(|silence| silence > self.patience()) {
                self.links.set_absent(Some(seen.vote));
            }
            if let Some(left) = self.hopes() {
                pause = self.heartbeat;
                self.raft.runtime_config().elect(false);
                tokio::time::sleep(left.max(Duration::from_millis(1))).await;
                continue;
            }
            let grants = self.canvass(&seen.others).await;
            self.raft.runtime_config().elect(grants);
            // Open for one try: what comes of it is seen then, and asked for again.
            let wait = if grants { self.longest } else { pause };
            pause = (pause * 2).min(self.longest);
            _ = tokio::time::timeout(wait, self.links.led_again()).await;
        }
    }

    /// Nothing when the group has stopped.
    async fn look(&self) -> Option<VoterView> {
        let own = self.links.node.0;
        // The metrics say nothing yet when a group was just opened.
        let seen = self.raft.with_raft_state(move |state| {
            let voters: Vec<u64> = state.membership_state.effective().voter_ids().collect();
            VoterView {
                vote: *state.vote_ref(),
                leads: state.server_state == ServerState::Leader,
                votes: voters.contains(&own),
                others: voters.into_iter().filter(|id| *id != own).map(NodeId).collect(),
            }
        });
        seen.await.ok()
    }

    /// How long nothing is heard of a leader, or of a majority, before it is taken for lost.
    fn patience(&self) -> Duration {
        self.longest * 2
    }

    /// How long a leader is still hoped for, if one is.
    fn hopes(&self) -> Option<Duration> {
        match self.links.unled() {
            Some(silence) => self.lease.checked_sub(silence),
            None => self.hope_until.checked_duration_since(Instant::now()),
        }
        .filter(|left| !left.is_zero())
    }

    /// Whether a majority hears no leader, this node included.
    async fn canvass(&self, others: &[NodeId]) -> bool {
        let need = others.len().div_ceil(2);
        let ask = |node: NodeId| async move {
            let message = wire::canvass(self.links.group);
            match self.links.transport.call(node, message, self.longest).await {
                Ok(answer) => wire::take_canvass_answer(&answer).is_ok_and(|hears_a_leader| !hears_a_leader),
                // It is there, and of a build that cannot be asked.
                Err(TransportError::Refused { .. }) => true,
                Err(TransportError::Unreachable { .. }) => false,
            }
        };
        let mut asked: FuturesUnordered<_> = others.iter().map(|node| ask(*node)).collect();
        let mut granted = 0;
        while let Some(grants) = asked.next().await {
            granted += usize::from(grants);
            if granted >= need {
                return true;
            }
            if granted + asked.len() < need {
                return false;
            }
        }
        granted >= need
    }
}

/// Some time up to `most`.
fn drawn(most: Duration) -> Duration {
    let chance = uuid::Uuid::new_v4().as_u64_pair().1 as u32;
    most.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU8, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use openraft::BasicNode;

    use super::*;
    use crate::group::{Birth, Groups, ProposeError, Role};
    use crate::group_id::GroupId;
    use crate::network::{Peers, Transport};
    use crate::store::Store;
    use crate::suite::{Journal, Near, Way};

    const HEARS_A_LEADER: u8 = 0;
    const UNREACHABLE: u8 = 1;
    const HEARS_NOBODY: u8 = 2;

    /// Two other voters who vote for nobody.
    struct Others(AtomicU8);

    #[async_trait]
    impl Transport for Others {
        async fn call(&self, to: NodeId, message: Bytes, _within: Duration) -> Result<Bytes, TransportError> {
            let how = self.0.load(Ordering::Relaxed);
            match wire::request(&message) {
                Ok((_, wire::Request::Canvass)) if how != UNREACHABLE => {
                    Ok(wire::canvass_answer(how == HEARS_A_LEADER))
                }
                _ => Err(TransportError::Unreachable { node: to, source: "nothing else is answered".into() }),
            }
        }
    }

    #[tokio::test]
    async fn a_leader_without_a_majority_is_named_no_more_and_takes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let others = Arc::new(Others(AtomicU8::new(UNREACHABLE)));
        let [heartbeat, election_min, election_max] = [10, 40, 60].map(Duration::from_millis);
        let timers = Timers { heartbeat, election_min, election_max, ..Timers::default() };
        let store = Store::open(dir.path()).expect("a store");
        let groups = Groups::new(store, NodeId(1), timers, others);
        let machine = Arc::new(Journal::default());
        let group = groups.open(GroupId(7), machine, Birth::Founded).await.expect("a group");
        group.propose(Bytes::from_static(b"alone")).await.expect("it is the only voter");
        group.add_learner(NodeId(2)).await.expect("decided alone");
        // Nobody asks whether that one is there, so the change is never decided.
        let change = tokio::spawn({
            let group = group.clone();
            async move { group.set_voters([1, 2].map(NodeId).into()).await }
        });
        let mut status = group.status();
        let told = status.wait_for(|status| status.leader.is_none() && status.role == Role::Leader);
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("in time").expect("it runs");
        let refused = group.propose(Bytes::from_static(b"never")).await;
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
        assert!(!group.answers(NodeId(2)).await);
        change.abort();
        group.shutdown().await;
    }

    #[tokio::test]
    async fn a_voter_stands_only_when_a_majority_hears_no_leader() {
        let dir = tempfile::tempdir().expect("a folder");
        let others = Arc::new(Others(AtomicU8::new(HEARS_A_LEADER)));
        let [heartbeat, election_min, election_max] = [10, 40, 60].map(Duration::from_millis);
        let timers = Timers { heartbeat, election_min, election_max, ..Timers::default() };
        let store = Store::open(dir.path()).expect("a store");
        let groups = Groups::new(store, NodeId(1), timers.clone(), Arc::clone(&others) as Arc<dyn Transport>);
        let group = GroupId(7);
        let (log, applier) = groups.read(group, Arc::new(Journal::default())).await.expect("an empty log");
        let links = Arc::new(Links::new(group, NodeId(1), Arc::clone(&others) as Arc<dyn Transport>, None));
        let config = Arc::new(groups.config().expect("timers that fit"));
        let raft = Raft::new(1, config, Peers(Arc::clone(&links)), log, applier).await.expect("a group");
        let voters: BTreeMap<u64, BasicNode> = (1..=3).map(|id| (id, BasicNode::default())).collect();
        raft.initialize(voters).await.expect("its members");

        let gate = start(&raft, &links, &timers);
        let term = || raft.metrics().borrow().current_term;
        // It may stand once because it was initialized, which nobody does to a voter that was there before.
        tokio::time::sleep(election_max).await;
        let before = term();
        tokio::time::sleep(20 * election_max).await;
        assert_eq!(term(), before, "it has stood although another one leads");
        others.0.store(UNREACHABLE, Ordering::Relaxed);
        tokio::time::sleep(20 * election_max).await;
        assert_eq!(term(), before, "it has stood although nobody can vote for it");
        others.0.store(HEARS_NOBODY, Ordering::Relaxed);
        let wait = raft.wait(Some(Duration::from_secs(60)));
        wait.metrics(|now| now.current_term > before, "it stands").await.expect("nobody leads, so it stands");
        gate.abort();
        raft.shutdown().await.expect("it ends");
    }

    #[tokio::test]
    async fn a_leader_whose_followers_answer_late_is_there_nevertheless() {
        let near = Arc::new(Near::default());
        let [heartbeat, election_min, election_max] = [100, 3000, 4000].map(Duration::from_millis);
        let timers = Timers { heartbeat, election_min, election_max, ..Timers::default() };
        let (mut places, mut groups) = (Vec::new(), Vec::new());
        for node in [1, 2].map(NodeId) {
            let dir = tempfile::tempdir().expect("a folder");
            let store = Store::open(dir.path()).expect("a store");
            let end = Groups::new(store, node, timers.clone(), Arc::new(Way(node, Arc::clone(&near))));
            near.opens(node, end.clone());
            let birth = if node == NodeId(1) { Birth::Founded } else { Birth::Joined };
            let machine = Arc::new(Journal::default());
            groups.push(end.open(GroupId(7), machine, birth).await.expect("a group"));
            places.push(dir);
        }
        let leader = &groups[0];
        leader.add_learner(NodeId(2)).await.expect("it follows");
        leader.set_voters([1, 2].map(NodeId).into()).await.expect("both vote");
        let before = leader.status().borrow().term;

        // Later than a beat and sooner than an election, as on a machine that has other work.
        near.answers_after(heartbeat * 3 / 2);
        let end = near.end(NodeId(1)).expect("it is open");
        let answer = end.answer(NodeId(2), wire::canvass(GroupId(7))).await.expect("it answers");
        assert!(wire::take_canvass_answer(&answer).expect("an answer"), "it has a majority");
        assert_eq!(leader.status().borrow().term, before);
        for group in groups {
            group.shutdown().await;
        }
        near.closes();
    }
}
