//! Providers against servers that speak their protocols over real HTTP, and that fail in every way that they can.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use caxton_proto::manifest::provider::Budget;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::breaker::FAILURES_MAX;
use super::budget::Charges;
use super::models::{Answered, Ask, Models, Target, Voice};
use super::providers::{Backend, Providers, Settings};
use super::*;

type Served = Arc<dyn Fn(usize, Value, ::http::HeaderMap) -> Response + Send + Sync>;

/// A server on a free port; the closure gets the number of the request, its body and its headers.
async fn serve(answer: impl Fn(usize, Value, ::http::HeaderMap) -> Response + Send + Sync + 'static) -> String {
    let answer: Served = Arc::new(answer);
    let count = Arc::new(AtomicUsize::new(0));
    let handler = move |request: Request| {
        let (answer, number) = (Arc::clone(&answer), count.fetch_add(1, Ordering::SeqCst));
        async move {
            let headers = request.headers().clone();
            let body = axum::body::to_bytes(request.into_body(), 1 << 24).await.expect("a body");
            answer(number, serde_json::from_slice(&body).expect("JSON"), headers)
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    url
}

fn stream(events: Vec<String>) -> Response {
    let chunks = futures::stream::iter(events.into_iter().map(Ok::<_, Infallible>));
    ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
}

/// Events, then silence with the connection open.
fn stream_then_hang(events: Vec<String>) -> Response {
    let chunks = futures::stream::iter(events.into_iter().map(Ok::<_, Infallible>)).chain(futures::stream::pending());
    ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
}

/// Events, then a connection that breaks.
fn stream_then_break(events: Vec<String>) -> Response {
    let broken = futures::stream::once(async { Err(std::io::Error::other("cut")) });
    let chunks = futures::stream::iter(events.into_iter().map(Ok)).chain(broken);
    ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
}

fn status(code: u16, headers: &[(&'static str, &str)], body: &str) -> Response {
    let mut response = (::http::StatusCode::from_u16(code).expect("a status"), body.to_owned()).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    response
}

fn chunk(delta: Value, finish: Option<&str>) -> String {
    format!(
        "data: {}\n\n",
        json!({ "model": "m-1", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
    )
}

fn done() -> String {
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 11, "completion_tokens": 7 } });
    format!("data: {usage}\n\ndata: [DONE]\n\n")
}

fn hello() -> Vec<String> {
    vec![
        chunk(json!({ "role": "assistant", "content": "Hel" }), None),
        chunk(json!({ "content": "lo" }), Some("stop")),
        done(),
    ]
}

fn request(text: &str) -> ChatRequest {
    let parameters = Arc::new(json!({ "type": "object" }));
    ChatRequest {
        model: "m".into(),
        messages: vec![Message::system("be brief"), Message::user(text)],
        tools: vec![ToolDefinition { name: "sum".into(), description: "adds".into(), parameters }],
        temperature: Some(0.5),
        tokens_max: None,
        needs_tools: false,
        options: crate::llm::ReplyOptions::default(),
    }
}

fn endpoint(url: &str, silence_ms: u64) -> Endpoint {
    Endpoint::new("fake", url, Key::new("key-1"), Duration::from_millis(silence_ms)).expect("an endpoint")
}

async fn ask_openai(url: &str, silence_ms: u64) -> Result<Reply, Error> {
    OpenAi::new(endpoint(url, silence_ms)).chat(&request("hi"), &Deltas::none()).await
}

fn account() -> Account {
    Account {
        workspace: "team".parse().expect("a name"),
        agent: "worker".parse().expect("a name"),
        payer: Default::default(),
        workspace_budget: Budget::default(),
        agent_budget: Budget::default(),
    }
}

fn models() -> Models {
    let mut settings = Settings::default();
    settings.schedule.pause_base = Duration::from_millis(10);
    Models::new(Providers::new(settings).expect("no settings"))
}

fn target(name: &str, url: &str) -> Target {
    let provider = Arc::new(OpenAi::new(endpoint(url, 2_000)));
    let backend = Arc::new(Backend::new(name, provider, Default::default()));
    Target { provider: name.into(), model: "m".into(), voice: Voice::Backend(backend) }
}

async fn ask_models(models: &Models, targets: &[Target], deltas: &Deltas) -> Result<Answered, Error> {
    let charged = Charges::default();
    models.chat(Ask { targets, account: &account(), request: request("hi"), deltas, charged: &charged }).await
}

#[tokio::test]
async fn openai_streams_text_and_counts_usage() {
    let url = serve(|_, body, headers| {
        assert_eq!(headers["authorization"], "Bearer key-1");
        assert_eq!(body["stream"], true);
        assert_eq!(body["messages"][0], json!({ "role": "system", "content": "be brief" }));
        assert_eq!(body["tools"][0]["function"]["name"], "sum");
        stream(hello())
    })
    .await;
    let (deltas, mut heard) = Deltas::channel();
    let reply = OpenAi::new(endpoint(&url, 5_000)).chat(&request("hi"), &deltas).await.expect("a reply");
    assert_eq!((reply.text.as_str(), reply.finish, reply.model.as_str()), ("Hello", Finish::Stop, "m-1"));
    assert_eq!(reply.usage, Usage { input: 11, output: 7 });
    assert_eq!(heard.recv().await, Some(Delta::Text("Hel".into())));
    assert_eq!(heard.recv().await, Some(Delta::Text("lo".into())));
}

#[tokio::test]
async fn a_count_of_tokens_that_cannot_be_is_not_believed() {
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 1_u64 << 62, "completion_tokens": u64::MAX } });
    let said = [chunk(json!({ "content": "x" }), Some("stop")), format!("data: {usage}\n\ndata: [DONE]\n\n")];
    let url = serve(move |_, _, _| stream(said.to_vec())).await;
    let answered = ask_models(&models(), &[target("a", &url)], &Deltas::none()).await.expect("a reply");
    let most = limits::USAGE_TOKENS_MAX;
    assert_eq!(answered.reply.usage, Usage { input: most, output: most });
}

