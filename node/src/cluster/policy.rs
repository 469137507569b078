//! Who votes in a group: an odd number of nodes, at most `cluster.voters_max`; the rest follow as learners and serve.
//!
//! One change at a time, and only what the group's leader can see for itself: whoever was let in becomes a learner, a
//! learner that has caught up may become a voter, and whoever was removed, or is being taken out, gives its vote back. A
//! voter that is only silent stays: a majority that is thought to be dead may be alive elsewhere. No change leaves a group
//! with voters of whom too few answer.

use std::collections::BTreeSet;

use caxton_proto::NodeId;

/// What the leader of a group sees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The leader itself; without one nothing changes.
    pub own: Option<NodeId>,
    pub voters: BTreeSet<NodeId>,
    /// Who follows without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Who belongs to the cluster.
    pub belongs: BTreeSet<NodeId>,
    /// Who was removed from it.
    pub departed: BTreeSet<NodeId>,
    /// Who is being taken out: it follows to the end, and neither votes nor leads.
    pub retiring: BTreeSet<NodeId>,
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
    /// The leader itself was removed or is being taken out, and this node takes over.
    HandOver(NodeId),
}

/// The next change, if one is due.
pub fn next(view: &View) -> Option<Step> {
    let own = view.own?;
    let stays = |node: &&NodeId| !view.goes(node);
    if view.goes(&own) {
        let is_ready = |node: &&NodeId| view.ready.contains(node);
        if let Some(heir) = view.voters.iter().filter(stays).find(is_ready) {
            return Some(Step::HandOver(*heir));
        }
        // It is the only voter that can lead: another node gets a vote first.
        let known = view.learners.intersection(&view.belongs);
        let heir = known.filter(stays).find(is_ready)?;
        let voters = view.voters.iter().chain([heir]).copied().collect();
        return view.carry(&voters).then_some(Step::SetVoters(voters));
    }
    let target = target(view, own);
    // Whoever goes does so first: its vote counts for nothing any more, or is not to.
    if view.voters.iter().any(|node| view.goes(node)) {
        return view.carry(&target).then_some(Step::SetVoters(target));
    }
    if let Some(gone) = view.learners.iter().find(|node| view.departed.contains(node)) {
        return Some(Step::Remove(*gone));
    }
    let known = |node: &&NodeId| !view.voters.contains(node) && !view.learners.contains(node);
    if let Some(new) = view.belongs.iter().find(known) {
        return Some(Step::AddLearner(*new));
    }
    (target != view.voters && view.carry(&target)).then_some(Step::SetVoters(target))
}

impl View {
    /// Whether the node was removed, or is being taken out.
    fn goes(&self, node: &NodeId) -> bool {
        self.departed.contains(node) || self.retiring.contains(node)
    }

    /// Whether a majority of these voters is there to decide anything.
    fn carry(&self, voters: &BTreeSet<NodeId>) -> bool {
        let there = voters.iter().filter(|node| self.own == Some(**node) || self.ready.contains(node));
        there.count() > voters.len() / 2
    }
}

