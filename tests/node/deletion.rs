//! A workspace is deleted: all that is its own goes, and nothing of it comes back.

use std::time::Duration;

use caxton::deploy::collect::Collector;
use caxton::deploy::pins::Pins;
use reqwest::Method;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read, refused};
use crate::deploy::{Content, at};
use crate::messages::{talker, with};
use crate::stop::{begun, silent};

const SCRIPT: &str = "[[rule]]\nsay = \"It is sunny\"\n";
/// What is said, remembered and sent, and found nowhere afterwards.
const MARK: &str = "xyzzy-plugh";

/// Fills the workspace with one of everything.
async fn fill(bench: &Bench) {
    let message = json!({ "text": MARK, "agent": "talker", "conversation": "c-1", "create": true });
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 200, "{answer}");
    let memories = json!({
        "memories": [{ "text": format!("the word is {MARK}"), "scope": "workspace" }],
        "entities": [{ "name": "ann", "kind": "person", "scope": "workspace" }, { "name": "bob", "kind": "person", "scope": "workspace" }],
        "relations": [{ "from": "ann", "kind": "knows", "to": "bob", "scope": "workspace" }],
    });
    let (status, kept) = read(bench.post("/memories", &memories)).await;
    assert_eq!(status, 200, "{kept}");
    let sent = json!({ "message": { "performative": "inform", "receiver": "subject:ops", "content": MARK } });
    let (status, receipt) = read(bench.post("/mailbox", &sent)).await;
    assert_eq!(status, 200, "{receipt}");
    let secret = bench.request(Method::PUT, &at("/secrets/WORD")).json(&json!({ "value": MARK }));
    assert_eq!(read(secret).await.0, 200);
}

