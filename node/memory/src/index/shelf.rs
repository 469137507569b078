//! What the index holds of one workspace: arrays by slot, so that a filter reads a few bytes of each memory.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use caxton_proto::memory::{MemoryId, Scope};

use super::PreparedMemory;
use super::episodes::EpisodeTable;
use crate::cache::TextKey;
use crate::filter::Condition;
use crate::graph::Graph;
use crate::keywords::{Keywords, Lengths, NONE, Slot, Terms, Translation};
use crate::slots::Slots;
use crate::vectors::{Grains, Vectors};
use crate::words::Vocabulary;
use crate::{Map, grow};

/// So many memories may be gone before the arrays are made smaller.
const GONE_MIN: usize = 1_024;
/// The most memories of a workspace: postings have 27 bits for a slot.
const SLOTS_MAX: usize = 1 << 27;

/// What a filter and a score read of each memory.
#[derive(Clone, Copy)]
pub(crate) struct Hot {
    pub valid_from_ms: i64,
    /// The latest time there is where it has no end.
    pub valid_to_ms: i64,
    pub created_ms: i64,
    pub changed_ms: i64,
    pub place: u32,
    pub kind: u16,
    pub importance: u8,
    pub untrusted: bool,
}

/// Between when and when each of 64 memories is true: the latest beginning and the earliest end.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Span {
    const ALWAYS: Span = Span { from_ms: i64::MIN, to_ms: i64::MAX };

    /// Whether every one of them is true at a time.
    pub fn covers(self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms < self.to_ms
    }
}

/// What is read of the few memories that are looked at closely.
#[derive(Clone)]
pub(crate) struct Cold {
    pub id: MemoryId,
    pub key: TextKey,
    pub previous: Slot,
    pub next: Slot,
    pub entity: u32,
}

/// One workspace.
pub(crate) struct Shelf {
    /// The memories that are there: the others' slots wait until the arrays are made smaller.
    pub live: Slots,
    /// Of each word of `live`.
    pub spans: Vec<Span>,
    /// The least and the greatest importance that a memory ever had since the arrays were made smaller.
    pub importance: (u8, u8),
    pub hot: Vec<Hot>,
    pub cold: Vec<Cold>,
    pub lengths: Vec<u16>,
    pub episode_of: Vec<u32>,
    pub keywords: Keywords,
    pub vectors: Vectors,
    pub episodes: EpisodeTable,
    pub graph: Graph,
    slots: Map<MemoryId, Slot>,
    places: Map<u32, (Scope, Vec<Slot>)>,
    kinds: Map<Box<str>, u16>,
    entities: Map<Box<str>, u32>,
    metadata: Map<u64, Vec<Slot>>,
    terms: Vec<Terms>,
    /// The numbers of the conditions that each memory meets, sorted.
    met: Vec<Box<[u64]>>,
    dead: usize,
}

/// The number of a name; a new one for a new name.
fn number<N: Copy + TryFrom<usize>>(names: &mut Map<Box<str>, N>, name: &str, most: N) -> N {
    if let Some(number) = names.get(name) {
        return *number;
    }
    let new = N::try_from(names.len()).unwrap_or(most);
    names.insert(name.into(), new);
    new
}

/// Leaves only the names whose numbers are in use, and numbers them anew. Gives the new number of each old one.
fn in_use<N>(names: &mut Map<Box<str>, N>, used: impl Iterator<Item = N>) -> HashMap<N, N>
where
    N: Copy + Eq + Hash + TryFrom<usize>,
{
    let used: HashSet<N> = used.collect();
    names.retain(|_, number| used.contains(number));
    // Numbers that stand for "too many" and "none" stay what they are.
    let mut new: HashMap<N, N> = used.into_iter().map(|number| (number, number)).collect();
    for (at, number) in names.values_mut().enumerate() {
        if let Ok(at) = N::try_from(at) {
            new.insert(*number, at);
            *number = at;
        }
    }
    new
}

