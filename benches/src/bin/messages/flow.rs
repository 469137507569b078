//! How many messages a second a node takes from many senders, and how many its agents have handled and answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caxton_benches::figures::{Figures, drive};
use caxton_benches::http::Pool;

use super::place::{Admin, Folder, Place};
use super::ways::{Letter, Sender, Way};
use super::{Bench, row, say};

/// In what the kernel says how long a process had a processor, whatever its own clock ticks in: USER_HZ.
const TICKS_A_SECOND: f64 = 100.0;

/// The way of many clients.
pub struct Flow {
    /// How each message was acknowledged.
    pub taken: Figures,
    /// How many in a second were handled and answered, from the first that was sent to the last that was answered.
    pub settled: f64,
    /// How long it took after the last was acknowledged until all were answered.
    pub behind: Duration,
}

impl Flow {
    /// The row of what became of the messages.
    pub fn say_settled(&self) -> Result<()> {
        let behind = format!("the last {:.2} s after the last was taken", self.behind.as_secs_f64());
        say(&["of these handled and answered", &format!("{:.0}", self.settled), "", "", &behind])
    }
}

/// Who sends what, and by which way.
pub struct Senders {
    pub way: Way,
    pub letters: Vec<Letter>,
    pub tokens: Vec<String>,
}

impl Senders {
    /// `senders` of them, who write to the agents of `workspaces` by turns.
    pub fn plan(bench: &Bench<'_>, way: Way, workspaces: &[String], tokens: Vec<String>) -> Senders {
        let args = bench.args;
        let letter = |sender: usize| Letter {
            workspace: workspaces[sender % workspaces.len()].clone(),
            receiver: format!("echo-{}", sender / workspaces.len() % args.agents),
            text: "x".repeat(args.bytes),
            conversation: (!args.conversation_each).then(|| format!("flow-{sender}")),
        };
        Senders { way, letters: (0..tokens.len()).map(letter).collect(), tokens }
    }

    /// Lets all of them send to the nodes at `addresses` by turns, and waits until everything is answered.
    pub async fn flow(&self, admin: &Admin, addresses: &[String], seconds: Duration) -> Result<Flow> {
        let mut senders = Vec::new();
        for (number, (letter, token)) in self.letters.iter().zip(&self.tokens).enumerate() {
            senders.push(Sender::open(self.way, &addresses[number % addresses.len()], token, letter).await?);
        }
        let mut workspaces: Vec<&String> = self.letters.iter().map(|letter| &letter.workspace).collect();
        workspaces.sort();
        workspaces.dedup();
        let mut before = Vec::new();
        for workspace in &workspaces {
            before.push(admin.newest(workspace).await?);
        }
        let sent: Arc<[AtomicU64]> = senders.iter().map(|_| AtomicU64::new(0)).collect();
        let (counts, senders): (_, Arc<[Sender]>) = (Arc::clone(&sent), senders.into());
        let began = Instant::now();
        let taken = drive(self.letters.len(), seconds, move |sender, _| {
            let (senders, counts) = (Arc::clone(&senders), Arc::clone(&counts));
            async move {
                senders[sender].clone().send().await?;
                counts[sender].fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await?;
        let acknowledged = Instant::now();
        let mut all = 0;
        for (workspace, before) in workspaces.iter().zip(before) {
            let own = self.letters.iter().zip(sent.iter()).filter(|(letter, _)| letter.workspace == **workspace);
            let count: u64 = own.map(|(_, count)| count.load(Ordering::Relaxed)).sum();
            ensure!(count > 0, "nobody sent to {workspace}");
            // Each message, and the answer to it.
            admin.reaches(workspace, before + 2 * count).await?;
            all += count;
        }
        let (settled, behind) = (all as f64 / began.elapsed().as_secs_f64(), acknowledged.elapsed());
        Ok(Flow { taken, settled, behind })
    }
}

/// Every way in, each with a node of its own.
pub async fn measure(bench: &Bench<'_>) -> Result<()> {
    let ways = if bench.args.ways.is_empty() { Way::ALL.to_vec() } else { bench.args.ways.clone() };
    for way in ways {
        one(bench, way).await?;
    }
    Ok(())
}

async fn one(bench: &Bench<'_>, way: Way) -> Result<()> {
    let args = bench.args;
    let place = Place::open(bench, &format!("flow-{way:?}"))?;
    let mut workspaces = Vec::new();
    for number in 0..args.workspaces {
        let name = format!("bench-{number}");
        let folder = Folder::new(bench.dir.join(format!("flow-{way:?}")).join(&name), &name)?;
        folder.add_echoes(args.agents, args.concurrency)?;
        place.deploy(bench.caxton, &folder)?;
        workspaces.push(name);
    }
    let mut tokens = Vec::new();
    for number in 0..args.senders {
        tokens.push(place.admin.token(&format!("sender-{number}")).await?);
    }
    health(&place, args.senders, args.time().min(Duration::from_secs(2))).await?;
    let senders = Senders::plan(bench, way, &workspaces, tokens);
    let (admin, addresses) = (&place.admin, [place.node.address.clone()]);
    // What is compiled or opened once is not what is measured.
    senders.flow(admin, &addresses, args.time() / 10).await?;
    let before = cpu_seconds(place.node.pid())?;
    let flow = senders.flow(admin, &addresses, args.time()).await?;
    let spent = cpu_seconds(place.node.pid())? - before;
    let each = spent * 1e6 / (flow.taken.rate * args.seconds);
    let what = format!("taken over {}, {} senders", way.name(), args.senders);
    row(&what, &flow.taken, &format!("{each:.0} µs of the node's processors for each until it is settled"))?;
    flow.say_settled()?;
    place.node.stop()
}

/// The control: what HTTP alone takes of the same number of clients.
async fn health(place: &Place, clients: usize, seconds: Duration) -> Result<()> {
    let pool = Pool::open(&place.node.address, clients, &place.node.token()?).await?;
    let figures = drive(clients, seconds, move |client, _| {
        let pool = pool.clone();
        async move { pool.get(client, "/health").await.map(drop) }
    })
    .await?;
    row(&format!("control: GET /health, {clients} clients"), &figures, "")
}

/// What a process has had of the processors, in seconds.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a process")?.1.split_whitespace().collect();
    let ticks = |at: usize| anyhow::Ok(fields.get(at).context("a time")?.parse::<f64>()?);
    Ok((ticks(11)? + ticks(12)?) / TICKS_A_SECOND)
}
