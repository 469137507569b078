//! A cluster of processes on this machine, each with a folder of its own.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Mutex;

use serde_json::Value;

use crate::run::{Ran, caxton, wait_for};

/// Elections that a test can wait for. The node's own defaults are for machines that are busier than they should be.
pub const TIMERS: [&str; 6] =
    ["--set", "raft.heartbeat=100ms", "--set", "raft.election_min=600ms", "--set", "raft.election_max=1200ms"];

/// A port for others that no other test has ([`own_address`]). It is another at each start: the others are told.
pub const PEERS: [&str; 2] = ["--peers", "127.0.0.1:0"];

/// The ports that tests take for nodes: below those that the system hands out by itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// An address on this machine that is this test's until its process ends, also while the node that listens there is down.
pub fn own_address() -> String {
    static TAKEN: Mutex<Vec<fs::File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("caxton-test-ports");
    fs::create_dir_all(&folder).expect("a folder");
    let mut taken = TAKEN.lock().expect("nobody panics in here");
    let (count, first) = (PORTS.len(), std::process::id() as usize * 97 + taken.len());
    for step in 0..count {
        let port = PORTS.start + ((first + step) % count) as u16;
        let mark =
            fs::OpenOptions::new().create(true).append(true).open(folder.join(port.to_string())).expect("a mark");
        let address = format!("127.0.0.1:{port}");
        // The first says that no other test has it, the others that nobody else does. Gossip is on the same port.
        if mark.try_lock().is_ok() && TcpListener::bind(&address).is_ok() && UdpSocket::bind(&address).is_ok() {
            taken.push(mark);
            return address;
        }
    }
    panic!("every port of {PORTS:?} is taken")
}

/// One member: a folder, and a process while it runs.
pub struct Member {
    /// Its name, for messages.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    child: Option<Child>,
}

impl Member {
    /// A member with an empty folder below `home`.
    pub fn new(home: &std::path::Path, name: &str) -> Member {
        let data = home.join(name).join("data");
        fs::create_dir_all(data.parent().expect("a parent")).expect("a folder");
        Member { name: name.to_owned(), data, child: None }
    }

    fn log(&self) -> PathBuf {
        self.data.with_file_name("serve.log")
    }

    /// Starts it, and does not wait.
    pub fn spawn(&mut self, args: &[&str]) {
        let _ = fs::remove_file(self.data.join("server.json"));
        let file = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let mut command = caxton(self.data.parent().expect("a parent"));
        command
            .args(["serve", "--bind", "127.0.0.1:0", "--log", "info,openraft=error,caxton=debug", "--data-dir"])
            .arg(&self.data);
        command.args(TIMERS).args(["--set", "disk.reserve_bytes=0B"]);
        let own = own_address();
        command.args(args.iter().map(|arg| if *arg == PEERS[1] { own.as_str() } else { *arg }));
        command.stdout(file.try_clone().expect("a handle")).stderr(file);
        self.child = Some(command.spawn().expect("the binary runs"));
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self, args: &[&str]) {
        self.spawn(args);
        self.ready();
    }

    /// Waits until it is ready.
    pub fn ready(&mut self) {
        let name = self.name.clone();
        wait_for(&format!("{name} to be ready"), || {
            let ended = self.child.as_mut().expect("was started").try_wait().expect("its status");
            assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", self.said());
            (self.run(&["health"]).code == Some(0)).then_some(())
        });
    }

    /// Starts it, and waits until it has refused to.
    pub fn refused(&mut self, args: &[&str]) -> String {
        self.spawn(args);
        let mut child = self.child.take().expect("was started");
        let ended = wait_for("a node to refuse", || child.try_wait().expect("its status"));
        assert_eq!(ended.code(), Some(1), "{}", self.said());
        self.said()
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Runs a command against it.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_in(self.data.parent().expect("a parent"), args)
    }

    /// The same, in a workspace's folder.
    pub fn run_in(&self, folder: &std::path::Path, args: &[&str]) -> Ran {
        let mut command = caxton(folder);
        command.current_dir(folder).arg("--data-dir").arg(&self.data).args(args);
        // Every node of a cluster has the same one; the command line takes it to no other port by itself.
        command.env("CAXTON_TOKEN_FILE", self.data.join("admin-token"));
        Ran::of(command.output().expect("the binary runs"))
    }

    /// Its own view of the cluster, whoever leads.
    pub fn status(&self) -> Option<Value> {
        let ran = self.run(&["cluster", "status", "--json"]);
        (ran.code == Some(0)).then(|| serde_json::from_str(&ran.stdout).expect("a document"))
    }

    /// Where clients reach it.
    pub fn url(&self) -> Option<String> {
        let file: Value = serde_json::from_slice(&fs::read(self.data.join("server.json")).ok()?).ok()?;
        Some(file["url"].as_str()?.to_owned())
    }

    /// Where others reach it.
    pub fn peer_address(&self) -> String {
        let own = read(self, "/api/v1/cluster?stale=true").expect("its view");
        own["peer_address"].as_str().expect("an address").to_owned()
    }

    /// Its id.
    pub fn id(&self) -> String {
        let identity = fs::read_to_string(self.data.join("identity")).expect("an identity");
        let line = identity.lines().find_map(|line| line.strip_prefix("node ")).expect("a node");
        format!("{:x}", u64::from_str_radix(line, 16).expect("a number"))
    }