#[tokio::test]
async fn openai_puts_tool_calls_together_from_their_pieces() {
    let call = |index: u64, piece: Value| json!({ "tool_calls": [{ "index": index, "id": piece["id"], "function": piece["f"] }] });
    let url = serve(move |_, _, _| {
        stream(vec![
            chunk(call(0, json!({ "id": "c0", "f": { "name": "sum", "arguments": "" } })), None),
            chunk(call(1, json!({ "id": "c1", "f": { "name": "sum", "arguments": "{\"b\":" } })), None),
            chunk(call(0, json!({ "f": { "arguments": "{\"a\":1}" } })), None),
            chunk(call(1, json!({ "f": { "arguments": "2}" } })), Some("tool_calls")),
            done(),
        ])
    })
    .await;
    let reply = ask_openai(&url, 5_000).await.expect("a reply");
    assert_eq!(reply.finish, Finish::Calls);
    let calls: Vec<(&str, &str)> = reply.calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
    assert_eq!(calls, [("c0", r#"{"a":1}"#), ("c1", r#"{"b":2}"#)]);
}

#[tokio::test]
async fn openai_takes_a_whole_completion_from_a_server_that_does_not_stream() {
    let url = serve(|_, _, _| {
        let message = json!({ "role": "assistant", "content": "whole" });
        axum::Json(json!({ "model": "m", "choices": [{ "message": message, "finish_reason": "stop" }] }))
            .into_response()
    })
    .await;
    let reply = ask_openai(&url, 5_000).await.expect("a reply");
    assert_eq!(reply.text, "whole");
    assert!(reply.usage.input > 0, "usage is guessed when it is not told");
}

#[tokio::test]
async fn every_way_to_fail_has_its_name() {
    let hang = serve(|_, _, _| stream_then_hang(vec![chunk(json!({ "content": "x" }), None)])).await;
    assert!(matches!(ask_openai(&hang, 200).await, Err(Error::Timeout { .. })));
    let broken = serve(|_, _, _| stream_then_break(vec![chunk(json!({ "content": "x" }), None)])).await;
    // The connection may break before the first byte was passed on.
    let told = ask_openai(&broken, 5_000).await;
    assert!(matches!(told, Err(Error::BrokenOff { .. } | Error::Unreachable { .. })), "{told:?}");
    let cut = serve(|_, _, _| stream(vec![chunk(json!({ "content": "x" }), None)])).await;
    assert!(matches!(ask_openai(&cut, 5_000).await, Err(Error::BrokenOff { .. })), "an end without a reason");
    let nonsense = serve(|_, _, _| stream(vec!["data: {nonsense\n\n".into()])).await;
    assert!(matches!(ask_openai(&nonsense, 5_000).await, Err(Error::Nonsense { .. })));
    let html = serve(|_, _, _| status(200, &[("content-type", "application/json")], "<html>")).await;
    assert!(matches!(ask_openai(&html, 5_000).await, Err(Error::WrongAddress { .. })));
    let error = serve(|_, _, _| stream(vec!["data: {\"error\":{\"message\":\"gone\",\"code\":503}}\n\n".into()])).await;
    assert!(matches!(ask_openai(&error, 5_000).await, Err(Error::Busy { status: 503, .. })));
    let key = serve(|_, _, _| status(401, &[], "{\"error\":{\"message\":\"bad key\"}}")).await;
    let told = ask_openai(&key, 5_000).await.expect_err("refused").to_string();
    assert!(told.contains("bad key") && !told.contains("key-1"), "{told}");
    let wrong = serve(|_, _, _| status(400, &[], "{\"error\":{\"message\":\"no such model\"}}")).await;
    assert!(matches!(ask_openai(&wrong, 5_000).await, Err(Error::Rejected { status: 400, .. })));
    let moved = serve(|_, _, _| status(302, &[("location", "http://127.0.0.1:1/")], "")).await;
    assert!(matches!(ask_openai(&moved, 5_000).await, Err(Error::WrongAddress { .. })), "keys do not follow");
    assert!(matches!(ask_openai("http://127.0.0.1:1/v1", 5_000).await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn ten_megabytes_of_text_are_stopped_at_the_limit() {
    let url = serve(|_, _, _| {
        let piece = "x".repeat(64 << 10);
        stream((0..160).map(|_| chunk(json!({ "content": piece }), None)).collect())
    })
    .await;
    assert!(matches!(ask_openai(&url, 5_000).await, Err(Error::TooLarge { .. })));
    let url = serve(|_, _, _| stream(vec![format!("data: {}", "x".repeat(10 << 20))])).await;
    assert!(matches!(ask_openai(&url, 5_000).await, Err(Error::TooLarge { .. })), "one endless line");
}

#[tokio::test]
async fn anthropic_streams_text_and_calls() {
    let event = |kind: &str, data: Value| format!("event: {kind}\ndata: {data}\n\n");
    let url = serve(move |_, body, headers| {
        assert_eq!(headers["x-api-key"], "key-1");
        assert_eq!(body["system"], "be brief");
        assert_eq!(body["messages"][0]["role"], "user");
        assert_eq!(body["tools"][0]["input_schema"], json!({ "type": "object", "properties": {} }));
        let usage = json!({ "input_tokens": 9, "cache_read_input_tokens": 2, "output_tokens": 1 });
        stream(vec![
            event("message_start", json!({ "type": "message_start", "message": { "model": "a-1", "usage": usage } })),
            event("content_block_start", json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } })),
            event("ping", json!({ "type": "ping" })),
            event("content_block_delta", json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "Let me see." } })),
            event("content_block_start", json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "tool_use", "id": "t1", "name": "sum", "input": {} } })),
            event("content_block_delta", json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{\"a\":" } })),
            event("content_block_delta", json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "1}" } })),
            event("message_delta", json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 20 } })),
            event("message_stop", json!({ "type": "message_stop" })),
        ])
    })
    .await;
    let reply = Anthropic::new(endpoint(&url, 5_000)).chat(&request("hi"), &Deltas::none()).await.expect("a reply");
    assert_eq!((reply.text.as_str(), reply.finish), ("Let me see.", Finish::Calls));
    assert_eq!(reply.calls, [ToolCall { id: "t1".into(), tool: "sum".into(), arguments: r#"{"a":1}"#.into() }]);
    assert_eq!(reply.usage, Usage { input: 11, output: 20 });

    let overloaded = serve(move |_, _, _| {
        stream(vec![event(
            "error",
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "later" } }),
        )])
    })
    .await;
    let result = Anthropic::new(endpoint(&overloaded, 5_000)).chat(&request("hi"), &Deltas::none()).await;
    assert!(matches!(result, Err(Error::Busy { status: 529, .. })));
}

