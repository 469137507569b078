//! Which URL a tool may fetch, and which address that may lead to. Pure: no resolver, no socket.
//!
//! Two checks, and both must pass: the URL's host is named by a grant, and the address that is connected to is not a
//! private one. The second is made on the very address that the connection uses, so a name that resolves to something
//! else the second time gains nothing.

use caxton_proto::manifest::address::HostPattern;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a network: {why}")]
pub struct BadNetwork {
    text: String,
    why: &'static str,
}

/// Where a URL that passed the first check leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL, normalised.
    pub url: Url,
    /// Its host, lower case, without a final dot.
    pub host: String,
    /// The port that the URL names, or that of its scheme.
    pub port: u16,
    /// Whether it is https.
    pub https: bool,
    /// The address, where the host is one: it has passed the second check already.
    pub address: Option<IpAddr>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It cannot be read.
    #[error("`{0}` is not a URL")]
    NotAUrl(String),
    /// It is neither http nor https.
    #[error("only http and https are fetched, not `{0}`")]
    Scheme(String),
    /// It carries a user or a password.
    #[error("a URL with a user name or a password is not fetched")]
    UserInfo,
    /// An address in a form that hides it: decimal, octal, hexadecimal or shortened.
    #[error("the host is written in a form that hides its address, {0}")]
    HiddenAddress(IpAddr),
    /// No grant names it.
    #[error("no grant of this tool names `{0}`")]
    NotGranted(String),
    /// It leads to an address that is not public.
    #[error("`{host}` leads to {address}, which is {what}")]
    Address {
        /// The host that the URL names.
        host: String,
        /// Where it leads.
        address: IpAddr,
        /// What that is.
        what: &'static str,
    },
    /// It redirects too often.
    #[error("more than {0} redirects")]
    Redirects(usize),
    /// A header that a tool may not set.
    #[error("a tool may not set the header `{0}`")]
    Header(String),
    /// The method is not one of the usual ones.
    #[error("the method `{0}` is not allowed")]
    Method(String),
}

/// The first check: what the URL says.
pub fn check_url(text: &str, rules: &[HostPattern], allowed: &[Network]) -> Result<Target, Denied> {
    let url = Url::parse(text).map_err(|_| Denied::NotAUrl(text.chars().take(200).collect()))?;
    let https = match url.scheme() {
        "https" => true,
        "http" => false,
        other => return Err(Denied::Scheme(other.to_string())),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Denied::UserInfo);
    }
    let named = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let named = named.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&named).to_string();
    let address: Option<IpAddr> = named.parse().ok();
    if let Some(IpAddr::V4(v4)) = address
        && !text.contains(&v4.to_string())
    {
        return Err(Denied::HiddenAddress(IpAddr::V4(v4)));
    }
    let port = url.port_or_known_default().unwrap_or(if https { 443 } else { 80 });
    let target = Target { url, host: named, port, https, address };
    if !rules.iter().any(|rule| rule.matches(&target.host, port)) {
        let scheme = if https { "https" } else { "http" };
        return Err(Denied::NotGranted(format!("{scheme}://{}:{port}", target.host)));
    }
    if let Some(address) = address {
        check_address(&target.host, address, allowed)?;
    }
    Ok(target)
}

/// The second check: the address itself.
pub fn check_address(host: &str, address: IpAddr, allowed: &[Network]) -> Result<(), Denied> {
    let Some(what) = not_public(address) else { return Ok(()) };
    if allowed.iter().any(|network| network.contains(address)) {
        return Ok(());
    }
    Err(Denied::Address { host: host.to_string(), address, what })
}

/// What kind of non-public address this is; nothing for a public one.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => not_public_v4(v4),
        IpAddr::V6(v6) => not_public_v6(v6),
    }
}