/// Who should vote: those who do first, the leader before the others and those who answer before those who do not, then
/// learners that are ready.
///
/// While a node that belongs has not caught up, no voter that stays loses its vote: with one voter fewer than before, an
/// acknowledged write would be on one disk alone, and that disk's node may be the next to go.
fn target(view: &View, own: NodeId) -> BTreeSet<NodeId> {
    let stays = |node: &&NodeId| !view.goes(node);
    let voters = view.voters.iter().filter(|node| **node != own).filter(stays);
    let (near, far): (Vec<&NodeId>, Vec<&NodeId>) = voters.partition(|node| view.ready.contains(node));
    let stay = 1 + near.len() + far.len();
    let ready = view.learners.iter().filter(|node| view.ready.contains(node) && view.belongs.contains(node));
    let candidates: Vec<NodeId> =
        std::iter::once(&own).chain(near).chain(far).chain(ready.filter(stays)).copied().collect();
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
            ready: nodes(ready),
            voters_max: 5,
            ..View::default()
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
        gone.ready = nodes(&[2]);
        assert_eq!(next(&gone), Some(Step::SetVoters(nodes(&[1, 2]))), "its place is kept until the learner is ready");
        gone.belongs = nodes(&[1, 2]);
        gone.learners = nodes(&[]);
        assert_eq!(next(&gone), Some(Step::SetVoters(nodes(&[1]))), "two voters are no better than one");
        gone.ready = nodes(&[]);
        gone.belongs = nodes(&[1, 2, 4]);
        gone.learners = nodes(&[4]);
        assert_eq!(next(&gone), None, "of 1 and 2 a majority would be missing");
        gone.departed = nodes(&[1]);
        gone.ready = nodes(&[3, 4]);
        assert_eq!(next(&gone), Some(Step::HandOver(NodeId(3))));
        gone.ready = nodes(&[]);
        assert_eq!(next(&gone), None, "no voter could take over now");
        let mut learner = view(&[1], &[2], &[1], &[2]);
        learner.departed = nodes(&[2]);
        assert_eq!(next(&learner), Some(Step::Remove(NodeId(2))));
    }

    #[test]
    fn whoever_is_being_taken_out_gives_its_vote_and_its_lead_back_and_follows_on() {
        let mut goes = view(&[1, 2, 3], &[], &[1, 2, 3], &[2, 3]);
        goes.retiring = nodes(&[3]);
        assert_eq!(next(&goes), Some(Step::SetVoters(nodes(&[1]))));
        goes.retiring = nodes(&[1]);
        assert_eq!(next(&goes), Some(Step::HandOver(NodeId(2))));
        let mut follows = view(&[1], &[2], &[1, 2], &[2]);
        follows.retiring = nodes(&[2]);
        assert_eq!(next(&follows), None, "it follows until it is gone");
        // Of two, the one with the vote goes: the other gets one, and then leads.
        follows.retiring = nodes(&[1]);
        assert_eq!(next(&follows), Some(Step::SetVoters(nodes(&[1, 2]))));
        follows.voters = nodes(&[1, 2]);
        follows.learners = nodes(&[]);
        assert_eq!(next(&follows), Some(Step::HandOver(NodeId(2))));
        (follows.own, follows.ready) = (Some(NodeId(2)), nodes(&[1]));
        assert_eq!(next(&follows), Some(Step::SetVoters(nodes(&[2]))));
        // Nobody could take over.
        let mut alone = view(&[1], &[2], &[1, 2], &[]);
        alone.retiring = nodes(&[1]);
        assert_eq!(next(&alone), None);
        // Of four voters that are left, one has to lose its vote: one that does not answer.
        let mut some = view(&[1, 2, 3, 4, 5], &[], &[1, 2, 3, 4, 5], &[3, 4, 5]);
        some.retiring = nodes(&[3]);
        assert_eq!(next(&some), Some(Step::SetVoters(nodes(&[1, 4, 5]))));
    }

    proptest! {
        /// A group shrinks to one node, whichever goes next and whoever leads, and at each step a majority of the voters
        /// before and of those after is there.
        #[test]
        fn whoever_is_left_of_a_group_leads_it_and_votes_alone(
            size in 2u64..8,
            order in proptest::collection::vec(0usize..8, 8),
            max in 1usize..6,
        ) {
            let all: BTreeSet<NodeId> = (1..=size).map(NodeId).collect();
            let votes: BTreeSet<NodeId> = all.iter().take(odd(all.len().min(max))).copied().collect();
            let mut view = View {
                own: votes.first().copied(),
                learners: all.difference(&votes).copied().collect(),
                voters: votes,
                belongs: all.clone(),
                ready: all,
                voters_max: max,
                ..View::default()
            };
            for pick in order {
                if view.belongs.len() == 1 {
                    break;
                }
                let goes = view.belongs.iter().copied().nth(pick % view.belongs.len()).expect("one of them");
                view.retiring = BTreeSet::from([goes]);
                let mut steps = 0;
                while view.voters.contains(&goes) || view.own == Some(goes) {
                    steps += 1;
                    prop_assert!(steps < 20, "no end: {view:?}");
                    match next(&view) {
                        Some(Step::HandOver(to)) => {
                            prop_assert!(view.voters.contains(&to) && to != goes);
                            view.own = Some(to);
                        }
                        Some(Step::SetVoters(voters)) => {
                            prop_assert!(view.carry(&view.voters) && view.carry(&voters));
                            prop_assert!(view.own.is_some_and(|own| voters.contains(&own)));
                            let before = std::mem::replace(&mut view.voters, voters);
                            view.learners.extend(before);
                            view.learners.retain(|node| !view.voters.contains(node));
                        }
                        other => prop_assert!(false, "{other:?} of {view:?}"),
                    }
                }
                view.retiring.clear();
                for set in [&mut view.belongs, &mut view.learners, &mut view.ready] {
                    set.remove(&goes);
                }
            }
            prop_assert!(view.own.is_some_and(|own| view.belongs.contains(&own) && view.voters.contains(&own)));
        }

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
                    view.ready = view.learners.union(&view.voters).copied().collect();
                }
                let votes = view.voters.len();
                prop_assert!(votes % 2 == 1 && votes <= max.max(1), "{votes}");
                prop_assert!(view.voters.contains(&own));
            }
            prop_assert!(view.voters.union(&view.learners).all(|node| view.belongs.contains(node)));
        }
    }
}
