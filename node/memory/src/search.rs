//! Searching: by words and by meaning in one ranking, inside a permit.
//!
//! A memory outside the permit is not looked at: it is neither found nor does it lend anything to a neighbour's score. Of
//! the rest, those are scored of which words and the signs of vectors promise the most; what the vectors in memory cannot
//! tell from the best is scored once more with exact ones.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use rusqlite::{Connection, Result};

use crate::allowed::Allowed;
use crate::cache;
use crate::filter::Permit;
use crate::index::{Index, Shelf};
use crate::keywords::{Matches, NONE, QUERY_WORDS_MAX, Slot};
use crate::query::{Episode, Episodes, Found, HITS_MAX, Half, Hit, Mode, Query};
use crate::rank::Parts;
use crate::vectors::{self, Needle};

/// How many memories are scored at most: those of which words and the vectors' signs promise the most.
const CANDIDATES: usize = 3_000;
/// Where the permit and the filter let no more through, all of them are.
const FEW: usize = 2_000;
/// A promise is off by up to so much, as a part of what meaning counts, times the root of how many numbers a vector has:
/// more than three times what is to be expected where each sign is drawn.
const PROMISE_DOUBT: f32 = 5.0;
/// How many of the best are scored again with exact vectors at most, beyond what is asked for.
const EXACT_MORE: usize = 30;
/// How many of a conversation's memories say how near its meaning is.
const EPISODE_NEAREST: usize = 3;

thread_local! {
    /// Scores by slot, kept between searches.
    static MATCHES: RefCell<Matches> = RefCell::default();
    /// What is promised of each slot, kept between searches.
    static PROMISES: RefCell<Promises> = RefCell::default();
}

/// What words and signs promise of each memory.
#[derive(Default)]
struct Promises {
    differ: Vec<u16>,
    scores: Vec<f32>,
}

/// One search on its way through a shelf.
struct Search<'a> {
    shelf: &'a Shelf,
    query: &'a Query<'a>,
    allowed: Allowed,
    needle: Option<Needle>,
    /// The words' weight and the meaning's, after what cannot be used.
    weights: (f32, f32),
}

impl Index {
    /// Searches what the permit lets through. The cache gives exact vectors; where it has none, near ones are used.
    pub fn search(&self, vectors: &Connection, permit: &Permit, query: &Query<'_>) -> Result<Found> {
        let (words, needle, mut found) = self.prepare(query);
        let Some(shelf) = self.of(permit.workspace()) else { return Ok(found) };
        let search = Search::new(shelf, permit, query, needle);
        found.searched = search.allowed.count as u64;
        found.meaning = search.coverage(found.meaning);
        if search.allowed.count == 0 || query.limit == 0 {
            return Ok(found);
        }
        MATCHES.with_borrow_mut(|matches| {
            search.words(&words, matches);
            let scored = search.scored(matches);
            let exact = self.exact(vectors, &search, matches, scored)?;
            let limit = query.limit.min(HITS_MAX);
            let fits = |hit: &Hit| hit.similarity >= query.min_similarity && hit.parts.relevance() > 0.0;
            found.hits =
                exact.into_iter().map(|(slot, parts)| search.hit(slot, parts)).filter(fits).take(limit).collect();
            Ok(found)
        })
    }

    /// Searches the conversations that memories come from: which of them is about this.
    pub fn search_episodes(&self, permit: &Permit, query: &Query<'_>) -> Result<Episodes> {
        let (words, needle, found) = self.prepare(query);
        let mut episodes = Episodes { episodes: Vec::new(), words: found.words, meaning: found.meaning };
        let Some(shelf) = self.of(permit.workspace()) else { return Ok(episodes) };
        let search = Search::new(shelf, permit, query, needle);
        episodes.meaning = search.coverage(found.meaning);
        if search.allowed.count == 0 || query.limit == 0 {
            return Ok(episodes);
        }
        MATCHES.with_borrow_mut(|matches| {
            search.words(&words, matches);
            episodes.episodes = search.episodes(matches);
            Ok(episodes)
        })
    }

