//! Leaves out members who are in an earlier life than one they were seen in.

use std::collections::BTreeMap;
use std::time::Duration;

use caxton_proto::NodeId;
use tokio::time::Instant;

use crate::generation::Generation;
use crate::member::Members;

/// The last life in which each member was seen. What is heard of an earlier one came late, or somebody sends it again.
pub(crate) struct LastLives {
    seen: BTreeMap<NodeId, (Generation, Instant)>,
    forget_after: Duration,
}

impl LastLives {
    /// Of nobody yet. A member that was not seen for `forget_after` may come in any life.
    pub fn new(forget_after: Duration) -> LastLives {
        LastLives { seen: BTreeMap::new(), forget_after }
    }

    /// Leaves out of `members` who is in an earlier life than it was seen in before.
    pub fn only(&mut self, mut members: Members, now: Instant) -> Members {
        self.seen.retain(|_, (_, at)| now.duration_since(*at) < self.forget_after);
        members.retain(|node, member| {
            let (last, at) = self.seen.entry(*node).or_insert((member.generation, now));
            let counts = member.generation >= *last;
            if counts {
                (*last, *at) = (member.generation, now);
            }
            counts
        });
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Member;

    #[test]
    fn a_member_does_not_go_back_to_an_earlier_life() {
        let in_life = |generation| {
            let address = ([127, 0, 0, 1], 1).into();
            let member =
                Member { node: NodeId(1), generation: Generation(generation), address, facts: BTreeMap::new() };
            Members::from([(NodeId(1), member)])
        };
        let (start, forget_after) = (Instant::now(), Duration::from_secs(10));
        let mut last = LastLives::new(forget_after);
        for (after_s, generation, counts) in [(0, 5, true), (1, 6, true), (2, 5, false), (9, 6, true), (18, 5, false)] {
            let now = start + Duration::from_secs(after_s);
            assert_eq!(!last.only(in_life(generation), now).is_empty(), counts, "life {generation} after {after_s} s");
        }
        // Nobody knows of the sixth any more.
        assert_eq!(last.only(in_life(5), start + Duration::from_secs(19)).len(), 1);
    }
}
