//! Words and the memories that have them: BM25 over memories, and over the conversations that memories come from.
//!
//! Numbers of memories that are gone stay in the lists until the index is made smaller; how many memories have a word is
//! exact at any time, so that two indexes of the same memories rank alike, whatever was deleted in between.

use std::collections::HashMap;

/// How soon a word's repetitions stop counting.
const SATURATION: f32 = 1.2;
/// How much a memory's length counts against it.
const LENGTH_SHARE: f32 = 0.4;
/// The same for a conversation, which is long because much was said.
const EPISODE_LENGTH_SHARE: f32 = 0.75;
/// How often a word is counted at most: five bits.
const COUNT_MAX: u32 = 31;
/// Words of a search that are looked at.
pub const QUERY_WORDS_MAX: usize = 64;

/// Where a memory stands in the arrays of an index.
pub type Slot = u32;

/// A memory that has a word, with how often, in four bytes: there are at most 2^27 memories.
#[derive(Clone, Copy)]
struct Posting(u32);

impl Posting {
    fn new(slot: Slot, count: u32) -> Posting {
        Posting(slot << 5 | count.min(COUNT_MAX))
    }

    fn slot(self) -> Slot {
        self.0 >> 5
    }

    fn count(self) -> f32 {
        (self.0 & COUNT_MAX) as f32
    }
}

#[derive(Default)]
struct Word {
    live: u32,
    postings: Vec<Posting>,
}

/// The words of all memories.
#[derive(Default)]
pub struct Keywords {
    numbers: HashMap<Box<str>, u32>,
    words: Vec<Word>,
    live: u32,
    length: u64,
}

/// What the index knows of each memory and each conversation that scoring by words needs.
pub struct Lengths<'a> {
    /// Words of each memory.
    pub memories: &'a [u16],
    /// The conversation of each memory, [`NONE`] if it has none.
    pub episodes: &'a [u32],
    /// Words of each conversation.
    pub episode_lengths: &'a [u32],
    /// How many conversations have any words.
    pub episodes_live: u32,
}

/// No conversation, no neighbour.
pub const NONE: u32 = u32::MAX;

/// What the words of a search say.
#[derive(Default)]
pub struct Matches {
    /// The score of each memory; of most it is 0.
    pub scores: Vec<f32>,
    /// The memories whose score is not 0.
    pub touched: Vec<Slot>,
    /// The score of each conversation.
    pub episodes: Vec<f32>,
    /// The most that a memory could have got.
    pub most: f32,
    /// The most that a conversation could have got.
    pub episode_most: f32,
    /// How many words of the search any memory has.
    pub known: usize,
}

impl Keywords {
    /// Notes a memory's words, with how often each is in it. Gives their numbers, by which they are taken out again.
    pub fn add(&mut self, slot: Slot, counts: &HashMap<Box<str>, u32>, length: u16) -> Box<[u32]> {
        self.live += 1;
        self.length += u64::from(length);
        let mut note = |word: &str, count: u32| {
            let number = match self.numbers.get(word) {
                Some(number) => *number,
                None => {
                    self.words.push(Word::default());
                    let number = self.words.len() as u32 - 1;
                    self.numbers.insert(word.into(), number);
                    number
                }
            };
            let word = &mut self.words[number as usize];
            word.live += 1;
            word.postings.push(Posting::new(slot, count));
            number
        };
        counts.iter().map(|(word, count)| note(word, *count)).collect()
    }

    /// Forgets a memory's words; its postings go when the index is made smaller.
    pub fn remove(&mut self, numbers: &[u32], length: u16) {
        for number in numbers {
            let live = &mut self.words[*number as usize].live;
            *live = live.saturating_sub(1);
        }
        self.live = self.live.saturating_sub(1);
        self.length = self.length.saturating_sub(u64::from(length));
    }

