//! What happened between two views of the members.

use caxton_proto::NodeId;

use crate::member::{Member, Members};

/// One event in the life of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not there and is.
    Joined(Member),
    /// It is there in a later life: it was restarted, faster than anyone noticed.
    Restarted(Member),
    /// It says something else of itself.
    Updated(Member),
    /// It was there and is not: it left, died or cannot be reached.
    Gone(NodeId),
}

/// What leads from `before` to `after`, in the order of the nodes' ids.
pub fn between(before: &Members, after: &Members) -> Vec<Change> {
    let gone = before.keys().filter(|node| !after.contains_key(node)).map(|node| Change::Gone(*node));
    let here = after.values().filter_map(|member| match before.get(&member.node) {
        None => Some(Change::Joined(member.clone())),
        Some(old) if old.generation != member.generation => Some(Change::Restarted(member.clone())),
        Some(old) if old != member => Some(Change::Updated(member.clone())),
        Some(_) => None,
    });
    gone.chain(here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Generation;

    fn members(rows: &[(u64, u64, &str)]) -> Members {
        let member = |&(node, generation, load): &(u64, u64, &str)| Member {
            node: NodeId(node),
            generation: Generation(generation),
            address: ([127, 0, 0, 1], 1).into(),
            facts: [("load".to_owned(), load.to_owned())].into(),
        };
        rows.iter().map(|row| (NodeId(row.0), member(row))).collect()
    }

    #[test]
    fn every_kind_of_event_is_told_apart() {
        let before = members(&[(1, 1, "0"), (2, 1, "0"), (3, 1, "0"), (4, 1, "0")]);
        let after = members(&[(1, 1, "0"), (2, 1, "0.5"), (3, 9, "0"), (5, 1, "0")]);
        let kinds: Vec<String> = between(&before, &after)
            .iter()
            .map(|change| match change {
                Change::Gone(node) => format!("gone {node}"),
                Change::Updated(member) => format!("updated {}", member.node),
                Change::Restarted(member) => format!("restarted {}", member.node),
                Change::Joined(member) => format!("joined {}", member.node),
            })
            .collect();
        assert_eq!(kinds, ["gone 4", "updated 2", "restarted 3", "joined 5"]);
        assert_eq!(between(&after, &after), []);
    }
}
