//! Who votes in a group: an odd number of nodes, at most `cluster.voters_max`; the rest follow as learners and serve.
//!
//! One change at a time, and only what the group's leader can see for itself: whoever was let in becomes a learner, a
//! learner that has caught up may become a voter, and whoever was removed leaves. A voter that is only silent stays: a
//! majority that is thought to be dead may be alive elsewhere.

use std::collections::BTreeSet;

use caxton_proto::NodeId;

/// What the leader of a group sees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The leader itself; without one nothing changes.
    pub own: Option<NodeId>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who follows without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Who belongs to the cluster.
    pub belongs: BTreeSet<NodeId>,
    /// Who was removed from it.
    pub departed: BTreeSet<NodeId>,
    /// Who answers and lacks next to nothing.
    pub ready: BTreeSet<NodeId>,
    /// How many may vote.
    pub voters_max: usize,
}

/// The next change of a group's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Let this node follow.
    AddLearner(NodeId),
    /// Let exactly these vote.
    SetVoters(BTreeSet<NodeId>),
    /// This learner was removed from the cluster.
    Remove(NodeId),
    /// The leader itself was removed, and this node takes over.
    HandOver(NodeId),
}

/// The next change, if one is due.
pub fn next(view: &View) -> Option<Step> {
    let own = view.own?;
    if view.departed.contains(&own) {
        let heir = view.voters.iter().find(|node| view.ready.contains(node) && !view.departed.contains(node));
        return heir.map(|heir| Step::HandOver(*heir));
    }
    let target = target(view, own);
    // Whoever was removed goes first: its vote counts for nothing any more.
    if view.voters.iter().any(|node| view.departed.contains(node)) {
        return Some(Step::SetVoters(target));
    }
    if let Some(gone) = view.learners.iter().find(|node| view.departed.contains(node)) {
        return Some(Step::Remove(*gone));
    }
    let known = |node: &&NodeId| !view.voters.contains(node) && !view.learners.contains(node);
    if let Some(new) = view.belongs.iter().find(known) {
        return Some(Step::AddLearner(*new));
    }
    (target != view.voters).then_some(Step::SetVoters(target))
}

/// Who should vote: those who do first, the leader before the others, then learners that are ready.
///
/// While a node that belongs has not caught up, no voter that stays loses its vote: with one voter fewer than before, an
/// acknowledged write would be on one disk alone, and that disk's node may be the next to go.
fn target(view: &View, own: NodeId) -> BTreeSet<NodeId> {
    let stays = |node: &&NodeId| !view.departed.contains(node);
    let voters = view.voters.iter().filter(|node| **node != own).filter(stays);
    let stay = 1 + voters.clone().count();
    let ready = view.learners.iter().filter(|node| view.ready.contains(node) && view.belongs.contains(node));
    let candidates: Vec<NodeId> = std::iter::once(&own).chain(voters).chain(ready.filter(stays)).copied().collect();
    let comes = view.belongs.iter().filter(stays).any(|node| !candidates.contains(node));
    let most = candidates.len().min(view.voters_max);
    let count = if comes { odd(most).max(stay.min(view.voters_max)) } else { odd(most) };
    candidates.iter().take(count).copied().collect()
}

