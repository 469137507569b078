//! One HTTP request to a provider and its streamed answer, with every failure named and every wait bounded.
//!
//! The request lives as long as the future that waits for it: who drops that, because its client has gone or its time is
//! over, hangs up on the provider in the same moment.

mod answer;
mod key;
mod refusal;

use std::time::Duration;

use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

pub(super) use answer::{Answer, Piece};
pub use key::Key;
pub(super) use refusal::Refusal;

use super::Error;
use super::proxies::Proxies;
use super::reach::Reach;

/// What people write behind the address of an API, because its documentation shows it so.
const PATHS: [&str; 2] = ["/chat/completions", "/messages"];

/// Where a provider is and how long it is waited for.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The provider's name on this node.
    pub provider: String,
    /// Its address up to the version: `https://api.openai.com/v1`.
    pub base: String,
    pub key: Key,
    /// The longest silence: before the answer begins, and between two pieces of it.
    pub silence: Duration,
    /// What stands behind the path, with its question mark; empty for most.
    query: String,
    client: Client,
}

/// The header that a key goes into, and what stands before it there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof<'a> {
    pub header: &'a str,
    pub before: &'a str,
}

/// A client with connections of its own, which lead where `reach` says, or anywhere. Redirects are not followed: a key must not
/// travel to another host.
pub(super) fn bounded_client(
    address: &str,
    asked: &str,
    silence: Duration,
    (proxies, reach): (&Proxies, Option<&Reach>),
) -> Result<Client, String> {
    // Whoever comes first installs ring, and it is ring everywhere, so a second call changes nothing.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = Client::builder()
        .connect_timeout(Duration::from_secs(10).min(silence))
        .pool_idle_timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("caxton/", env!("CARGO_PKG_VERSION")));
    let client = proxies.apply(client, address)?;
    let client = match reach {
        Some(reach) => reach.apply(client, asked)?,
        None => client,
    };
    client.build().map_err(|error| super::reasons(&error).to_string())
}

impl Endpoint {
    /// An endpoint with connections of its own and no proxy.
    pub fn new(provider: &str, base: &str, key: Key, silence: Duration) -> Result<Endpoint, Error> {
        Endpoint::through(provider, base, key, silence, (&Proxies::default(), None))
    }

    /// An endpoint with connections of its own, which lead where `reach` says, or anywhere. Redirects are not followed: a key must
    /// not travel to another host.
    pub(super) fn through(
        provider: &str,
        base: &str,
        key: Key,
        silence: Duration,
        (proxies, reach): (&Proxies, Option<&Reach>),
    ) -> Result<Endpoint, Error> {
        let setup = |problem: String| Error::Setup { provider: provider.to_owned(), problem };
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(setup(format!("its address {base:?} does not start with http:// or https://")));
        }
        let (address, query) = match base.split_once('?') {
            Some((address, query)) => (address, format!("?{query}")),
            None => (base, String::new()),
        };
        let address = address.trim_end_matches('/');
        let address = PATHS.iter().find_map(|path| address.strip_suffix(path)).unwrap_or(address);
        // As it is asked in the end: with what stands behind the host.
        let asked = format!("{address}{}{query}", PATHS[0]);
        let client = bounded_client(address, &asked, silence, (proxies, reach)).map_err(setup)?;
        Ok(Endpoint {
            provider: provider.to_owned(),
            base: address.trim_end_matches('/').to_owned(),
            key,
            silence,
            query,
            client,
        })
    }

    /// Posts `body` and gives the answer when it is a good one.
    pub(super) async fn post(
        &self,
        path: &str,
        proof: Proof<'_>,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Answer<'_>, Refusal> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.post(format!("{url}{}", self.query)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut trace = HeaderMap::new();
        crate::telemetry::propagation::inject(&mut trace);
        request = request.headers(trace);
        if let Some((name, value)) = self.proof(proof)? {
            request = request.header(name, value);
        }
        let sent = tokio::time::timeout(self.silence, request.send()).await;
        let response = match sent {
            Err(_) => return Err(self.silent().into()),
            Ok(Err(source)) => {
                let cause = super::error::cause_of(&source.without_url());
                return Err(Error::Unreachable { provider: self.provider.clone(), url, cause }.into());
            }
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            Ok(Answer::new(self, url, response))
        } else {
            Err(self.refused(url, response).await)
        }
    }

    /// The key as a header, which nobody prints.
    fn proof(&self, proof: Proof<'_>) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
        let setup = |problem: String| Error::Setup { provider: self.provider.clone(), problem };
        let Some(key) = self.key.expose().map_err(|error| setup(error.to_string()))? else { return Ok(None) };
        let name = HeaderName::try_from(proof.header);
        let name = name.map_err(|_| setup(format!("`{}` is not the name of a header", proof.header)))?;
        let value = HeaderValue::try_from(format!("{}{key}", proof.before));
        let mut value = value.map_err(|_| setup("its key has characters that no key has; set it again".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    /// The answer is not what the protocol says.
    pub(super) fn nonsense(&self, problem: impl Into<String>) -> Error {
        let url = self.base.clone();
        Error::Nonsense { provider: self.provider.clone(), url, problem: problem.into() }
    }

    /// The sender wants a temperature, and the model takes none.
    pub(super) fn without_temperature(&self) -> Error {
        Error::Setup { provider: self.provider.clone(), problem: "its model takes no temperature".to_owned() }
    }

    /// The answer is longer than anything sensible.
    pub(super) fn too_large(&self, bytes_max: usize) -> Error {
        Error::TooLarge { provider: self.provider.clone(), bytes_max }
    }

    fn silent(&self) -> Error {
        Error::Timeout { provider: self.provider.clone(), silence: self.silence }
    }
}