#[tokio::test]
async fn a_failed_request_is_made_again_and_what_was_heard_is_withdrawn() {
    let url = serve(|number, _, _| match number {
        0 => stream_then_break(vec![chunk(json!({ "content": "half" }), None)]),
        1 => status(500, &[], "oops"),
        _ => stream(hello()),
    })
    .await;
    let (deltas, mut heard) = Deltas::channel();
    let answered = ask_models(&models(), &[target("one", &url)], &deltas).await.expect("the third try");
    assert_eq!((answered.tries, answered.reply.text.as_str()), (3, "Hello"));
    drop(deltas);
    let mut said = String::new();
    while let Some(delta) = heard.recv().await {
        match delta {
            Delta::Text(text) => said.push_str(&text),
            Delta::Restart => said.clear(),
        }
    }
    assert_eq!(said, "Hello");
}

#[tokio::test]
async fn a_wish_to_wait_is_honoured_and_a_long_one_goes_to_the_next_model() {
    let paced = serve(|number, _, _| match number {
        0 => status(429, &[("retry-after-ms", "300")], "{}"),
        _ => stream(hello()),
    })
    .await;
    let began = Instant::now();
    ask_models(&models(), &[target("paced", &paced)], &Deltas::none()).await.expect("the second try");
    assert!(began.elapsed() >= Duration::from_millis(300));

    let full = serve(|_, _, _| status(429, &[("retry-after", "3600")], "{\"error\":{\"message\":\"quota\"}}")).await;
    let other = serve(|_, _, _| stream(hello())).await;
    let answered = ask_models(&models(), &[target("full", &full), target("other", &other)], &Deltas::none()).await;
    assert_eq!(answered.expect("the other one").provider, "other");

    let error =
        ask_models(&models(), &[target("full", &full), target("gone", "http://127.0.0.1:1")], &Deltas::none()).await;
    assert!(matches!(error, Err(Error::AllFailed { tried: 2, .. })));
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let url = serve(move |_, _, _| {
        count.fetch_add(1, Ordering::SeqCst);
        status(500, &[], "down")
    })
    .await;
    let models = models();
    let targets = [target("down", &url)];
    let mut opened = false;
    for _ in 0..4 {
        let error = ask_models(&models, &targets, &Deltas::none()).await.expect_err("down");
        opened |= matches!(error, Error::CircuitOpen { .. });
    }
    assert!(opened);
    assert_eq!(seen.load(Ordering::SeqCst), FAILURES_MAX as usize);
}

