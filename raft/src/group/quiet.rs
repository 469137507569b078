//! A voter that was just started waits for a leader before it stands for election by its timer. The others have to find it
//! first, which takes them longer than the timer does, the more so when it has another address than before; it would take the
//! group from a leader that is there. When it has waited it asks the other voters, and waits on while one of them leads.
//!
//! Only time is lost, and only where all voters were away at once: they elect so much later. Whoever else stands has this
//! voter's vote meanwhile. For the same reason etcd asks before it stands: "PreVote" in section 9.6 of
//! <https://github.com/ongardie/dissertation>.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::NodeId;
use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::network::{Links, wire};
use crate::types::Raft;

/// Keeps a group with other voters from elections by the timer until a leader was heard, or for `longest` to twice as long,
/// which each node draws for itself, and for `longest` again while another voter leads. In a task that ends with the group.
pub async fn start(raft: &Raft, links: &Arc<Links>, longest: Duration) -> Option<JoinHandle<()>> {
    let own = links.node.0;
    // The metrics say nothing yet.
    let others = raft.with_raft_state(move |state| {
        let voters = state.membership_state.effective().voter_ids();
        voters.filter(|id| *id != own).map(NodeId).collect::<Vec<_>>()
    });
    let others = others.await.unwrap_or_default();
    if others.is_empty() {
        return None;
    }
    raft.runtime_config().elect(false);
    let (raft, links) = (raft.clone(), Arc::clone(links));
    let mut wait = longest + drawn(longest);
    Some(tokio::spawn(async move {
        while tokio::time::timeout(wait, links.first_led()).await.is_err() && one_leads(&links, &others, longest).await
        {
            wait = longest;
        }
        raft.runtime_config().elect(true);
    }))
}

/// Whether one of these nodes leads and has a majority.
async fn one_leads(links: &Links, nodes: &[NodeId], within: Duration) -> bool {
    let ask = |node: &NodeId| links.transport.call(*node, wire::read(links.group), within);
    let answers = join_all(nodes.iter().map(ask)).await;
    answers.into_iter().flatten().any(|answer| wire::take_read_answer(&answer).is_ok_and(|upto| upto.is_some()))
}

/// Some time up to `most`.
fn drawn(most: Duration) -> Duration {
    let chance = uuid::Uuid::new_v4().as_u64_pair().1 as u32;
    most.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use openraft::BasicNode;

    use super::*;
    use crate::group::{Groups, Timers};
    use crate::group_id::GroupId;
    use crate::network::{Peers, Transport, TransportError};
    use crate::store::Store;
    use crate::suite::Journal;

    /// Two other voters who vote for nobody. One of them may say that it leads.
    struct Others {
        one_leads: AtomicBool,
    }

    #[async_trait]
    impl Transport for Others {
        async fn call(&self, _to: NodeId, message: Bytes, _within: Duration) -> Result<Bytes, TransportError> {
            match wire::request(&message) {
                Ok((_, wire::Request::Read)) => {
                    Ok(wire::read_answer(self.one_leads.load(Ordering::Relaxed).then_some(1)))
                }
                _ => Err(TransportError::Refused { why: "nothing else is answered".to_owned() }),
            }
        }
    }

    #[tokio::test]
    async fn a_voter_that_starts_does_not_stand_while_another_one_leads() {
        let dir = tempfile::tempdir().expect("a folder");
        let others = Arc::new(Others { one_leads: AtomicBool::new(true) });
        let [heartbeat, election_min, election_max] = [10, 40, 60].map(Duration::from_millis);
        let timers = Timers { heartbeat, election_min, election_max, ..Timers::default() };
        let store = Store::open(dir.path()).expect("a store");
        let groups = Groups::new(store, NodeId(1), timers, Arc::clone(&others) as Arc<dyn Transport>);
        let group = GroupId(7);
        let (log, applier) = groups.read(group, Arc::new(Journal::default())).await.expect("an empty log");
        let links = Arc::new(Links::new(group, NodeId(1), Arc::clone(&others) as Arc<dyn Transport>, None));
        let config = Arc::new(groups.config().expect("timers that fit"));
        let raft = Raft::new(1, config, Peers(Arc::clone(&links)), log, applier).await.expect("a group");
        let voters: BTreeMap<u64, BasicNode> = (1..=3).map(|id| (id, BasicNode::default())).collect();
        raft.initialize(voters).await.expect("its members");

        let quiet = start(&raft, &links, election_max).await.expect("there are others");
        let term = || raft.metrics().borrow().current_term;
        // It may stand once because it was initialized, which nobody does to a voter that was there before.
        tokio::time::sleep(election_max).await;
        let before = term();
        tokio::time::sleep(20 * election_max).await;
        assert_eq!(term(), before, "it has stood for election");
        others.one_leads.store(false, Ordering::Relaxed);
        let wait = raft.wait(Some(Duration::from_secs(60)));
        wait.metrics(|now| now.current_term > before, "it stands").await.expect("nobody leads, so it stands");
        quiet.await.expect("it has ended");
        raft.shutdown().await.expect("it ends");
    }
}
