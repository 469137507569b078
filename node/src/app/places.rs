//! Who gets the free places of a shard's dispatch: workspaces take turns, and an agent's priority counts only within its own.
//!
//! No I/O. The workspace that has the fewest messages under way comes first, and among equals the one after that which had the
//! last place. So what a tenant's files say of priorities, and how many agents it has, holds no other tenant up.

use std::collections::{BTreeMap, HashMap};

use caxton_messages::acl::Address;
use caxton_proto::WorkspaceId;

/// The most messages of a workspace that are under way. Those that pause take none of the usual places, but memory.
const UNDER_WAY_MAX: usize = 256;

/// Whose mailbox, in which workspace.
pub(super) type MailboxOf = (WorkspaceId, Address);

/// A mailbox from which something could be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// Whose mailbox it is.
    pub(super) owner: MailboxOf,
    /// Which of its workspace's mailboxes comes first: the one with the highest.
    pub(super) priority: u32,
    /// How many more of its messages may be under way.
    pub(super) free: usize,
}

/// How many places are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// For any workspace.
    pub(super) usual: usize,
    /// Only for workspaces that have nothing under way, beside these.
    pub(super) spare: usize,
}

/// The claims of one workspace.
#[derive(Debug)]
struct Share {
    workspace: WorkspaceId,
    /// How many of its messages are under way.
    taken: usize,
    /// The one that comes next is the last.
    claims: Vec<Claim>,
}

/// The claims of all workspaces, and the places that are left.
#[derive(Debug)]
pub(super) struct Places {
    shares: Vec<Share>,
    room: Room,
}

impl Places {
    /// The places for these claims. `busy` says how many messages of each workspace are under way, and `last` which one was
    /// given the last place.
    pub(super) fn new(
        claims: Vec<Claim>,
        busy: &HashMap<WorkspaceId, usize>,
        last: Option<&WorkspaceId>,
        room: Room,
    ) -> Places {
        let mut all: BTreeMap<WorkspaceId, Vec<Claim>> = BTreeMap::new();
        for claim in claims.into_iter().filter(|claim| claim.free > 0) {
            all.entry(claim.owner.0.clone()).or_default().push(claim);
        }
        let mut shares: Vec<Share> = all
            .into_iter()
            .map(|(workspace, mut claims)| {
                // Stable, so that equals stay in the order in which they were looked at.
                claims.sort_by_key(|claim| std::cmp::Reverse(claim.priority));
                claims.reverse();
                let taken = busy.get(&workspace).copied().unwrap_or_default();
                Share { workspace, taken, claims }
            })
            .collect();
        let after = last.map_or(0, |last| shares.partition_point(|share| share.workspace <= *last));
        shares.rotate_left(after);
        Places { shares, room }
    }

    /// Whose turn it is; nothing where no place is left, or nobody wants one.
    pub(super) fn turn(&self) -> Option<&MailboxOf> {
        let may = |share: &&Share| !share.claims.is_empty() && share.taken < UNDER_WAY_MAX;
        let waiting = self.shares.iter().filter(may);
        let next = waiting.min_by_key(|share| share.taken)?;
        let has_room = self.room.usual > 0 || (self.room.spare > 0 && next.taken == 0);
        if has_room { next.claims.last().map(|claim| &claim.owner) } else { None }
    }

    /// A mailbox whose turn it is takes a place.
    pub(super) fn take(&mut self, owner: &MailboxOf) {
        match self.room.usual {
            0 => self.room.spare = self.room.spare.saturating_sub(1),
            _ => self.room.usual -= 1,
        }
        let Some(at) = self.shares.iter().position(|share| share.workspace == owner.0) else { return };
        let mut share = self.shares.remove(at);
        share.taken += 1;
        if let Some(claim) = share.claims.iter_mut().find(|claim| claim.owner == *owner) {
            claim.free -= 1;
        }
        share.claims.retain(|claim| claim.free > 0);
        // Among those that have as many it comes last now.
        self.shares.push(share);
    }

    /// A mailbox has nothing more to be started.
    pub(super) fn pass(&mut self, owner: &MailboxOf) {
        let of_it = self.shares.iter_mut().filter(|share| share.workspace == owner.0);
        of_it.for_each(|share| share.claims.retain(|claim| claim.owner != *owner));
    }

