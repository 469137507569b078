//! How fast it is, beside SQLite's FTS5 and a plain scan of all vectors in the same run.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use caxton_memory::proto::{Action, Command, EntityId, NewRelation, RelationId, Scope};
use caxton_memory::{Condition, Filter, GraphLimits, GraphQuery, Index, Query, Value, apply, cache, phrases};

use crate::store::{MODEL, Store, memory, permit};

/// Searches of each kind.
const ROUNDS: usize = 300;
/// Words that texts are made of; the rank of a word decides how often it comes.
const WORDS: usize = 20_000;

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

    /// A word, the first ones far more often than the last.
    fn word(&mut self) -> String {
        let rank = (WORDS as f32).powf(self.part()) as u64;
        let mut word = String::new();
        let mut rest = rank.wrapping_mul(2_654_435_761) % 900_000_007 + 11_881_376;
        while rest > 0 {
            word.push(char::from(b'a' + (rest % 26) as u8));
            rest /= 26;
        }
        word
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

fn say(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!("{what:44} p50 {:.3} ms, p99 {:.3} ms", at(0.5), at(0.99));
}

pub fn run(memories: usize, work: &Path) -> Result<()> {
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
    let start = Instant::now();
    store.remember(&all)?;
    let spent = start.elapsed().as_secs_f64();
    println!(
        "bulk: {memories} memories applied in {spent:.1} s, {:.0} a second, without embedding",
        memories as f64 / spent
    );
    let start = Instant::now();
    let transaction = store.vectors.unchecked_transaction()?;
    for pending in store.index.pending(usize::MAX) {
        let vector = direction(&mut drawn);
        cache::write(&store.vectors, &MODEL, pending.key, &vector)?;
        store.index.learn(pending.key, &vector);
    }
    transaction.commit()?;
    println!("vectors: kept and learnt in {:.1} s", start.elapsed().as_secs_f64());
    println!("memory: {} bytes a memory in the index", store.index.bytes() / memories);
    let on_disk = |db: &rusqlite::Connection, name: &str| -> Result<u64> {
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(std::fs::metadata(folder.path().join(name))?.len() / memories as u64)
    };
    let (rows, cached) = (on_disk(&store.db, "memory.sqlite")?, on_disk(&store.vectors, "vectors.sqlite")?);
    println!("disk: {rows} bytes a memory, and {cached} of its vector in the cache");
    let start = Instant::now();
    store.index = Index::load(&store.db, &store.vectors, MODEL)?;
    println!(
        "start: index loaded in {:.2} s, {} vectors missing",
        start.elapsed().as_secs_f64(),
        store.index.pending_count()
    );
    searches(&store, &mut drawn)?;
    control(&store, &mut drawn)?;
    graph(folder.path())
}

fn searches(store: &Store, drawn: &mut Drawn) -> Result<()> {
    let tag = |path: &str| Condition { path: path.to_owned(), value: Value::Number(7.0) };
    let filters = [("all", None), ("0.1 %", Some(tag("m"))), ("1 %", Some(tag("c"))), ("10 %", Some(tag("d")))];
    for (name, condition) in filters {
        let (mut times, mut same) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (text, vector) = (drawn.text(8), direction(drawn));
            let filter = Filter { metadata: condition.clone().into_iter().collect(), ..Filter::default() };
            let query = Query { filter, ..Query::new(&text, Some(&vector), 2) };
            let start = Instant::now();
            let found = store.index.search(&store.vectors, &permit(), &query)?;
            times.push(start.elapsed());
            let exact = store.index.search(&store.vectors, &permit(), &Query { exhaustive: true, ..query })?;
            let ids = |hits: &[caxton_memory::Hit]| hits.iter().map(|hit| hit.id).collect::<Vec<_>>();
            same += usize::from(ids(&found.hits) == ids(&exact.hits));
        }
        say(&format!("search of {name}, without embedding"), &mut times);
        println!("  the first 10 are those of an exact search in {same} of {ROUNDS}");
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let text = drawn.text(8);
        let start = Instant::now();
        let vector = caxton_embed::Embedder::shared().embed(&text);
        let query = Query::new(&text, Some(vector.as_slice()), 2);
        black_box(store.index.search(&store.vectors, &permit(), &query)?);
        times.push(start.elapsed());
    }
    say("search of all, with embedding", &mut times);
    Ok(())
}

/// SQLite's FTS5 with the same words, and a scan of as many vectors of four bytes a number.
fn control(store: &Store, drawn: &mut Drawn) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS / 10 {
        let text = drawn.text(8).replace(' ', " OR ");
        let start = Instant::now();
        black_box(phrases(&store.db, &permit(), &Filter::default(), &text, None, 10)?);
        times.push(start.elapsed());
    }
    say("control: FTS5, words only", &mut times);
    let count = store.index.len(permit().workspace());
    let vectors: Vec<f32> = (0..count).flat_map(|_| direction(drawn)).collect();
    let mut times = Vec::new();
    for _ in 0..ROUNDS / 10 {
        let needle = direction(drawn);
        let start = Instant::now();
        let near = |vector: &[f32]| vector.iter().zip(&needle).map(|(x, y)| x * y).sum::<f32>();
        let mut all: Vec<(f32, usize)> =
            vectors.chunks_exact(MODEL.dimensions).enumerate().map(|(at, vector)| (near(vector), at)).collect();
        all.select_nth_unstable_by(10.min(count - 1), |a, b| b.0.total_cmp(&a.0));
        black_box(&all);
        times.push(start.elapsed());
    }
    say("control: scan of all vectors, meaning only", &mut times);
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
    let (mut times, mut found) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let from = EntityId::of(&Scope::Workspace, &format!("e{}", drawn.next() % ENTITIES));
        let start = Instant::now();
        found += black_box(store.index.subgraph(&permit(), &[from], &query)).entities.len();
        times.push(start.elapsed());
    }
    say(&format!("graph: 3 far of {RELATIONS} relations"), &mut times);
    println!("  {} entities in the mean", found / ROUNDS);
    Ok(())
}
