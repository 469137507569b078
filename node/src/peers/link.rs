//! The one connection to a peer: made when it is first needed, shared by all, and made again when it broke, with
//! longer and longer pauses while the peer cannot be reached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_proto::NodeId;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;
use tracing::{debug, info};

use super::dial::{Channel, DIAL_TIMEOUT, DialError, Dialer};
use crate::errors::chain;

/// The first pause after an attempt that failed.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause; each is twice the one before.
const PAUSE_MAX: Duration = Duration::from_secs(1);

type Dialed = Result<Channel, Arc<DialError>>;

/// The connection to one peer.
pub(super) struct Link {
    node: NodeId,
    state: Mutex<State>,
}

enum State {
    /// Not needed yet, or allowed to try at once.
    Idle,
    /// Somebody needs it; all who do wait for the same attempt.
    Dialing(Shared<BoxFuture<'static, Dialed>>),
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
        Link { node, state: Mutex::new(State::Idle) }
    }

    /// The connection. Whoever stops waiting does not stop the attempt.
    pub async fn channel(self: Arc<Self>, dialer: &Arc<Dialer>) -> Dialed {
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

    fn attempt(self: Arc<Self>, dialer: Arc<Dialer>, pause: Duration) -> Shared<BoxFuture<'static, Dialed>> {
        let node = self.node;
        let jobs = dialer.jobs.clone();
        let task = jobs.spawn("peer-dial", async move {
            let dialed = tokio::time::timeout(DIAL_TIMEOUT, dialer.dial(node)).await;
            let dialed = dialed.unwrap_or(Err(DialError::TimedOut { node })).map_err(Arc::new);
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = match &dialed {
                Ok(channel) => State::Up(channel.clone()),
                Err(why) => {
                    // The first failure of a row is news, the rest is not.
                    match pause {
                        PAUSE_MIN => info!(peer = %node, why = %chain(why), "a peer cannot be reached"),
                        _ => debug!(peer = %node, why = %chain(why), "a peer cannot be reached"),
                    }
                    State::Down { until: Instant::now() + pause, pause, why: Arc::clone(why) }
                }
            };
            dialed
        });
        // A panic in there is a defect that the panic's own message tells of.
        task.map(move |ended| ended.unwrap_or_else(|_| Err(Arc::new(DialError::TimedOut { node })))).boxed().shared()
    }
}
