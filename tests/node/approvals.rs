//! Calls that wait for a person: built-in tools among them, and only for what the person was shown.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::{Content, at};
use crate::messages::{chart, gated, with};

/// The one approval of an answer.
fn approval(answer: &Value) -> String {
    let all = answer["approvals"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(all.len(), 1, "{answer}");
    all[0]["id"].as_str().expect("an id").to_owned()
}

async fn decide(bench: &Bench, id: &str, approve: bool) -> (u16, Value) {
    read(bench.post(&format!("/approvals/{id}"), &json!({ "approve": approve }))).await
}

#[tokio::test]
async fn an_approval_is_for_the_tool_that_was_shown_and_is_asked_for_again_when_another_is_deployed() {
    let content = gated();
    let bench = with(&content).await;
    let (status, answer) = read(bench.post("/messages", &chart())).await;
    assert_eq!(status, 202, "{answer}");
    let shown = approval(&answer);
    // Something else is deployed: what was shown is still what would run.
    let other = content.clone().agent("other", "hello");
    bench.deploy(&other, 1, &content, "other").await;
    // The tool is: its description is another one.
    let tool = include_str!("../../node/examples/csv-to-chart/tools/csv-reader/tool.toml");
    let changed = other.clone().file("tools/csv-reader/tool.toml", format!("{tool}\n# another one\n"));
    bench.deploy(&changed, 2, &other, "changed").await;

    let (status, again) = decide(&bench, &shown, true).await;
    assert_eq!(status, 202, "it is asked for again: {again}");
    let anew = approval(&again);
    assert_ne!(anew, shown);
    let (_, listed) = read(bench.request(Method::GET, &at("/approvals"))).await;
    assert_eq!(listed["approvals"][0]["id"], json!(anew), "{listed}");
    refused(bench.post(&format!("/approvals/{shown}"), &json!({ "approve": true })), 404, "not_found").await;
    let (status, answered) = decide(&bench, &anew, true).await;
    assert_eq!(status, 200, "{answered}");
    assert!(answered["text"].as_str().is_some_and(|text| text.contains("110250")), "{answered}");
    bench.stop().await;
}

#[tokio::test]
async fn an_approval_holds_while_the_tool_stays_as_it_is_and_a_denial_needs_nothing() {
    let content = gated();
    let bench = with(&content).await;
    let (_, answer) = read(bench.post("/messages", &chart())).await;
    let first = approval(&answer);
    let other = content.clone().agent("other", "hello");
    bench.deploy(&other, 1, &content, "other").await;
    assert_eq!(decide(&bench, &first, true).await.0, 200, "the tool is the one that was shown");

    let (_, answer) = read(bench.post("/messages", &chart())).await;
    let second = approval(&answer);
    let tool = include_str!("../../node/examples/csv-to-chart/tools/csv-reader/tool.toml");
    let changed = other.clone().file("tools/csv-reader/tool.toml", format!("{tool}\n# another one\n"));
    bench.deploy(&changed, 2, &other, "changed").await;
    let (status, denied) = decide(&bench, &second, false).await;
    assert_ne!(status, 202, "who says no says no to either: {denied}");
    let (_, listed) = read(bench.request(Method::GET, &at("/approvals"))).await;
    assert_eq!(listed["approvals"], json!([]), "{listed}");
    bench.stop().await;
}

/// Two agents of which one asks the other; `more` is the end of its file.
fn asking(more: &str) -> Content {
    let asker = "[agent]\nname = \"asker\"\ndescription = \"asks\"\n[capabilities]\npatterns = [\"ask somebody\"]\n[llm]\nprovider = \"a\"\n";
    let helper = "[agent]\nname = \"helper\"\ndescription = \"counts lines\"\n[capabilities]\npatterns = [\"count the lines\"]\n[llm]\nprovider = \"h\"\n";
    let ask = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"ask_capability\"\narguments = { capability = \"count the lines\", request = \"how many?\" }\n[[rule]]\nsay = \"they say {{ask_capability}}\"\n";
    let settings = "[workspace]\nname = \"demo\"\n[llm]\nprovider = \"a\"\n[providers.a]\nkind = \"scripted\"\nscript = \"prompts/a.toml\"\n[providers.h]\nkind = \"scripted\"\nscript = \"prompts/h.toml\"\n";
    Content::default()
        .file("agents/asker.toml", format!("{asker}{more}"))
        .file("agents/helper.toml", helper)
        .file("prompts/a.toml", ask)
        .file("prompts/h.toml", "[[rule]]\nsay = \"seven\"\n")
        .file("caxton.toml", settings)
}

#[tokio::test]
async fn an_agent_has_the_built_in_tools_that_its_file_names_and_they_wait_where_it_says_so() {
    let ask = json!({ "text": "go", "agent": "asker" });
    let unnamed = asking("");
    let bench = with(&unnamed).await;
    let (status, answer) = read(bench.post("/messages", &ask)).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["text"].as_str().expect("text");
    assert!(text.contains("no such tool") && !text.contains("seven"), "{text}");

    let named = asking("[tools]\nrequired = [\"ask_capability\"]\n");
    bench.deploy(&named, 1, &unnamed, "named").await;
    let (status, answer) = read(bench.post("/messages", &ask)).await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("they say seven")), "{answer}");

    let gated = asking("[tools]\nrequired = [\"ask_capability\"]\n[approval]\ntools = [\"ask_capability\"]\n");
    bench.deploy(&gated, 2, &named, "gated").await;
    let (status, answer) = read(bench.post("/messages", &ask)).await;
    assert_eq!(status, 202, "{answer}");
    let waits = &answer["approvals"][0];
    assert_eq!(waits["tool"], json!("ask_capability"));
    assert_eq!(waits["arguments"], json!({ "capability": "count the lines", "request": "how many?" }), "it is shown");
    let (status, answered) = decide(&bench, &approval(&answer), true).await;
    assert_eq!((status, answered["text"].as_str()), (200, Some("they say seven")), "{answered}");
    bench.stop().await;
}
