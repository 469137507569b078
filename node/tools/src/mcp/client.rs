//! One connection to an MCP server. Both eras are spoken: over HTTP a server is asked to describe itself as of 2026-07-28
//! first, and greeted with `initialize` when it does not know that; a process is greeted with `initialize`, which all of
//! them but the newest know and none dies of, and asked to describe itself when it does not.
//!
//! A server may ask its client for things (a model's answer, a person's input, folders): this one has none to give.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest, ErrorCode, Implementation,
    JsonObject, ListToolsRequest, PaginatedRequestParams, ProtocolVersion, RequestMetaObject, ServerResult,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, NotificationContext, PeerRequestOptions,
    RequestHandle, RoleClient, RunningService, ServiceError,
};
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use serde_json::{Value, json};

use super::process::Process;
use super::{ConnectError, Place, ServerSpec, protected};
use crate::command;
use crate::definitions::FunctionReading;
use crate::network::{Denied, FetchError, Fetcher, check_url, why};
use crate::tool::{CallContext, CallError, CallResult};

/// Tools that a server is asked for, page by page; one with more is refused later.
const PAGES_MAX: usize = 16;
/// One message of a server may have this much in any case, so that a result that is too large is called that; a server
/// that sends more than this and than twice its limit is cut off.
const MESSAGE_BYTES_MIN: u64 = 4 << 20;
/// Characters of what a server answered that was not understood.
const ANSWER_CHARS_MAX: usize = 300;

/// Why a call gave no result.
pub(super) enum CallFailure {
    /// It is not known whether the server saw it.
    Lost(String),
    /// The server says so, or its answer makes no sense.
    Call(CallError),
}

/// A connection that ends when it is dropped.
pub(super) struct Client {
    service: RunningService<RoleClient, Host>,
    since: Instant,
    /// Ended after the connection, which tells it first.
    process: Option<Process>,
}

/// This side of the conversation.
struct Host {
    changed: Arc<AtomicBool>,
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let us = Implementation::new("caxton", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), us).with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.store(true, Ordering::Relaxed);
    }
}

/// How a server was greeted that did not answer as it should.
struct Unwelcome {
    error: ClientInitializeError,
    process: Option<Process>,
}

impl Client {
    /// Reaches the server and agrees on a version.
    pub(super) async fn open(
        spec: &ServerSpec,
        fetcher: &Fetcher,
        folders: &Path,
        changed: Arc<AtomicBool>,
    ) -> Result<Client, ConnectError> {
        let newest = vec![ProtocolVersion::V_2026_07_28];
        let (first, second) = match &spec.place {
            Place::Http { .. } => {
                let legacy_version = Some(ProtocolVersion::V_2025_11_25);
                let first = ClientLifecycleMode::Auto { preferred_versions: newest, legacy_version };
                (first, ClientLifecycleMode::Initialize)
            }
            Place::Process { .. } => {
                (ClientLifecycleMode::Initialize, ClientLifecycleMode::Discover { preferred_versions: newest })
            }
        };
        let unwelcome = match Client::greet(spec, fetcher, folders, &changed, first).await? {
            Ok(client) => return Ok(client),
            Err(unwelcome) => unwelcome,
        };
        // Where no other greeting helps: nobody is there, or somebody says what is wrong.
        if unwelcome.error.is_authorization_required() || is_nobody(&unwelcome.error) {
            return Err(unreachable(spec, unwelcome.explain(spec, fetcher).await));
        }
        // It does not know the question, none of our versions of it, or died of it.
        match Client::greet(spec, fetcher, folders, &changed, second).await? {
            Ok(client) => Ok(client),
            Err(again) => {
                let (first, second) = (unwelcome.explain(spec, fetcher).await, again.explain(spec, fetcher).await);
                // The error that says more: how a program ended, if it did at all.
                let said = if first.len() >= second.len() { first } else { second };
                Err(unreachable(spec, said))
            }
        }
    }

