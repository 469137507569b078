//! Spreads the leaders of shards over the voters: a node that leads at least two more than another hands one over.
//!
//! One hand-over at a time in the whole cluster, by the node that leads most, and only while all is quiet: every group has
//! the leader that it had a while ago, and the group that moves has no change of its membership before it. The deploy log
//! stays where it is; among equals, the node that does not lead it is preferred.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caxton_proto::NodeId;
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{GroupId, Role};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::Cluster;
use super::policy;
use super::reconcile::{Voters, ready};
use crate::errors::chain;
use crate::time::now_ms;

/// How often a node looks.
const EVERY: Duration = Duration::from_millis(500);
/// How long every group must have had its leader: the pause between two hand-overs, too.
const QUIET: Duration = Duration::from_secs(2);

/// A group as a node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupView {
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// Who votes in it.
    pub voters: BTreeSet<NodeId>,
    /// Voters that could lead it now; known to the leader only.
    pub heirs: BTreeSet<NodeId>,
    /// A change of its membership is due.
    pub changing: bool,
}

/// The next hand-over, if one is due and this node's.
pub fn next(own: NodeId, groups: &BTreeMap<GroupId, GroupView>) -> Option<(GroupId, NodeId)> {
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (id, seen) in groups {
        let leader = seen.leader?;
        if *id != deploy_log::GROUP {
            *leads.entry(leader).or_default() += 1;
        }
    }
    let count = |node: &NodeId| leads.get(node).copied().unwrap_or_default();
    // Everybody sees the same leaders, so that one node takes itself for the first.
    let first = leads.keys().max_by_key(|node| (count(node), **node))?;
    if *first != own {
        return None;
    }
    let log_leader = groups.get(&deploy_log::GROUP).and_then(|seen| seen.leader);
    let mine =
        groups.iter().filter(|(id, seen)| **id != deploy_log::GROUP && seen.leader == Some(own) && !seen.changing);
    let moves = mine.flat_map(|(id, seen)| {
        let heirs = seen.heirs.iter().filter(|heir| **heir != own && seen.voters.contains(heir));
        heirs.map(|heir| (*id, *heir))
    });
    let better = moves.filter(|(_, heir)| count(heir) + 2 <= count(&own));
    better.min_by_key(|(id, heir)| (count(heir), Some(*heir) == log_leader, *heir, *id))
}

/// Carries it out.
pub struct Spread {
    pub cluster: Cluster,
    /// Says who belongs to it.
    pub log: DeployLog,
    /// How many may vote.
    pub voters_max: usize,
}