    /// The words and the vector of a search, and whether they can be used.
    fn prepare(&self, query: &Query<'_>) -> (Vec<String>, Option<Needle>, Found) {
        let mut words = self.words().first(query.text, QUERY_WORDS_MAX);
        let fits = |vector: &&[f32]| vector.len() == self.model().dimensions;
        let needle = query.vector.filter(fits).and_then(vectors::unit).map(Needle::new);
        let half = |asked: bool, usable: bool| match (asked, usable) {
            (false, _) => Half::Unasked,
            (true, true) => Half::Used,
            (true, false) => Half::Unusable,
        };
        let found = Found {
            hits: Vec::new(),
            words: half(query.mode != Mode::Meaning, !words.is_empty()),
            meaning: half(query.mode != Mode::Words, needle.is_some()),
            searched: 0,
        };
        if query.mode == Mode::Meaning {
            words.clear();
        }
        (words, needle.filter(|_| query.mode != Mode::Words), found)
    }

    /// The best, scored once more with exact vectors, best first.
    fn exact(
        &self,
        cached: &Connection,
        search: &Search<'_>,
        matches: &Matches,
        mut scored: Vec<(Slot, Parts)>,
    ) -> Result<Vec<(Slot, Parts)>> {
        search.keep_promising(&mut scored);
        if let Some(needle) = &search.needle {
            let mut known: HashMap<Slot, Option<f32>> = HashMap::new();
            let mut failed = Ok(());
            let mut near = |slot: Slot| {
                *known.entry(slot).or_insert_with(|| {
                    let key = search.shelf.cold[slot as usize].key;
                    let has = search.shelf.vectors.has(slot);
                    let exact = if has { cache::read(cached, self.model(), key) } else { Ok(None) };
                    match exact {
                        Ok(exact) => exact.map(|it| vectors::dot(&it, needle.exact())).or(search.near(slot)),
                        Err(error) => {
                            failed = Err(error);
                            None
                        }
                    }
                })
            };
            for (slot, parts) in &mut scored {
                *parts = search.parts(*slot, matches, &mut near);
            }
            failed?;
        }
        scored.sort_by(|a, b| search.order(a, b));
        Ok(scored)
    }
}

/// Memories that are worth a closer look.
enum Candidates {
    /// Each of them.
    All(Vec<Slot>),
    /// The first ones, until what is promised of the next cannot reach these.
    Promised(Vec<(f32, Slot)>),
}

/// A score, in the order of numbers.
#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Score) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Score) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The importance that counts nothing.
const IMPORTANCE_USUAL: u8 = 50;

/// How much an importance counts, from -1 to 1.
fn importance(importance: u8) -> f32 {
    let usual = f32::from(IMPORTANCE_USUAL);
    (f32::from(importance) - usual) / usual
}