    /// Opens the way to the server and agrees on a version in this manner.
    async fn greet(
        spec: &ServerSpec,
        fetcher: &Fetcher,
        folders: &Path,
        changed: &Arc<AtomicBool>,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Result<Client, Unwelcome>, ConnectError> {
        let message_bytes_max = (spec.limits.output_bytes * 2).max(MESSAGE_BYTES_MIN);
        let message_bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let host = Host { changed: changed.clone() };
        let (service, process) = match &spec.place {
            Place::Http { url, rules, headers, bearer } => {
                // The resolver checks names; an address that stands in the URL itself is checked here.
                check_url(url, rules, fetcher.allowed())?;
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .custom_headers(custom(headers)?)
                    .max_sse_event_size(message_bytes_max)
                    .max_concurrent_requests(spec.limits.concurrent_calls as usize)
                    .reinit_on_expired_session(true);
                if let Some(bearer) = bearer {
                    config = config.auth_header(bearer.as_str());
                }
                let client = fetcher.server_client().map_err(|error| unreachable(spec, error.to_string()))?.clone();
                let transport = StreamableHttpClientTransport::with_client(client, config);
                (host.serve_with_lifecycle(transport, lifecycle).await, None)
            }
            Place::Process { command, args, env } => {
                let started = Process::start(&spec.name, (command, args), env, folders, message_bytes_max);
                let spawn = |source| ConnectError::Spawn { command: command.clone(), source };
                let (process, way) = started.map_err(spawn)?;
                (host.serve_with_lifecycle(way, lifecycle).await, Some(process))
            }
        };
        Ok(match service {
            Ok(service) => Ok(Client { service, since: Instant::now(), process }),
            Err(error) => Err(Unwelcome { error, process }),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.is_transport_closed()
    }

    /// How long it is open.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What is known of why the connection ended.
    pub(super) async fn last_words(&self) -> String {
        let told = match &self.process {
            Some(process) => process.last_words().await,
            None => String::new(),
        };
        if told.is_empty() { "the connection ended".to_owned() } else { told }
    }

    /// What tools the server has.
    pub(super) async fn list(&self) -> Result<Vec<FunctionReading>, String> {
        let (mut told, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let request =
                ListToolsRequest { method: Default::default(), params: Some(params), extensions: Default::default() };
            let answer = match self.ask(ClientRequest::ListToolsRequest(request)).await {
                Ok(answer) => answer,
                // A server without tools need not know the question.
                Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => break,
                Err(error) => return Err(self.explain(&error).await),
            };
            cursor = answer.get("nextCursor").and_then(Value::as_str).filter(|c| !c.is_empty()).map(str::to_owned);
            told.extend(command::definitions(answer).map_err(|error| error.to_string())?);
            if cursor.is_none() {
                break;
            }
        }
        Ok(told)
    }

    /// Calls a tool once.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        context: &CallContext,
    ) -> Result<CallResult, CallFailure> {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let named = CallContext::meta(context.idempotency_key.as_deref(), context.trace.as_ref());
        if !named.is_empty() {
            let mut meta = RequestMetaObject::default();
            named.into_iter().for_each(|(name, value)| drop(meta.insert(name, value)));
            params.meta = Some(meta);
        }
        let bad = |what: String| CallFailure::Call(CallError::BadResult { what });
        let request = CallToolRequest::new(params);
        match self.ask(ClientRequest::CallToolRequest(request)).await {
            Ok(answer) => match answer.get("resultType").and_then(Value::as_str) {
                Some("input_required") => Err(bad("it asks for a person's input, which no call here has".to_owned())),
                Some("task") => Err(bad("it began a task of its own, and nobody here waits for one".to_owned())),
                _ if ["content", "structuredContent", "isError"].iter().all(|key| answer.get(key).is_none()) => {
                    let shown: String = answer.to_string().chars().take(ANSWER_CHARS_MAX).collect();
                    Err(bad(format!("it is no result of a call: {shown}")))
                }
                _ => command::result(answer).map_err(CallFailure::Call),
            },
            Err(ServiceError::McpError(error)) => Err(CallFailure::Call(match error.code {
                ErrorCode::INVALID_PARAMS => CallError::InvalidArguments { problems: vec![error.message.into()] },
                _ => CallError::Failed { what: error.message.into() },
            })),
            Err(error @ (ServiceError::TransportSend(_) | ServiceError::TransportClosed)) => {
                Err(CallFailure::Lost(self.explain(&error).await))
            }
            Err(error) => Err(bad(self.explain(&error).await)),
        }
    }

    /// Sends a request and waits for its answer, as JSON: what a library's types do not know is not lost. A server hears
    /// when nobody waits any more.
    async fn ask(&self, request: ClientRequest) -> Result<Value, ServiceError> {
        let sent = self.service.send_cancellable_request(request, PeerRequestOptions::no_options()).await?;
        let mut waiting = Waiting(Some(sent));
        let Some(sent) = &mut waiting.0 else { return Err(ServiceError::TransportClosed) };
        let answer = (&mut sent.rx).await.map_err(|_| ServiceError::TransportClosed);
        waiting.0 = None;
        match answer?? {
            ServerResult::CustomResult(result) => Ok(result.0),
            known => Ok(serde_json::to_value(&known).unwrap_or_else(|_| json!({}))),
        }
    }

    async fn explain(&self, error: &ServiceError) -> String {
        match error {
            ServiceError::TransportSend(error) => transport(error),
            ServiceError::TransportClosed => self.last_words().await,
            ServiceError::McpError(error) => error.message.to_string(),
            other => other.to_string(),
        }
    }
}

/// A request whose answer is awaited; dropped before that, it tells the server.
struct Waiting(Option<RequestHandle<RoleClient>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(sent) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(sent.cancel(Some("nobody waits for it any more".to_owned())));
        }
    }
}

