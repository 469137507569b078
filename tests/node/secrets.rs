//! Secrets over the wire: who may set them, what is ever shown of them, and who is given them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::{Content, at};

pub const VALUE: &str = "sk-never-shown-5f1e2d3c4b5a69788796";

impl Bench {
    fn secret(&self, token: &str, name: &str, value: &str) -> reqwest::RequestBuilder {
        self.request_as(token, Method::PUT, &at(&format!("/secrets/{name}"))).json(&json!({ "value": value }))
    }

    async fn token_of(&self, role: &str, workspaces: &[&str]) -> String {
        self.token(role, workspaces, 3600).await["token"].as_str().expect("a token").to_owned()
    }

    pub async fn set_secret(&self, name: &str, value: &str) {
        let (status, body) = read(self.secret(&self.admin, name, value)).await;
        assert_eq!(status, 200, "{body}");
    }
}

/// Every file below `dir` that has these bytes in it.
fn files_with(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if std::fs::read(&path).expect("a file").windows(bytes.len()).any(|part| part == bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_secret_is_kept_sealed_listed_by_name_and_never_read_back() {
    let bench = Bench::new(&[]).await;
    let deployer = bench.token_of("deployer", &["demo"]).await;
    let (status, set) = read(bench.secret(&deployer, "LAB_KEY", VALUE)).await;
    assert_eq!((status, set["name"].as_str(), set["actor"].as_str()), (200, Some("LAB_KEY"), Some("ada")), "{set}");
    let bench = Bench::on(bench.stop().await, &[]).await;
    let (status, list) = read(bench.request_as(&deployer, Method::GET, &at("/secrets"))).await;
    assert_eq!((status, list["secrets"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
    assert_eq!(list["secrets"][0]["name"], "LAB_KEY");
    assert!(!list.to_string().contains("sk-") && !set.to_string().contains("sk-"));
    refused(bench.request(Method::GET, &at("/secrets/LAB_KEY")), 405, "method_not_allowed").await;

    for (role, workspaces) in [("viewer", &[] as &[&str]), ("caller", &["demo"]), ("deployer", &["other"])] {
        let token = bench.token_of(role, workspaces).await;
        refused(bench.secret(&token, "LAB_KEY", "x"), 403, "forbidden").await;
        refused(bench.request_as(&token, Method::GET, &at("/secrets")), 403, "forbidden").await;
        refused(bench.request_as(&token, Method::DELETE, &at("/secrets/LAB_KEY")), 403, "forbidden").await;
    }
    let remove = || bench.request_as(&deployer, Method::DELETE, &at("/secrets/LAB_KEY"));
    assert_eq!(read(remove()).await.0, 200);
    refused(remove(), 404, "not_found").await;

    let dir = bench.stop().await;
    assert!(!files_with(dir.path(), b"LAB_KEY").is_empty(), "the files are searched for nothing");
    assert_eq!(files_with(dir.path(), VALUE.as_bytes()), Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_refused_without_being_repeated() {
    let bench = Bench::new(&[]).await;
    let put = |name: &str, body: String| bench.request(Method::PUT, &at(&format!("/secrets/{name}"))).body(body);
    let long = json!({ "value": VALUE.repeat(1_000) }).to_string();
    for (name, body) in [
        ("KEY", format!("\"{VALUE}\"")),
        ("KEY", json!({ "value": [VALUE] }).to_string()),
        ("KEY", json!({ "secret": VALUE }).to_string()),
        ("KEY", json!({ "value": "" }).to_string()),
        ("KEY", json!({ "value": format!("{VALUE}\u{0}") }).to_string()),
        ("KEY", long),
        (VALUE, json!({ "value": "x" }).to_string()),
    ] {
        let problem = refused(put(name, body), 400, "invalid_request").await;
        assert!(!problem.to_string().contains("never-shown"), "{problem}");
    }
    let (_, list) = read(bench.request(Method::GET, &at("/secrets"))).await;
    assert_eq!(list["secrets"], json!([]));
    bench.stop().await;
}

/// A provider that answers whoever shows the key, and tells others which one they showed.
pub async fn provider(key: Arc<Mutex<String>>) -> String {
    let answer = move |headers: HeaderMap| async move {
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if shown != format!("Bearer {}", key.lock().expect("a key")) {
            let error = json!({ "error": { "message": format!("wrong key: {shown}") } });
            return (StatusCode::UNAUTHORIZED, axum::Json(error));
        }
        let message = json!({ "role": "assistant", "content": "hello from the lab" });
        let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
        (StatusCode::OK, axum::Json(json!({ "model": "m", "choices": choices })))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_provider_has_its_key_from_a_secret_as_soon_as_it_is_set() {
    let key = Arc::new(Mutex::new(VALUE.to_owned()));
    let url = provider(key.clone()).await;
    let bench = Bench::new(&[]).await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"{url}\"\n\
         api_key = \"secret:LAB_KEY\"\nmodel = \"m\"\n"
    );
    let content = Content::of(&["greeter"], "hello").file("caxton.toml", settings);
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let ask = || read(bench.post("/messages", &json!({ "agent": "greeter", "text": "hi" })));
    let said = |body: &Value| body["text"].as_str().map(str::to_owned);

    let (status, body) = ask().await;
    assert_eq!(status, 502, "{body}");
    assert!(body.to_string().contains("caxton secrets set LAB_KEY"), "{body}");
    bench.set_secret("LAB_KEY", VALUE).await;
    let (status, body) = ask().await;
    assert_eq!((status, said(&body).as_deref()), (200, Some("hello from the lab")), "{body}");

    "another-key".clone_into(&mut key.lock().expect("a key"));
    let (status, body) = ask().await;
    assert_eq!(status, 502, "{body}");
    assert!(body.to_string().contains("[key]") && !body.to_string().contains(VALUE), "{body}");
    bench.set_secret("LAB_KEY", "another-key").await;
    assert_eq!(ask().await.0, 200);
    assert_eq!(read(bench.request(Method::DELETE, &at("/secrets/LAB_KEY"))).await.0, 200);
    assert_eq!(ask().await.0, 502);
    bench.stop().await;
}

/// A WASI command that speaks MCP as far as it must, and answers with its only variable.
fn tells_its_variable() -> Vec<u8> {
    let before = r#"{\22jsonrpc\22:\222.0\22,\22id\22:2,\22result\22:{\22tools\22:[{\22name\22:\22t\22}],\22content\22:[{\22type\22:\22text\22,\22text\22:\22"#;
    let after = r#"\22}]}}\0a"#;
    // Each escape stands for one byte.
    let length = |text: &str| text.len() - 2 * text.matches('\\').count();
    let module = format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 1024) "{before}")
  (data (i32.const 2048) "{after}")
  (func (export "_start")
    (drop (call $sizes (i32.const 64) (i32.const 68)))
    (drop (call $get (i32.const 4096) (i32.const 8192)))
    (i32.store (i32.const 8) (i32.const 1024)) (i32.store (i32.const 12) (i32.const {}))
    ;; The variable without the zero byte at its end.
    (i32.store (i32.const 16) (i32.const 8192))
    (i32.store (i32.const 20) (i32.sub (i32.load (i32.const 68)) (i32.const 1)))
    (i32.store (i32.const 24) (i32.const 2048)) (i32.store (i32.const 28) (i32.const {}))
    ;; A host may write the first of several pieces only.
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 40)))
    (drop (call $write (i32.const 1) (i32.const 24) (i32.const 1) (i32.const 40)))))"#,
        length(before),
        length(after)
    );
    wat::parse_str(module).expect("a module")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_in_the_sandbox_is_given_the_secret_that_its_file_names() {
    let bench = Bench::new(&[]).await;
    let settings = "[workspace]\nname = \"demo\"\n[grants]\nsecrets = [\"LAB_KEY\"]\n";
    let tool = "[tool]\nname = \"lab\"\nkind = \"command\"\nmodule = \"lab.wasm\"\n\
                [grants]\nenv = { KEY = \"secret:LAB_KEY\" }\n";
    let content = Content::default()
        .file("caxton.toml", settings)
        .file("tools/lab/tool.toml", tool)
        .file("tools/lab/lab.wasm", tells_its_variable());
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let call = || read(bench.post("/tools/lab/calls", &json!({ "function": "t" })));
    let (status, problem) = call().await;
    assert_eq!(status, 503, "{problem}");
    assert!(problem.to_string().contains("caxton secrets set LAB_KEY"), "{problem}");
    for value in [VALUE, "another value"] {
        bench.set_secret("LAB_KEY", value).await;
        let (status, called) = call().await;
        let said = called["result"]["content"][0]["text"].as_str().map(str::to_owned);
        assert_eq!((status, said), (200, Some(format!("KEY={value}"))), "{called}");
    }
    let (_, detail) = read(bench.request(Method::GET, &at("/tools/lab"))).await;
    assert!(detail.to_string().contains("env KEY") && !detail.to_string().contains("another value"), "{detail}");
    assert_eq!(read(bench.request(Method::DELETE, &at("/secrets/LAB_KEY"))).await.0, 200);
    assert_eq!(call().await.0, 503);
    bench.stop().await;
}
