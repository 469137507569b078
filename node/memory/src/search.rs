//! Searching: by words and by meaning in one ranking, inside a permit.
//!
//! A memory outside the permit is not looked at: it is neither found nor does it lend anything to a neighbour's score. Of
//! the rest, those are scored that have the best words and those whose vectors' signs are nearest; the best of them are
//! scored once more with exact vectors.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;

use caxton_proto::memory::MemoryId;
use rusqlite::{Connection, Result};

use crate::cache;
use crate::filter::{Filter, Permit};
use crate::index::{Hot, Index, Shelf};
use crate::keywords::{Matches, NONE, QUERY_WORDS_MAX, Slot};
use crate::rank::{Parts, Weights};
use crate::vectors::{self, Needle};

/// How many memories with the best words are scored, and how many with the nearest signs.
const CANDIDATES: usize = 1_500;
/// How many of the best are scored again with exact vectors, beyond what is asked for.
const EXACT_MORE: usize = 30;
/// The most hits of one search.
pub const HITS_MAX: usize = 1_000;
/// How many of a conversation's memories say how near its meaning is.
const EPISODE_NEAREST: usize = 3;

thread_local! {
    /// Scores by slot, kept between searches.
    static MATCHES: RefCell<Matches> = RefCell::default();
}

/// By what to search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// By words and by meaning.
    #[default]
    Both,
    /// By words only.
    Words,
    /// By meaning only.
    Meaning,
}

/// What to search for.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// The text.
    pub text: &'a str,
    /// Its vector, by the index's model; without it only words are searched by.
    pub vector: Option<&'a [f32]>,
    /// By what.
    pub mode: Mode,
    /// Which memories.
    pub filter: Filter,
    /// What was true at this time; nothing finds what was ever true.
    pub as_of_ms: Option<i64>,
    /// The time by which recency is counted.
    pub now_ms: i64,
    /// How many hits; at most [`HITS_MAX`].
    pub limit: usize,
    /// How well a memory itself has to fit, from 0 to 1.
    pub min_similarity: f32,
    /// How much each part counts.
    pub weights: Weights,
    /// Score every memory instead of the most promising: slower, for measuring.
    pub exhaustive: bool,
    /// Score these only, as far as the permit and the filter let them through: candidates that somebody else found.
    pub among: Option<&'a [MemoryId]>,
}

impl<'a> Query<'a> {
    /// A search for ten memories that are true now, with the default weights.
    pub fn new(text: &'a str, vector: Option<&'a [f32]>, now_ms: i64) -> Query<'a> {
        Query {
            text,
            vector,
            mode: Mode::Both,
            filter: Filter::default(),
            as_of_ms: Some(now_ms),
            now_ms,
            limit: 10,
            min_similarity: 0.0,
            weights: Weights::default(),
            exhaustive: false,
            among: None,
        }
    }
}

/// A memory that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its id.
    pub id: MemoryId,
    /// Its score, by which hits are ordered: the sum of its parts.
    pub score: f32,
    /// How well the memory itself fits, from 0 to 1.
    pub similarity: f32,
    /// What the score is made of.
    pub parts: Parts,
    /// The conversation that it comes from.
    pub conversation: Option<String>,
}

/// Whether one half of a search was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// It was.
    Used,
    /// The search did not ask for it.
    Unasked,
    /// It could not be used: the text has no word to search by, or no vector that fits the index's model.
    Unusable,
    /// It was used, but so many of the memories have no vector yet.
    Partial {
        /// How many.
        missing: u64,
    },
}

/// What a search found, and by what.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Whether words were used.
    pub words: Half,
    /// Whether meaning was used.
    pub meaning: Half,
    /// How many memories the permit and the filter let through.
    pub searched: u64,
}

/// Conversations that were found.
#[derive(Debug, Clone, PartialEq)]
pub struct Episodes {
    /// The conversations, best first.
    pub episodes: Vec<Episode>,
    /// Whether words were used.
    pub words: Half,
    /// Whether meaning was used.
    pub meaning: Half,
}

/// A conversation that was found, by the memories that come from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Its id.
    pub conversation: String,
    /// Its score, by which they are ordered.
    pub score: f32,
    /// The best of its memories.
    pub best: Hit,
}

/// The memories that may be looked at, one bit each.
struct Allowed {
    bits: Vec<u64>,
    /// The slots, where there are few.
    few: Option<Vec<Slot>>,
    count: usize,
}

