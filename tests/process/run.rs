//! Starts nodes and commands, and looks at what they leave behind.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up; generous, because machines that test are busy.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until `ready` gives something.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = ready() {
            return done;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::yield_now();
        // A poll, not a pause that the test's outcome hangs on.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// What a command that has ended printed.
    pub fn of(output: std::process::Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 output");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The output of a command that has to work.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// The document of a command that has to work.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("a JSON document")
    }

    /// Everything, as a person sees it.
    pub fn shown(&self) -> String {
        let code = self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        format!("{}{}[exit {code}]", self.stdout, self.stderr)
    }
}

/// The binary, without anything of the environment that would make two machines differ.
pub fn caxton(home: &Path) -> Command {
    named(Path::new(PROGRAM), home)
}

/// The binary, wherever cargo put it.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_caxton");

/// The same under another name.
fn named(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("GIT_AUTHOR_NAME", "Ada Lovelace").env("GIT_AUTHOR_EMAIL", "ada@example.com");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("TERM", "dumb").stdin(Stdio::null());
    command
}

/// A folder for everything that a test leaves behind: a data directory, and workspaces.
pub struct Place {
    /// The folder.
    pub dir: tempfile::TempDir,
}

impl Place {
    /// A new, empty one.
    pub fn new() -> Place {
        Place { dir: tempfile::Builder::new().prefix("caxton-process-").tempdir().expect("a folder") }
    }

    /// The node's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A workspace called `demo` in the folder `name`, with one agent.
    pub fn workspace(&self, name: &str) -> Workspace {
        let workspace = self.empty_workspace(name);
        workspace.write("agents/greeter.toml", agent("greeter", "1.0.0"));
        workspace
    }

    /// A workspace called `demo` without agents.
    pub fn empty_workspace(&self, name: &str) -> Workspace {
        let workspace = Workspace { root: self.dir.path().join(name), data: self.data() };
        // A model that nobody asks, so that no command says that there is none.
        let provider = "[providers.local]\nkind = \"ollama\"\nmodel = \"none\"\n";
        workspace.write("caxton.toml", format!("[workspace]\nname = \"demo\"\n\n{provider}"));
        workspace
    }
}

/// An agent's file.
pub fn agent(name: &str, version: &str) -> String {
    format!(
        "[agent]\nname = \"{name}\"\nversion = \"{version}\"\ndescription = \"Greets people\"\n\n\
         [capabilities]\npatterns = [\"say hello to someone\"]\n\n[prompts]\nsystem = \"You greet people.\"\n"
    )
}

/// A folder with a caxton.toml, and the commands that run in it.
pub struct Workspace {
    /// The folder.
    pub root: PathBuf,
    /// The data directory of the node that is asked.
    pub data: PathBuf,
}

impl Workspace {
    /// Writes a file of the workspace.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// Runs a command here, against the node of the place's data directory.
    pub fn run(&self, args: &[&str]) -> Ran {
        let mut command = caxton(&self.root);
        command.current_dir(&self.root).env("CAXTON_DATA_DIR", &self.data).args(args);
        Ran::of(command.output().expect("the binary runs"))
    }

    /// `caxton deploy --yes --json`.
    pub fn deploy(&self) -> Ran {
        self.run(&["deploy", "--yes", "--json"])
    }

    /// The Merkle root of what is on disk here.
    pub fn root_digest(&self) -> String {
        let workspace = caxton::cli::workspace::Workspace { root: self.root.clone() };
        workspace.scan().expect("a scan").tree.root().to_string()
    }
}

/// A node that runs until it is dropped.
pub struct Node {
    child: Child,
    /// Where it listens.
    pub url: String,
}

