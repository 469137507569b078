//! Tools written for tests, as WebAssembly text, and a sandbox to load them into.

#![allow(dead_code)]

use caxton_tools::{
    CallContext, FinishedCall, Grants, Kind, Limits, LoadError, Sandbox, SandboxedTool, Settings, Spec, Tool, examples,
};
use serde_json::Value;
use std::error::Error;
use tokio::runtime::Runtime;

/// A sandbox and the runtime that it needs.
pub struct Bench {
    pub runtime: Runtime,
    pub sandbox: Sandbox,
}

impl Bench {
    pub fn new(settings: Settings) -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sandbox = Sandbox::new(settings, runtime.handle().clone());
        Bench { runtime, sandbox }
    }

    pub fn load(&self, kind: Kind, wat: &str, limits: Limits, grants: Grants) -> Result<SandboxedTool, LoadError> {
        self.load_bytes(kind, &wat::parse_str(wat).unwrap(), limits, grants)
    }

    pub fn load_bytes(
        &self,
        kind: Kind,
        wasm: &[u8],
        limits: Limits,
        grants: Grants,
    ) -> Result<SandboxedTool, LoadError> {
        self.sandbox.load(Spec { name: "test".into(), kind, grants, limits }, wasm)
    }

    pub fn component(&self, core: &str, limits: Limits, grants: Grants) -> Result<SandboxedTool, LoadError> {
        self.load_bytes(Kind::Component, &componentize(core), limits, grants)
    }

    pub fn call(&self, tool: &SandboxedTool, name: &str, arguments: Value) -> FinishedCall {
        self.runtime.block_on(tool.call(name, arguments, CallContext::default()))
    }
}

/// Calls the tool `t`.
pub async fn call(tool: SandboxedTool, arguments: Value) -> FinishedCall {
    tool.call("t", arguments, CallContext::default()).await
}

/// An error with its causes.
pub fn chain(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A core module for a component with one tool, `t`, whose call runs `body`; the body leaves the address of its result.
/// It may use `$nothing`, `$deep` and the global `$g`.
pub fn body_component(body: &str) -> String {
    format!(
        r#"(module
  (memory (export "memory") 2)
  (global $g (mut i32) (i32.const 0))
  (data (i32.const 1024) "t")
  (data (i32.const 1040) "{{\22type\22:\22object\22}}")
  (func $nothing)
  (func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "cabi_post_caxton:tool/tools@0.1.0#list-tools") (param i32))
  (func (export "cabi_post_caxton:tool/tools@0.1.0#call-tool") (param i32))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "caxton:tool/tools@0.1.0#list-tools") (result i32)
    ;; one tool: name, title, description, input schema, output schema, annotations
    (i32.store (i32.const 2048) (i32.const 1024)) (i32.store (i32.const 2052) (i32.const 1))
    (i32.store8 (i32.const 2056) (i32.const 0))
    (i32.store (i32.const 2068) (i32.const 1024)) (i32.store (i32.const 2072) (i32.const 1))
    (i32.store (i32.const 2076) (i32.const 1040)) (i32.store (i32.const 2080) (i32.const 17))
    (i32.store8 (i32.const 2084) (i32.const 0)) (i32.store8 (i32.const 2096) (i32.const 0))
    (i32.store (i32.const 16) (i32.const 2048)) (i32.store (i32.const 20) (i32.const 1))
    (i32.const 16))
  (func (export "caxton:tool/tools@0.1.0#call-tool") (param i32 i32 i32 i32) (result i32) {body}))"#
    )
}

/// The component of such a module: that of an example, with this module in the place of its own.
pub fn componentize(core: &str) -> Vec<u8> {
    let (template, module) = (examples::CSV_READER, wat::parse_str(core).unwrap());
    let mut modules = wasmparser::Parser::new(0).parse_all(template).filter_map(|payload| match payload.unwrap() {
        wasmparser::Payload::ModuleSection { unchecked_range, .. } => Some(unchecked_range),
        _ => None,
    });
    let own = modules.next().unwrap();
    assert!(modules.next().is_none(), "the example has one core module, or this does not work");
    // A section is its id, its length as LEB128, and its content; the length is rewritten with the content.
    let length_bytes = leb128(own.len()).len();
    let section = own.start - length_bytes;
    assert_eq!(template[section..own.start], leb128(own.len()));
    [&template[..section], &leb128(module.len()), &module, &template[own.end..]].concat()
}

