//! Which agent a message is for: by what agents can do, not by their names.
//!
//! [`Index`] holds what a revision's agents say they can do, prepared; [`Index::rank`] is a pure function of it and of
//! one message's reading. [`Router`] does the rest: it keeps an index for each workspace in step with its catalog,
//! embeds messages, and remembers recent answers until the next deployment. Ranking suggests and never starts
//! anything: what a message may reach is the invoker's to check.

mod index;
mod keywords;
mod load;
mod neighbours;
mod rank;
mod router;
mod vectors;

pub use index::{Index, Offer};
pub use load::{Load, Underway};
pub use rank::{Candidate, Choice, Fit, Parts, Ranking, Requirements};
pub use router::{RouteError, Routed, Router, RouterLimits};
pub use vectors::Vectors;

/// A message is read up to this many of the model's tokens: what it is about is said early, and time grows with them.
pub const MESSAGE_TOKENS_MAX: usize = 48;

#[cfg(test)]
mod tests;
