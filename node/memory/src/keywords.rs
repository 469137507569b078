//! Words and the memories that have them: BM25 over memories, and over the conversations that memories come from.
//!
//! Numbers of memories that are gone stay in the lists until the index is made smaller; how many memories have a word is
//! exact at any time, so that two indexes of the same memories rank alike, whatever was deleted in between.

use crate::slots::Slots;
use crate::words::{Counts, Vocabulary};
use crate::{Map, grow};

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

/// A word, with the memories that have it in the order of their slots.
#[derive(Default)]
struct Word {
    live: u32,
    postings: Vec<Posting>,
}

/// The words of all memories.
#[derive(Default)]
pub struct Keywords {
    numbers: Map<Box<str>, u32>,
    words: Vec<Word>,
    live: u32,
    length: u64,
    /// How often words were given new numbers.
    renumbered: u32,
}

/// Under which number an index has the words of a vocabulary, as far as it was asked: who puts many memories into one index
/// looks each word up once. It goes with that vocabulary and that index.
#[derive(Default)]
pub struct Translation {
    renumbered: u32,
    numbers: Vec<u32>,
}

/// The numbers of a memory's words, each a byte or a few after the one before.
#[derive(Debug, Default)]
pub struct Terms(Box<[u8]>);

impl Terms {
    fn new(mut numbers: Vec<u32>) -> Terms {
        numbers.sort_unstable();
        let (mut bytes, mut last) = (Vec::with_capacity(numbers.len() * 2), 0);
        for number in numbers {
            let mut rest = number - last;
            last = number;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        Terms(bytes.into())
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (mut last, mut rest, mut shift) = (0, 0, 0);
        self.0.iter().filter_map(move |byte| {
            rest |= u32::from(byte & 0x7f) << shift;
            shift += 7;
            (byte & 0x80 == 0).then(|| {
                last += std::mem::take(&mut rest);
                shift = 0;
                last
            })
        })
    }

    /// The same words under new numbers.
    pub fn renumbered(&self, new: &[u32]) -> Terms {
        Terms::new(self.iter().map(|number| new[number as usize]).collect())
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.0.len() + size_of::<Terms>()
    }
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
    /// The score of each conversation.
    pub episodes: Vec<f32>,
    /// The most that a memory could have got.
    pub most: f32,
    /// The most that a conversation could have got.
    pub episode_most: f32,
    /// How many words of the search any memory has.
    pub known: usize,
    /// The memories whose score may not be 0, or nothing where it may be any.
    touched: Option<Vec<Slot>>,
    counts: Vec<f32>,
    counted: Vec<u32>,
}

impl Matches {
    /// Begins a search of so many memories, of which only `few` are scored.
    fn begin(&mut self, memories: usize, episodes: usize, few: Option<&[Slot]>) {
        // The last search may have been of another index.
        match self.touched.take() {
            Some(slots) => slots.iter().for_each(|slot| self.scores[*slot as usize] = 0.0),
            None => self.scores.fill(0.0),
        }
        self.scores.resize(memories, 0.0);
        self.touched = few.map(<[Slot]>::to_vec);
        self.episodes.clear();
        self.episodes.resize(episodes, 0.0);
        self.counts.clear();
        self.counts.resize(episodes, 0.0);
        self.counted.clear();
        (self.most, self.episode_most, self.known) = (0.0, 0.0, 0);
    }
}

impl Keywords {
    /// Notes a memory's words, with how often each is in it. Gives their numbers, by which they are taken out again.
    pub fn add(&mut self, slot: Slot, vocabulary: &Vocabulary, counts: &Counts, known: &mut Translation) -> Terms {
        self.live += 1;
        self.length += u64::from(counts.length);
        if known.renumbered != self.renumbered {
            *known = Translation { renumbered: self.renumbered, numbers: Vec::new() };
        }
        let mut all = Vec::with_capacity(counts.len());
        for (theirs, count) in counts.iter() {
            let number = match known.numbers.get(theirs as usize) {
                Some(number) if *number != NONE => *number,
                Some(_) | None => {
                    let number = self.number(vocabulary.word(theirs));
                    let least = known.numbers.len().max(theirs as usize + 1);
                    known.numbers.resize(least, NONE);
                    known.numbers[theirs as usize] = number;
                    number
                }
            };
            let word = &mut self.words[number as usize];
            word.live += 1;
            grow(&mut word.postings, Posting::new(slot, count));
            all.push(number);
        }
        Terms::new(all)
    }

    /// The number of a word; a new one for a new word.
    fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        self.words.push(Word::default());
        let number = self.words.len() as u32 - 1;
        self.numbers.insert(word.into(), number);
        number
    }