/// The tables in which a row names the workspace or has the mark.
fn left(bench_dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(bench_dir.join("conversations")).expect("the folder").flatten() {
        if file.path().extension().is_none_or(|end| end != "db") {
            continue;
        }
        let rows = Connection::open_with_flags(file.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'workspace_cleared' AND name NOT LIKE 'memory_text%'";
        let mut tables = rows.prepare(tables).expect("SQL");
        let names: Vec<String> =
            tables.query_map([], |row| row.get(0)).expect("names").collect::<Result<_, _>>().expect("names");
        for table in names {
            let mut all = rows.prepare(&format!("SELECT * FROM {table}")).expect("SQL");
            let columns = all.column_count();
            let mut all = all.query([]).expect("rows");
            while let Some(row) = all.next().expect("a row") {
                let is_own = (0..columns).any(|column| match row.get::<_, Sql>(column).expect("a value") {
                    Sql::Text(text) => text == "demo" || text.ends_with("/demo") || text.contains(MARK),
                    Sql::Blob(bytes) => bytes.windows(MARK.len()).any(|at| at == MARK.as_bytes()),
                    Sql::Null | Sql::Integer(_) | Sql::Real(_) => false,
                });
                if is_own {
                    found.push(table.clone());
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Looks for the workspace wherever it could be asked for.
async fn is_gone(bench: &Bench) {
    let get = |path: &str| bench.request(Method::GET, &at(path));
    assert_eq!(bench.live().await["revision"], 0);
    for path in ["/agents", "/conversations/c-1", "/contents"] {
        refused(get(path), 404, "not_found").await;
    }
    let (_, listed) = read(get("/conversations")).await;
    assert_eq!(listed["conversations"], json!([]), "{listed}");
    let (_, listed) = read(get("/secrets")).await;
    assert_eq!(listed["secrets"], json!([]), "{listed}");
    let (_, listed) = read(get("/memories")).await;
    assert_eq!(listed["memories"], json!([]), "{listed}");
    for mode in ["words", "meaning"] {
        let search = json!({ "text": MARK, "mode": mode });
        let (status, found) = read(bench.post("/memory/search", &search)).await;
        assert_eq!((status, &found["hits"]), (200, &json!([])), "{mode}: {found}");
    }
    let exported = bench.request(Method::GET, &at("/memory/export")).send().await.expect("an answer");
    let exported = exported.text().await.expect("a body");
    assert!(!exported.contains(MARK), "{exported}");
}

async fn delete(bench: &Bench) -> Value {
    let (status, deleted) = read(bench.request(Method::DELETE, &at("?revision=1"))).await;
    assert_eq!(status, 200, "{deleted}");
    deleted
}

#[tokio::test]
async fn a_deleted_workspace_is_gone_everywhere_and_stays_so_after_a_restart_and_out_of_a_snapshot() {
    let content = talker(SCRIPT, "");
    let bench = Bench::new(&["raft.snapshot_entries=10"]).await;
    bench.deploy(&content, 0, &Content::default(), "first").await;
    fill(&bench).await;
    let own = bench.token("caller", &["demo"], 3600).await;
    let both = bench.token("caller", &["demo", "other"], 3600).await;
    let (status, contents) = read(bench.request(Method::GET, &at("/contents"))).await;
    assert_eq!(status, 200, "{contents}");
    let expected = json!({
        "workspace": "demo", "revision": 1, "deployments": 1, "files": contents["files"], "bytes": contents["bytes"],
        "secrets": 1, "tokens": 1,
        "kept": { "conversations": 1, "turns": 1, "approvals": 0, "memories": 1, "entities": 2, "relations": 1,
            "messages": 1, "subscriptions": 0 },
    });
    assert_eq!(contents, expected);

    refused(bench.request(Method::DELETE, &at("?revision=7")), 409, "conflict").await;
    let deleted = delete(&bench).await;
    let expected =
        json!({ "workspace": "demo", "revision": 1, "deployments": 1, "secrets": 1, "tokens": 1, "cleared": true });
    assert_eq!(deleted, expected);
    eventually("it is served no more", || async {
        bench.node.parts().catalogs.get(&"demo".parse().expect("a name")).is_none()
    })
    .await;
    is_gone(&bench).await;
    assert_eq!(delete(&bench).await["deployments"], 0, "an answer that was lost comes again, and nothing else goes");
    refused(bench.request(Method::DELETE, &at("")), 404, "not_found").await;
    let (_, listed) = read(bench.request(Method::GET, "/api/v1/workspaces")).await;
    assert_eq!(listed["workspaces"], json!([]));
    let whoami =
        |token: &Value| bench.request_as(token["token"].as_str().expect("a token"), Method::GET, "/api/v1/workspaces");
    refused(whoami(&own), 401, "unauthorized").await;
    assert_eq!(read(whoami(&both)).await.0, 200, "what is for others too stays good");
    let for_demo = bench.request_as(both["token"].as_str().expect("a token"), Method::GET, &at(""));
    refused(for_demo, 403, "forbidden").await;

    // Its files go from each node, the young ones too, which elsewhere stay for an hour.
    let parts = bench.node.parts();
    let collector = Collector::new(parts.log.clone(), parts.catalogs.clone(), parts.artifacts.clone(), Pins::default());
    let demo = "demo".parse().expect("a name");
    // Whoever still reads from its last catalog keeps it for a moment.
    eventually("its files are gone", || async {
        collector.collect(&demo, Duration::from_secs(3600)).await.expect("collected");
        parts.artifacts.names(&demo).expect("names").is_empty()
    })
    .await;
    // The full-text table is a part of the memory's; its words are found by the search above.
    assert_eq!(left(&bench.stop_keeping().await), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_deleted_does_not_come_back_when_a_shard_is_made_anew_and_the_name_is_free() {
    let content = talker(SCRIPT, "");
    let bench = Bench::new(&["raft.snapshot_entries=10"]).await;
    bench.deploy(&content, 0, &Content::default(), "first").await;
    fill(&bench).await;
    delete(&bench).await;
    let dir = bench.stop().await;
    assert_eq!(left(dir.path()), Vec::<String>::new());
    // The shards' files are views of their logs and snapshots: they are made anew.
    std::fs::remove_dir_all(dir.path().join("conversations")).expect("removed");
    let bench = Bench::on(dir, &["raft.snapshot_entries=10"]).await;
    is_gone(&bench).await;

    let body = content.request(1, &content, "stale");
    refused(bench.post("/deployments", &body), 409, "conflict").await;
    let again = bench.deploy(&content, 0, &Content::default(), "again").await;
    assert_eq!(again["deployment"]["revision"], 2, "it counts on: {again}");
    let message = json!({ "text": "hi", "agent": "talker", "conversation": "c-1", "create": true });
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 200, "{answer}");
    let (_, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    assert_eq!(shown["turns"], 1, "it begins anew: {shown}");
    let dir = bench.stop().await;
    let bench = Bench::on(dir, &[]).await;
    assert_eq!(bench.live().await["revision"], 2);
    bench.stop().await;
}

#[tokio::test]
async fn a_turn_that_runs_is_ended_by_the_deletion_and_leaves_nothing() {
    let (address, mut seen) = silent().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n"
    );
    let content = Content::of(&["talker"], "hello").file("caxton.toml", settings);
    let bench = with(&content).await;
    let (_turn, stream) = begun(&bench, &bench.admin).await;
    assert!(seen.recv().await.is_some(), "its model is asked");
    assert_eq!(delete(&bench).await["cleared"], true);
    let end = stream.text().await.expect("the stream ends");
    assert!(end.contains("not_found") || end.contains("deleted"), "{end}");
    bench.deploy(&content, 0, &Content::default(), "again").await;
    let (_, listed) = read(bench.request(Method::GET, &at("/conversations"))).await;
    assert_eq!(listed["conversations"], json!([]), "{listed}");
    bench.stop().await;
}

#[tokio::test]
async fn what_never_was_deployed_is_deleted_too_and_what_is_not_there_is_not() {
    let bench = Bench::new(&[]).await;
    refused(bench.request(Method::DELETE, &at("")), 404, "not_found").await;
    let body = json!({ "memories": [{ "text": MARK, "scope": "workspace" }] });
    let (status, kept) = read(bench.post("/memories", &body)).await;
    assert_eq!(status, 200, "{kept}");
    let (status, deleted) = read(bench.request(Method::DELETE, &at(""))).await;
    assert_eq!((status, &deleted["cleared"]), (200, &json!(true)), "{deleted}");
    assert!(left(&bench.stop_keeping().await).is_empty());
}
