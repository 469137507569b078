//! How many 256-byte commands a group of one voter takes in a second, beside its controls in the same run and on the same
//! disk: a bare append with fdatasync, and etcd.
//!
//! `cargo run --release -p caxton-benches --bin log -- --dir DIR`. DIR must be on the disk that is meant: a tmpfs has no
//! fsync to speak of. The group is measured three times: called directly; in a process of its own, as etcd is, behind
//! HTTP, which is how Caxton's clients reach it; and so behind the part of etcd's own gRPC protocol that puts need, where
//! the same client drives it that drives etcd.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use caxton_benches::etcd::PutRequest;
use caxton_benches::etcd::kv_client::KvClient;
use caxton_benches::etcd::kv_server::KvServer;
use caxton_benches::figures::{Figures, bare_fdatasync, drive};
use caxton_benches::http::Pool;
use caxton_benches::map::{Front, KEY_BYTES, Map, key};
use caxton_proto::NodeId;
use caxton_raft::{Alone, Birth, Group, GroupId, Groups, Store, Timers};
use clap::Parser;
use tonic::transport::{Channel, Endpoint, Server};

const CONNECTIONS_MAX: usize = 16;
const ETCD_START: Duration = Duration::from_secs(20);

/// Puts per second of Caxton's log, of etcd, and of a bare fdatasync.
#[derive(Parser)]
struct Args {
    /// Where to write: a folder on the disk that is meant.
    #[arg(long, default_value = "target/bench-log")]
    dir: PathBuf,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many clients put at once, each waiting for its answer.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// The length of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// etcd's program; an empty text leaves etcd out.
    #[arg(long, default_value = "etcd")]
    etcd: String,
    /// Be the server that is measured, at this port of loopback, with its store in `--dir`.
    #[arg(long, hide = true)]
    serve: Option<u16>,
    /// How that server is spoken to.
    #[arg(long, hide = true, value_enum, default_value = "http")]
    speak: Protocol,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Protocol {
    Http,
    Grpc,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(port) = args.serve {
        return serve(&args.dir, port, args.speak).await;
    }
    let seconds = Duration::from_secs_f64(args.seconds);
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let mut out = std::io::stdout();
    writeln!(out, "{:<28} {:>7} {:>10} {:>9} {:>9}", "", "clients", "puts/s", "p50 ms", "p99 ms")?;
    for clients in args.clients.iter().copied() {
        let bytes = args.value_bytes;
        let here = dir.path().join(clients.to_string());
        std::fs::create_dir_all(&here)?;
        let control = Figures::of(bare_fdatasync(&here, seconds)?, seconds)?;
        print("fdatasync, one after another", 1, &control)?;
        let direct = direct(&here.join("direct"), clients, seconds, bytes).await?;
        print("caxton, called directly", clients, &direct)?;
        let http = over_http(&here.join("http"), clients, seconds, bytes).await?;
        print("caxton, over HTTP", clients, &http)?;
        let grpc = over_grpc(&here.join("grpc"), clients, seconds, bytes).await?;
        print("caxton, over gRPC", clients, &grpc)?;
        if !args.etcd.is_empty() {
            let node = Etcd::start(&args.etcd, &here.join("etcd"))?;
            let etcd = put_over_grpc(&node.address, clients, seconds, bytes).await?;
            print("etcd, over gRPC", clients, &etcd)?;
            writeln!(out, "{:<28} {:>7} {:>10.2}", "  caxton over HTTP / etcd", clients, http.rate / etcd.rate)?;
            writeln!(out, "{:<28} {:>7} {:>10.2}", "  caxton over gRPC / etcd", clients, grpc.rate / etcd.rate)?;
        }
        writeln!(out, "{:<28} {:>7} {:>10.2}", "  caxton direct / fdatasync", clients, direct.rate / control.rate)?;
    }
    Ok(())
}

fn print(what: &str, clients: usize, figures: &Figures) -> std::io::Result<()> {
    let (p50, p99) = figures.ms();
    writeln!(std::io::stdout(), "{what:<28} {clients:>7} {:>10.0} {p50:>9.3} {p99:>9.3}", figures.rate)
}

async fn open(dir: &Path) -> anyhow::Result<Group> {
    let groups = Groups::new(Store::open(dir)?, NodeId(1), Timers::default(), Arc::new(Alone));
    Ok(groups.open(GroupId(1), Arc::new(Map::default()), Birth::Founded).await?)
}

async fn direct(dir: &Path, clients: usize, seconds: Duration, bytes: usize) -> anyhow::Result<Figures> {
    let group = open(dir).await?;
    let putter = group.clone();
    let figures = drive(clients, seconds, move |client, put| {
        let group = putter.clone();
        let command = Bytes::from([key(client, put).as_slice(), &vec![b'x'; bytes]].concat());
        async move { Ok(group.propose(command).await.map(drop)?) }
    })
    .await;
    group.shutdown().await;
    figures
}

async fn serve(dir: &Path, port: u16, speak: Protocol) -> anyhow::Result<()> {
    let (group, address) = (open(dir).await?, SocketAddr::from(([127, 0, 0, 1], port)));
    match speak {
        Protocol::Grpc => Ok(Server::builder().add_service(KvServer::new(Front(group))).serve(address).await?),
        Protocol::Http => {
            let listener =
                tokio::net::TcpListener::bind(address).await?.tap_io(|stream| drop(stream.set_nodelay(true)));
            Ok(axum::serve(listener, Router::new().route("/put", post(put)).with_state(group)).await?)
        }
    }
}

/// The key and the value are the body.
async fn put(State(group): State<Group>, command: Bytes) -> Result<(), (StatusCode, String)> {
    let proposed = group.propose(command).await;
    proposed.map(drop).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

/// Starts this program as the server.
fn start(dir: &Path, port: u16, speak: &str) -> anyhow::Result<Running> {
    let mut own = Command::new(std::env::current_exe()?);
    own.arg("--dir").arg(dir).arg("--serve").arg(port.to_string()).args(["--speak", speak]);
    Ok(Running(own.spawn()?))
}

async fn over_grpc(dir: &Path, clients: usize, seconds: Duration, bytes: usize) -> anyhow::Result<Figures> {
    let port = free_port()?;
    let _node = start(dir, port, "grpc")?;
    put_over_grpc(&format!("http://127.0.0.1:{port}"), clients, seconds, bytes).await
}

async fn over_http(dir: &Path, clients: usize, seconds: Duration, bytes: usize) -> anyhow::Result<Figures> {
    let port = free_port()?;
    let _node = start(dir, port, "http")?;
    let pool = Pool::open(&format!("127.0.0.1:{port}"), clients, "").await?;
    drive(clients, seconds, move |client, put| {
        let pool = pool.clone();
        let body = [key(client, put).as_slice(), &vec![b'x'; bytes]].concat();
        async move { pool.post(client, "/put", body).await.map(drop) }
    })
    .await
}

/// A server's process, which ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An etcd of one node, which ends with this value.
struct Etcd {
    _process: Running,
    address: String,
}

impl Etcd {
    fn start(program: &str, dir: &Path) -> anyhow::Result<Etcd> {
        let (address, peer) = (url()?, url()?);
        let process = Command::new(program)
            .arg("--data-dir")
            .arg(dir)
            .args(["--name", "one", "--initial-cluster", &format!("one={peer}"), "--log-level", "error"])
            .args(["--listen-client-urls", &address, "--advertise-client-urls", &address])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}; install etcd-server, or leave etcd out with --etcd ''"))?;
        Ok(Etcd { _process: Running(process), address })
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn url() -> std::io::Result<String> {
    Ok(format!("http://127.0.0.1:{}", free_port()?))
}

async fn put_over_grpc(address: &str, clients: usize, seconds: Duration, bytes: usize) -> anyhow::Result<Figures> {
    let endpoint = Endpoint::from_shared(address.to_owned())?;
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(ready(&endpoint).await?);
    }
    drive(clients, seconds, move |client, put| {
        let mut connection = connections[client % connections.len()].clone();
        let request = PutRequest { key: key(client, put).to_vec(), value: vec![b'x'; bytes] };
        async move { Ok(connection.put(request).await.map(drop)?) }
    })
    .await
}

/// A connection that has answered once.
async fn ready(endpoint: &Endpoint) -> anyhow::Result<KvClient<Channel>> {
    let deadline = Instant::now() + ETCD_START;
    loop {
        let tried = async {
            let mut client = KvClient::new(endpoint.connect().await?);
            client.put(PutRequest { key: vec![0; KEY_BYTES], value: Vec::new() }).await?;
            anyhow::Ok(client)
        };
        match tried.await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error.context("the server does not answer")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
