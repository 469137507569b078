//! Conversations that memories come from, in the order in which things were said there.

use caxton_proto::memory::MemoryId;

use crate::Map;
use crate::keywords::{NONE, Slot};

/// A memory's place in its conversation: what was said earlier comes first.
pub type Order = (u32, i64, MemoryId);

/// The conversations of a workspace.
#[derive(Default)]
pub struct EpisodeTable {
    numbers: Map<Box<str>, u32>,
    names: Vec<Box<str>>,
    members: Vec<Vec<(Order, Slot)>>,
    /// Words of each conversation.
    pub lengths: Vec<u32>,
    /// How many conversations have any memory.
    pub live: u32,
}

impl EpisodeTable {
    /// The name of a conversation.
    pub fn name(&self, episode: u32) -> &str {
        &self.names[episode as usize]
    }

    /// How many conversations were ever seen.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The number of a conversation.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
        self.members.push(Vec::new());
        self.lengths.push(0);
        number
    }

    /// Puts a memory in; says who comes before and after it.
    pub fn add(&mut self, episode: u32, order: Order, slot: Slot, words: u32) -> (Slot, Slot) {
        let members = &mut self.members[episode as usize];
        self.live += u32::from(members.is_empty());
        self.lengths[episode as usize] += words;
        let at = members.partition_point(|(other, _)| *other < order);
        members.insert(at, (order, slot));
        let of = |at: Option<usize>| at.and_then(|at| members.get(at)).map_or(NONE, |(_, slot)| *slot);
        (of(at.checked_sub(1)), of(Some(at + 1)))
    }

    /// Takes a memory out.
    pub fn remove(&mut self, episode: u32, slot: Slot, words: u32) {
        let members = &mut self.members[episode as usize];
        let before = members.len();
        members.retain(|(_, other)| *other != slot);
        if members.len() < before {
            let length = &mut self.lengths[episode as usize];
            *length = length.saturating_sub(words);
            self.live -= u32::from(members.is_empty());
        }
        if members.is_empty() && before > 0 {
            members.shrink_to_fit();
        }
    }

    /// Gives memories new slots, and takes out the conversations that have none any more. Gives the new number of each.
    pub fn renumber(&mut self, new: &[Slot]) -> Vec<u32> {
        let mut numbers = vec![NONE; self.names.len()];
        let old = std::mem::take(self);
        let all = old.names.into_iter().zip(old.members).zip(old.lengths);
        for (at, ((name, mut members), length)) in all.enumerate().filter(|(_, ((_, members), _))| !members.is_empty())
        {
            members.iter_mut().for_each(|(_, slot)| *slot = new[*slot as usize]);
            numbers[at] = self.number(&name);
            self.members[numbers[at] as usize] = members;
            self.lengths[numbers[at] as usize] = length;
            self.live += 1;
        }
        numbers
    }
}
