//! The host's side of `caxton:agent`: what a component that is an agent may import beside WASI.

use super::asking::{ask, exchange};
use super::outcome::send;
use super::wit::WitMessage;
use crate::exchange::{HostRefusal, Question};
use crate::guest::{Guest, LogLevel};
use serde_json::Value;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

/// The interfaces that an agent's component may import; the types are those of messages.
pub(super) const INTERFACES: [&str; 7] = [
    "caxton:agent/mailbox@0.1.0",
    "caxton:agent/tools@0.1.0",
    "caxton:agent/models@0.1.0",
    "caxton:agent/memory@0.1.0",
    "caxton:agent/state@0.1.0",
    "caxton:agent/log@0.1.0",
    "caxton:agent/types@0.1.0",
];

#[derive(ComponentType, Lift, Clone, Copy)]
#[allow(dead_code, reason = "its values come from guests")]
#[component(enum)]
#[repr(u8)]
enum WitLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct WitToolResult {
    text: String,
    structured: Option<String>,
    #[component(name = "is-error")]
    is_error: bool,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WitQuestion {
    system: Option<String>,
    prompt: String,
    #[component(name = "tokens-max")]
    tokens_max: Option<u32>,
}

type Store<'a> = StoreContextMut<'a, Guest>;

fn told<T>(answer: Result<T, HostRefusal>) -> Result<T, String> {
    answer.map_err(|refusal| refusal.why)
}

/// Links everything that an agent's component may import.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let [mailbox, tools, models, memory, state, log, _] = INTERFACES;
    linker.instance(mailbox)?.func_wrap("send", |mut store: Store<'_>, (message,): (WitMessage,)| {
        Ok((told(send(store.data_mut(), message.read())?),))
    })?;
    linker.instance(tools)?.func_wrap("call-tool", |mut store: Store<'_>, (name, json): (String, String)| {
        let arguments = match serde_json::from_str::<Value>(&json) {
            Ok(arguments) => arguments,
            Err(error) => return Ok((Err(format!("the arguments are not JSON: {error}")),)),
        };
        let called = ask(store.data_mut(), |host| host.call_tool(name, arguments))?;
        Ok((told(called).map(|result| WitToolResult {
            text: result.text(),
            structured: result.structured.map(|value| value.to_string()),
            is_error: result.is_error,
        }),))
    })?;
    linker.instance(models)?.func_wrap("ask-model", |mut store: Store<'_>, (question,): (WitQuestion,)| {
        let WitQuestion { system, prompt, tokens_max } = question;
        let question = Question { system, prompt, tokens_max };
        Ok((told(ask(store.data_mut(), |host| host.ask_model(question))?),))
    })?;
    linker.instance(memory)?.func_wrap("remember", |mut store: Store<'_>, (text,): (String,)| {
        Ok((told(ask(store.data_mut(), |host| host.remember(text))?),))
    })?;
    linker.instance(memory)?.func_wrap("recall", |mut store: Store<'_>, (query, count): (String, u32)| {
        let count = count.min(crate::exchange::RECALL_MAX);
        Ok((told(ask(store.data_mut(), |host| host.recall(query, count))?),))
    })?;
    link_state(&mut linker.instance(state)?)?;
    linker.instance(log)?.func_wrap("write", |mut store: Store<'_>, (level, line): (WitLevel, String)| {
        let level = match level {
            WitLevel::Debug => LogLevel::Debug,
            WitLevel::Info => LogLevel::Info,
            WitLevel::Warn => LogLevel::Warn,
            WitLevel::Error => LogLevel::Error,
        };
        store.data_mut().log(level, &line);
        Ok(())
    })
}

fn link_state(state: &mut wasmtime::component::LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    state.func_wrap("get", |mut store: Store<'_>, (key,): (String,)| Ok((exchange(store.data_mut())?.get(&key),)))?;
    state.func_wrap("set", |mut store: Store<'_>, (key, value): (String, String)| {
        Ok((told(exchange(store.data_mut())?.set(key, value)),))
    })?;
    state.func_wrap("delete", |mut store: Store<'_>, (key,): (String,)| {
        exchange(store.data_mut())?.delete(&key);
        Ok(())
    })?;
    state.func_wrap("keys", |mut store: Store<'_>, (prefix,): (String,)| {
        Ok((exchange(store.data_mut())?.keys(&prefix),))
    })
}
