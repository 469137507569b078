//! What every request passes through: ids, limits, errors, both versions of HTTP, metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::bench::{Bench, read, refused};

#[tokio::test]
async fn errors_of_every_kind_are_problems_with_the_request_s_id() {
    let bench = Bench::new(&["http.body_bytes_max=1KiB"]).await;
    refused(bench.request(Method::GET, "/nowhere"), 404, "not_found").await;
    refused(bench.request(Method::POST, "/health"), 405, "method_not_allowed").await;
    let post = || bench.request(Method::POST, "/api/v1/tokens");
    refused(post().body("{}"), 415, "unsupported_media_type").await;
    let broken = post().header("content-type", "application/json").body("{\"subject\": \n!");
    let body = refused(broken, 400, "invalid_request").await;
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("line 2")), "{body}");
    let large = json!({"subject": "x".repeat(2000), "role": "viewer"});
    refused(post().json(&large), 413, "body_too_large").await;
    refused(bench.request(Method::GET, "/api/v1/workspaces/A%2F../events"), 400, "invalid_request").await;
    refused(bench.request(Method::GET, "/api/v1/events?after=x"), 400, "invalid_request").await;

    let named =
        bench.request(Method::GET, "/nowhere").header("x-request-id", "mine-1").send().await.expect("an answer");
    assert_eq!(named.headers()["x-request-id"], "mine-1");
    let insane =
        bench.request(Method::GET, "/health").header("x-request-id", "a b\"c").send().await.expect("an answer");
    assert_eq!(insane.headers()["x-request-id"].len(), 32);
    bench.stop().await;
}

#[tokio::test]
async fn a_slow_request_and_one_too_many_are_told_so() {
    let bench = Bench::new(&["http.requests_max=1", "http.timeout=300ms"]).await;
    // A body that never ends holds the one place until the time is up.
    let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<bytes::Bytes, std::io::Error>>();
    sender.unbounded_send(Ok(bytes::Bytes::from_static(b"{"))).expect("is read");
    let slow = bench.request(Method::POST, "/api/v1/tokens").header("content-type", "application/json");
    let slow = slow.body(reqwest::Body::wrap_stream(receiver));
    let slow = tokio::spawn(async move { slow.send().await.expect("an answer").status().as_u16() });
    let mut busy = None;
    while busy.is_none() && !slow.is_finished() {
        let answer = bench.request(Method::GET, "/api/v1/server").send().await.expect("an answer");
        if answer.status() == 503 {
            busy = Some(answer);
        }
        // A probe gets through however busy the node is.
        assert_eq!(read(bench.request(Method::GET, "/health")).await.0, 200);
    }
    let busy = busy.expect("one request was refused while the other held its place");
    assert_eq!(busy.headers()["retry-after"], "1");
    assert_eq!(slow.await.expect("no panic"), 504);
    drop(sender);
    assert_eq!(read(bench.request(Method::GET, "/api/v1/server")).await.0, 200);
    bench.stop().await;
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_on_the_one_port() {
    let bench = Bench::new(&[]).await;
    let one = bench.request(Method::GET, "/health").send().await.expect("an answer");
    assert_eq!(one.version(), reqwest::Version::HTTP_11);
    let two =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).http2_prior_knowledge().build().expect("a client");
    let two = two.get(format!("{}/health", bench.node.url())).send().await.expect("an answer");
    assert_eq!(two.version(), reqwest::Version::HTTP_2);
    bench.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_come_to_the_point_is_closed() {
    let bench = Bench::new(&["http.header_timeout=200ms"]).await;
    let addr = bench.node.addr();
    for start in ["", "P", "PRI * HTTP/2.0", "GET /health HTTP/1.1\r\nHost: x\r\nX: "] {
        let closed = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(addr).expect("connects");
            stream.write_all(start.as_bytes()).expect("is sent");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let before = Instant::now();
            // The end of the stream, a reset, or an answer that says so: anything but waiting for ever.
            let _ = stream.read_to_end(&mut Vec::new());
            before.elapsed()
        });
        let took = closed.await.expect("no panic");
        assert!(took < Duration::from_secs(5), "{start:?} was kept open for {took:?}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn the_node_tells_who_it_is_and_what_it_measures() {
    let bench = Bench::new(&[]).await;
    let (status, server) = read(bench.request(Method::GET, "/api/v1/server")).await;
    assert_eq!((status, server["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
    bench.token("viewer", &[], 60).await;
    refused(bench.request(Method::GET, "/nowhere/at/all"), 404, "not_found").await;
    let (status, metrics) = read(bench.request(Method::GET, "/metrics")).await;
    let text = metrics.as_str().expect("text");
    assert_eq!(status, 200);
    for line in [
        "caxton_http_requests_total{route=\"/api/v1/server\",method=\"GET\",status=\"200\"}",
        "caxton_http_request_seconds_bucket{route=\"/api/v1/tokens\",method=\"POST\",le=",
        "caxton_log_applied_index",
        "caxton_deployments_total",
        "caxton_workspaces",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("nowhere"), "a client's invention became a label");
    bench.stop().await;
}

#[tokio::test]
async fn the_description_is_served_and_compressed() {
    let bench = Bench::new(&[]).await;
    let plain = bench.request(Method::GET, "/api/v1/openapi.json").send().await.expect("an answer");
    let plain = plain.bytes().await.expect("a body");
    let packed = bench.request(Method::GET, "/api/v1/openapi.json").header("accept-encoding", "gzip");
    let packed = packed.send().await.expect("an answer");
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.bytes().await.expect("a body").len() < plain.len() / 3);
    bench.stop().await;
}
