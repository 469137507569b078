//! What is searched for, and what is found.

use caxton_proto::memory::MemoryId;

use crate::filter::Filter;
use crate::rank::{Parts, Weights};

/// The most hits of one search.
pub const HITS_MAX: usize = 1_000;

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
