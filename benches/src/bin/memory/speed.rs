//! How fast it is, beside SQLite's FTS5 and a plain scan of all vectors in the same run, and beside sqlite-vec and numpy where
//! a Python has them.
//!
//! A machine that others use too stretches the time on the clock; what the thread itself took says what the work is.

use std::hint::black_box;
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use caxton_benches::figures::thread_time;
use caxton_memory::proto::{Action, Command, EntityId, NewRelation, RelationId, Scope};
use caxton_memory::{Condition, Filter, GraphLimits, GraphQuery, Index, Query, Value, apply, cache, phrases};

use crate::store::{MODEL, Store, memory, permit};

/// Searches of each kind.
const ROUNDS: usize = 300;
/// Words that texts are made of; the rank of a word decides how often it comes.
const WORDS: usize = 20_000;
/// What words are put together of; the square of how many there are is above [`WORDS`].
#[rustfmt::skip]
const PARTS: [&str; 142] = [
    "apple", "arch", "arm", "army", "bag", "ball", "band", "bank", "barn", "base", "bath", "beach", "beam", "bean",
    "bear", "bell", "belt", "bench", "bird", "boat", "bone", "book", "boot", "bowl", "brick", "bridge", "brush",
    "bull", "bush", "camp", "candle", "card", "cart", "castle", "cave", "chain", "chair", "cheese", "church", "clay",
    "cliff", "clock", "cloud", "coal", "coat", "coffee", "coin", "copper", "corn", "cotton", "cow", "crane", "cross",
    "crown", "cup", "desk", "dog", "door", "dragon", "dream", "drum", "duck", "dust", "eagle", "engine", "farm",
    "feather", "fence", "field", "fire", "fish", "flag", "floor", "flower", "foot", "forest", "fox", "frog", "fruit",
    "garden", "gate", "ghost", "glass", "goat", "gold", "grain", "grass", "gun", "hall", "hammer", "hand", "harbor",
    "hat", "hawk", "head", "heart", "hill", "honey", "hook", "horn", "horse", "house", "ice", "iron", "island",
    "jam", "king", "kitchen", "knife", "lake", "lamp", "leaf", "lemon", "letter", "light", "lion", "lock", "map",
    "market", "milk", "mill", "mirror", "moon", "mouse", "mud", "needle", "nest", "night", "ocean", "onion", "oven",
    "owl", "paint", "paper", "park", "pepper", "pipe", "plant", "plate", "pond", "rain", "river",
];

/// Numbers that look drawn, the same at every run.
struct Drawn(u64);

impl Drawn {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn part(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// A word, the first ones far more often than the last: two English ones put together, which a sentence model knows better
    /// than letters that were drawn.
    fn word(&mut self) -> String {
        let rank = (WORDS as f32).powf(self.part()) as usize;
        let (first, second) = (rank % PARTS.len(), rank / PARTS.len() % PARTS.len());
        format!("{}{}", PARTS[first], PARTS[second])
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }
}

/// Directions around a thousand middles, as meanings lie.
fn direction(drawn: &mut Drawn) -> Vec<f32> {
    let mut middle = Drawn(drawn.next() % 1_000 * 7_919 + 1);
    (0..MODEL.dimensions).map(|_| middle.part() - 0.5 + (drawn.part() - 0.5) * 1.2).collect()
}

/// Times by the clock and of the thread.
#[derive(Default)]
struct Times(Vec<(Duration, Duration)>);

impl Times {
    fn of<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (began, began_thread) = (Instant::now(), thread_time());
        let done = black_box(work());
        self.0.push((began.elapsed(), thread_time().saturating_sub(began_thread)));
        done
    }

    fn say(&self, what: &str) {
        let at = |mut times: Vec<Duration>, part: f64| {
            times.sort();
            times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
        };
        let clock: Vec<Duration> = self.0.iter().map(|(clock, _)| *clock).collect();
        let thread: Vec<Duration> = self.0.iter().map(|(_, thread)| *thread).collect();
        println!(
            "{what:44} p50 {:.3} ms, p99 {:.3} ms; of the thread p50 {:.3} ms, p99 {:.3} ms",
            at(clock.clone(), 0.5),
            at(clock, 0.99),
            at(thread.clone(), 0.5),
            at(thread, 0.99)
        );
    }
}

/// Does something, and says how long it took by the clock and of the thread.
fn once<R>(what: &str, work: impl FnOnce() -> R) -> (R, f64) {
    let mut times = Times::default();
    let done = times.of(work);
    let (clock, thread) = times.0[0];
    println!("{what:44} {:.2} s, of the thread {:.2} s", clock.as_secs_f64(), thread.as_secs_f64());
    (done, thread.as_secs_f64())
}

