//! What happens in a turn, told as it happens to whoever listens and to the node's activity.
//!
//! Nobody who listens keeps a turn waiting: what is not read yet waits in a queue with a limit, pieces of text in a row as one.
//! A listener that falls behind the limit hears no more of the steps, and the end of the turn, which has the whole answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::activity::TurnLog;
use crate::api::messages::TurnEvent;

/// How many events wait for a slow listener at most.
pub const EVENTS_WAITING_MAX: usize = 1_024;
/// How much text waits for one, in bytes.
pub const TEXT_WAITING_BYTES_MAX: usize = 1 << 20;

/// Where events go, if anyone listens; a listener that leaves does not stop the turn.
#[derive(Debug, Clone, Default)]
pub struct Events {
    listener: Option<Arc<Speaker>>,
    log: Option<Arc<TurnLog>>,
}

/// The listener's end. When it is dropped, nobody listens any more.
#[derive(Debug)]
pub struct Heard(Arc<Queue>);

/// The turn's end. When the last is dropped, nothing more comes.
#[derive(Debug)]
struct Speaker(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<TurnEvent>,
    text_bytes: usize,
    /// The listener fell behind: what comes now is not kept for it.
    is_behind: bool,
    /// Nothing more comes.
    is_over: bool,
    is_alone: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, event: TurnEvent) {
        if self.is_behind || self.is_alone {
            return;
        }
        if let TurnEvent::Text { text, .. } = &event {
            self.text_bytes += text.len();
        }
        if self.events.len() >= EVENTS_WAITING_MAX || self.text_bytes > TEXT_WAITING_BYTES_MAX {
            self.is_behind = true;
            return;
        }
        match (self.events.back_mut(), event) {
            (
                Some(TurnEvent::Text { agent: before, depth: at, text: held }),
                TurnEvent::Text { agent, depth, text },
            ) if *before == agent && *at == depth => held.push_str(&text),
            (_, event) => self.events.push_back(event),
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.more.notify_one();
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.is_alone = true;
        waiting.events.clear();
    }
}

impl Heard {
    /// The next event; nothing when no more comes.
    pub async fn recv(&mut self) -> Option<TurnEvent> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some(event) = waiting.events.pop_front() {
                    if let TurnEvent::Text { text, .. } = &event {
                        waiting.text_bytes = waiting.text_bytes.saturating_sub(text.len());
                    }
                    return Some(event);
                }
                if waiting.is_over {
                    return None;
                }
            }
            // What came in between is remembered: there is one listener.
            self.0.more.notified().await;
        }
    }
}

impl Events {
    pub fn none() -> Events {
        Events::default()
    }

    /// The same, and each step is noted in `log` too.
    pub fn noted(self, log: Arc<TurnLog>) -> Events {
        Events { log: Some(log), ..self }
    }

    pub fn channel() -> (Events, Heard) {
        let queue = Arc::new(Queue::default());
        let listener = Some(Arc::new(Speaker(Arc::clone(&queue))));
        (Events { listener, log: None }, Heard(queue))
    }

    /// Whether anyone listens.
    pub fn is_heard(&self) -> bool {
        self.listener.as_ref().is_some_and(|speaker| !speaker.0.lock().is_alone)
    }

    /// Hands an event on, and waits for nobody; it is made only when someone listens, or it is noted.
    pub fn emit(&self, event: impl FnOnce() -> TurnEvent) {
        let is_heard = self.is_heard();
        if !is_heard && self.log.is_none() {
            return;
        }
        let event = event();
        if let Some(log) = &self.log {
            log.step(&event);
        }
        if let Some(speaker) = self.listener.as_ref().filter(|_| is_heard) {
            speaker.0.lock().push(event);
            speaker.0.more.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(piece: &str) -> TurnEvent {
        TurnEvent::Text { agent: "a".parse().expect("a name"), depth: 0, text: piece.to_owned() }
    }

    fn step(depth: u32) -> TurnEvent {
        TurnEvent::ModelAsked { agent: "a".parse().expect("a name"), depth }
    }

    #[tokio::test]
    async fn a_listener_that_is_slow_hears_the_same_text_in_fewer_pieces() {
        let (events, mut heard) = Events::channel();
        events.emit(|| step(0));
        for piece in ["a", "b", "c"] {
            events.emit(|| text(piece));
        }
        events.emit(|| step(1));
        drop(events);
        let mut told = Vec::new();
        while let Some(event) = heard.recv().await {
            told.push(match event {
                TurnEvent::Text { text, .. } => text,
                other => other.name().to_owned(),
            });
        }
        assert_eq!(told, ["model_asked", "abc", "model_asked"]);
    }

    #[tokio::test]
    async fn a_listener_that_does_not_read_costs_no_more_than_the_limit_and_keeps_nobody_waiting() {
        let (events, mut heard) = Events::channel();
        for number in 0..EVENTS_WAITING_MAX as u32 * 2 {
            events.emit(|| step(number));
        }
        let (long, mut deaf) = Events::channel();
        let piece = "x".repeat(TEXT_WAITING_BYTES_MAX / 4);
        for _ in 0..8 {
            long.emit(|| text(&piece));
        }
        long.emit(|| step(0));
        drop((events, long));
        let mut count = 0;
        while heard.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, EVENTS_WAITING_MAX);
        let Some(TurnEvent::Text { text, .. }) = deaf.recv().await else { panic!("there was some text") };
        assert_eq!((text.len(), deaf.recv().await.is_none()), (TEXT_WAITING_BYTES_MAX, true), "and no hole in it");
    }

    #[tokio::test]
    async fn nobody_speaks_to_nobody() {
        let (events, heard) = Events::channel();
        assert!(events.is_heard());
        drop(heard);
        assert!(!events.is_heard());
        events.emit(|| panic!("nobody would hear it"));
    }
}
