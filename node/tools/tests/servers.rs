//! MCP servers as processes, one oddity each: what real ones do, and what is right then.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use caxton_tools::mcp::{ConnectError, McpTool, Place, ServerSpec};
use caxton_tools::{CallContext, CallError, CallResult, Limits, Sandbox, Settings, Tool, TraceContext};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Nothing here takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

// --- the server: this very program, started again

/// Not a test: what the processes of the other tests run. What the harness prints first is noise like any other.
#[test]
#[ignore = "the server of the other tests"]
fn server_process() {
    let quirk = std::env::var("QUIRK").unwrap_or_default();
    // What the harness may have begun to print ends here.
    println!();
    note("started");
    match quirk.as_str() {
        // Longer than anybody waits for an answer to a question that may not be understood.
        "slow" => std::thread::sleep(Duration::from_secs(12)),
        "hangs" => std::thread::sleep(Duration::from_secs(3600)),
        "complains" => {
            eprintln!("the token {} is refused", std::env::var("TOKEN").unwrap_or_default());
            eprintln!("giving up");
            std::process::exit(7);
        }
        "noise" => {
            println!("Server 1.0 \u{1b}[32mready\u{1b}[0m\n{{\"level\":30,\"msg\":\"listening\"}}\n[1,2]\nnull");
        }
        _ => {}
    }
    let mut state = Served { quirk, calls: 0, greeted: false, lists: 0 };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if let Ok(message) = serde_json::from_str::<Value>(&line) {
            state.hear(&message);
        }
    }
    note("ended");
    std::process::exit(0);
}

/// Leaves a line for the test to count.
fn note(what: &str) {
    if let Ok(path) = std::env::var("NOTES") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}").unwrap();
    }
}

struct Served {
    quirk: String,
    calls: u32,
    greeted: bool,
    lists: u32,
}

impl Served {
    fn say(&self, message: &Value) {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{message}").unwrap();
        output.flush().unwrap();
    }

