//! The API of Caxton's own: each part's file has its routes, maps requests to calls of the application and answers back.

pub mod system;

pub mod tokens;

pub mod events;

pub mod logs;

pub mod tools;

pub mod secrets;

pub mod route;

pub mod cluster;

pub mod backup;

pub mod deployments;

pub mod workspaces;

pub mod usage;

pub mod agents;

pub mod messages;

pub mod memory;

pub mod mailbox;

pub mod signatures;

pub(in crate::edge) mod said;

pub mod topics;

pub mod schedules;

use caxton_messages::acl::{Address, InvalidAddress};
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::{Code, Problem};
use super::routes::Routes;
use crate::invoke::Freshness;

/// Every route of this edge.
pub fn routes() -> Routes {
    Routes::new()
        .merge(system::routes())
        .merge(tokens::routes())
        .merge(events::routes())
        .merge(logs::routes())
        .merge(tools::routes())
        .merge(secrets::routes())
        .merge(route::routes())
        .merge(cluster::routes())
        .merge(backup::routes())
        .merge(deployments::routes())
        .merge(workspaces::routes())
        .merge(usage::routes())
        .merge(agents::routes())
        .merge(messages::routes())
        .merge(memory::routes())
        .merge(mailbox::routes())
        .merge(signatures::routes())
        .merge(topics::routes())
        .merge(schedules::routes())
}

/// Runs what blocks on the disk where that does no harm.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    let span = tracing::Span::current();
    let done = crate::tasks::blocking(move || span.in_scope(work)).await;
    done.map_err(|error| Problem::internal(&error))?
}

/// Whose mailbox a request names.
fn owner(text: Option<&str>) -> Result<Option<Address>, Problem> {
    text.map(str::parse).transpose().map_err(|error: InvalidAddress| {
        Problem::new(Code::InvalidRequest, error.to_string()).help("name an agent, or a person as subject:NAME")
    })
}

/// How current an answer has to be.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Current {
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// What `?stale=true` asks for.
fn freshness(stale: bool) -> Freshness {
    if stale { Freshness::Stale } else { Freshness::Current }
}
