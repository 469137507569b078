//! What a provider says when it does not answer, wherever it puts the words, and which error that is.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::super::Error;
use super::super::limits::{ERROR_BYTES_MAX, ERROR_CHARS_MAX};
use super::Endpoint;
use crate::text::head;

/// A request that was not answered, with all that was said of it: the request may be put in other words.
#[derive(Debug)]
pub(in super::super) struct Refusal {
    /// What it means.
    pub error: Error,
    /// All the words that the provider has for it, in lower case; empty where it has none.
    pub text: String,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { error, text: String::new() }
    }
}

/// What an error says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct ErrorText {
    /// The words, short enough to be shown.
    pub message: String,
    /// All of them in lower case, with the name of the field that they are about.
    pub words: String,
    /// The status that it stands for, where it names one.
    pub status: Option<u16>,
    /// The balance or the plan is used up: asking again is of no use.
    pub quota: bool,
}

impl Endpoint {
    pub(super) async fn refused(&self, url: String, mut response: Response) -> Refusal {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while body.len() < ERROR_BYTES_MAX {
            match tokio::time::timeout(self.silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                _ => break, // What came so far says enough.
            }
        }
        body.truncate(ERROR_BYTES_MAX);
        let provider = self.provider.clone();
        if body.trim_ascii_start().first() == Some(&b'<') && matches!(status, 300..=399 | 400 | 404 | 405 | 410) {
            let problem = format!("the status {status} and a page ({:?})", title(&body));
            return Error::WrongAddress { provider, url, problem }.into();
        }
        let mut told = said(&body);
        let quota = told.quota || status == 402;
        if matches!(status, 300..=399) {
            let place = headers.get("location").and_then(|place| place.to_str().ok()).unwrap_or("elsewhere");
            let problem = format!("the status {status}, which points to {}", head(place, 200));
            return Error::WrongAddress { provider, url, problem }.into();
        }
        let text = std::mem::take(&mut told.words);
        let retry_after = retry_after(&headers);
        told.message = self.hide_key(told.message);
        let error = match status {
            // Some say "quota" where they mean a minute's; those say when to come again.
            402 | 403 | 429 | 400 if quota && retry_after.is_none() => {
                Error::QuotaSpent { provider, status, message: told.message }
            }
            404 | 405 if told.message.len() < 200 => Error::NotThere { provider, url, status, message: told.message },
            _ => self.error_of(status, told.message, retry_after),
        };
        Refusal { error, text }
    }

    /// The error that a status, or an error event within a stream, stands for.
    pub(in super::super) fn error_of(&self, status: u16, message: String, retry_after: Option<Duration>) -> Error {
        let provider = self.provider.clone();
        let message = self.hide_key(message);
        match status {
            401 | 403 => {
                let key_help = match self.key.is_set() {
                    true => "check that the key is valid and may use this model".to_owned(),
                    false => format!(
                        "it was asked without one: write `api_key = \"secret:NAME\"` or `api_key = \"env:VARIABLE\"` under [providers.{provider}] in caxton.toml"
                    ),
                };
                Error::Unauthorized { provider, status, message, key_help }
            }
            408 | 409 | 425 | 429 | 503 | 529 => Error::Busy { provider, status, message, retry_after },
            500..=599 => Error::Failed { provider, status, message },
            _ => Error::Rejected { provider, status, message },
        }
    }

    /// The error that stands in the middle of a stream, or in an answer under a status of success.
    pub(in super::super) fn error_within(&self, error: &Value) -> Error {
        let told = said_in(error);
        if told.quota {
            let (provider, status) = (self.provider.clone(), told.status.unwrap_or(429));
            return Error::QuotaSpent { provider, status, message: self.hide_key(told.message) };
        }
        self.error_of(told.status.unwrap_or(502), told.message, None)
    }

    /// Some providers repeat the key that they do not accept.
    fn hide_key(&self, message: String) -> String {
        match self.key.expose() {
            Ok(Some(key)) if !key.is_empty() => message.replace(&key, "[key]"),
            _ => message,
        }
    }
}