    fn answer(&self, id: &Value, result: Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    fn hear(&mut self, message: &Value) {
        let (method, id) = (message["method"].as_str().unwrap_or_default(), &message["id"]);
        if self.quirk == "dies" && !self.greeted && method != "initialize" {
            std::process::exit(1);
        }
        match method {
            // One of the newest era that ends over what it does not know.
            "initialize" if self.quirk == "modern" => std::process::exit(1),
            "initialize" => {
                self.greeted = true;
                let version = if self.quirk == "old" { "2024-11-05" } else { "2025-06-18" };
                self.answer(
                    id,
                    json!({
                    "protocolVersion": version, "capabilities": { "tools": { "listChanged": true } },
                    "serverInfo": { "name": "quirk", "version": "1" } }),
                );
            }
            "server/discover" if self.quirk == "modern" => {
                self.answer(
                    id,
                    json!({
                    "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
                    "serverInfo": { "name": "quirk", "version": "1" }, "ttlMs": 1000, "cacheScope": "private" }),
                );
            }
            "notifications/initialized" if self.quirk == "changed" => {
                self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
            }
            "tools/list" => self.list(id),
            "tools/call" => self.call(id, &message["params"]),
            _ if !id.is_null() => self.say(&json!({
                "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "no such method" } })),
            _ => {}
        }
    }

    fn list(&mut self, id: &Value) {
        self.lists += 1;
        note("listed");
        if self.quirk == "forgets" && self.lists > 1 {
            let error = json!({ "code": -32000, "message": "the database is locked" });
            return self.say(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
        let look = json!({ "name": "look", "inputSchema": { "type": "object", "properties": { "n": { "type": "integer" } } } });
        let mut tools = vec![look];
        match self.quirk.as_str() {
            "odd" => tools.extend([
                json!({ "name": "mail", "inputSchema": { "type": "object", "properties": { "to": { "pattern": "^(?!a)b" } } } }),
                json!({ "name": "look", "description": "again" }),
                json!({ "name": 7 }),
                json!({ "name": "text", "inputSchema": { "type": "text" } }),
                json!("nothing"),
            ]),
            "tuple" => tools.push(json!({ "name": "pair", "inputSchema": {
                "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": { "pair": {
                    "type": "array", "items": [{ "type": "string" }, { "type": "number" }], "minItems": 2, "maxItems": 2 } } } })),
            "grows" if self.lists > 1 => tools.push(json!({ "name": "more" })),
            "toolless" => {
                let error = json!({ "code": -32601, "message": "no such method" });
                return self.say(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
            }
            _ => {}
        }
        let modern = if self.quirk == "modern" { json!("complete") } else { Value::Null };
        let mut result = json!({ "tools": tools });
        if !modern.is_null() {
            result["resultType"] = modern;
            result["ttlMs"] = json!(1000);
            result["cacheScope"] = json!("private");
        }
        self.answer(id, result);
    }

    fn call(&mut self, id: &Value, params: &Value) {
        self.calls += 1;
        note("called");
        let said = json!({ "type": "text", "text": format!("call {} of {}", self.calls, std::process::id()) });
        let mut result = match self.quirk.as_str() {
            "embedded" => json!({ "content": [
                { "type": "text", "text": "fetched" },
                { "type": "resource", "resource": { "uri": "repo://a/README.md", "mimeType": "text/markdown", "text": "THE FILE ITSELF" } },
                { "type": "resource_link", "uri": "repo://a/LICENSE", "name": "LICENSE" },
                { "type": "hologram", "data": 1 } ] }),
            "structured" => {
                json!({ "content": [{ "type": "text", "text": "THE FILE" }], "structuredContent": { "lines": 1 } })
            }
            "mortal" if params["arguments"]["n"] == 1 => {
                eprintln!("Traceback: out of luck in line 12");
                std::process::exit(3);
            }
            "string-ids" => {
                let id = id.to_string();
                return self.answer(&json!(id), json!({ "content": [said] }));
            }
            "large" => json!({ "content": [{ "type": "text", "text": "x".repeat(6 << 20) }] }),
            "chatty" => {
                println!("processing...\n{{\"progress\": 50}}");
                json!({ "content": [said] })
            }
            "empty" => json!({}),
            "meta" => json!({ "content": [{ "type": "text", "text": params["_meta"].to_string() }] }),
            _ => json!({ "content": [said] }),
        };
        if self.quirk == "modern" {
            result["resultType"] = json!("complete");
        }
        self.answer(id, result);
    }
}

// --- the bench

struct Bench {
    runtime: tokio::runtime::Runtime,
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { scratch: folder.path().join("scratch"), ..Settings::default() };
        let sandbox = Sandbox::new(settings, runtime.handle().clone());
        Bench { runtime, sandbox, folder }
    }

    fn spec(&self, quirk: &str) -> ServerSpec {
        let env = [
            ("QUIRK", quirk.to_owned()),
            ("TOKEN", "a-secret-token-123".to_owned()),
            ("NOTES", self.folder.path().join("notes").to_str().unwrap().to_owned()),
        ];
        let place = Place::Process {
            command: std::env::current_exe().unwrap().to_str().unwrap().to_owned(),
            args: ["--exact", "server_process", "--ignored", "--nocapture"].map(str::to_owned).to_vec(),
            env: env.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
        };
        let limits = Limits { output_bytes: 64 << 10, ..Limits::default() };
        ServerSpec { name: quirk.to_owned(), place, limits, idempotent: false, list_kept: DEADLINE }
    }

    fn connect(&self, spec: ServerSpec) -> Result<McpTool, ConnectError> {
        self.runtime.block_on(self.sandbox.connect(spec))
    }

    fn server(&self, quirk: &str) -> McpTool {
        self.connect(self.spec(quirk)).unwrap()
    }

    fn call(&self, tool: &McpTool, function: &str, arguments: Value) -> Result<CallResult, CallError> {
        self.runtime.block_on(async {
            tool.refresh().await;
            tool.call(function, arguments, CallContext::default()).await.result
        })
    }

    fn look(&self, tool: &McpTool) -> String {
        self.call(tool, "look", json!({})).unwrap().text()
    }

    /// How often the process did that.
    fn noted(&self, what: &str) -> usize {
        let notes = std::fs::read_to_string(self.folder.path().join("notes")).unwrap_or_default();
        notes.lines().filter(|line| *line == what).count()
    }
}

fn functions(tool: &McpTool) -> Vec<String> {
    tool.definitions().iter().map(|function| function.name.clone()).collect()
}

fn remarks(tool: &McpTool) -> Vec<String> {
    tool.remarks().iter().map(ToString::to_string).collect()
}

#[test]
fn a_server_hears_which_attempt_and_which_trace_a_call_belongs_to() {
    let bench = Bench::new();
    let server = bench.server("meta");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let trace = TraceContext { parent: parent.clone(), state: Some("vendor=1".to_owned()) };
    let named = CallContext { idempotency_key: Some("k".to_owned()), trace: Some(trace), ..CallContext::default() };
    for (context, expected) in [
        (named, json!({ "idempotencyKey": "k", "traceparent": parent, "tracestate": "vendor=1" })),
        (CallContext::default(), json!({})),
    ] {
        let result = bench.runtime.block_on(server.call("look", json!({}), context)).result.unwrap();
        let mut heard: Value = serde_json::from_str(&result.text()).unwrap();
        // The client's library adds what is its own.
        if let Some(heard) = heard.as_object_mut() {
            heard.retain(|name, _| name != "progressToken" && !name.contains('/'));
        }
        let heard = if heard.is_null() { json!({}) } else { heard };
        assert_eq!(heard, expected);
    }
}

#[test]
fn a_function_that_cannot_be_understood_costs_itself() {
    let bench = Bench::new();
    let odd = bench.server("odd");
    assert_eq!(functions(&odd), ["look", "mail"]);
    let remarks = remarks(&odd);
    for part in [
        "function `mail`: the pattern `^(?!a)b`",
        "function `look`: left out, because there are two of this name",
        "function `number 4`: left out",
        "function `text`: left out",
        "function `number 6`: left out",
    ] {
        assert!(remarks.iter().any(|remark| remark.starts_with(part)), "{part}: {remarks:?}");
    }
    assert!(bench.look(&odd).starts_with("call 1 "));
    assert!(bench.call(&odd, "mail", json!({ "to": "abc" })).is_ok(), "it is the function's own check");

    let tuple = bench.server("tuple");
    assert_eq!((functions(&tuple).len(), tuple.remarks().len()), (2, 0));
    assert!(bench.call(&tuple, "pair", json!({ "pair": ["a", 1] })).is_ok());
    let refused = bench.call(&tuple, "pair", json!({ "pair": [1, "a"] })).unwrap_err();
    assert!(matches!(&refused, CallError::InvalidArguments { problems } if problems.len() == 2), "{refused}");

    let toolless = bench.server("toolless");
    assert_eq!(remarks_of_none(&toolless), ["it has no functions"]);
}

fn remarks_of_none(tool: &McpTool) -> Vec<String> {
    assert!(functions(tool).is_empty());
    remarks(tool)
}

#[test]
fn every_way_to_greet_is_found() {
    let bench = Bench::new();
    for quirk in ["plain", "old", "dies", "modern", "noise", "chatty", "string-ids"] {
        let tool = bench.server(quirk);
        assert_eq!(functions(&tool), ["look"], "{quirk}");
        assert!(bench.look(&tool).starts_with("call 1 "), "{quirk}");
    }
}

#[test]
fn a_server_may_take_long_to_start() {
    let bench = Bench::new();
    assert_eq!(functions(&bench.server("slow")), ["look"]);
    assert_eq!(bench.noted("started"), 1);
}

#[test]
fn what_a_result_holds_is_read_or_named() {
    let bench = Bench::new();
    let text = bench.look(&bench.server("embedded"));
    for part in ["fetched", "THE FILE ITSELF", "repo://a/README.md", "LICENSE", "the kind `hologram`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let both = bench.call(&bench.server("structured"), "look", json!({})).unwrap();
    assert_eq!((both.text().as_str(), both.structured), ("THE FILE", Some(json!({ "lines": 1 }))));
    let large = bench.call(&bench.server("large"), "look", json!({})).unwrap_err();
    assert!(large.to_string().contains("larger than"), "{large}");
    let empty = bench.call(&bench.server("empty"), "look", json!({})).unwrap_err();
    assert!(empty.to_string().contains("no result of a call"), "{empty}");
}

#[test]
fn a_list_that_changed_is_asked_for_again_and_the_process_goes_on() {
    let bench = Bench::new();
    let changed = bench.server("changed");
    let said: Vec<String> = (0..3).map(|_| bench.look(&changed)).collect();
    let process = said[0].rsplit(' ').next().unwrap();
    assert_eq!(said, [1, 2, 3].map(|n| format!("call {n} of {process}")));
    assert_eq!(bench.noted("started"), 1, "one process");
    assert!(bench.noted("listed") >= 2, "the list was asked for again");
}

#[test]
fn a_refresh_keeps_the_process_and_takes_what_is_new() {
    let bench = Bench::new();
    let spec = ServerSpec { list_kept: Duration::from_millis(1), ..bench.spec("grows") };
    let counter = bench.connect(spec).unwrap();
    assert_eq!(functions(&counter), ["look"]);
    let said: Vec<String> = (0..5).map(|_| bench.look(&counter)).collect();
    assert!(said[4].starts_with("call 5 "), "{said:?}");
    // The list is asked for beside the calls.
    let (mut calls, deadline) = (5, Instant::now() + DEADLINE);
    while functions(&counter) != ["look", "more"] {
        assert!(Instant::now() < deadline, "what is new is never taken: {:?}", functions(&counter));
        calls += 1;
        assert!(bench.look(&counter).starts_with(&format!("call {calls} ")));
    }
    assert_eq!(bench.noted("started"), 1, "the counter goes on");
    assert!(bench.call(&counter, "more", json!({})).is_ok());
}

#[test]
fn a_list_that_is_not_given_again_keeps_counting() {
    let bench = Bench::new();
    let spec = ServerSpec { list_kept: Duration::from_millis(1), ..bench.spec("forgets") };
    let forgets = bench.connect(spec).unwrap();
    let (mut calls, deadline) = (0, std::time::Instant::now() + Duration::from_secs(60));
    // The list is asked for beside the calls.
    while remarks(&forgets).is_empty() && std::time::Instant::now() < deadline {
        calls += 1;
        assert!(bench.look(&forgets).starts_with(&format!("call {calls} ")));
    }
    assert_eq!(functions(&forgets), ["look"]);
    let remarks = remarks(&forgets);
    assert!(remarks.first().is_some_and(|remark| remark.contains("the database is locked")), "{remarks:?}");
    assert!(bench.look(&forgets).starts_with(&format!("call {} ", calls + 1)));
}

#[test]
fn a_process_that_dies_is_started_again_and_its_last_words_are_told() {
    let bench = Bench::new();
    let mortal = bench.server("mortal");
    let died = bench.call(&mortal, "look", json!({ "n": 1 })).unwrap_err();
    assert!(matches!(died, CallError::Unavailable { .. }), "{died}");
    for part in ["exit status: 3", "out of luck in line 12"] {
        assert!(died.to_string().contains(part), "{part}: {died}");
    }
    assert!(bench.look(&mortal).starts_with("call 1 "), "at once the first time");
    assert!(bench.call(&mortal, "look", json!({ "n": 1 })).is_err());
    let refused = bench.call(&mortal, "look", json!({})).unwrap_err().to_string();
    assert!(refused.contains("2 times in a row") && refused.contains("out of luck"), "{refused}");
    let started = bench.noted("started");
    assert_eq!(started, 2, "not again at once");
    let deadline = Instant::now() + DEADLINE;
    while bench.call(&mortal, "look", json!({})).is_err() {
        assert!(Instant::now() < deadline, "it is never started again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_that_does_not_start_says_why_without_its_secrets() {
    let bench = Bench::new();
    let error = chain(&bench.connect(bench.spec("complains")).unwrap_err());
    for part in ["exit status: 7", "the token [hidden] is refused", "giving up"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("a-secret-token"), "{error}");
    let mut spec = bench.spec("plain");
    if let Place::Process { command, .. } = &mut spec.place {
        *command = "/nonexistent/program".into();
    }
    let error = chain(&bench.connect(spec).unwrap_err());
    assert!(error.contains("/nonexistent/program") && error.contains("No such file"), "{error}");
}

#[test]
fn a_server_that_hangs_is_ended_when_nobody_waits() {
    let bench = Bench::new();
    let spec = bench.spec("hangs");
    let waited = bench
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(300), bench.sandbox.connect(spec)).await });
    assert!(waited.is_err());
    let scratch = bench.folder.path().join("scratch");
    let deadline = Instant::now() + DEADLINE;
    while std::fs::read_dir(&scratch).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "its folder is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_process_starts_in_a_folder_of_its_own_that_goes_with_it() {
    let bench = Bench::new();
    let scratch = bench.folder.path().join("scratch");
    let tool = bench.server("plain");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 1);
    drop(tool);
    let deadline = Instant::now() + DEADLINE;
    while bench.noted("ended") < 1 && Path::new(&scratch).read_dir().unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
