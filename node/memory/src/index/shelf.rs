//! What the index holds of one workspace: arrays by slot, so that a filter reads a few bytes of each memory.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use caxton_proto::memory::{MemoryId, Scope};

use super::PreparedMemory;
use super::episodes::{EpisodeTable, origin};
use crate::Memory;
use crate::cache::TextKey;
use crate::filter::Condition;
use crate::graph::Graph;
use crate::keywords::{Keywords, Lengths, NONE, Slot};
use crate::vectors::Vectors;
use crate::words::Words;

/// So many memories may be gone before the arrays are made smaller.
const GONE_MIN: usize = 1_024;
/// The most memories of a workspace: postings have 27 bits for a slot.
const SLOTS_MAX: usize = 1 << 27;

/// What a filter reads of each memory.
#[derive(Clone, Copy)]
pub(crate) struct Hot {
    pub valid_from_ms: i64,
    /// The latest time there is where it has no end.
    pub valid_to_ms: i64,
    pub created_ms: i64,
    pub place: u32,
    pub kind: u16,
    pub live: bool,
    pub untrusted: bool,
}

/// What is read of the few memories that are looked at closely.
#[derive(Clone)]
pub(crate) struct Cold {
    pub id: MemoryId,
    pub key: TextKey,
    pub changed_ms: i64,
    pub previous: Slot,
    pub next: Slot,
    pub entity: u32,
    pub importance: u8,
}

/// One workspace.
pub(crate) struct Shelf {
    pub hot: Vec<Hot>,
    pub cold: Vec<Cold>,
    pub lengths: Vec<u16>,
    pub episode_of: Vec<u32>,
    pub keywords: Keywords,
    pub vectors: Vectors,
    pub episodes: EpisodeTable,
    pub graph: Graph,
    slots: HashMap<MemoryId, Slot>,
    places: HashMap<u32, (Scope, Vec<Slot>)>,
    kinds: HashMap<Box<str>, u16>,
    entities: HashMap<Box<str>, u32>,
    metadata: HashMap<u64, Vec<Slot>>,
    terms: Vec<Box<[u32]>>,
    /// The numbers of the conditions that each memory meets, sorted.
    met: Vec<Box<[u64]>>,
    dead: usize,
}

/// The numbers of the conditions that metadata meet, sorted.
pub(super) fn met(metadata: Option<&str>) -> Box<[u64]> {
    let mut met: Vec<u64> = metadata.map(Condition::met_by).unwrap_or_default().iter().map(Condition::number).collect();
    met.sort_unstable();
    met.dedup();
    met.into()
}

/// How often each word is in a text.
pub(super) fn counts(words: &Words, text: &str) -> HashMap<Box<str>, u32> {
    let mut counts: HashMap<Box<str>, u32> = HashMap::new();
    words.each(text, |word| match counts.get_mut(word) {
        Some(count) => *count += 1,
        None => {
            counts.insert(word.into(), 1);
        }
    });
    counts
}

/// The number of a name; a new one for a new name.
fn number<N: Copy + TryFrom<usize>>(names: &mut HashMap<Box<str>, N>, name: &str, most: N) -> N {
    if let Some(number) = names.get(name) {
        return *number;
    }
    let new = N::try_from(names.len()).unwrap_or(most);
    names.insert(name.into(), new);
    new
}

