//! What a workspace remembers: memories, entities and relations, found by words and by meaning, never outside a permit.
//!
//! The crate does no I/O but on the SQLite connection that it is given, reads no clock and draws no number.
//! [`apply`] carries out a command of the shard's log on the tables. All else is derived from the tables and can be made
//! anew: the full-text table beside them, the [`Index`] in memory, and the [`cache`] of vectors in a file of its own. Whoever
//! applies a command tells the index what it touched once that is committed. Vectors come from outside, as an [`Embedder`].

mod tables;

mod slots;

mod apply;

mod words;

mod keywords;

mod vectors;

mod model;

pub mod cache;

mod filter;

pub mod index;

mod rank;

mod allowed;

mod query;

mod search;

mod graph;

mod read;

mod phrase;

pub mod transfer;

pub use apply::{Applied, Memory, MemoryEntity, MemoryRelation, OBSERVATIONS_MAX, Touched, apply};
pub use caxton_proto::memory as proto;
pub use filter::{Condition, Filter, Permit, Value};
pub use graph::{Direction, GraphEdge, GraphLimits, GraphNode, GraphQuery, GraphView, Path};
pub use index::{Changes, Index, Pending, searchable};
pub use model::{Embedder, Model};
pub use phrase::{PhraseError, phrases};
pub use query::{Episode, Episodes, Found, Half, Hit, Mode, Query};
pub use rank::{Parts, Weights};
pub use read::{Edited, Page, Stats, entities, entity, get, history, list, relation, relations, stats};
pub use tables::{TABLES, Table, is_whole, repair};
pub use words::{first_words, word_counts};

/// A map that is fast with short keys, and seeded so that nobody can choose keys that meet.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Appends to an array of which there are many, or which is large: it grows by an eighth, and not to twice its size.
pub(crate) fn grow<T>(all: &mut Vec<T>, value: T) {
    if all.len() == all.capacity() {
        all.reserve_exact((all.len() / 8).max(2));
    }
    all.push(value);
}
