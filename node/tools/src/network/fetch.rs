//! Fetches a URL for a tool, through the policy.
//!
//! The resolver that the client connects with is the check itself: it hands out only addresses that the policy
//! allows, so what was checked is what is connected to. Redirects are followed here, each one checked like the first.

use super::policy::{Denied, Network, Target, check_address, check_url};
use caxton_proto::manifest::address::HostPattern;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;

const REDIRECTS_MAX: usize = 5;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 << 10;
const REQUEST_BYTES_MAX: usize = 8 << 20;
const RESPONSE_BYTES_MAX: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_CONNECTIONS_PER_HOST: usize = 4;

/// Fetches for tools. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    runtime: Handle,
    allowed: Arc<[Network]>,
    lookup: Lookup,
    client: Arc<OnceLock<Client>>,
    server_client: Arc<OnceLock<Client>>,
}

/// Turns a name into addresses.
type Lookup = Arc<dyn Fn(String) -> Looking + Send + Sync>;
type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver.
fn system(host: String) -> Looking {
    Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.collect()) })
}

/// What to fetch.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.
    pub method: String,
    /// The absolute URL of what is wanted.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct FetchResponse {
    /// The HTTP status.
    pub status: u16,
    /// Names and values; values that are not text are left out.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The policy says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It took too long.
    #[error("the server did not answer in time")]
    Timeout,
    /// The request, its headers or the answer are larger than they may be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// The most bytes of a body.
        limit: usize,
    },
    /// The connection failed.
    #[error("{0}")]
    Transport(String),
}

impl Fetcher {
    /// A fetcher whose connections live on this runtime, and which may also reach the `allowed` networks.
    pub fn new(runtime: Handle, allowed: Vec<Network>) -> Fetcher {
        Fetcher {
            runtime,
            allowed: allowed.into(),
            lookup: Arc::new(system),
            client: Arc::default(),
            server_client: Arc::default(),
        }
    }

    /// Networks that are not public, and may be reached all the same.
    pub(crate) fn allowed(&self) -> &[Network] {
        &self.allowed
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Fetches for a guest, on whose thread this waits. `going_on` is asked now and then whether to go on.
    pub(crate) fn fetch_blocking(
        &self,
        request: FetchRequest,
        rules: &[HostPattern],
        timeout: Duration,
        mut going_on: impl FnMut() -> bool,
    ) -> Result<FetchResponse, FetchError> {
        let (answer, waiting) = std::sync::mpsc::sync_channel(1);
        let (fetcher, rules) = (self.clone(), rules.to_vec());
        let task = self.runtime.spawn(async move {
            let fetched = tokio::time::timeout(timeout, fetcher.fetch(request, &rules)).await;
            let _ = answer.send(fetched.unwrap_or(Err(FetchError::Timeout)));
        });
        loop {
            match waiting.recv_timeout(Duration::from_millis(20)) {
                Ok(fetched) => return fetched,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) if going_on() => {}
                Err(_) => {
                    task.abort();
                    return Err(FetchError::Timeout);
                }
            }
        }
    }

    /// Fetches, following redirects that the policy allows.
    pub async fn fetch(&self, request: FetchRequest, rules: &[HostPattern]) -> Result<FetchResponse, FetchError> {
        let mut method = method(&request.method)?;
        let mut headers = headers(&request.headers)?;
        if request.body.len() > REQUEST_BYTES_MAX {
            return Err(FetchError::TooLarge { what: "the request's body", limit: REQUEST_BYTES_MAX });
        }
        let mut body = request.body;
        let mut target = check_url(&request.url, rules, &self.allowed)?;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(&target, &method, &headers, &body).await?;
            let Some(next) = redirect(&response, &target) else { return read(response).await };
            let next = check_url(&next, rules, &self.allowed)?;
            if (next.https, &next.host, next.port) != (target.https, &target.host, target.port) {
                headers.remove(AUTHORIZATION);
                headers.remove(COOKIE);
            }
            let status = response.status();
            let to_get = status == StatusCode::SEE_OTHER
                || (method == Method::POST && matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND));
            if to_get && method != Method::HEAD {
                method = Method::GET;
                body.clear();
            }
            target = next;
        }
        Err(Denied::Redirects(REDIRECTS_MAX).into())
    }

    async fn send(
        &self,
        target: &Target,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, FetchError> {
        let request = self.client()?.request(method.clone(), target.url.clone()).headers(headers.clone());
        let request = if body.is_empty() { request } else { request.body(body.to_vec()) };
        request.send().await.map_err(|error| why(&error))
    }

    /// A client that resolves names by the policy, and follows no redirects.
    pub(crate) fn client(&self) -> Result<&Client, FetchError> {
        self.built(&self.client, reqwest::redirect::Policy::none())
    }

    /// A client for servers that are sent messages: it goes on only where a redirect keeps the message and the origin.
    pub(crate) fn server_client(&self) -> Result<&Client, FetchError> {
        self.built(&self.server_client, reqwest::redirect::Policy::custom(within_origin))
    }

    fn built<'a>(
        &self,
        kept: &'a OnceLock<Client>,
        redirects: reqwest::redirect::Policy,
    ) -> Result<&'a Client, FetchError> {
        if let Some(client) = kept.get() {
            return Ok(client);
        }
        // Somebody else may have chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .dns_resolver(PolicyResolver { allowed: self.allowed.clone(), lookup: self.lookup.clone() })
            .redirect(redirects)
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
            .user_agent(concat!("caxton-tool/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| why(&error))?;
        Ok(kept.get_or_init(|| client))
    }
}

