//! Plain core modules that are agents: JSON in their memory, and what they import is in the module `caxton`.
//!
//! The module exports
//! - `memory`
//! - `alloc(length: i32) -> i32`: where the host may write that many bytes
//! - `handle_message(pointer: i32, length: i32) -> i32`: given a message as JSON, gives 0 once it is handled, 1 where it is
//!   not understood, 2 where it is refused, and any other number where handling it failed
//!
//! It may import `send`, `call_tool` (also as `mcp_call`), `ask_model`, `remember`, `recall`, `state_get`, `state_set`,
//! `state_delete` and `state_keys`, each `(pointer: i32, length: i32) -> i64`: given JSON, they give
//! `pointer << 32 | length` of `{"ok": ..}` or `{"error": ".."}`, for which `alloc` was asked. `log(level: i32, pointer: i32,
//! length: i32)` writes a line (0 debug, 1 info, 2 warn, 3 error), and `reason(pointer: i32, length: i32)` says why the
//! message is not handled.

use super::asking::{ask, exchange};
use super::outcome::{AgentOutcome, HandlingError, finish, send};
use crate::exchange::{Exchange, HostRefusal, Question, RECALL_MAX};
use crate::guest::{CallUsage, Guest, LogLevel, Stopped, Terms, explain};
use crate::tool::CallError;
use caxton_proto::acl::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use wasmtime::{Caller, Engine, Extern, InstancePre, Linker, Memory, Module, Store};

/// The longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 1 << 10;
/// The module that everything is imported from.
const CAXTON: &str = "caxton";

/// A module that is linked and ready to be instantiated.
pub(crate) struct AgentModule {
    pre: InstancePre<Guest>,
}

/// A function of the host's: JSON in, a value or a refusal out; the outer error ends the call.
type HostFunction = fn(&mut Guest, &[u8]) -> wasmtime::Result<Result<Value, HostRefusal>>;