    /// Its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().expect("runs"))
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// Asks it to stop and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        wait_for("the node to stop", || child.try_wait().expect("its status"))
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("runs");
        wait_for("the node to end", || child.try_wait().expect("its status"))
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut()?.try_wait().expect("its status");
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// What it serves of the workspace `demo` by its own word: the newest revision that it knows, and whether it is live.
    pub fn serves(&self, revision: u64) -> bool {
        let Some(url) = self.url() else { return false };
        let token = fs::read_to_string(self.data.join("admin-token")).expect("the token");
        let address = url.strip_prefix("http://").expect("plain HTTP").to_owned();
        let Some(body) = get(&address, "/api/v1/workspaces/demo?stale=true", token.trim()) else { return false };
        body["serving"]["state"] == "live" && body["serving"]["revision"] == revision
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let said = self.said();
            let tail: Vec<&str> = said.lines().rev().take(60).collect();
            println!("--- {} said last:", self.name);
            tail.iter().rev().for_each(|line| println!("{line}"));
        }
    }
}

/// One request over HTTP/1.1, without a library in between; nothing when nobody answers.
fn get(address: &str, path: &str, token: &str) -> Option<Value> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Sends a JSON document; gives the status and the answer, or nothing when there is none.
pub fn post(member: &Member, path: &str, body: &Value) -> Option<(u16, Value)> {
    use std::io::{Read, Write};
    let token = fs::read_to_string(member.data.join("admin-token")).ok()?;
    let address = member.url()?.strip_prefix("http://")?.to_owned();
    let mut stream = std::net::TcpStream::connect(&address).ok()?;
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()))))
}

/// Reads a document from one member, whoever leads.
pub fn read(member: &Member, path: &str) -> Option<Value> {
    let token = fs::read_to_string(member.data.join("admin-token")).ok()?;
    get(member.url()?.strip_prefix("http://")?, path, token.trim())
}

/// Three members that are settled, with the leaders of shards spread over them.
pub fn three(home: &std::path::Path) -> Vec<Member> {
    let (one, address) = founder(home);
    let file = token(&one, &["--uses", "2"]);
    let mut members = vec![one, Member::new(home, "two"), Member::new(home, "three")];
    for member in &mut members[1..] {
        member.spawn(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
    }
    members[1..].iter_mut().for_each(Member::ready);
    settled(&members[2], 3);
    members
}

/// Kills whoever runs, and starts all again where they were, because nobody is left who could tell where the others are.
pub fn restart_all(members: &mut [Member], addresses: &[String]) {
    for member in members.iter_mut().filter(|member| member.child.is_some()) {
        member.kill();
    }
    for (member, address) in members.iter_mut().zip(addresses) {
        member.spawn(&["--peers", address]);
    }
    members.iter_mut().for_each(Member::ready);
}

/// Waits until no member leads two shards more than another; says who leads each group.
pub fn spread(members: &[&Member]) -> Vec<String> {
    wait_for("leaders to be spread", || {
        let status = members[0].status()?;
        let leaders = status["groups"].as_array()?.iter().map(|group| group["leader"].as_str().map(str::to_owned));
        let leaders: Vec<String> = leaders.collect::<Option<_>>()?;
        let count = |member: &&Member| leaders[1..].iter().filter(|leader| **leader == member.id()).count();
        let counts: Vec<usize> = members.iter().map(count).collect();
        (counts.iter().max()? - counts.iter().min()? <= 1).then_some(leaders)
    })
}

/// Waits until the cluster has `voters` voters and a leader in every group, and nobody lacks anything.
///
/// Seen twice in a row: voters change in two steps, and right after the first nobody lacks anything either.
pub fn settled(member: &Member, voters: usize) -> Value {
    let mut before = false;
    wait_for(&format!("{voters} voters"), || {
        let status = member.status()?;
        let groups = status["groups"].as_array().expect("groups");
        let whole = |group: &Value| {
            let lacks_nothing = |lag: &Value| lag["entries"] == 0;
            group["voters"].as_array().expect("voters").len() == voters
                && group["leader"].is_string()
                && group["lag"].as_array().is_none_or(|lag| lag.iter().all(lacks_nothing))
        };
        let good = groups.iter().all(whole);
        std::mem::replace(&mut before, good).then_some(()).filter(|()| good)?;
        Some(status)
    })
}

/// Writes a join token of `by` to a file.
pub fn token(by: &Member, args: &[&str]) -> PathBuf {
    let token = by.run(&[&["cluster", "token", "create"], args].concat()).ok();
    let file = by.data.with_file_name(format!("join-{}.token", token.len() + args.len() + count()));
    fs::write(&file, token).expect("written");
    file
}

fn count() -> usize {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    COUNT.fetch_add(1000, std::sync::atomic::Ordering::Relaxed)
}

/// A file's name as an argument.
pub fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A founder that is ready, and where others join it.
pub fn founder(home: &std::path::Path) -> (Member, String) {
    let mut one = Member::new(home, "one");
    one.start(&PEERS);
    let address = one.peer_address();
    (one, address)
}
