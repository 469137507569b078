//! What a tool is to its caller, whatever stands behind it: definitions, a call, a result, and a record of the call.

use crate::grants::Grants;
use crate::limits::Limits;
use crate::remark::Remark;
use crate::resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One function that a server offers, as the Model Context Protocol describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolDefinition {
    /// Unique in its server: letters, digits, `-`, `_` and `.`, 128 at most.
    pub name: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, for the model that chooses.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub input_schema: Value,
    /// The JSON Schema of its structured result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// MCP's hints (`readOnlyHint` and so on). A stranger wrote them: good for a display, never for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

/// The functions of a server, as they are now.
pub type Definitions = Arc<[ToolDefinition]>;

/// What runs a tool's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A WebAssembly component that exports `caxton:tool/tools`.
    Component,
    /// A WASI preview 1 command that speaks MCP over its standard input and output.
    Command,
    /// A core WebAssembly module that exports `handle_tool_call`.
    Core,
    /// An MCP server outside, over HTTP.
    McpHttp,
    /// An MCP server that is a process of this machine.
    McpStdio,
}

impl Kind {
    /// Whether the code runs in the WebAssembly sandbox, where nothing is granted that is not named.
    pub fn is_sandboxed(self) -> bool {
        match self {
            Kind::Component | Kind::Command | Kind::Core => true,
            Kind::McpHttp | Kind::McpStdio => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Component => "component",
            Kind::Command => "WASI command",
            Kind::Core => "core module",
            Kind::McpHttp => "remote MCP server",
            Kind::McpStdio => "MCP process",
        })
    }
}

/// One block of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text for the model and for people.
    Text {
        /// The text that a model is shown.
        text: String,
    },
    /// A picture, for models that can see.
    Image {
        /// Its media type.
        mime: String,
        /// Its bytes, base64 in JSON.
        #[serde(with = "crate::base64")]
        data: Vec<u8>,
    },
    /// A sound, for models that can hear.
    Audio {
        /// Its media type.
        mime: String,
        /// Its bytes, base64 in JSON.
        #[serde(with = "crate::base64")]
        data: Vec<u8>,
    },
    /// An MCP embedded resource.
    Embedded {
        /// It, as the server wrote it.
        resource: Value,
    },
}

/// What a call gives back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallResult {
    /// For the model and for people.
    pub content: Vec<Content>,
    /// The result as data, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<Value>,
    /// The tool ran, and could not do what it was asked.
    #[serde(default)]
    pub is_error: bool,
}

impl CallResult {
    /// All that can be read of it, one block after the other: its texts, the texts of embedded resources, and the names
    /// of resources that it links to or that are no text.
    pub fn text(&self) -> String {
        let texts: Vec<Cow<'_, str>> = self
            .content
            .iter()
            .filter_map(|content| match content {
                Content::Text { text } => Some(Cow::Borrowed(text.as_str())),
                Content::Image { .. } | Content::Audio { .. } => None,
                Content::Embedded { resource } => Some(Cow::Owned(resource::read(resource))),
            })
            .collect();
        texts.join("\n")
    }

    /// Roughly how large it is.
    pub(crate) fn bytes(&self) -> u64 {
        let structured = self.structured.as_ref().map_or(0, json_bytes);
        let content: usize = self
            .content
            .iter()
            .map(|content| match content {
                Content::Text { text } => text.len(),
                Content::Image { data, .. } | Content::Audio { data, .. } => data.len(),
                Content::Embedded { resource } => json_bytes(resource),
            })
            .sum();
        (structured + content) as u64
    }
}

/// The length of a value as JSON, which is written nowhere.
fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither counting nor a value's own keys can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Who calls, and for how long. Nothing in it grants anything: grants belong to the tool.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// The workspace, for the audit.
    pub workspace: String,
    /// The agent or the token's subject, for the audit.
    pub caller: String,
    /// The same for each attempt at the same step; a tool that asks for it learns it.
    pub idempotency_key: Option<String>,
    /// The trace that the call is part of, for servers that go on with it.
    pub trace: Option<TraceContext>,
    /// When the caller stops waiting. The tool's own limit holds too, whichever comes first.
    pub deadline: Option<Instant>,
}

impl CallContext {
    /// What goes into the `_meta` of a request, by the names that MCP has for a trace (SEP-414); nothing where there is nothing
    /// to say.
    pub(crate) fn meta(idempotency_key: Option<&str>, trace: Option<&TraceContext>) -> serde_json::Map<String, Value> {
        let state = trace.and_then(|trace| trace.state.as_deref());
        let named = [
            ("idempotencyKey", idempotency_key),
            ("traceparent", trace.map(|trace| trace.parent.as_str())),
            ("tracestate", state),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect()
    }
}

/// A place in a trace, as W3C Trace Context writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The header `traceparent`.
    pub parent: String,
    /// The header `tracestate`, where there is one.
    pub state: Option<String>,
}

