//! How well it finds: evidence in dialogues by turn and by session, and abstracts by claims and questions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use caxton_memory::proto::MemoryId;
use caxton_memory::{Mode, Query};

use crate::sets::{self, Dialogue, Set, session};
use crate::store::{Store, memory, permit};

const MODES: [(&str, Mode); 3] = [("words", Mode::Words), ("meaning", Mode::Meaning), ("both", Mode::Both)];

pub fn run(data: &Path, work: &Path) -> Result<()> {
    if data.join("locomo").is_dir() {
        dialogues(&sets::locomo(&data.join("locomo"))?, work)?;
    }
    let mut pairs = Vec::new();
    if data.join("cranfield").is_dir() {
        pairs.push(sets::cranfield(&data.join("cranfield"))?);
    }
    if data.join("scifact/corpus_train.csv").is_file() {
        pairs.push(sets::scifact(&data.join("scifact"))?);
    }
    for set in pairs {
        abstracts(&set, work)?;
    }
    Ok(())
}

fn number(id: MemoryId) -> usize {
    u128::from_be_bytes(*id.as_bytes()) as usize
}

/// The share of the evidence that is among the first 1, 5 and 10, the mean over questions; each conversation by itself,
/// then all.
fn dialogues(all: &[Dialogue], work: &Path) -> Result<()> {
    let mut sums: BTreeMap<(&str, &str), Vec<[f64; 3]>> = BTreeMap::new();
    for (fold, dialogue) in all.iter().enumerate() {
        let mut store = Store::new(None, &work.join("vectors.sqlite"))?;
        let memories: Vec<_> = dialogue
            .turns
            .iter()
            .enumerate()
            .map(|(at, (id, text))| memory(at as u64, text, Some((session(id), at as u32))))
            .collect();
        store.remember(&memories)?;
        store.embed()?;
        let mut here: BTreeMap<(&str, &str), Vec<[f64; 3]>> = BTreeMap::new();
        for (question, evidence) in &dialogue.questions {
            let vector = store.vector(question)?;
            let sessions: BTreeSet<String> = evidence.iter().map(|turn| session(turn).to_owned()).collect();
            for (name, mode) in MODES {
                let query = Query { mode, ..Query::new(question, Some(&vector), 2) };
                let found = store.index.search(&store.vectors, &permit(), &query)?;
                let turns: Vec<&str> = found.hits.iter().map(|hit| dialogue.turns[number(hit.id)].0.as_str()).collect();
                here.entry(("turns", name)).or_default().push(recall(&turns, evidence));
                let found = store.index.search_episodes(&permit(), &query)?;
                let found: Vec<&str> = found.episodes.iter().map(|it| it.conversation.as_str()).collect();
                here.entry(("sessions", name)).or_default().push(recall(&found, &sessions));
            }
        }
        for (key, recalls) in here {
            if key.1 == "both" {
                println!("LoCoMo conversation {fold} {:8} {}", key.0, means(&recalls));
            }
            sums.entry(key).or_default().extend(recalls);
        }
    }
    for ((what, name), recalls) in sums {
        println!("LoCoMo {what:8} by {name:7} R@1/5/10 {}", means(&recalls));
    }
    Ok(())
}

fn recall(found: &[&str], wanted: &BTreeSet<String>) -> [f64; 3] {
    [1, 5, 10].map(|most| {
        let hits = found.iter().take(most).filter(|id| wanted.contains(**id)).count();
        hits as f64 / wanted.len() as f64
    })
}

fn means(all: &[[f64; 3]]) -> String {
    let mean = |at: usize| all.iter().map(|one| one[at]).sum::<f64>() / all.len().max(1) as f64;
    format!("{:.3} {:.3} {:.3}", mean(0), mean(1), mean(2))
}

/// nDCG@10, and how many of the answers and of the others reach a similarity.
fn abstracts(set: &Set, work: &Path) -> Result<()> {
    let mut store = Store::new(None, &work.join("vectors.sqlite"))?;
    let memories: Vec<_> =
        set.documents.iter().enumerate().map(|(at, (_, text))| memory(at as u64, text, None)).collect();
    store.remember(&memories)?;
    store.embed()?;
    let mut gains: BTreeMap<&str, f64> = BTreeMap::new();
    let mut reached: BTreeMap<u32, [u64; 4]> = BTreeMap::new();
    for (question, answers) in &set.questions {
        let vector = store.vector(question)?;
        for (name, mode) in MODES {
            let query = Query { mode, limit: 1_000, ..Query::new(question, Some(&vector), 2) };
            let found = store.index.search(&store.vectors, &permit(), &query)?;
            let is = |at: usize| answers.contains(&set.documents[at].0);
            let gain = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
            let won: f64 = found
                .hits
                .iter()
                .take(10)
                .enumerate()
                .filter(|(_, hit)| is(number(hit.id)))
                .map(|(rank, _)| gain(rank))
                .sum();
            *gains.entry(name).or_default() += won / (0..answers.len().min(10)).map(gain).sum::<f64>();
            if mode == Mode::Both {
                for least in [20, 30, 40, 50] {
                    let [right, of_right, wrong, of_wrong] = reached.entry(least).or_default();
                    let over = |hit: &&caxton_memory::Hit| hit.similarity * 100.0 >= least as f32;
                    let hits = found.hits.iter().filter(over).map(|hit| is(number(hit.id)));
                    let (yes, no): (Vec<bool>, Vec<bool>) = hits.partition(|is| *is);
                    *right += yes.len() as u64;
                    *of_right += answers.len() as u64;
                    *wrong += no.len() as u64;
                    *of_wrong += (set.documents.len() - answers.len()) as u64;
                }
            }
        }
    }
    for (name, sum) in gains {
        println!("{} by {name:7} nDCG@10 {:.4}", set.name, sum / set.questions.len() as f64);
    }
    for (least, [right, of_right, wrong, of_wrong]) in reached {
        let part = |a: u64, b: u64| a as f64 / b.max(1) as f64 * 100.0;
        println!(
            "{} similarity {:.1}: {:.1} % of the answers reach it, {:.3} % of the others",
            set.name,
            f64::from(least) / 100.0,
            part(right, of_right),
            part(wrong, of_wrong)
        );
    }
    Ok(())
}
