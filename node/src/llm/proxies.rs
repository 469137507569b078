//! The proxies that the environment names, for the way to providers: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, in capitals or not. What is on this machine is reached without one, whatever they say.

use std::net::IpAddr;

use reqwest::{ClientBuilder, NoProxy, Proxy};

/// The variables that are read, each in capitals and in small letters.
pub(super) const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// What the environment says of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies {
    https: Option<String>,
    http: Option<String>,
    all: Option<String>,
    except: Option<String>,
}

impl Proxies {
    /// Reads the variables.
    pub fn read<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Proxies {
        let either = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_lowercase()))?;
            Some(value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let [https, http, all, except] = VARIABLES.map(either);
        Proxies { https, http, all, except }
    }

    /// A client that goes through the proxy for `address`, if there is one; the error says which variable is wrong.
    pub fn apply(&self, client: ClientBuilder, address: &str) -> Result<ClientBuilder, String> {
        let client = client.no_proxy();
        if is_loopback(address) {
            return Ok(client);
        }
        let own = match address.starts_with("https://") {
            true => self.https.as_deref().map(|proxy| ("HTTPS_PROXY", proxy)),
            false => self.http.as_deref().map(|proxy| ("HTTP_PROXY", proxy)),
        };
        let Some((variable, proxy)) = own.or_else(|| self.all.as_deref().map(|proxy| ("ALL_PROXY", proxy))) else {
            return Ok(client);
        };
        let url = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(format!("{variable} names a proxy that is not HTTP; write http://HOST:PORT"));
        }
        let proxy = Proxy::all(&url)
            .map_err(|_| format!("{variable} is not the address of a proxy; write http://HOST:PORT"))?;
        let except = self.except.as_deref().and_then(NoProxy::from_string);
        Ok(client.proxy(proxy.no_proxy(except)))
    }
}

/// The host of an address without port and brackets.
pub(super) fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// Whether an address is on this machine.
fn is_loopback(address: &str) -> bool {
    let host = host_of(address).trim_end_matches('.').to_ascii_lowercase();
    let name = host == "localhost" || host.ends_with(".localhost");
    name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &'static [(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for here in [
            "http://localhost:1/v1",
            "http://127.0.0.9",
            "http://[::1]:8080/x",
            "http://a.LOCALHOST.",
            "http://0.0.0.0:1",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for there in
            ["https://api.openai.com/v1", "http://10.0.0.1:11434", "http://localhost.example", "http://[fe80::1]/"]
        {
            assert!(!is_loopback(there), "{there}");
        }
    }

    #[test]
    fn variables_are_read_in_both_spellings_and_capitals_come_first() {
        let both = proxies(&[("https_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:1"), ("no_proxy", " x ")]);
        assert_eq!((both.https.as_deref(), both.except.as_deref()), (Some("http://b:1"), Some("x")));
    }

    #[test]
    fn a_proxy_that_is_none_names_its_variable_and_only_where_it_is_used() {
        let wrong = proxies(&[("ALL_PROXY", "socks5://a:1"), ("HTTP_PROXY", "http://good:1")]);
        let apply = |address: &str| wrong.apply(reqwest::Client::builder(), address).map(|_| ());
        let problem = apply("https://a.example").expect_err("not HTTP");
        assert!(problem.contains("ALL_PROXY") && problem.contains("http://HOST:PORT"), "{problem}");
        assert_eq!((apply("http://a.example"), apply("https://localhost")), (Ok(()), Ok(())));
    }
}
