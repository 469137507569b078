//! Which memories of a workspace a search may look at: those that its permit and its filter let through.

use caxton_proto::memory::Scope;

use crate::filter::Permit;
use crate::index::{Hot, Shelf};
use crate::keywords::Slot;
use crate::query::Query;
use crate::slots::Slots;

/// The memories that may be looked at.
pub struct Allowed {
    /// These, a bit each.
    pub slots: Slots,
    /// How many.
    pub count: usize,
    /// Their slots where there are few, or of these only the candidates that somebody else found.
    pub few: Option<Vec<Slot>>,
}

impl Allowed {
    /// What the permit and the filter let through; their slots as well if there are at most `few`.
    pub fn new(shelf: &Shelf, permit: &Permit, query: &Query<'_>, few: usize) -> Allowed {
        let mut slots = in_scopes(shelf, permit, query);
        if let Some(at_ms) = query.as_of_ms {
            true_at(shelf, at_ms, &mut slots);
        }
        keep_fitting(shelf, query, &mut slots);
        let count = slots.count();
        let few = match query.among {
            None => (count <= few).then(|| slots.iter().collect()),
            Some(among) => {
                let here = among.iter().filter_map(|id| shelf.slot(id));
                let mut few: Vec<Slot> = here.filter(|slot| slots.has(*slot)).collect();
                few.sort_unstable();
                few.dedup();
                Some(few)
            }
        };
        Allowed { slots, count, few }
    }

    /// Whether a memory may be looked at; no memory may not.
    pub fn has(&self, slot: Slot) -> bool {
        self.slots.has(slot)
    }
}

/// The memories of the scopes that may be read and, where the filter names metadata, that may meet these.
fn in_scopes(shelf: &Shelf, permit: &Permit, query: &Query<'_>) -> Slots {
    let filter = &query.filter;
    let reached =
        |scope: &Scope| permit.allows(scope) && filter.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope));
    let all = shelf.places().all(|(_, scope, _)| reached(scope));
    if all && filter.metadata.is_empty() {
        return shelf.live.clone();
    }
    let mut slots = Slots::none(shelf.hot.len());
    if filter.metadata.is_empty() {
        for (_, _, members) in shelf.places().filter(|(_, scope, _)| reached(scope)) {
            members.iter().for_each(|slot| slots.set(*slot));
        }
        for (word, live) in slots.words_mut().iter_mut().zip(shelf.live.words()) {
            *word &= live;
        }
        return slots;
    }
    let here = shelf.places().filter(|(_, scope, _)| reached(scope));
    let mut places: Vec<u32> = here.map(|(place, _, _)| place).collect();
    places.sort_unstable();
    // Conditions on metadata are met by few: the shortest list is walked, and the others looked up.
    let mut lists: Vec<&[Slot]> = filter.metadata.iter().map(|condition| shelf.meeting(condition)).collect();
    lists.sort_by_key(|list| list.len());
    let (shortest, others) = lists.split_first().map_or((&[][..], &[][..]), |(first, others)| (*first, others));
    for &slot in shortest {
        let here = all || places.binary_search(&shelf.hot[slot as usize].place).is_ok();
        if here && shelf.live.has(slot) && others.iter().all(|list| list.binary_search(&slot).is_ok()) {
            slots.set(slot);
        }
    }
    slots
}

/// Leaves those that are true at a time. Where all of 64 are, none of them is looked at.
fn true_at(shelf: &Shelf, at_ms: i64, slots: &mut Slots) {
    for (number, (word, span)) in slots.words_mut().iter_mut().zip(&shelf.spans).enumerate() {
        if *word != 0 && !span.covers(at_ms) {
            let fits = |hot: &Hot| hot.valid_from_ms <= at_ms && at_ms < hot.valid_to_ms;
            retain(number, word, |slot| fits(&shelf.hot[slot]));
        }
    }
}

/// Leaves those that the rest of the filter lets through.
fn keep_fitting(shelf: &Shelf, query: &Query<'_>, slots: &mut Slots) {
    let filter = &query.filter;
    let (from, to) = (filter.created_from_ms, filter.created_to_ms);
    if filter.kinds.is_empty()
        && from.is_none()
        && to.is_none()
        && filter.untrusted.is_none()
        && filter.entity.is_none()
    {
        return;
    }
    let kinds: Vec<u16> = filter.kinds.iter().filter_map(|kind| shelf.kind(kind)).collect();
    let entity = filter.entity.as_deref().map(|name| shelf.entity(name));
    for (number, word) in slots.words_mut().iter_mut().enumerate() {
        retain(number, word, |slot| {
            let hot = &shelf.hot[slot];
            (filter.kinds.is_empty() || kinds.contains(&hot.kind))
                && from.is_none_or(|from| hot.created_ms >= from)
                && to.is_none_or(|to| hot.created_ms < to)
                && filter.untrusted.is_none_or(|is| hot.untrusted == is)
                && entity.is_none_or(|entity| Some(shelf.cold[slot].entity) == entity)
        });
    }
}

/// Leaves those of the slots of one word that fit.
fn retain(number: usize, word: &mut u64, fits: impl Fn(usize) -> bool) {
    let mut rest = *word;
    while rest != 0 {
        let bit = rest.trailing_zeros();
        rest &= rest - 1;
        if !fits(number * 64 + bit as usize) {
            *word &= !(1 << bit);
        }
    }
}