/// A number as WebAssembly writes lengths.
pub fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// A body that answers with one text block, which is these bytes of the memory.
pub fn text_result(address: &str, length: &str) -> String {
    format!(
        "(i32.store8 (i32.const 4096) (i32.const 0))
         (i32.store (i32.const 4100) (i32.const 4200)) (i32.store (i32.const 4104) (i32.const 1))
         (i32.store8 (i32.const 4108) (i32.const 0)) (i32.store8 (i32.const 4120) (i32.const 0))
         (i32.store8 (i32.const 4200) (i32.const 0))
         (i32.store (i32.const 4204) (i32.const {address})) (i32.store (i32.const 4208) (i32.const {length}))
         (i32.const 4096)"
    )
}

/// A core module whose every answer is what `body` leaves.
pub fn core_module(body: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 2)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "handle_tool_call") (param i32 i32) (result i64) {body}))"#
    )
}

const P1: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 1024) "{\22jsonrpc\22:\222.0\22,\22id\22:2,\22result\22:{\22tools\22:[{\22name\22:\22t\22}],\22content\22:[{\22type\22:\22text\22,\22text\22:\22E A P O\22}]}}\n")
  (data (i32.const 3000) "/etc/passwd") (data (i32.const 3100) "../mark")
  (func $digit (param i32 i32) (i32.store8 (local.get 0) (i32.add (i32.const 48) (local.get 1))))
  (func $answer
    (i32.store (i32.const 8) (i32.const 1024)) (i32.store (i32.const 12) (i32.const 110))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16))))"#;

/// A WASI command that answers every request with four digits, one of each of these expressions.
pub fn digits(expressions: [&str; 4]) -> String {
    let template = "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"tools\":[{\"name\":\"t\"}],\"content\":[{\"type\":\"text\",\"text\":\"";
    let at = 1024 + template.len();
    let p1 = P1.replace("(i32.const 110)", &format!("(i32.const {})", snooper_length()));
    let [a, b, c, d] = expressions;
    format!(
        r#"(module {p1}
  (func (export "_start")
    (call $digit (i32.const {at}) {a}) (call $digit (i32.const {}) {b})
    (call $digit (i32.const {}) {c}) (call $digit (i32.const {}) {d})
    (call $answer)))"#,
        at + 2,
        at + 4,
        at + 6
    )
}

/// Opens a path below the first folder that it was given, and leaves the error, 0 for none.
pub fn open(path: u32, length: u32, flags: u32) -> String {
    format!(
        "(call $open (i32.const 3) (i32.const 1) (i32.const {path}) (i32.const {length}) (i32.const {flags})
          (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 88))"
    )
}

/// A WASI command that answers with what it can see of the machine: how many variables and arguments it has, and the
/// errors of the first folder and of a file's path.
pub fn snooper() -> String {
    digits([
        "(block (result i32) (drop (call $environ (i32.const 64) (i32.const 68))) (i32.load (i32.const 64)))",
        "(block (result i32) (drop (call $args (i32.const 72) (i32.const 76))) (i32.load (i32.const 72)))",
        "(call $prestat (i32.const 3) (i32.const 80))",
        &open(3000, 11, 0),
    ])
}

/// A WASI command that leaves a file and a link to `/etc/passwd` in its folder, and answers with whether it found the
/// file there already, and whether it reached a file outside by a path, by going up, and by the link.
pub fn scribbler() -> String {
    let reached = |path: &str| format!("(i32.eqz {path})");
    digits([
        &format!("(i32.ne {} (i32.const 0))", open(3103, 4, 5)),
        &reached(&open(3000, 11, 0)),
        &reached(&open(3100, 7, 1)),
        &format!(
            "(block (result i32)
              (drop (call $symlink (i32.const 3000) (i32.const 11) (i32.const 3) (i32.const 3001) (i32.const 3)))
              {})",
            reached(&open(3001, 3, 0))
        ),
    ])
}