#[tokio::test]
async fn a_request_that_is_wrong_is_not_made_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let url = serve(move |_, _, _| {
        count.fetch_add(1, Ordering::SeqCst);
        status(400, &[], "no")
    })
    .await;
    ask_models(&models(), &[target("one", &url)], &Deltas::none()).await.expect_err("wrong");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_spent_budget_is_refused_before_anything_is_sent() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let url = serve(move |_, body, _| {
        count.fetch_add(1, Ordering::SeqCst);
        assert!(body["max_tokens"].as_u64().expect("a limit") < 60, "the reply is limited to what is left");
        stream(hello())
    })
    .await;
    let models = models();
    let mut account = account();
    account.agent_budget.tokens_per_day = Some(60);
    let targets = [target("one", &url)];
    let mut refused = None;
    for _ in 0..10 {
        let (deltas, charged) = (Deltas::none(), Charges::default());
        let ask =
            Ask { targets: &targets, account: &account, request: request("hi"), deltas: &deltas, charged: &charged };
        refused = models.chat(ask).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(refused, Some(Error::BudgetSpent { .. })), "{refused:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 3, "18 tokens each");
}

#[tokio::test]
async fn images_reach_models_that_see() {
    let png = "data:image/png;base64,AAAA";
    let mut request = request("what is this?");
    request
        .messages
        .push(Message::User { parts: vec![Part::Text { text: "look".into() }, Part::Image { url: png.into() }] });
    let openai = serve(move |_, body, _| {
        assert_eq!(body["messages"][2]["content"][1], json!({ "type": "image_url", "image_url": { "url": png } }));
        stream(hello())
    })
    .await;
    OpenAi::new(endpoint(&openai, 5_000)).chat(&request, &Deltas::none()).await.expect("a reply");
    let anthropic = serve(|_, body, _| {
        // Two messages of a user in a row become one.
        let source = &body["messages"][0]["content"][2]["source"];
        assert_eq!(*source, json!({ "type": "base64", "media_type": "image/png", "data": "AAAA" }));
        status(400, &[], "enough seen")
    })
    .await;
    let result = Anthropic::new(endpoint(&anthropic, 5_000)).chat(&request, &Deltas::none()).await;
    assert!(matches!(result, Err(Error::Rejected { .. })), "{result:?}");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_charged_with_what_had_come_of_it() {
    let piece = "x".repeat(4_000);
    let url = serve(move |_, _, _| stream(vec![chunk(json!({ "content": piece }), None)])).await;
    let (models, charged, deltas) = (models(), Charges::default(), Deltas::none());
    let targets = [target("breaks", &url)];
    let ask =
        Ask { targets: &targets, account: &account(), request: request("hi"), deltas: &deltas, charged: &charged };
    models.chat(ask).await.expect_err("it breaks off each time");
    let tokens = charged.total().tokens;
    assert!((3_000..3_100).contains(&tokens), "three tries with a thousand tokens each, and not {tokens}");
    assert_eq!(models.budgets().spent(super::models::today(), &account().workspace), charged.total());

    let refuses = serve(|_, _, _| status(400, &[], "no")).await;
    let (targets, charged) = ([target("refuses", &refuses)], Charges::default());
    let ask =
        Ask { targets: &targets, account: &account(), request: request("hi"), deltas: &deltas, charged: &charged };
    models.chat(ask).await.expect_err("it refuses");
    assert_eq!(charged.total().tokens, 0, "a refusal costs nothing");
}

#[tokio::test]
async fn who_stops_waiting_hangs_up_and_is_charged() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let url = serve(move |_, _, _| {
        struct Open(Arc<AtomicUsize>);
        impl Drop for Open {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
        let listens = Open(Arc::clone(&count));
        let silence = futures::stream::unfold(listens, |listens| async move {
            std::future::pending::<()>().await;
            Some((Ok::<_, Infallible>(String::new()), listens))
        });
        let first = futures::stream::iter([Ok(chunk(json!({ "content": "x".repeat(400) }), None))]);
        ([("content-type", "text/event-stream")], Body::from_stream(first.chain(silence))).into_response()
    })
    .await;
    let (models, charged) = (models(), Charges::default());
    let (deltas, mut heard) = Deltas::channel();
    let targets = [target("drips", &url)];
    let account = account();
    {
        let ask =
            Ask { targets: &targets, account: &account, request: request("hi"), deltas: &deltas, charged: &charged };
        let chat = models.chat(ask);
        tokio::pin!(chat);
        tokio::select! {
            answered = &mut chat => panic!("it never answers: {answered:?}"),
            first = heard.recv() => assert!(first.is_some()),
        }
        assert_eq!(open.load(Ordering::SeqCst), 1);
    }
    let until = Instant::now() + Duration::from_secs(30);
    while open.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < until, "the provider still has a listener");
        tokio::task::yield_now().await;
    }
    assert!(charged.total().tokens >= 100, "{:?}", charged.total());
}