impl Unwelcome {
    async fn explain(&self, spec: &ServerSpec, fetcher: &Fetcher) -> String {
        if let (Place::Http { url, rules, bearer, .. }, true) = (&spec.place, self.error.is_authorization_required()) {
            let challenge = self.error.auth_challenge().unwrap_or_default();
            return protected::explain(challenge, url, bearer.is_some(), rules, fetcher).await;
        }
        let why = greeting(&self.error);
        match &self.process {
            Some(process) => match process.last_words().await {
                words if words.is_empty() => why,
                words => format!("{why}; {words}"),
            },
            None => why,
        }
    }
}

fn unreachable(spec: &ServerSpec, why: String) -> ConnectError {
    ConnectError::Unreachable { place: spec.place.to_string(), why }
}

/// The headers that each request carries; their values are never printed.
fn custom(headers: &[(String, String)]) -> Result<HashMap<HeaderName, HeaderValue>, Denied> {
    let headers = headers.iter().map(|(name, value)| {
        let refused = || Denied::Header(name.clone());
        let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        Ok((known, value))
    });
    headers.collect()
}

/// Whether the server cannot even be connected to.
fn is_nobody(error: &ClientInitializeError) -> bool {
    match error {
        ClientInitializeError::TransportError { error, .. } => {
            match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
                Some(StreamableHttpError::Client(error)) => {
                    error.is_connect() || error.is_redirect() || matches!(why(error), FetchError::Denied(_))
                }
                Some(_) | None => false,
            }
        }
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => is_nobody(fallback),
        _ => false,
    }
}

fn greeting(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => transport(error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => greeting(fallback),
        ClientInitializeError::ConnectionClosed(_) => "it ended before it said what it is".to_owned(),
        ClientInitializeError::JsonRpcError(error) => error.message.to_string(),
        other => {
            let text = other.to_string();
            text.chars().take(ANSWER_CHARS_MAX).collect()
        }
    }
}

/// The cause that says most; what a policy refused is said in its words.
fn transport(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(error)) => match (why(error), error.status()) {
            (FetchError::Denied(denied), _) => denied.to_string(),
            (_, Some(status)) => format!("it answers {status}"),
            (cause, None) => cause.to_string(),
        },
        Some(StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_)) => {
            "it wants a token that it accepts: name it in tool.toml as bearer = \"secret:NAME\"".to_owned()
        }
        Some(other) => other.to_string().chars().take(ANSWER_CHARS_MAX).collect(),
        None => error.error.to_string(),
    }
}