impl Shelf {
    pub fn new(dimensions: usize) -> Shelf {
        Shelf {
            live: Slots::default(),
            spans: Vec::new(),
            importance: (u8::MAX, 0),
            hot: Vec::new(),
            cold: Vec::new(),
            lengths: Vec::new(),
            episode_of: Vec::new(),
            keywords: Keywords::default(),
            vectors: Vectors::new(dimensions),
            episodes: EpisodeTable::default(),
            graph: Graph::default(),
            slots: Map::default(),
            places: Map::default(),
            kinds: Map::default(),
            entities: Map::default(),
            metadata: Map::default(),
            terms: Vec::new(),
            met: Vec::new(),
            dead: 0,
        }
    }

    /// Takes a memory in, or what changed of it. Gives back its text if that waits for a vector.
    pub fn put(
        &mut self,
        vocabulary: &Vocabulary,
        known_words: &mut Translation,
        prepared: PreparedMemory,
    ) -> Option<Box<str>> {
        let known = self.slots.get(&prepared.id).copied();
        // A vector that is known already stays, whatever else changes.
        if let Some(slot) = known {
            if self.cold[slot as usize].key == prepared.key && self.same_lists(slot, &prepared) {
                self.update(slot, &prepared);
                return (!self.vectors.has(slot)).then_some(prepared.text);
            }
            self.remove(&prepared.id);
        }
        if self.hot.len() >= SLOTS_MAX {
            return None;
        }
        let slot = self.hot.len() as Slot;
        let (id, key, created_ms) = (prepared.id, prepared.key, prepared.created_ms);
        let (place, length) = (prepared.place as u32, prepared.counts.length);
        let kind = number(&mut self.kinds, &prepared.kind, u16::MAX);
        grow(&mut self.places.entry(place).or_insert_with(|| (prepared.scope.clone(), Vec::new())).1, slot);
        for number in &prepared.met {
            grow(self.metadata.entry(*number).or_default(), slot);
        }
        let entity = prepared.entity.as_deref().map_or(NONE, |name| number(&mut self.entities, name, NONE));
        let (mut episode, mut previous, mut next) = (NONE, NONE, NONE);
        if let Some((conversation, order)) = &prepared.origin {
            episode = self.episodes.number(conversation);
            (previous, next) = self.episodes.add(episode, *order, slot, length.into());
        }
        let (valid_from_ms, valid_to_ms, changed_ms, importance, untrusted) = (0, 0, 0, 0, false);
        let hot = Hot { valid_from_ms, valid_to_ms, created_ms, changed_ms, place, kind, importance, untrusted };
        grow(&mut self.hot, hot);
        grow(&mut self.cold, Cold { id, key, previous, next, entity });
        for (neighbour, of) in [(previous, true), (next, false)] {
            if neighbour != NONE {
                let cold = &mut self.cold[neighbour as usize];
                *(if of { &mut cold.next } else { &mut cold.previous }) = slot;
            }
        }
        let terms = self.keywords.add(slot, vocabulary, &prepared.counts, known_words);
        grow(&mut self.terms, terms);
        grow(&mut self.lengths, length);
        grow(&mut self.episode_of, episode);
        self.vectors.push();
        self.live.push();
        if self.spans.len() * 64 < self.live.len() {
            self.spans.push(Span::ALWAYS);
        }
        self.slots.insert(id, slot);
        self.update(slot, &prepared);
        grow(&mut self.met, prepared.met);
        Some(prepared.text)
    }

    /// Whether a memory is in the same lists as before: of its scope, kind, conversation and metadata.
    fn same_lists(&self, slot: Slot, prepared: &PreparedMemory) -> bool {
        let episode = self.episode_of[slot as usize];
        let conversation = (episode != NONE).then(|| self.episodes.name(episode));
        let meets = self.met[slot as usize] == prepared.met;
        let hot = &self.hot[slot as usize];
        let kind = self.kinds.get(prepared.kind.as_str()) == Some(&hot.kind);
        // What was forgotten and came back under its id may be of another scope.
        let same = hot.place == prepared.place as u32 && hot.created_ms == prepared.created_ms;
        same && kind && conversation == prepared.origin.as_ref().map(|(name, _)| name.as_str()) && meets
    }

