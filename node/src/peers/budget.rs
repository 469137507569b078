//! Places for connections of whom nothing is known yet, for each address and in all. Whoever comes when they are taken gets
//! the place of the one that has had one longest at the address that has most: connections that only wait keep nobody out.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::addresses::counted;

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

    /// Takes a place, if need be another's. Of IPv6 an address is a network that one customer gets.
    pub fn enter(&self, from: IpAddr) -> Place {
        let from = counted(from);
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
        // How many places an address has, and which of them it has had longest.
        let mut held: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (id, (address, _)) in &self.places {
            held.entry(*address).or_insert((0, *id)).0 += 1;
        }
        match held.get(&from) {
            Some((count, longest)) if *count >= per_address => Some(*longest),
            // Among addresses that have as many it is whoever has waited longest.
            Some(_) | None if self.places.len() >= total => {
                held.values().max_by_key(|(count, longest)| (*count, Reverse(*longest))).map(|(_, longest)| *longest)
            }
            Some(_) | None => None,
        }
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
    fn among_equals_the_one_that_waits_longest_makes_room_and_a_customer_of_ipv6_is_one() {
        let budget = Budget::new(4, 3);
        // The highest address came last: it is not the one that goes.
        let three: Vec<Place> = [1, 2, 200].map(|last| budget.enter(at(last))).into();
        let lost = || three.iter().map(|place| place.lost.is_cancelled()).collect::<Vec<_>>();
        let next = budget.enter(at(3));
        assert_eq!((lost(), next.lost.is_cancelled()), (vec![true, false, false], false));
        let v6 = |last: u16| IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, last));
        let customer: Vec<Place> = (0..50).map(|last| budget.enter(v6(last))).collect();
        // It has two places once everybody has been there as long, and after that takes its own.
        assert_eq!(customer.iter().filter(|place| !place.lost.is_cancelled()).count(), 2);
        assert_eq!((lost(), next.lost.is_cancelled()), (vec![true; 3], false));
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
