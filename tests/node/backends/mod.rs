//! Memory backends through a real node: each is fed, searched, away, back, spoilt and filled anew, by one story.
//!
//! The tool is a real MCP server. Qdrant is its own client's local mode behind its REST API, Neo4j is ArcadeDB behind Neo4j's
//! Query API: real stores, read by the official clients as a control. They take Python and a package index; where those are not to
//! be had, it is said what was not run.

mod finder;
mod outside;

use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read, refused};
use crate::deploy::{Content, at};
use crate::policy::token;

/// Tools may go to this machine, as providers and backends may while nobody else reaches the node.
const OPEN: [&str; 1] = ["tools.networks=127.0.0.0/8"];

/// What a story needs of a backend.
pub trait Stage {
    /// What `[memory]` says of it.
    fn memory(&self) -> String;
    /// Files that belong to it.
    fn files(&self, content: Content) -> Content;
    /// Whether it finds by meaning.
    fn finds_by_meaning(&self) -> bool;
    /// The memories that it has, as whoever owns it sees them: each with its text.
    async fn has(&self) -> Vec<Value>;
    /// Somebody else takes one memory away and puts another one in.
    async fn spoil(&self);
    /// It goes down, and keeps what it has.
    async fn goes_down(&mut self);
    /// It comes back at the same address.
    async fn comes_back(&mut self);
}

fn content(stage: &impl Stage, more: &str) -> Content {
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[grants]\nhttp = [\"127.0.0.1:*\"]\n[providers.s]\nkind = \"scripted\"\n\
         script = \"prompts/s.toml\"\n[memory]\n{}\n{more}",
        stage.memory()
    );
    let agent = "[agent]\nname = \"talker\"\n[capabilities]\npatterns = [\"talk\"]\n[memory]\nscope = \"subject\"\n";
    let script = "[[rule]]\nwhen.newest = \"green tea\"\nsay = \"tea, as I recall\"\n[[rule]]\nsay = \"I know nothing of that\"\n";
    let content = Content::default().file("caxton.toml", settings).file("agents/talker.toml", agent);
    stage.files(content.file("prompts/s.toml", script))
}

fn ask(bench: &Bench, token: &str, method: Method, path: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = bench.request_as(token, method, &at(path));
    if body.is_null() { request } else { request.json(body) }
}

