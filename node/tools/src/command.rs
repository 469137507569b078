//! WASI preview 1 commands that speak MCP over their standard input and output, one process-like run per call.
//!
//! The run is given the whole conversation as its input and reads end-of-file after it, so a server that handles one
//! request after the other and stops at the end needs no change to run here.

use crate::definitions::{self, FunctionReading};
use crate::guest::{CallUsage, Guest, Stopped, Terms, explain, until};
use crate::scratch::Scratch;
use crate::tool::{CallContext, CallError, CallResult, Content};
use crate::{base64, wasi};
use serde_json::{Value, json};
use std::path::Path;
use wasmtime::{Engine, InstancePre, Linker, Module, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

/// What this host says it speaks.
const MCP_VERSION: &str = "2025-06-18";
/// The request whose answer is wanted; the first is `initialize`.
const REQUEST_ID: u64 = 2;
/// Bytes of its standard error that are kept for the operator's log.
pub(crate) const STDERR_BYTES_MAX: usize = 16 << 10;

/// A command that is linked and ready to run.
pub(crate) struct LinkedCommand {
    pre: InstancePre<Guest>,
}

impl LinkedCommand {
    /// Links a module, or says what it lacks.
    pub(crate) fn new(engine: &Engine, module: &Module) -> Result<LinkedCommand, String> {
        if module.get_export("_start").is_none() {
            return Err("it exports no `_start`, so it is not a WASI command".into());
        }
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |guest: &mut Guest| guest.p1())
            .and_then(|()| linker.instantiate_pre(module))
            .map(|pre| LinkedCommand { pre })
            .map_err(|error| format!("{error:#}"))
    }

    /// Asks for its tools.
    pub(crate) fn list(&self, terms: Terms) -> (Result<Vec<FunctionReading>, CallError>, CallUsage) {
        let mut store = self.store(terms);
        let answer = self.request(&mut store, None, "tools/list", &json!({}));
        let listed = answer.and_then(definitions);
        (listed, CallUsage::of(&store))
    }

    /// Calls one of its tools in a run of its own.
    pub(crate) fn call(
        &self,
        terms: Terms,
        scratch: Option<&Scratch>,
        tool: &str,
        arguments: &Value,
    ) -> (Result<CallResult, CallError>, CallUsage) {
        let limit = terms.limits.output_bytes;
        let mut parameters = json!({ "name": tool, "arguments": arguments });
        let meta = CallContext::meta(terms.idempotency_key.as_deref(), terms.trace.as_deref());
        if !meta.is_empty() {
            parameters["_meta"] = meta.into();
        }
        let mut store = self.store(terms);
        let directory = scratch.map(Scratch::path);
        let answer = self.request(&mut store, directory, "tools/call", &parameters);
        let result = answer.and_then(result).and_then(|result| match result.bytes() {
            bytes if bytes > limit => Err(CallError::OutputTooLarge { limit }),
            _ => Ok(result),
        });
        let used = CallUsage::of(&store).giving(&result);
        (result, used)
    }

    fn request(
        &self,
        store: &mut Store<Guest>,
        scratch: Option<&Path>,
        method: &str,
        parameters: &Value,
    ) -> Result<Value, CallError> {
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": MCP_VERSION, "capabilities": {},
            "clientInfo": { "name": "caxton", "version": env!("CARGO_PKG_VERSION") } } });
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let request = json!({ "jsonrpc": "2.0", "id": REQUEST_ID, "method": method, "params": parameters });
        let input = format!("{hello}\n{ready}\n{request}\n");
        let limit = store.data().terms.limits.output_bytes;
        // JSON may write a byte as six, and the answer to `initialize` comes first.
        let capacity = usize::try_from(limit.saturating_mul(2).saturating_add(64 << 10)).unwrap_or(usize::MAX);
        let (output, complaints) = (MemoryOutputPipe::new(capacity), MemoryOutputPipe::new(STDERR_BYTES_MAX));
        let ran = self.run(store, scratch, MemoryInputPipe::new(input), &output, &complaints);
        store.data_mut().complained(&complaints.contents());
        let output = output.contents();
        match (answer(&output), ran) {
            // A server that answers and then fails to stop has answered.
            (Some(answer), _) => answer,
            (None, Err(_)) if output.len() >= capacity => Err(CallError::OutputTooLarge { limit }),
            (None, Err(error)) => Err(store.data().with_last_words(error)),
            (None, Ok(())) => Err(CallError::BadResult { what: format!("it ended without an answer to {method}") }),
        }
    }

    /// A store for one run of it.
    pub(crate) fn store(&self, terms: Terms) -> Store<Guest> {
        Guest::store(self.pre.module().engine(), terms, true)
    }

    /// Runs it from its start to its end.
    pub(crate) fn run(
        &self,
        store: &mut Store<Guest>,
        scratch: Option<&Path>,
        input: MemoryInputPipe,
        output: &MemoryOutputPipe,
        complaints: &MemoryOutputPipe,
    ) -> Result<(), CallError> {
        let unscratched =
            |error: wasmtime::Error| CallError::Failed { what: format!("no scratch directory: {error:#}") };
        let mut builder = wasi::granted(&store.data().terms.grants, scratch).map_err(unscratched)?;
        let context = builder.stdin(input).stdout(output.clone()).stderr(complaints.clone()).build_p1();
        store.data_mut().give_p1(context);
        if let Some(directory) = scratch {
            store.data_mut().watch_scratch(directory);
        }
        let (left, late) = (store.data().stop.left(), store.data().stop.timed_out());
        let runtime = store.data().terms.fetcher.runtime().clone();
        let cancelled = store.data().terms.cancelled.clone();
        let outcome: wasmtime::Result<()> = runtime.block_on(async {
            let run = async {
                let instance = self.pre.instantiate_async(&mut *store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
                start.call_async(&mut *store, ()).await
            };
            tokio::select! {
                outcome = run => outcome,
                () = tokio::time::sleep(left) => Err(Stopped(late).into()),
                () = until(&cancelled) => Err(Stopped(CallError::Cancelled).into()),
            }
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(0)) => Ok(()),
                Some(I32Exit(status)) => Err(CallError::Failed { what: format!("it ended with status {status}") }),
                None => Err(explain(&error, store.data())),
            },
        }
    }
}

