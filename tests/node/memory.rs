//! What is remembered through a real node: kept, found, changed, forgotten and carried elsewhere over HTTP; and what agents
//! remember, with a scripted model.

use caxton::api::frame;
use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read, refused};
use crate::deploy::{Content, framed};
use crate::messages::{talker, with};
use crate::policy::token;

const AT: &str = "/api/v1/workspaces/demo";

/// A request with a token and a JSON body.
fn ask(bench: &Bench, token: &str, method: Method, path: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = bench.request_as(token, method, &format!("{AT}{path}"));
    if body.is_null() { request } else { request.json(body) }
}

async fn done(request: reqwest::RequestBuilder) -> Value {
    let (status, body) = read(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn add(bench: &Bench, token: &str, memory: Value) -> Value {
    let kept = done(ask(bench, token, Method::POST, "/memories", &json!({ "memories": [memory] }))).await;
    kept["memories"][0].clone()
}

async fn search(bench: &Bench, token: &str, what: Value) -> Value {
    done(ask(bench, token, Method::POST, "/memory/search", &what)).await
}

fn texts(found: &Value) -> Vec<&str> {
    found["hits"].as_array().expect("hits").iter().map(|hit| hit["memory"]["text"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn a_memory_is_kept_once_found_by_meaning_changed_and_forgotten_and_outlives_a_restart() {
    let bench = Bench::new(&[]).await;
    let admin = bench.admin.clone();
    let tea =
        add(&bench, &admin, json!({ "text": "Ann likes green tea", "metadata": { "of": { "city": "Graz" } } })).await;
    assert_eq!(tea["fate"], "stored");
    let again = add(&bench, &admin, json!({ "text": "ann likes green  tea." })).await;
    assert_eq!((again["fate"].as_str(), &again["id"]), (Some("known"), &tea["id"]));
    add(&bench, &admin, json!({ "text": "The quarterly report is due on Friday" })).await;
    // By meaning: no word of it is in the memory.
    let found =
        search(&bench, &admin, json!({ "text": "What does she prefer to drink?", "limit": 1, "explain": true })).await;
    assert_eq!(texts(&found), ["Ann likes green tea"], "{found}");
    assert_eq!((found["meaning"].as_str(), found["searched"].as_u64()), (Some("used"), Some(2)));
    let (hit, parts) = (&found["hits"][0], &found["hits"][0]["parts"]);
    let sum: f64 = parts.as_object().expect("parts").values().filter_map(Value::as_f64).sum();
    assert!((sum - hit["score"].as_f64().expect("a score")).abs() < 1e-5, "{hit}");
    let filtered = json!({ "text": "anything", "filter": { "metadata": { "of.city": "Graz" } } });
    assert_eq!(texts(&search(&bench, &admin, filtered).await), ["Ann likes green tea"]);
    let phrase = json!({ "text": "\"quarterly report\" OR gree*", "mode": "phrase" });
    assert_eq!(search(&bench, &admin, phrase).await["hits"].as_array().map(Vec::len), Some(2));

    let path = format!("/memories/{}", tea["id"].as_str().expect("an id"));
    let edited = done(ask(&bench, &admin, Method::PUT, &path, &json!({ "text": "Ann likes black tea" }))).await;
    assert_eq!((edited["number"].as_u64(), edited["memory"]["text"].as_str()), (Some(1), Some("Ann likes black tea")));
    let shown = done(ask(&bench, &admin, Method::GET, &path, &Value::Null)).await;
    assert_eq!(shown["history"][0]["before"]["text"], "Ann likes green tea");
    let bench = Bench::on(bench.stop().await, &[]).await;
    let found = search(&bench, &bench.admin, json!({ "text": "black tea", "limit": 1 })).await;
    assert_eq!(texts(&found), ["Ann likes black tea"]);
    done(ask(&bench, &bench.admin, Method::POST, &format!("{path}/undo"), &Value::Null)).await;
    let found = search(&bench, &bench.admin, json!({ "text": "green tea", "mode": "words" })).await;
    assert_eq!(texts(&found), ["Ann likes green tea"]);

    let gone = done(ask(&bench, &bench.admin, Method::DELETE, &path, &Value::Null)).await;
    assert_eq!(gone["memories"], 1);
    refused(ask(&bench, &bench.admin, Method::GET, &path, &Value::Null), 404, "not_found").await;
    refused(ask(&bench, &bench.admin, Method::DELETE, &path, &Value::Null), 404, "not_found").await;
    assert_eq!(texts(&search(&bench, &bench.admin, json!({ "text": "tea", "mode": "words" })).await), [""; 0]);
    // What is wrong is said, and what to do.
    for (body, part) in [
        (json!({ "memories": [{ "text": "x", "scope": "nobody" }] }), "scope"),
        (json!({ "memories": [{ "text": "x", "valid_from": "yesterday" }] }), "valid_from"),
        (json!({ "memories": [{ "text": "x", "id": "1" }] }), "32 hexadecimal"),
    ] {
        let problem =
            refused(ask(&bench, &bench.admin, Method::POST, "/memories", &body), 400, "invalid_request").await;
        assert!(
            problem["detail"].as_str().is_some_and(|it| it.contains(part)) && problem["help"].is_string(),
            "{problem}"
        );
    }
    let body = json!({ "memories": [{ "text": "x", "scope": "global" }] });
    refused(ask(&bench, &bench.admin, Method::POST, "/memories", &body), 403, "forbidden").await;
    let refused = add(&bench, &bench.admin, json!({ "text": "x\u{0}" })).await;
    assert_eq!(refused["fate"], "refused", "{refused}");
    bench.stop().await;
}

#[tokio::test]
async fn nobody_reads_or_changes_what_is_remembered_of_others_over_any_route() {
    let bench = Bench::new(&[]).await;
    let [ann, bob] =
        [token(&bench, "ann", Role::Caller, &["demo"]).await, token(&bench, "bob", Role::Caller, &["demo"]).await];
    let deployer = token(&bench, "dora", Role::Deployer, &["demo"]).await;
    let elsewhere = token(&bench, "ann", Role::Caller, &["elsewhere"]).await;
    let secret = add(&bench, &ann, json!({ "text": "the secret garden of roses", "entity": "Rose" })).await;
    add(&bench, &deployer, json!({ "text": "the garden of all opens at nine", "scope": "workspace" })).await;
    add(&bench, &deployer, json!({ "text": "the gardener agent keeps roses", "scope": "agent:gardener" })).await;
    let relation = json!({ "relations": [{ "from": "Rose", "kind": "grows in", "to": "Graz" }] });
    done(ask(&bench, &ann, Method::POST, "/memories", &relation)).await;
    let path = format!("/memories/{}", secret["id"].as_str().expect("an id"));
    let everything = |found: &Value| found.to_string();
    for (who, whose, sees) in [("ann", &ann, true), ("bob", &bob, false), ("dora", &deployer, true)] {
        let found = search(&bench, whose, json!({ "text": "garden roses" })).await;
        assert_eq!(everything(&found).contains("secret"), sees, "{who}: {found}");
        assert!(everything(&found).contains("opens at nine"), "{who}: {found}");
        assert_eq!(everything(&found).contains("gardener agent"), who == "dora", "{who}: {found}");
        let scoped = json!({ "text": "garden", "filter": { "scopes": ["subject:ann"] } });
        assert_eq!(search(&bench, whose, scoped).await["hits"].as_array().is_some_and(|it| !it.is_empty()), sees);
        for mode in ["words", "meaning", "phrase", "conversations"] {
            let found = search(&bench, whose, json!({ "text": "secret", "mode": mode })).await;
            assert!(sees || !everything(&found).contains("secret"), "{who} by {mode}: {found}");
        }
        let page = done(ask(&bench, whose, Method::GET, "/memories", &Value::Null)).await;
        assert_eq!(everything(&page).contains("secret"), sees, "{who}: {page}");
        let (status, lines) = read(ask(&bench, whose, Method::GET, "/memory/export", &Value::Null)).await;
        assert_eq!((status, everything(&lines).contains("secret")), (200, sees), "{who}: {lines}");
        let stats = done(ask(&bench, whose, Method::GET, "/memory/stats", &Value::Null)).await;
        assert_eq!(everything(&stats).contains("subject:ann"), sees, "{who}: {stats}");
        let around = json!({ "from": ["Rose"], "scope": "subject:ann" });
        let graph = done(ask(&bench, whose, Method::POST, "/memory/graph", &around)).await;
        assert_eq!(everything(&graph).contains("Graz"), sees, "{who}: {graph}");
        let (status, _) = read(ask(&bench, whose, Method::GET, &path, &Value::Null)).await;
        assert_eq!(status, if sees { 200 } else { 404 }, "{who}");
    }
    let none = Value::Null;
    refused(ask(&bench, &bob, Method::PUT, &path, &json!({ "text": "mine" })), 404, "not_found").await;
    refused(ask(&bench, &bob, Method::POST, &format!("{path}/undo"), &none), 404, "not_found").await;
    refused(ask(&bench, &bob, Method::DELETE, &path, &none), 404, "not_found").await;
    let all = json!({ "scope": "subject:ann" });
    refused(ask(&bench, &bob, Method::POST, "/memory/forget", &all), 403, "forbidden").await;
    let others = add(&bench, &bob, json!({ "text": "x", "scope": "subject:ann" })).await;
    assert_eq!(others["fate"], "refused", "{others}");
    let shared = add(&bench, &bob, json!({ "text": "x", "scope": "workspace" })).await;
    assert_eq!(shared["fate"], "refused", "{shared}");
    refused(ask(&bench, &elsewhere, Method::GET, "/memories", &none), 403, "forbidden").await;
    // A dry run says what would go; then it goes, and what is the workspace's stays.
    let roses = json!({ "filter": { "scopes": ["subject:ann"] }, "dry_run": true });
    let would = done(ask(&bench, &ann, Method::POST, "/memory/forget", &roses)).await;
    assert_eq!((would["memories"].as_u64(), would["dry_run"].as_bool()), (Some(1), Some(true)));
    let gone = done(ask(&bench, &deployer, Method::POST, "/memory/forget", &all)).await;
    assert_eq!(
        (gone["memories"].as_u64(), gone["entities"].as_u64(), gone["relations"].as_u64()),
        (Some(1), Some(2), Some(1))
    );
    let (_, lines) = read(ask(&bench, &deployer, Method::GET, "/memory/export", &none)).await;
    let lines = everything(&lines);
    assert!(lines.contains("opens at nine") && !lines.contains("ann") && !lines.contains("Rose"), "{lines}");
    bench.stop().await;
}

#[tokio::test]
async fn an_export_taken_in_elsewhere_gives_the_same_ids_and_the_same_ranking() {
    let bench = Bench::new(&[]).await;
    for number in 0..40 {
        let text = format!("meeting {number} was about {}", ["roses", "budgets", "trains", "tea"][number % 4]);
        add(&bench, &bench.admin, json!({ "text": text, "scope": "workspace", "importance": number })).await;
    }
    let at = |path: &str| format!("/api/v1/workspaces/{path}");
    let (status, lines) = read(bench.request(Method::GET, &at("demo/memory/export"))).await;
    let lines = lines.as_str().expect("lines").to_owned();
    assert_eq!((status, lines.lines().count()), (200, 41), "{lines}");
    let import = |lines: String| bench.request(Method::POST, &at("copy/memory/import")).body(lines);
    let taken = done(import(lines.clone())).await;
    assert_eq!((taken["stored"].as_u64(), taken["refused"].as_u64()), (Some(40), Some(0)), "{taken}");
    let again = done(import(lines)).await;
    assert_eq!((again["stored"].as_u64(), again["known"].as_u64()), (Some(0), Some(40)), "{again}");
    let ranked = async |workspace: &str| {
        let request = bench.request(Method::POST, &at(&format!("{workspace}/memory/search")));
        let found = done(request.json(&json!({ "text": "what about money", "limit": 20 }))).await;
        let ids = found["hits"].as_array().expect("hits").iter().map(|hit| hit["memory"]["id"].to_string());
        ids.collect::<Vec<_>>()
    };
    eventually("every text has its vector", async || {
        let stats = done(bench.request(Method::GET, &at("copy/memory/stats"))).await;
        stats["pending_vectors"] == 0 && stats["loading"] == false
    })
    .await;
    let (first, second) = (ranked("demo").await, ranked("copy").await);
    assert_eq!((first.len(), &second), (20, &first));
    // The file of the MCP memory server, and a line that is none.
    let mcp = "{\"type\":\"entity\",\"name\":\"Ann\",\"entityType\":\"person\",\"observations\":[\"likes tea\"]}\n\
               {\"type\":\"relation\",\"from\":\"Ann\",\"to\":\"Graz\",\"relationType\":\"lives in\"}\nnot JSON\n";
    let taken = done(import(mcp.to_owned())).await;
    assert_eq!((taken["stored"].as_u64(), taken["mistakes"][0]["line"].as_u64()), (Some(3), Some(3)), "{taken}");
    let way = json!({ "from": ["Ann"], "to": "Graz", "scope": "subject:admin" });
    let (status, path) = read(bench.request(Method::POST, &at("copy/memory/graph")).json(&way)).await;
    assert_eq!((status, path["relations"][0]["kind"].as_str()), (200, Some("lives in")), "{path}");
    bench.stop().await;
}

/// An agent that keeps what it is told, says what it knows, and forgets.
const SCRIPT: &str = r#"
[[rule]]
when.after = ["remember"]
say = "kept {{remember/id}}"
[[rule]]
when.after = ["recall"]
say = "{{recall/memories/0/text}} [memory:{{recall/memories/0/id}}]"
[[rule]]
when.request = "keep this"
[[rule.call]]
tool = "remember"
arguments = { text = "Ann drinks tea with milk", kind = "preference" }
[[rule]]
when.request = "look it up"
[[rule.call]]
tool = "recall"
arguments = { query = "what does Ann drink" }
[[rule]]
when.newest = "[memory:"
say = "I remember something"
[[rule]]
say = "I know nothing of that"
"#;

async fn said(bench: &Bench, token: &str, text: &str, conversation: &str) -> String {
    let message = json!({ "text": text, "agent": "talker", "conversation": conversation, "create": true });
    let answer = done(ask(bench, token, Method::POST, "/messages", &message)).await;
    answer["text"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn an_agent_remembers_from_one_conversation_to_the_next_for_the_person_who_asks() {
    let memory = "[memory]\nscope = \"subject\"\nmin_similarity = 0.3\n";
    let bench = with(&talker(SCRIPT, memory)).await;
    let [ann, bob] =
        [token(&bench, "ann", Role::Caller, &["demo"]).await, token(&bench, "bob", Role::Caller, &["demo"]).await];
    assert_eq!(said(&bench, &ann, "What does Ann drink?", "c1").await, "I know nothing of that");
    let kept = said(&bench, &ann, "keep this please", "c1").await;
    let id = kept.strip_prefix("kept ").expect("an id").to_owned();
    // The prompt of another conversation has it; another person's has not, and neither has what has nothing to do with it.
    assert_eq!(said(&bench, &ann, "What does Ann drink?", "c2").await, "I remember something");
    assert_eq!(said(&bench, &ann, "Convert 5 miles to kilometres", "c3").await, "I know nothing of that");
    assert_eq!(said(&bench, &bob, "What does Ann drink?", "c4").await, "I know nothing of that");
    let answer = said(&bench, &ann, "look it up", "c5").await;
    assert_eq!(answer, format!("Ann drinks tea with milk [memory:{id}]"));
    let memory = done(ask(&bench, &ann, Method::GET, &format!("/memories/{id}"), &Value::Null)).await;
    assert_eq!((memory["scope"].as_str(), memory["kind"].as_str()), (Some("subject:ann"), Some("preference")));
    let from: Vec<&str> =
        memory["sources"].as_array().expect("sources").iter().filter_map(|it| it["from"].as_str()).collect();
    assert_eq!(from, ["turn", "agent"]);
    // What was recalled is not in the history that the next turn reads.
    assert_eq!(said(&bench, &ann, "Convert 5 miles to kilometres", "c2").await, "I know nothing of that");
    bench.stop().await;
}

#[tokio::test]
async fn exchanges_are_kept_once_and_go_with_their_conversation() {
    let memory = "[memory]\nscope = \"workspace\"\nauto_store = true\n";
    let bench = with(&talker("[[rule]]\nsay = \"The launch is in May\"\n", memory)).await;
    let message = json!({ "text": "When is the launch?", "agent": "talker", "conversation": "c1", "create": true, "idempotency_key": "k" });
    for _ in 0..2 {
        done(ask(&bench, &bench.admin, Method::POST, "/messages", &message)).await;
    }
    said(&bench, &bench.admin, "Where was the launch again?", "c2").await;
    let page = done(ask(&bench, &bench.admin, Method::GET, "/memories?kind=exchange", &Value::Null)).await;
    let kept: Vec<&str> =
        page["memories"].as_array().expect("memories").iter().filter_map(|it| it["text"].as_str()).collect();
    assert_eq!(kept.len(), 2, "{page}");
    assert!(kept[0].contains("When is the launch?") && kept[0].contains("The launch is in May"), "{page}");
    // What was recalled into the second prompt is not kept as something new.
    assert!(!kept[1].contains("When is the launch?") && !kept[1].contains("memory:"), "{page}");
    done(ask(&bench, &bench.admin, Method::DELETE, "/conversations/c1", &Value::Null)).await;
    eventually("the first exchange is gone", async || {
        let found = search(&bench, &bench.admin, json!({ "text": "launch", "mode": "words" })).await;
        texts(&found).len() == 1
    })
    .await;
    let (_, lines) = read(ask(&bench, &bench.admin, Method::GET, "/memory/export", &Value::Null)).await;
    assert!(!lines.to_string().contains("When is the launch?"), "{lines}");
    bench.stop().await;
}

#[tokio::test]
async fn facts_are_drawn_out_after_the_answer_once_and_carry_the_turn_they_come_from() {
    let script = r#"
[[rule]]
when.system = "draw facts worth remembering"
say = '[{"text": "Ann moved to Graz", "kind": "preference", "about": "Ann", "name": "home"}, {"text": " "}, 7]'
[[rule]]
say = "Noted"
"#;
    let memory = "[memory]\nscope = \"subject\"\nextract = true\n";
    let bench = with(&talker(script, memory)).await;
    let message = json!({ "text": "I live in Graz now", "agent": "talker", "conversation": "c1", "create": true, "idempotency_key": "k" });
    for _ in 0..2 {
        let answer = done(ask(&bench, &bench.admin, Method::POST, "/messages", &message)).await;
        assert_eq!(answer["text"], "Noted");
    }
    let all =
        async || done(ask(&bench, &bench.admin, Method::GET, "/memories", &Value::Null)).await["memories"].clone();
    eventually("the fact is kept", async || all().await.as_array().is_some_and(|all| !all.is_empty())).await;
    // Another exchange that says the same finds it known; nothing of the exchange itself is kept.
    said(&bench, &bench.admin, "I live in Graz now", "c2").await;
    eventually("both exchanges were looked at", async || {
        all().await[0]["sources"].as_array().is_some_and(|sources| sources.len() >= 3)
    })
    .await;
    let all = all().await;
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    let (fact, from) = (&all[0], |number: usize| all[0]["sources"][number]["from"].clone());
    assert_eq!((fact["text"].as_str(), fact["kind"].as_str()), (Some("Ann moved to Graz"), Some("preference")));
    assert_eq!((fact["entity"].as_str(), fact["name"].as_str()), (Some("Ann"), Some("home")), "{fact}");
    assert_eq!((from(0), from(1)), (json!("turn"), json!("agent")), "{fact}");
    bench.stop().await;
}

#[tokio::test]
async fn what_is_drawn_out_badly_costs_no_answer() {
    let script = "[[rule]]\nwhen.system = \"draw facts worth remembering\"\nsay = \"I would rather not\"\n[[rule]]\nsay = \"Noted\"\n";
    let bench = with(&talker(script, "[memory]\nscope = \"subject\"\nextract = true\nauto_store = true\n")).await;
    assert_eq!(said(&bench, &bench.admin, "I live in Graz now", "c1").await, "Noted");
    eventually("the failure is counted", async || {
        let (_, metrics) = read(bench.request(Method::GET, "/metrics")).await;
        let metrics = metrics.as_str().map(str::to_owned).unwrap_or_else(|| metrics.to_string());
        metrics.lines().any(|line| line.starts_with("caxton_memory_extractions_total") && line.contains("failed"))
    })
    .await;
    let page = done(ask(&bench, &bench.admin, Method::GET, "/memories", &Value::Null)).await;
    assert_eq!(page["memories"].as_array().map(Vec::len), Some(1), "the exchange itself: {page}");
    bench.stop().await;
}

/// An agent that says what came into its prompt.
const SHARER: &str = r#"
[[rule]]
when.newest = "secret"
say = "secret"
[[rule]]
when.newest = "tea with milk"
say = "tea with milk"
[[rule]]
say = "nothing"
"#;

/// Deploys an agent that says what it remembers to a workspace that shares with others.
async fn deploy_sharer(bench: &Bench, workspace: &str, with: &str, parent: u64, live: &Content, key: &str) -> Content {
    let agent = "[agent]\nname = \"talker\"\ndescription = \"talks\"\n[capabilities]\npatterns = [\"talk\"]\n\
                 [memory]\nscope = \"global\"\nmin_similarity = 0.2\n";
    let settings = format!(
        "[workspace]\nname = \"{workspace}\"\n[memory]\nshare_with = [{with}]\n\
         [providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n"
    );
    let content = Content::default()
        .file("agents/talker.toml", agent)
        .file("prompts/s.toml", SHARER)
        .file("caxton.toml", settings);
    let at = |rest: &str| format!("/api/v1/workspaces/{workspace}{rest}");
    let (_, blobs) = content.cut();
    let upload = bench.request(Method::PUT, &at("/artifacts")).header("content-type", frame::MEDIA_TYPE);
    done(upload.body(framed(&blobs))).await;
    done(bench.request(Method::POST, &at("/deployments")).json(&content.request(parent, live, key))).await;
    content
}

/// What a global agent of a workspace remembers.
async fn remembered(bench: &Bench, workspace: &str, conversation: &str) -> String {
    let message =
        json!({ "text": "What does Ann drink?", "agent": "talker", "conversation": conversation, "create": true });
    let path = format!("/api/v1/workspaces/{workspace}/messages");
    let answer = done(bench.request(Method::POST, &path).json(&message)).await;
    answer["text"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn memories_cross_workspaces_only_where_the_operator_and_both_workspaces_say_so() {
    for (allowed, named) in [(true, true), (true, false), (false, true)] {
        let bench = Bench::new(&[&format!("memory.share={allowed}")]).await;
        let none = Content::default();
        let of_other = deploy_sharer(&bench, "other", if named { "\"demo\"" } else { "" }, 0, &none, "other").await;
        deploy_sharer(&bench, "demo", "\"other\", \"demo\", \"nowhere\"", 0, &none, "demo").await;
        let path = "/api/v1/workspaces/other/memories";
        let shared = json!({ "memories": [{ "text": "what Ann drinks is tea with milk", "scope": "global" }] });
        let (status, kept) = read(bench.request(Method::POST, path).json(&shared)).await;
        assert_eq!(status, if allowed { 200 } else { 403 }, "{kept}");
        let own = json!({ "memories": [{ "text": "what Ann drinks at home is a secret", "scope": "workspace" }] });
        done(bench.request(Method::POST, path).json(&own)).await;
        let sees = remembered(&bench, "demo", "c1").await;
        assert_eq!(sees.contains("tea with milk"), allowed && named, "{allowed} {named}: {sees}");
        assert!(!sees.contains("secret"), "{sees}");
        // Who asks over HTTP sees their own workspace only, and who is no deployer shares nothing.
        let found = search(&bench, &bench.admin, json!({ "text": "what Ann drinks" })).await;
        assert_eq!(texts(&found), [""; 0], "{found}");
        let ann = token(&bench, "ann", Role::Caller, &["other"]).await;
        let (_, by_caller) = read(bench.request_as(&ann, Method::POST, path).json(&shared)).await;
        assert!(!by_caller.to_string().contains("\"stored\""), "{by_caller}");
        if allowed && named {
            // What was shared is shared no longer as soon as one of the two says so.
            deploy_sharer(&bench, "other", "", 1, &of_other, "no longer").await;
            eventually("nothing is shared any more", async || {
                !remembered(&bench, "demo", "c2").await.contains("tea with milk")
            })
            .await;
        }
        bench.stop().await;
    }
}