/// A WASI command that writes megabytes to its standard error, line breaks and escapes among them, and then answers.
pub fn chatterbox() -> String {
    let p1 = P1.replace("(i32.const 110)", &format!("(i32.const {})", snooper_length()));
    format!(
        r#"(module {p1}
  (data (i32.const 5000) "a line \1b[31m that is red\n")
  (func (export "_start") (local $i i32)
    (i32.store (i32.const 8) (i32.const 5000)) (i32.store (i32.const 12) (i32.const 25))
    (loop $more
      (drop (call $fd_write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 16)))
      (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000))))
    (call $answer)))"#
    )
}

/// A WASI command that lists its tools and, when it is asked to call one, sleeps for a day.
pub fn sleeper() -> String {
    let length = snooper_length();
    let p1 = P1.replace("(i32.const 110)", &format!("(i32.const {length})"));
    format!(
        r#"(module {p1}
  (func (export "_start")
    (i32.store (i32.const 8) (i32.const 8192)) (i32.store (i32.const 12) (i32.const 8000))
    (drop (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))
    ;; "tools/list" is shorter than "tools/call" with its parameters.
    (if (i32.gt_u (i32.load (i32.const 16)) (i32.const 275)) (then
      (i64.store (i32.const 128) (i64.const 0)) (i32.store8 (i32.const 136) (i32.const 0))
      (i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const 86400000000000))
      (drop (call $poll (i32.const 128) (i32.const 512) (i32.const 1) (i32.const 96)))))
    (call $answer)))"#
    )
}

/// What a guest imports that fills its folder.
const FILES: &str = r#"
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))"#;

/// A WASI command that lists its tools, and does this when it is asked to call one. It may use `$fd` and `$i`, and the
/// name of three letters at 3200.
fn when_called(body: &str) -> String {
    let p1 = P1.replace("(i32.const 110)", &format!("(i32.const {})", snooper_length()));
    // Imports come first.
    let p1 = format!("{FILES}{p1}");
    format!(
        r#"(module {p1}
  (data (i32.const 3200) "aaa")
  (func $create (result i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 3200) (i32.const 3) (i32.const 1)
      (i64.const 0x1fffffff) (i64.const 0) (i32.const 0) (i32.const 3300)))
    (i32.load (i32.const 3300)))
  (func (export "_start") (local $fd i32) (local $i i32)
    (i32.store (i32.const 8) (i32.const 8192)) (i32.store (i32.const 12) (i32.const 8000))
    (drop (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))
    (if (i32.gt_u (i32.load (i32.const 16)) (i32.const 275)) (then {body}))
    (call $answer)))"#
    )
}

/// A WASI command that writes without end to a file of its folder, which it removes first if told to.
pub fn filler(removed: bool) -> String {
    let remove = "(drop (call $unlink (i32.const 3) (i32.const 3200) (i32.const 3)))";
    when_called(&format!(
        "(local.set $fd (call $create)) {}
         (i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 65536))
         (loop $more (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16))) (br $more))",
        if removed { remove } else { "" }
    ))
}

/// A WASI command that makes files without end, and closes each.
pub fn sower() -> String {
    when_called(
        "(loop $more
          (i32.store8 (i32.const 3200) (i32.add (i32.const 97) (i32.rem_u (local.get $i) (i32.const 26))))
          (i32.store8 (i32.const 3201) (i32.add (i32.const 97) (i32.rem_u (i32.div_u (local.get $i) (i32.const 26)) (i32.const 26))))
          (i32.store8 (i32.const 3202) (i32.add (i32.const 97) (i32.rem_u (i32.div_u (local.get $i) (i32.const 676)) (i32.const 26))))
          (drop (call $close (call $create)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $more))",
    )
}

/// A WASI command that opens one file without end, and closes none.
pub fn opener() -> String {
    when_called("(loop $more (drop (call $create)) (br $more))")
}

fn snooper_length() -> usize {
    "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"tools\":[{\"name\":\"t\"}],\"content\":[{\"type\":\"text\",\"text\":\"E A P O\"}]}}\n".len()
}
