//! Backends that others wrote, as far as a package index has them: Qdrant's own client in its local mode behind its REST API, and
//! ArcadeDB's Bolt port behind Neo4j's Query API.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Stage;
use crate::deploy::Content;

/// The key of Qdrant, and the password of Neo4j's account.
pub const KEY: &str = "backend-key-7d1f";
/// What this was written against.
const QDRANT: [&str; 1] = ["qdrant-client==1.20.0"];
const NEO4J: [&str; 2] = ["arcadedb-embedded==26.10.2.post1", "neo4j==6.4.1"];
/// One test at a time sets up the folder.
static SETTING_UP: Mutex<()> = Mutex::new(());

/// A Python with these packages, in a folder that is kept; nothing where they cannot be had.
fn python(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let _alone = SETTING_UP.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = std::env::var_os("CAXTON_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/caxton")))?;
    let (folder, wanted) = (cache.join(name), packages.join(" "));
    let python = folder.join("bin/python");
    if fs::read_to_string(folder.join("wanted")).is_ok_and(|had| had == wanted) {
        return Some(python);
    }
    let runs = |command: &mut Command| {
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(())
    };
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&cache).ok()?;
    runs(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    runs(Command::new(&python).args(pip).args(packages))?;
    fs::write(folder.join("wanted"), wanted).ok()?;
    Some(python)
}

#[expect(clippy::print_stderr, reason = "a test that was not run says why")]
pub fn left_out(what: &str) {
    eprintln!("NOT RUN: {what} cannot be had: it takes python3 with venv, and a package index");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/node/backends").join(name)
}

/// A script that runs until this is dropped.
struct Running(Child, #[expect(dead_code, reason = "it goes with the process")] tempfile::TempDir);

impl Running {
    /// Starts it, and waits until it says that it is ready.
    async fn start(python: &Path, name: &str, arguments: &[String]) -> Running {
        let mut command = Command::new(python);
        // What it writes beside itself is nobody's.
        let beside = tempfile::tempdir().expect("a folder");
        command.arg(script(name)).args(arguments).current_dir(beside.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = tokio::task::spawn_blocking(move || {
            let mut lines = lines;
            let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
            // Whatever else it says is read, so that it never waits for a reader.
            std::thread::spawn(move || lines.for_each(drop));
            ready
        });
        assert!(ready.await.expect("it is waited for"), "{name} is not ready");
        Running(child, beside)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// What a script says, as JSON.
async fn said(python: &Path, name: &str, arguments: Vec<String>) -> Value {
    let mut command = Command::new(python);
    command.arg(script(name)).args(arguments).stdin(Stdio::null()).env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("it is waited for").expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

/// Qdrant's local mode behind its REST API.
pub struct Qdrant {
    python: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    server: Option<Running>,
}

impl Qdrant {
    /// An empty one; nothing where it cannot be had.
    pub async fn start() -> Option<Qdrant> {
        let python = tokio::task::spawn_blocking(|| python("qdrant-venv", &QDRANT)).await.expect("set up")?;
        let folder = tempfile::tempdir().expect("a folder");
        let mut qdrant = Qdrant { python, port: free_port(), folder, server: None };
        qdrant.comes_back().await;
        Some(qdrant)
    }

    fn control(&self, more: &[&str]) -> Vec<String> {
        let own = [self.port.to_string(), KEY.to_owned(), "caxton-demo".to_owned()];
        own.into_iter().chain(more.iter().map(|it| (*it).to_owned())).collect()
    }
}

impl Stage for Qdrant {
    fn memory(&self) -> String {
        format!(
            "backend = \"qdrant\"\nurl = \"http://127.0.0.1:{}\"\napi_key = \"secret:BACKEND_KEY\"\ntimeout = \"20s\"",
            self.port
        )
    }

    fn files(&self, content: Content) -> Content {
        content
    }

    fn finds_by_meaning(&self) -> bool {
        true
    }

    async fn has(&self) -> Vec<Value> {
        let all = said(&self.python, "qdrant_control.py", self.control(&[])).await;
        all.as_array().expect("a list").clone()
    }

    async fn spoil(&self) {
        said(&self.python, "qdrant_control.py", self.control(&["spoil"])).await;
    }

    async fn goes_down(&mut self) {
        self.server = None;
    }

    async fn comes_back(&mut self) {
        let folder = self.folder.path().display().to_string();
        let arguments = [self.port.to_string(), folder, KEY.to_owned()];
        self.server = Some(Running::start(&self.python, "qdrant_server.py", &arguments).await);
    }
}

/// ArcadeDB's Bolt port behind Neo4j's Query API. What goes down is the Query API.
pub struct Neo4j {
    python: PathBuf,
    port: u16,
    bolt: u16,
    _folder: tempfile::TempDir,
    _store: Running,
    server: Option<Running>,
}

impl Neo4j {
    /// An empty one; nothing where it cannot be had.
    pub async fn start() -> Option<Neo4j> {
        let python = tokio::task::spawn_blocking(|| python("neo4j-venv", &NEO4J)).await.expect("set up")?;
        let folder = tempfile::tempdir().expect("a folder");
        let (bolt, path) = (free_port(), folder.path().display().to_string());
        let arguments = [bolt.to_string(), free_port().to_string(), path, KEY.to_owned()];
        let store = Running::start(&python, "bolt_server.py", &arguments).await;
        let mut neo4j = Neo4j { python, port: free_port(), bolt, _folder: folder, _store: store, server: None };
        neo4j.comes_back().await;
        Some(neo4j)
    }

    async fn control(&self, more: &[&str]) -> Value {
        let own = [self.bolt.to_string(), KEY.to_owned()];
        let arguments = own.into_iter().chain(more.iter().map(|it| (*it).to_owned())).collect();
        said(&self.python, "bolt_control.py", arguments).await
    }
}

impl Stage for Neo4j {
    fn memory(&self) -> String {
        format!(
            "backend = \"neo4j\"\nurl = \"http://127.0.0.1:{}\"\ndatabase = \"memory\"\nuser = \"root\"\n\
             password = \"secret:BACKEND_KEY\"\ntimeout = \"20s\"",
            self.port
        )
    }

    fn files(&self, content: Content) -> Content {
        content
    }

    fn finds_by_meaning(&self) -> bool {
        false
    }

    async fn has(&self) -> Vec<Value> {
        self.control(&[]).await["memories"].as_array().expect("a list").clone()
    }

    async fn spoil(&self) {
        self.control(&["spoil"]).await;
    }

    async fn goes_down(&mut self) {
        // By then it has whom Ann works for, and what is about her is next to her.
        let all = self.control(&[]).await;
        assert_eq!(all["edges"], json!([{ "a": "Ann", "kind": "works for", "b": "Acme" }]), "{all}");
        assert_eq!(all["about"][0]["name"], "Ann", "{all}");
        self.server = None;
    }

    async fn comes_back(&mut self) {
        let arguments = [self.port.to_string(), self.bolt.to_string(), KEY.to_owned()];
        self.server = Some(Running::start(&self.python, "query_api.py", &arguments).await);
    }
}
