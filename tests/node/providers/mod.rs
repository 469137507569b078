//! Providers as they are: a stand-in with one quirk a path, asked through a node by an agent for each quirk.
//!
//! Each quirk is one that real providers have been seen with. What is right is in the tests; the stand-in refuses what
//! the provider refuses, and keeps what it was asked.

mod budgets;

mod context;

mod dialects;

mod echoes;

mod scripts;

mod shared;

mod streams;

mod trouble;

mod v1;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read};
use crate::deploy::{Content, at};

/// The stand-in.
#[derive(Clone)]
struct Lab {
    url: String,
    seen: Arc<Mutex<Vec<Question>>>,
    /// Answers that are under way: their connections are open.
    open: Arc<AtomicUsize>,
}

/// A request as it came.
#[derive(Clone)]
struct Question {
    quirk: String,
    /// How many came before it for the same quirk.
    number: usize,
    path: String,
    headers: HeaderMap,
    body: Value,
    open: Arc<AtomicUsize>,
}

impl Question {
    fn messages(&self) -> &[Value] {
        self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Messages of a role.
    fn of_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Value> {
        self.messages().iter().filter(move |message| message["role"] == role)
    }

    fn results(&self) -> usize {
        self.of_role("tool").count()
    }

    fn tools(&self) -> Vec<String> {
        let tools = self.body["tools"].as_array().into_iter().flatten();
        tools.filter_map(|tool| tool["function"]["name"].as_str().map(str::to_owned)).collect()
    }

    /// The tool that a model would take: the agent's own if it has one.
    fn tool(&self) -> String {
        let own = |name: &&String| !["ask_capability", "list_capabilities"].contains(&name.as_str());
        self.tools().iter().find(own).cloned().unwrap_or_else(|| "list_capabilities".to_owned())
    }

    /// The arguments of its `number`th call: no two are the same.
    fn arguments(&self, number: usize) -> String {
        match self.tool().as_str() {
            "list_capabilities" => json!({ "about": format!("subject {number}") }).to_string(),
            _ => json!({ "text": format!("a,b\n1,{number}") }).to_string(),
        }
    }
}

impl Lab {
    async fn start() -> Lab {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let lab = Lab { url, seen: Arc::default(), open: Arc::default() };
        let here = lab.clone();
        let router = Router::new().fallback(move |request: Request| {
            let lab = here.clone();
            async move { lab.answer(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        lab
    }

    async fn answer(self, request: Request) -> Response {
        let path = request.uri().to_string();
        let quirk = path.split('/').nth(1).unwrap_or_default().to_owned();
        let headers = request.headers().clone();
        let body = axum::body::to_bytes(request.into_body(), 1 << 24).await.expect("a body");
        let body = serde_json::from_slice(&body).expect("JSON");
        let asked = {
            let mut seen = self.seen.lock().expect("no panic");
            let number = seen.iter().filter(|asked| asked.quirk == quirk).count();
            let asked = Question { quirk, number, path, headers, body, open: self.open.clone() };
            seen.push(asked.clone());
            asked
        };
        let known = [budgets::answer, dialects::answer, echoes::answer, streams::answer, trouble::answer, v1::answer];
        known.iter().find_map(|answer| answer(&asked)).unwrap_or_else(|| say("ok"))
    }

    /// What was asked for a quirk.
    fn asked(&self, quirk: &str) -> Vec<Question> {
        self.seen.lock().expect("no panic").iter().filter(|asked| asked.quirk == quirk).cloned().collect()
    }

    /// A workspace with an agent `m-QUIRK` for each quirk; with each come more lines of its provider and its agent.
    fn workspace(&self, quirks: &[(&str, &str, &str)]) -> Content {
        let mut settings = "[workspace]\nname = \"demo\"\n".to_owned();
        let mut content = Content::default();
        for (quirk, provider, agent) in quirks {
            let kind = if provider.contains("kind =") { "" } else { "kind = \"openai\"\n" };
            let base = if provider.contains("base_url") {
                String::new()
            } else {
                format!("base_url = \"{}/{quirk}/v1\"\n", self.url)
            };
            settings.push_str(&format!("[providers.{quirk}]\n{kind}{base}model = \"fake\"\n{provider}\n"));
            let tools = if agent.contains("[tools]") { "" } else { BUILT_IN_TOOLS };
            let file = format!(
                "[agent]\nname = \"m-{quirk}\"\ndescription = \"asks {quirk}\"\n[capabilities]\npatterns = [\"ask {quirk}\"]\n\
                 [prompts]\nsystem = \"You test {quirk}.\"\n[llm]\nprovider = \"{quirk}\"\n{agent}\n{tools}\n"
            );
            content = content.file(&format!("agents/m-{quirk}.toml"), file);
        }
        content.file("caxton.toml", settings)
    }
}

/// Tools that every agent may name: what a model is offered where a quirk brings no tool of its own.
const BUILT_IN_TOOLS: &str = "[tools]\nrequired = [\"ask_capability\", \"list_capabilities\"]";
/// An agent's file with the example tool in it.
const OWN_TOOL: &str = "[tools]\nrequired = [\"csv-reader\"]";
/// The same where a person is asked before each call.
const GATED_TOOL: &str = "[tools]\nrequired = [\"csv-reader\"]\n[approval]\ntools = [\"csv-reader\"]";

/// A workspace with the example tool.
fn with_tool(content: Content) -> Content {
    let file = "[tool]\nname = \"csv-reader\"\nkind = \"component\"\nmodule = \"csv-reader.wasm\"\n";
    content
        .file("tools/csv-reader/tool.toml", file)
        .file("tools/csv-reader/csv-reader.wasm", caxton_tools::examples::CSV_READER)
}

/// A node with the stand-in's quirks, deployed.
async fn bench(lab: &Lab, quirks: &[(&str, &str, &str)]) -> Bench {
    let bench = Bench::new(&[]).await;
    let content = lab.workspace(quirks);
    let content = if quirks.iter().any(|quirk| quirk.2.contains("csv-reader")) { with_tool(content) } else { content };
    bench.deploy(&content, 0, &Content::default(), "first").await;
    bench
}

impl Bench {
    /// Asks the agent of a quirk.
    async fn ask_quirk(&self, quirk: &str) -> (u16, Value) {
        read(self.post("/messages", &json!({ "agent": format!("m-{quirk}"), "text": "hi" }))).await
    }

    /// What the agent of a quirk answers.
    async fn answer_of(&self, quirk: &str) -> String {
        let (status, body) = self.ask_quirk(quirk).await;
        assert_eq!(status, 200, "{quirk}: {body}");
        body["text"].as_str().expect("text").to_owned()
    }

    /// Why the agent of a quirk does not answer.
    async fn failure_of(&self, quirk: &str) -> String {
        let (status, body) = self.ask_quirk(quirk).await;
        assert_eq!(status, 502, "{quirk}: {body}");
        body["detail"].as_str().expect("a detail").to_owned()
    }

    /// The ids of the approvals that wait.
    async fn approvals(&self) -> Vec<String> {
        let (_, listed) = read(self.request(Method::GET, &at("/approvals"))).await;
        let list = listed["approvals"].as_array().expect("a list").iter();
        list.map(|approval| approval["id"].as_str().expect("an id").to_owned()).collect()
    }

    async fn approve(&self, id: &str) -> (u16, Value) {
        read(self.post(&format!("/approvals/{id}"), &json!({ "approve": true }))).await
    }
}

fn refuse(status: u16, message: &str) -> Response {
    let error = json!({ "error": { "message": message, "type": "invalid_request_error", "code": null } });
    (StatusCode::from_u16(status).expect("a status"), axum::Json(error)).into_response()
}

fn chunk(delta: &Value, finish: Option<&str>) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    format!("data: {}\n\n", json!({ "model": "fake", "choices": [choice] }))
}

fn done() -> String {
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n".to_owned()
}

/// A stream of exactly these bytes.
fn raw(text: impl Into<Body>) -> Response {
    ([("content-type", "text/event-stream")], text.into()).into_response()
}

/// A reply that says this.
fn say(text: &str) -> Response {
    let said = json!({ "role": "assistant", "content": text });
    raw([chunk(&said, None), chunk(&json!({}), Some("stop")), done()].concat())
}

/// A reply whose chunks have these deltas, which ends for this reason.
fn deltas(deltas: &[Value], finish: &str) -> Response {
    let chunks: String = deltas.iter().map(|delta| chunk(delta, None)).collect();
    raw([chunks, chunk(&json!({}), Some(finish)), done()].concat())
}

/// A reply whose chunks have these pieces of calls.
fn call(pieces: &[Value]) -> Response {
    let pieces: Vec<Value> = pieces.iter().map(|piece| json!({ "tool_calls": [piece] })).collect();
    deltas(&pieces, "tool_calls")
}

/// A stream that begins with this and then stays open; it is counted while somebody listens.
fn endless(asked: &Question, start: String) -> Response {
    struct Open(Arc<AtomicUsize>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    asked.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(asked.open.clone());
    let silence = futures::stream::unfold(open, |open| async {
        std::future::pending::<()>().await;
        Some((Ok(String::new()), open))
    });
    let first = futures::stream::iter([Ok::<_, Infallible>(start)]);
    raw(Body::from_stream(first.chain(silence)))
}
