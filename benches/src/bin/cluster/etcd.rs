//! Three etcd processes with Caxton's timers, on the same disk.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use caxton_benches::cluster::PATIENCE;
use caxton_benches::etcd::PutRequest;
use caxton_benches::etcd::kv_client::KvClient;
use caxton_benches::map::key;
use caxton_raft::Timers;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

const CONNECTIONS_MAX: usize = 16;
const VALUE_BYTES: usize = 256;
const POLL: Duration = Duration::from_millis(10);
/// How long one put may take while there is no leader.
const PUT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a put waits for a server whose leader was killed, before the other one is asked. A server keeps a put for seconds
/// when it has no leader, also after there is one.
const TRY_TIMEOUT: Duration = Duration::from_millis(100);

/// Three processes, which end with this value.
pub struct Etcd {
    program: String,
    dir: PathBuf,
    peers: Vec<String>,
    clients: Vec<String>,
    processes: Vec<Child>,
}

/// Puts over one connection.
#[derive(Clone)]
pub struct Putter(KvClient<Channel>);

impl Putter {
    /// Connections for `clients` clients to the node at `url`.
    pub async fn connect(url: &str, clients: usize) -> anyhow::Result<Vec<Putter>> {
        let mut putters = Vec::new();
        for _ in 0..clients.min(CONNECTIONS_MAX) {
            putters.push(Putter::open(url).await?);
        }
        Ok(putters)
    }

    /// A connection that has taken a put.
    async fn open(url: &str) -> anyhow::Result<Putter> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.timeout(PUT_TIMEOUT);
        let began = Instant::now();
        loop {
            let tried = async {
                let mut putter = Putter(KvClient::new(endpoint.connect().await?));
                putter.put(0, 0).await?;
                anyhow::Ok(putter)
            };
            match tried.await {
                Ok(putter) => return Ok(putter),
                Err(error) => ensure!(began.elapsed() < PATIENCE, "{url} takes no put: {error:#}"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn put(&mut self, client: usize, number: u64) -> anyhow::Result<()> {
        self.0.put(PutRequest { key: key(client, number).to_vec(), value: vec![b'x'; VALUE_BYTES] }).await?;
        Ok(())
    }
}

impl Etcd {
    pub async fn start(program: &str, dir: &Path) -> anyhow::Result<Etcd> {
        let urls = || (0..3).map(|_| url()).collect::<anyhow::Result<Vec<_>>>();
        let (peers, clients) = (urls()?, urls()?);
        let mut etcd = Etcd { program: program.to_owned(), dir: dir.to_owned(), peers, clients, processes: Vec::new() };
        for number in 0..3 {
            let process = etcd.run(number)?;
            etcd.processes.push(process);
        }
        etcd.leader().await?;
        Ok(etcd)
    }

    fn run(&self, number: usize) -> anyhow::Result<Child> {
        let name = format!("n{number}");
        let all: Vec<String> = self.peers.iter().enumerate().map(|(at, peer)| format!("n{at}={peer}")).collect();
        let (peer, client) = (&self.peers[number], &self.clients[number]);
        let Timers { heartbeat, election_min, .. } = Timers::default();
        Command::new(&self.program)
            .args(["--heartbeat-interval", &heartbeat.as_millis().to_string()])
            // It draws its own between this and twice as much.
            .args(["--election-timeout", &election_min.as_millis().to_string()])
            .arg("--data-dir")
            .arg(self.dir.join(&name))
            .args(["--name", &name, "--initial-cluster", &all.join(","), "--log-level", "error"])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("cannot run {}; install etcd-server, or leave it out with --etcd ''", self.program)
            })
    }

    /// Who leads.
    async fn leader(&self) -> anyhow::Result<usize> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let began = Instant::now();
        loop {
            for (number, client) in self.clients.iter().enumerate() {
                let asked = http.post(format!("{client}/v3/maintenance/status")).body("{}").send().await;
                let Ok(answer) = asked else { continue };
                let status: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
                let leads = status["leader"].as_str().is_some_and(|leader| leader != "0");
                if leads && status["leader"] == status["header"]["member_id"] {
                    return Ok(number);
                }
            }
            ensure!(began.elapsed() < PATIENCE, "etcd has no leader");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn putter(&self, number: usize) -> anyhow::Result<Putter> {
        Putter::open(&self.clients[number]).await
    }

    /// Connections to the leader.
    pub async fn putters(&self, clients: usize) -> anyhow::Result<Vec<Putter>> {
        let leader = self.leader().await?;
        Putter::connect(&self.clients[leader], clients).await
    }

    /// Kills the leader, and says how long the rest took for the next put; then brings it back.
    pub async fn failover(&mut self, number: u64) -> anyhow::Result<Duration> {
        let leader = self.leader().await?;
        let mut putters = [self.putter((leader + 1) % 3).await?, self.putter((leader + 2) % 3).await?];
        let killed = Instant::now();
        // Nothing is left to do when it has ended by itself.
        let _ = self.processes[leader].kill();
        let _ = self.processes[leader].wait();
        let mut tries = 0;
        while !matches!(tokio::time::timeout(TRY_TIMEOUT, putters[tries % 2].put(0, number)).await, Ok(Ok(()))) {
            tries += 1;
            ensure!(killed.elapsed() < PATIENCE, "etcd took no put after its leader was killed");
        }
        let took = killed.elapsed();
        self.processes[leader] = self.run(leader)?;
        let back = self.putter(leader).await;
        let began = Instant::now();
        let mut back = back;
        while back.is_err() {
            ensure!(began.elapsed() < PATIENCE, "etcd did not come back");
            tokio::time::sleep(POLL).await;
            back = self.putter(leader).await;
        }
        Ok(took)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn url() -> anyhow::Result<String> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("http://127.0.0.1:{port}"))
}
