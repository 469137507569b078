//! How a guest on its thread waits for what the node does elsewhere.

use crate::exchange::{AgentHost, Exchange, HostAnswer, HostRefusal};
use crate::guest::{Guest, Stopped};
use crate::tool::CallError;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How often a guest that waits looks whether it may go on.
const POLL: Duration = Duration::from_millis(20);

/// The exchange of a guest that is an agent.
pub(super) fn exchange(guest: &mut Guest) -> wasmtime::Result<&mut Exchange> {
    let none = || Stopped(CallError::BadResult { what: "it is called as a tool, and is an agent".into() });
    guest.exchange.as_deref_mut().ok_or_else(|| none().into())
}

/// Asks the node for something, and waits until it is there or the guest has to stop.
pub(super) fn ask<T: Send + 'static>(
    guest: &mut Guest,
    asked: impl FnOnce(Arc<dyn AgentHost>) -> HostAnswer<T>,
) -> wasmtime::Result<Result<T, HostRefusal>> {
    let host = exchange(guest)?.count().map_err(Stopped)?;
    let (done, waiting) = sync_channel(1);
    let answer = asked(host);
    let task = guest.terms.fetcher.runtime().spawn(async move { _ = done.send(answer.await) });
    loop {
        match waiting.recv_timeout(POLL) {
            Ok(answer) => {
                // A call that has to stop ends here, instead of going on with an error that the guest may swallow.
                guest.stop.check()?;
                return Ok(answer);
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Err(stopped) = guest.stop.check() {
                    task.abort();
                    return Err(stopped.into());
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Err(HostRefusal::new("the node ended what was asked for; try again later")));
            }
        }
    }
}