/// Follows 307 and 308 to the same origin, where the message and its token may go as well; anything else is an error that
/// says where it leads.
fn within_origin(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let origin = attempt.previous().first().map(reqwest::Url::origin);
    let same = origin.is_some_and(|origin| origin.is_tuple() && origin == attempt.url().origin());
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(Denied::Redirects(REDIRECTS_MAX));
    }
    if keeps && same {
        return attempt.follow();
    }
    let (status, to) = (attempt.status().as_u16(), attempt.url().to_string());
    let to = to.chars().take(200).collect();
    attempt.error(Denied::Moved { status, to })
}

/// Resolves a name to the addresses that the policy allows.
struct PolicyResolver {
    allowed: Arc<[Network]>,
    lookup: Lookup,
}

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (allowed, host) = (self.allowed.clone(), name.as_str().to_string());
        let looking = (self.lookup)(host.clone());
        Box::pin(async move {
            let found = looking.await?;
            let mut refused = None;
            let mut reached = Vec::with_capacity(found.len());
            for address in found {
                match check_address(&host, address.ip(), &allowed) {
                    Ok(()) => reached.push(address),
                    Err(denied) => refused = Some(denied),
                }
            }
            match refused {
                Some(denied) if reached.is_empty() => Err(denied.into()),
                _ => Ok(Box::new(reached.into_iter()) as Addrs),
            }
        })
    }
}

fn method(name: &str) -> Result<Method, Denied> {
    match name {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
            Method::from_bytes(name.as_bytes()).map_err(|_| Denied::Method(name.to_string()))
        }
        other => Err(Denied::Method(other.chars().take(40).collect())),
    }
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, FetchError> {
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if given.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(FetchError::TooLarge { what: "the request's headers", limit: HEADER_BYTES_MAX });
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let refused = || Denied::Header(name.chars().take(60).collect());
        let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        let value = HeaderValue::from_str(value).map_err(|_| refused())?;
        // These say where a message goes and where it ends, which is not the tool's to say.
        let framing =
            ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect"];
        if framing.contains(&known.as_str()) || known.as_str().starts_with("proxy-") {
            return Err(refused().into());
        }
        headers.append(known, value);
    }
    Ok(headers)
}

/// Where a redirect leads, as an absolute URL.
fn redirect(response: &Response, target: &Target) -> Option<String> {
    match response.status() {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {}
        _ => return None,
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    // A location that is absolute is checked as it is written, so that a hidden address stays visible.
    if location.contains("://") { Some(location.to_string()) } else { target.url.join(location).ok().map(String::from) }
}

async fn read(mut response: Response) -> Result<FetchResponse, FetchError> {
    let too_large = || FetchError::TooLarge { what: "the answer", limit: RESPONSE_BYTES_MAX };
    if response.content_length().is_some_and(|length| length > RESPONSE_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_string(), value.to_str().ok()?.to_string())))
        .collect();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| why(&error))? {
        if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(FetchResponse { status, headers, body })
}

/// The cause that says most: the policy's own refusal, or the last one in the chain.
pub(crate) fn why(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    let mut last: &(dyn Error + 'static) = error;
    loop {
        if let Some(denied) = last.downcast_ref::<Denied>() {
            return denied.clone().into();
        }
        match last.source() {
            Some(source) => last = source,
            None => return FetchError::Transport(last.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