const FUNCTIONS: [(&str, HostFunction); 10] = [
    ("send", |guest, json| {
        let read = Message::from_json(json).map(|(message, _)| message);
        let read = read.map_err(|error| HostRefusal::new(error.to_string()));
        Ok(send(guest, read)?.map(|()| Value::Null))
    }),
    ("call_tool", call_tool),
    ("mcp_call", call_tool),
    ("ask_model", |guest, json| {
        #[derive(Deserialize)]
        struct Asked {
            prompt: String,
            system: Option<String>,
            tokens_max: Option<u32>,
        }
        let asked: Asked = match read(json) {
            Ok(asked) => asked,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Asked { prompt, system, tokens_max } = asked;
        Ok(ask(guest, |host| host.ask_model(Question { system, prompt, tokens_max }))?.map(Value::String))
    }),
    ("remember", |guest, json| {
        #[derive(Deserialize)]
        struct Remembered {
            text: String,
        }
        let remembered: Remembered = match read(json) {
            Ok(remembered) => remembered,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(ask(guest, |host| host.remember(remembered.text))?.map(|()| Value::Null))
    }),
    ("recall", |guest, json| {
        #[derive(Deserialize)]
        struct Recalled {
            query: String,
            limit: Option<u32>,
        }
        let recalled: Recalled = match read(json) {
            Ok(recalled) => recalled,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let count = recalled.limit.unwrap_or(RECALL_MAX).min(RECALL_MAX);
        Ok(ask(guest, |host| host.recall(recalled.query, count))?.map(Value::from))
    }),
    ("state_get", |guest, json| key(json, |key| Ok(Ok(exchange(guest)?.get(&key).map_or(Value::Null, Value::String))))),
    ("state_set", |guest, json| {
        #[derive(Deserialize)]
        struct Change {
            key: String,
            value: String,
        }
        match read::<Change>(json) {
            Ok(Change { key, value }) => Ok(exchange(guest)?.set(key, value).map(|()| Value::Null)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }),
    ("state_delete", |guest, json| {
        key(json, |key| {
            exchange(guest)?.delete(&key);
            Ok(Ok(Value::Null))
        })
    }),
    ("state_keys", |guest, json| {
        #[derive(Deserialize)]
        struct Wanted {
            #[serde(default)]
            prefix: String,
        }
        match read::<Wanted>(json) {
            Ok(wanted) => Ok(Ok(Value::from(exchange(guest)?.keys(&wanted.prefix)))),
            Err(refusal) => Ok(Err(refusal)),
        }
    }),
];

fn call_tool(guest: &mut Guest, json: &[u8]) -> wasmtime::Result<Result<Value, HostRefusal>> {
    #[derive(Deserialize)]
    struct Call {
        name: String,
        #[serde(default)]
        arguments: Value,
    }
    let call: Call = match read(json) {
        Ok(call) => call,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let called = ask(guest, |host| host.call_tool(call.name, call.arguments))?;
    Ok(called
        .map(|result| json!({ "text": result.text(), "structured": result.structured, "is_error": result.is_error })))
}

fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, HostRefusal> {
    serde_json::from_slice(json).map_err(|error| HostRefusal::new(format!("that is not what it takes: {error}")))
}

fn key(
    json: &[u8],
    used: impl FnOnce(String) -> wasmtime::Result<Result<Value, HostRefusal>>,
) -> wasmtime::Result<Result<Value, HostRefusal>> {
    #[derive(Deserialize)]
    struct Key {
        key: String,
    }
    match read::<Key>(json) {
        Ok(Key { key }) => used(key),
        Err(refusal) => Ok(Err(refusal)),
    }
}

impl AgentModule {
    /// Links a module, or says what it lacks.
    pub(super) fn new(engine: &Engine, module: &Module) -> Result<AgentModule, String> {
        for import in module.imports() {
            let (from, name) = (import.module(), import.name());
            let known = ["log", "reason"].contains(&name) || FUNCTIONS.iter().any(|(known, _)| *known == name);
            if from != CAXTON || !known {
                let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).chain(["log", "reason"]).collect();
                let known = names.join(", ");
                return Err(format!("it imports `{from}.{name}`; what an agent is given is in `{CAXTON}`: {known}"));
            }
        }
        for export in ["memory", "alloc", "handle_message"] {
            if module.get_export(export).is_none() {
                return Err(format!("it exports no `{export}`"));
            }
        }
        let mut linker = Linker::new(engine);
        link(&mut linker).map_err(|error| format!("{error:#}"))?;
        let pre = linker.instantiate_pre(module).map_err(|error| format!("{error:#}"))?;
        Ok(AgentModule { pre })
    }

    /// Handles one message in a fresh instance.
    pub(super) fn handle(
        &self,
        terms: Terms,
        exchange: Exchange,
        message: &str,
    ) -> (Result<AgentOutcome, HandlingError>, CallUsage) {
        let mut store = Guest::store(self.pre.module().engine(), terms, false);
        store.data_mut().exchange = Some(Box::new(exchange));
        let status = self.run(&mut store, message.as_bytes());
        let status = status.unwrap_or_else(|error| Err(explain(&error, store.data())));
        let reason = store.data_mut().exchange.as_mut().and_then(|exchange| exchange.reason.take());
        let why = reason.unwrap_or_else(|| "it gives no reason".to_owned());
        let taken = status.map_err(HandlingError::Call).and_then(|status| match status {
            0 => Ok(()),
            1 => Err(HandlingError::NotUnderstood { why }),
            2 => Err(HandlingError::Refused { why }),
            other => Err(CallError::Failed { what: format!("`handle_message` gave {other}: {why}") }.into()),
        });
        finish(store, taken)
    }

    /// The outer error is a trap, the inner one a nonsensical answer.
    fn run(&self, store: &mut Store<Guest>, message: &[u8]) -> wasmtime::Result<Result<i32, CallError>> {
        let bad = |what: &str| Ok(Err(CallError::BadResult { what: what.to_string() }));
        let instance = self.pre.instantiate(&mut *store)?;
        let Some(memory) = instance.get_memory(&mut *store, "memory") else { return bad("`memory` is not a memory") };
        let alloc = instance.get_typed_func::<u32, u32>(&mut *store, "alloc")?;
        let handle = instance.get_typed_func::<(u32, u32), i32>(&mut *store, "handle_message")?;
        let Ok(length) = u32::try_from(message.len()) else { return bad("the message is too large") };
        let pointer = alloc.call(&mut *store, length)?;
        if memory.write(&mut *store, pointer as usize, message).is_err() {
            return bad("`alloc` gave memory that is not there");
        }
        Ok(Ok(handle.call(&mut *store, (pointer, length))?))
    }
}

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for (name, function) in FUNCTIONS {
        linker.func_wrap(CAXTON, name, move |mut caller: Caller<'_, Guest>, pointer: u32, length: u32| {
            let json = bytes(&mut caller, pointer, length)?;
            let answer = match function(caller.data_mut(), &json)? {
                Ok(value) => json!({ "ok": value }),
                Err(refusal) => json!({ "error": refusal.why }),
            };
            give(&mut caller, answer.to_string().as_bytes())
        })?;
    }
    linker.func_wrap(CAXTON, "log", |mut caller: Caller<'_, Guest>, level: i32, pointer: u32, length: u32| {
        let line = bytes(&mut caller, pointer, length)?;
        let level = match level {
            0 => LogLevel::Debug,
            2 => LogLevel::Warn,
            3 => LogLevel::Error,
            _ => LogLevel::Info,
        };
        caller.data_mut().log(level, &String::from_utf8_lossy(&line));
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap(CAXTON, "reason", |mut caller: Caller<'_, Guest>, pointer: u32, length: u32| {
        let mut said = bytes(&mut caller, pointer, length)?;
        said.truncate(REASON_BYTES_MAX);
        let said = String::from_utf8_lossy(&said).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        exchange(caller.data_mut())?.reason = Some(said);
        wasmtime::Result::Ok(())
    })?;
    Ok(())
}

fn nonsense(what: &str) -> wasmtime::Error {
    Stopped(CallError::BadResult { what: what.to_owned() }).into()
}

fn memory(caller: &mut Caller<'_, Guest>) -> wasmtime::Result<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory).ok_or_else(|| nonsense("`memory` is not a memory"))
}

/// The bytes that the guest names, if they are there and no more than it may hand over.
fn bytes(caller: &mut Caller<'_, Guest>, pointer: u32, length: u32) -> wasmtime::Result<Vec<u8>> {
    let limit = caller.data().terms.limits.output_bytes;
    if u64::from(length) > limit {
        return Err(Stopped(CallError::OutputTooLarge { limit }).into());
    }
    let memory = memory(caller)?;
    let start = pointer as usize;
    let found = memory.data(&*caller).get(start..start.saturating_add(length as usize)).map(<[u8]>::to_vec);
    found.ok_or_else(|| nonsense("what it gives the host lies outside of its memory"))
}

/// Writes an answer to where `alloc` says.
fn give(caller: &mut Caller<'_, Guest>, answer: &[u8]) -> wasmtime::Result<u64> {
    let alloc =
        caller.get_export("alloc").and_then(Extern::into_func).ok_or_else(|| nonsense("it exports no `alloc`"))?;
    let alloc = alloc.typed::<u32, u32>(&*caller)?;
    let length = u32::try_from(answer.len()).map_err(|_| nonsense("an answer is too large for it"))?;
    let pointer = alloc.call(&mut *caller, length)?;
    let written = memory(caller)?.write(&mut *caller, pointer as usize, answer);
    written.map_err(|_| nonsense("`alloc` gave memory that is not there"))?;
    Ok(u64::from(pointer) << 32 | u64::from(length))
}
