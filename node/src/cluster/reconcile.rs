//! Brings a group's membership in line with who belongs to the cluster, one change at a time, on the node that leads the
//! group. What the change is, [`policy`](super::policy) says.

use std::collections::BTreeSet;
use std::time::Duration;

use caxton_proto::NodeId;
use caxton_raft::deploy_log::DeployLog;
use caxton_raft::{ChangeError, Group, GroupId, Role};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::policy::{self, Step, View};
use crate::errors::chain;
use crate::time::now_ms;

/// How often the membership is looked at when nothing happens: learners catch up without telling.
const TICK: Duration = Duration::from_millis(200);
/// A learner that lacks at most this many entries has caught up.
const READY_ENTRIES_MAX: u64 = 200;
/// A node that was silent for longer is not made a voter.
const READY_SILENCE_MAX: Duration = Duration::from_secs(3);

/// Keeps one group's voters.
pub struct Voters {
    pub group: Group,
    pub id: GroupId,
    /// Says who belongs to the cluster.
    pub log: DeployLog,
    pub own: NodeId,
    /// How many may vote.
    pub voters_max: usize,
}

impl Voters {
    /// Works until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let (mut status, mut applied) = (self.group.status(), self.log.applied());
        loop {
            let leads = status.borrow_and_update().role == Role::Leader;
            applied.borrow_and_update();
            if leads {
                self.step().await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return },
                changed = applied.changed(), if leads => if changed.is_err() { return },
                () = tokio::time::sleep(TICK), if leads => {}
            }
        }
    }

    async fn step(&self) {
        let Some(step) = self.due().await else { return };
        let changed = match &step {
            Step::AddLearner(node) => self.group.add_learner(*node).await,
            Step::SetVoters(voters) => self.group.set_voters(voters.clone()).await,
            Step::Remove(node) => self.group.remove(*node).await,
            Step::HandOver(to) => self.group.hand_over(*to).await,
        };
        match changed {
            Ok(()) => info!(group = self.id.0, ?step, "the group's membership changed"),
            // Whatever it was, the next look shows what is left to do.
            Err(ChangeError::NotLeader { .. } | ChangeError::InProgress) => {}
            Err(error) => debug!(group = self.id.0, ?step, error = chain(&error), "the membership did not change"),
        }
    }

    /// The next change. Who votes changes only as those allow who answer right now: what a node said a moment ago says
    /// nothing of one that has just ended, and a vote for that one can leave the group without a majority.
    async fn due(&self) -> Option<Step> {
        let mut view = self.view();
        let step = policy::next(&view)?;
        let Step::SetVoters(voters) = &step else { return Some(step) };
        let others = view.voters.union(voters).filter(|node| **node != self.own);
        let asked = others.map(|node| async move { self.group.answers(*node).await.then_some(*node) });
        let answer: BTreeSet<NodeId> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        view.ready.retain(|node| answer.contains(node));
        policy::next(&view).filter(|now| *now == step)
    }

    /// What this node sees of the group.
    pub fn view(&self) -> View {
        let members = self.group.members().borrow().clone();
        let (belongs, departed, retiring) = self.log.read(|state| {
            let cluster = state.cluster();
            let belongs: BTreeSet<NodeId> = cluster.members().map(|member| member.facts.node).collect();
            let known = members.voters.union(&members.learners);
            let departed = known.copied().filter(|node| cluster.is_departed(*node)).collect();
            (belongs, departed, cluster.retiring(now_ms()).into_iter().collect())
        });
        View {
            own: Some(self.own),
            voters: members.voters,
            learners: members.learners,
            belongs,
            departed,
            retiring,
            ready: ready(&self.group),
            voters_max: self.voters_max,
        }
    }
}

/// Who answers and lacks next to nothing, as the leader sees it.
pub fn ready(group: &Group) -> BTreeSet<NodeId> {
    let near = group.lag().into_iter().filter(|(_, lag)| {
        lag.entries <= READY_ENTRIES_MAX && lag.silence.is_some_and(|silence| silence <= READY_SILENCE_MAX)
    });
    near.map(|(node, _)| node).collect()
}
