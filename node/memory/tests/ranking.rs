//! The ranking beside one that is worked out from scratch: by words with BM25 over the texts as they are, and by both halves
//! over every memory. Whatever was edited, forgotten or loaded anew in between, the same is found.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use caxton_memory::proto::{Action, Edit, Forget, Scope};
use caxton_memory::{Embedder as _, Index, Mode, Permit, Query, Weights};
use proptest::prelude::*;
use support::{Letters, Store, id, memory, subject, workspace};

/// More memories than are looked at one by one.
const MEMORIES: u32 = 2_600;
/// Words, the first ones far more often than the last; no two have a stem in common.
const WORDS: u32 = 60;

/// Numbers that look drawn, the same for the same seed.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, most: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % most
    }

    fn words(&mut self, count: u32) -> Vec<String> {
        let word = |_| {
            let most = 1 + self.below(WORDS);
            format!("q{}z", self.below(most))
        };
        (0..count).map(word).collect()
    }
}

fn scope(number: u32) -> Scope {
    match number % 4 {
        0 => Scope::Workspace,
        1 => subject("ann"),
        2 => subject("bob"),
        _ => Scope::Agent("helper".to_owned()),
    }
}

/// What the memories say, by number, and where.
type Texts = BTreeMap<u32, (Scope, Vec<String>)>;

fn filled(seed: u64) -> (Store, Texts) {
    let (mut store, mut drawn, mut texts) = (Store::new(), Drawn(seed), Texts::new());
    let mut all = Vec::new();
    for number in 0..MEMORIES {
        let count = 1 + drawn.below(12);
        let words = drawn.words(count);
        // The number makes each text one of its own.
        let text = format!("{} n{number}", words.join(" "));
        all.push(memory(number.into(), scope(number), &text));
        texts.insert(number, (scope(number), text.split(' ').map(str::to_owned).collect()));
    }
    for part in all.chunks(1_000) {
        store.remember(part.to_vec());
    }
    (store, texts)
}

/// Edits some, forgets others one by one or by the scope.
fn changed(store: &mut Store, texts: &mut Texts, drawn: &mut Drawn, times: u32) {
    for _ in 0..times {
        let number = drawn.below(MEMORIES);
        if !texts.contains_key(&number) {
            continue;
        }
        if drawn.below(2) == 0 {
            store.forget(Forget::Memories(vec![id(number.into())]));
            texts.remove(&number);
        } else {
            let text = format!("{} m{number}", drawn.words(6).join(" "));
            store.run(Action::Edit(Edit { text: Some(text.clone()), ..Edit::of(id(number.into())) }));
            if let Some((_, words)) = texts.get_mut(&number) {
                *words = text.split(' ').map(str::to_owned).collect();
            }
        }
    }
}

/// The share of the search's words that each memory has, as BM25 weighs them, of all that the permit allows.
fn scores(texts: &Texts, query: &[String], allowed: impl Fn(&Scope) -> bool) -> BTreeMap<u32, f64> {
    let count = texts.len() as f64;
    let average = texts.values().map(|(_, words)| words.len()).sum::<usize>() as f64 / count;
    let distinct: BTreeSet<&String> = query.iter().collect();
    let (mut most, mut sums) = (0.0, BTreeMap::new());
    for word in distinct {
        let uses = texts.values().filter(|(_, words)| words.contains(word)).count() as f64;
        let rare = (1.0 + (count - uses + 0.5) / (uses + 0.5)).ln();
        most += if uses == 0.0 { rare * 0.5 } else { rare };
        for (number, (scope, words)) in texts {
            let times = words.iter().filter(|it| *it == word).count() as f64;
            if times > 0.0 && allowed(scope) {
                let length = 0.6 + 0.4 * words.len() as f64 / average;
                *sums.entry(*number).or_insert(0.0) += rare * times / (times + 1.2 * length);
            }
        }
    }
    sums.values_mut().for_each(|sum| *sum /= most);
    sums
}

fn words_alone() -> Weights {
    Weights {
        words: 1.0,
        meaning: 0.0,
        neighbours: 0.0,
        second_neighbours: 0.0,
        episode: 0.0,
        recency: 0.0,
        importance: 0.0,
        ..Weights::default()
    }
}

/// Checks that a search by words gives the best by BM25, in order, with their scores.
fn check(store: &Store, texts: &Texts, query: &[String], permit: &Permit) {
    let text = query.join(" ");
    let query_of = Query { mode: Mode::Words, weights: words_alone(), limit: 25, ..Query::new(&text, None, 9_000) };
    let found = store.index.search(&store.vectors, permit, &query_of).expect("a search");
    let expected = scores(texts, query, |scope| permit.allows(scope));
    let mut best: Vec<f64> = expected.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(found.hits.len(), best.len().min(25), "{text}");
    assert!(found.hits.iter().is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.id < b.id)));
    for (hit, best) in found.hits.iter().zip(best) {
        let number = u128::from_be_bytes(*hit.id.as_bytes()) as u32;
        let own = expected.get(&number).copied().unwrap_or_else(|| panic!("{number} has none of {text}"));
        assert!((own - best).abs() < 1e-5, "{text}: {number} has {own} where {best} is next");
        assert!((f64::from(hit.score) - own).abs() < 1e-5, "{text}: {number} has {own} and not {}", hit.score);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn words_rank_as_bm25_does_whatever_came_and_went(seed in 1_u64.., changes in 0_u32..300) {
        let ((mut store, mut texts), mut drawn) = (filled(seed), Drawn(seed ^ 0x5555));
        changed(&mut store, &mut texts, &mut drawn, changes);
        let some = Permit::of(workspace("w"), [Scope::Workspace, subject("ann")]);
        let few = Permit::of(workspace("w"), [Scope::Agent("helper".to_owned())]);
        for _ in 0..4 {
            let count = 1 + drawn.below(7);
            let mut query = drawn.words(count);
            query.push("nobody".to_owned());
            for permit in [&store.all(), &some, &few] {
                check(&store, &texts, &query, permit);
            }
        }
        // Most go, so that the arrays are made smaller; and one that starts anew finds the same.
        let most: Vec<u32> = texts.keys().copied().filter(|number| number % 5 != 0).collect();
        store.forget(Forget::Memories(most.iter().map(|number| id((*number).into())).collect()));
        most.iter().for_each(|number| drop(texts.remove(number)));
        let query = drawn.words(5);
        check(&store, &texts, &query, &store.all());
        store.index = Index::load(&store.db, &store.vectors, Letters.model()).expect("loaded");
        check(&store, &texts, &query, &store.all());
    }

    #[test]
    fn both_halves_find_what_a_look_at_every_memory_finds(seed in 1_u64.., changes in 0_u32..100) {
        let ((mut store, mut texts), mut drawn) = (filled(seed), Drawn(seed ^ 0xaaaa));
        changed(&mut store, &mut texts, &mut drawn, changes);
        let mut same = 0;
        for _ in 0..50 {
            let text = drawn.words(5).join(" ");
            let vector = Letters.embed(&text);
            let query = Query::new(&text, Some(&vector), 9_000);
            let found = store.index.search(&store.vectors, &store.all(), &query).expect("a search");
            let every = Query { exhaustive: true, ..query };
            let every = store.index.search(&store.vectors, &store.all(), &every).expect("a search");
            same += u32::from(found == every);
        }
        prop_assert!(same >= 49, "{same} of 50");
    }
}
