//! What agents used by day, and how they did lately.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::at;
use crate::messages::{talker, with};

async fn ask(bench: &Bench, text: &str) -> u16 {
    read(bench.post("/messages", &json!({ "text": text, "agent": "talker" }))).await.0
}

async fn get(bench: &Bench, path: &str) -> Value {
    let (status, body) = read(bench.request(Method::GET, &at(path))).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn what_agents_used_is_shown_by_day_and_outlives_a_restart() {
    let bench = with(&talker("[[rule]]\nsay = \"It is sunny\"\n", "")).await;
    assert_eq!(get(&bench, "/usage").await["usage"], json!([]));
    assert_eq!(ask(&bench, "how is the weather?").await, 200);
    let used = get(&bench, "/usage?days=1").await;
    let [one] = used["usage"].as_array().expect("a list").as_slice() else { panic!("{used}") };
    let tokens = one["tokens"].as_u64().expect("a count");
    assert!(tokens > 0, "{used}");
    assert_eq!(
        (&one["agent"], &one["day"], one["cost_microusd"].as_u64()),
        (&json!("talker"), &used["since"], Some(0))
    );
    assert_eq!(used["total"], json!({ "tokens": tokens, "cost_microusd": 0 }));
    let (_, metrics) = read(bench.request(Method::GET, "/metrics")).await;
    let metrics = metrics.as_str().expect("text");
    let mut lines = metrics.lines().filter(|line| line.starts_with("caxton_agent_tokens_total{"));
    assert!(lines.any(|line| line.contains("agent=\"talker\"")), "{metrics}");
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(get(&bench, "/usage").await["total"]["tokens"].as_u64(), Some(tokens));
    let caller = bench.token("metrics", &[], 3600).await;
    let other = bench.request_as(caller["token"].as_str().expect("a token"), Method::GET, &at("/usage"));
    refused(other, 403, "forbidden").await;
    bench.stop().await;
}

#[tokio::test]
async fn an_agent_that_fails_is_shown_failing_with_its_last_error() {
    let fails = talker("[[rule]]\nwhen.request = \"never\"\nsay = \"x\"\n", "");
    let bench = with(&fails).await;
    assert_eq!(get(&bench, "/health").await["agents"], json!([]), "it had nothing to do");
    for _ in 0..5 {
        assert_eq!(ask(&bench, "how is the weather?").await, 502);
    }
    let health = get(&bench, "/health").await;
    let one = &health["agents"][0];
    assert_eq!(
        (&one["agent"], &one["state"], one["failures"].as_u64()),
        (&json!("talker"), &json!("resting"), Some(5))
    );
    assert!(
        one["last_error"].as_str().is_some_and(|why| !why.is_empty()) && one["last_error_at"].is_string(),
        "{health}"
    );
    let answers = talker("[[rule]]\nsay = \"It is sunny\"\n", "");
    bench.deploy(&answers, 1, &fails, "answers").await;
    assert_eq!(ask(&bench, "how is the weather?").await, 200, "a person is not kept from asking it");
    let health = get(&bench, "/health").await;
    let one = &health["agents"][0];
    assert_eq!((&one["state"], one["failures"].as_u64()), (&json!("ok"), Some(0)));
    assert!(one["answered_at"].is_string() && one["last_error"].is_string(), "{health}");
    bench.stop().await;
}