/// Leaves only the names whose numbers are in use, and numbers them anew. Gives the new number of each old one.
fn in_use<N>(names: &mut HashMap<Box<str>, N>, used: impl Iterator<Item = N>) -> HashMap<N, N>
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
            hot: Vec::new(),
            cold: Vec::new(),
            lengths: Vec::new(),
            episode_of: Vec::new(),
            keywords: Keywords::default(),
            vectors: Vectors::new(dimensions),
            episodes: EpisodeTable::default(),
            graph: Graph::default(),
            slots: HashMap::new(),
            places: HashMap::new(),
            kinds: HashMap::new(),
            entities: HashMap::new(),
            metadata: HashMap::new(),
            terms: Vec::new(),
            met: Vec::new(),
            dead: 0,
        }
    }

    /// Takes a memory in, or what changed of it. Gives back its text if that waits for a vector.
    pub fn put(&mut self, prepared: PreparedMemory) -> Option<Box<str>> {
        let PreparedMemory { place, memory, text, key, counts, met } = prepared;
        let what = &memory.what;
        let known = self.slots.get(&what.id).copied();
        // A vector that is known already stays, whatever else changes.
        let old = known.map(|slot| (slot, self.cold[slot as usize].key));
        if let Some((slot, old_key)) = old {
            if old_key == key && self.same_lists(slot, &memory, &met) {
                self.update(slot, &memory);
                return (!self.vectors.has(slot)).then_some(text);
            }
            self.remove(&what.id);
        }
        if self.hot.len() >= SLOTS_MAX {
            return None;
        }
        let slot = self.hot.len() as Slot;
        let length = counts.values().sum::<u32>().min(u16::MAX.into()) as u16;
        let place = place as u32;
        let (scope_slots, kind) = (
            &mut self.places.entry(place).or_insert_with(|| (what.scope.clone(), Vec::new())).1,
            number(&mut self.kinds, &what.kind, u16::MAX),
        );
        scope_slots.push(slot);
        for number in &met {
            self.metadata.entry(*number).or_default().push(slot);
        }
        let entity = what.entity.as_deref().map_or(NONE, |name| number(&mut self.entities, name, NONE));
        let (mut episode, mut previous, mut next) = (NONE, NONE, NONE);
        if let Some((conversation, order)) = origin(what) {
            episode = self.episodes.number(conversation);
            (previous, next) = self.episodes.add(episode, order, slot, length.into());
        }
        self.hot.push(Hot {
            valid_from_ms: 0,
            valid_to_ms: 0,
            created_ms: what.created_ms,
            place,
            kind,
            live: true,
            untrusted: false,
        });
        self.cold.push(Cold { id: what.id, key, changed_ms: 0, previous, next, entity, importance: 0 });
        for (neighbour, of) in [(previous, true), (next, false)] {
            if neighbour != NONE {
                let cold = &mut self.cold[neighbour as usize];
                *(if of { &mut cold.next } else { &mut cold.previous }) = slot;
            }
        }
        self.terms.push(self.keywords.add(slot, &counts, length));
        self.met.push(met);
        self.lengths.push(length);
        self.episode_of.push(episode);
        self.vectors.push();
        self.slots.insert(what.id, slot);
        self.update(slot, &memory);
        Some(text)
    }

    /// Whether a memory is in the same lists as before: of its kind, conversation and metadata.
    fn same_lists(&self, slot: Slot, memory: &Memory, met: &[u64]) -> bool {
        let what = &memory.what;
        let episode = self.episode_of[slot as usize];
        let conversation = (episode != NONE).then(|| self.episodes.name(episode));
        let meets = *self.met[slot as usize] == *met;
        let kind = self.kinds.get(what.kind.as_str()) == Some(&self.hot[slot as usize].kind);
        kind && conversation == origin(what).map(|(name, _)| name) && meets
    }

    fn update(&mut self, slot: Slot, memory: &Memory) {
        let (hot, cold) = (&mut self.hot[slot as usize], &mut self.cold[slot as usize]);
        hot.valid_from_ms = memory.what.valid_from_ms;
        hot.valid_to_ms = memory.what.valid_to_ms.unwrap_or(i64::MAX);
        hot.untrusted = memory.untrusted;
        cold.changed_ms = memory.changed_ms;
        cold.importance = memory.what.importance;
    }

    /// Takes a memory out.
    pub fn remove(&mut self, id: &MemoryId) {
        let Some(slot) = self.slots.remove(id) else { return };
        let at = slot as usize;
        self.hot[at].live = false;
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
        let kept: Vec<Slot> = (0..self.hot.len() as Slot).filter(|slot| self.hot[*slot as usize].live).collect();
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
        self.terms.iter_mut().flatten().for_each(|word| *word = words[*word as usize]);
        let kinds = in_use(&mut self.kinds, self.hot.iter().map(|hot| hot.kind));
        self.hot.iter_mut().for_each(|hot| hot.kind = kinds[&hot.kind]);
        let entities = in_use(&mut self.entities, self.cold.iter().map(|cold| cold.entity));
        self.cold.iter_mut().for_each(|cold| cold.entity = entities.get(&cold.entity).copied().unwrap_or(NONE));
        self.slots.values_mut().for_each(|slot| *slot = new[*slot as usize]);
        self.dead = 0;
    }

    /// Gives a memory the vector of its text, if that is still its text.
    pub fn learn(&mut self, id: &MemoryId, key: TextKey, unit: &[f32]) {
        if let Some(slot) = self.slots.get(id).filter(|slot| self.cold[**slot as usize].key == key) {
            self.vectors.set(*slot, unit);
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

    pub fn live(&self) -> usize {
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
        let lists: usize = self.terms.iter().map(|terms| terms.len() * 4 + 16).sum::<usize>()
            + self.met.iter().map(|met| met.len() * 8 + 16).sum::<usize>();
        let arrays = slots * (size_of::<Hot>() + size_of::<Cold>() + 2 + 4) + self.slots.capacity() * 24;
        let members = self.places.values().map(|(_, slots)| slots.capacity() * 4).sum::<usize>()
            + self.metadata.values().map(|slots| slots.capacity() * 4 + 32).sum::<usize>();
        arrays + lists + members + self.keywords.bytes() + self.vectors.bytes() + self.graph.bytes()
    }
}
