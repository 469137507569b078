//! Messages through a real node: real routing, WebAssembly in the sandbox, and a scripted model.

use caxton::api::messages::TurnEvent;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::{Content, at};

const CSV: &str = include_str!("../../node/examples/csv-to-chart/sales.csv");

/// The example of the demo, as workspace `demo`.
pub fn example() -> Content {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/csv-to-chart");
    let files = [
        "agents/data-analyzer.toml",
        "agents/data-fetcher.toml",
        "prompts/script.toml",
        "tools/chart-generator/tool.toml",
        "tools/chart-generator/chart-generator.wasm",
        "tools/csv-reader/tool.toml",
        "tools/csv-reader/csv-reader.wasm",
        "tools/stats/tool.toml",
        "tools/stats/stats.wasm",
    ];
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a file of the example");
    let content = files.iter().fold(Content::default(), |content, name| content.file(name, read(name)));
    let settings = String::from_utf8(read("caxton.toml")).expect("text");
    content.file("caxton.toml", settings.replace("name = \"csv-to-chart\"", "name = \"demo\""))
}

/// The same, with a tool that waits for a person.
pub fn gated() -> Content {
    let fetcher = include_str!("../../node/examples/csv-to-chart/agents/data-fetcher.toml");
    example().file("agents/data-fetcher.toml", format!("{fetcher}\n[approval]\ntools = [\"csv-reader\"]\n"))
}

/// One agent without tools, which says what its script says.
pub fn talker(script: &str, more: &str) -> Content {
    let agent = "[agent]\nname = \"talker\"\ndescription = \"talks\"\n[capabilities]\npatterns = [\"talk about the weather\"]\n";
    let settings = "[workspace]\nname = \"demo\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    Content::default()
        .file("agents/talker.toml", format!("{agent}{more}"))
        .file("prompts/s.toml", script)
        .file("caxton.toml", settings)
}

pub async fn with(content: &Content) -> Bench {
    let bench = Bench::new(&[]).await;
    bench.deploy(content, 0, &Content::default(), "first").await;
    bench
}

pub fn chart() -> Value {
    json!({
        "text": "Draw a chart of sales by quarter",
        "attachments": [{ "name": "sales.csv", "media_type": "text/csv", "text": CSV }],
    })
}

/// The events of a streamed message, each of which has its own name.
async fn stream(bench: &Bench, mut message: Value) -> Vec<TurnEvent> {
    message["stream"] = json!(true);
    let answer = bench.post("/messages", &message).send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.expect("a body");
    let events = text.split("\n\n").filter(|event| event.contains("data:"));
    let event = |event: &str| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).expect("the field").trim();
        let parsed: TurnEvent = serde_json::from_str(field("data:")).expect("an event");
        assert_eq!(parsed.name(), field("event:"));
        parsed
    };
    events.map(event).collect()
}

#[tokio::test]
async fn two_agents_that_never_heard_of_each_other_turn_a_csv_file_into_a_chart() {
    let bench = with(&example()).await;
    let (status, answer) = read(bench.post("/messages", &chart())).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((answer["agent"].as_str(), answer["route"]["by"].as_str()), (Some("data-analyzer"), Some("capability")));
    let text = answer["text"].as_str().expect("text");
    assert!(text.contains("Q1 110250") && text.contains("510750 in all"), "{text}");
    let [file] = answer["attachments"].as_array().expect("files").as_slice() else { panic!("{answer}") };
    assert_eq!(
        (file["name"].as_str(), file["media_type"].as_str()),
        (Some("chart-generator.svg"), Some("image/svg+xml"))
    );
    let svg = file["text"].as_str().expect("text");
    assert!(svg.starts_with("<svg") && svg.contains("Q4") && svg.trim_end().ends_with("</svg>"), "{svg}");
    bench.stop().await;
}

