//! Whatever is kept and whatever is asked, no search, page, phrase, graph or export gives a row outside the permit.

mod support;

use std::collections::BTreeSet;

use caxton_memory::proto::{Action, EntityId, Forget, MemoryId, NewMemory, Origin, Scope, Source};
use caxton_memory::{
    Condition, Direction, Filter, GraphLimits, GraphQuery, Mode, Permit, Value, entities, get, list, phrases,
    relations, stats,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use support::{Store, entity, id, memory, relation, workspace};

const WORDS: [&str; 6] = ["tea", "coffee", "rome", "paris", "likes", "lives"];

fn scopes() -> Vec<Scope> {
    let named = |name: &str| name.to_owned();
    vec![
        Scope::Conversation(named("a")),
        Scope::Conversation(named("b")),
        Scope::Agent(named("a")),
        Scope::Subject(named("a")),
        Scope::Subject(named("b")),
        Scope::Workspace,
        Scope::Global,
    ]
}

/// A memory by the numbers of its scope, its words and the conversation that it comes from.
type Kept = (usize, Vec<usize>, usize, bool);

fn build(kept: &[Kept], forgotten: &BTreeSet<usize>) -> Store {
    let mut store = Store::new();
    let of = |number: usize, (scope, words, conversation, tagged): &Kept| {
        let text: Vec<&str> = words.iter().map(|word| WORDS[*word]).collect();
        let turn = Origin::Turn {
            conversation: format!("c{conversation}"),
            turn: number.to_string(),
            position: number as u32,
        };
        NewMemory {
            sources: vec![Source { origin: turn, at_ms: 1, untrusted: number.is_multiple_of(3) }],
            metadata: tagged.then(|| "{\"tag\":{\"of\":[\"x\",\"y\"]}}".to_owned()),
            entity: number.is_multiple_of(4).then(|| "Ann".to_owned()),
            ..memory(number as u128, scopes()[*scope].clone(), &format!("{} {number}", text.join(" ")))
        }
    };
    let memories = kept.iter().enumerate().map(|(number, kept)| of(number, kept)).collect();
    let each = |kind: &str| scopes().into_iter().map(|scope| entity(scope, "Ann", kind)).collect::<Vec<_>>();
    let known = scopes().into_iter().enumerate();
    let relations = known.map(|(number, scope)| relation(number as u128, scope, "Ann", "knows", "Bob")).collect();
    store.run(Action::Remember { entities: each("person"), memories, relations });
    store.forget(Forget::Memories(forgotten.iter().map(|number| id(*number as u128)).collect()));
    // The same in another workspace, which no permit of this one reaches.
    let other = Action::Remember {
        entities: each("stranger"),
        memories: vec![memory(9_999, Scope::Workspace, "tea coffee rome paris likes lives")],
        relations: Vec::new(),
    };
    let command = caxton_memory::proto::Command { workspace: workspace("other"), ..store.command(other) };
    store.carry_out(&command);
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_outside_a_permit_is_read(
        kept in vec((0_usize..7, vec(0_usize..6, 1..5), 0_usize..3, any::<bool>()), 1..40),
        forgotten in btree_set(0_usize..40, 0..8),
        permitted in btree_set(0_usize..7, 0..7),
        asked in vec(0_usize..6, 1..4),
        (mode, tagged, any_time) in (0_u8..3, any::<bool>(), any::<bool>()),
    ) {
        let store = build(&kept, &forgotten);
        let permit = Permit::of(workspace("w"), permitted.iter().map(|scope| scopes()[*scope].clone()));
        let allowed: BTreeSet<MemoryId> = kept
            .iter()
            .enumerate()
            .filter(|(number, (scope, ..))| permitted.contains(scope) && !forgotten.contains(number))
            .map(|(number, _)| id(number as u128))
            .collect();
        let metadata = match tagged {
            true => vec![Condition { path: "tag.of".to_owned(), value: Value::Text("y".to_owned()) }],
            false => Vec::new(),
        };
        let filter = Filter { metadata, ..Filter::default() };
        let wanted: BTreeSet<MemoryId> = allowed
            .iter()
            .filter(|id| !tagged || kept[u128::from_be_bytes(*id.as_bytes()) as usize].3)
            .copied()
            .collect();
        let text = asked.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ");
        let found = store.found(&permit, &text, |query| {
            query.mode = [Mode::Both, Mode::Words, Mode::Meaning][usize::from(mode)];
            query.filter = filter.clone();
            query.limit = 1_000;
            query.as_of_ms = (!any_time).then_some(5_000);
        });
        prop_assert_eq!(found.searched, wanted.len() as u64);
        let hits: BTreeSet<MemoryId> = found.hits.iter().map(|hit| hit.id).collect();
        prop_assert!(hits.is_subset(&wanted));
        // By meaning everything is somewhat near, so nothing that may be read is missing.
        if mode == 2 {
            prop_assert_eq!(&hits, &wanted);
        }
        let page = list(&store.db, &permit, &filter, None, None, 1_000).expect("SQLite");
        prop_assert_eq!(page.memories.iter().map(|it| it.what.id).collect::<BTreeSet<_>>(), wanted.clone());
        let phrases = phrases(&store.db, &permit, &filter, &text.replace(' ', " OR "), None, 1_000).expect("words");
        prop_assert!(phrases.iter().all(|(id, _)| wanted.contains(id)));
        for number in 0..kept.len() {
            let got = get(&store.db, &permit, &id(number as u128)).expect("SQLite");
            prop_assert_eq!(got.is_some(), allowed.contains(&id(number as u128)));
        }
        prop_assert!(get(&store.db, &permit, &id(9_999)).expect("SQLite").is_none());
        let counted: u64 = stats(&store.db, &permit).expect("SQLite").iter().map(|it| it.memories).sum();
        prop_assert_eq!(counted, allowed.len() as u64);
        let reached = |scope: &Scope| permit.allows(scope);
        let named = entities(&store.db, &permit, None, 1_000).expect("SQLite");
        prop_assert!(named.iter().all(|it| reached(&it.what.scope) && it.what.kind != "stranger"));
        let related = relations(&store.db, &permit, None, 1_000).expect("SQLite");
        prop_assert_eq!(related.len(), permitted.len());
        prop_assert!(related.iter().all(|it| reached(&it.what.scope)));
        let everywhere: Vec<EntityId> = scopes().iter().map(|scope| EntityId::of(scope, "Ann")).collect();
        let view = store.index.subgraph(&permit, &everywhere, &GraphQuery::default());
        prop_assert_eq!((view.entities.len(), view.relations.len()), (2 * permitted.len(), permitted.len()));
        let mut lines = Vec::new();
        let exported = caxton_memory::transfer::export::<rusqlite::Error>(&store.db, &permit, &Filter::default(), |line| {
            lines.push(line.to_owned());
            Ok(())
        });
        exported.expect("SQLite");
        let memories = lines.iter().filter(|line| line.starts_with("{\"type\":\"memory\"")).count();
        prop_assert_eq!(memories, allowed.len());
        // What may not be read lends nothing to what may: each score is the same once all of that is forgotten. Only how rare
        // words are may differ, and by meaning alone no word counts.
        if mode == 2 && !any_time {
            let hidden = |number: &usize| !allowed.contains(&id(*number as u128));
            let alone = build(&kept, &(0..kept.len()).filter(hidden).collect());
            let again = alone.found(&permit, &text, |query| {
                query.mode = Mode::Meaning;
                query.filter = filter.clone();
                query.limit = 1_000;
                query.as_of_ms = Some(5_000);
            });
            let scores = |hits: &[caxton_memory::Hit]| hits.iter().map(|hit| (hit.id, hit.similarity)).collect::<Vec<_>>();
            let sorted = |mut all: Vec<(MemoryId, f32)>| {
                all.sort_by_key(|(id, _)| *id);
                all
            };
            prop_assert_eq!(sorted(scores(&found.hits)), sorted(scores(&again.hits)));
        }
    }
}

#[test]
fn the_graph_goes_as_far_as_its_limits_and_follows_only_what_is_asked_for() {
    let mut store = Store::new();
    let all = |numbers: std::ops::Range<u128>| {
        numbers
            .map(|number| {
                let (from, to) = (number.to_string(), (number + 1).to_string());
                relation(number, Scope::Workspace, &from, if number == 5 { "ends" } else { "next" }, &to)
            })
            .collect()
    };
    store.run(Action::Remember { entities: vec![], memories: vec![], relations: all(0..10) });
    let of = |name: &str| EntityId::of(&Scope::Workspace, name);
    let permit = store.all();
    let limits = GraphLimits { depth_max: 3, ..GraphLimits::default() };
    let query = GraphQuery { limits, ..GraphQuery::default() };
    let names = |query: &GraphQuery, from: &str| {
        let view = store.index.subgraph(&permit, &[of(from)], query);
        (view.entities.into_iter().map(|it| it.name).collect::<Vec<_>>(), view.more)
    };
    assert_eq!(names(&query, "3").0.len(), 7);
    let out = GraphQuery { direction: Direction::Out, ..query.clone() };
    assert_eq!(names(&out, "3").0, ["3", "4", "5", "6"]);
    let kinds = GraphQuery { relation_kinds: ["next".to_owned()].into(), ..out.clone() };
    assert_eq!(names(&kinds, "3").0, ["3", "4", "5"]);
    let few = GraphQuery { limits: GraphLimits { entities_max: 2, ..limits }, ..out.clone() };
    assert_eq!(names(&few, "3"), (vec!["3".to_owned(), "4".to_owned()], true));
    let tired = GraphQuery { limits: GraphLimits { visits_max: 1, ..limits }, ..out.clone() };
    assert!(names(&tired, "3").1);
    let way = |query: &GraphQuery, to: &str| store.index.path(&permit, &of("3"), &of(to), query);
    let path = way(&out, "6").expect("three relations away");
    assert_eq!(path.entities.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["3", "4", "5", "6"]);
    assert_eq!(path.relations.iter().map(|it| it.kind.as_str()).collect::<Vec<_>>(), ["next", "next", "ends"]);
    assert_eq!((way(&out, "7"), way(&out, "2"), way(&kinds, "6")), (None, None, None));
    assert_eq!(way(&query, "2").expect("one back").relations.len(), 1);
    let ended = store.time_ms;
    store.run(Action::EndRelations { relations: vec![support::relation_id(4)], valid_to_ms: Some(ended) });
    let query = |at: i64| GraphQuery { as_of_ms: Some(at), ..out.clone() };
    let count = |at: i64| store.index.subgraph(&store.all(), &[of("3")], &query(at)).entities.len();
    assert_eq!((count(ended - 1), count(ended)), (4, 2));
}
