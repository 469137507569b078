//! Errors of the HTTP API: `application/problem+json` (RFC 9457) with a stable code and what to do next.
//!
//! Handlers return `Result<_, Problem>`; the request's id is added on the way out, so that no handler has to know it. What each part's errors become stands in a file below.

mod access;

mod cluster;

mod deployments;

mod feeds;

mod mailbox;
mod memory;

mod turns;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use caxton_proto::NodeId;
use serde::Serialize;

use crate::api;

/// What kinds of errors there are. A code never changes its name or its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No token, or one that is not valid.
    Unauthorized,
    /// The token does not allow this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The thing does not take this method.
    MethodNotAllowed,
    /// Someone else was first; carries `conflict`.
    Conflict,
    /// The deployment could not run; carries `diagnostics`.
    CheckFailed,
    /// Artifacts have to be sent first; carries `missing`.
    ArtifactsMissing,
    /// The files do not add up to the root that was sent.
    RootMismatch,
    /// The request is not one.
    InvalidRequest,
    /// The body is not in a format that the route takes.
    UnsupportedMediaType,
    /// Bytes do not have the digest that they were sent under.
    DigestMismatch,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// Nobody can do what was asked; carries `nearest`.
    NoCapableAgent,
    /// The agent gave no answer; carries `failure`.
    TurnFailed,
    /// A person has to decide first; carries `approvals`.
    ApprovalNeeded,
    /// More at once than the limit allows.
    TooManyRequests,
    /// It took longer than the limit.
    Timeout,
    /// The events asked for are not kept any more.
    EventsCompacted,
    /// The disk is full.
    DiskFull,
    /// Stored bytes are not what they were.
    Corrupt,
    /// Not now: starting, stopping, or without a leader.
    Unavailable,
    /// A defect or a broken machine.
    Internal,
}

impl Code {
    /// All of them, in the order of the documentation.
    pub const ALL: [Code; 22] = [
        Code::Unauthorized,
        Code::Forbidden,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Conflict,
        Code::CheckFailed,
        Code::ArtifactsMissing,
        Code::RootMismatch,
        Code::InvalidRequest,
        Code::UnsupportedMediaType,
        Code::DigestMismatch,
        Code::BodyTooLarge,
        Code::NoCapableAgent,
        Code::TurnFailed,
        Code::ApprovalNeeded,
        Code::TooManyRequests,
        Code::Timeout,
        Code::EventsCompacted,
        Code::DiskFull,
        Code::Corrupt,
        Code::Unavailable,
        Code::Internal,
    ];

    /// Its name, its status and its title.
    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Code::Unauthorized => ("unauthorized", 401, "A valid token is needed"),
            Code::Forbidden => ("forbidden", 403, "The token does not allow this"),
            Code::NotFound => ("not_found", 404, "There is no such thing"),
            Code::MethodNotAllowed => ("method_not_allowed", 405, "The path does not take this method"),
            Code::Conflict => ("conflict", 409, "Another deployment came first"),
            Code::CheckFailed => ("check_failed", 422, "The deployment could not run"),
            Code::ArtifactsMissing => ("artifacts_missing", 412, "Artifacts have to be sent first"),
            Code::RootMismatch => ("root_mismatch", 400, "The files do not add up to the root"),
            Code::InvalidRequest => ("invalid_request", 400, "The request is not valid"),
            Code::UnsupportedMediaType => ("unsupported_media_type", 415, "The body has a format that is not taken"),
            Code::DigestMismatch => ("digest_mismatch", 400, "Bytes do not have their digest"),
            Code::BodyTooLarge => ("body_too_large", 413, "The body is too large"),
            Code::NoCapableAgent => ("no_capable_agent", 404, "No agent can do that"),
            Code::TurnFailed => ("turn_failed", 502, "The agent gave no answer"),
            Code::ApprovalNeeded => ("approval_needed", 409, "A person has to decide first"),
            Code::TooManyRequests => ("too_many_requests", 429, "Too many at once"),
            Code::Timeout => ("timeout", 504, "It took too long"),
            Code::EventsCompacted => ("events_compacted", 410, "The events are not kept any more"),
            Code::DiskFull => ("disk_full", 507, "The disk is full"),
            Code::Corrupt => ("corrupt", 500, "Stored bytes are damaged"),
            Code::Unavailable => ("unavailable", 503, "Not now"),
            Code::Internal => ("internal", 500, "The server failed"),
        }
    }

    /// Its stable name.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Whether a request that was refused can be sent again by a program that does not look at the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It would be refused again, or be paid for once more.
    Never,
    /// Nothing was done.
    Harmless,
    /// Something may have been done: only a request with an idempotency key is answered once however often it is sent.
    WithKey,
}

