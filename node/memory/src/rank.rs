//! The ranking: what the parts of a score are and how much each counts.
//!
//! Words and meaning are on scales that mean the same in any workspace: the share of the search's words that a memory has,
//! rare ones counting more, and the cosine of the angle between the two vectors. So scores of two searches, of two
//! workspaces and of two nodes compare, and a threshold means something.
//!
//! The weights are round numbers from the middle of a plateau that a prototype of this ranking showed on dialogues (LoCoMo) and
//! abstracts (Cranfield). `benches/src/bin/memory` measures this one, each conversation by itself.

/// How much each part of a score counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// The words of the search that the memory has.
    pub words: f32,
    /// How near the meanings are.
    pub meaning: f32,
    /// What was said directly before and after in the conversation, as a part of what the memory itself counts.
    pub neighbours: f32,
    /// The same for the memories next to those.
    pub second_neighbours: f32,
    /// The words of the search that the whole conversation has.
    pub episode: f32,
    /// A memory that was changed now; it halves every [`Weights::recency_half_life_ms`].
    pub recency: f32,
    /// After how many milliseconds recency counts half.
    pub recency_half_life_ms: f32,
    /// An importance of 100; one of 0 counts as much against it.
    pub importance: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            words: 0.5,
            meaning: 0.5,
            neighbours: 0.3,
            second_neighbours: 0.1,
            episode: 0.2,
            recency: 0.01,
            recency_half_life_ms: 30.0 * 24.0 * 3_600_000.0,
            importance: 0.05,
        }
    }
}

/// The parts of a score, which is their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parts {
    /// The share of the search's words that the memory has, times its weight.
    pub words: f32,
    /// The cosine of the angle between the meanings, times its weight.
    pub meaning: f32,
    /// What its neighbours in the conversation add.
    pub neighbours: f32,
    /// What the conversation as a whole adds.
    pub episode: f32,
    /// What its age adds.
    pub recency: f32,
    /// What its importance adds.
    pub importance: f32,
}

impl Parts {
    /// The score.
    pub fn sum(&self) -> f32 {
        self.words + self.meaning + self.neighbours + self.episode + self.recency + self.importance
    }

    /// What the search has to do with it: age and importance alone make no hit.
    pub fn relevance(&self) -> f32 {
        self.words + self.meaning + self.neighbours + self.episode
    }

    /// How well the memory itself fits, from 0 to 1, whatever is around it.
    pub fn similarity(&self) -> f32 {
        (self.words + self.meaning).clamp(0.0, 1.0)
    }
}
