//! The HTTP API from the other side: typed calls, typed errors, deadlines, and retries that cannot apply twice.
//!
//! A request is sent again only when that is harmless: reads, uploads named by their digest, and whatever carries an
//! idempotency key. The caller says so with [`Retry`].

pub mod blobs;

pub mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ClientError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole exchange may take, unless the call says otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait before the one retry.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// May a request be sent a second time when the first got no answer?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes: it reads, or applying it twice is the same as once.
    Once,
    /// No.
    Never,
}

/// What a bearer shows. It is never printed.
#[derive(Clone)]
pub struct Token(http::HeaderValue);

/// The text cannot be a token.
#[derive(Debug, thiserror::Error)]
#[error("a token is one line of letters, digits and punctuation")]
pub struct InvalidToken;

impl Token {
    /// A token as it was read from a file or a variable; white space around it does not count.
    pub fn new(text: &str) -> Result<Token, InvalidToken> {
        let text = text.trim();
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        let mut value = http::HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| InvalidToken)?;
        value.set_sensitive(true);
        Ok(Token(value))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<Token>,
    sent: Arc<AtomicU64>,
}

impl Client {
    /// A client of the server at `url`. Nothing is sent yet.
    ///
    /// With `ca` (PEM) the server's certificate must come from that CA; without, from one that the system trusts.
    pub fn new(url: &str, token: Option<Token>, ca: Option<&[u8]>) -> Result<Client, ClientError> {
        let url = url.trim_end_matches('/').to_owned();
        let parsed: http::Uri = url.parse().map_err(|_| ClientError::setup(format!("`{url}` is not an address")))?;
        let tls = match (parsed.scheme_str(), parsed.host()) {
            (Some("http"), Some(_)) => false,
            (Some("https"), Some(_)) => true,
            _ => {
                let message = format!("`{url}` is not an address: write it like http://127.0.0.1:7411");
                return Err(ClientError::setup(message));
            }
        };
        if !tls && token.is_some() && !is_loopback(&url) {
            return Err(ClientError::ClearText { url });
        }
        // The first provider stays; every part of this program installs the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("caxton/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        let builder = match (tls, ca) {
            // Reading the system's CAs takes milliseconds that plain HTTP has no use for.
            (false, _) => builder.tls_certs_only([]),
            (true, None) => builder,
            (true, Some(pem)) => {
                let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(ClientError::Setup)?;
                if certificates.is_empty() {
                    return Err(ClientError::setup("the CA file holds no PEM certificate".to_owned()));
                }
                builder.tls_certs_only(certificates)
            }
        };
        Ok(Client { http: builder.build().map_err(ClientError::Setup)?, url, token, sent: Arc::default() })
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, path), Retry::Once).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        retry: Retry,
    ) -> Result<T, ClientError> {
        self.json(self.with_json(self.request(Method::POST, path), body)?, retry).await
    }

    /// `DELETE path`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(Method::DELETE, path), Retry::Once).await
    }

    /// How many bytes of bodies were sent.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The request with a JSON body, which counts as sent.
    fn with_json(
        &self,
        request: reqwest::RequestBuilder,
        body: &impl Serialize,
    ) -> Result<reqwest::RequestBuilder, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::setup(error.to_string()))?;
        Ok(self.with_body(request, "application/json", body.into()))
    }

    /// The request with a body, which counts as sent.
    fn with_body(
        &self,
        request: reqwest::RequestBuilder,
        media_type: &str,
        body: bytes::Bytes,
    ) -> reqwest::RequestBuilder {
        self.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        request.header(CONTENT_TYPE, media_type).body(body)
    }

    /// A request that the caller finishes: other methods, headers, deadlines.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).timeout(REQUEST_TIMEOUT);
        match &self.token {
            Some(token) => request.header(http::header::AUTHORIZATION, token.0.clone()),
            None => request,
        }
    }

    /// Sends a request and reads its answer as JSON.
    pub async fn json<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        retry: Retry,
    ) -> Result<T, ClientError> {
        let answer = self.send(request.header(ACCEPT, "application/json"), retry).await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|error| self.failed(error))?;
        serde_json::from_slice(&body).map_err(|_| ClientError::not_caxton(&self.url, status, &body))
    }

    /// Sends a request and gives the answer, whose body the caller reads or streams, unless it is a refusal.
    pub async fn send(&self, request: reqwest::RequestBuilder, retry: Retry) -> Result<reqwest::Response, ClientError> {
        let again = if retry == Retry::Once { request.try_clone() } else { None };
        let answer = match (request.send().await, again) {
            (Ok(answer), _) => answer,
            // No server there at all: it does not come back within the pause.
            (Err(error), _) if error.is_connect() => return Err(self.failed(error)),
            (Err(_), Some(again)) => {
                tokio::time::sleep(RETRY_AFTER).await;
                again.send().await.map_err(|error| self.failed(error))?
            }
            (Err(error), None) => return Err(self.failed(error)),
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|error| self.failed(error))?;
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::not_caxton(&self.url, status, &body),
        })
    }

    /// Why an exchange failed, in the user's terms.
    pub fn failed(&self, error: reqwest::Error) -> ClientError {
        ClientError::of(&self.url, error)
    }
}

/// Does the address name this machine's loopback?
pub fn is_loopback(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    match url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']')) {
        Some("localhost") => true,
        Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for local in ["http://127.0.0.1:1", "http://localhost", "https://[::1]:7411/"] {
            assert!(is_loopback(local), "{local}");
        }
        for other in ["http://127.0.0.1.example.com", "http://10.0.0.1", "http://localhost@example.com", "x", ""] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_token_is_one_line_and_is_not_printed() {
        assert!(Token::new("").is_err() && Token::new("a\nb").is_err() && Token::new("a b").is_err());
        let token = Token::new(" secret\n").expect("a token");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_token_does_not_travel_in_clear_text() {
        let token = || Token::new("secret").ok();
        assert!(Client::new("http://127.0.0.1:7411/", token(), None).is_ok());
        let refused = Client::new("http://192.0.2.1:7411", token(), None);
        assert!(matches!(refused, Err(ClientError::ClearText { .. })));
        assert!(matches!(Client::new("127.0.0.1:7411", None, None), Err(ClientError::Invalid(_))));
    }
}
