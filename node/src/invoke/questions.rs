//! Which question each key belongs to while its turn runs here: the same key with another question is refused at once,
//! and not only when the turn is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::InvokeError;
use super::check::MessageKey;

/// The questions that are being answered, by their turns; a clone is a handle on the same.
#[derive(Clone, Default)]
pub(super) struct Questions(Arc<Mutex<HashMap<String, Question>>>);

struct Question {
    asked: String,
    /// How many ask it: a message that was sent twice waits for the first.
    askers: usize,
}

/// One that asks, until it is dropped.
pub(super) struct Asker {
    all: Questions,
    turn: String,
}

impl Questions {
    /// Notes that a message is being answered, unless another one has its key.
    pub(super) fn ask(&self, keyed: &MessageKey) -> Result<Asker, InvokeError> {
        let mut all = self.lock();
        let question =
            all.entry(keyed.turn.clone()).or_insert_with(|| Question { asked: keyed.asked.clone(), askers: 0 });
        if question.asked != keyed.asked {
            return Err(InvokeError::KeyReused { turn: keyed.turn.clone() });
        }
        question.askers += 1;
        Ok(Asker { all: self.clone(), turn: keyed.turn.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(question) = all.get_mut(&self.turn) {
            question.askers -= 1;
            if question.askers == 0 {
                all.remove(&self.turn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_its_question_as_long_as_anybody_asks_it() {
        let questions = Questions::default();
        let keyed = |question: &str| MessageKey { turn: "t".into(), asked: question.into() };
        let first = questions.ask(&keyed("a")).expect("free");
        let again = questions.ask(&keyed("a")).expect("the same question");
        assert!(matches!(questions.ask(&keyed("b")), Err(InvokeError::KeyReused { turn }) if turn == "t"));
        drop(first);
        assert!(questions.ask(&keyed("b")).is_err(), "the other still asks");
        drop(again);
        assert!(questions.ask(&keyed("b")).is_ok() && questions.lock().is_empty());
    }
}
