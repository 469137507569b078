//! How much one address, or one role in one workspace, has under way at once. Who is over is refused before a byte of the body is
//! read, so that one client or one tenant cannot take all the places that there are.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::WorkspaceId;
use caxton_proto::log::Role;

/// Counts what is under way by a key. A clone is a handle on the same.
#[derive(Debug)]
pub struct Caps<K>(Arc<Mutex<HashMap<K, u64>>>);

impl<K> Clone for Caps<K> {
    fn clone(&self) -> Caps<K> {
        Caps(Arc::clone(&self.0))
    }
}

impl<K> Default for Caps<K> {
    fn default() -> Caps<K> {
        Caps(Arc::default())
    }
}

/// A place under a key, until it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    caps: Caps<K>,
    key: Option<K>,
}

impl<K: Eq + Hash + Clone> Caps<K> {
    /// A place, unless `most` are taken under the key.
    pub fn enter(&self, key: K, most: u64) -> Option<Place<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { caps: self.clone(), key: Some(key) })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut counts = self.caps.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

/// Whom a cap is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whom {
    /// Everybody at an address.
    Address(IpAddr),
    /// Everybody of a role in a workspace; none for requests that are about no single one.
    Tenant(Role, Option<WorkspaceId>),
}

/// The address that a connection came from, in the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub struct CameFrom(pub IpAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_one_key_takes_none_of_anothers() {
        let caps = Caps::default();
        let first = caps.enter("a", 2).expect("room");
        let _second = caps.enter("a", 2).expect("room");
        assert!(caps.enter("a", 2).is_none());
        assert!(caps.enter("b", 2).is_some());
        drop(first);
        assert!(caps.enter("a", 2).is_some());
        assert_eq!(caps.0.lock().expect("no panic").len(), 1, "nothing stays of a key without places");
    }
}