impl<'a> Search<'a> {
    fn new(shelf: &'a Shelf, permit: &Permit, query: &'a Query<'a>, needle: Option<Needle>) -> Search<'a> {
        let allowed = Allowed::new(shelf, permit, query, FEW);
        let weights = match (query.mode, &needle) {
            (Mode::Words, _) | (Mode::Both, None) => (query.weights.words + query.weights.meaning, 0.0),
            (Mode::Meaning, _) => (0.0, query.weights.words + query.weights.meaning),
            (Mode::Both, Some(_)) => (query.weights.words, query.weights.meaning),
        };
        Search { shelf, query, allowed, needle, weights }
    }

    fn coverage(&self, meaning: Half) -> Half {
        if meaning != Half::Used {
            return meaning;
        }
        let missing = (self.shelf.len() - self.shelf.vectors.present()) as u64;
        match missing {
            0 => Half::Used,
            _ => Half::Partial { missing },
        }
    }

    fn words(&self, words: &[String], matches: &mut Matches) {
        let with_episodes = self.query.weights.episode > 0.0 && self.shelf.episodes.len() > 0;
        // The neighbours of candidates that somebody else found lend them what they would lend them in any search.
        let few = self.allowed.few.as_deref().filter(|_| self.query.among.is_none());
        let slots = &self.allowed.slots;
        self.shelf.keywords.find(words, &self.shelf.lengths(), (slots, few), with_episodes, matches);
    }

    /// How near a memory is, to about two places.
    fn near(&self, slot: Slot) -> Option<f32> {
        self.needle.as_ref().and_then(|needle| self.shelf.vectors.near(needle, slot))
    }

    /// The memories that are worth a closer look, with what is promised of each where not all are looked at.
    fn candidates(&self, matches: &Matches) -> Candidates {
        if let Some(few) = &self.allowed.few {
            return Candidates::All(few.clone());
        }
        if self.query.exhaustive {
            return Candidates::All(self.allowed.slots.iter().collect());
        }
        let mut best = PROMISES.with_borrow_mut(|promises| {
            self.promise(matches, promises);
            self.best(&promises.scores)
        });
        if self.shelf.episodes.len() == 0 {
            best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            return Candidates::Promised(best);
        }
        // Who stands between two that fit is often the answer to what they ask.
        let around = |slot: Slot| [self.shelf.cold[slot as usize].previous, slot, self.shelf.cold[slot as usize].next];
        let slots = best.iter().flat_map(|(_, slot)| around(*slot));
        let mut slots: Vec<Slot> = slots.filter(|slot| self.allowed.has(*slot)).collect();
        slots.sort_unstable();
        slots.dedup();
        Candidates::All(slots)
    }

    /// About what each memory's score is, without its neighbours and its age: a few operations for each.
    fn promise(&self, matches: &Matches, promises: &mut Promises) {
        let query = &self.query.weights;
        let share = self.weights.0 / matches.most.max(f32::MIN_POSITIVE);
        promises.scores.clear();
        promises.scores.extend(matches.scores.iter().map(|score| share * score));
        if let Some(needle) = self.needle.as_ref().filter(|_| self.weights.1 > 0.0) {
            self.shelf.vectors.differences(needle, &mut promises.differ);
            let dimensions = needle.exact().len();
            vectors::add_estimates(&promises.differ, dimensions, self.weights.1, &mut promises.scores);
        }
        let (least, greatest) = self.shelf.importance;
        if (least, greatest) != (IMPORTANCE_USUAL, IMPORTANCE_USUAL) && query.importance != 0.0 {
            for (score, hot) in promises.scores.iter_mut().zip(&self.shelf.hot) {
                *score += query.importance * importance(hot.importance);
            }
        }
        if self.weights.0 > 0.0 && !matches.episodes.is_empty() {
            let share = query.episode / matches.episode_most.max(f32::MIN_POSITIVE);
            for (score, episode) in promises.scores.iter_mut().zip(&self.shelf.episode_of) {
                *score += share * matches.episodes.get(*episode as usize).unwrap_or(&0.0);
            }
        }
    }

    /// The allowed memories with the best promises.
    fn best(&self, promises: &[f32]) -> Vec<(f32, Slot)> {
        // A sample says about where the limit is, so that few are compared. Where it says too little, all are.
        const SAMPLE: usize = 16;
        let slots = (0..promises.len() as Slot).step_by(SAMPLE).filter(|slot| self.allowed.has(*slot));
        let mut sample: Vec<f32> = slots.map(|slot| promises[slot as usize]).collect();
        let most = CANDIDATES.max(2 * self.query.limit.min(HITS_MAX));
        let wanted = most / SAMPLE * 5 / 4 + 8;
        let least = match wanted < sample.len() {
            true => *sample.select_nth_unstable_by(wanted, |a, b| b.total_cmp(a)).1,
            false => f32::MIN,
        };
        let mut best = self.above(promises, least);
        if best.len() < most && least > f32::MIN {
            best = self.above(promises, f32::MIN);
        }
        if best.len() > most {
            best.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            best.truncate(most);
        }
        best
    }

    /// The allowed memories whose promise reaches a score.
    fn above(&self, promises: &[f32], least: f32) -> Vec<(f32, Slot)> {
        let mut found = Vec::new();
        for (at, (part, mut bits)) in promises.chunks(64).zip(self.allowed.slots.words()).enumerate() {
            if bits == 0 || !part.iter().fold(false, |any, score| any | (*score >= least)) {
                continue;
            }
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                if part[bit as usize] >= least {
                    found.push((part[bit as usize], at as Slot * 64 + bit));
                }
            }
        }
        found
    }