pub fn run(memories: usize, work: &Path, python: Option<&Path>) -> Result<()> {
    let folder = tempfile::tempdir_in(work)?;
    let vectors = folder.path().join("vectors.sqlite");
    let mut store = Store::new(Some(folder.path()), &vectors)?;
    let mut drawn = Drawn(42);
    let all: Vec<_> = (0..memories as u64)
        .map(|number| {
            let tags = format!("{{\"m\":{},\"c\":{},\"d\":{}}}", number % 1_000, number % 100, number % 10);
            let text = drawn.text(30);
            caxton_memory::proto::NewMemory { metadata: Some(tags), ..memory(number, &text, None) }
        })
        .collect();
    let (kept, spent) = once("bulk: applied and indexed, without embedding", || store.remember(&all));
    kept?;
    println!("  {:.0} a second of the thread's time", memories as f64 / spent);
    let learnt = once("vectors: kept and learnt", || {
        let transaction = store.vectors.unchecked_transaction()?;
        for pending in store.index.pending(usize::MAX) {
            let vector = direction(&mut drawn);
            cache::write(&store.vectors, &MODEL, pending.key, &vector)?;
            store.index.learn(pending.key, &vector);
        }
        transaction.commit()
    });
    learnt.0?;
    println!("memory: {} bytes a memory in the index", store.index.bytes() / memories);
    let on_disk = |db: &rusqlite::Connection, name: &str| -> Result<u64> {
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(std::fs::metadata(folder.path().join(name))?.len() / memories as u64)
    };
    let (rows, cached) = (on_disk(&store.db, "memory.sqlite")?, on_disk(&store.vectors, "vectors.sqlite")?);
    println!("disk: {rows} bytes a memory, and {cached} of its vector in the cache");
    let loaded = once("start: index loaded, with vectors", || Index::load(&store.db, &store.vectors, MODEL));
    store.index = loaded.0?;
    println!("  {} vectors missing", store.index.pending_count());
    writes(&mut store, memories, &mut drawn)?;
    searches(&store, &mut drawn)?;
    control(&store, &mut drawn)?;
    if let Some(python) = python {
        peers(python, folder.path(), &all, &mut drawn)?;
    }
    graph(folder.path())
}

/// One memory after the other: applied, committed, embedded and found. The log's own time is not in it.
fn writes(store: &mut Store, memories: usize, drawn: &mut Drawn) -> Result<()> {
    let (mut times, mut embedded) = (Times::default(), Times::default());
    for number in 0..ROUNDS as u64 {
        let one = memory(memories as u64 + number, &drawn.text(30), None);
        let id = one.id;
        times.of(|| store.remember(std::slice::from_ref(&one)))?;
        embedded.of(|| store.embed())?;
        let found = store.index.search(&store.vectors, &permit(), &Query::new(&one.text, None, 2))?;
        if found.hits.first().is_none_or(|hit| hit.id != id) {
            bail!("the next search does not find what was written");
        }
    }
    times.say("write: applied, committed and indexed");
    embedded.say("write: its vector");
    Ok(())
}

/// Other people's ways to do it, with the same texts and vectors.
fn peers(python: &Path, folder: &Path, all: &[caxton_memory::proto::NewMemory], drawn: &mut Drawn) -> Result<()> {
    let lines = |texts: &mut dyn Iterator<Item = String>| texts.fold(String::new(), |all, text| all + &text + "\n");
    let bytes = |count: usize, drawn: &mut Drawn| -> Vec<u8> {
        (0..count).flat_map(|_| direction(drawn)).flat_map(f32::to_le_bytes).collect()
    };
    std::fs::write(folder.join("texts.txt"), lines(&mut all.iter().map(|it| it.text.clone())))?;
    std::fs::write(folder.join("queries.txt"), lines(&mut (0..ROUNDS / 10).map(|_| drawn.text(8))))?;
    std::fs::write(folder.join("vectors.f32"), bytes(all.len(), drawn))?;
    std::fs::write(folder.join("needles.f32"), bytes(ROUNDS / 10, drawn))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/memory/peers.py");
    let status = Process::new(python).arg(script).arg(folder).arg(MODEL.dimensions.to_string()).status()?;
    if !status.success() {
        bail!("the peers failed: {status}");
    }
    Ok(())
}

