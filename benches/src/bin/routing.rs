//! Routing: how fast a message is embedded and ranked, and how often its agent is the right one.
//!
//! `cargo run --release -p caxton-benches --bin routing -- --data FOLDER [--source FOLDER]`. DATA holds CLINC150 as
//! `capabilities.jsonl` and `messages.jsonl`; SOURCE the published weights (the build leaves them in `source` of its
//! model cache), with which candle runs the same model in f32 beside ours.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use caxton::artifacts::{Artifacts, Space};
use caxton::capability::{
    Choice, Index, MESSAGE_TOKENS_MAX, Offer, Ranking, Requirements, Router, RouterLimits, Vectors,
};
use caxton::catalog::Catalog;
use caxton_embed::{Embedder, Kernel, Reading, Vector};
use caxton_proto::tree::{File, Tree};
use caxton_proto::{Digest, Revision, WorkspaceId};
use clap::Parser;
use serde_json::Value;

#[path = "../../../node/embed/tests/support/mod.rs"]
mod reference;

#[derive(Parser)]
struct Args {
    /// The folder with capabilities.jsonl and messages.jsonl.
    #[arg(long)]
    data: PathBuf,
    /// The folder with the published model.safetensors; without it there is no control.
    #[arg(long)]
    source: Option<PathBuf>,
    /// How often each thing is timed.
    #[arg(long, default_value_t = 2_000)]
    rounds: usize,
}

struct Message {
    text: String,
    agent: Option<String>,
    capability: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let embedder = Embedder::shared();
    say(format_args!("kernel {:?}", embedder.kernel()));
    embedding(&args)?;
    let offers = offers(&args.data)?;
    let messages = messages(&args.data)?;
    let vectors = Vectors::default();
    let cold = Instant::now();
    let index = Index::build(offers.clone(), &vectors);
    let cold = cold.elapsed();
    let warm = Instant::now();
    black_box(Index::build(offers.clone(), &vectors));
    say(format_args!(
        "index of {} capabilities: {:.0} ms; again, with every phrase known: {:.1} ms",
        index.len(),
        millis(cold),
        millis(warm.elapsed())
    ));
    ranking(&index, &messages, args.rounds);
    remembered(&offers, &messages, vectors, args.rounds)?;
    let odd: Vec<&Message> = messages.iter().skip(1).step_by(2).collect();
    for (lines, messages) in [("odd lines", odd), ("all lines", messages.iter().collect())] {
        accuracy(&index, lines, &messages);
        controls(&offers, lines, &messages);
    }
    Ok(())
}

/// The model alone: every kernel that runs here, and candle.
fn embedding(args: &Args) -> Result<()> {
    let text = "draw the sales of last year as bars, one for each region, and mark the best month in red; ".repeat(20);
    let control = args.source.as_ref().map(|source| Control::load(source)).transpose()?;
    for tokens in [12, 14, 64, 256] {
        for kernel in Kernel::available() {
            let rounds = if kernel == Kernel::Plain { 3 } else { (args.rounds * 12 / tokens).max(20) };
            let Some(embedder) = Embedder::with(kernel) else { continue };
            let times = time(rounds, || embedder.embed_start(&text, tokens));
            say(format_args!("embed {tokens:3} tokens, {kernel:?}: {times}"));
        }
        if let Some(control) = &control {
            let mut ids = Vec::new();
            Embedder::shared().vocabulary().encode(&text, tokens, &mut ids);
            let times = time((args.rounds / tokens).max(10), || control.0.embed(&ids));
            say(format_args!("embed {tokens:3} tokens, candle f32 (control): {times}"));
        }
    }
    Ok(())
}

struct Control(reference::Reference);

impl Control {
    fn load(source: &Path) -> Result<Self> {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CAXTON_MODEL_SOURCE", source) };
        Ok(Self(reference::Reference::load()?))
    }
}

/// Text to ranking, without the network and without what is remembered.
fn ranking(index: &Index, messages: &[Message], rounds: usize) {
    let mut ids = Vec::new();
    let mut twelve = messages.iter().filter(|message| {
        Embedder::shared().vocabulary().encode(&message.text, MESSAGE_TOKENS_MAX, &mut ids);
        ids.len() == 14
    });
    let texts: Vec<&str> = twelve.by_ref().map(|message| message.text.as_str()).collect();
    let mut turn = texts.iter().cycle();
    let all = time(rounds, || turn.next().map(|text| rank(index, text)));
    say(format_args!("text of 12 words' tokens to ranking, {} capabilities, uncached: {all}", index.len()));
    let meanings: Vec<(Reading, &str)> = texts.iter().map(|text| (reading(text), *text)).collect();
    let mut turn = meanings.iter().cycle();
    let wanted = Requirements::default();
    let alone = time(rounds, || turn.next().map(|(meaning, text)| index.rank(meaning, text, &wanted)));
    say(format_args!("the ranking of that alone: {alone}"));
}