/// The record of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallReport {
    /// The name of the server that was called.
    pub server: String,
    /// The tool of it that was called.
    pub tool: String,
    /// What ran it.
    pub kind: Kind,
    /// From the request to the answer.
    #[serde(rename = "duration_us", with = "crate::limits::micros")]
    pub duration: Duration,
    /// The part of it that was spent waiting for a guest thread.
    #[serde(rename = "queued_us", with = "crate::limits::micros")]
    pub queued: Duration,
    /// Processor time of the guest's thread.
    #[serde(rename = "cpu_us", with = "crate::limits::micros")]
    pub cpu: Duration,
    /// The most linear memory that it had.
    pub memory_bytes: u64,
    /// Bytes of its result.
    pub output_bytes: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How a call ended, as a name for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With a result.
    Ok,
    /// With a result that says that the tool failed.
    ToolError,
    /// It never ran: no such tool, or wrong arguments.
    Refused,
    /// It never ran: too many calls.
    Busy,
    /// Its time, processor time, memory or output was used up.
    Limit,
    /// The guest crashed, and with it its instance.
    Trapped,
    /// The caller went away.
    Cancelled,
    /// A server outside could not be reached.
    Unavailable,
}

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server has no such tool.
    #[error("server `{server}` has no tool `{tool}`; it has: {}", known.join(", "))]
    UnknownTool {
        /// The name of the server that was called.
        server: String,
        /// What was asked for.
        tool: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The arguments do not fit the tool's schema, or the tool refused them.
    #[error("the arguments do not fit: {}", problems.join("; "))]
    InvalidArguments {
        /// Each with the place it is about.
        problems: Vec<String>,
    },
    /// Too many calls wait already.
    #[error("{what}, and no more may wait; try again later")]
    Busy {
        /// What is used up.
        what: String,
    },
    /// It took longer than it may.
    #[error("the call took longer than its limit of {limit:?}")]
    TimedOut {
        /// The time that a call may take.
        limit: Duration,
    },
    /// It computed longer than it may.
    #[error("the call used more processor time than its limit of {limit:?}")]
    CpuSpent {
        /// The processor time that a call may use.
        limit: Duration,
    },
    /// It wanted more memory than it may have, and gave up.
    #[error("the call wanted {wanted} bytes of memory; its limit is {limit}")]
    OutOfMemory {
        /// What it asked for in all.
        wanted: u64,
        /// The memory that a call may use, in bytes.
        limit: u64,
    },
    /// It keeps more in its scratch directory than it may.
    #[error("the call keeps more in /scratch than its limit of {bytes} bytes and {files} files")]
    ScratchFull {
        /// The limit in bytes.
        bytes: u64,
        /// The limit in files and directories.
        files: u64,
    },
    /// It opened more files and streams at once than it may.
    #[error("the call opened more than {limit} files, directories and streams at once")]
    TooManyOpen {
        /// The most that there may be.
        limit: usize,
    },
    /// Its result is larger than it may be.
    #[error("the result is larger than its limit of {limit} bytes")]
    OutputTooLarge {
        /// The most bytes that a call may give back.
        limit: u64,
    },
    /// It asked the node for more than it may.
    #[error("the call has more than {limit} {what}")]
    TooMany {
        /// What it has too many of.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// It crashed: `unreachable`, an access out of bounds, a stack overflow, a panic.
    #[error("the tool crashed: {what}")]
    Trapped {
        /// The trap, as WebAssembly names it.
        what: String,
    },
    /// It answered something that is not a result.
    #[error("the tool's answer makes no sense: {what}")]
    BadResult {
        /// What is wrong with it.
        what: String,
    },
    /// The tool itself says that it failed.
    #[error("the tool failed: {what}")]
    Failed {
        /// In its words.
        what: String,
    },
    /// The caller went away.
    #[error("the call was cancelled")]
    Cancelled,
    /// A server outside cannot be reached.
    #[error("the tool's server cannot be reached: {what}")]
    Unavailable {
        /// What could not be reached, and what went wrong.
        what: String,
    },
}

impl CallError {
    /// The name of this end in the record.
    pub fn ended(&self) -> Ended {
        match self {
            CallError::UnknownTool { .. } | CallError::InvalidArguments { .. } => Ended::Refused,
            CallError::Busy { .. } => Ended::Busy,
            CallError::TimedOut { .. }
            | CallError::CpuSpent { .. }
            | CallError::OutOfMemory { .. }
            | CallError::ScratchFull { .. }
            | CallError::TooManyOpen { .. }
            | CallError::TooMany { .. }
            | CallError::OutputTooLarge { .. } => Ended::Limit,
            CallError::Trapped { .. } | CallError::BadResult { .. } => Ended::Trapped,
            CallError::Failed { .. } => Ended::ToolError,
            CallError::Cancelled => Ended::Cancelled,
            CallError::Unavailable { .. } => Ended::Unavailable,
        }
    }
}

/// A call that has ended.
#[derive(Debug, Clone)]
pub struct FinishedCall {
    /// What it gave, or why not.
    pub result: Result<CallResult, CallError>,
    /// The record of it.
    pub report: CallReport,
}

/// The future of a call.
pub type Calling<'a> = Pin<Box<dyn Future<Output = FinishedCall> + Send + 'a>>;

/// The future of a refresh.
pub type Refreshing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A loaded tool server. Dropping the future of a call ends the call.
pub trait Tool: Send + Sync {
    /// The server's name, as its manifest has it.
    fn server(&self) -> &str;

    /// What runs it.
    fn kind(&self) -> Kind;

    /// Its functions; those of a server outside may be others the next time.
    fn definitions(&self) -> Definitions;

    /// What is odd about its functions: which are left out and why, and what of them is not checked.
    fn remarks(&self) -> Vec<Remark>;

    /// What it may reach.
    fn grants(&self) -> &Grants;

    /// How much it may use.
    fn limits(&self) -> &Limits;

    /// Checks the arguments against the tool's schema, and calls it.
    fn call<'a>(&'a self, tool: &'a str, arguments: Value, context: CallContext) -> Calling<'a>;

    /// Asks a server outside for its functions again if they may be others by now; all that it has and keeps goes on.
    /// What runs in the sandbox is its bytes, and those do not change.
    fn refresh(&self) -> Refreshing<'_> {
        Box::pin(async {})
    }

    /// Bytes of its machine code in this process.
    fn code_bytes(&self) -> u64 {
        0
    }
}