fn searches(store: &Store, drawn: &mut Drawn) -> Result<()> {
    let tag = |path: &str| Condition { path: path.to_owned(), value: Value::Number(7.0) };
    let filters = [("all", None), ("0.1 %", Some(tag("m"))), ("1 %", Some(tag("c"))), ("10 %", Some(tag("d")))];
    for (name, condition) in filters {
        let (mut times, mut same) = (Times::default(), 0);
        for _ in 0..ROUNDS {
            let (text, vector) = (drawn.text(8), direction(drawn));
            let filter = Filter { metadata: condition.clone().into_iter().collect(), ..Filter::default() };
            let query = Query { filter, ..Query::new(&text, Some(&vector), 2) };
            let found = times.of(|| store.index.search(&store.vectors, &permit(), &query))?;
            let exact = store.index.search(&store.vectors, &permit(), &Query { exhaustive: true, ..query })?;
            let ids = |hits: &[caxton_memory::Hit]| hits.iter().map(|hit| hit.id).collect::<Vec<_>>();
            same += usize::from(ids(&found.hits) == ids(&exact.hits));
        }
        times.say(&format!("search of {name}, without embedding"));
        println!("  the first 10 are those of an exact search in {same} of {ROUNDS}");
    }
    let (mut times, mut embedded) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let text = drawn.text(8);
        embedded.of(|| caxton_embed::Embedder::shared().embed(&text));
        times.of(|| {
            let vector = caxton_embed::Embedder::shared().embed(&text);
            store.index.search(&store.vectors, &permit(), &Query::new(&text, Some(vector.as_slice()), 2))
        })?;
    }
    times.say("search of all, with embedding of 8 words");
    embedded.say("control: that embedding alone");
    Ok(())
}

/// SQLite's FTS5 with the same words, and a scan of as many vectors of four bytes a number.
fn control(store: &Store, drawn: &mut Drawn) -> Result<()> {
    let mut times = Times::default();
    for _ in 0..ROUNDS / 10 {
        let text = drawn.text(8).replace(' ', " OR ");
        times.of(|| phrases(&store.db, &permit(), &Filter::default(), &text, None, 10))?;
    }
    times.say("control: FTS5, words only");
    let count = store.index.len(permit().workspace());
    let vectors: Vec<f32> = (0..count).flat_map(|_| direction(drawn)).collect();
    let mut times = Times::default();
    for _ in 0..ROUNDS / 10 {
        let needle = direction(drawn);
        let near = |vector: &[f32]| vector.iter().zip(&needle).map(|(x, y)| x * y).sum::<f32>();
        times.of(|| {
            let scored = vectors.chunks_exact(MODEL.dimensions).enumerate().map(|(at, vector)| (near(vector), at));
            let mut all: Vec<(f32, usize)> = scored.collect();
            all.select_nth_unstable_by(10.min(count - 1), |a, b| b.0.total_cmp(&a.0));
            all
        });
    }
    times.say("control: scan of all vectors, meaning only");
    Ok(())
}

/// Three relations far in a graph of half a million.
fn graph(folder: &Path) -> Result<()> {
    const RELATIONS: u64 = 500_000;
    const ENTITIES: u64 = 100_000;
    let mut store = Store::new(None, &folder.join("graph.sqlite"))?;
    let mut drawn = Drawn(7);
    let sources = memory(0, "text", None).sources;
    for first in (0..RELATIONS).step_by(1_000) {
        let relation = |number: u64| NewRelation {
            id: RelationId::from_bytes(u128::from(number).to_be_bytes()),
            scope: Scope::Workspace,
            from: format!("e{}", drawn.next() % ENTITIES),
            kind: "knows".to_owned(),
            to: format!("e{}", drawn.next() % ENTITIES),
            metadata: None,
            sources: sources.clone(),
            created_ms: 1,
            valid_from_ms: 1,
            valid_to_ms: None,
        };
        let relations = (first..first + 1_000).map(relation).collect();
        let action = Action::Remember { entities: vec![], memories: vec![], relations };
        let command =
            Command { workspace: "bench".parse()?, time_ms: 1, actor: "bench".to_owned(), permit: None, action };
        let transaction = store.db.unchecked_transaction()?;
        let applied = apply(&store.db, &command)?;
        transaction.commit()?;
        store.index.refresh(&store.db, &applied.touched)?;
    }
    let limits = GraphLimits { depth_max: 3, ..GraphLimits::default() };
    let query = GraphQuery { as_of_ms: Some(2), limits, ..GraphQuery::default() };
    let (mut times, mut found) = (Times::default(), 0);
    for _ in 0..ROUNDS {
        let from = EntityId::of(&Scope::Workspace, &format!("e{}", drawn.next() % ENTITIES));
        found += times.of(|| store.index.subgraph(&permit(), &[from], &query)).entities.len();
    }
    times.say(&format!("graph: 3 far of {RELATIONS} relations"));
    println!("  {} entities in the mean", found / ROUNDS);
    Ok(())
}
