//! The example tools and agents of every language are built from their source, loaded into the sandbox and called; those
//! that are committed are compared with what their source builds.
//!
//! A language whose toolchain is not here is reported as NOT RUN, with the line that installs it, and never as passed.
//! Where `CAXTON_TOOLCHAINS=required` is set, that fails instead.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "languages/agents.rs"]
mod agents;
mod common;

use caxton_tools::{CallError, Grants, Kind, Limits, SandboxedTool, Settings, Tool, examples};
use common::*;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What a build script ends with when something that it needs is not installed.
const UNAVAILABLE: i32 = 69;

/// The parts of this test; each says why it could not run, or panics.
const PARTS: [(&str, fn() -> Result<(), NotRun>); 9] = [
    ("c", c),
    ("javascript", javascript),
    ("javascript-agent", agents::negotiator),
    ("python", python),
    ("python-agent", agents::router),
    ("go", go),
    ("go-agent", agents::counter),
    ("rust", rust),
    ("rust-agent", agents::partner),
];

/// What is missing.
struct NotRun(String);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let parts = PARTS.iter().filter(|(name, _)| wanted(name));
    if arguments.iter().any(|argument| argument == "--list") {
        parts.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let required = std::env::var("CAXTON_TOOLCHAINS").is_ok_and(|value| value == "required");
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for (name, part) in parts {
        let started = Instant::now();
        match catch_unwind(AssertUnwindSafe(part)) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok ({:.1} s)", started.elapsed().as_secs_f32());
            }
            Ok(Err(NotRun(why))) => {
                not_run += 1;
                println!("test {name} ... NOT RUN\n    {}", why.replace('\n', "\n    "));
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!(
        "\ntools and agents of other languages: {passed} passed; {failed} failed; {not_run} NOT RUN, for want of a toolchain"
    );
    if failed > 0 || (required && not_run > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Runs a build script, which is told the folder and the names, and gives what it built.
fn built(script: &str, arguments: &[&str], tools: &[&str]) -> Result<Vec<Vec<u8>>, NotRun> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new("bash")
        .arg(sources().join(script))
        .args(arguments)
        .arg(folder.path())
        .args(tools)
        // What cargo tells this test is not for the cargo of another workspace.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .map_err(|error| NotRun(format!("error: bash does not start: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(UNAVAILABLE) {
        return Err(NotRun(said.trim().to_string()));
    }
    assert!(output.status.success(), "{script} ended with {}:\n{said}", output.status);
    Ok(tools.iter().map(|tool| std::fs::read(folder.path().join(format!("{tool}.wasm"))).unwrap()).collect())
}

fn load(bench: &Bench, kind: Kind, wasm: &[u8]) -> SandboxedTool {
    let limits = Limits { memory_bytes: 128 << 20, cpu: Duration::from_secs(2), ..Limits::default() };
    let tool =
        bench.load_bytes(kind, wasm, limits, Grants::default()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    println!("    {} bytes, {} function(s)", wasm.len(), tool.definitions().len());
    tool
}

/// The structured result of a call that works.
fn answer(bench: &Bench, tool: &SandboxedTool, function: &str, arguments: Value) -> Value {
    let result = bench.call(tool, function, arguments).result.unwrap();
    assert!(!result.is_error, "{result:?}");
    result.structured.unwrap()
}

/// What a tool says when it could not do what it was asked.
fn complaint(bench: &Bench, tool: &SandboxedTool, function: &str, arguments: Value) -> String {
    let result = bench.call(tool, function, arguments).result.unwrap();
    assert!(result.is_error, "{result:?}");
    result.text()
}

fn c() -> Result<(), NotRun> {
    let wasm = &built("build.sh", &["c"], &["checksum"])?[0];
    let bench = Bench::new(Settings::default());
    let tool = load(&bench, Kind::Command, wasm);
    let calls = [json!({ "text": "abc" }), json!({ "text": "123456789", "algorithm": "crc32" })];
    let answers = calls.each_ref().map(|call| answer(&bench, &tool, "checksum", call.clone()));
    assert_eq!(answers[1], json!({ "algorithm": "crc32", "hex": "cbf43926", "bytes": 9 }));
    same_as_committed(&bench, Kind::Command, wasm, examples::CHECKSUM, "checksum", &calls);
    Ok(())
}

fn javascript() -> Result<(), NotRun> {
    let wasm = &built("javascript/build.sh", &[], &["extract"])?[0];
    let bench = Bench::new(Settings::default());
    let tool = load(&bench, Kind::Component, wasm);
    let found = answer(
        &bench,
        &tool,
        "extract",
        json!({ "text": "été 2024-05, hiver 2023-11", "pattern": r"(?<year>\d{4})-(?<month>\d\d)" }),
    );
    let match_of = |text: &str, at: u32, year: &str, month: &str| json!({ "text": text, "at": at, "groups": { "year": year, "month": month } });
    let matches = [match_of("2024-05", 4, "2024", "05"), match_of("2023-11", 19, "2023", "11")];
    assert_eq!(found, json!({ "matches": matches, "more": false }));
    let said = complaint(&bench, &tool, "extract", json!({ "text": "x", "pattern": "(" }));
    assert!(said.contains("not a regular expression"), "{said}");
    // An exception that nobody expected says what it is and where.
    let broken = broken(&bench, "javascript", &JAVASCRIPT_BROKEN)?;
    for part in ["TypeError", "nothing", ".js:"] {
        assert!(broken.contains(part), "{part}: {broken}");
    }
    // A pattern that takes for ever ends with the call's limit, and the next call is answered.
    let unlucky = json!({ "text": format!("{}b", "a".repeat(60)), "pattern": "(a+)+$" });
    let called = bench.call(&tool, "extract", unlucky);
    assert!(matches!(called.result, Err(CallError::CpuSpent { .. } | CallError::TimedOut { .. })), "{called:?}");
    assert_eq!(answer(&bench, &tool, "extract", json!({ "text": "x", "pattern": "y" }))["matches"], json!([]));
    Ok(())
}

fn python() -> Result<(), NotRun> {
    let wasm = &built("python/build.sh", &[], &["calculator"])?[0];
    let bench = Bench::new(Settings::default());
    let tool = load(&bench, Kind::Component, wasm);
    for (expression, decimal, fraction) in [
        ("0.1 + 0.2", "0.3", "3/10"),
        ("(1 + 1/3) * 3", "4", "4"),
        ("2 ** 100 - 1", "1267650600228229401496703205375", "1267650600228229401496703205375"),
        ("round(-2.5e-1 * max(3, 7), 1)", "-1.8", "-9/5"),
        ("1_000 % 7", "6", "6"),
    ] {
        let got = answer(&bench, &tool, "calculator", json!({ "expression": expression }));
        assert_eq!(got, json!({ "decimal": decimal, "fraction": fraction }), "{expression}");
    }
    for (expression, why) in [
        ("__import__('os').system('id')", "not arithmetic"),
        ("open('/etc/passwd')", "not arithmetic"),
        ("1 / (2 - 2)", "Fraction(1, 0)"),
        ("9 ** 9 ** 9", "too large"),
        ("1 +", "not an expression"),
    ] {
        let said = complaint(&bench, &tool, "calculator", json!({ "expression": expression }));
        assert!(said.contains(why), "{expression}: {said}");
    }
    let broken = broken(&bench, "python", &PYTHON_BROKEN)?;
    for part in ["KeyError", "nothing", "app.py, line "] {
        assert!(broken.contains(part), "{part}: {broken}");
    }
    Ok(())
}

/// What is put in the place of what in an example, so that its call ends with an exception that it does not expect.
struct Broken {
    file: &'static str,
    tool: &'static str,
    instead_of: &'static str,
    put: &'static str,
    arguments: &'static str,
}

const PYTHON_BROKEN: Broken = Broken {
    file: "calculator/app.py",
    tool: "calculator",
    instead_of: "return calculate(request)",
    put: "return calculate(request[\"nothing\"])",
    arguments: r#"{"expression":"1"}"#,
};
const JAVASCRIPT_BROKEN: Broken = Broken {
    file: "extract/extract.js",
    tool: "extract",
    instead_of: "const found = extract(request);",
    put: "const found = request.nothing.at.all;",
    arguments: r#"{"text":"a","pattern":"a"}"#,
};

/// Builds an example with a mistake in it, and gives the error of its call.
fn broken(bench: &Bench, language: &str, mistake: &Broken) -> Result<String, NotRun> {
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // The scripts find the interface beside the examples.
    let examples = copy.path().join("examples");
    let from = sources();
    let copied = Command::new("cp").arg("-r").arg(from.join("..").join("wit")).arg(copy.path()).status();
    assert!(copied.unwrap().success());
    std::fs::create_dir_all(&examples).unwrap();
    assert!(Command::new("cp").arg("-r").arg(from.join(language)).arg(&examples).status().unwrap().success());
    let file = examples.join(language).join(mistake.file);
    let source = std::fs::read_to_string(&file).unwrap();
    assert!(source.contains(mistake.instead_of), "{}", mistake.file);
    std::fs::write(&file, source.replace(mistake.instead_of, mistake.put)).unwrap();
    let script = examples.join(language).join("build.sh");
    let wasm = &built(script.to_str().unwrap(), &[], &[mistake.tool])?[0];
    let tool = load(bench, Kind::Component, wasm);
    let arguments = serde_json::from_str(mistake.arguments).unwrap();
    Ok(bench.call(&tool, mistake.tool, arguments).result.unwrap_err().to_string())
}

fn go() -> Result<(), NotRun> {
    let wasm = &built("go/build.sh", &[], &["timezone"])?[0];
    let bench = Bench::new(Settings::default());
    let tool = load(&bench, Kind::Command, wasm);
    let arguments =
        json!({ "time": "2026-11-21 15:04", "from": "Europe/Zurich", "zones": ["Asia/Kathmandu", "America/New_York"] });
    let times = answer(&bench, &tool, "timezone", arguments);
    let there = |zone: &str, time: &str, abbreviation: &str| json!({ "zone": zone, "time": time, "abbreviation": abbreviation, "weekday": "Saturday" });
    let expected = [
        there("Asia/Kathmandu", "2026-11-21T19:49:00+05:45", "+0545"),
        there("America/New_York", "2026-11-21T09:04:00-05:00", "EST"),
    ];
    assert_eq!(times, json!({ "times": expected }));
    let said = complaint(&bench, &tool, "timezone", json!({ "time": "noon", "zones": ["UTC"] }));
    assert!(said.contains("is no time"), "{said}");
    let said = complaint(&bench, &tool, "timezone", json!({ "time": "2026-11-21", "zones": ["Mars/Olympus"] }));
    assert!(said.contains("no time zone"), "{said}");
    Ok(())
}

/// Whether Rust can build for WebAssembly without fetching anything.
fn can_build_rust() -> Result<(), NotRun> {
    // The build script would fetch the library's sources from an archive, which is not a test's to do.
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map_err(|error| NotRun(format!("error: rustc does not start: {error}")))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let target = sysroot.join("lib/rustlib/wasm32-unknown-unknown").is_dir();
    let fetched = std::env::var_os("CAXTON_GUESTS").is_some_and(|work| Path::new(&work).join("rust-src/usr").is_dir());
    if !target && !fetched {
        return Err(NotRun(
            "error: Rust cannot build for wasm32-unknown-unknown\nhelp: rustup target add wasm32-unknown-unknown"
                .into(),
        ));
    }
    Ok(())
}

fn rust() -> Result<(), NotRun> {
    can_build_rust()?;
    let names = ["csv-reader", "stats", "chart-generator", "http-fetch"];
    let wasm = built("build.sh", &["rust"], &names)?;
    let bench = Bench::new(Settings::default());
    let table = json!({ "columns": ["x", "y"], "rows": [["a", 1], ["b", 2.5], ["a", 4]] });
    let grouped = json!({ "columns": ["x", "y"], "rows": [["a", 1], ["b", 2], ["a", 4]], "by": "x", "value": "y" });
    let chart = json!({ "title": "T", "labels": ["a", "b"], "values": [1, 2] });
    let component = Kind::Component;
    same_as_committed(
        &bench,
        component,
        &wasm[0],
        examples::CSV_READER,
        "csv-reader",
        &[json!({ "text": "a,b\n1,x\n" })],
    );
    same_as_committed(&bench, component, &wasm[1], examples::STATS, "describe", &[table]);
    same_as_committed(&bench, component, &wasm[1], examples::STATS, "group-by", &[grouped]);
    same_as_committed(&bench, component, &wasm[2], examples::CHART_GENERATOR, "chart-generator", &[chart]);
    assert_eq!(wasm[3] == examples::HTTP_FETCH, wasm[0] == examples::CSV_READER, "only http-fetch differs");
    Ok(())
}

/// The same bytes; with another compiler's bytes, the same definitions and the same answers.
fn same_as_committed(bench: &Bench, kind: Kind, built: &[u8], committed: &[u8], function: &str, calls: &[Value]) {
    if built == committed {
        println!("    {function}: the committed bytes are what the source builds");
        return;
    }
    println!("    {function}: another compiler's bytes; what both do is compared");
    let (new, old) = (load(bench, kind, built), load(bench, kind, committed));
    assert_eq!(new.definitions(), old.definitions());
    for call in calls {
        assert_eq!(answer(bench, &new, function, call.clone()), answer(bench, &old, function, call.clone()), "{call}");
    }
}