impl Spread {
    /// Works until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut known, mut since) = (BTreeMap::new(), Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.leaders();
            if now != known {
                (known, since) = (now, Instant::now());
            }
            if since.elapsed() < QUIET {
                continue;
            }
            let Some((id, to)) = next(self.cluster.own(), &self.seen()) else { continue };
            match self.cluster.hand_over(id, Some(to)).await {
                Ok(_) => info!(group = id.0, %to, "a shard is led by another node, so that each leads as many"),
                Err(error) => debug!(group = id.0, %to, error = chain(&error), "a shard was not handed over"),
            }
            since = Instant::now();
        }
    }

    /// Who leads what, since which term.
    fn leaders(&self) -> BTreeMap<GroupId, (Option<NodeId>, u64)> {
        let leader = |group: &caxton_raft::Group| {
            let status = group.status().borrow().clone();
            (status.leader, status.term)
        };
        self.cluster.groups().iter().map(|(id, group)| (*id, leader(group))).collect()
    }

    fn seen(&self) -> BTreeMap<GroupId, GroupView> {
        let own = self.cluster.own();
        let retiring = self.log.read(|state| state.cluster().retiring(now_ms()));
        let seen = |(id, group): (&GroupId, &caxton_raft::Group)| {
            let status = group.status().borrow().clone();
            let leads = status.role == Role::Leader;
            let (log, voters_max) = (self.log.clone(), self.voters_max);
            let voters = Voters { group: group.clone(), id: *id, log, own, voters_max };
            let changing = leads && policy::next(&voters.view()).is_some();
            let mut heirs = if leads { ready(group) } else { BTreeSet::new() };
            // Who is being taken out leads nothing new.
            heirs.retain(|heir| retiring != Some(*heir));
            let voters = group.members().borrow().voters.clone();
            (*id, GroupView { leader: status.leader, voters, heirs, changing })
        };
        self.cluster.groups().iter().map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Groups from 0 on with these leaders, with the nodes 1 to `nodes` as voters, all of which are near.
    fn groups(nodes: u64, leaders: &[u64]) -> BTreeMap<GroupId, GroupView> {
        let voters: BTreeSet<NodeId> = (1..=nodes).map(NodeId).collect();
        let seen = |leader: &u64| GroupView {
            leader: Some(NodeId(*leader)),
            voters: voters.clone(),
            heirs: voters.clone(),
            changing: false,
        };
        (0..).map(GroupId).zip(leaders.iter().map(seen)).collect()
    }

    #[test]
    fn whoever_leads_most_hands_one_over_to_whoever_leads_least() {
        let moved = |group: u32, to: u64| Some((GroupId(group), NodeId(to)));
        for (own, leaders, expected) in [
            (1, [1, 1, 1, 1, 1].as_slice(), moved(1, 2)),
            (2, &[1, 1, 1, 1, 1], None),
            // The node that leads the deploy log comes last among equals.
            (1, &[2, 1, 1, 1, 1], moved(1, 3)),
            (1, &[1, 1, 1, 2, 3], None),
            (1, &[1, 1, 1, 1, 2], moved(1, 3)),
            // Two lead as many: the one with the higher id goes first.
            (1, &[1, 1, 1, 2, 2], None),
            (2, &[1, 1, 1, 2, 2], moved(3, 3)),
            (1, &[1, 1], None),
        ] {
            assert_eq!(next(NodeId(own), &groups(3, leaders)), expected, "{own} {leaders:?}");
        }
    }

    #[test]
    fn nothing_moves_while_something_else_does_and_only_to_voters_that_are_near() {
        let leaders = [1, 1, 1, 1, 1];
        let mut electing = groups(3, &leaders);
        electing.get_mut(&GroupId(3)).expect("there").leader = None;
        assert_eq!(next(NodeId(1), &electing), None);
        let mut changing = groups(3, &leaders);
        changing.get_mut(&GroupId(1)).expect("there").changing = true;
        assert_eq!(next(NodeId(1), &changing), Some((GroupId(2), NodeId(2))));
        let mut far = groups(3, &leaders);
        far.values_mut().for_each(|seen| seen.heirs = BTreeSet::from([NodeId(1), NodeId(9)]));
        assert_eq!(next(NodeId(1), &far), None, "9 has no vote");
        let mut learner = groups(3, &leaders);
        learner.values_mut().for_each(|seen| _ = seen.voters.remove(&NodeId(2)));
        assert_eq!(next(NodeId(1), &learner), Some((GroupId(1), NodeId(3))));
    }

    proptest! {
        /// Wherever leaders are, the moves come to an end, one node moves at a time, and then nobody leads two more than
        /// another.
        #[test]
        fn leaders_come_to_be_spread(
            nodes in 1u64..6,
            leaders in proptest::collection::vec(0u64..6, 1..30),
        ) {
            let leaders: Vec<u64> = leaders.into_iter().map(|leader| leader % nodes + 1).collect();
            let mut groups = groups(nodes, &leaders);
            for moves in 0.. {
                prop_assert!(moves <= leaders.len(), "no end");
                let due: Vec<_> = (1..=nodes).filter_map(|own| next(NodeId(own), &groups)).collect();
                prop_assert!(due.len() <= 1, "{due:?}");
                let Some((id, to)) = due.first() else { break };
                groups.get_mut(id).expect("there").leader = Some(*to);
            }
            let count = |node: u64| {
                groups.iter().filter(|(id, seen)| id.0 != 0 && seen.leader == Some(NodeId(node))).count()
            };
            let counts: Vec<usize> = (1..=nodes).map(count).collect();
            let (most, least) = (counts.iter().max().copied(), counts.iter().min().copied());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?}");
        }
    }
}