async fn done(request: reqwest::RequestBuilder) -> Value {
    let (status, body) = read(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn keep(bench: &Bench, token: &str, memory: Value) -> String {
    let kept = done(ask(bench, token, Method::POST, "/memories", &json!({ "memories": [memory] }))).await;
    assert_eq!(kept["memories"][0]["fate"], "stored", "{kept}");
    kept["memories"][0]["id"].as_str().expect("an id").to_owned()
}

async fn find(bench: &Bench, token: &str, what: Value) -> Value {
    done(ask(bench, token, Method::POST, "/memory/search", &what)).await
}

fn texts(found: &Value) -> Vec<&str> {
    found["hits"].as_array().expect("hits").iter().map(|hit| hit["memory"]["text"].as_str().expect("text")).collect()
}

async fn backend(bench: &Bench) -> Value {
    done(bench.request(Method::GET, &at("/memory/stats"))).await["backend"].clone()
}

async fn follows(bench: &Bench) {
    let state = async || {
        let state = backend(bench).await;
        state["state"] == "following" && state["behind"] == 0
    };
    eventually("the backend has everything", state).await;
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

async fn has(stage: &impl Stage) -> Vec<String> {
    let text = |it: &Value| it["text"].as_str().expect("a text").to_owned();
    sorted(stage.has().await.iter().map(text).collect())
}

/// Fed, searched inside permits, changed and forgotten; away and back; spoilt and filled anew; and gone with its workspace.
async fn story(mut stage: impl Stage) {
    let bench = Bench::new(&OPEN).await;
    bench.set_secret("BACKEND_KEY", outside::KEY).await;
    let first = content(&stage, "");
    bench.deploy(&first, 0, &Content::default(), "first").await;
    let [ann, bob] =
        [token(&bench, "ann", Role::Caller, &["demo"]).await, token(&bench, "bob", Role::Caller, &["demo"]).await];
    let tea = keep(&bench, &ann, json!({ "text": "Ann likes green tea", "kind": "preference", "entity": "Ann" })).await;
    keep(&bench, &bob, json!({ "text": "Bob likes green apples", "metadata": { "of": ["fruit"] } })).await;
    keep(&bench, &bench.admin, json!({ "text": "the garden opens at nine", "scope": "workspace" })).await;
    let relation = json!({ "relations": [{ "from": "Ann", "kind": "works for", "to": "Acme" }] });
    done(ask(&bench, &ann, Method::POST, "/memories", &relation)).await;
    follows(&bench).await;
    searched(&bench, &stage, [&ann, &bob]).await;
    changed(&bench, &stage, (&ann, &tea)).await;
    let bench = away(bench, &mut stage, &first, &ann).await;
    spoilt(&bench, &stage).await;
    done(bench.request(Method::DELETE, &at("?revision=2"))).await;
    eventually("what it had of the workspace is gone", async || has(&stage).await.is_empty()).await;
    bench.stop().await;
}

async fn searched(bench: &Bench, stage: &impl Stage, [ann, bob]: [&str; 2]) {
    let found = find(bench, ann, json!({ "text": "green tea", "explain": true })).await;
    assert_eq!(found["backend"]["answered"], true, "{found}");
    assert_eq!((texts(&found)[0], texts(&found).contains(&"Bob likes green apples")), ("Ann likes green tea", false));
    assert_eq!(texts(&find(bench, bob, json!({ "text": "green tea" })).await)[0], "Bob likes green apples");
    // Whoever may see all of them finds both, and the shared one by a filter; nobody's search leaves its filter.
    let all = find(bench, &bench.admin, json!({ "text": "green" })).await;
    assert!(texts(&all).contains(&"Ann likes green tea") && texts(&all).contains(&"Bob likes green apples"), "{all}");
    for (filter, only) in [
        (json!({ "scopes": ["subject:bob"] }), "Bob likes green apples"),
        (json!({ "kinds": ["preference"] }), "Ann likes green tea"),
        (json!({ "entity": "Ann" }), "Ann likes green tea"),
        (json!({ "metadata": { "of": "fruit" } }), "Bob likes green apples"),
    ] {
        let found = find(bench, &bench.admin, json!({ "text": "green", "filter": filter })).await;
        assert_eq!(texts(&found), [only], "{filter}: {found}");
    }
    let meaning = json!({ "text": "What does she prefer to drink?", "mode": "meaning", "limit": 1 });
    let request = ask(bench, ann, Method::POST, "/memory/search", &meaning);
    if stage.finds_by_meaning() {
        assert_eq!(texts(&done(request).await), ["Ann likes green tea"]);
    } else {
        let problem = refused(request, 503, "unavailable").await;
        assert!(problem["detail"].as_str().is_some_and(|it| it.contains("by words")), "{problem}");
        assert!(find(bench, ann, json!({ "text": "green tea" })).await["backend"]["note"].is_string());
    }
    // What only the node's own index does, it says.
    let phrase = find(bench, ann, json!({ "text": "\"green tea\"", "mode": "phrase" })).await;
    assert_eq!((texts(&phrase), &phrase["backend"]["answered"]), (vec!["Ann likes green tea"], &json!(false)));
}

async fn changed(bench: &Bench, stage: &impl Stage, (ann, tea): (&str, &str)) {
    let path = format!("/memories/{tea}");
    done(ask(bench, ann, Method::PUT, &path, &json!({ "text": "Ann likes black tea now" }))).await;
    // The next search finds it, whether the backend has it by then or not.
    assert_eq!(texts(&find(bench, ann, json!({ "text": "black tea", "limit": 1 })).await), ["Ann likes black tea now"]);
    done(ask(bench, ann, Method::POST, &format!("{path}/undo"), &Value::Null)).await;
    let passing = keep(bench, ann, json!({ "text": "a passing thought" })).await;
    follows(bench).await;
    done(ask(bench, ann, Method::DELETE, &format!("/memories/{passing}"), &Value::Null)).await;
    follows(bench).await;
    let expected = ["Ann likes green tea", "Bob likes green apples", "the garden opens at nine"];
    eventually("the backend has what is remembered and nothing else", async || has(stage).await == expected).await;
    let kept: Vec<Value> = stage.has().await;
    let digests: std::collections::BTreeSet<String> = kept.iter().map(|it| it["digest"].to_string()).collect();
    assert_eq!(digests.len(), 3, "each is finished: {kept:?}");
}

async fn away(bench: Bench, stage: &mut impl Stage, first: &Content, ann: &str) -> Bench {
    stage.goes_down().await;
    let request = ask(&bench, ann, Method::POST, "/memory/search", &json!({ "text": "green tea" }));
    let problem = refused(request, 503, "unavailable").await;
    assert!(problem["help"].as_str().is_some_and(|it| it.contains("fallback = \"embedded\"")), "{problem}");
    keep(&bench, ann, json!({ "text": "Ann moved to Linz while nobody looked" })).await;
    eventually("the failure is seen", async || {
        let state = backend(&bench).await;
        state["state"] == "failing" && state["last_error"].is_string() && state["last_error_at"].is_string()
    })
    .await;
    let (_, metrics) = read(bench.request(Method::GET, "/metrics")).await;
    let metrics = metrics.as_str().map(str::to_owned).unwrap_or_else(|| metrics.to_string());
    for name in ["caxton_memory_backend_failures_total", "caxton_memory_backend_behind", "caxton_memory_backend_up"] {
        assert!(metrics.contains(name), "{name}");
    }
    let fallback = content(stage, "fallback = \"embedded\"\n");
    bench.deploy(&fallback, 1, first, "second").await;
    eventually("the node's own index answers, and says so", async || {
        let (status, found) = read(ask(&bench, ann, Method::POST, "/memory/search", &json!({ "text": "Linz" }))).await;
        let backend = &found["backend"];
        status == 200
            && texts(&found).first() == Some(&"Ann moved to Linz while nobody looked")
            && backend["answered"] == false
            && backend["note"].as_str().is_some_and(|note| !note.is_empty())
    })
    .await;
    // An agent's prompt rests on the same.
    let message = json!({ "text": "green tea?", "agent": "talker", "conversation": "c", "create": true });
    assert_eq!(done(ask(&bench, ann, Method::POST, "/messages", &message)).await["text"], "tea, as I recall");
    // The node starts again while it is away, and it comes back after that: what changed by then is told all the same.
    let bench = Bench::on(bench.stop().await, &OPEN).await;
    keep(&bench, ann, json!({ "text": "Ann has a cat" })).await;
    stage.comes_back().await;
    follows(&bench).await;
    let found = find(&bench, ann, json!({ "text": "who has a cat in Linz" })).await;
    assert_eq!(found["backend"]["answered"], true, "{found}");
    assert!(texts(&found).contains(&"Ann has a cat") && texts(&found)[..2].len() == 2, "{found}");
    let held = has(stage).await;
    assert_eq!(held.len(), 5, "{held:?}");
    assert!(held.contains(&"Ann moved to Linz while nobody looked".to_owned()), "{held:?}");
    bench
}

async fn spoilt(bench: &Bench, stage: &impl Stage) {
    let before = has(stage).await;
    stage.spoil().await;
    let spoilt = has(stage).await;
    assert!(spoilt != before && spoilt.contains(&"a ghost".to_owned()), "{spoilt:?}");
    // What it makes up is found by nobody.
    let found = find(bench, &bench.admin, json!({ "text": "a ghost" })).await;
    assert!(!texts(&found).contains(&"a ghost"), "{found}");
    let caller = token(bench, "cleo", Role::Caller, &["demo"]).await;
    refused(ask(bench, &caller, Method::POST, "/memory/sync", &Value::Null), 403, "forbidden").await;
    let begun = done(ask(bench, &bench.admin, Method::POST, "/memory/sync", &Value::Null)).await;
    assert!(begun["name"].is_string(), "{begun}");
    follows(bench).await;
    assert_eq!(has(stage).await, before, "it was filled anew");
}

#[tokio::test]
async fn a_tool_finds_what_is_remembered() {
    story(finder::Finder::start().await).await;
}

#[tokio::test]
async fn qdrant_finds_what_is_remembered() {
    let Some(stage) = outside::Qdrant::start().await else {
        return outside::left_out("Qdrant's own client");
    };
    story(stage).await;
}

#[tokio::test]
async fn neo4j_finds_what_is_remembered() {
    let Some(stage) = outside::Neo4j::start().await else {
        return outside::left_out("a Bolt server and Neo4j's own driver");
    };
    story(stage).await;
}

#[tokio::test]
async fn a_backend_leads_nowhere_that_workspaces_may_not_go_and_sync_needs_one() {
    let bench = Bench::new(&[]).await;
    refused(bench.request(Method::POST, &at("/memory/sync")), 400, "invalid_request").await;
    let memory = "[workspace]\nname = \"demo\"\n[memory]\nbackend = \"qdrant\"\nurl = \"http://169.254.169.254\"\n";
    let content = Content::default().file("caxton.toml", memory);
    bench.deploy(&content, 0, &Content::default(), "first").await;
    eventually("it says why", async || {
        let state = backend(&bench).await;
        state["last_error"].as_str().is_some_and(|error| error.contains("llm.networks"))
    })
    .await;
    let request = ask(&bench, &bench.admin, Method::POST, "/memory/search", &json!({ "text": "tea" }));
    let problem = refused(request, 503, "unavailable").await;
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("llm.networks")), "{problem}");
    bench.stop().await;
}
