//! What one address, or one role in one workspace, can take of the node: refused before its body is read, and given back.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Bench, DEADLINE, eventually, read, refused};
use crate::deploy::{Content, at};
use crate::policy::token;
use caxton_proto::log::Role;

/// A server that takes requests and never answers.
async fn silent() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address.to_string()
}

async fn bench(set: &[&str]) -> Bench {
    let address = silent().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n"
    );
    let bench = Bench::new(set).await;
    let content = Content::of(&["talker"], "hello").file("caxton.toml", settings);
    bench.deploy(&content, 0, &Content::default(), "first").await;
    bench
}

/// Begins a turn that does not end, and does something while it runs.
async fn while_one_runs<F: Future<Output = ()>>(bench: &Bench, token: &str, then: F) {
    let message = json!({ "agent": "talker", "text": "hi" });
    let turn = bench.request_as(token, Method::POST, &at("/messages")).json(&message).send();
    let underway = async {
        eventually("the turn", || async {
            let (_, logs) = read(bench.request(Method::GET, &at("/logs"))).await;
            logs.to_string().contains("model_asked") || logs.to_string().contains("routed")
        })
        .await;
        then.await;
    };
    tokio::select! {
        ended = turn => panic!("it has no end: {ended:?}"),
        () = underway => {}
    }
}

/// The status that comes back for a head whose body never follows.
async fn status_of_head(bench: &Bench, token: &str) -> String {
    let address = bench.node.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let path = at("/messages");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 12];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_in_a_workspace_has_so_many_places_and_others_have_their_own() {
    let bench = bench(&["http.requests_per_workspace_max=1"]).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let elsewhere = token(&bench, "bob", Role::Caller, &["other"]).await;
    while_one_runs(&bench, &ada, async {
        assert_eq!(status_of_head(&bench, &eve).await, "HTTP/1.1 429", "no byte of the body was sent");
        refused(bench.request_as(&eve, Method::GET, &at("/agents")), 429, "too_many_requests").await;
        assert_eq!(read(bench.request(Method::GET, &at("/agents"))).await.0, 200, "another role");
        let path = "/api/v1/workspaces/other/agents";
        refused(bench.request_as(&elsewhere, Method::GET, path), 404, "not_found").await;
    })
    .await;
    eventually("the place to be free", || async {
        read(bench.request_as(&eve, Method::GET, &at("/agents"))).await.0 == 200
    })
    .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_places_and_the_probes_take_none() {
    let bench = bench(&["http.requests_per_address_max=2"]).await;
    let (first, second) = (json!({ "agent": "talker", "text": "a" }), json!({ "agent": "talker", "text": "b" }));
    // A look at whether the address is full takes a place of it for a moment, too.
    let held = async |message: &serde_json::Value| loop {
        let ended = bench.post("/messages", message).send().await.expect("an answer");
        assert_eq!(ended.status(), 429, "it has no end");
    };
    let (one, two) = (held(&first), held(&second));
    let look = async {
        eventually("the address to be full", || async {
            let (status, body) = read(bench.request(Method::GET, &at("/agents"))).await;
            status == 429 && body["detail"].as_str().is_some_and(|text| text.contains("http.requests_per_address_max"))
        })
        .await;
        assert_eq!(read(bench.request(Method::GET, "/health")).await.0, 200);
    };
    tokio::select! {
        never = one => never,
        never = two => never,
        () = look => {}
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections() {
    let bench = Bench::new(&["http.connections_per_address_max=3"]).await;
    let address = bench.node.url().replace("http://", "");
    let mut held = Vec::new();
    // The client of the bench has one already, perhaps.
    for _ in 0..3 {
        held.push(TcpStream::connect(&address).await.expect("a connection"));
    }
    let mut one_more = TcpStream::connect(&address).await.expect("a connection");
    one_more.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let read_all = one_more.read_to_end(&mut answer);
    // It is closed, with or without a reset, and nothing was answered.
    _ = tokio::time::timeout(DEADLINE, read_all).await.expect("in time");
    assert_eq!(String::from_utf8_lossy(&answer), "");
    drop(held);
    let answers = || async {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        let mut answer = vec![0; 12];
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok()
            && stream.read_exact(&mut answer).await.is_ok()
            && answer == b"HTTP/1.1 200"
    };
    eventually("a place to be free", answers).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_more_is_closed() {
    let bench = Bench::new(&["http.idle_timeout=200ms"]).await;
    let address = bench.node.url().replace("http://", "");
    // HTTP/2 with its preface and empty settings, and then pings only.
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("written");
    let closed = async {
        let mut bytes = [0; 1024];
        loop {
            let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
            if stream.write_all(&ping).await.is_err() {
                break;
            }
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.expect("it is closed in time");
    let (status, body): (u16, Value) = read(bench.request(Method::GET, "/health")).await;
    assert_eq!((status, body["status"].as_str()), (200, Some("ok")));
    bench.stop().await;
}
