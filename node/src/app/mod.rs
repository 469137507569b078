//! What the node does for whoever has a permit: every edge calls this, and maps what it takes and gives.
//!
//! Nothing here knows a protocol. A function takes the permit for what it does, so that a caller that has none cannot be
//! written; it answers with domain types and with an error of its own that says what happened.

pub mod turns;

pub mod conversations;

pub mod memory;

pub mod mailboxes;

pub mod signatures;

pub mod topics;

pub mod schedules;

pub mod feeds;

pub mod dispatch;

mod delivery;

mod look;

mod places;

pub mod post;

pub mod deployments;

pub mod workspaces;

pub mod usage;

pub mod keys;

pub mod agents;

pub mod tools;

pub mod activity;

pub mod secrets;

pub mod tokens;

pub mod cluster;

pub mod node;

use std::sync::Arc;

/// The parts of the application. A clone is one reference count.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    /// These parts for all.
    pub fn new(parts: Parts) -> App {
        App(Arc::new(parts))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What an [`App`] is made of.
pub struct Parts {
    /// Messages to agents, and the turns that answer them.
    pub turns: turns::Turns,
    /// What was said.
    pub conversations: conversations::Conversations,
    /// What is remembered.
    pub memories: memory::Memories,
    /// What agents and people send each other.
    pub mailboxes: mailboxes::Mailboxes,
    /// Who signed it, and with which keys.
    pub signatures: signatures::Signatures,
    /// What they publish, and who subscribed.
    pub topics: topics::Topics,
    /// When agents are sent messages next.
    pub schedules: schedules::Schedules,
    /// Conversations and mailboxes as they grow.
    pub feeds: feeds::Feeds,
    /// What is live, its history, and the ways to change it.
    pub deployments: deployments::Deployments,
    /// What agents used, and how they did lately.
    pub usage: usage::Usage,
    /// Workspaces as a whole: what there is of them, and their deletion.
    pub workspaces: workspaces::Workspaces,
    /// The agents of what is live, and which of them a message would go to.
    pub agents: agents::Agents,
    /// The tools of what is live.
    pub tools: tools::Tools,
    /// What happens, for people who look.
    pub activity: activity::Activity,
    /// The secrets of workspaces.
    pub secrets: secrets::Secrets,
    /// The tokens of clients.
    pub tokens: tokens::Tokens,
    /// The nodes, and who leads what.
    pub cluster: cluster::Cluster,
    /// This node itself.
    pub node: node::Node,
}

/// Runs what blocks on the disk where that does no harm.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    let span = tracing::Span::current();
    crate::tasks::blocking(move || span.in_scope(work)).await
}
