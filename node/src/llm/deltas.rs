//! A reply on its way: its text goes to whoever listens, and what has come of it is counted, so that a reply that breaks
//! off is paid for as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::limits::{DELTAS_WAITING_MAX, USAGE_TOKENS_MAX};
use super::{Usage, tokens_guess};

/// A piece of a reply on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// The next piece of text.
    Text(String),
    /// The request is made again: what was said of this reply so far does not count.
    Restart,
}

/// Where a reply's text goes piece by piece, if anyone listens, and the count of what has come.
#[derive(Debug, Clone, Default)]
pub struct Deltas {
    listener: Option<mpsc::Sender<Delta>>,
    meter: Arc<Meter>,
}

/// What has come of the request that is under way.
#[derive(Debug, Default)]
struct Meter {
    /// The provider took the request, so it may charge for it.
    begun: AtomicBool,
    /// A piece of text was handed on, and was not withdrawn since.
    handed_on: AtomicBool,
    /// Bytes of text, calls and reasoning.
    bytes: AtomicU64,
    /// What the provider said of its tokens so far.
    input: AtomicU64,
    output: AtomicU64,
}

impl Deltas {
    pub fn none() -> Deltas {
        Deltas::default()
    }

    /// A listener; a slow one holds the model's stream back, and one that leaves does not stop the reply.
    pub fn channel() -> (Deltas, mpsc::Receiver<Delta>) {
        let (sender, receiver) = mpsc::channel(DELTAS_WAITING_MAX);
        (Deltas { listener: Some(sender), meter: Arc::default() }, receiver)
    }

    /// Hands a piece on.
    pub async fn text(&self, text: &str) {
        if let Some(sender) = &self.listener
            && !text.is_empty()
        {
            self.meter.handed_on.store(true, Ordering::Relaxed);
            sender.send(Delta::Text(text.to_owned())).await.ok();
        }
    }

    /// Says that what was handed on does not count; where nothing was, there is nothing to say.
    pub async fn restart(&self) {
        if let Some(sender) = &self.listener
            && self.meter.handed_on.swap(false, Ordering::Relaxed)
        {
            sender.send(Delta::Restart).await.ok();
        }
    }

    /// The provider took the request.
    pub(super) fn begun(&self) {
        self.meter.begun.store(true, Ordering::Relaxed);
    }

    /// So many bytes of the reply have come by now.
    pub(super) fn received(&self, bytes: usize) {
        self.meter.bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// What the provider says that was used so far.
    pub(super) fn reported(&self, usage: Usage) {
        self.meter.input.store(usage.input.min(USAGE_TOKENS_MAX), Ordering::Relaxed);
        self.meter.output.store(usage.output.min(USAGE_TOKENS_MAX), Ordering::Relaxed);
    }

    /// Another request begins.
    pub(super) fn clear(&self) {
        self.meter.begun.store(false, Ordering::Relaxed);
        for count in [&self.meter.bytes, &self.meter.input, &self.meter.output] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// What a request that did not end well has used: what its provider said or what is guessed, whichever is more.
    /// `input` is the guess for the request.
    pub(super) fn used(&self, input: u64) -> Usage {
        if !self.meter.begun.load(Ordering::Relaxed) {
            return Usage::default();
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let guess = tokens_guess(usize::try_from(count(&self.meter.bytes)).unwrap_or(usize::MAX));
        let said = count(&self.meter.input);
        Usage { input: if said > 0 { said } else { input }, output: guess.max(count(&self.meter.output)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_heard_is_withdrawn_and_only_once() {
        let (deltas, mut said) = Deltas::channel();
        deltas.restart().await;
        deltas.text("").await;
        deltas.restart().await;
        assert!(said.try_recv().is_err(), "nothing was said, so nothing is withdrawn");
        deltas.text("half").await;
        deltas.restart().await;
        deltas.restart().await;
        assert_eq!(said.recv().await, Some(Delta::Text("half".into())));
        assert_eq!(said.recv().await, Some(Delta::Restart));
        assert!(said.try_recv().is_err());
    }
}
