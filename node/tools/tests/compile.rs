//! Compiling is bounded, and what is kept is only run when it is ours.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use caxton_tools::{CompileLimits, Compiler, Grants, Kind, Limits, Settings, compile_child_main};
use common::*;
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Not a test: what the compiling process runs. It exits before the harness says anything.
#[test]
#[ignore = "the compiling process of the other tests"]
fn compiling_process() {
    let done = compile_child_main();
    std::process::exit(i32::from(done != ExitCode::SUCCESS) * 3);
}

fn settings(cache: &Path) -> Settings {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "compiling_process", "--ignored", "--nocapture"].map(Into::into).to_vec();
    Settings {
        cache: Some(cache.to_owned()),
        compiler: Compiler::Process { program, arguments },
        ..Settings::default()
    }
}

/// A function of a few kilobytes that register allocation takes very long for: many locals alive through many blocks.
fn bomb(locals: usize, blocks: usize, block: &str) -> String {
    let mut body = String::new();
    for local in 0..locals {
        write!(body, "(local.set {local} (i32.add (local.get {local}) (i32.const 1)))").unwrap();
    }
    let body = match block {
        "loop" => format!("{}{body}{}", "(loop ".repeat(blocks), "(br_if 0 (local.get 0)))".repeat(blocks)),
        _ => format!("(if (local.get 0) (then {body}))").repeat(blocks),
    };
    let params = "i32 ".repeat(locals);
    core_module("(i64.const 0)").replace("(memory", &format!("(func (param {params}) {body}) (memory"))
}

#[test]
fn the_process_compiles_and_the_cache_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::new(settings(folder.path()));
    let wat = body_component(&text_result("1024", "1"));
    let tool = bench.component(&wat, Limits::default(), Grants::default()).unwrap();
    assert!(bench.call(&tool, "t", json!({})).result.is_ok());
    let entries = || {
        let mut found: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    let kept = entries();
    assert_eq!(kept.len(), 2, "one entry and the key: {kept:?}");
    // Another sandbox of this installation finds it: a compiler that cannot work is not asked.
    let broken = Compiler::Process { program: "/nonexistent".into(), arguments: Vec::new() };
    let again = Bench::new(Settings { compiler: broken.clone(), ..settings(folder.path()) });
    assert!(again.component(&wat, Limits::default(), Grants::default()).is_ok());

    // One changed byte, and it is made again, or not run at all.
    let entry = kept.iter().find(|path| path.extension().is_some_and(|e| e == "cwasm")).unwrap();
    let whole = fs::read(entry).unwrap();
    for at in [0, 40, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(entry, &changed).unwrap();
        assert!(again.component(&wat, Limits::default(), Grants::default()).is_err(), "byte {at} was not noticed");
        assert!(!entry.exists());
        assert!(bench.component(&wat, Limits::default(), Grants::default()).is_ok());
        assert_eq!(fs::read(entry).unwrap().len(), whole.len());
    }
    // Code of another module under this one's name, and of another installation.
    let other = body_component(&text_result("1024", "0"));
    bench.component(&other, Limits::default(), Grants::default()).unwrap();
    let others = entries().into_iter().find(|path| path != entry && path.extension().is_some()).unwrap();
    fs::copy(&others, entry).unwrap();
    assert!(again.component(&wat, Limits::default(), Grants::default()).is_err());
    fs::write(entry, &whole).unwrap();
    fs::write(folder.path().join("key"), [7; 32]).unwrap();
    let stranger = Bench::new(Settings { compiler: broken, ..settings(folder.path()) });
    assert!(stranger.component(&wat, Limits::default(), Grants::default()).is_err());
}

#[test]
fn bombs_are_refused_or_killed() {
    let folder = tempfile::tempdir().unwrap();
    let limits = CompileLimits { cpu: Duration::from_secs(2), wall: Duration::from_secs(60), ..Default::default() };
    let bench = Bench::new(Settings { compile: limits, ..settings(folder.path()) });
    // The shape that took 165 s is seen at once.
    let started = Instant::now();
    let error = bench.load(Kind::Core, &bomb(500, 300, "loop"), Limits::default(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("nested loops"), "{}", chain(&error));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // The other shape (65 s for 800 blocks of it) is not seen, and killed.
    let error = bench.load(Kind::Core, &bomb(500, 300, "if"), Limits::default(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("processor time"), "{}", chain(&error));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "key"), "the process left something behind: {left:?}");
}

/// Components inside components, `depth` of them.
fn nested(depth: usize) -> Vec<u8> {
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..depth {
        component = [&b"\0asm\x0d\0\x01\0\x04"[..], &leb128(component.len()), &component].concat();
    }
    component
}

#[test]
fn components_inside_components_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let limits = CompileLimits { cpu: Duration::from_secs(3), wall: Duration::from_secs(60), ..Default::default() };
    let bench = Bench::new(Settings { compile: limits, ..settings(folder.path()) });
    let load = |wasm: &[u8]| {
        let error = bench.load_bytes(Kind::Component, wasm, Limits::default(), Grants::default());
        chain(&error.err().unwrap())
    };
    for depth in [300, 5_000] {
        let said = load(&nested(depth));
        assert!(said.contains("nested modules"), "{depth}: {said}");
    }
    // Fewer are no tool server, and no crash either.
    load(&nested(200));
    // Types of two fields, each twice the one before: two to the fortieth in all.
    let types: String = (1..40).map(|n| format!("(type $t{n} (tuple $t{} $t{}))", n - 1, n - 1)).collect();
    let said = load(&wat::parse_str(format!("(component (type $t0 (tuple u8 u8)) {types})")).unwrap());
    assert!(said.contains("type size"), "{said}");
    // Each component instantiates the one before twice: two to the twenty-fourth instances out of a kilobyte.
    let doubling: String = (1..24)
        .map(|n| {
            let twice = "(instance (instantiate $before))".repeat(2);
            format!("(component $c{n} (alias outer 1 {} (component $before)) {twice})", n - 1)
        })
        .collect();
    let first = "(component $c0 (core module $m (memory 1)) (core instance (instantiate $m)))";
    let started = Instant::now();
    let said = load(&wat::parse_str(format!("(component {first} {doubling} (instance (instantiate $c23)))")).unwrap());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}: {said}", started.elapsed());
}

