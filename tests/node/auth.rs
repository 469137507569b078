//! Who is let in, over the wire.

use reqwest::Method;
use serde_json::json;

use crate::bench::{Bench, eventually, read, refused};
use crate::deploy::Content;
use crate::stop::{begun, silent};

#[tokio::test]
async fn without_a_good_token_only_probes_and_the_manual_answer() {
    let bench = Bench::new(&[]).await;
    let bare = |path: &str| bench.client.get(format!("{}{path}", bench.node.url()));
    for open in ["/health", "/ready", "/docs", "/api/v1/openapi.json"] {
        assert_eq!(read(bare(open)).await.0, 200, "{open}");
    }
    for closed in ["/metrics", "/api/v1/server", "/api/v1/tokens", "/api/v1/events", "/api/v1/workspaces/demo/events"] {
        let body = refused(bare(closed), 401, "unauthorized").await;
        assert!(body["help"].as_str().is_some_and(|help| help.contains("Authorization")), "{body}");
        let wrong = bench.request_as("caxton_admin_0000", Method::GET, closed);
        let body = refused(wrong, 401, "unauthorized").await.to_string();
        assert!(!body.contains("0000"), "the token came back: {body}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_token_opens_what_it_was_made_for_until_it_is_revoked() {
    let bench = Bench::new(&[]).await;
    let issued = bench.token("viewer", &["demo"], 3600).await;
    let token = issued["token"].as_str().expect("a token");
    let get = |path: &str| bench.request_as(token, Method::GET, path);
    assert_eq!(read(get("/api/v1/server")).await.0, 200);
    refused(get("/api/v1/tokens"), 403, "forbidden").await;
    refused(get("/metrics"), 403, "forbidden").await;
    refused(get("/api/v1/workspaces/other/events"), 403, "forbidden").await;
    let make = json!({"subject": "eve", "role": "admin"});
    refused(bench.request_as(token, Method::POST, "/api/v1/tokens").json(&make), 403, "forbidden").await;

    let (_, listed) = read(bench.request(Method::GET, "/api/v1/tokens")).await;
    assert_eq!(listed["tokens"][0]["id"], issued["id"]);
    assert!(!listed.to_string().contains(token), "a list shows no tokens");

    let path = format!("/api/v1/tokens/{}", issued["id"].as_str().expect("an id"));
    let (status, revoked) = read(bench.request(Method::DELETE, &path)).await;
    assert_eq!((status, revoked["revoked"].is_string()), (200, true));
    let body = refused(get("/api/v1/server"), 401, "unauthorized").await;
    assert_eq!(body["detail"], "the token was revoked");
    refused(bench.request(Method::DELETE, "/api/v1/tokens/nonsense"), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_token_expires_and_survives_a_restart_until_then() {
    let bench = Bench::new(&[]).await;
    let short = bench.token("viewer", &[], 1).await["token"].as_str().expect("a token").to_owned();
    let long = bench.token("viewer", &[], 3600).await["token"].as_str().expect("a token").to_owned();
    eventually("the token expires", || async {
        read(bench.request_as(&short, Method::GET, "/api/v1/server")).await.0 == 401
    })
    .await;
    let body = refused(bench.request_as(&short, Method::GET, "/api/v1/server"), 401, "unauthorized").await;
    assert_eq!(body["detail"], "the token has expired");
    let admin = bench.admin.clone();
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(bench.admin, admin);
    assert_eq!(read(bench.request_as(&long, Method::GET, "/api/v1/server")).await.0, 200);
    bench.stop().await;
}

#[tokio::test]
async fn tokens_that_cannot_be_made_are_refused() {
    let bench = Bench::new(&[]).await;
    for (body, word) in [
        (json!({"subject": "x", "role": "root"}), "root"),
        (json!({"subject": " ", "role": "viewer"}), "subject"),
        (json!({"subject": "x", "role": "viewer", "ttl_s": 0}), "seconds"),
        (json!({"subject": "x", "role": "viewer", "ttl_s": 999_999_999}), "seconds"),
        (json!({"subject": "x", "role": "viewer", "workspaces": ["../x"]}), "workspace"),
        (json!({"role": "viewer"}), "subject"),
    ] {
        let problem = refused(bench.request(Method::POST, "/api/v1/tokens").json(&body), 400, "invalid_request").await;
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{body}: {problem}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_token_for_metrics_reads_metrics_and_nothing_else() {
    let bench = Bench::new(&[]).await;
    let issued = bench.token("metrics", &[], 3600).await;
    let token = issued["token"].as_str().expect("a token");
    let get = |path: &str| bench.request_as(token, Method::GET, path);
    let (status, text) = read(get("/metrics")).await;
    assert!(status == 200 && text.as_str().is_some_and(|text| text.contains("caxton_")), "{status}");
    for closed in ["/api/v1/server", "/api/v1/workspaces", "/api/v1/cluster", "/api/v1/events", "/v1/models"] {
        assert_eq!(read(get(closed)).await.0, 403, "{closed}");
    }
    refused(get("/api/v1/workspaces/demo"), 403, "forbidden").await;
    // It is for the whole node, and one for a workspace reads none of it.
    let issued = bench.token("metrics", &["demo"], 3600).await;
    let limited = issued["token"].as_str().expect("a token");
    refused(bench.request_as(limited, Method::GET, "/metrics"), 403, "forbidden").await;
    bench.stop().await;
}

#[tokio::test]
async fn the_stream_of_a_turn_ends_when_its_token_is_revoked() {
    let (address, mut seen) = silent().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n"
    );
    let content = Content::of(&["talker"], "hello").file("caxton.toml", settings);
    let bench = Bench::new(&["http.event_heartbeat=100ms"]).await;
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let issued = bench.token("caller", &["demo"], 3600).await;
    let (_turn, stream) = begun(&bench, issued["token"].as_str().expect("a token")).await;
    assert!(seen.recv().await.is_some(), "its model is asked, and never answers");
    let revoke = format!("/api/v1/tokens/{}", issued["id"].as_str().expect("an id"));
    assert_eq!(read(bench.request(Method::DELETE, &revoke)).await.0, 200);
    // It breaks off, so that nobody takes it for whole; a stream that went on would not end before its turn does.
    let rest = tokio::time::timeout(crate::bench::DEADLINE, stream.text()).await.expect("it ends");
    assert!(rest.is_err(), "{rest:?}");
    bench.stop().await;
}