#[tokio::test]
async fn the_way_to_a_provider_leads_through_the_proxy_of_the_environment() {
    let proxy = serve(|_, _, headers| {
        assert_eq!(headers["host"], "provider.example");
        stream(hello())
    })
    .await;
    let near = serve(|_, _, headers| {
        assert!(headers["host"].to_str().is_ok_and(|host| host.starts_with("127.0.0.1")));
        stream(hello())
    })
    .await;
    let variables = [("http_proxy", proxy.trim_end_matches("/v1")), ("HTTPS_PROXY", "socks5://127.0.0.1:1")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let providers = Providers::new(Settings::from_env(variables)).expect("good settings");
    let text = format!(
        "[workspace]\nname = \"team\"\n[providers.far]\nkind = \"openai\"\nbase_url = \"http://provider.example/v1\"\n\
         [providers.near]\nkind = \"openai\"\nbase_url = \"{near}\"\n\
         [providers.wrong]\nkind = \"openai\"\nbase_url = \"https://provider.example/v1\"\n"
    );
    let path = "caxton.toml".parse().expect("a path");
    let manifest = caxton_proto::manifest::WorkspaceManifest::parse(&path, &text).expect("a workspace");
    let backend = |name: &str| {
        let name = name.parse().expect("a name");
        providers.of_workspace(&account().workspace, &name, &manifest.providers[&name])
    };
    for name in ["far", "near"] {
        let backend = backend(name).expect("good settings").expect("reached over HTTP");
        let reply = backend.provider.chat(&request("hi"), &Deltas::none()).await.expect(name);
        assert_eq!(reply.text, "Hello", "{name}");
    }
    let problem = backend("wrong").expect_err("not HTTP").to_string();
    assert!(problem.contains("HTTPS_PROXY"), "{problem}");
}

#[test]
fn what_was_stored_before_there_were_echoes_is_read() {
    let call = ToolCall { id: "1".into(), tool: "t".into(), arguments: "{}".into() };
    let stored = r#"{"role":"assistant","text":"a","calls":[{"id":"1","tool":"t","arguments":"{}"}]}"#;
    let message: Message = serde_json::from_str(stored).expect("a message");
    assert_eq!(message, Message::Assistant { text: "a".into(), calls: vec![call], echo: None });
    assert_eq!(serde_json::to_string(&message).expect("JSON"), stored);
    let stored = r#"{"text":"a","usage":{"input":1,"output":2},"finish":"stop","model":"m"}"#;
    let reply: Reply = serde_json::from_str(stored).expect("a reply");
    assert_eq!((reply.echo.as_deref(), serde_json::to_string(&reply).expect("JSON").as_str()), (None, stored));
}
