//! Instances that are kept for the next call, where the tool's file asks for it and its workspace allows it.
//!
//! Whatever a tool leaves in a kept instance is there for its next caller, so this is a grant like any other, and fresh
//! is the default. Only an instance whose call ended well is kept, and never for another tool or workspace.

use crate::guest::{Guest, Terms};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime::Store;

/// Calls of one instance, so that what a tool leaks ends.
const CALLS_MAX: u32 = 10_000;
/// An instance that grew beyond this is not kept: idle memory is the operator's.
const MEMORY_BYTES_MAX: u64 = 16 << 20;

/// A store between two calls, and what calls into it.
pub(crate) struct ReusableStore<F> {
    store: Store<Guest>,
    function: F,
    calls: u32,
}

impl<F> ReusableStore<F> {
    /// An instance that has not been called yet.
    pub(crate) fn new(store: Store<Guest>, function: F) -> ReusableStore<F> {
        ReusableStore { store, function, calls: 0 }
    }

    /// Its store and its function, for a call.
    pub(crate) fn parts(&mut self) -> (&mut Store<Guest>, &F) {
        self.calls += 1;
        (&mut self.store, &self.function)
    }

    fn is_worn(&self) -> bool {
        let guest = self.store.data();
        // Memory that nobody uses now is for those who ask for it.
        self.calls >= CALLS_MAX || guest.meter.memory() > MEMORY_BYTES_MAX || guest.terms.budget.is_short()
    }
}

/// All instances that a sandbox keeps. The one that was used longest ago makes room.
pub(crate) struct Shelf<F> {
    kept_max: usize,
    kept: Mutex<VecDeque<(u64, ReusableStore<F>)>>,
    servers: AtomicU64,
}

impl<F> Shelf<F> {
    pub(crate) fn new(kept_max: usize) -> Arc<Shelf<F>> {
        Arc::new(Shelf { kept_max, kept: Mutex::default(), servers: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, ReusableStore<F>)>> {
        // Nothing runs under the lock that could leave it half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server's part of the shelf. What it kept goes with it.
pub(crate) struct Place<F> {
    shelf: Arc<Shelf<F>>,
    server: u64,
}

impl<F> Place<F> {
    pub(crate) fn new(shelf: &Arc<Shelf<F>>) -> Place<F> {
        Place { shelf: shelf.clone(), server: shelf.servers.fetch_add(1, Ordering::Relaxed) }
    }

    /// An instance of this server that is kept, made ready for a call with these terms; or the terms, for a new one.
    pub(crate) fn take(&self, terms: Terms) -> Result<ReusableStore<F>, Terms> {
        let found = {
            let mut shelf = self.shelf.lock();
            let at = shelf.iter().rposition(|(server, _)| *server == self.server);
            at.and_then(|at| shelf.remove(at))
        };
        let Some((_, mut kept)) = found else { return Err(terms) };
        Guest::again(&mut kept.store, terms);
        Ok(kept)
    }

    /// Keeps an instance whose call ended well.
    pub(crate) fn keep(&self, kept: ReusableStore<F>) {
        if kept.is_worn() {
            return;
        }
        let mut shelf = self.shelf.lock();
        shelf.push_back((self.server, kept));
        let oldest = if shelf.len() > self.shelf.kept_max { shelf.pop_front() } else { None };
        drop(shelf);
        // Outside of the lock: giving back an instance takes microseconds.
        drop(oldest);
    }
}

impl<F> Drop for Place<F> {
    fn drop(&mut self) {
        let mut shelf = self.shelf.lock();
        let (own, others) = std::mem::take(&mut *shelf).into_iter().partition(|(server, _)| *server == self.server);
        *shelf = others;
        drop::<MutexGuard<'_, _>>(shelf);
        drop::<VecDeque<_>>(own);
    }
}
