//! One connection to an MCP server. Both eras are spoken: a server is asked to describe itself as of 2026-07-28 first,
//! and greeted with `initialize` when it does not know that.
//!
//! A server may ask its client for things (a model's answer, a person's input, folders): this one has none to give.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, ErrorCode, Implementation, JsonObject,
    ProtocolVersion, RequestMetaObject,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, NotificationContext, RoleClient, RunningService,
    ServiceError,
};
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use serde_json::{Value, json};

use super::process::Process;
use super::{ConnectError, Place, ServerSpec};
use crate::command;
use crate::network::{Denied, FetchError, Fetcher, check_url, why};
use crate::tool::{CallError, CallResult, ToolDefinition};

/// Tools that a server is asked for, page by page; one with more is refused later.
const PAGES_MAX: usize = 16;
/// One message of a server may have this much in any case, so that a result that is too large is called that; a server
/// that sends more than this and than twice its limit is cut off.
const MESSAGE_BYTES_MIN: u64 = 4 << 20;

/// Why a call gave no result.
pub(super) enum Failed {
    /// It is not known whether the server saw it.
    Lost(String),
    /// The server says so, or its answer makes no sense.
    Call(CallError),
}

/// A connection that ends when it is dropped.
pub(super) struct Client {
    service: RunningService<RoleClient, Host>,
    /// Ended after the connection, which tells it first.
    _process: Option<Process>,
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

impl Client {
    /// Reaches the server and agrees on a version.
    pub(super) async fn open(
        spec: &ServerSpec,
        fetcher: &Fetcher,
        changed: Arc<AtomicBool>,
    ) -> Result<Client, ConnectError> {
        let message_bytes_max = (spec.limits.output_bytes * 2).max(MESSAGE_BYTES_MIN);
        let message_bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let lifecycle = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        };
        match Client::greet(spec, fetcher, &changed, message_bytes_max, lifecycle).await? {
            Ok(client) => Ok(client),
            // It knows the question of the new era and none of its versions.
            Err(ClientInitializeError::NoCompatibleProtocolVersion { .. }) => {
                let lifecycle = ClientLifecycleMode::Initialize;
                let greeted = Client::greet(spec, fetcher, &changed, message_bytes_max, lifecycle).await?;
                greeted.map_err(|error| unreachable(spec, explain_greeting(&error)))
            }
            Err(error) => Err(unreachable(spec, explain_greeting(&error))),
        }
    }

    /// Opens the way to the server and agrees on a version in this manner.
    async fn greet(
        spec: &ServerSpec,
        fetcher: &Fetcher,
        changed: &Arc<AtomicBool>,
        message_bytes_max: usize,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Result<Client, ClientInitializeError>, ConnectError> {
        let host = Host { changed: changed.clone() };
        match &spec.place {
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
                let client = fetcher.client().map_err(|error| unreachable(spec, error.to_string()))?.clone();
                let transport = StreamableHttpClientTransport::with_client(client, config);
                let greeted = host.serve_with_lifecycle(transport, lifecycle).await;
                Ok(greeted.map(|service| Client { service, _process: None }))
            }
            Place::Process { command, args, env } => {
                let started = Process::start(&spec.name, command, args, env, message_bytes_max);
                let spawn = |source| ConnectError::Spawn { command: command.clone(), source };
                let (process, transport) = started.map_err(spawn)?;
                let greeted = host.serve_with_lifecycle(transport, lifecycle).await;
                Ok(greeted.map(|service| Client { service, _process: Some(process) }))
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.is_transport_closed()
    }

    /// What tools the server has.
    pub(super) async fn list(&self) -> Result<Vec<ToolDefinition>, String> {
        let (mut tools, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let params = rmcp::model::PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = self.service.list_tools(Some(params)).await.map_err(|error| explain(&error))?;
            tools.extend(page.tools.iter().map(|tool| serde_json::to_value(tool).unwrap_or_default()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        command::definitions(json!({ "tools": tools })).map_err(|error| error.to_string())
    }

    /// Calls a tool once.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        idempotency_key: Option<&str>,
    ) -> Result<CallResult, Failed> {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        if let Some(key) = idempotency_key {
            let mut meta = RequestMetaObject::default();
            meta.insert("idempotencyKey".to_owned(), Value::from(key));
            params.meta = Some(meta);
        }
        let bad = |what: &str| Failed::Call(CallError::BadResult { what: what.to_owned() });
        match self.service.call_tool_once(params).await {
            Ok(CallToolResponse::Complete(result)) => {
                let result = serde_json::to_value(&result).map_err(|error| bad(&error.to_string()))?;
                command::result(result).map_err(Failed::Call)
            }
            Ok(CallToolResponse::InputRequired(_)) => Err(bad("it asks for a person's input, which no call here has")),
            Ok(_) => Err(bad("it is no result of a call")),
            Err(ServiceError::McpError(error)) => Err(Failed::Call(match error.code {
                ErrorCode::INVALID_PARAMS => CallError::InvalidArguments { problems: vec![error.message.into()] },
                _ => CallError::Failed { what: error.message.into() },
            })),
            Err(error @ (ServiceError::TransportSend(_) | ServiceError::TransportClosed)) => {
                Err(Failed::Lost(explain(&error)))
            }
            Err(error) => Err(bad(&explain(&error))),
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

fn explain_greeting(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => explain_transport(error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => explain_greeting(fallback),
        other => other.to_string(),
    }
}

fn explain(error: &ServiceError) -> String {
    match error {
        ServiceError::TransportSend(error) => explain_transport(error),
        ServiceError::TransportClosed => "the connection ended".to_owned(),
        ServiceError::McpError(error) => error.message.to_string(),
        other => other.to_string(),
    }
}

/// The cause that says most; what a policy refused is said in its words.
fn explain_transport(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(error)) => match (why(error), error.status()) {
            (FetchError::Denied(denied), _) => denied.to_string(),
            (_, Some(status)) => format!("it answers {status}"),
            (cause, None) => cause.to_string(),
        },
        Some(StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_)) => {
            "it wants a token that it accepts: name it in tool.toml as bearer = \"secret:NAME\"".to_owned()
        }
        Some(other) => other.to_string(),
        None => error.error.to_string(),
    }
}