impl Allowed {
    fn has(&self, slot: Slot) -> bool {
        slot != NONE && self.bits[slot as usize / 64] >> (slot % 64) & 1 == 1
    }
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
        let mut words: Vec<String> = Vec::new();
        self.words().each(query.text, |word| {
            if words.len() < QUERY_WORDS_MAX && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        });
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
        let most = (search.query.limit.min(HITS_MAX) + EXACT_MORE).min(scored.len());
        if most < scored.len() {
            scored.select_nth_unstable_by(most, |a, b| search.order(a, b));
            scored.truncate(most);
        }
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

impl<'a> Search<'a> {
    fn new(shelf: &'a Shelf, permit: &Permit, query: &'a Query<'a>, needle: Option<Needle>) -> Search<'a> {
        let allowed = allowed(shelf, permit, query);
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
        let missing = (self.shelf.live() - self.shelf.vectors.present()) as u64;
        match missing {
            0 => Half::Used,
            _ => Half::Partial { missing },
        }
    }

    fn words(&self, words: &[String], matches: &mut Matches) {
        let with_episodes = self.query.weights.episode > 0.0 && self.shelf.episodes.len() > 0;
        self.shelf.keywords.find(words, &self.shelf.lengths(), |slot| self.allowed.has(slot), with_episodes, matches);
    }

    /// How near a memory is, to about two places.
    fn near(&self, slot: Slot) -> Option<f32> {
        self.needle.as_ref().and_then(|needle| self.shelf.vectors.near(needle, slot))
    }

    /// The memories that are worth a closer look.
    fn candidates(&self, matches: &Matches) -> Vec<Slot> {
        if let Some(few) = &self.allowed.few {
            return few.clone();
        }
        let all = self.shelf.hot.len() as Slot;
        if self.query.exhaustive || self.allowed.count <= 2 * CANDIDATES {
            return (0..all).filter(|slot| self.allowed.has(*slot)).collect();
        }
        let mut slots: Vec<Slot> = matches.touched.clone();
        if slots.len() > CANDIDATES {
            let score = |slot: &Slot| self.by_words(*slot, matches);
            let mut scored: Vec<(f32, Slot)> = slots.iter().map(|slot| (score(slot), *slot)).collect();
            scored.select_nth_unstable_by(CANDIDATES, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            slots = scored[..CANDIDATES].iter().map(|(_, slot)| *slot).collect();
        }
        // Who stands between two that fit is often the answer to what they ask.
        let around: Vec<Slot> = slots
            .iter()
            .flat_map(|slot| [self.shelf.cold[*slot as usize].previous, self.shelf.cold[*slot as usize].next])
            .filter(|slot| self.allowed.has(*slot))
            .collect();
        slots.extend(around);
        if let Some(needle) = &self.needle {
            slots.extend(self.shelf.vectors.nearest(needle, CANDIDATES, |slot| self.allowed.has(slot)));
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// A score by words alone, neighbours and conversation included.
    fn by_words(&self, slot: Slot, matches: &Matches) -> f32 {
        self.parts(slot, matches, &mut |_| None).sum()
    }

    fn scored(&self, matches: &Matches) -> Vec<(Slot, Parts)> {
        let candidates = self.candidates(matches);
        candidates.into_iter().map(|slot| (slot, self.parts(slot, matches, &mut |slot| self.near(slot)))).collect()
    }

    /// What a memory's score is made of.
    fn parts(&self, slot: Slot, matches: &Matches, near: &mut impl FnMut(Slot) -> Option<f32>) -> Parts {
        let (query, cold) = (&self.query.weights, &self.shelf.cold[slot as usize]);
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
        let age = (self.query.now_ms - cold.changed_ms).max(0) as f32;
        Parts {
            words,
            meaning,
            neighbours,
            episode,
            recency: query.recency * (-age / query.recency_half_life_ms.max(1.0)).exp2(),
            importance: query.importance * (f32::from(cold.importance) - 50.0) / 50.0,
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

/// What the permit and the filter let through.
fn allowed(shelf: &Shelf, permit: &Permit, query: &Query<'_>) -> Allowed {
    let filter = &query.filter;
    let count = shelf.hot.len();
    let mut places = Vec::new();
    let mut in_places = 0;
    for (place, scope, slots) in shelf.places() {
        if permit.allows(scope) && filter.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope)) {
            places.push((place, slots));
            in_places += slots.len();
        }
    }
    places.sort_unstable_by_key(|(place, _)| *place);
    let kinds: Vec<u16> = filter.kinds.iter().filter_map(|kind| shelf.kind(kind)).collect();
    let entity = filter.entity.as_deref().map(|name| shelf.entity(name));
    let all_places = places.len() == shelf.places().count();
    let fits = |slot: Slot| {
        let hot: &Hot = &shelf.hot[slot as usize];
        hot.live
            && (all_places || places.binary_search_by_key(&hot.place, |(place, _)| *place).is_ok())
            && query.as_of_ms.is_none_or(|at| hot.valid_from_ms <= at && at < hot.valid_to_ms)
            && (filter.kinds.is_empty() || kinds.contains(&hot.kind))
            && filter.created_from_ms.is_none_or(|from| hot.created_ms >= from)
            && filter.created_to_ms.is_none_or(|to| hot.created_ms < to)
            && filter.untrusted.is_none_or(|is| hot.untrusted == is)
            && entity.is_none_or(|entity| Some(shelf.cold[slot as usize].entity) == entity)
    };
    let mut bits = vec![0_u64; count.div_ceil(64)];
    let mut passed = Vec::new();
    // Conditions on metadata are met by few: the shortest list is walked, and the others looked up.
    let mut lists: Vec<&[Slot]> = filter.metadata.iter().map(|condition| shelf.meeting(condition)).collect();
    lists.sort_by_key(|list| list.len());
    if let Some((shortest, others)) = lists.split_first() {
        let also = |slot: &Slot| others.iter().all(|list| list.binary_search(slot).is_ok());
        passed.extend(shortest.iter().filter(|slot| also(slot) && fits(**slot)));
    } else if in_places * 8 < count {
        passed.extend(places.iter().flat_map(|(_, slots)| slots.iter()).filter(|slot| fits(**slot)));
        passed.sort_unstable();
    } else {
        passed.extend((0..count as Slot).filter(|slot| fits(*slot)));
    }
    passed.iter().for_each(|slot| bits[*slot as usize / 64] |= 1 << (slot % 64));
    let count = passed.len();
    let few = match query.among {
        None => (count <= 2 * CANDIDATES).then_some(passed),
        // Their neighbours lend them what they would lend them in any search.
        Some(among) => {
            let has = |slot: &Slot| bits[*slot as usize / 64] >> (slot % 64) & 1 == 1;
            let mut few: Vec<Slot> = among.iter().filter_map(|id| shelf.slot(id)).filter(has).collect();
            few.sort_unstable();
            few.dedup();
            Some(few)
        }
    };
    Allowed { bits, few, count }
}
