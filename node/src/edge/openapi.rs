//! The API's description, assembled from what each part's file says of its own routes, and a page to read it at.
//!
//! Both are the same text for everybody, and open to all: a browser that reads a manual has no token to send.

mod page;

mod statuses;
mod unions;

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::extract::Open;
use super::routes::{Owner, Routes, get};
use super::{anthropic, openai, rest, ws};
use crate::api::paths;

/// This part of the API's description, and what holds for all of it.
#[derive(OpenApi)]
#[openapi(
    paths(document_json, docs),
    components(schemas(crate::api::Problem)),
    info(
        title = "Caxton",
        description = "The API of a Caxton node. Errors are `application/problem+json` (RFC 9457) with a stable `code`, \
                       and `help` that says what to do. Every answer carries `x-request-id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Bearer),
    security(("bearer" = [])),
    tags(
        (name = "node", description = "The node itself."),
        (name = "deployments", description = "What is live, and how it becomes so."),
        (name = "workspaces", description = "A workspace as a whole: what there is of it, and its deletion."),
        (name = "agents", description = "The agents of what is live."),
        (name = "tools", description = "The tools of what is live."),
        (name = "secrets", description = "What tools and providers are given by name."),
        (name = "messages", description = "Messages to agents, their conversations, and what waits for a person."),
        (name = "mailbox", description = "Messages between agents and people: mailboxes, deliveries and dead letters."),
        (name = "topics", description = "Topics: who subscribed, what is published, and what was."),
        (name = "memory", description = "What workspaces remember: memories, entities and relations."),
        (name = "openai", description = "OpenAI's protocol: an agent is a model named `WORKSPACE/AGENT`."),
        (name = "anthropic", description = "Anthropic's protocol, with the same models."),
        (name = "events", description = "Deployments as they happen."),
        (name = "tokens", description = "Who may do what."),
        (name = "cluster", description = "The nodes, who votes and who leads."),
    ),
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The admin token of the node's data directory, or one that `caxton token create` made."))
            .build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The parts of the description, in the order in which it shows them.
fn parts() -> Vec<utoipa::openapi::OpenApi> {
    vec![
        rest::system::Doc::openapi(),
        rest::tokens::Doc::openapi(),
        rest::events::Doc::openapi(),
        rest::logs::Doc::openapi(),
        rest::tools::Doc::openapi(),
        rest::secrets::Doc::openapi(),
        rest::route::Doc::openapi(),
        rest::deployments::Doc::openapi(),
        rest::workspaces::Doc::openapi(),
        rest::usage::Doc::openapi(),
        rest::agents::Doc::openapi(),
        rest::messages::Doc::openapi(),
        rest::memory::Doc::openapi(),
        rest::mailbox::Doc::openapi(),
        rest::signatures::Doc::openapi(),
        ws::Doc::openapi(),
        rest::topics::Doc::openapi(),
        rest::schedules::Doc::openapi(),
        openai::Doc::openapi(),
        anthropic::Doc::openapi(),
        rest::cluster::Doc::openapi(),
        rest::backup::Doc::openapi(),
    ]
}

/// The whole description.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = parts().into_iter().fold(Base::openapi(), |document, part| document.merge_from(part));
    statuses::complete(&mut document);
    unions::name_forms(&mut document);
    document
}

/// The description as JSON, as docs/openapi.json has it.
pub fn json() -> String {
    let mut json = serde_json::to_string_pretty(&document()).unwrap_or_default();
    json.push('\n');
    json
}

static JSON: LazyLock<String> = LazyLock::new(json);
static PAGE: LazyLock<String> = LazyLock::new(|| page::page(&serde_json::to_value(document()).unwrap_or_default()));

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::OPENAPI), Owner::Anyone, document_json).on(get(paths::DOCS), Owner::Anyone, docs)
}

/// This description. Open to all.
#[utoipa::path(get, path = paths::OPENAPI.text(), tag = "node", security(()), responses(
    (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value, content_type = "application/json"),
))]
async fn document_json(_: Open) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], JSON.as_str())
}

/// This description as a page to read. Open to all.
#[utoipa::path(get, path = paths::DOCS.text(), tag = "node", security(()), responses(
    (status = 200, description = "A page without scripts.", body = String, content_type = "text/html"),
))]
async fn docs(_: Open) -> impl IntoResponse {
    const POLICY: HeaderName = HeaderName::from_static("content-security-policy");
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(POLICY, policy)], Html(PAGE.as_str()))
}

#[cfg(test)]
mod tests;
