//! Requests with JSON to a backend: nowhere but where workspaces may go, within a time, and with a limit on the answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_proto::manifest::address::HttpUrl;
use caxton_proto::manifest::secret::KeySource;
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::BackendError;
use crate::llm::Key;
use crate::llm::providers::Providers;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What is shown of an answer that says no, in bytes.
const SAID_BYTES_MAX: usize = 300;

/// How a key travels.
pub enum Proof {
    /// As the value of this header.
    Header(&'static str),
    /// As the password of this user.
    Basic(String),
}

/// Where a backend is, and how it is asked.
pub struct Http {
    base: String,
    client: reqwest::Client,
    key: Key,
    proof: Proof,
    timeout: Duration,
    /// The proof that was given last.
    last: Mutex<Option<(HeaderName, HeaderValue)>>,
    /// The workspace was deleted, and its secrets with it: what was given last has to do.
    parting: AtomicBool,
}

impl Http {
    /// For an address that a workspace's file names, with the key that it names.
    pub fn new(
        providers: &Providers,
        (workspace, url, key): (&WorkspaceId, &HttpUrl, Option<&KeySource>),
        proof: Proof,
        timeout: Duration,
    ) -> Result<Http, BackendError> {
        let base = url.as_str().trim_end_matches('/').to_owned();
        let client = providers.workspace_client(&base, timeout).map_err(BackendError::Setup)?;
        let key = key.map(|key| providers.workspace_key(workspace, key, &base)).transpose();
        let key = key.map_err(BackendError::Setup)?.unwrap_or_else(Key::none);
        let (last, parting) = (Mutex::default(), AtomicBool::new(false));
        Ok(Http { base, client, key, proof, timeout, last, parting })
    }

    /// The workspace was deleted: from now on the key that was given last is given.
    pub fn part(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    /// The answer cannot be one, for this reason.
    pub fn nonsense(&self, problem: impl Into<String>) -> BackendError {
        BackendError::Nonsense { address: self.base.clone(), problem: problem.into() }
    }

    /// The answer says no.
    pub fn refused(&self, status: u16, said: &str) -> BackendError {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        BackendError::Refused { address: self.base.clone(), status, said: crate::text::preview(&said, SAID_BYTES_MAX) }
    }

    /// Sends a request and gives the status and the body of the answer, which is JSON or nothing.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Option<Value>, String), BackendError> {
        let asked = tokio::time::timeout(self.timeout, self.ask(method, path, body)).await;
        let silent = |_| BackendError::Silent { address: self.base.clone(), timeout: self.timeout };
        let (status, bytes) = asked.map_err(silent)??;
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SAID_BYTES_MAX)]);
        Ok((status, serde_json::from_slice(&bytes).ok(), text.into_owned()))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>), BackendError> {
        let unreachable = |source: reqwest::Error| {
            let source = source.without_url();
            BackendError::Unreachable { address: self.base.clone(), source }
        };
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some((name, value)) = self.proof()? {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.nonsense(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((status, bytes))
    }

    /// The key as a header, which nobody prints.
    fn proof(&self) -> Result<Option<(HeaderName, HeaderValue)>, BackendError> {
        use base64::Engine as _;
        // A secret of that name may be another workspace's by now, which has the name of the one that was deleted.
        if self.parting.load(Ordering::Relaxed) {
            return Ok(self.last.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        let key = match self.key.expose() {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(None),
            Err(error) => return Err(BackendError::Setup(error.to_string())),
        };
        let (name, text) = match &self.proof {
            Proof::Header(name) => (HeaderName::from_static(name), key),
            Proof::Basic(user) => {
                let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{key}"));
                (http::header::AUTHORIZATION, format!("Basic {both}"))
            }
        };
        let wrong = |_| BackendError::Setup("its key has characters that no key has; set it again".to_owned());
        let mut value = HeaderValue::try_from(text).map_err(wrong)?;
        value.set_sensitive(true);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.clone(), value.clone()));
        Ok(Some((name, value)))
    }
}
