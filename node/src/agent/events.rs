//! What happens in a turn, told as it happens to whoever listens and to the node's activity.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::activity::TurnLog;
use crate::api::messages::TurnEvent;

/// How many events wait for a slow reader before the turn waits for it.
pub const EVENTS_WAITING_MAX: usize = 256;

/// Where events go, if anyone listens; a listener that leaves does not stop the turn.
#[derive(Debug, Clone, Default)]
pub struct Events {
    listener: Option<mpsc::Sender<TurnEvent>>,
    log: Option<Arc<TurnLog>>,
}

impl Events {
    /// Nobody listens.
    pub fn none() -> Events {
        Events::default()
    }

    /// The same, and each step is noted in `log` too.
    pub fn noted(self, log: Arc<TurnLog>) -> Events {
        Events { log: Some(log), ..self }
    }

    /// A listener.
    pub fn channel() -> (Events, mpsc::Receiver<TurnEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        (Events { listener: Some(sender), log: None }, receiver)
    }

    /// Whether anyone listens.
    pub fn is_heard(&self) -> bool {
        self.listener.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Hands an event on; it is made only when someone listens, or it is noted.
    pub async fn emit(&self, event: impl FnOnce() -> TurnEvent) {
        let listener = self.listener.as_ref().filter(|sender| !sender.is_closed());
        if listener.is_none() && self.log.is_none() {
            return;
        }
        let event = event();
        if let Some(log) = &self.log {
            log.step(&event);
        }
        if let Some(sender) = listener {
            sender.send(event).await.ok();
        }
    }
}