/// Text to ranking once more: through the router, which has a workspace with as many capabilities and remembers the answer.
fn remembered(offers: &[Offer], messages: &[Message], vectors: Vectors, rounds: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let artifacts = Artifacts::open(&dir.path().join("artifacts"), Space::new(dir.path(), 0))?;
    let workspace: WorkspaceId = "bench".parse().map_err(anyhow::Error::msg)?;
    let mut of_agent: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for offer in offers {
        of_agent.entry(offer.agent.as_str()).or_default().push(offer.capability.as_str());
    }
    let mut tree = Tree::default();
    for (agent, capabilities) in of_agent {
        let text = format!("name = {agent:?}\ncapabilities = {capabilities:?}\n");
        let digest = Digest::of(text.as_bytes());
        let file = File { digest, bytes: text.len() as u64, chunks: None };
        artifacts.put(&workspace, vec![(digest, text.into())])?;
        tree.insert(format!("agents/{agent}.toml").parse().map_err(anyhow::Error::msg)?, file);
    }
    let root = tree.root();
    let catalog = Catalog::new(&workspace, Revision(1), root, Arc::new(tree), None, &artifacts);
    let (catalog, wanted) = (Arc::new(catalog), Requirements::default());
    let router = Router::new(vectors, RouterLimits::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = &messages.first().context("no messages")?.text;
    let route = || runtime.block_on(router.route(&catalog, text, &wanted));
    let first = route().map_err(|error| anyhow::anyhow!("{error}"))?;
    anyhow::ensure!(!first.cached && route().is_ok_and(|routed| routed.cached), "the answer is not remembered");
    say(format_args!("text to a ranking that is remembered: {}", time(rounds, route)));
    Ok(())
}

/// How often the right one is chosen. The weights and thresholds were fitted to the even lines, so that the odd ones alone
/// are the fairer figure.
fn accuracy(index: &Index, lines: &str, messages: &[&Message]) {
    let ranked: Vec<Ranking> = messages.iter().map(|message| rank(index, &message.text)).collect();
    let of = |ranking: &Ranking| {
        ranking.candidates.first().map(|best| (best.capability.to_string(), best.agent.to_string()))
    };
    let (mut served, mut capability, mut agent, mut kept, mut refused, mut strangers) = (0, 0, 0, 0, 0, 0);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for (message, ranking) in messages.iter().zip(&ranked) {
        let score = ranking.candidates.first().map_or(0.0, |best| best.score);
        let nobody = ranking.choice == Choice::Nobody;
        if message.capability.is_none() {
            strangers += 1;
            refused += usize::from(nobody);
            outside.push(score);
            continue;
        }
        served += 1;
        kept += usize::from(!nobody);
        inside.push(score);
        let best = of(ranking);
        capability += usize::from(best.as_ref().map(|best| &best.0) == message.capability.as_ref());
        agent += usize::from(best.as_ref().map(|best| &best.1) == message.agent.as_ref());
    }
    let share = |part: usize, of: usize| part as f64 / of as f64;
    say(format_args!(
        "{lines}, ours: capability {:.4}, agent {:.4} of {served}; out-of-scope AUROC {:.4}; at the threshold {:.3} kept, {:.3} of {strangers} refused",
        share(capability, served),
        share(agent, served),
        auroc(&inside, &outside),
        share(kept, served),
        share(refused, strangers)
    ));
}

/// What is usual: the nearest example, and the nearest middle.
fn controls(offers: &[Offer], lines: &str, messages: &[&Message]) {
    let examples: Vec<Vec<Vector>> =
        offers.iter().map(|offer| offer.phrases.iter().map(|phrase| meaning(phrase)).collect()).collect();
    let middles: Vec<Vec<Vector>> = examples.iter().map(|vectors| vec![middle(vectors)]).collect();
    for (name, vectors) in [("nearest example", &examples), ("nearest middle", &middles)] {
        let (mut served, mut capability, mut agent) = (0, 0, 0);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for message in messages {
            let query = meaning(&message.text);
            let scores = vectors.iter().map(|of| of.iter().map(|one| one.similarity(&query)).fold(f32::MIN, f32::max));
            let Some((best, score)) = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
            match &message.capability {
                None => outside.push(score),
                Some(right) => {
                    served += 1;
                    inside.push(score);
                    capability += usize::from(offers[best].capability.as_str() == right);
                    agent += usize::from(Some(offers[best].agent.as_str()) == message.agent.as_deref());
                }
            }
        }
        let share = |part: usize| part as f64 / served as f64;
        say(format_args!(
            "{lines}, {name} (control): capability {:.4}, agent {:.4}; out-of-scope AUROC {:.4}",
            share(capability),
            share(agent),
            auroc(&inside, &outside)
        ));
    }
}

fn middle(vectors: &[Vector]) -> Vector {
    let mut sum = vec![0.0_f32; caxton_embed::DIMENSIONS];
    for vector in vectors {
        sum.iter_mut().zip(vector.as_slice()).for_each(|(sum, value)| *sum += value);
    }
    Vector::new(sum)
}

/// The chance that a message that belongs here scores higher than one that does not.
fn auroc(inside: &[f32], outside: &[f32]) -> f64 {
    let wins = inside.iter().flat_map(|a| {
        outside.iter().map(move |b| {
            if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            }
        })
    });
    wins.sum::<f64>() / (inside.len() * outside.len()) as f64
}