    /// How many more of a mailbox's messages could be given places at most.
    pub(super) fn most(&self, owner: &MailboxOf) -> usize {
        let claims = self.shares.iter().flat_map(|share| &share.claims);
        let free = claims.filter(|claim| claim.owner == *owner).map(|claim| claim.free).sum::<usize>();
        free.min(self.room.usual.saturating_add(self.room.spare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(workspace: &str, agent: &str, priority: u32, free: usize) -> Claim {
        let owner = (workspace.parse().expect("a name"), agent.parse().expect("an address"));
        Claim { owner, priority, free }
    }

    /// Who gets the places, one after another.
    fn given(claims: Vec<Claim>, busy: &[(&str, usize)], last: Option<&str>, room: Room) -> Vec<String> {
        let busy = busy.iter().map(|(name, count)| (name.parse().expect("a name"), *count)).collect();
        let last: Option<WorkspaceId> = last.map(|name| name.parse().expect("a name"));
        let mut places = Places::new(claims, &busy, last.as_ref(), room);
        let mut given = Vec::new();
        while let Some(owner) = places.turn().cloned() {
            assert!(places.most(&owner) > 0, "whose turn it is may have a place");
            places.take(&owner);
            given.push(format!("{}/{}", owner.0, owner.1));
        }
        given
    }

    const SIX: Room = Room { usual: 6, spare: 0 };

    #[test]
    fn workspaces_take_turns_whatever_priorities_they_give_themselves() {
        let loud = (0..50).map(|number| claim("a", &format!("a{number}"), 7, 64));
        let claims: Vec<Claim> = loud.chain([claim("b", "b1", 0, 64), claim("c", "c1", 0, 1)]).collect();
        assert_eq!(given(claims, &[], None, SIX), ["a/a0", "b/b1", "c/c1", "a/a0", "b/b1", "a/a0"]);
    }

    #[test]
    fn within_a_workspace_the_highest_priority_comes_first() {
        let claims = vec![claim("a", "low", 1, 9), claim("a", "high", 6, 2), claim("a", "also-high", 6, 1)];
        let all = given(claims, &[], None, SIX);
        assert_eq!(all, ["a/high", "a/high", "a/also-high", "a/low", "a/low", "a/low"]);
    }

    #[test]
    fn who_has_more_under_way_waits_and_who_had_the_last_place_comes_last() {
        let claims = || vec![claim("a", "x", 4, 9), claim("b", "x", 4, 9), claim("c", "x", 4, 9)];
        let two = Room { usual: 2, spare: 0 };
        assert_eq!(given(claims(), &[("a", 5), ("b", 1)], None, SIX), ["c/x", "b/x", "c/x", "b/x", "c/x", "b/x"]);
        assert_eq!(given(claims(), &[], None, two), ["a/x", "b/x"]);
        assert_eq!(given(claims(), &[], Some("b"), two), ["c/x", "a/x"]);
        assert_eq!(given(claims(), &[], Some("z"), two), ["a/x", "b/x"], "one that is gone");
    }

    #[test]
    fn where_one_workspace_has_all_places_another_still_gets_one() {
        let claims = vec![claim("a", "x", 7, 64), claim("b", "x", 0, 64)];
        let full = Room { usual: 0, spare: 4 };
        assert_eq!(given(claims, &[("a", 64)], None, full), ["b/x"]);
    }

    #[test]
    fn a_workspace_whose_messages_all_pause_begins_no_more_of_them() {
        let claims = vec![claim("a", "x", 7, 64), claim("b", "x", 0, 2)];
        assert_eq!(given(claims.clone(), &[("a", UNDER_WAY_MAX)], None, SIX), ["b/x", "b/x"]);
        assert_eq!(given(claims, &[("a", UNDER_WAY_MAX - 1)], None, SIX), ["b/x", "b/x", "a/x"]);
    }

    #[test]
    fn who_has_nothing_more_is_passed_over() {
        let claims = vec![claim("a", "x", 4, 9), claim("a", "y", 4, 9), claim("b", "x", 4, 1)];
        let mut places = Places::new(claims, &HashMap::new(), None, SIX);
        let first = places.turn().cloned().expect("a turn");
        places.pass(&first);
        assert_ne!(places.turn(), Some(&first));
        assert_eq!(places.most(&first), 0);
    }
}
