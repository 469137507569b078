//! Plain core modules: `alloc`, `handle_tool_call`, a memory, and nothing imported.
//!
//! The module exports
//! - `memory`
//! - `alloc(length: i32) -> i32`: where the host may write that many bytes
//! - `handle_tool_call(pointer: i32, length: i32) -> i64`: given an MCP request (`{"method": "tools/list"}`, or
//!   `{"method": "tools/call", "params": {"name": .., "arguments": ..}}`), gives MCP's result as
//!   `pointer << 32 | length`.

use crate::command;
use crate::definitions::FunctionReading;
use crate::guest::{CallUsage, Guest, Terms, explain};
use crate::tool::{CallError, CallResult};
use serde_json::{Value, json};
use wasmtime::{Engine, InstancePre, Linker, Module, Store};

/// A module that is linked and ready to be instantiated.
pub(crate) struct LinkedModule {
    pre: InstancePre<Guest>,
}

impl LinkedModule {
    /// Links a module, or says what it lacks.
    pub(crate) fn new(engine: &Engine, module: &Module) -> Result<LinkedModule, String> {
        if let Some(import) = module.imports().next() {
            let (from, name) = (import.module(), import.name());
            return Err(format!("it imports `{from}.{name}`, and a core module gets no imports"));
        }
        for export in ["memory", "alloc", "handle_tool_call"] {
            if module.get_export(export).is_none() {
                return Err(format!("it exports no `{export}`"));
            }
        }
        let pre = Linker::new(engine).instantiate_pre(module).map_err(|error| format!("{error:#}"))?;
        Ok(LinkedModule { pre })
    }

    /// Asks for its tools.
    pub(crate) fn list(&self, terms: Terms) -> (Result<Vec<FunctionReading>, CallError>, CallUsage) {
        let (answer, used) = self.request(terms, &json!({ "method": "tools/list" }));
        (answer.and_then(command::definitions), used)
    }

    /// Calls one of its tools in a fresh instance.
    pub(crate) fn call(
        &self,
        terms: Terms,
        tool: &str,
        arguments: &Value,
    ) -> (Result<CallResult, CallError>, CallUsage) {
        let request = json!({ "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
        let (answer, used) = self.request(terms, &request);
        let result = answer.and_then(command::result);
        let used = used.giving(&result);
        (result, used)
    }

    fn request(&self, terms: Terms, request: &Value) -> (Result<Value, CallError>, CallUsage) {
        let limit = terms.limits.output_bytes;
        let mut store = Guest::store(self.pre.module().engine(), terms, false);
        let answered = match self.run(&mut store, request.to_string().as_bytes(), limit) {
            Ok(answered) => answered,
            Err(error) => Err(explain(&error, store.data())),
        };
        (answered, CallUsage::of(&store))
    }

    /// The outer error is a trap, the inner one a nonsensical answer.
    fn run(&self, store: &mut Store<Guest>, request: &[u8], limit: u64) -> wasmtime::Result<Result<Value, CallError>> {
        let bad = |what: &str| Ok(Err(CallError::BadResult { what: what.to_string() }));
        let instance = self.pre.instantiate(&mut *store)?;
        let Some(memory) = instance.get_memory(&mut *store, "memory") else { return bad("`memory` is not a memory") };
        let alloc = instance.get_typed_func::<u32, u32>(&mut *store, "alloc")?;
        let handle = instance.get_typed_func::<(u32, u32), u64>(&mut *store, "handle_tool_call")?;
        let Ok(length) = u32::try_from(request.len()) else { return bad("the request is too large") };
        let pointer = alloc.call(&mut *store, length)?;
        if memory.write(&mut *store, pointer as usize, request).is_err() {
            return bad("`alloc` gave memory that is not there");
        }
        let packed = handle.call(&mut *store, (pointer, length))?;
        let (start, length) = ((packed >> 32) as usize, (packed & 0xffff_ffff) as usize);
        if length as u64 > limit {
            return Ok(Err(CallError::OutputTooLarge { limit }));
        }
        let Some(answer) = memory.data(&*store).get(start..start.saturating_add(length)) else {
            return bad("its answer lies outside of its memory");
        };
        Ok(serde_json::from_slice(answer)
            .map_err(|error| CallError::BadResult { what: format!("its answer is not JSON: {error}") }))
    }
}
