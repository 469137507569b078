//! One HTTP request to a provider and its streamed answer, with every failure named and every wait bounded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_proto::manifest::secret::SecretName;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::sse::{Event, Reader};
use super::{Error, REPLY_BYTES_MAX};
use crate::secrets::{NoSecret, Secrets};

/// A provider's stream may have this many bytes: JSON and deltas around a reply of [`REPLY_BYTES_MAX`].
const STREAM_BYTES_MAX: usize = 64 * REPLY_BYTES_MAX;
/// What an error's body may have; the rest is not read.
const ERROR_BYTES_MAX: usize = 16 << 10;
/// How much of an error's message is shown.
const ERROR_CHARS_MAX: usize = 400;

/// A provider's key, which never shows itself.
#[derive(Clone, Default)]
pub struct Key(Held);

#[derive(Clone, Default)]
enum Held {
    #[default]
    None,
    Text(Arc<str>),
    /// Looked up for each request, so that a secret that was set a moment ago counts.
    Secret {
        secrets: Arc<dyn Secrets>,
        workspace: WorkspaceId,
        name: SecretName,
    },
}

impl Key {
    /// No key at all, as local servers want it.
    pub fn none() -> Key {
        Key(Held::None)
    }

    /// A key; blank text is none.
    pub fn new(key: &str) -> Key {
        let key = key.trim();
        Key(if key.is_empty() { Held::None } else { Held::Text(key.into()) })
    }

    /// The secret of a workspace.
    pub fn secret(secrets: Arc<dyn Secrets>, workspace: WorkspaceId, name: SecretName) -> Key {
        Key(Held::Secret { secrets, workspace, name })
    }

    fn is_set(&self) -> bool {
        !matches!(self.0, Held::None)
    }

    fn expose(&self) -> Result<Option<String>, NoSecret> {
        match &self.0 {
            Held::None => Ok(None),
            Held::Text(key) => Ok(Some(key.to_string())),
            Held::Secret { secrets, workspace, name } => {
                secrets.value(workspace, name).map(|value| Some(value.expose().trim().to_owned()))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Key(set)" } else { "Key(none)" })
    }
}

/// Where a provider is and how long it is waited for.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The provider's name on this node.
    pub provider: String,
    /// Its address up to the version: `https://api.openai.com/v1`.
    pub base: String,
    /// Its key.
    pub key: Key,
    /// The longest silence: before the answer begins, and between two pieces of it.
    pub silence: Duration,
    client: Client,
}

impl Endpoint {
    /// An endpoint with connections of its own. Redirects are not followed: a key must not travel to another host.
    pub fn new(provider: &str, base: &str, key: Key, silence: Duration) -> Result<Endpoint, Error> {
        let setup = |problem: String| Error::Setup { provider: provider.to_owned(), problem };
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(setup(format!("its address {base:?} does not start with http:// or https://")));
        }
        // Whoever comes first installs ring, and it is ring everywhere, so a second call changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(10).min(silence))
            .pool_idle_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("caxton/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| setup(error.to_string()))?;
        Ok(Endpoint {
            provider: provider.to_owned(),
            base: base.trim_end_matches('/').to_owned(),
            key,
            silence,
            client,
        })
    }

    /// Posts `body` and gives the answer when it is a good one; `proof` is the header that the key goes into, and what
    /// stands before it.
    pub(super) async fn post(
        &self,
        path: &str,
        proof: (&str, &str),
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Answer<'_>, Error> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.post(&url).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = self.proof(proof.1)? {
            request = request.header(proof.0, value);
        }
        let sent = tokio::time::timeout(self.silence, request.send()).await;
        let response = match sent {
            Err(_) => return Err(self.silent()),
            Ok(Err(source)) => {
                let source = source.without_url();
                return Err(Error::Unreachable { provider: self.provider.clone(), url, source });
            }
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            Ok(Answer { endpoint: self, response, reader: Reader::new(4 * REPLY_BYTES_MAX), bytes: 0, ended: false })
        } else {
            Err(self.refused(response).await)
        }
    }

