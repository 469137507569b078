//! The one connection to a peer: made when it is first needed, shared by all, and made again when it broke, with
//! longer and longer pauses while the peer cannot be reached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_proto::NodeId;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::dial::{Channel, DIAL_TIMEOUT, DialError, Dialer};
use crate::errors::chain;

/// The first pause after an attempt that failed.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause; each is twice the one before.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the log says that a peer still cannot be reached.
const SAY_EVERY: Duration = Duration::from_secs(60);

type DialResult = Result<Channel, Arc<DialError>>;

/// The connection to one peer.
pub(super) struct Link {
    node: NodeId,
    state: Mutex<State>,
    /// Set while it cannot be reached. What is said of that has to stay readable while it lasts.
    away: Mutex<Option<Away>>,
}

/// Since when a peer cannot be reached, and when that was last said.
struct Away {
    since: Instant,
    said: Instant,
}

enum State {
    /// Not needed yet, or allowed to try at once.
    Idle,
    /// Somebody needs it; all who do wait for the same attempt.
    Dialing(Shared<BoxFuture<'static, DialResult>>),
    Up(Channel),
    /// The last attempt failed; nobody tries before `until`.
    Down {
        until: Instant,
        pause: Duration,
        why: Arc<DialError>,
    },
}

impl Link {
    pub fn new(node: NodeId) -> Link {
        Link { node, state: Mutex::new(State::Idle), away: Mutex::default() }
    }

    /// The connection. Whoever stops waiting does not stop the attempt.
    pub async fn channel(self: Arc<Self>, dialer: &Arc<Dialer>) -> DialResult {
        let attempt = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let pause = match &*state {
                State::Up(channel) if !channel.is_closed() => return Ok(channel.clone()),
                State::Dialing(attempt) => Err(attempt.clone()),
                State::Down { until, why, .. } if Instant::now() < *until => return Err(Arc::clone(why)),
                State::Down { pause, .. } => Ok((*pause * 2).min(PAUSE_MAX)),
                State::Idle | State::Up(_) => Ok(PAUSE_MIN),
            };
            match pause {
                Err(attempt) => attempt,
                Ok(pause) => {
                    let attempt = Arc::clone(&self).attempt(Arc::clone(dialer), pause);
                    *state = State::Dialing(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await
    }

    /// Lets the next who needs it try at once.
    pub fn forgive(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*state, State::Down { .. }) {
            *state = State::Idle;
        }
    }

    /// Says that the peer cannot be reached, once when that begins and once a minute, and that it is back.
    fn tell(&self, dialer: &Dialer, failed: Option<&Arc<DialError>>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let (peer, address) = (self.node, dialer.book.address(self.node).unwrap_or_default());
        match (failed, away.as_mut()) {
            (None, None) => {}
            (None, Some(before)) => {
                info!(%peer, address, away_s = before.since.elapsed().as_secs(), "a peer is back");
                *away = None;
            }
            (Some(why), None) => {
                warn!(%peer, address, why = chain(&**why), "a peer cannot be reached");
                let now = Instant::now();
                *away = Some(Away { since: now, said: now });
            }
            (Some(why), Some(before)) if before.said.elapsed() >= SAY_EVERY => {
                let away_s = before.since.elapsed().as_secs();
                warn!(%peer, address, away_s, why = chain(&**why), "a peer still cannot be reached");
                before.said = Instant::now();
            }
            (Some(why), Some(_)) => debug!(%peer, address, why = chain(&**why), "a peer still cannot be reached"),
        }
    }

    fn attempt(self: Arc<Self>, dialer: Arc<Dialer>, pause: Duration) -> Shared<BoxFuture<'static, DialResult>> {
        let node = self.node;
        let jobs = dialer.jobs.clone();
        let task = jobs.spawn("peer-dial", async move {
            let dialed = tokio::time::timeout(DIAL_TIMEOUT, dialer.dial(node)).await;
            let dialed = dialed.unwrap_or(Err(DialError::TimedOut { node })).map_err(Arc::new);
            self.tell(&dialer, dialed.as_ref().err());
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = match &dialed {
                Ok(channel) => State::Up(channel.clone()),
                Err(why) => State::Down { until: Instant::now() + pause, pause, why: Arc::clone(why) },
            };
            dialed
        });
        // A panic in there is a defect that the panic's own message tells of.
        task.map(move |ended| ended.unwrap_or_else(|_| Err(Arc::new(DialError::TimedOut { node })))).boxed().shared()
    }
}
