//! The HTTP API: its routes, and what every request passes through on its way in and out.
//!
//! A route's file exports `routes()`; it asks for an [`Access`](crate::auth::Access) unless it is open to all, and
//! answers errors as a [`Problem`](problem::Problem).

pub mod extract;
pub mod problem;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};

use crate::auth::Auth;
use crate::config::Config;
use problem::{Code, Problem};

/// What handlers work with. A clone is a few reference counts.
#[derive(Clone)]
pub struct Services {
    /// The settings.
    pub config: Arc<Config>,
    /// Checks bearers and signs tokens.
    pub auth: Arc<Auth>,
}

/// All routes.
pub fn router(services: Services) -> Router {
    Router::new().fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(services)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
        .help("GET /api/v1/openapi.json lists what there is, and /docs shows it")
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
        .help("GET /api/v1/openapi.json lists what there is, and /docs shows it")
}