fn meaning(text: &str) -> Vector {
    reading(text).meaning
}

fn reading(text: &str) -> Reading {
    Embedder::shared().read_start(text, MESSAGE_TOKENS_MAX)
}

fn rank(index: &Index, text: &str) -> Ranking {
    index.rank(&reading(text), text, &Requirements::default())
}

fn offers(data: &Path) -> Result<Vec<Offer>> {
    let mut by_agent: HashMap<String, Vec<Offer>> = HashMap::new();
    for line in lines(&data.join("capabilities.jsonl"))? {
        let text = |key: &str| line[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {line}"));
        let phrases = line["examples"].as_array().into_iter().flatten().filter_map(|phrase| phrase.as_str());
        let offer = Offer {
            agent: text("agent")?.parse().map_err(anyhow::Error::msg)?,
            capability: text("capability")?.parse().map_err(anyhow::Error::msg)?,
            version: semver::Version::new(1, 0, 0),
            description: String::new(),
            phrases: phrases.map(str::to_owned).collect(),
        };
        by_agent.entry(text("agent")?).or_default().push(offer);
    }
    let mut agents: Vec<_> = by_agent.into_iter().collect();
    agents.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(agents.into_iter().flat_map(|(_, offers)| offers).collect())
}

fn messages(data: &Path) -> Result<Vec<Message>> {
    let lines = lines(&data.join("messages.jsonl"))?;
    let text = |line: &Value, key: &str| line[key].as_str().map(str::to_owned);
    let message = |line: Value| {
        let (agent, capability) = (text(&line, "agent"), text(&line, "capability"));
        Ok(Message { text: text(&line, "text").context("a message without text")?, agent, capability })
    };
    lines.into_iter().map(message).collect()
}

fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Sorted: by the clock, and of this thread alone, which is what a quiet machine would take.
struct Times {
    clock: Vec<Duration>,
    thread: Vec<Duration>,
}

impl std::fmt::Display for Times {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, times) in [("clock", &self.clock), ("; thread", &self.thread)] {
            let at = |share: f64| millis(times[(times.len() as f64 * share) as usize]);
            write!(out, "{name} p50 {:.3} p95 {:.3} ms", at(0.5), at(0.95))?;
        }
        Ok(())
    }
}

fn time<T>(rounds: usize, mut work: impl FnMut() -> T) -> Times {
    let mut times = Times { clock: Vec::with_capacity(rounds), thread: Vec::with_capacity(rounds) };
    for _ in 0..rounds {
        let (start, thread) = (Instant::now(), thread_time());
        black_box(work());
        times.thread.push(thread_time().saturating_sub(thread));
        times.clock.push(start.elapsed());
    }
    times.clock.sort();
    times.thread.sort();
    times
}

/// How long this thread has been running. The standard library does not say.
fn thread_time() -> Duration {
    #[repr(C)]
    struct Time {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    const THREAD_CPU: i32 = 3;
    let mut time = Time { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a `timespec` as 64-bit Linux has it.
    unsafe { clock_gettime(THREAD_CPU, &raw mut time) };
    Duration::new(time.seconds.unsigned_abs(), u32::try_from(time.nanoseconds).unwrap_or(0))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[allow(clippy::print_stdout)]
fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