/// Starts a node, whether it comes up or not; its log goes to a file beside the data directory.
fn spawn(program: &Path, data: &Path, args: &[&str], env: &[(&str, &str)]) -> (Child, PathBuf) {
    let home = data.parent().expect("a parent");
    fs::create_dir_all(home).expect("a folder");
    let log = home.join("serve.log");
    let file = fs::File::create(&log).expect("a log");
    let mut command = named(program, home);
    command.args(["serve", "--data-dir"]).arg(data).args(args).envs(env.iter().copied());
    command.stdout(file.try_clone().expect("a handle")).stderr(file);
    (command.spawn().expect("the binary runs"), log)
}

impl Node {
    /// Starts a node on a free port and waits until it is ready.
    pub fn start(data: &Path) -> Node {
        Node::start_with(data, &[])
    }

    /// The same, with further variables.
    pub fn start_with(data: &Path, env: &[(&str, &str)]) -> Node {
        Node::start_as(Path::new(PROGRAM), data, env)
    }

    /// The same with the binary under another name.
    pub fn start_as(program: &Path, data: &Path, env: &[(&str, &str)]) -> Node {
        match Node::try_start_as(program, data, env) {
            Ok(node) => node,
            Err(refused) => panic!("the node did not start: {}", refused.shown()),
        }
    }

    /// Starts a node that may refuse; then gives what it said.
    pub fn try_start(data: &Path, env: &[(&str, &str)]) -> Result<Node, Ran> {
        Node::try_start_as(Path::new(PROGRAM), data, env)
    }

    fn try_start_as(program: &Path, data: &Path, env: &[(&str, &str)]) -> Result<Node, Ran> {
        let ready = data.join("server.json");
        // The one that a killed node left behind says nothing about this one.
        let _ = fs::remove_file(&ready);
        let (mut child, log) = spawn(program, data, &["--bind", "127.0.0.1:0"], env);
        let came_up = wait_for("a node to start or to refuse", || {
            if let Some(ended) = child.try_wait().expect("its status") {
                return Some(Err(ended));
            }
            let file: Value = serde_json::from_slice(&fs::read(&ready).ok()?).ok()?;
            let url = file["url"].as_str()?;
            is_ready(url, data).then(|| Ok(url.to_owned()))
        });
        match came_up {
            Ok(url) => Ok(Node { child, url }),
            Err(ended) => Err(refusal(ended, &log)),
        }
    }

    /// Runs `caxton serve` to its end, when it has to refuse.
    pub fn refused(data: &Path, args: &[&str]) -> Ran {
        let (mut child, log) = spawn(Path::new(PROGRAM), data, args, &[]);
        let ended = wait_for("a node to refuse", || child.try_wait().expect("its status"));
        refusal(ended, &log)
    }

    /// Kills it as a power cut would: without a chance to do anything.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(self) -> ExitStatus {
        self.ask_to_stop();
        self.ended()
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }

    /// Waits until it has ended.
    pub fn ended(mut self) -> ExitStatus {
        wait_for("the node to stop", || self.child.try_wait().expect("its status"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does `/ready` answer 200?
fn is_ready(url: &str, data: &Path) -> bool {
    let Some(address) = url.strip_prefix("http://") else {
        let home = data.parent().expect("a parent");
        let health = caxton(home).arg("--data-dir").arg(data).arg("health").output().expect("the binary runs");
        return health.status.success();
    };
    let ask = || -> std::io::Result<[u8; 12]> {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    ask().is_ok_and(|head| &head == b"HTTP/1.1 200")
}

fn refusal(ended: ExitStatus, log: &Path) -> Ran {
    Ran { code: ended.code(), stdout: String::new(), stderr: fs::read_to_string(log).unwrap_or_default() }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
pub struct Random(u64);

impl Random {
    /// From `CAXTON_TEST_SEED`, else from the clock; printed, so that a failure can be had again.
    pub fn seeded(test: &str) -> Random {
        let seed = match std::env::var("CAXTON_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
            Some(seed) => seed,
            None => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.expect("after 1970").as_nanos() as u64
            }
        };
        println!("{test}: CAXTON_TEST_SEED={seed}");
        Random(seed)
    }

    /// The next number, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
