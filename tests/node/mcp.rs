//! MCP servers outside of the sandbox: real ones of both eras over HTTP, and a real process.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use reqwest::Method;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bench::{Bench, eventually, read, refused};
use crate::deploy::{Content, at};

const TOKEN: &str = "mcp-token-5a4b3c2d1e";

/// A server with a few tools, good and bad ones.
#[derive(Clone)]
struct Weather {
    version: ProtocolVersion,
    calls: Arc<AtomicUsize>,
}

impl ServerHandler for Weather {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Owned(vec![self.version.clone()])
    }

    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_protocol_version(self.version.clone())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = |value: Value| Arc::new(value.as_object().cloned().expect("an object"));
        let any = schema(json!({ "type": "object" }));
        let city = schema(json!({
            "type": "object", "required": ["city"], "properties": { "city": { "type": "string" } }
        }));
        Ok(ListToolsResult::with_all_items(vec![
            Tool::new("forecast", "Tells the weather of a city.", city),
            Tool::new("large", "Answers too much.", any.clone()),
            Tool::new("slow", "Never answers.", any),
        ]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let text = match &*request.name {
            "forecast" => {
                let arguments = request.arguments.unwrap_or_default();
                format!("rain in {}", arguments["city"].as_str().expect("a city"))
            }
            "large" => "x".repeat(300_000),
            _ => std::future::pending().await,
        };
        Ok(CallToolResponse::Complete(CallToolResult::success(vec![ContentBlock::text(text)])))
    }
}

