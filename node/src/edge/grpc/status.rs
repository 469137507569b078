//! A problem as a status of gRPC: its code, and in the details what programs go by.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code as StatusCode, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::edge::problem::{Code, Problem};
use crate::text::head;

/// Whose codes the reasons of the details are.
const DOMAIN: &str = "caxton";
/// The longest fact that goes into a status, in bytes: it travels in a header.
const FACT_BYTES_MAX: usize = 1024;
/// The longest detail that goes into a status, in bytes: what a client sent may be in it, and it travels in a header too.
const DETAIL_BYTES_MAX: usize = 1024;
/// The most facts that go into a status.
const FACTS_MAX: usize = 8;

/// The status of a problem. The codes that gRPC has are fewer: the reason of the details tells them apart.
pub fn of(problem: &Problem, request_id: Option<&str>) -> Status {
    let body = problem.body(request_id);
    let mut facts = HashMap::new();
    for (name, value) in body.extra.iter().take(FACTS_MAX) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if text.len() <= FACT_BYTES_MAX {
            facts.insert(name.clone(), text);
        }
    }
    if let Some(help) = &body.help {
        facts.insert("help".to_owned(), help.clone());
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(problem.code().name().to_uppercase(), DOMAIN, facts);
    if let Some(seconds) = problem.retry_after_s() {
        details.set_retry_info(Some(Duration::from_secs(u64::from(seconds))));
    }
    if let Some(id) = request_id {
        details.set_request_info(id, "");
    }
    Status::with_error_details(code(problem.code()), head(&body.detail, DETAIL_BYTES_MAX), details)
}

fn code(code: Code) -> StatusCode {
    match code {
        Code::Unauthorized => StatusCode::Unauthenticated,
        Code::Forbidden => StatusCode::PermissionDenied,
        Code::NotFound | Code::NoCapableAgent => StatusCode::NotFound,
        Code::MethodNotAllowed | Code::UnsupportedMediaType => StatusCode::Unimplemented,
        Code::Conflict => StatusCode::Aborted,
        Code::CheckFailed | Code::ArtifactsMissing | Code::ApprovalNeeded => StatusCode::FailedPrecondition,
        Code::RootMismatch | Code::InvalidRequest | Code::DigestMismatch => StatusCode::InvalidArgument,
        Code::BodyTooLarge | Code::TooManyRequests | Code::DiskFull => StatusCode::ResourceExhausted,
        // Not `UNAVAILABLE`: clients would send it again, and it would be paid for again.
        Code::TurnFailed => StatusCode::Unknown,
        Code::Timeout => StatusCode::DeadlineExceeded,
        Code::EventsCompacted => StatusCode::OutOfRange,
        Code::Corrupt => StatusCode::DataLoss,
        Code::Unavailable => StatusCode::Unavailable,
        Code::Internal => StatusCode::Internal,
    }
}