    fn scored(&self, matches: &Matches) -> Vec<(Slot, Parts)> {
        let score = |slot: Slot| (slot, self.parts(slot, matches, &mut |slot| self.near(slot)));
        let promised = match self.candidates(matches) {
            Candidates::All(slots) => return slots.into_iter().map(score).collect(),
            Candidates::Promised(promised) => promised,
        };
        // The best come first: once what is promised cannot reach those that were scored, the rest need not be.
        let limit = self.query.limit.min(HITS_MAX);
        let dimensions = self.needle.as_ref().map_or(1, |needle| needle.exact().len());
        let doubt = PROMISE_DOUBT / (dimensions as f32).sqrt() * self.weights.1 + self.query.weights.recency.max(0.0);
        let (mut scored, mut best) = (Vec::with_capacity(promised.len()), BinaryHeap::new());
        for (promise, slot) in promised {
            if best.len() == limit && best.peek().is_some_and(|Reverse(Score(least))| promise + doubt < *least) {
                break;
            }
            let (slot, parts) = score(slot);
            scored.push((slot, parts));
            if parts.similarity() >= self.query.min_similarity {
                best.push(Reverse(Score(parts.sum())));
            }
            if best.len() > limit {
                best.pop();
            }
        }
        scored
    }

    /// What a memory's score is made of.
    fn parts(&self, slot: Slot, matches: &Matches, near: &mut impl FnMut(Slot) -> Option<f32>) -> Parts {
        let (query, hot) = (&self.query.weights, &self.shelf.hot[slot as usize]);
        let most = matches.most.max(f32::MIN_POSITIVE);
        let own = |slot: Slot, near: &mut dyn FnMut(Slot) -> Option<f32>| {
            let words = self.weights.0 * matches.scores[slot as usize] / most;
            let meaning = if self.weights.1 > 0.0 { near(slot).unwrap_or(0.0).max(0.0) * self.weights.1 } else { 0.0 };
            (words, meaning)
        };
        let (words, meaning) = own(slot, near);
        let mut neighbours = 0.0;
        if self.shelf.episode_of[slot as usize] != NONE && query.neighbours > 0.0 {
            for forward in [true, false] {
                let mut at = slot;
                for weight in [query.neighbours, query.second_neighbours] {
                    let cold = &self.shelf.cold[at as usize];
                    at = if forward { cold.next } else { cold.previous };
                    if at == NONE {
                        break;
                    }
                    if self.allowed.has(at) {
                        let (words, meaning) = own(at, near);
                        neighbours += weight * (words + 0.5 * meaning);
                    }
                }
            }
        }
        let episode = match matches.episodes.get(self.shelf.episode_of[slot as usize] as usize) {
            Some(score) if self.weights.0 > 0.0 => query.episode * score / matches.episode_most.max(f32::MIN_POSITIVE),
            Some(_) | None => 0.0,
        };
        let age = (self.query.now_ms - hot.changed_ms).max(0) as f32;
        Parts {
            words,
            meaning,
            neighbours,
            episode,
            recency: query.recency * (-age / query.recency_half_life_ms.max(1.0)).exp2(),
            importance: query.importance * importance(hot.importance),
        }
    }