/// The header by which the client libraries of OpenAI and Anthropic are told whether to send a request again.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error as a client sees it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    code: Code,
    detail: String,
    help: Option<String>,
    retry_after_s: Option<u32>,
    repeat: Repeat,
    extra: serde_json::Map<String, serde_json::Value>,
    leader: Option<NodeId>,
}

impl Problem {
    /// What happened this time, as a sentence without a full stop. It must not carry secrets.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        let (detail, extra) = (detail.into(), serde_json::Map::new());
        Problem { code, detail, help: None, retry_after_s: None, repeat: Repeat::Never, extra, leader: None }
    }

    /// What to do next.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// Nothing was done, and it makes sense to try again after so many seconds.
    pub fn retry_after(mut self, seconds: u32) -> Problem {
        (self.retry_after_s, self.repeat) = (Some(seconds), Repeat::Harmless);
        self
    }

    /// Something may have been done. What has an idempotency key can be sent again after so many seconds.
    pub fn retry_with_key(mut self, seconds: u32) -> Problem {
        (self.retry_after_s, self.repeat) = (Some(seconds), Repeat::WithKey);
        self
    }

    /// After how many seconds it makes sense to try again.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// A fact that [`with`](Self::with) added.
    pub fn fact(&self, name: &str) -> Option<&serde_json::Value> {
        self.extra.get(name)
    }

    /// Adds a fact that belongs to the code.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Problem {
        if let Ok(value) = serde_json::to_value(value) {
            self.extra.insert(name.to_owned(), value);
        }
        self
    }

    /// Nothing was done, because this node leads; the request can go there.
    pub fn led_by(mut self, leader: Option<NodeId>) -> Problem {
        self.leader = leader;
        self
    }

    /// The node that the request can go to, because nothing was done here.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// A failure whose cause belongs into the log and not to the client.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
        tracing::error!(error = %chain(error), "a request failed");
        Problem::new(Code::Internal, "the server could not answer the request")
            .help("look for the request id in the server's log, and try again")
    }

    pub fn code(&self) -> Code {
        self.code
    }

    /// The body, as the request with this id sees it.
    pub fn body(&self, request_id: Option<&str>) -> api::Problem {
        let (name, status, title) = self.code.row();
        api::Problem {
            kind: format!("/problems/{name}"),
            title: title.to_owned(),
            status,
            code: name.to_owned(),
            detail: self.detail.clone(),
            help: self.help.clone(),
            request_id: request_id.map(str::to_owned),
            extra: self.extra.clone(),
        }
    }

    /// The response to the request with this id.
    pub fn response(self, request_id: Option<&str>) -> Response {
        let body = serde_json::to_vec(&self.body(request_id)).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.extensions_mut().insert(self);
        response
    }

    /// Adds what a client is told beside the body. `has_key` says that the request had an idempotency key.
    pub fn put_headers(&self, headers: &mut HeaderMap, has_key: bool) {
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"caxton\""));
        }
        let again = match self.repeat {
            Repeat::Never => false,
            Repeat::Harmless => true,
            Repeat::WithKey => has_key,
        };
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if again { "true" } else { "false" }));
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.response(None)
    }
}

pub use crate::errors::chain;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_of_their_own() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn a_problem_says_what_happened_and_what_to_do() {
        let problem = Problem::new(Code::Conflict, "revision 3 is live").help("run `caxton pull`").with("conflict", 3);
        let body = serde_json::to_value(problem.body(Some("r1"))).expect("JSON");
        let expected = serde_json::json!({
            "type": "/problems/conflict", "title": "Another deployment came first", "status": 409, "code": "conflict",
            "detail": "revision 3 is live", "help": "run `caxton pull`", "request_id": "r1", "conflict": 3,
        });
        assert_eq!(body, expected);
    }
}
