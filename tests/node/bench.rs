//! The bench that tests work at: a node with its data directory and a client, and waiting without sleeping blindly.

use std::path::Path;
use std::time::{Duration, Instant};

use caxton::config::{Config, Draft, Home};
use caxton::node::Node;
use reqwest::Method;
use serde_json::{Value, json};

/// Nothing in these tests takes longer.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A node and what a client needs.
pub struct Bench {
    pub node: Node,
    pub client: reqwest::Client,
    pub admin: String,
    pub dir: tempfile::TempDir,
}

/// The settings of a node in `dir` on a free port, with `set` on top.
pub fn config(dir: &Path, set: &[&str]) -> Config {
    let mut draft = Draft::default();
    draft.set("http.bind=127.0.0.1:0");
    draft.set("disk.reserve_bytes=0B");
    draft.set(&format!("data.dir={}", dir.display()));
    set.iter().for_each(|set| draft.set(set));
    draft.check(&Home::default()).expect("settings")
}

impl Bench {
    /// A node with an empty data directory.
    pub async fn new(set: &[&str]) -> Bench {
        Bench::on(tempfile::tempdir().expect("a folder"), set).await
    }

    /// A node on a data directory.
    pub async fn on(dir: tempfile::TempDir, set: &[&str]) -> Bench {
        caxton::trust::install_provider();
        let node = Node::start(config(dir.path(), set)).await.expect("the node starts");
        assert!(node.ready(DEADLINE).await, "the node is not ready in time");
        let admin = std::fs::read_to_string(dir.path().join("admin-token")).expect("the admin token");
        let mut builder = reqwest::Client::builder().no_proxy();
        builder = match std::fs::read(dir.path().join("tls/ca.pem")) {
            Ok(pem) => builder.tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")]),
            Err(_) => builder.tls_certs_only([]),
        };
        Bench { node, client: builder.build().expect("a client"), admin: admin.trim().to_owned(), dir }
    }

    /// Stops the node and gives its data directory back.
    pub async fn stop(self) -> tempfile::TempDir {
        self.node.stop().await;
        self.dir
    }

    /// Stops the node; its data directory stays until the test's process ends, under this path.
    pub async fn stop_keeping(self) -> std::path::PathBuf {
        self.stop().await.keep()
    }

    /// A request with the admin token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request_as(&self.admin, method, path)
    }

    /// A request with a token.
    pub fn request_as(&self, token: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.node.url())).timeout(DEADLINE).bearer_auth(token)
    }

    /// Makes a token.
    pub async fn token(&self, role: &str, workspaces: &[&str], ttl_s: u64) -> Value {
        let body = json!({"subject": "ada", "role": role, "workspaces": workspaces, "ttl_s": ttl_s});
        let answer = self.request(Method::POST, "/api/v1/tokens").json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        answer.json().await.expect("JSON")
    }
}

/// The status and the body of an answer.
pub async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The answer to a request that has to be a problem with this status and code.
pub async fn refused(request: reqwest::RequestBuilder, status: u16, code: &str) -> Value {
    let answer = request.send().await.expect("an answer");
    let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
    let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
    let found = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (found, body["code"].as_str(), kind.as_str()),
        (status, Some(code), "application/problem+json"),
        "{body}"
    );
    assert_eq!(body["request_id"].as_str(), Some(id.as_str()));
    assert_eq!(body["status"], status);
    body
}

/// Waits until `condition` holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let until = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
