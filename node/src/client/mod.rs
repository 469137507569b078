//! The HTTP API from the other side: typed calls, typed errors, deadlines, and retries that cannot apply twice.
//!
//! A request is sent again only when that is harmless: reads, uploads named by their digest, and whatever carries an
//! idempotency key. The caller says so with [`Retry`].

pub mod blobs;

pub mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ClientError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole exchange may take, unless the call says otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait before the one retry, and before several servers are asked once more.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long several servers are asked in turn, when none answers: an election ends within that.
const FAILOVER_WAIT: Duration = Duration::from_secs(10);

/// May a request be sent a second time when the first got no answer?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes: it reads, or applying it twice is the same as once.
    Once,
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

/// Which authorities a server's certificate may come from. PEM each.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those that the system trusts.
    System,
    /// This one and no other.
    Only(Vec<u8>),
    /// This one, and those that the system trusts.
    SystemAnd(Vec<u8>),
}

/// The most servers that a client is given.
const SERVERS_MAX: usize = 16;

/// A connection to a server, or to several of one cluster: when one is down, another is asked.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// All of them, with commas between, as a person wrote it.
    url: String,
    urls: Arc<[String]>,
    /// The one that answered last.
    current: Arc<AtomicUsize>,
    token: Option<Token>,
    sent: Arc<AtomicU64>,
}

impl Client {
    /// A client of the server at `url`, or of several with commas between. Nothing is sent yet.
    ///
    pub fn new(url: &str, token: Option<Token>, trust: Trust) -> Result<Client, ClientError> {
        let urls: Arc<[String]> = url.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        if urls.len() > SERVERS_MAX {
            return Err(ClientError::setup(format!(
                "{} servers are given, and {SERVERS_MAX} are the most",
                urls.len()
            )));
        }
        let mut tls = false;
        for url in urls.iter() {
            tls |= is_tls(url)?;
            if url.starts_with("http://") && token.is_some() && !is_loopback(url) {
                return Err(ClientError::ClearText { url: url.clone() });
            }
        }
        let url = urls.join(",");
        // The first provider stays; every part of this program installs the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("caxton/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        let builder = match (tls, trust) {
            // Reading the system's CAs takes milliseconds that plain HTTP has no use for.
            (false, _) => builder.tls_certs_only([]),
            (true, Trust::System) => builder,
            (true, Trust::Only(pem)) => builder.tls_certs_only(certificates(&pem)?),
            (true, Trust::SystemAnd(pem)) => builder.tls_certs_merge(certificates(&pem)?),
        };
        let http = builder.build().map_err(ClientError::Setup)?;
        Ok(Client { http, url, urls, current: Arc::default(), token, sent: Arc::default() })
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

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

    /// The same, where what is asked for may take so long.
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        retry: Retry,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        self.json(self.with_json(self.request(Method::POST, path).timeout(timeout), body)?, retry).await
    }

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
        let request = self.http.request(method, format!("{}{path}", self.server())).timeout(REQUEST_TIMEOUT);
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

    /// The server that is asked next.
    fn server(&self) -> &str {
        // There is one at least: splitting a text gives no less.
        &self.urls[self.current.load(Ordering::Relaxed) % self.urls.len()]
    }

    /// Asks another server from now on, and turns the request there.
    fn turn(&self, request: &mut reqwest::Request) {
        self.current.fetch_add(1, Ordering::Relaxed);
        let path = match request.url().query() {
            Some(query) => format!("{}{}?{query}", self.server(), request.url().path()),
            None => format!("{}{}", self.server(), request.url().path()),
        };
        // Every server's address was checked when the client was made.
        if let Ok(url) = path.parse() {
            *request.url_mut() = url;
        }
    }

    /// Sends a request and gives the answer, whose body the caller reads or streams, unless it is a refusal.
    ///
    /// A server that is not there has done nothing, so the next one is asked whatever the request is. What can be sent
    /// again goes round several servers for a while, because a cluster that elects a leader answers in a moment.
    pub async fn send(&self, request: reqwest::RequestBuilder, retry: Retry) -> Result<reqwest::Response, ClientError> {
        let (http, request) = request.build_split();
        let mut request = request.map_err(|error| self.failed(error))?;
        let mut again = retry == Retry::Once;
        let (several, until) = (self.urls.len() > 1, Instant::now() + FAILOVER_WAIT);
        let mut left = self.urls.len() - 1;
        // What a server said that could not answer now: it tells more than that another one is not there.
        let mut said = None;
        let answer = loop {
            let next = request.try_clone();
            let answered = http.execute(request).await;
            if left == 0 && several && again && Instant::now() < until {
                let refused =
                    answered.as_ref().map_or(true, |answer| answer.status() == http::StatusCode::SERVICE_UNAVAILABLE);
                if refused && next.is_some() {
                    tokio::time::sleep(RETRY_AFTER).await;
                    left = self.urls.len();
                }
            }
            let error = match answered {
                Ok(answer) if left > 0 && again && answer.status() == http::StatusCode::SERVICE_UNAVAILABLE => {
                    let Some(next) = next else { break answer };
                    said = problem_of(answer).await.or(said);
                    // It is stopping, or cut off: the others may know better.
                    (left, request) = (left - 1, next);
                    self.turn(&mut request);
                    continue;
                }
                Ok(answer) => break answer,
                Err(error) => error,
            };
            match next {
                Some(next) if left > 0 && (error.is_connect() || again) => {
                    (left, request) = (left - 1, next);
                    self.turn(&mut request);
                }
                // No server there at all: it does not come back within the pause.
                Some(next) if again && !error.is_connect() => {
                    (again, request) = (false, next);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Some(_) | None => return Err(said.unwrap_or_else(|| self.failed(error))),
            }
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

/// What a server refused with, if it is a problem of ours.
async fn problem_of(answer: reqwest::Response) -> Option<ClientError> {
    let problem = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    Some(ClientError::Problem(Box::new(problem)))
}

/// Whether the address wants TLS; an error when it is no address.
fn is_tls(url: &str) -> Result<bool, ClientError> {
    let parsed: http::Uri = url.parse().map_err(|_| ClientError::setup(format!("`{url}` is not an address")))?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http"), Some(_)) => Ok(false),
        (Some("https"), Some(_)) => Ok(true),
        _ => Err(ClientError::setup(format!("`{url}` is not an address: write it like http://127.0.0.1:7411"))),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(ClientError::Setup)?;
    if certificates.is_empty() {
        return Err(ClientError::setup("the CA file holds no PEM certificate".to_owned()));
    }
    Ok(certificates)
}

/// Does the address name this machine's loopback? Of several, do all?
pub fn is_loopback(url: &str) -> bool {
    url.split(',').all(|url| is_one_loopback(url.trim()))
}

fn is_one_loopback(url: &str) -> bool {
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
        assert!(Client::new("http://127.0.0.1:7411/", token(), Trust::System).is_ok());
        let refused = Client::new("http://192.0.2.1:7411", token(), Trust::System);
        assert!(matches!(refused, Err(ClientError::ClearText { .. })));
        assert!(matches!(Client::new("127.0.0.1:7411", None, Trust::System), Err(ClientError::Invalid(_))));
    }
}
