//! Where a workspace's providers may lead: to public addresses, and to the private networks that the node's operator opened.
//!
//! The address is checked twice: where the URL names one, before anything is sent, and where it names a host, on the very
//! addresses that the connection uses. Providers of the node's own environment are its operator's, and go anywhere.

use std::net::IpAddr;
use std::sync::Arc;

use caxton_tools::network::{Denied, Network, check_address};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, Url};

/// The networks that are open although they are not public.
#[derive(Debug, Clone, Default)]
pub struct Reach(Arc<[Network]>);

impl Reach {
    /// Public addresses, and these networks.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Reach {
        Reach(networks.into_iter().collect())
    }

    /// A client that connects to nothing else, for an address; the error says why it leads to none, and what to do.
    pub(super) fn apply(&self, client: ClientBuilder, address: &str) -> Result<ClientBuilder, String> {
        let url = Url::parse(address).map_err(|error| format!("its address {address:?} is none: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("its address carries a user name or a password; name the key as api_key".to_owned());
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        // A URL has every way to write an address of IPv4 in the usual form by now.
        if let Ok(literal) = host.parse::<IpAddr>() {
            check_address(host, literal, &self.0).map_err(|denied| closed(&denied))?;
        }
        Ok(client.dns_resolver(Arc::new(self.clone())))
    }
}

/// What a person is told of an address that is closed to workspaces.
fn closed(denied: &Denied) -> String {
    format!(
        "{denied}; the node's operator opens a private network with `llm.networks`, as in --set llm.networks=10.1.0.0/16"
    )
}

/// The address that a host leads to is closed to workspaces.
#[derive(Debug, thiserror::Error)]
#[error("{}", closed(.0))]
struct Closed(Denied);

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, host) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let (mut open, mut refused) = (Vec::new(), None);
            for address in found {
                match check_address(&host, address.ip(), &reach.0) {
                    Ok(()) => open.push(address),
                    Err(denied) => refused = Some(denied),
                }
            }
            match refused {
                Some(denied) if open.is_empty() => Err(Closed(denied).into()),
                _ => Ok(Box::new(open.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(networks: &[&str], address: &str) -> Result<(), String> {
        let networks = networks.iter().map(|network| network.parse().expect("a network"));
        Reach::new(networks).apply(reqwest::Client::builder(), address).map(drop)
    }

    #[test]
    fn a_private_address_is_refused_however_it_is_written_and_open_where_the_operator_says_so() {
        for closed in [
            "http://10.0.0.1/v1",
            "http://127.0.0.1:11434/v1",
            "http://2130706433/v1",
            "http://0x7f.1/v1",
            "http://0177.0.0.1/v1",
            "http://[::1]:8080/v1",
            "http://[::ffff:10.0.0.1]/v1",
            "http://169.254.169.254/latest",
            "http://0.0.0.0:1/v1",
            // What stands behind is no part of the host.
            "http://10.0.0.1?.example.com/v1",
            "http://10.0.0.1#.example.com/v1",
            "http://10.0.0.1\\.example.com/v1",
        ] {
            let why = apply(&[], closed).expect_err(closed);
            assert!(why.contains("llm.networks"), "{closed}: {why}");
        }
        assert!(apply(&[], "http://api.example.com@10.0.0.1/v1").is_err_and(|why| why.contains("user name")));
        for open in ["https://api.openai.com/v1", "http://8.8.8.8/v1", "http://localhost:11434/v1"] {
            assert_eq!(apply(&[], open), Ok(()), "{open}: a host is looked at when it is connected to");
        }
        assert_eq!(apply(&["10.0.0.0/8", "::1"], "http://10.9.8.7/v1"), Ok(()));
        assert!(apply(&["10.0.0.0/8"], "http://192.168.0.1/v1").is_err());
    }

    #[tokio::test]
    async fn a_host_that_leads_to_a_private_address_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("http://localhost:{port}/v1");
        let client = |reach: Reach| {
            let client = reach.apply(reqwest::Client::builder().no_proxy(), &url).expect("a host");
            client.build().expect("a client")
        };
        let error = client(Reach::default()).get(&url).send().await.expect_err("closed");
        let said = crate::llm::reasons(&error);
        assert!(said.contains("loopback") && said.contains("llm.networks"), "{said}");
        let open = Reach::new(["127.0.0.0/8", "::1"].map(|network| network.parse().expect("a network")));
        let client = client(open);
        let asking = client.get(&url).send();
        let (met, _) = tokio::join!(listener.accept(), async {
            _ = tokio::time::timeout(std::time::Duration::from_millis(500), asking).await
        });
        assert!(met.is_ok(), "it is connected to where it is open");
    }
}