/// IANA's special-purpose registry, IPv4.
const SPECIAL_V4: [([u8; 4], u32, &str); 17] = [
    ([0, 0, 0, 0], 8, "this host (0.0.0.0/8)"),
    ([10, 0, 0, 0], 8, "private (10.0.0.0/8)"),
    ([100, 64, 0, 0], 10, "shared by a provider (100.64.0.0/10)"),
    ([127, 0, 0, 0], 8, "loopback (127.0.0.0/8)"),
    ([169, 254, 0, 0], 16, "link-local, where clouds keep their metadata (169.254.0.0/16)"),
    ([172, 16, 0, 0], 12, "private (172.16.0.0/12)"),
    ([192, 0, 0, 0], 24, "for protocols (192.0.0.0/24)"),
    ([192, 0, 2, 0], 24, "for documentation (192.0.2.0/24)"),
    ([192, 31, 196, 0], 24, "for AS112 (192.31.196.0/24)"),
    ([192, 52, 193, 0], 24, "for AMT (192.52.193.0/24)"),
    ([192, 88, 99, 0], 24, "a 6to4 relay (192.88.99.0/24)"),
    ([192, 168, 0, 0], 16, "private (192.168.0.0/16)"),
    ([198, 18, 0, 0], 15, "for benchmarks (198.18.0.0/15)"),
    ([198, 51, 100, 0], 24, "for documentation (198.51.100.0/24)"),
    ([203, 0, 113, 0], 24, "for documentation (203.0.113.0/24)"),
    ([224, 0, 0, 0], 4, "multicast (224.0.0.0/4)"),
    ([240, 0, 0, 0], 4, "reserved or broadcast (240.0.0.0/4)"),
];

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    SPECIAL_V4
        .iter()
        .find(|(base, length, _)| (bits ^ u32::from_be_bytes(*base)) >> (32 - length) == 0)
        .map(|(_, _, what)| *what)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    // An IPv4 address inside is what the packet would reach in the end.
    if let Some(inner) = inner_v4(address) {
        return not_public_v4(inner);
    }
    let [a, b, ..] = address.segments();
    match (a, b) {
        _ if address.is_unspecified() => Some("this host (::)"),
        _ if address.is_loopback() => Some("loopback (::1)"),
        (0xfc00..=0xfdff, _) => Some("unique local (fc00::/7)"),
        (0xfe80..=0xfebf, _) => Some("link-local (fe80::/10)"),
        (0xfec0..=0xfeff, _) => Some("site-local (fec0::/10)"),
        (0xff00..=0xffff, _) => Some("multicast (ff00::/8)"),
        (0x0100, 0) => Some("for discarding (100::/64)"),
        (0x2001, 0x0db8) | (0x3fff, 0..=0x0fff) => Some("for documentation"),
        (0x2001, 0x0000) => Some("Teredo (2001::/32)"),
        (0x2001, 0x0001..=0x01ff) => Some("for protocols (2001::/23)"),
        (0x5f00, _) => Some("for segment routing (5f00::/16)"),
        (0x2000..=0x3fff, _) => None,
        _ => Some("outside of what is routed publicly (2000::/3)"),
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, translated, NAT64 and 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let last = || Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0, 0, 0, 0, 0xffff, 0) => Some(last()),
        (0, 0, 0, 0, 0, 0) if (g, h) > (0, 1) => Some(last()),
        (0x64, 0xff9b, ..) => Some(last()),
        (0x2002, ..) => Some(Ipv4Addr::from_bits(u32::from(b) << 16 | u32::from(c))),
        _ => None,
    }
}

/// Addresses that the operator lets tools reach although they are not public: `ADDRESS/LENGTH`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    length: u8,
}

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (base, address, width) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (base.to_bits().into(), address.to_bits().into(), 32),
            (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let differing: u128 = base ^ address;
        differing.checked_shr(width - u32::from(self.length)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Network, BadNetwork> {
        let bad = |why| BadNetwork { text: text.to_string(), why };
        let (base, length) = text.split_once('/').map_or((text, None), |(base, length)| (base, Some(length)));
        let base: IpAddr = base.parse().map_err(|_| bad("a network is written as ADDRESS/LENGTH"))?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(width), str::parse).map_err(|_| bad("the length is a number"))?;
        if length > width {
            return Err(bad("the length is larger than the address"));
        }
        Ok(Network { base, length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(text: String) -> Result<Network, BadNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

#[cfg(test)]
mod tests;