    /// The key as a header's value, which nobody prints.
    fn proof(&self, before: &str) -> Result<Option<HeaderValue>, Error> {
        let setup = |problem: String| Error::Setup { provider: self.provider.clone(), problem };
        let Some(key) = self.key.expose().map_err(|error| setup(error.to_string()))? else { return Ok(None) };
        let value = HeaderValue::try_from(format!("{before}{key}"));
        let mut value = value.map_err(|_| setup("its key has characters that no key has; set it again".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(super) fn nonsense(&self, problem: impl Into<String>) -> Error {
        Error::Nonsense { provider: self.provider.clone(), problem: problem.into() }
    }

    pub(super) fn too_large(&self) -> Error {
        Error::TooLarge { provider: self.provider.clone(), bytes_max: REPLY_BYTES_MAX }
    }

    fn silent(&self) -> Error {
        Error::Timeout { provider: self.provider.clone(), silence: self.silence }
    }

    async fn refused(&self, mut response: Response) -> Error {
        let status = response.status();
        let retry_after = retry_after(&response);
        let mut body = Vec::new();
        while body.len() < ERROR_BYTES_MAX {
            match tokio::time::timeout(self.silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                _ => break, // What came so far says enough.
            }
        }
        body.truncate(ERROR_BYTES_MAX);
        self.error_of(status, message_of(&body), retry_after)
    }

    /// The error that an HTTP status, or an error event within a stream, stands for.
    pub(super) fn error_of(&self, status: StatusCode, message: String, retry_after: Option<Duration>) -> Error {
        let provider = self.provider.clone();
        let code = status.as_u16();
        // Some providers repeat the key that they do not accept.
        let message = match self.key.expose() {
            Ok(Some(key)) if !key.is_empty() => message.replace(&key, "[key]"),
            _ => message,
        };
        match code {
            401 | 403 => {
                let key_help = match self.key.is_set() {
                    true => "check that the key is valid and may use this model",
                    false => "no key is set for it on the node",
                };
                Error::Unauthorized { provider, status: code, message, key_help: key_help.to_owned() }
            }
            408 | 429 | 503 | 529 => Error::Busy { provider, status: code, message, retry_after },
            500..=599 => Error::Failed { provider, status: code, message },
            _ => Error::Rejected { provider, status: code, message },
        }
    }
}

/// A good answer, read event by event.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    endpoint: &'a Endpoint,
    response: Response,
    reader: Reader,
    bytes: usize,
    ended: bool,
}

impl Answer<'_> {
    /// Whether the provider streams; one that does not sends a whole JSON document.
    pub fn streams(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        !kind.is_some_and(|kind| kind.starts_with("application/json"))
    }

    /// The next event, or none at the stream's end.
    pub async fn event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.reader.next().map_err(|_| self.endpoint.too_large())? {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match self.chunk().await? {
                Some(chunk) => self.reader.feed(&chunk),
                None => self.ended = true,
            }
        }
    }

    /// The whole body as JSON.
    pub async fn json(mut self) -> Result<Value, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > 4 * REPLY_BYTES_MAX {
                return Err(self.endpoint.too_large());
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| self.endpoint.nonsense(error.to_string()))
    }

    /// That the stream ended before its protocol said so.
    pub fn broken_off(&self) -> Error {
        Error::BrokenOff { provider: self.endpoint.provider.clone(), bytes: self.bytes }
    }

    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        let chunk = match tokio::time::timeout(self.endpoint.silence, self.response.chunk()).await {
            Err(_) => return Err(self.endpoint.silent()),
            Ok(Err(_)) => return Err(self.broken_off()),
            Ok(Ok(chunk)) => chunk,
        };
        self.bytes += chunk.as_ref().map_or(0, bytes::Bytes::len);
        if self.bytes > STREAM_BYTES_MAX { Err(self.endpoint.too_large()) } else { Ok(chunk) }
    }
}

/// `Retry-After` in seconds (or `retry-after-ms`, as some providers add); dates are not sent by any of them.
fn retry_after(response: &Response) -> Option<Duration> {
    let number = |name: &str| response.headers().get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number(RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The words in an error's body, wherever a provider puts them.
fn message_of(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let told = json.as_ref().and_then(|json| {
        let places = ["/error/message", "/message", "/error", "/detail"];
        places.iter().find_map(|place| json.pointer(place).and_then(Value::as_str))
    });
    let text = told.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = text.chars().take(ERROR_CHARS_MAX).collect();
    if short.is_empty() { "no reason given".to_owned() } else { short }
}
