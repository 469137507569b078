//! Models from other places than a provider: a recording, and a tool in the sandbox.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::{Content, at};
use crate::secrets::{VALUE, provider};

/// A workspace whose agent `greeter` asks the provider `lab`.
fn workspace(lab: &str, more: &str) -> Content {
    let settings = format!("[workspace]\nname = \"demo\"\n[providers.lab]\n{lab}\n");
    let agent = format!("[agent]\nname = \"greeter\"\n[capabilities]\npatterns = [\"greet\"]\n{more}");
    Content::default().file("caxton.toml", settings).file("agents/greeter.toml", agent)
}

impl Bench {
    async fn ask(&self, text: &str) -> (u16, Value) {
        read(self.post("/messages", &json!({ "agent": "greeter", "text": text }))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_answered_is_recorded_without_its_key_and_played_back() {
    let tapes = tempfile::tempdir().expect("a folder");
    let url = provider(Arc::new(Mutex::new(VALUE.to_owned()))).await;
    let bench = Bench::new(&[&format!("llm.record={}", tapes.path().display())]).await;
    bench.set_secret("LAB_KEY", VALUE).await;
    let real = format!("kind = \"openai\"\nbase_url = \"{url}\"\napi_key = \"secret:LAB_KEY\"\nmodel = \"m\"");
    let real = workspace(&real, "");
    bench.deploy(&real, 0, &Content::default(), "real").await;
    let (status, first) = bench.ask("hi").await;
    assert_eq!((status, first["text"].as_str()), (200, Some("hello from the lab")), "{first}");

    let tape = std::fs::read_to_string(tapes.path().join("demo/lab.jsonl")).expect("a recording");
    assert_eq!(tape.lines().count(), 1);
    assert!(tape.contains("hello from the lab") && !tape.contains(VALUE), "{tape}");
    let played = workspace("kind = \"scripted\"\nscript = \"prompts/lab.jsonl\"", "").file("prompts/lab.jsonl", tape);
    bench.deploy(&played, 1, &real, "played").await;
    let (status, again) = bench.ask("hi").await;
    assert_eq!((status, &again["text"]), (200, &first["text"]), "{again}");
    let (status, other) = bench.ask("something that was never asked").await;
    assert_eq!(status, 502, "{other}");
    assert!(other.to_string().contains("record it again"), "{other}");
    bench.stop().await;
}

/// The same with the example tool in the place of a provider, and another tool to call.
fn with_tool(grants: &str) -> Content {
    let tool = |name: &str, more: &str| {
        format!("[tool]\nname = \"{name}\"\nkind = \"component\"\nmodule = \"{name}.wasm\"\n{more}")
    };
    let lab = "kind = \"wasm\"\ntool = \"plain-model\"\ntimeout = \"5s\"";
    workspace(lab, "[tools]\nrequired = [\"csv-reader\"]\n")
        .file("tools/plain-model/tool.toml", tool("plain-model", grants))
        .file("tools/plain-model/plain-model.wasm", caxton_tools::examples::PLAIN_MODEL)
        .file("tools/csv-reader/tool.toml", tool("csv-reader", ""))
        .file("tools/csv-reader/csv-reader.wasm", caxton_tools::examples::CSV_READER)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_exports_chat_is_a_model_that_calls_tools() {
    let bench = Bench::new(&[]).await;
    let content = with_tool("");
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let (status, answer) = bench.ask("good morning").await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("You said: good morning")), "{answer}");
    assert!(answer["usage"]["output"].as_u64().is_some_and(|tokens| tokens > 0), "{answer}");
    let (status, answer) = bench.ask("csv-reader, read {\"text\": \"a,b\\n1,2\"}").await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("csv-reader says:") && text.contains("row_count"), "{answer}");
    // It is a tool like any other: it can be looked at and called.
    let chat = json!({ "messages": [{ "role": "user", "parts": [{ "type": "text", "text": "hi" }] }] });
    let (status, called) = read(bench.post("/tools/plain-model/calls", &json!({ "arguments": chat }))).await;
    assert_eq!((status, called["result"]["structured"]["text"].as_str()), (200, Some("You said: hi")), "{called}");

    // Without the function it is no model, and what is live stays.
    let other = content.clone().file("tools/plain-model/plain-model.wasm", caxton_tools::examples::CSV_READER);
    bench.send(&other).await;
    let request = other.request(1, &content, "second");
    let problem = refused(bench.post("/deployments", &request), 422, "check_failed").await;
    let found = &problem["diagnostics"][0];
    assert_eq!(
        (&found["code"], &found["path"], &found["place"]["line"]),
        (&json!("no_chat"), &json!("caxton.toml"), &json!(5)),
        "{problem}"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_names_a_tool_as_its_model_without_a_provider_of_its_own() {
    let bench = Bench::new(&[]).await;
    let tool = "[tool]\nname = \"plain-model\"\nkind = \"component\"\nmodule = \"m.wasm\"\n";
    let agent = |llm: &str| format!("[agent]\nname = \"greeter\"\n[capabilities]\npatterns = [\"greet\"]\n{llm}");
    let first = Content::default()
        .file("tools/plain-model/tool.toml", tool)
        .file("tools/plain-model/m.wasm", caxton_tools::examples::PLAIN_MODEL)
        .file("agents/greeter.toml", agent("[llm]\nprovider = \"tool:plain-model\"\n"));
    bench.deploy(&first, 0, &Content::default(), "first").await;
    let (status, answer) = bench.ask("good morning").await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("You said: good morning")), "{answer}");

    // Where a whole workspace asks it, and where it stands in for a provider that is not there.
    let url = "http://127.0.0.1:1/v1";
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[llm]\nprovider = \"tool:plain-model\"\n\
         [providers.lab]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n"
    );
    let second = first.clone().file("caxton.toml", settings.clone()).file("agents/greeter.toml", agent(""));
    bench.deploy(&second, 1, &first, "second").await;
    let (status, answer) = bench.ask("again").await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("You said: again")), "{answer}");
    let fallback = "[llm]\nprovider = \"lab\"\nfallback = [\"tool:plain-model\"]\n";
    let third = second.clone().file("agents/greeter.toml", agent(fallback));
    bench.deploy(&third, 2, &second, "third").await;
    let (status, answer) = bench.ask("once more").await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("You said: once more")), "{answer}");

    // A tool that is not there, or has no `chat`, is refused where it is named.
    let absent = third.clone().file("agents/greeter.toml", agent("[llm]\nprovider = \"tool:plain-modell\"\n"));
    bench.send(&absent).await;
    let problem = refused(bench.post("/deployments", &absent.request(3, &third, "absent")), 422, "check_failed").await;
    let found = &problem["diagnostics"][0];
    assert_eq!((&found["code"], &found["place"]["line"]), (&json!("unknown_tool"), &json!(6)), "{problem}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_followed_line_by_line_without_what_was_said() {
    let bench = Bench::new(&[]).await;
    bench.deploy(&with_tool(""), 0, &Content::default(), "first").await;
    let follow = bench.request(Method::GET, &at("/logs?follow=true&agent=greeter"));
    let mut stream = follow.send().await.expect("a stream");
    let words = "a very private question";
    let (status, answer) = bench.ask(&format!("csv-reader, {words} {{\"text\": \"a,b\\n1,2\"}}")).await;
    assert_eq!(status, 200, "{answer}");
    let mut seen = String::new();
    while !seen.contains("\"answered\"") {
        let chunk = tokio::time::timeout(crate::bench::DEADLINE, stream.chunk()).await.expect("in time");
        seen.push_str(std::str::from_utf8(&chunk.expect("a chunk").expect("more")).expect("UTF-8"));
    }
    drop(stream);
    let (status, all) = read(bench.request(Method::GET, &at("/logs"))).await;
    let lines = all["lines"].as_array().expect("lines");
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    let expected = [
        "serving",
        "message",
        "model_asked",
        "model_answered",
        "tool_called",
        "tool_returned",
        "model_asked",
        "model_answered",
        "answered",
    ];
    assert_eq!((status, events.as_slice()), (200, expected.as_slice()), "{all}");
    assert!(lines[1..].iter().all(|line| line["turn"] == answer["turn"] && line["subject"] == "admin"), "{all}");
    for told in [&seen, &all.to_string()] {
        assert!(!told.contains("private") && told.contains("csv-reader"), "{told}");
    }
    let (_, some) = read(bench.request(Method::GET, &at("/logs?limit=2"))).await;
    assert_eq!(some["lines"].as_array().map(Vec::len), Some(2));
    let (_, later) = read(bench.request(Method::GET, &at("/logs?since=2999-01-01T00:00:00Z"))).await;
    assert_eq!(later["lines"], json!([]));
    let (status, _) = read(bench.request(Method::GET, &at("/logs?since=yesterday"))).await;
    assert_eq!(status, 400);
    bench.stop().await;
}