#[test]
fn components_that_call_each_other_compile() {
    let two = r#"(component
      (component $a
        (core module $m (memory (export "memory") 1) (func (export "f") (param i32 i32))
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "f") (param "s" string)
          (canon lift (core func $i "f") (memory (core memory $i "memory"))
            (realloc (core func $i "realloc")))))
      (component $b
        (import "f" (func $f (param "s" string)))
        (core module $memory (memory (export "memory") 1))
        (core instance $memory (instantiate $memory))
        (core func $lowered (canon lower (func $f) (memory (core memory $memory "memory"))))
        (core module $m (import "" "f" (func (param i32 i32))))
        (core instance (instantiate $m (with "" (instance (export "f" (func $lowered)))))))
      (instance $a (instantiate $a))
      (instance (instantiate $b (with "f" (func $a "f")))))"#;
    let bench = Bench::new(Settings::default());
    let error = bench.load(Kind::Component, two, Limits::default(), Grants::default()).unwrap_err();
    // It is code, and no tool server.
    assert!(chain(&error).contains("not a tool server"), "{}", chain(&error));
}

#[test]
fn extremes_are_refused_by_name() {
    let limits =
        CompileLimits { functions: 100, function_locals: 50, nesting: 20, module_bytes: 50_000, ..Default::default() };
    let bench = Bench::new(Settings { compile: limits, ..Settings::default() });
    let with = |what: &str| core_module("(i64.const 0)").replace("(memory", &format!("{what} (memory"));
    let table = [
        ("(func)".repeat(101), "functions"),
        (format!("(func (local {}))", "i32 ".repeat(51)), "locals"),
        (format!("(func {}{})", "(block ".repeat(21), ")".repeat(21)), "blocks"),
        (format!("(data (i32.const 0) \"{}\")", "a".repeat(50_000)), "bytes"),
    ];
    for (what, why) in table {
        let error = bench.load(Kind::Core, &with(&what), Limits::default(), Grants::default()).unwrap_err();
        assert!(chain(&error).contains(why), "{why}: {}", chain(&error));
    }
    for junk in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0\xff\xff", b"#!/bin/sh\n", &[0x7f, b'E', b'L', b'F']] {
        assert!(bench.load_bytes(Kind::Core, junk, Limits::default(), Grants::default()).is_err(), "{junk:?}");
        assert!(bench.load_bytes(Kind::Component, junk, Limits::default(), Grants::default()).is_err(), "{junk:?}");
    }
    // Machine code from outside is not WebAssembly.
    let engine = wasmtime::Engine::default();
    let code = engine.precompile_module(&wat::parse_str("(module)").unwrap()).unwrap();
    assert!(bench.load_bytes(Kind::Core, &code, Limits::default(), Grants::default()).is_err());
    // A component where a module is named, and the other way round.
    let error = bench.load(Kind::Component, &core_module("(i64.const 0)"), Limits::default(), Grants::default());
    assert!(chain(&error.err().unwrap()).contains("core module"));
}

#[test]
fn the_child_is_this_program_and_says_what_it_refuses() {
    // Without an order on its input it refuses, and does not hang.
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "compiling_process", "--ignored", "--nocapture"];
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn a_program_that_is_no_compiler_gets_no_module() {
    let folder = tempfile::tempdir().unwrap();
    // One that ends well without a word, and one that says something else and goes on.
    for (program, arguments) in [("true", vec![]), ("sh", vec!["-c", "echo hello; sleep 60"])] {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let compiler = Compiler::Process { program: program.into(), arguments };
        let bench = Bench::new(Settings { compiler, ..settings(folder.path()) });
        let wat = body_component(&text_result("1024", "1"));
        let error = bench.component(&wat, Limits::default(), Grants::default()).unwrap_err();
        assert!(chain(&error).contains("no program that compiles tools"), "{program}: {}", chain(&error));
    }
    assert!(fs::read_dir(folder.path()).unwrap().all(|entry| !entry.unwrap().path().is_dir()), "nothing is left");
}

#[test]
fn a_full_queue_of_modules_refuses_one_more() {
    let folder = tempfile::tempdir().unwrap();
    let limits = CompileLimits { processes: 1, queue: 0, ..CompileLimits::default() };
    // The only compiler says nothing for a while.
    let compiler = Compiler::Process { program: "sleep".into(), arguments: vec!["3".into()] };
    let bench = Bench::new(Settings { compile: limits, compiler, ..settings(folder.path()) });
    let wat = body_component(&text_result("1024", "1"));
    let errors: Vec<String> = std::thread::scope(|scope| {
        let load = || chain(&bench.component(&wat, Limits::default(), Grants::default()).unwrap_err());
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    let refused = errors.iter().filter(|error| error.contains("wait to be compiled already")).count();
    assert_eq!(refused, 3, "{errors:?}");
}