/// The words in an error's body.
fn said(body: &[u8]) -> ErrorText {
    match serde_json::from_slice::<Value>(body) {
        Ok(json) => said_in(&json),
        Err(_) => {
            let text = match body.trim_ascii_start().first() {
                Some(b'<') => title(body),
                _ => String::from_utf8_lossy(body).into_owned(),
            };
            ErrorText { message: short(&text), words: text.to_lowercase(), quota: is_quota(&text), status: None }
        }
    }
}

/// The words in an error, wherever a provider puts them.
fn said_in(json: &Value) -> ErrorText {
    // Gemini sends a list of one.
    let json = json.as_array().and_then(|list| list.first()).unwrap_or(json);
    let places = [
        "/error/message",
        "/error/error/message",
        "/message",
        "/error",
        "/detail",
        "/detail/message",
        "/errors/0/message",
    ];
    let told = places.iter().find_map(|place| json.pointer(place).and_then(Value::as_str));
    let text = match (told, json.pointer("/detail").and_then(Value::as_array)) {
        (Some(text), _) => text.to_owned(),
        (None, Some(list)) => list.iter().map(detail).collect::<Vec<_>>().join("; "),
        (None, None) => json.as_str().map_or_else(|| json.to_string(), str::to_owned),
    };
    let kind = |place: &str| json.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let kinds = ["/error/code", "/error/type", "/error/status", "/code", "/type"].map(kind);
    let number = ["/error/code", "/code", "/error/status", "/status", "/error/status_code"].iter().find_map(|place| {
        let value = json.pointer(place)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    });
    let status = number.and_then(|number| u16::try_from(number).ok()).filter(|number| (400..600).contains(number));
    let status = status.or_else(|| kinds.iter().find_map(|kind| status_of(kind)));
    let quota = kinds.iter().any(|kind| is_quota_kind(kind)) || is_quota(&text);
    let param =
        ["/error/param", "/param", "/error/metadata/raw"].iter().find_map(|place| json.pointer(place)?.as_str());
    let words = param.map_or_else(|| text.clone(), |param| format!("{text} (param: {param})")).to_lowercase();
    ErrorText { message: short(&text), words, status, quota }
}

/// One entry of a list of what is wrong, as FastAPI makes it: where and what.
fn detail(entry: &Value) -> String {
    let place = entry["loc"].as_array().into_iter().flatten();
    let place = place.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect::<Vec<_>>();
    let what = entry["msg"].as_str().map_or_else(|| entry.to_string(), str::to_owned);
    if place.is_empty() { what } else { format!("{}: {what}", place.join(".")) }
}

/// The status that a provider's name for an error stands for, where it has no other.
fn status_of(kind: &str) -> Option<u16> {
    let kind = kind.to_ascii_lowercase();
    let names = [
        ("overloaded", 529),
        ("rate_limit", 429),
        ("too_many_requests", 429),
        ("resource_exhausted", 429),
        ("insufficient_quota", 429),
        ("authentication", 401),
        ("invalid_api_key", 401),
        ("permission", 403),
        ("not_found", 404),
        ("invalid_request", 400),
        ("invalid_argument", 400),
        ("invalid_prompt", 400),
        ("content_filter", 400),
        ("context_length_exceeded", 400),
        ("bad_request", 400),
        ("badrequest", 400),
        ("request_too_large", 413),
        ("unavailable", 503),
        ("timeout", 504),
        ("api_error", 500),
        ("server_error", 500),
    ];
    names.iter().find(|(name, _)| kind.contains(name)).map(|(_, status)| *status)
}

fn is_quota_kind(kind: &str) -> bool {
    let names = [
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "credits_exhausted",
    ];
    names.contains(&kind.to_ascii_lowercase().as_str())
}

/// Whether the words say that no more money or plan is left, and not that a minute's share is used.
fn is_quota(text: &str) -> bool {
    let text = text.to_lowercase();
    let paced = ["retry in", "try again in", "per minute", "per second", "requests per", "tokens per min"];
    if paced.iter().any(|words| text.contains(words)) {
        return false;
    }
    let spent = [
        "insufficient balance",
        "insufficient credits",
        "insufficient funds",
        "insufficient_quota",
        "credit balance is too low",
        "exceeded your current quota",
        "quota used up",
        "quota is used up",
        "quota exhausted",
        "requires more credits",
        "out of credits",
        "billing hard limit",
        "account is not active",
        "spending limit",
        "payment required",
    ];
    spent.iter().any(|words| text.contains(words))
}

