//! Hosts and addresses as manifests name them.
//!
//! A pattern without a port means the ports of the web, 80 and 443, and nothing else: naming a host does not open its
//! database.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Why a piece of text is not a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// A whole URL was written.
    #[error("write only the host: \"{host}\"")]
    Url {
        /// The host in it.
        host: String,
    },
    /// The text has another form than a host.
    #[error("a host is written like \"api.example.com\", \"*.example.com\" or \"api.example.com:8443\"")]
    Form,
}

/// Hosts that a tool may talk to: `api.example.com`, `*.example.com`, `*`, each with an optional `:PORT` or `:*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    host: String,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Port {
    Web,
    Any,
    Number(u16),
}

impl Port {
    fn covers(self, other: Port) -> bool {
        match (self, other) {
            (Port::Any, _) => true,
            (Port::Web, Port::Web | Port::Number(80 | 443)) => true,
            (Port::Number(a), Port::Number(b)) => a == b,
            (Port::Web | Port::Number(_), Port::Any | Port::Web | Port::Number(_)) => false,
        }
    }
}

impl HostPattern {
    /// Whether the pattern lets through a connection to `host` (without brackets or a final dot) at `port`.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port.covers(Port::Number(port)) && self.covers_host(&host.to_ascii_lowercase())
    }

    /// Whether everything that `other` lets through this lets through too.
    pub fn covers(&self, other: &HostPattern) -> bool {
        self.port.covers(other.port) && (self.host == other.host || self.covers_host(&other.host))
    }

    fn covers_host(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()),
            None => self.host == host,
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHost;
    fn from_str(text: &str) -> Result<HostPattern, InvalidHost> {
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(InvalidHost::Url { host: host.rsplit('@').next().unwrap_or_default().to_owned() });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, "*")) => (host, Port::Any),
            Some((host, port)) => (host, Port::Number(port_number(port).ok_or(InvalidHost::Form)?)),
            None => (text, Port::Web),
        };
        let host = host.to_ascii_lowercase();
        let named = host.strip_prefix("*.").unwrap_or(&host);
        let label = |label: &str| {
            let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            (1..=63).contains(&label.len()) && label.chars().all(fine)
        };
        let fine = host == "*" || (host.len() <= 253 && named.split('.').all(label));
        if fine { Ok(HostPattern { host, port }) } else { Err(InvalidHost::Form) }
    }
}

fn port_number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Port::Web => f.write_str(&self.host),
            Port::Any => write!(f, "{}:*", self.host),
            Port::Number(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Why a piece of text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not `http://` or `https://`.
    #[error("an address starts with http:// or https://")]
    Scheme,
    /// A user or password in it.
    #[error("an address has no user or password in it; keep those in a secret")]
    Credentials,
    /// No host, a bad port, or characters that no URL has.
    #[error("this is not an address like https://api.example.com/v1")]
    Form,
}

/// An `http://` or `https://` address without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its host and port as a pattern, to compare with what a workspace allows; none when the host is not a name.
    pub fn host(&self) -> Option<HostPattern> {
        let authority = authority(&self.0)?;
        let mut host: HostPattern = authority.parse().ok()?;
        if host.port == Port::Web {
            host.port = Port::Number(if self.0.starts_with("https") { 443 } else { 80 });
        }
        (!host.host.starts_with('*')).then_some(host)
    }
}

fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    rest.split(['/', '?', '#']).next()
}

impl FromStr for HttpUrl {
    type Err = InvalidUrl;
    fn from_str(text: &str) -> Result<HttpUrl, InvalidUrl> {
        let authority = authority(text).ok_or(InvalidUrl::Scheme)?;
        if authority.contains('@') {
            return Err(InvalidUrl::Credentials);
        }
        let ipv6 = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let fine = match ipv6 {
            Some((address, port)) => {
                let port = port.is_empty() || port.strip_prefix(':').and_then(port_number).is_some();
                address.parse::<std::net::Ipv6Addr>().is_ok() && port
            }
            None => authority.parse::<HostPattern>().is_ok() && !authority.contains('*'),
        };
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b));
        if fine && printable { Ok(HttpUrl(text.to_owned())) } else { Err(InvalidUrl::Form) }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        text.parse().expect("a host pattern")
    }

    #[test]
    fn a_pattern_lets_through_what_it_names_and_nothing_else() {
        assert!(host("api.example.com").matches("API.example.com", 443));
        assert!(!host("api.example.com").matches("api.example.com", 5432));
        assert!(!host("example.com").matches("api.example.com", 443));
        assert!(host("*.example.com").matches("a.b.example.com", 80));
        assert!(!host("*.example.com").matches("example.com", 443));
        assert!(!host("*.example.com").matches("evilexample.com", 443));
        assert!(host("db:5432").matches("db", 5432) && !host("db:5432").matches("db", 443));
        assert!(host("*").matches("anything", 443) && !host("*").matches("anything", 22));
        assert!(host("*:*").matches("anything", 22));
    }

    #[test]
    fn a_pattern_covers_narrower_ones() {
        assert!(host("*.example.com").covers(&host("api.example.com")));
        assert!(host("*.example.com").covers(&host("*.api.example.com")));
        assert!(!host("api.example.com").covers(&host("*.example.com")));
        assert!(!host("*").covers(&host("db:5432")));
        assert!(host("*").covers(&host("*.example.com")) && !host("*.example.com").covers(&host("*")));
        assert!(host("db:*").covers(&host("db")) && !host("db").covers(&host("db:*")));
    }

    #[test]
    fn what_is_not_a_host_or_an_address_is_refused() {
        for bad in ["", "a b", "a..b", "*.", "a.*", "a:0", "a:99999", "a:+1", "a/b", "[::1]", "**"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
        assert_eq!("https://u@a.com/x".parse::<HostPattern>(), Err(InvalidHost::Url { host: "a.com".into() }));
        for good in ["https://api.example.com/v1?x=1", "http://127.0.0.1:11434/v1", "http://[::1]:7411"] {
            assert!(good.parse::<HttpUrl>().is_ok(), "{good:?}");
        }
        for bad in ["api.example.com", "ftp://a", "https://", "https://u:p@a", "https://a b", "https://*", "http://[x]"]
        {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad:?}");
        }
        let url: HttpUrl = "https://api.example.com/v1".parse().expect("a url");
        assert!(url.host().is_some_and(|of| host("api.example.com").covers(&of)));
    }
}