    fn update(&mut self, slot: Slot, prepared: &PreparedMemory) {
        let hot = &mut self.hot[slot as usize];
        hot.valid_from_ms = prepared.valid_from_ms;
        hot.valid_to_ms = prepared.valid_to_ms.unwrap_or(i64::MAX);
        hot.untrusted = prepared.untrusted;
        hot.changed_ms = prepared.changed_ms;
        hot.importance = prepared.importance;
        self.widen(slot);
    }

    /// Notes what a slot adds to what is known of many at once.
    fn widen(&mut self, slot: Slot) {
        let (hot, span) = (&self.hot[slot as usize], &mut self.spans[slot as usize / 64]);
        span.from_ms = span.from_ms.max(hot.valid_from_ms);
        span.to_ms = span.to_ms.min(hot.valid_to_ms);
        self.importance = (self.importance.0.min(hot.importance), self.importance.1.max(hot.importance));
    }

    /// Takes a memory out.
    pub fn remove(&mut self, id: &MemoryId) {
        let Some(slot) = self.slots.remove(id) else { return };
        let at = slot as usize;
        self.live.clear(slot);
        self.vectors.clear(slot);
        self.keywords.remove(&std::mem::take(&mut self.terms[at]), self.lengths[at]);
        let episode = std::mem::replace(&mut self.episode_of[at], NONE);
        if episode != NONE {
            self.episodes.remove(episode, slot, self.lengths[at].into());
        }
        let Cold { previous, next, .. } = self.cold[at];
        if previous != NONE {
            self.cold[previous as usize].next = next;
        }
        if next != NONE {
            self.cold[next as usize].previous = previous;
        }
        self.dead += 1;
        if self.dead > GONE_MIN && self.dead > self.hot.len() / 2 {
            self.shrink();
        }
    }

    /// Makes the arrays smaller: what is gone takes no room any more.
    fn shrink(&mut self) {
        let kept: Vec<Slot> = self.live.iter().collect();
        let mut new = vec![NONE; self.hot.len()];
        kept.iter().enumerate().for_each(|(at, slot)| new[*slot as usize] = at as Slot);
        let renumbered = |slots: &mut Vec<Slot>| {
            slots.retain(|slot| new[*slot as usize] != NONE);
            slots.iter_mut().for_each(|slot| *slot = new[*slot as usize]);
        };
        let words = self.keywords.renumber(&new);
        let episodes = self.episodes.renumber(&new);
        self.vectors.keep(&kept);
        self.places.values_mut().for_each(|(_, slots)| renumbered(slots));
        self.places.retain(|_, (_, slots)| !slots.is_empty());
        self.metadata.values_mut().for_each(renumbered);
        self.metadata.retain(|_, slots| !slots.is_empty());
        let keep = |slot: &Slot| *slot as usize;
        self.hot = kept.iter().map(|slot| self.hot[keep(slot)]).collect();
        self.lengths = kept.iter().map(|slot| self.lengths[keep(slot)]).collect();
        let episode = |slot: &Slot| match self.episode_of[keep(slot)] {
            NONE => NONE,
            episode => episodes[episode as usize],
        };
        self.episode_of = kept.iter().map(episode).collect();
        self.met = kept.iter().map(|slot| std::mem::take(&mut self.met[keep(slot)])).collect();
        self.terms = kept.iter().map(|slot| std::mem::take(&mut self.terms[keep(slot)])).collect();
        let to = |slot: Slot| if slot == NONE { NONE } else { new[slot as usize] };
        let cold = |slot: &Slot| {
            let it = self.cold[keep(slot)].clone();
            Cold { previous: to(it.previous), next: to(it.next), ..it }
        };
        self.cold = kept.iter().map(cold).collect();
        self.terms.iter_mut().for_each(|terms| *terms = terms.renumbered(&words));
        let kinds = in_use(&mut self.kinds, self.hot.iter().map(|hot| hot.kind));
        self.hot.iter_mut().for_each(|hot| hot.kind = kinds[&hot.kind]);
        let entities = in_use(&mut self.entities, self.cold.iter().map(|cold| cold.entity));
        self.cold.iter_mut().for_each(|cold| cold.entity = entities.get(&cold.entity).copied().unwrap_or(NONE));
        self.slots.values_mut().for_each(|slot| *slot = new[*slot as usize]);
        self.live = Slots::default();
        kept.iter().for_each(|_| self.live.push());
        self.spans = vec![Span::ALWAYS; kept.len().div_ceil(64)];
        self.importance = (u8::MAX, 0);
        (0..kept.len() as Slot).for_each(|slot| self.widen(slot));
        self.dead = 0;
    }

