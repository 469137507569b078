//! A fetch against hostile names and servers.

use super::*;
use std::net::IpAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A resolver that answers each question with the next of these, and the last for ever.
fn resolver(answers: &[&[&str]]) -> Lookup {
    let parsed = |answer: &&[&str]| answer.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
    let answers: Vec<Vec<SocketAddr>> = answers.iter().map(parsed).collect();
    let asked = Mutex::new(0_usize);
    Arc::new(move |_| {
        let mut asked = asked.lock().unwrap();
        let answer = answers[(*asked).min(answers.len() - 1)].clone();
        *asked += 1;
        Box::pin(async move { Ok(answer) })
    })
}

/// A fetcher for which 127.0.0.1 stands for a public address.
fn fetcher(answers: &[&[&str]]) -> Fetcher {
    let allowed: Vec<Network> = vec!["127.0.0.1".parse().unwrap()];
    Fetcher { lookup: resolver(answers), ..Fetcher::new(Handle::current(), allowed) }
}

/// A server that answers every connection with these bytes, over and over where `endless`.
async fn server(response: &'static str, endless: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(response.as_bytes()).await;
                let more = "X-Flood: 0123456789\r\n".repeat(1_000);
                while endless && stream.write_all(more.as_bytes()).await.is_ok() {}
            });
        }
    });
    port
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

async fn get(fetcher: &Fetcher, url: &str) -> Result<FetchResponse, FetchError> {
    let rules: Vec<HostPattern> = vec!["*:*".parse().unwrap()];
    let request = FetchRequest { method: "GET".into(), url: url.into(), headers: Vec::new(), body: Vec::new() };
    tokio::time::timeout(Duration::from_secs(20), fetcher.fetch(request, &rules)).await.expect("it ends")
}

#[tokio::test]
async fn a_name_that_moves_to_a_private_address_is_refused_when_it_has_moved() {
    let port = server(OK, false).await;
    let fetcher = fetcher(&[&["127.0.0.1"], &["169.254.169.254"], &["10.0.0.1"], &["127.0.0.1"]]);
    let url = format!("http://moving.example:{port}/");
    assert_eq!(get(&fetcher, &url).await.unwrap().body, b"ok");
    for address in ["169.254.169.254", "10.0.0.1"] {
        let address: IpAddr = address.parse().unwrap();
        let refused = get(&fetcher, &url).await;
        assert!(matches!(refused, Err(FetchError::Denied(Denied::Address { address: a, .. })) if a == address));
    }
    assert!(get(&fetcher, &url).await.is_ok());
}

#[tokio::test]
async fn a_name_leads_to_no_private_address_in_any_form() {
    let port = server(OK, false).await;
    for address in [
        "0.0.0.0",
        "127.0.0.2",
        "192.168.1.1",
        "100.100.100.200",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "fd00:ec2::254",
        "fe80::1",
    ] {
        let refused = get(&fetcher(&[&[address]]), &format!("http://name.example:{port}/")).await;
        assert!(matches!(refused, Err(FetchError::Denied(Denied::Address { .. }))), "{address}: {refused:?}");
    }
    // Of several addresses only those are tried that are allowed.
    let mixed = fetcher(&[&["10.0.0.1", "127.0.0.1", "::1"]]);
    assert_eq!(get(&mixed, &format!("http://name.example:{port}/")).await.unwrap().body, b"ok");
}

#[tokio::test]
async fn a_redirect_is_resolved_and_checked_like_the_first_url() {
    let to = server("HTTP/1.1 302 Found\r\nLocation: http://inside.example/\r\nContent-Length: 0\r\n\r\n", false).await;
    let fetcher = fetcher(&[&["127.0.0.1"], &["192.168.0.1"]]);
    let refused = get(&fetcher, &format!("http://outside.example:{to}/")).await;
    assert!(matches!(refused, Err(FetchError::Denied(Denied::Address { host, .. })) if host == "inside.example"));
}

#[tokio::test]
async fn floods_of_an_answer_end() {
    let fetcher = fetcher(&[&["127.0.0.1"]]);
    // Headers for ever.
    let port = server("HTTP/1.1 200 OK\r\n", true).await;
    let flood = get(&fetcher, &format!("http://a.example:{port}/")).await;
    assert!(matches!(flood, Err(FetchError::Transport(_))), "{flood:?}");
    // A body for ever, one that says that it is too long, and a redirect to itself.
    let port = server("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", true).await;
    let flood = get(&fetcher, &format!("http://b.example:{port}/")).await;
    assert!(matches!(flood, Err(FetchError::TooLarge { .. })), "{:?}", flood.map(|response| response.body.len()));
    let port = server("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", false).await;
    let flood = get(&fetcher, &format!("http://c.example:{port}/")).await;
    assert!(matches!(flood, Err(FetchError::TooLarge { .. })), "{flood:?}");
    let port = server(
        "HTTP/1.1 308 Permanent Redirect\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        false,
    )
    .await;
    let flood = get(&fetcher, &format!("http://d.example:{port}/")).await;
    assert_eq!(flood.unwrap_err(), FetchError::Denied(Denied::Redirects(REDIRECTS_MAX)));
}

#[test]
fn floods_and_forgeries_of_a_request_are_refused() {
    let header = |name: &str, value: &str| headers(&[(name.to_string(), value.to_string())]);
    assert!(header("accept", "text/plain").is_ok());
    for (name, value) in [
        ("host", "internal"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "0"),
        ("Proxy-Authorization", "x"),
        ("x-a", "1\r\nhost: internal"),
        ("x-a\r\nhost", "internal"),
        ("", "x"),
    ] {
        assert!(matches!(header(name, value), Err(FetchError::Denied(Denied::Header(_)))), "{name}: {value}");
    }
    let many: Vec<_> = (0..=HEADERS_MAX).map(|n| (format!("x-{n}"), String::new())).collect();
    assert!(matches!(headers(&many), Err(FetchError::TooLarge { .. })));
    assert!(matches!(header("x-long", &"x".repeat(HEADER_BYTES_MAX)), Err(FetchError::TooLarge { .. })));
    for name in ["CONNECT", "TRACE", "get", "GET / HTTP/1.1\r\n"] {
        assert!(matches!(method(name), Err(Denied::Method(_))), "{name}");
    }
}
