//! Agents that wait for each other: a circle of them would wait for ever.

use std::collections::{BTreeMap, BTreeSet};

/// Who waits for whom.
pub type Wait<A> = (A, A);

/// The first circle that is found, in the order in which each waits for the next; the last waits for the first.
pub fn circle<A: Ord + Clone>(waits: &[Wait<A>]) -> Option<Vec<A>> {
    let mut next: BTreeMap<&A, Vec<&A>> = BTreeMap::new();
    for (waiting, awaited) in waits {
        next.entry(waiting).or_default().push(awaited);
    }
    let mut finished: BTreeSet<&A> = BTreeSet::new();
    for start in next.keys().copied() {
        // A path with, for each of its nodes, how many of the edges were followed: no recursion, however long it is.
        let mut path: Vec<(&A, usize)> = vec![(start, 0)];
        let mut on_path: BTreeSet<&A> = BTreeSet::from([start]);
        while let Some((at, followed)) = path.last_mut() {
            let node = *at;
            let awaited = next.get(node).and_then(|all| all.get(*followed)).copied();
            *followed += 1;
            match awaited {
                None => {
                    finished.insert(node);
                    on_path.remove(node);
                    path.pop();
                }
                Some(awaited) if on_path.contains(awaited) => {
                    let circle = path.iter().map(|(node, _)| *node).skip_while(|node| *node != awaited);
                    return Some(circle.cloned().collect());
                }
                Some(awaited) if finished.contains(awaited) => {}
                Some(awaited) => {
                    path.push((awaited, 0));
                    on_path.insert(awaited);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_and_a_chain_is_none() {
        assert_eq!(circle(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
        assert_eq!(circle(&[("x", "a"), ("a", "b"), ("b", "a")]), Some(vec!["a", "b"]));
        assert_eq!(circle(&[("a", "a")]), Some(vec!["a"]));
        let chain: Vec<_> = (0..100_000).map(|at| (at, at + 1)).collect();
        assert_eq!(circle(&chain), None);
        let ring: Vec<_> = (0..1_000).map(|at| (at, (at + 1) % 1_000)).collect();
        assert_eq!(circle(&ring).map(|it| it.len()), Some(1_000));
    }
}
