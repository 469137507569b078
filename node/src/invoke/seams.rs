//! What the walk asks of routing and of tools, so that a test can stand in for either.

use std::sync::Arc;

use caxton_proto::{AgentName, ToolName};
use futures::future::BoxFuture;

use crate::agent::Offered;
use crate::agent::world::{Found, Invocation, NotFound, ToolOutput};
use crate::catalog::Catalog;

/// Finds agents by what they can do.
pub trait Routes: Send + Sync + 'static {
    /// The agent of the catalog that can best do what is wanted, those of `except` left out.
    fn find<'a>(
        &'a self,
        catalog: &'a Arc<Catalog>,
        wanted: &'a str,
        except: &'a [AgentName],
    ) -> BoxFuture<'a, Result<Found, NotFound>>;

    /// At most `limit` capabilities that come nearest to `about`, the best first.
    fn nearest<'a>(&'a self, catalog: &'a Arc<Catalog>, about: &'a str, limit: usize) -> BoxFuture<'a, Vec<Found>>;
}

/// Why a tool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOffered {
    /// Why, and what to do.
    pub problem: String,
    /// It may be over soon, without anybody changing the workspace: a server that is down costs its tools and no agent.
    pub passing: bool,
}

/// The tools of workspaces.
pub trait Toolbox: Send + Sync + 'static {
    /// What one tool of the catalog offers.
    fn offered<'a>(
        &'a self,
        catalog: &'a Arc<Catalog>,
        tool: &'a ToolName,
    ) -> BoxFuture<'a, Result<Vec<Offered>, NotOffered>>;

    /// Calls a tool. The error is for the model.
    fn call<'a>(&'a self, catalog: &'a Arc<Catalog>, call: Invocation<'a>)
    -> BoxFuture<'a, Result<ToolOutput, String>>;
}