    /// Forgets a memory's words; its postings go when the index is made smaller.
    pub fn remove(&mut self, terms: &Terms, length: u16) {
        for number in terms.iter() {
            let live = &mut self.words[number as usize].live;
            *live = live.saturating_sub(1);
        }
        self.live = self.live.saturating_sub(1);
        self.length = self.length.saturating_sub(u64::from(length));
    }

    /// Gives memories new slots; what has none is gone, and so is a word that no memory has. Gives the new number of each word.
    pub fn renumber(&mut self, new: &[Slot]) -> Vec<u32> {
        self.renumbered += 1;
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

    /// Scores the memories that are allowed, and the conversations of these. Where these are few, `few` names them.
    pub fn find(
        &self,
        query: &[String],
        lengths: &Lengths<'_>,
        (allowed, few): (&Slots, Option<&[Slot]>),
        with_episodes: bool,
        found: &mut Matches,
    ) {
        found.begin(lengths.memories.len(), if with_episodes { lengths.episode_lengths.len() } else { 0 }, few);
        let average = self.length.max(1) as f32 / self.live.max(1) as f32;
        let total: u64 = lengths.episode_lengths.iter().map(|length| u64::from(*length)).sum();
        let episode_average = total.max(1) as f32 / lengths.episodes_live.max(1) as f32;
        let penalty = Penalty::new(average);
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
            let Matches { scores, counts, counted, .. } = found;
            let mut score = |posting: Posting| {
                let (slot, count) = (posting.slot() as usize, posting.count());
                scores[slot] += rare * count / (count + penalty.of(lengths.memories[slot]));
                let episode = lengths.episodes[slot];
                if with_episodes && episode != NONE {
                    if counts[episode as usize] == 0.0 {
                        counted.push(episode);
                    }
                    counts[episode as usize] += count;
                }
            };
            match few {
                Some(few) if few.len() * LOOKUP_COST < word.postings.len() => {
                    let find = |slot: &Slot| {
                        let at = word.postings.binary_search_by_key(slot, |posting| posting.slot());
                        at.ok().map(|at| word.postings[at])
                    };
                    few.iter().filter_map(find).for_each(score);
                }
                Some(_) | None => {
                    word.postings.iter().filter(|posting| allowed.has(posting.slot())).for_each(|it| score(*it));
                }
            }
            if !with_episodes {
                continue;
            }
            let rare = rarity(lengths.episodes_live, found.counted.len() as u32);
            found.episode_most += rare;
            for episode in found.counted.drain(..) {
                let count = std::mem::take(&mut found.counts[episode as usize]);
                let share = lengths.episode_lengths[episode as usize] as f32 / episode_average;
                let length = 1.0 - EPISODE_LENGTH_SHARE + EPISODE_LENGTH_SHARE * share;
                found.episodes[episode as usize] += rare * count / (count + SATURATION * length);
            }
        }
    }

    /// The bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let postings: usize = self.words.iter().map(|word| word.postings.capacity() * size_of::<Posting>()).sum();
        let names: usize = self.numbers.keys().map(|word| word.len()).sum();
        let names = names + self.numbers.capacity() * (size_of::<(Box<str>, u32)>() + 1);
        postings + names + self.words.capacity() * size_of::<Word>()
    }
}

/// What looking a memory up among those that have a word costs, as so many of them that are looked through.
const LOOKUP_COST: usize = 12;

/// What a memory's length counts against it. Of the usual lengths it is known beforehand.
struct Penalty {
    average: f32,
    usual: [f32; 128],
}

impl Penalty {
    fn new(average: f32) -> Penalty {
        let mut usual = [0.0; 128];
        usual.iter_mut().enumerate().for_each(|(length, it)| *it = Penalty::exact(length as f32, average));
        Penalty { average, usual }
    }

    fn exact(length: f32, average: f32) -> f32 {
        SATURATION * (1.0 - LENGTH_SHARE + LENGTH_SHARE * length / average)
    }

    fn of(&self, length: u16) -> f32 {
        match self.usual.get(usize::from(length)) {
            Some(known) => *known,
            None => Penalty::exact(f32::from(length), self.average),
        }
    }
}

/// What a word of the search counts that no memory has, as a part of the rarest that one has: it says that the search may be
/// about something else.
const UNKNOWN_SHARE: f32 = 0.5;

fn rarity(memories: u32, uses: u32) -> f32 {
    (1.0 + (memories.saturating_sub(uses) as f32 + 0.5) / (uses as f32 + 0.5)).ln()
}