    /// Better ones first, equal ones by id: the same on every node and after an import.
    fn order(&self, a: &(Slot, Parts), b: &(Slot, Parts)) -> Ordering {
        let id = |slot: Slot| self.shelf.cold[slot as usize].id;
        b.1.sum().total_cmp(&a.1.sum()).then_with(|| id(a.0).cmp(&id(b.0)))
    }

    fn hit(&self, slot: Slot, parts: Parts) -> Hit {
        let episode = self.shelf.episode_of[slot as usize];
        Hit {
            id: self.shelf.cold[slot as usize].id,
            score: parts.sum(),
            similarity: parts.similarity(),
            parts,
            conversation: (episode != NONE).then(|| self.shelf.episodes.name(episode).to_owned()),
        }
    }

    /// Leaves the memories that may be among the best once their vectors are exact: what is asked for, and all that the
    /// vectors in memory cannot tell from these.
    fn keep_promising(&self, scored: &mut Vec<(Slot, Parts)>) {
        let limit = self.query.limit.min(HITS_MAX);
        let around = 1.0 + self.query.weights.neighbours + self.query.weights.second_neighbours;
        let share = self.weights.1 * if self.shelf.episodes.len() > 0 { around } else { 1.0 };
        let doubt = |slot: Slot| match &self.needle {
            Some(needle) => share * self.shelf.vectors.doubt(needle, slot),
            None => 0.0,
        };
        scored.retain(|(slot, parts)| {
            let doubt = doubt(*slot);
            parts.similarity() + doubt >= self.query.min_similarity && parts.relevance() + doubt > 0.0
        });
        if limit < scored.len() {
            let mut least: Vec<f32> = scored.iter().map(|(slot, parts)| parts.sum() - doubt(*slot)).collect();
            let least = *least.select_nth_unstable_by(limit - 1, |a, b| b.total_cmp(a)).1;
            scored.retain(|(slot, parts)| parts.sum() + doubt(*slot) >= least);
        }
        let most = limit + EXACT_MORE;
        if most < scored.len() {
            scored.select_nth_unstable_by(most, |a, b| self.order(a, b));
            scored.truncate(most);
        }
    }

    /// A conversation's score: its words as one text, its best memory, and how near its nearest memories are.
    fn episodes(&self, matches: &Matches) -> Vec<Episode> {
        let mut by_episode: HashMap<u32, (Option<(Slot, Parts)>, Vec<f32>)> = HashMap::new();
        for (slot, parts) in self.scored(matches) {
            let episode = self.shelf.episode_of[slot as usize];
            if episode == NONE {
                continue;
            }
            let (best, near) = by_episode.entry(episode).or_default();
            near.push(parts.meaning);
            if best.is_none_or(|best| self.order(&(slot, parts), &best) == Ordering::Less) {
                *best = Some((slot, parts));
            }
        }
        let score = |episode: u32, best: &Parts, near: &mut Vec<f32>| {
            near.sort_by(|a, b| b.total_cmp(a));
            near.truncate(EPISODE_NEAREST);
            let words = matches.episodes.get(episode as usize).copied().unwrap_or(0.0);
            let nearest = near.iter().sum::<f32>() / near.len().max(1) as f32;
            words / matches.episode_most.max(f32::MIN_POSITIVE) * self.weights.0 * 2.0 + best.sum() + nearest
        };
        let mut all: Vec<Episode> = by_episode
            .into_iter()
            .filter_map(|(episode, (best, mut near))| {
                let (slot, parts) = best?;
                let score = score(episode, &parts, &mut near);
                let conversation = self.shelf.episodes.name(episode).to_owned();
                Some(Episode { conversation, score, best: self.hit(slot, parts) })
            })
            .filter(|it| it.best.similarity >= self.query.min_similarity && it.best.parts.relevance() > 0.0)
            .collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.conversation.cmp(&b.conversation)));
        all.truncate(self.query.limit.min(HITS_MAX));
        all
    }
}
