//! Places for connections of whom nothing is known yet, for each address and in all. Whoever comes when they are taken gets
//! the place of the one that has had one longest at the address that has most: connections that only wait keep nobody out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places. A clone is a handle on the same.
#[derive(Clone)]
pub struct Budget {
    per_address: usize,
    total: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Counts those who came.
    came: u64,
    /// Those who have a place, the one that came first in front.
    places: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// A place, which is free again when this is dropped.
pub struct Place {
    id: u64,
    lost: CancellationToken,
    budget: Budget,
}

impl Budget {
    /// So many places for each address, and so many in all.
    pub fn new(per_address: usize, total: usize) -> Budget {
        Budget { per_address: per_address.max(1), total: total.max(1), state: Arc::default() }
    }

    /// Takes a place, if need be another's.
    pub fn enter(&self, from: IpAddr) -> Place {
        let mut state = self.lock();
        if let Some(id) = state.loses(from, self.per_address, self.total)
            && let Some((_, lost)) = state.places.remove(&id)
        {
            lost.cancel();
        }
        state.came += 1;
        let (id, lost) = (state.came, CancellationToken::new());
        state.places.insert(id, (from, lost.clone()));
        Place { id, lost, budget: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with it has left it whole: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who loses its place to somebody from `from`, if somebody has to.
    fn loses(&self, from: IpAddr, per_address: usize, total: usize) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.places.values().for_each(|(address, _)| *counts.entry(*address).or_default() += 1);
        let address = if counts.get(&from).is_some_and(|count| *count >= per_address) {
            from
        } else if self.places.len() >= total {
            *counts.iter().max_by_key(|(_, count)| **count)?.0
        } else {
            return None;
        };
        self.places.iter().find(|(_, (of, _))| *of == address).map(|(id, _)| *id)
    }
}

impl Place {
    /// Waits until somebody else needs the place.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.lock().places.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn whoever_waits_longest_at_the_busiest_address_makes_room() {
        let budget = Budget::new(3, 5);
        let crowd: Vec<Place> = (0..3).map(|_| budget.enter(at(1))).collect();
        let lone = budget.enter(at(2));
        let lost = |places: &[Place]| places.iter().map(|place| place.lost.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(lost(&crowd), [false, false, false]);
        // Its own address is full.
        let fourth = budget.enter(at(1));
        assert_eq!(lost(&crowd), [true, false, false]);
        // All places are taken: the address with most loses one, and not the one that came just now.
        let (third, next) = (budget.enter(at(3)), budget.enter(at(4)));
        assert_eq!(lost(&crowd), [true, true, false]);
        assert!(![&lone, &fourth, &third, &next].iter().any(|place| place.lost.is_cancelled()));
        drop((crowd, fourth));
        assert_eq!(budget.lock().places.len(), 3);
    }

    #[test]
    fn a_flood_from_many_addresses_stays_within_the_budget() {
        let budget = Budget::new(4, 16);
        let flood: Vec<Place> = (0..200u8).map(|last| budget.enter(at(last))).collect();
        assert_eq!(budget.lock().places.len(), 16);
        assert_eq!(flood.iter().filter(|place| !place.lost.is_cancelled()).count(), 16);
        drop(flood);
        assert!(budget.lock().places.is_empty());
    }
}