/// The server, running until its task is ended.
struct Running {
    port: u16,
    calls: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(version: ProtocolVersion, port: u16, token: Option<&'static str>) -> Running {
    let weather = Weather { version, calls: Arc::default() };
    let calls = weather.calls.clone();
    let service = StreamableHttpService::new(
        move || Ok(weather.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    );
    let guard = from_fn(move |request: Request, next: Next| async move {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if token.is_some_and(|token| shown != Some(&format!("Bearer {token}"))) {
            let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
            return (StatusCode::UNAUTHORIZED, challenge).into_response();
        }
        next.run(request).await
    });
    let router = Router::new().nest_service("/mcp", service).layer(guard);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
    Running { port, calls, task }
}

/// A workspace whose tool `weather` is that server, and an agent that uses it.
fn workspace(port: u16, more: &str) -> Content {
    let tool = format!(
        "[tool]\nname = \"weather\"\nkind = \"mcp-http\"\nurl = \"http://127.0.0.1:{port}/mcp\"\n{more}\n\
         [limits]\nwall_time = \"2s\"\noutput_bytes = \"64KiB\"\n"
    );
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[grants]\nhttp = [\"127.0.0.1:{port}\"]\nsecrets = [\"WEATHER_TOKEN\"]\n\
         [providers.script]\nkind = \"scripted\"\nscript = \"prompts/script.toml\"\n"
    );
    let script = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"forecast\"\narguments = { city = \"Graz\" }\n\
                  [[rule]]\nwhen.after = \"forecast\"\nsay = \"It says: {{forecast}}.\"\n";
    let agent =
        "[agent]\nname = \"herald\"\n[capabilities]\npatterns = [\"weather\"]\n[tools]\nrequired = [\"weather\"]\n";
    Content::default()
        .file("caxton.toml", settings)
        .file("tools/weather/tool.toml", tool)
        .file("agents/herald.toml", agent)
        .file("prompts/script.toml", script)
}

impl Bench {
    /// A direct call's text, or the problem.
    async fn call(&self, tool: &str, function: &str, arguments: Value) -> (u16, Value) {
        let body = json!({ "function": function, "arguments": arguments });
        read(self.post(&format!("/tools/{tool}/calls"), &body)).await
    }

    async fn tool(&self, tool: &str) -> Value {
        read(self.request(Method::GET, &at(&format!("/tools/{tool}")))).await.1
    }
}

fn text(called: &Value) -> &str {
    called["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_both_eras_are_listed_unsandboxed_and_called_within_limits() {
    for version in [ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25] {
        let server = serve(version.clone(), 0, None).await;
        let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
        bench.deploy(&workspace(server.port, ""), 0, &Content::default(), "first").await;
        let (_, list) = read(bench.request(Method::GET, &at("/tools"))).await;
        let listed = &list["tools"][0];
        assert_eq!((listed["kind"].as_str(), listed["sandboxed"].as_bool()), (Some("mcp-http"), Some(false)), "{list}");
        assert!(listed["grants"].to_string().contains("unsandboxed: http://127.0.0.1"), "{list}");
        let detail = bench.tool("weather").await;
        assert_eq!(detail["functions"].as_array().map(Vec::len), Some(3), "{version:?}: {detail}");

        let (status, called) = bench.call("weather", "forecast", json!({ "city": "Graz" })).await;
        assert_eq!((status, text(&called)), (200, "rain in Graz"), "{version:?}: {called}");
        assert_eq!(called["report"]["kind"], "mcp-http");
        let before = server.calls.load(Ordering::Relaxed);
        let (status, problem) = bench.call("weather", "forecast", json!({ "city": 7 })).await;
        assert_eq!(status, 400, "{problem}");
        assert_eq!(server.calls.load(Ordering::Relaxed), before, "arguments that do not fit were sent");
        let (_, large) = bench.call("weather", "large", json!({})).await;
        assert!(text(&large).contains("limit of 65536 bytes"), "{large}");
        let (_, slow) = bench.call("weather", "slow", json!({})).await;
        assert!(text(&slow).contains("longer than its limit"), "{slow}");

        let (status, answer) = read(bench.post("/messages", &json!({ "agent": "herald", "text": "weather?" }))).await;
        assert_eq!((status, answer["text"].as_str()), (200, Some("It says: rain in Graz.")), "{answer}");
        server.task.abort();
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_reached_only_where_the_operator_allows_it() {
    let server = serve(ProtocolVersion::V_2026_07_28, 0, None).await;
    let bench = Bench::new(&[]).await;
    bench.deploy(&workspace(server.port, ""), 0, &Content::default(), "first").await;
    let problem = bench.tool("weather").await["problem"].to_string();
    assert!(problem.contains("loopback"), "{problem}");
    let (status, called) = bench.call("weather", "forecast", json!({ "city": "Graz" })).await;
    assert_eq!((status, server.calls.load(Ordering::Relaxed)), (503, 0), "{called}");
    // By a name that leads there, the resolver says no.
    let settings = format!("[workspace]\nname = \"demo\"\n[grants]\nhttp = [\"localhost:{}\"]\n", server.port);
    let tool =
        format!("[tool]\nname = \"weather\"\nkind = \"mcp-http\"\nurl = \"http://localhost:{}/mcp\"\n", server.port);
    let named = Content::default().file("caxton.toml", settings).file("tools/weather/tool.toml", tool);
    bench.deploy(&named, 1, &workspace(server.port, ""), "second").await;
    let problem = bench.tool("weather").await["problem"].to_string();
    assert!(problem.contains("loopback"), "{problem}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_nowhere() {
    let inside = serve(ProtocolVersion::V_2026_07_28, 0, None).await;
    let seen = Arc::new(AtomicUsize::new(0));
    let (counter, to) = (seen.clone(), format!("http://127.0.0.1:{}/mcp", inside.port));
    let redirect = move || async move {
        counter.fetch_add(1, Ordering::Relaxed);
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)])
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let router = Router::new().fallback(redirect);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
    bench.deploy(&workspace(port, ""), 0, &Content::default(), "first").await;
    let detail = bench.tool("weather").await;
    assert!(detail["problem"].is_string() && detail["functions"] == json!([]), "{detail}");
    // It says where it would lead.
    assert!(detail["problem"].to_string().contains(&format!("127.0.0.1:{}/mcp", inside.port)), "{detail}");
    assert_eq!(inside.calls.load(Ordering::Relaxed), 0);
    assert!(seen.load(Ordering::Relaxed) > 0, "the redirect was never met");
    inside.task.abort();
    bench.stop().await;
}

/// A server behind something that looks at each request first, and answers it or lets it through.
async fn serve_behind<F>(version: ProtocolVersion, gate: F) -> Running
where
    F: Fn(&Request) -> Option<axum::response::Response> + Clone + Send + Sync + 'static,
{
    let weather = Weather { version, calls: Arc::default() };
    let calls = weather.calls.clone();
    let service = StreamableHttpService::new(
        move || Ok(weather.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    );
    let layer = from_fn(move |request: Request, next: Next| {
        let answer = gate(&request);
        async move {
            match answer {
                Some(answer) => answer,
                None => next.run(request).await,
            }
        }
    });
    let router = Router::new().nest_service("/mcp", service).fallback(|| async { StatusCode::NOT_FOUND }).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
    Running { port, calls, task }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_within_the_origin_is_followed_with_the_message() {
    for (version, status) in [
        (ProtocolVersion::V_2026_07_28, StatusCode::TEMPORARY_REDIRECT),
        (ProtocolVersion::V_2025_11_25, StatusCode::PERMANENT_REDIRECT),
    ] {
        let server = serve_behind(version.clone(), move |request| {
            // As frameworks do that want the path with or without a slash.
            let moved = request.uri().path() == "/mcp" && request.uri().query().is_none();
            moved.then(|| (status, [(header::LOCATION, "/mcp?moved=1")]).into_response())
        });
        let server = server.await;
        let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
        bench.deploy(&workspace(server.port, ""), 0, &Content::default(), "first").await;
        let (status, called) = bench.call("weather", "forecast", json!({ "city": "Graz" })).await;
        assert_eq!((status, text(&called)), (200, "rain in Graz"), "{version:?}: {called}");
        server.task.abort();
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_begun_again_and_the_call_made_once_more() {
    let forget = Arc::new(AtomicUsize::new(0));
    let gate = forget.clone();
    let server = serve_behind(ProtocolVersion::V_2025_11_25, move |request| {
        let session = request.headers().contains_key("mcp-session-id") && request.method() == Method::POST;
        let lost = session && gate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        lost.then(|| StatusCode::NOT_FOUND.into_response())
    });
    let server = server.await;
    let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
    bench.deploy(&workspace(server.port, ""), 0, &Content::default(), "first").await;
    let forecast = || bench.call("weather", "forecast", json!({ "city": "Graz" }));
    assert_eq!(forecast().await.0, 200);
    forget.store(1, Ordering::Relaxed);
    let (status, called) = forecast().await;
    assert_eq!((status, text(&called)), (200, "rain in Graz"), "{called}");
    assert_eq!((forget.load(Ordering::Relaxed), server.calls.load(Ordering::Relaxed)), (0, 2));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_server_says_where_its_tokens_come_from() {
    let gate = |request: &Request| {
        if request.uri().path().starts_with("/.well-known/") {
            let metadata = json!({ "resource": "here", "authorization_servers": ["https://auth.example.com"] });
            return Some(axum::Json(metadata).into_response());
        }
        let host = request.headers()[header::HOST].to_str().expect("text");
        let challenge = format!(
            "Bearer error=\"invalid_token\", scope=\"weather:read\", \
             resource_metadata=\"http://{host}/.well-known/oauth-protected-resource\""
        );
        let challenge = HeaderValue::from_str(&challenge).expect("a header");
        Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response())
    };
    for version in [ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25] {
        let server = serve_behind(version, gate).await;
        let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
        bench.deploy(&workspace(server.port, ""), 0, &Content::default(), "first").await;
        let problem = bench.tool("weather").await["problem"].to_string();
        for part in ["tool.toml names none", "https://auth.example.com", "weather:read", "caxton secrets set NAME"] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
        server.task.abort();
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_costs_its_tools_and_not_the_agent() {
    let server = serve(ProtocolVersion::V_2025_11_25, 0, None).await;
    let port = server.port;
    server.task.abort();
    server.task.await.expect_err("it was ended");
    let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
    let script = "[[rule]]\nsay = \"I do without.\"\n";
    let content = workspace(port, "").file("prompts/script.toml", script);
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let (status, answer) = read(bench.post("/messages", &json!({ "agent": "herald", "text": "weather?" }))).await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("I do without.")), "{answer}");
    for (place, path) in
        [("tools", "/tools"), ("agent", "/agents/herald"), ("agents", "/agents"), ("tool", "/tools/weather")]
    {
        let listing = read(bench.request(Method::GET, &at(path))).await.1.to_string();
        assert!(listing.contains("tool `weather` is away"), "{place}: {listing}");
    }
    // It is found when it is there, without a new deployment.
    let back = serve(ProtocolVersion::V_2025_11_25, port, None).await;
    let found = || async { bench.tool("weather").await["functions"].as_array().is_some_and(|all| all.len() == 3) };
    eventually("the server is found", found).await;
    let listing = read(bench.request(Method::GET, &at("/agents/herald"))).await.1.to_string();
    assert!(!listing.contains("is away"), "{listing}");
    back.task.abort();
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_s_token_comes_from_a_secret_and_is_never_shown() {
    let server = serve(ProtocolVersion::V_2026_07_28, 0, Some(TOKEN)).await;
    let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
    let content = workspace(server.port, "bearer = \"secret:WEATHER_TOKEN\"\nheaders = { X-Lab = \"one\" }");
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let problem = bench.tool("weather").await["problem"].to_string();
    assert!(problem.contains("caxton secrets set WEATHER_TOKEN"), "{problem}");
    bench.set_secret("WEATHER_TOKEN", "another-token-0102").await;
    let problem = bench.tool("weather").await["problem"].to_string();
    assert!(problem.contains("wants a token") && !problem.contains("another-token"), "{problem}");
    bench.set_secret("WEATHER_TOKEN", TOKEN).await;
    let detail = bench.tool("weather").await;
    assert!(detail["functions"].as_array().is_some_and(|all| all.len() == 3), "{detail}");
    let (status, called) = bench.call("weather", "forecast", json!({ "city": "Graz" })).await;
    assert_eq!(status, 200, "{called}");
    assert!(!detail.to_string().contains(TOKEN) && !called.to_string().contains(TOKEN));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_went_away_is_an_error_until_it_is_back() {
    for version in [ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25] {
        let server = serve(version.clone(), 0, None).await;
        let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
        bench.deploy(&workspace(server.port, ""), 0, &Content::default(), "first").await;
        let forecast = || bench.call("weather", "forecast", json!({ "city": "Graz" }));
        assert_eq!(forecast().await.0, 200);
        server.task.abort();
        server.task.await.expect_err("it was ended");
        // Connections that are open are still answered for a moment.
        eventually("the server is missed", || async { forecast().await.0 == 503 }).await;
        let back = serve(version, server.port, None).await;
        eventually("the server is found again", || async { forecast().await.0 == 200 }).await;
        back.task.abort();
        bench.stop().await;
    }
}

/// An MCP server in a few lines of shell: it tells its environment and its process, or dies.
const SHELL: &str = r#"
echo "starting with $LAB_TOKEN" >&2
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/^{"jsonrpc":"2.0","id":\([0-9]*\),.*/\1/p')
  case "$line" in
    *'"method":"initialize"'*)
      result='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}';;
    *'"method":"tools/list"'*)
      result='{"tools":[{"name":"env","inputSchema":{"type":"object"}},{"name":"die","inputSchema":{"type":"object"}}]}';;
    *'"method":"tools/call"'*'"name":"die"'*) exit 3;;
    *'"method":"tools/call"'*)
      result="{\"content\":[{\"type\":\"text\",\"text\":\"pid=$$ $(env | tr '\n' ' ')\"}]}";;
    *'"method":"notifications/'*) continue;;
    *) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}\n' "$id"; continue;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

fn process(dir: &Path) -> Content {
    let script = dir.join("server.sh");
    std::fs::write(&script, SHELL).expect("a script");
    let tool = format!(
        "[tool]\nname = \"shell\"\nkind = \"mcp-stdio\"\ncommand = \"sh\"\nargs = [{:?}]\n\
         [grants]\nenv = {{ LAB_TOKEN = \"secret:LAB_TOKEN\" }}\n",
        script.to_str().expect("UTF-8")
    );
    let settings = "[workspace]\nname = \"demo\"\n[grants]\nprocesses = true\nsecrets = [\"LAB_TOKEN\"]\n";
    Content::default().file("caxton.toml", settings).file("tools/shell/tool.toml", tool)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_only_where_the_operator_allows_it_and_ends_with_the_node() {
    let place = tempfile::tempdir().expect("a folder");
    let content = process(place.path());
    let bench = Bench::new(&[]).await;
    bench.set_secret("LAB_TOKEN", TOKEN).await;
    bench.send(&content).await;
    let request = content.request(0, &Content::default(), "first");
    let problem = refused(bench.post("/deployments", &request), 422, "check_failed").await;
    let found = &problem["diagnostics"][0];
    assert_eq!(
        (&found["code"], &found["path"], &found["place"]["line"]),
        (&json!("processes_off"), &json!("tools/shell/tool.toml"), &json!(3)),
        "{problem}"
    );
    assert!(found["help"].as_str().is_some_and(|help| help.contains("tools.processes=true")), "{problem}");

    let bench = Bench::on(bench.stop().await, &["tools.processes=true"]).await;
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let (status, called) = bench.call("shell", "env", json!({})).await;
    assert_eq!(status, 200, "{called}");
    let said = text(&called).to_owned();
    assert!(said.contains(&format!("LAB_TOKEN={TOKEN}")) && said.contains("PATH="), "{said}");
    assert!(!said.contains("CARGO"), "it has the node's own environment: {said}");
    let pid = |said: &str| said.split_whitespace().next().and_then(|word| word.strip_prefix("pid=")).map(str::to_owned);
    let first = pid(&said).expect("a process");
    let (_, again) = bench.call("shell", "env", json!({})).await;
    assert_eq!(pid(text(&again)).as_deref(), Some(first.as_str()), "one process serves many calls");

    let (status, died) = bench.call("shell", "die", json!({})).await;
    assert_eq!(status, 503, "{died}");
    let (status, called) = bench.call("shell", "env", json!({})).await;
    let second = pid(text(&called)).expect("a process");
    assert!(status == 200 && second != first, "{called}");
    let dir = bench.stop().await;
    let gone = || async { !Path::new("/proc").join(&second).exists() };
    eventually("the process ends with the node", gone).await;

    // Switched off again, what is live stays, and says at a call what to do.
    let bench = Bench::on(dir, &[]).await;
    let problem = refused(bench.post("/tools/shell/calls", &json!({ "function": "env" })), 503, "unavailable").await;
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("tools.processes=true")), "{problem}");
    bench.stop().await;
}