/// The largest odd number up to `count`, and 1 at least.
fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1).max(1) } else { count }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn view(voters: &[u64], learners: &[u64], belongs: &[u64], ready: &[u64]) -> View {
        View {
            own: voters.first().map(|id| NodeId(*id)),
            voters: nodes(voters),
            learners: nodes(learners),
            belongs: nodes(belongs),
            departed: BTreeSet::new(),
            ready: nodes(ready),
            voters_max: 5,
        }
    }

    #[test]
    fn the_number_of_voters_is_odd_and_grows_with_the_cluster() {
        let voters = |ids: &[u64]| Some(Step::SetVoters(nodes(ids)));
        for (view, expected) in [
            (view(&[1], &[], &[1], &[]), None),
            (view(&[1], &[], &[1, 2, 3], &[]), Some(Step::AddLearner(NodeId(2)))),
            (view(&[1], &[2], &[1, 2], &[2]), None),
            (view(&[1], &[2, 3], &[1, 2, 3], &[2]), None),
            (view(&[1], &[2, 3], &[1, 2, 3], &[2, 3]), voters(&[1, 2, 3])),
            (view(&[1, 2, 3], &[4], &[1, 2, 3, 4], &[2, 3, 4]), None),
            (view(&[1, 2, 3], &[4, 5], &[1, 2, 3, 4, 5], &[4, 5]), voters(&[1, 2, 3, 4, 5])),
            (view(&[1, 2, 3, 4, 5], &[6, 7], &[1, 2, 3, 4, 5, 6, 7], &[6, 7]), None),
            // A group knows its nodes before the log says that they belong: nobody is taken out for that.
            (view(&[1, 2, 3], &[], &[1], &[]), None),
        ] {
            assert_eq!(next(&view), expected, "{view:?}");
        }
    }

    #[test]
    fn whoever_was_removed_goes_and_a_leader_hands_over_first() {
        let mut gone = view(&[1, 2, 3], &[4], &[1, 2, 4], &[2, 4]);
        gone.departed = nodes(&[3]);
        assert_eq!(next(&gone), Some(Step::SetVoters(nodes(&[1, 2, 4]))), "a learner takes its place");
        gone.ready = nodes(&[]);
        assert_eq!(next(&gone), Some(Step::SetVoters(nodes(&[1, 2]))), "its place is kept until the learner is ready");
        gone.belongs = nodes(&[1, 2]);
        gone.learners = nodes(&[]);
        assert_eq!(next(&gone), Some(Step::SetVoters(nodes(&[1]))), "two voters are no better than one");
        gone.departed = nodes(&[1]);
        gone.ready = nodes(&[3, 4]);
        assert_eq!(next(&gone), Some(Step::HandOver(NodeId(3))));
        gone.ready = nodes(&[4]);
        assert_eq!(next(&gone), None, "no voter could take over now");
        let mut learner = view(&[1], &[2], &[1], &[2]);
        learner.departed = nodes(&[2]);
        assert_eq!(next(&learner), Some(Step::Remove(NodeId(2))));
    }

    proptest! {
        #[test]
        fn whatever_happens_changes_come_to_an_end_with_an_odd_number_of_voters(
            belongs in proptest::collection::btree_set(1u64..12, 1..10),
            departed in proptest::collection::btree_set(1u64..12, 0..3),
            max in 1usize..8,
        ) {
            let own = NodeId(100);
            let mut view = View {
                own: Some(own),
                voters: BTreeSet::from([own]),
                belongs: belongs.iter().copied().map(NodeId).chain([own]).collect(),
                voters_max: max,
                ..View::default()
            };
            let mut steps = 0;
            for round in 0..2 {
                if round == 1 {
                    view.departed = departed.iter().copied().map(NodeId).collect();
                    view.belongs.retain(|node| !departed.contains(&node.0));
                }
                while let Some(step) = next(&view) {
                    steps += 1;
                    prop_assert!(steps < 100, "no end: {view:?}");
                    match step {
                        Step::AddLearner(node) => _ = view.learners.insert(node),
                        Step::Remove(node) => _ = view.learners.remove(&node),
                        Step::HandOver(_) => prop_assert!(false, "the leader was not removed"),
                        Step::SetVoters(voters) => {
                            let before = std::mem::replace(&mut view.voters, voters);
                            view.learners.extend(before);
                            view.learners.retain(|node| !view.voters.contains(node));
                        }
                    }
                    view.ready = view.learners.clone();
                }
                let votes = view.voters.len();
                prop_assert!(votes % 2 == 1 && votes <= max.max(1), "{votes}");
                prop_assert!(view.voters.contains(&own));
            }
            prop_assert!(view.voters.union(&view.learners).all(|node| view.belongs.contains(node)));
        }
    }
}
