//! What was said goes when the workspace's file says so, and nothing that somebody still waits for goes with it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read};
use crate::deploy::{Content, at};
use crate::messages::{chart, gated, talker, with};

const SCRIPT: &str = "[[rule]]\nsay = \"It is sunny\"\n";
const DAY_MS: u64 = 86_400_000;

/// The talker, whose workspace keeps this.
fn keeping(retention: &str) -> Content {
    let settings = "[workspace]\nname = \"demo\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    talker(SCRIPT, "").file("caxton.toml", format!("{settings}[retention]\n{retention}"))
}

async fn say(bench: &Bench, conversation: &str) {
    let message =
        json!({ "text": "talk about the weather", "agent": "talker", "conversation": conversation, "create": true });
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 200, "{answer}");
}

/// The ids of the conversations that are there, in order.
async fn conversations(bench: &Bench) -> Vec<String> {
    let (status, listed) = read(bench.request(Method::GET, &at("/conversations"))).await;
    assert_eq!(status, 200, "{listed}");
    let all = listed["conversations"].as_array().expect("a list");
    let mut ids: Vec<_> = all.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn conversations_beyond_their_number_or_age_go_and_stay_away() {
    let plain = talker(SCRIPT, "");
    let bench = with(&plain).await;
    for conversation in ["c-1", "c-2", "c-3", "c-4"] {
        say(&bench, conversation).await;
    }
    let two = keeping("conversations_max = 2\n");
    bench.deploy(&two, 1, &plain, "two").await;
    eventually("the older two are gone", || async { conversations(&bench).await == ["c-3", "c-4"] }).await;

    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(conversations(&bench).await, ["c-3", "c-4"], "what went is in the log");
    let (status, _) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    assert_eq!(status, 404);
    let days = keeping("conversations_age = \"30d\"\n");
    bench.deploy(&days, 2, &two, "days").await;
    let (invoker, demo) = (&bench.node.parts().invoker, "demo".parse().expect("a name"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis() as u64;
    assert_eq!(invoker.retain(&demo, now + 29 * DAY_MS).await.expect("a pass").conversations, 0);
    assert_eq!(invoker.retain(&demo, now + 31 * DAY_MS).await.expect("a pass").conversations, 2);
    assert!(conversations(&bench).await.is_empty());
    say(&bench, "c-1").await;
    let (_, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    assert_eq!(shown["turns"], 1, "it begins anew: {shown}");
    bench.stop().await;
}

#[tokio::test]
async fn a_conversation_with_an_approval_that_waits_stays_until_it_is_decided() {
    let content = gated();
    let settings = include_str!("../../node/examples/csv-to-chart/caxton.toml");
    let settings = settings.replace("name = \"csv-to-chart\"", "name = \"demo\"");
    let content = content.file("caxton.toml", format!("{settings}\n[retention]\nconversations_age = \"1d\"\n"));
    let bench = with(&content).await;
    let mut message = chart();
    (message["conversation"], message["create"]) = (json!("c-1"), json!(true));
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 202, "{answer}");
    let path = format!("/approvals/{}", answer["approvals"][0]["id"].as_str().expect("an id"));
    assert_eq!(read(bench.post(&path, &json!({ "approve": true }))).await.0, 200);
    // The second turn of the same conversation waits.
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 202, "{answer}");
    let path = format!("/approvals/{}", answer["approvals"][0]["id"].as_str().expect("an id"));
    let (invoker, demo) = (&bench.node.parts().invoker, "demo".parse().expect("a name"));
    let later = u64::MAX / 4;
    assert_eq!(invoker.retain(&demo, later).await.expect("a pass").conversations, 0, "it waits for a person");
    assert_eq!(conversations(&bench).await, ["c-1"]);
    let (status, answer) = read(bench.post(&path, &json!({ "approve": true }))).await;
    assert_eq!(status, 200, "what waited is finished: {answer}");
    assert_eq!(invoker.retain(&demo, later).await.expect("a pass").conversations, 1);
    assert!(conversations(&bench).await.is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn memories_beyond_a_rule_go_and_pinned_ones_stay() {
    let plain = talker(SCRIPT, "");
    let bench = with(&plain).await;
    let memory = |text: &str, pinned: bool| json!({ "text": text, "scope": "workspace", "pinned": pinned });
    let body = json!({ "memories": [memory("one", true), memory("two", false), memory("three", false)] });
    let (status, kept) = read(bench.post("/memories", &body)).await;
    assert_eq!(status, 200, "{kept}");
    let rules = "[[retention.memory]]\nscope = \"workspace\"\ncount = 0\n";
    bench.deploy(&keeping(rules), 1, &plain, "rules").await;
    let texts = || async {
        let found = json!({ "text": "one two three", "mode": "words" });
        let (status, found) = read(bench.post("/memory/search", &found)).await;
        assert_eq!(status, 200, "{found}");
        let hits = found["hits"].as_array().expect("hits");
        hits.iter().map(|hit: &Value| hit["memory"]["text"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    eventually("all but the pinned one are gone", || async { texts().await == ["one"] }).await;
    bench.stop().await;
}