    /// Gives a memory the vector of its text, if that is still its text.
    pub fn learn(&mut self, id: &MemoryId, key: TextKey, grains: &Grains) {
        if let Some(slot) = self.slots.get(id).filter(|slot| self.cold[**slot as usize].key == key) {
            self.vectors.set(*slot, grains);
        }
    }

    /// Whether a memory is here, with this text.
    pub fn has(&self, id: &MemoryId, key: TextKey) -> bool {
        self.slots.get(id).is_some_and(|slot| self.cold[*slot as usize].key == key && !self.vectors.has(*slot))
    }

    /// The texts of all memories.
    pub fn keys(&self) -> impl Iterator<Item = TextKey> + '_ {
        self.slots.values().map(|slot| self.cold[*slot as usize].key)
    }

    /// Whether it holds nothing: no memory, no entity and so no relation.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.graph.is_empty()
    }

    /// How many memories it holds.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Where a memory is, if it is there.
    pub fn slot(&self, id: &MemoryId) -> Option<Slot> {
        self.slots.get(id).copied()
    }

    pub fn kind(&self, name: &str) -> Option<u16> {
        self.kinds.get(name).copied()
    }

    pub fn entity(&self, name: &str) -> Option<u32> {
        self.entities.get(name).copied()
    }

    /// The memories that may meet a condition, and others that are gone.
    pub fn meeting(&self, condition: &Condition) -> &[Slot] {
        self.metadata.get(&condition.number()).map_or(&[], Vec::as_slice)
    }

    /// Every scope that has memories, with its number and these.
    pub fn places(&self) -> impl Iterator<Item = (u32, &Scope, &[Slot])> {
        self.places.iter().map(|(place, (scope, slots))| (*place, scope, slots.as_slice()))
    }

    pub fn lengths(&self) -> Lengths<'_> {
        Lengths {
            memories: &self.lengths,
            episodes: &self.episode_of,
            episode_lengths: &self.episodes.lengths,
            episodes_live: self.episodes.live,
        }
    }

    pub fn bytes(&self) -> usize {
        let slots = self.hot.capacity();
        let lists: usize = self.terms.iter().map(Terms::bytes).sum::<usize>()
            + self.met.iter().map(|met| met.len() * 8 + 16).sum::<usize>();
        let maps = self.slots.capacity() * (size_of::<(MemoryId, Slot)>() + 1);
        let arrays = slots * (size_of::<Hot>() + size_of::<Cold>() + 2 + 4) + self.live.bytes() + self.spans.len() * 16;
        let members = self.places.values().map(|(_, slots)| slots.capacity() * 4).sum::<usize>()
            + self.metadata.values().map(|slots| slots.capacity() * 4 + 32).sum::<usize>();
        arrays + maps + lists + members + self.keywords.bytes() + self.vectors.bytes() + self.graph.bytes()
    }
}