    /// Gives memories new slots; what has none is gone, and so is a word that no memory has. Gives the new number of each word.
    pub fn renumber(&mut self, new: &[Slot]) -> Vec<u32> {
        let mut numbers = vec![NONE; self.words.len()];
        let mut kept = Vec::new();
        for (at, mut word) in std::mem::take(&mut self.words).into_iter().enumerate().filter(|(_, word)| word.live > 0)
        {
            let postings = word.postings.iter().filter_map(|posting| match new[posting.slot() as usize] {
                NONE => None,
                slot => Some(Posting::new(slot, posting.count() as u32)),
            });
            word.postings = postings.collect();
            numbers[at] = kept.len() as u32;
            kept.push(word);
        }
        self.words = kept;
        self.numbers.retain(|_, number| {
            *number = numbers[*number as usize];
            *number != NONE
        });
        self.numbers.shrink_to_fit();
        numbers
    }

    /// Scores the memories that `allowed` lets through, and the conversations of these.
    pub fn find(
        &self,
        query: &[String],
        lengths: &Lengths<'_>,
        allowed: impl Fn(Slot) -> bool,
        with_episodes: bool,
        found: &mut Matches,
    ) {
        // The last search may have been of another index.
        for slot in found.touched.drain(..) {
            found.scores[slot as usize] = 0.0;
        }
        found.scores.resize(lengths.memories.len(), 0.0);
        found.episodes.clear();
        found.episodes.resize(if with_episodes { lengths.episode_lengths.len() } else { 0 }, 0.0);
        (found.most, found.episode_most, found.known) = (0.0, 0.0, 0);
        let average = self.length.max(1) as f32 / self.live.max(1) as f32;
        let total: u64 = lengths.episode_lengths.iter().map(|length| u64::from(*length)).sum();
        let episode_average = total.max(1) as f32 / lengths.episodes_live.max(1) as f32;
        let mut counts = vec![0.0_f32; found.episodes.len()];
        let mut counted = Vec::new();
        for word in query {
            let word = self.numbers.get(word.as_str()).map(|number| &self.words[*number as usize]);
            let Some(word) = word.filter(|word| word.live > 0) else {
                found.most += rarity(self.live, 0) * UNKNOWN_SHARE;
                found.episode_most += rarity(lengths.episodes_live, 0) * UNKNOWN_SHARE;
                continue;
            };
            let rare = rarity(self.live, word.live);
            found.most += rare;
            found.known += 1;
            for posting in &word.postings {
                let slot = posting.slot() as usize;
                if !allowed(posting.slot()) {
                    continue;
                }
                let count = posting.count();
                let length = 1.0 - LENGTH_SHARE + LENGTH_SHARE * f32::from(lengths.memories[slot]) / average;
                if found.scores[slot] == 0.0 {
                    found.touched.push(posting.slot());
                }
                found.scores[slot] += rare * count / (count + SATURATION * length);
                let episode = lengths.episodes[slot];
                if with_episodes && episode != NONE {
                    if counts[episode as usize] == 0.0 {
                        counted.push(episode);
                    }
                    counts[episode as usize] += count;
                }
            }
            let rare = rarity(lengths.episodes_live, counted.len() as u32);
            found.episode_most += rare;
            for episode in counted.drain(..) {
                let count = std::mem::take(&mut counts[episode as usize]);
                let share = lengths.episode_lengths[episode as usize] as f32 / episode_average;
                let length = 1.0 - EPISODE_LENGTH_SHARE + EPISODE_LENGTH_SHARE * share;
                found.episodes[episode as usize] += rare * count / (count + SATURATION * length);
            }
        }
    }

    /// The bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let postings: usize = self.words.iter().map(|word| word.postings.capacity() * size_of::<Posting>() + 32).sum();
        postings + self.numbers.keys().map(|word| word.len() + 32).sum::<usize>()
    }
}

/// What a word of the search counts that no memory has, as a part of the rarest that one has: it says that the search may be
/// about something else.
const UNKNOWN_SHARE: f32 = 0.5;

fn rarity(memories: u32, uses: u32) -> f32 {
    (1.0 + (memories.saturating_sub(uses) as f32 + 0.5) / (uses as f32 + 0.5)).ln()
}
