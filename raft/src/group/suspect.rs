//! A leader whose process has ended is not waited for: its voters stand for election as soon as they have seen that.
//!
//! Only time is saved, and nothing is decided on it: a vote is a vote, and whoever has less of the log loses. What is
//! seen has to be two things at once, that nobody listens where the leader was and that it sends nothing, so that a
//! leader which is merely hard to reach from here is left alone.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::NodeId;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use crate::network::Links;
use crate::type_config::Raft;

/// How long the first candidate waits, so that the others have seen the same when it asks them.
const FIRST_WAIT: Duration = Duration::from_millis(30);
/// How long each further one waits more, so that the first has been elected.
const NEXT_WAIT: Duration = Duration::from_millis(120);

/// Follows what the transport says, in a task that ends with the group.
pub fn start(raft: &Raft, links: &Arc<Links>, heartbeat: Duration) -> Option<JoinHandle<()>> {
    let mut gone = links.transport.gone()?;
    let (raft, links) = (raft.clone(), Arc::clone(links));
    Some(tokio::spawn(async move {
        loop {
            match gone.recv().await {
                Ok(node) => suspect(&raft, &links, node, heartbeat).await,
                // The election timers are there for what was missed.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }))
}

async fn suspect(raft: &Raft, links: &Links, node: NodeId, heartbeat: Duration) {
    let metrics = raft.metrics().borrow().clone();
    let vote = metrics.vote;
    let mut voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
    if metrics.current_leader != Some(node.0) || node == links.node || !voters.contains(&links.node.0) {
        return;
    }
    // A leader that is there sends something at every heartbeat.
    let quiet = heartbeat + heartbeat / 2;
    if let Some(left) = links.unled().and_then(|unled| quiet.checked_sub(unled)) {
        tokio::time::sleep(left).await;
    }
    if links.unled().is_some_and(|unled| unled < quiet) || raft.metrics().borrow().vote != vote {
        return;
    }
    links.give_up(vote);
    // One after another; of two votes in one term the one of the higher id counts, so that goes first.
    voters.retain(|voter| *voter != node.0 && *voter > links.node.0);
    let before = u32::try_from(voters.len()).unwrap_or(u32::MAX);
    tokio::time::sleep(FIRST_WAIT + NEXT_WAIT.saturating_mul(before)).await;
    if raft.metrics().borrow().vote != vote || !links.is_given_up(&vote) {
        return;
    }
    info!(group = links.group.0, leader = %node, "the leader's process has ended: this node stands for election");
    if let Err(error) = raft.trigger().elect().await {
        debug!(group = links.group.0, %error, "the group has stopped");
    }
}