/// A page's title, or its first words.
pub(super) fn title(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_BYTES_MAX)]).into_owned();
    let lower = text.to_ascii_lowercase();
    let inner = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let to = from + lower[from..].find('<')?;
        text.get(from..to)
    });
    let words = inner.unwrap_or(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(80).collect()
}

/// One line, not too long, without the full stop that our own sentence has no use for.
fn short(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = text.chars().take(ERROR_CHARS_MAX).collect();
    let short = short.trim_end_matches(['.', ' ', '!']);
    if short.is_empty() { "no reason given".to_owned() } else { short.to_owned() }
}

/// `Retry-After` in seconds or as a date, or `retry-after-ms`, which some providers add.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |name: &str| text(name).and_then(|value| value.parse::<f64>().ok());
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number(RETRY_AFTER.as_str()));
    if let Some(seconds) = seconds {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    until(text(RETRY_AFTER.as_str())?, crate::time::now())
}

/// The time from `now` to a date as HTTP writes it; none for one that is past.
fn until(date: &str, now: jiff::Timestamp) -> Option<Duration> {
    let moment = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let ms = moment.as_millisecond().saturating_sub(now.as_millisecond());
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_error_are_found_wherever_they_are() {
        for (body, message, status, quota) in [
            (
                r#"{"error":{"message":"No such model.","type":"invalid_request_error"}}"#,
                "No such model",
                Some(400),
                false,
            ),
            (
                r#"[{"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}]"#,
                "slow down",
                Some(429),
                false,
            ),
            (r#"{"error":"model 'x' not found"}"#, "model 'x' not found", None, false),
            (
                r#"{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#,
                "body.stream_options: Extra inputs are not permitted",
                None,
                false,
            ),
            (r#"{"detail":"Not Found"}"#, "Not Found", None, false),
            (r#"{"object":"error","message":"too long","code":400}"#, "too long", Some(400), false),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#, "later", Some(529), false),
            (
                r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
                "You exceeded your current quota",
                Some(429),
                true,
            ),
            (
                r#"{"error":{"message":"You exceeded your current quota. Please retry in 34s.","code":429}}"#,
                "You exceeded your current quota. Please retry in 34s",
                Some(429),
                false,
            ),
            (
                r#"{"error":{"message":"Your credit balance is too low to access the API","type":"invalid_request_error"}}"#,
                "Your credit balance is too low to access the API",
                Some(400),
                true,
            ),
            ("<html><head><title>502 Bad\nGateway</title>", "502 Bad Gateway", None, false),
            ("plain words", "plain words", None, false),
            ("", "no reason given", None, false),
        ] {
            let said = said(body.as_bytes());
            assert_eq!((said.message.as_str(), said.status, said.quota), (message, status, quota), "{body}");
        }
    }

    #[test]
    fn a_wish_to_wait_is_a_number_or_a_date() {
        let now: jiff::Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        assert_eq!(until("Sat, 28 Nov 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(until("Sat, 28 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(until("soon", now), None);
        let headers = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(reqwest::header::HeaderName::from_static(name), value.parse().expect("a value"))])
        };
        assert_eq!(retry_after(&headers("retry-after", "2.5")), Some(Duration::from_millis(2_500)));
        assert_eq!(retry_after(&headers("retry-after-ms", "300")), Some(Duration::from_millis(300)));
        assert_eq!(retry_after(&headers("retry-after", "-1")), None);
    }

    #[test]
    fn nothing_that_a_provider_writes_is_too_much() {
        let long = said("é".repeat(100_000).as_bytes()).message;
        assert_eq!(long.chars().count(), ERROR_CHARS_MAX);
        said(&[0xFF, b'<', 0xC3]);
        title("<title>é".as_bytes());
    }
}