#[tokio::test]
async fn every_step_is_told_as_it_happens() {
    let bench = with(&example()).await;
    let events = stream(&bench, chart()).await;
    let named: Vec<&str> = events.iter().map(TurnEvent::name).filter(|name| *name != "text").collect();
    assert_eq!((named.first(), named.last()), (Some(&"routed"), Some(&"answered")));
    let mut tools = Vec::new();
    for event in &events {
        match event {
            TurnEvent::Delegated { agent, to, depth, .. } => {
                assert_eq!((agent.as_str(), to.as_str(), *depth), ("data-analyzer", "data-fetcher", 0));
            }
            TurnEvent::ToolReturned { agent, tool, failed, result, .. } => {
                assert!(!failed, "{tool}: {result}");
                tools.push(format!("{agent}:{tool}"));
            }
            _ => {}
        }
    }
    tools[1..3].sort();
    let expected = [
        "data-fetcher:csv-reader",
        "data-analyzer:describe",
        "data-analyzer:group-by",
        "data-analyzer:chart-generator",
    ];
    assert_eq!(tools, expected);
    bench.stop().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_the_conversation_goes_on() {
    let script =
        "[[rule]]\nwhen.request = \"again\"\nsay = \"again, as after the restart\"\n[[rule]]\nsay = \"first\"\n";
    let bench = with(&talker(script, "")).await;
    let message = json!({ "text": "hello", "agent": "talker", "conversation": "c-1", "create": true });
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("first")), "{answer}");
    let read_first = answer["usage"]["input"].as_u64().expect("tokens");

    let bench = Bench::on(bench.stop().await, &[]).await;
    let message = json!({ "text": "again", "agent": "talker", "conversation": "c-1" });
    let (status, answer) = read(bench.post("/messages", &message)).await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("again, as after the restart")), "{answer}");
    let read_again = answer["usage"]["input"].as_u64().expect("tokens");
    assert!(read_again > read_first, "the model read the first exchange too: {answer}");
    let (_, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    let said: Vec<String> =
        shown["turns_detail"].as_array().expect("turns").iter().map(|turn| turn["messages"].to_string()).collect();
    assert_eq!(said.len(), 2);
    assert!(
        said[0].contains("hello") && said[0].contains("first") && said[1].contains("as after the restart"),
        "{said:?}"
    );
    let (_, listed) = read(bench.request(Method::GET, &at("/conversations"))).await;
    assert_eq!(
        (listed["conversations"][0]["id"].as_str(), listed["conversations"][0]["turns"].as_u64()),
        (Some("c-1"), Some(2))
    );
    assert_eq!(read(bench.request(Method::DELETE, &at("/conversations/c-1"))).await.0, 200);
    refused(bench.request(Method::GET, &at("/conversations/c-1")), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let loops = "[[rule]]\n[[rule.call]]\ntool = \"no-such-tool\"\n";
    let bench = with(&talker(loops, "")).await;
    let nobody = json!({ "text": "Repair the brakes of my bicycle" });
    let problem = refused(bench.post("/messages", &nobody), 404, "no_capable_agent").await;
    assert_eq!(problem["nearest"][0]["agent"], "talker");
    let absent = json!({ "text": "x", "agent": "nobody" });
    refused(bench.post("/messages", &absent), 404, "not_found").await;
    let wrong = json!({ "text": " ", "agent": "talker", "capability": "x", "conversation": "a/b" });
    let problem = refused(bench.post("/messages", &wrong), 400, "invalid_request").await;
    assert_eq!(problem["problems"].as_array().map(Vec::len), Some(3), "{problem}");
    let looping = json!({ "text": "x", "agent": "talker" });
    let problem = refused(bench.post("/messages", &looping), 502, "turn_failed").await;
    assert_eq!(problem["failure"], "call_loop");
    let last = stream(&bench, looping).await.pop().expect("events");
    assert!(matches!(last, TurnEvent::Failed(problem) if problem.code == "turn_failed"));
    let (_, listed) = read(bench.request(Method::GET, &at("/conversations"))).await;
    assert_eq!(listed["conversations"].as_array().map(Vec::len), Some(2), "failed turns are kept to look at: {listed}");

    let elsewhere = bench.request(Method::POST, "/api/v1/workspaces/empty/messages").json(&json!({ "text": "x" }));
    refused(elsewhere, 404, "not_found").await;
    let viewer = bench.token("viewer", &["demo"], 3600).await["token"].as_str().expect("a token").to_owned();
    let as_viewer = bench.request_as(&viewer, Method::POST, &at("/messages")).json(&json!({ "text": "x" }));
    refused(as_viewer, 403, "forbidden").await;
    bench.stop().await;
}

#[tokio::test]
async fn an_approval_waits_over_a_restart() {
    let bench = with(&gated()).await;
    let mut message = chart();
    message["conversation"] = json!("c-1");
    message["create"] = json!(true);
    message["idempotency_key"] = json!("k-1");
    let (status, waiting) = read(bench.post("/messages", &message)).await;
    assert_eq!((status, waiting["event"].as_str()), (202, Some("waiting")), "{waiting}");

    let bench = Bench::on(bench.stop().await, &[]).await;
    // The same message is the same turn, which still waits; another one with its key is refused.
    assert_eq!(read(bench.post("/messages", &message)).await, (202, waiting));
    message["text"] = json!("Draw another one");
    refused(bench.post("/messages", &message), 409, "conflict").await;
    let (_, listed) = read(bench.request(Method::GET, &at("/approvals"))).await;
    let [approval] = listed["approvals"].as_array().expect("a list").as_slice() else { panic!("{listed}") };
    assert_eq!((approval["agent"].as_str(), approval["tool"].as_str()), (Some("data-fetcher"), Some("csv-reader")));
    let path = format!("/approvals/{}", approval["id"].as_str().expect("an id"));
    let caller = bench.token("caller", &["demo"], 3600).await["token"].as_str().expect("a token").to_owned();
    let own = bench.request_as(&caller, Method::POST, &at(&path)).json(&json!({ "approve": true }));
    refused(own, 403, "forbidden").await;
    let (status, answer) = read(bench.post(&path, &json!({ "approve": true }))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["attachments"][0]["name"], "chart-generator.svg");
    refused(bench.post(&path, &json!({ "approve": true })), 404, "not_found").await;
    let (_, listed) = read(bench.request(Method::GET, &at("/approvals"))).await;
    assert_eq!(listed["approvals"], json!([]));

    let (_, waiting) = read(bench.post("/messages", &chart())).await;
    let path = format!("/approvals/{}", waiting["approvals"][0]["id"].as_str().expect("an id"));
    let (status, answer) = read(bench.post(&path, &json!({ "approve": false, "reason": "not today" }))).await;
    assert_eq!(status, 200, "a denied call is told to the model, which goes on: {answer}");
    assert!(answer["text"].as_str().is_some_and(|text| text.contains("not today")), "{answer}");
    bench.stop().await;
}

#[tokio::test]
async fn the_protocol_of_openai_is_spoken() {
    let bench = with(&example()).await;
    let (_, models) = read(bench.request(Method::GET, "/v1/models")).await;
    let ids: Vec<&str> =
        models["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["auto", "demo/auto", "demo/data-analyzer", "demo/data-fetcher"]);
    assert_eq!(read(bench.request(Method::GET, "/v1/models/demo/data-fetcher")).await.0, 200);
    let ask = |body: Value| bench.request(Method::POST, "/v1/chat/completions").json(&body);

    let said = json!([{ "role": "user", "content": "Draw a chart of sales by quarter" }]);
    let (status, whole) = read(ask(json!({ "model": "auto", "messages": said }))).await;
    assert_eq!(status, 200, "{whole}");
    let choice = &whole["choices"][0];
    assert_eq!((whole["object"].as_str(), choice["finish_reason"].as_str()), (Some("chat.completion"), Some("stop")));
    assert!(choice["message"]["content"].as_str().is_some_and(|text| text.contains("Send me a file")), "{whole}");
    assert!(whole["usage"]["total_tokens"].as_u64() > Some(0));

    let body = json!({ "model": "demo/data-analyzer", "messages": said, "stream": true, "stream_options": { "include_usage": true } });
    let text = ask(body).send().await.expect("an answer").text().await.expect("a body");
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(lines.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> =
        lines[..lines.len() - 1].iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(told, choice["message"]["content"].as_str().expect("text"), "streamed and whole are the same");
    assert!(chunks.last().is_some_and(|last| last["usage"]["total_tokens"].as_u64() > Some(0)));

    for (model, status) in [("demo/nobody", 404), ("nonsense", 404), ("other/auto", 404)] {
        let (found, body) = read(ask(json!({ "model": model, "messages": said }))).await;
        assert_eq!((found, body["error"]["message"].is_string()), (status, true), "{model}: {body}");
    }
    for (found, body) in [
        read(bench.request_as("wrong", Method::GET, "/v1/models")).await,
        read(bench.request_as("wrong", Method::POST, "/v1/chat/completions").json(&json!({ "model": "auto" }))).await,
    ] {
        assert_eq!((found, body["error"]["type"].as_str()), (401, Some("authentication_error")), "{body}");
    }
    let (found, body) = read(ask(json!({ "model": 7 }))).await;
    assert_eq!((found, body["error"]["type"].as_str()), (400, Some("invalid_request_error")), "{body}");
    bench.stop().await;
}

#[tokio::test]
async fn the_senders_own_tools_come_back_as_calls() {
    let script = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"get_weather\"\narguments = { city = \"Oslo\" }\n\
        [[rule]]\nwhen.after = \"get_weather\"\nsay = \"In Oslo it is {{get_weather/degrees}} degrees.\"\n";
    let bench = with(&talker(script, "")).await;
    let tool = json!({ "type": "function", "function": { "name": "get_weather", "parameters": { "type": "object" } } });
    let mut messages = vec![json!({ "role": "user", "content": "How is the weather?" })];
    let ask = |messages: &[Value]| {
        let body = json!({ "model": "demo/talker", "messages": messages, "tools": [tool] });
        bench.request(Method::POST, "/v1/chat/completions").json(&body)
    };
    let (status, first) = read(ask(&messages)).await;
    let choice = &first["choices"][0];
    assert_eq!((status, choice["finish_reason"].as_str()), (200, Some("tool_calls")), "{first}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({ "name": "get_weather", "arguments": "{\"city\":\"Oslo\"}" }));
    messages.push(choice["message"].clone());
    messages.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": "{\"degrees\": 4}" }));
    let (_, second) = read(ask(&messages)).await;
    assert_eq!(second["choices"][0]["message"]["content"], "In Oslo it is 4 degrees.", "{second}");
    bench.stop().await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_with_its_key_gets_the_one_answer() {
    let bench = with(&example()).await;
    let mut message = chart();
    message["idempotency_key"] = json!("k-1");
    let (status, first) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 200, "{first}");
    // Also after a restart, and while others send the same.
    let bench = Bench::on(bench.stop().await, &[]).await;
    let (again, more) = tokio::join!(read(bench.post("/messages", &message)), read(bench.post("/messages", &message)));
    assert_eq!((again, more), ((200, first.clone()), (200, first.clone())));
    let events = stream(&bench, message.clone()).await;
    let [TurnEvent::Answered(streamed)] = events.as_slice() else { panic!("{events:?}") };
    let streamed = serde_json::to_string(streamed).expect("JSON");
    assert_eq!(serde_json::from_str::<Value>(&streamed).expect("JSON"), first);
    let turn = first["turn"].as_str().expect("a turn");
    assert_eq!(read(bench.request(Method::GET, &at(&format!("/turns/{turn}")))).await, (200, first.clone()));
    refused(bench.request(Method::GET, &at("/turns/none")), 404, "not_found").await;
    let (_, listed) = read(bench.request(Method::GET, &at("/conversations"))).await;
    let turns: Vec<u64> =
        listed["conversations"].as_array().expect("rows").iter().filter_map(|row| row["turns"].as_u64()).collect();
    assert_eq!(turns, [1], "{listed}");
    // What it was asked goes with the key.
    message["text"] = json!("Draw another one");
    refused(bench.post("/messages", &message), 409, "conflict").await;
    let mut message = chart();
    message["idempotency_key"] = json!("k-2");
    let (status, other) = read(bench.post("/messages", &message)).await;
    assert!(status == 200 && other["turn"] != first["turn"], "{other}");
    bench.stop().await;
}
