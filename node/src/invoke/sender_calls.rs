//! Calls for senders to make, kept for a while: a request that is sent again with its key gets them again.
//!
//! Nothing of such a turn is recorded, since the sender comes back with the results. Without this, a connection that broke
//! after the model had answered would cost a second answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::check::MessageKey;
use super::{InvokeError, SenderCalls};

/// So many are kept, the newest.
const KEPT_MAX: usize = 256;

/// The calls of turns that had a key.
#[derive(Default)]
pub(super) struct KeptCalls(Mutex<VecDeque<(String, String, SenderCalls)>>);

impl KeptCalls {
    /// Keeps what came of a message with a key.
    pub(super) fn keep(&self, keyed: &MessageKey, calls: &SenderCalls) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((keyed.turn.clone(), keyed.asked.clone(), calls.clone()));
    }

    /// What came of the message before, if it is known; an error where another message had the key.
    pub(super) fn of(&self, keyed: &MessageKey) -> Option<Result<SenderCalls, InvokeError>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (turn, asked, calls) = kept.iter().rev().find(|(turn, ..)| *turn == keyed.turn)?;
        Some(match *asked == keyed.asked {
            true => Ok(calls.clone()),
            false => Err(InvokeError::KeyReused { turn: turn.clone() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_belong_to_what_was_asked() {
        let keyed = |turn: usize, asked: &str| MessageKey { turn: turn.to_string(), asked: asked.into() };
        let calls = SenderCalls {
            agent: "a".parse().expect("a name"),
            text: String::new(),
            calls: Vec::new(),
            usage: crate::llm::Usage::default(),
        };
        let kept = KeptCalls::default();
        for turn in 0..=KEPT_MAX {
            kept.keep(&keyed(turn, "this"), &calls);
        }
        assert!(kept.of(&keyed(0, "this")).is_none(), "the oldest made room");
        assert!(kept.of(&keyed(1, "this")).is_some_and(|found| found.is_ok()));
        assert!(kept.of(&keyed(1, "that")).is_some_and(|found| found.is_err()));
    }
}