/// The answer to the request, in a server's output of one message a line.
fn answer(output: &[u8]) -> Option<Result<Value, CallError>> {
    let mut message = output.split(|byte| *byte == b'\n').find_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        (message.get("id").and_then(Value::as_u64) == Some(REQUEST_ID)).then_some(message)
    })?;
    if let Some(result) = message.get_mut("result") {
        return Some(Ok(result.take()));
    }
    let error = message.get("error").cloned().unwrap_or_default();
    let what = error.get("message").and_then(Value::as_str).unwrap_or("no result and no error").to_string();
    Some(Err(match error.get("code").and_then(Value::as_i64) {
        // JSON-RPC's "invalid params".
        Some(-32602) => CallError::InvalidArguments { problems: vec![what] },
        _ => CallError::Failed { what },
    }))
}

/// What MCP's list of tools tells of each.
pub(crate) fn definitions(mut answer: Value) -> Result<Vec<FunctionReading>, CallError> {
    match answer.get_mut("tools").map(Value::take) {
        Some(Value::Array(tools)) => {
            Ok(tools.into_iter().enumerate().map(|(number, entry)| definitions::told(entry, number)).collect())
        }
        Some(_) | None => Err(CallError::BadResult { what: "its answer to tools/list has no list of tools".into() }),
    }
}

/// MCP's result of a call, as ours.
pub(crate) fn result(answer: Value) -> Result<CallResult, CallError> {
    let bad = |what: &str| CallError::BadResult { what: what.to_string() };
    let Value::Object(mut answer) = answer else { return Err(bad("the result is not an object")) };
    let blocks = match answer.remove("content") {
        Some(Value::Array(blocks)) => blocks,
        None => Vec::new(),
        Some(_) => return Err(bad("`content` is not a list")),
    };
    Ok(CallResult {
        content: blocks.into_iter().map(block).collect(),
        // Servers of other languages write what is not there as null.
        structured: answer.remove("structuredContent").filter(|structured| !structured.is_null()),
        is_error: answer.get("isError").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// One block; what is none that MCP knows is named, so that the rest of the result is not lost with it.
fn block(mut block: Value) -> Content {
    let text = |key: &str| block.get(key).and_then(Value::as_str);
    let kind = text("type").unwrap_or_default().to_owned();
    let bytes = || Some((text("mimeType")?.to_string(), base64::decode(text("data")?)?));
    let known = match kind.as_str() {
        "text" => text("text").map(|text| Content::Text { text: text.to_string() }),
        "image" => bytes().map(|(mime, data)| Content::Image { mime, data }),
        "audio" => bytes().map(|(mime, data)| Content::Audio { mime, data }),
        "resource" => block.get_mut("resource").map(|resource| Content::Embedded { resource: resource.take() }),
        "resource_link" => return Content::Embedded { resource: block },
        _ => None,
    };
    known.unwrap_or_else(|| {
        let kind: String = kind.chars().filter(|c| !c.is_control()).take(40).collect();
        Content::Text { text: format!("[a block of the kind `{kind}`, which cannot be read]") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_among_other_lines() {
        let output = b"noise\n{\"id\":1,\"result\":{}}\n{\"method\":\"log\"}\n{\"id\":2,\"result\":{\"x\":1}}\n";
        assert_eq!(answer(output), Some(Ok(json!({ "x": 1 }))));
        assert_eq!(answer(b"{\"id\":1,\"result\":{}}\n"), None);
        let refused = answer(b"{\"id\":2,\"error\":{\"code\":-32602,\"message\":\"no\"}}");
        assert_eq!(refused, Some(Err(CallError::InvalidArguments { problems: vec!["no".into()] })));
    }

    #[test]
    fn a_result_that_mcp_does_not_know_is_refused() {
        for nonsense in [json!(1), json!({ "content": 1 })] {
            assert!(matches!(result(nonsense), Err(CallError::BadResult { .. })));
        }
        let fine = result(json!({ "content": [{ "type": "text", "text": "a" }], "isError": true })).unwrap();
        assert!(fine.is_error && fine.text() == "a");
    }

    #[test]
    fn a_block_that_cannot_be_read_is_named_and_the_others_are_there() {
        for odd in [
            json!({ "type": "image", "data": "!" }),
            json!({ "type": "video", "url": "x" }),
            json!({ "type": "text" }),
            json!({}),
            json!(null),
        ] {
            let result = result(json!({ "content": [odd, { "type": "text", "text": "here" }] })).unwrap();
            let text = result.text();
            assert!(text.contains("which cannot be read") && text.ends_with("here"), "{odd}: {text}");
        }
        let null = result(json!({ "content": [], "structuredContent": null })).unwrap();
        assert_eq!(null.structured, None);
    }
}
