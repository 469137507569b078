//! Keeping, contradicting, editing, forgetting and retention, against real tables and a real index.

mod support;

use caxton_memory::proto::{
    Action, Edit, Fate, Forget, NewMemory, Origin, Outcome, Reason, Retain, Rule, Scope, Source, TEXT_BYTES_MAX,
};
use caxton_memory::{Filter, Half, Index, Mode, Permit, history, list, phrases, repair, stats};
use support::{Letters, Store, entity, id, memory, relation, said_by, subject, workspace};

use caxton_memory::Embedder;

fn named(number: u128, text: &str, from_ms: i64) -> NewMemory {
    let name = Some("home".to_owned());
    NewMemory { name, valid_from_ms: from_ms, ..memory(number, subject("ann"), text) }
}

fn memory_of(source: &Source, number: u128) -> NewMemory {
    NewMemory { sources: vec![source.clone()], ..memory(number, Scope::Workspace, "the zebra of one") }
}

#[test]
fn the_same_thing_twice_is_one_memory_with_two_sources() {
    let mut store = Store::new();
    assert_eq!(store.remember(vec![memory(1, subject("ann"), "Ann likes tea.")]), [Fate::Stored { closed: vec![] }]);
    let again = NewMemory { sources: vec![said_by("bob")], ..memory(2, subject("ann"), "ann  likes\ntea") };
    assert_eq!(store.remember(vec![again.clone(), again]), [Fate::Known, Fate::Known]);
    assert_eq!(store.get(1).unwrap().sources, [said_by("ann"), said_by("bob")]);
    assert!(store.get(2).is_none());
    // Elsewhere it is another memory; under the same id it is a conflict.
    assert_eq!(store.remember(vec![memory(3, subject("bob"), "Ann likes tea.")]), [Fate::Stored { closed: vec![] }]);
    let clash = store.remember(vec![memory(1, subject("bob"), "something else")]);
    assert!(matches!(&clash[..], [Fate::Refused(refusal)] if refusal.reason == Reason::Conflict));
}

#[test]
fn a_contradiction_ends_what_was_true_and_as_of_asks_for_it() {
    let mut store = Store::new();
    store.remember(vec![named(1, "Ann lives in Paris", 1_000)]);
    store.time_ms = 6_000;
    assert_eq!(store.remember(vec![named(2, "Ann lives in Rome", 5_000)]), [Fate::Stored { closed: vec![id(1)] }]);
    // What is learnt later may have been true earlier.
    assert_eq!(store.remember(vec![named(3, "Ann lives in Oslo", 500)]), [Fate::Stored { closed: vec![] }]);
    assert_eq!(store.get(1).unwrap().valid_to_ms, Some(5_000));
    assert_eq!(store.get(3).unwrap().valid_to_ms, Some(1_000));
    for (at, expected) in [(400, None), (700, Some(3)), (4_999, Some(1)), (5_000, Some(2)), (9_000, Some(2))] {
        let found = store.found(&store.all(), "where does Ann live", |query| query.as_of_ms = Some(at));
        assert_eq!(found.hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), expected.map(id).as_slice(), "{at}");
        let page = list(&store.db, &store.all(), &Filter::default(), Some(at), None, 10).unwrap();
        assert_eq!(page.memories.iter().map(|it| it.what.id).collect::<Vec<_>>(), expected.map(id).as_slice());
    }
    assert_eq!(store.found(&store.all(), "Ann lives", |query| query.as_of_ms = None).hits.len(), 3);
    // Paris again is a new memory, because the old one is true no longer.
    store.time_ms = 9_000;
    assert_eq!(store.remember(vec![named(4, "Ann lives in Paris", 8_000)]), [Fate::Stored { closed: vec![id(2)] }]);
    // Without a name, it is said what is replaced; and only within the scope.
    let replacing = |number, of| NewMemory { replaces: Some(id(of)), ..memory(number, subject("ann"), "a new text") };
    assert!(
        matches!(&store.remember(vec![replacing(5, 99)])[..], [Fate::Refused(it)] if it.reason == Reason::NotFound)
    );
    assert_eq!(
        store.remember(vec![NewMemory { valid_from_ms: 8_500, ..replacing(6, 4) }]),
        [Fate::Stored { closed: vec![id(4)] }]
    );
}

/// A known text that replaces another ends that one; what is refused ends nothing.
#[test]
fn what_is_replaced_ends_exactly_if_what_replaces_it_is_kept() {
    let mut store = Store::new();
    store.remember(vec![memory(1, subject("ann"), "tea"), memory(2, subject("ann"), "coffee")]);
    let replacing = |number, text| NewMemory { replaces: Some(id(1)), ..memory(number, subject("ann"), text) };
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert!(matches!(&store.remember(vec![replacing(3, &long)])[..], [Fate::Refused(_)]));
    assert_eq!(store.get(1).unwrap().valid_to_ms, None);
    assert_eq!(store.remember(vec![replacing(4, "coffee")]), [Fate::Known]);
    assert!(store.get(1).unwrap().valid_to_ms.is_some());
    assert_eq!(store.get(2).unwrap().valid_to_ms, None);
    // It does not end itself.
    store.remember(vec![NewMemory { replaces: Some(id(2)), ..memory(5, subject("ann"), "coffee") }]);
    assert_eq!(store.get(2).unwrap().valid_to_ms, None);
}

/// One entry of the log deletes a bounded number of rows, whatever they are.
#[test]
fn a_scope_full_of_entities_goes_in_several_commands() {
    let mut store = Store::new();
    for first in (0..12_000).step_by(1_000) {
        let entities =
            (first..first + 1_000).map(|number| entity(subject("ann"), &format!("thing {number}"), "thing")).collect();
        store.run(Action::Remember { entities, memories: vec![], relations: vec![] });
    }
    let mut gone = Vec::new();
    loop {
        let Outcome::Removed(removed) = store.run(Action::Forget(Forget::Scope(subject("ann")))) else {
            panic!("removed")
        };
        gone.push(removed.entities);
        if !removed.more {
            break;
        }
    }
    assert_eq!((gone.iter().sum::<u64>(), gone[0]), (12_000, 10_000));
}

#[test]
fn an_edit_is_taken_back_step_by_step_and_never_makes_two_of_one() {
    let mut store = Store::new();
    store.remember(vec![memory(1, subject("ann"), "one"), memory(2, subject("ann"), "two")]);
    let edit = |text: &str| Action::Edit(Edit { text: Some(text.to_owned()), ..Edit::of(id(1)) });
    assert_eq!(store.run(edit("uno")), Outcome::Edited { memory: id(1), number: 1 });
    assert_eq!(store.run(edit("eins")), Outcome::Edited { memory: id(1), number: 2 });
    assert!(matches!(store.run(edit("Two.")), Outcome::Refused(it) if it.reason == Reason::Conflict));
    assert!(matches!(store.run(edit("")), Outcome::Refused(it) if matches!(it.reason, Reason::Field { .. })));
    assert_eq!(store.found(&store.all(), "eins", |query| query.mode = Mode::Words).hits.len(), 1);
    assert_eq!(store.found(&store.all(), "one", |query| query.mode = Mode::Words).hits.len(), 0);
    let before: Vec<String> =
        history(&store.db, &store.all(), &id(1)).unwrap().into_iter().map(|edit| edit.before.what.text).collect();
    assert_eq!(before, ["one", "uno"]);
    for text in ["uno", "one"] {
        assert!(matches!(store.run(Action::Undo { memory: id(1) }), Outcome::Edited { .. }));
        assert_eq!(store.get(1).unwrap().text, text);
    }
    assert!(matches!(store.run(Action::Undo { memory: id(1) }), Outcome::Refused(it) if it.reason == Reason::NoEdit));
    // The history is bounded.
    for number in 0..100 {
        store.run(edit(&format!("text {number}")));
    }
    assert_eq!(history(&store.db, &store.all(), &id(1)).unwrap().len(), 32);
}

#[test]
fn the_mark_of_a_tool_or_a_stranger_stays_for_ever() {
    let mut store = Store::new();
    let tool = Source { origin: Origin::Tool { tool: "web".to_owned() }, at_ms: 1, untrusted: true };
    store.remember(vec![NewMemory { sources: vec![tool], ..memory(1, subject("ann"), "buy now") }]);
    store.remember(vec![memory(2, subject("ann"), "Buy now")]);
    store.run(Action::Edit(Edit { text: Some("do not buy".to_owned()), ..Edit::of(id(1)) }));
    let kept = caxton_memory::get(&store.db, &store.all(), &id(1)).unwrap().unwrap();
    assert!(kept.untrusted && kept.what.sources.len() == 2);
    assert!(history(&store.db, &store.all(), &id(1)).unwrap()[0].before.untrusted, "nor was it ever trusted");
    let found =
        |untrusted| store.found(&store.all(), "buy", |query| query.filter.untrusted = Some(untrusted)).hits.len();
    assert_eq!((found(true), found(false)), (1, 0));
}

#[test]
fn a_forgotten_scope_is_gone_from_tables_texts_vectors_graph_and_export() {
    let mut store = Store::new();
    let secret = NewMemory { entity: Some("Ann".to_owned()), ..memory(1, subject("ann"), "the zebra secret") };
    let turn = Source {
        origin: Origin::Turn { conversation: "c1".to_owned(), turn: "t".to_owned(), position: 1 },
        at_ms: 1,
        untrusted: false,
    };
    let from_turn = NewMemory { sources: vec![turn.clone()], ..memory(2, Scope::Workspace, "the zebra of all") };
    store.run(Action::Remember {
        entities: vec![entity(subject("ann"), "Ann", "person")],
        memories: vec![secret, from_turn],
        relations: vec![relation(1, subject("ann"), "Ann", "knows", "Bob")],
    });
    let Outcome::Removed(removed) = store.forget(Forget::Scope(subject("ann"))) else { panic!("it is removed") };
    assert_eq!((removed.memories, removed.entities, removed.relations, removed.more), (1, 2, 1, false));
    assert_eq!(removed.gone[0].id, id(1));
    assert_eq!(store.find(&store.all(), "zebra secret"), [id(2)]);
    assert_eq!(phrases(&store.db, &store.all(), &Filter::default(), "secret", None, 10).unwrap(), []);
    // The person is named nowhere any more, also not as a source or a scope.
    for row in store.rows() {
        assert!(!row.contains("ann"), "{row}");
    }
    let mut lines = String::new();
    let exported =
        caxton_memory::transfer::export::<rusqlite::Error>(&store.db, &store.all(), &Filter::default(), |line| {
            lines.push_str(line);
            Ok(())
        });
    exported.unwrap();
    assert!(!lines.contains("ann") && !lines.contains("secret"));
    // What came from a conversation and from nowhere else goes with it; what came from elsewhere too stays.
    let both = |number| NewMemory {
        sources: vec![turn.clone(), said_by("bob")],
        ..memory(number, Scope::Workspace, "the zebra of both")
    };
    store.run(Action::Remember {
        entities: vec![],
        memories: vec![both(3), NewMemory { entity: Some("Zoe".to_owned()), ..memory_of(&turn, 4) }],
        relations: vec![caxton_memory::proto::NewRelation {
            sources: vec![turn.clone()],
            ..relation(2, Scope::Workspace, "Zoe", "knows", "Ben")
        }],
    });
    let Outcome::Removed(removed) = store.forget(Forget::Scope(Scope::Conversation("c1".to_owned()))) else {
        panic!("it is removed")
    };
    assert_eq!((removed.memories, removed.relations, removed.entities), (2, 1, 2));
    assert!(store.get(2).is_none() && store.get(4).is_none());
    assert_eq!(store.get(3).unwrap().sources, [said_by("bob")]);
    assert_eq!(store.find(&store.all(), "zebra"), [id(3)]);
    assert!(!store.rows().iter().any(|row| row.contains("c1") || row.contains("Zoe")));
    store.forget(Forget::Everything);
    assert_eq!((store.rows().len(), store.index.len(&workspace("w"))), (0, 0));
}

#[test]
fn a_permit_holds_for_commands_as_well() {
    let mut store = Store::new();
    store.remember(vec![memory(1, subject("ann"), "hers")]);
    let permit = Some(vec![subject("bob")]);
    for action in [
        Action::Edit(Edit { pinned: Some(true), ..Edit::of(id(1)) }),
        Action::Undo { memory: id(1) },
        Action::Forget(Forget::Memories(vec![id(1)])),
        Action::Forget(Forget::Scope(subject("ann"))),
    ] {
        let command = caxton_memory::proto::Command { permit: permit.clone(), ..store.command(action) };
        assert!(matches!(store.carry_out(&command), Outcome::Refused(_)), "{command:?}");
    }
    let remember =
        Action::Remember { entities: vec![], memories: vec![memory(2, subject("ann"), "his")], relations: vec![] };
    let command = caxton_memory::proto::Command { permit, ..store.command(remember) };
    let Outcome::Remembered(all) = store.carry_out(&command) else { panic!("each is answered") };
    assert!(matches!(&all.memories[0].fate, Fate::Refused(it) if it.reason == Reason::NotPermitted));
    assert_eq!(store.rows().iter().filter(|row| row.starts_with("memory: ")).count(), 1);
}

#[test]
fn retention_takes_the_oldest_and_leaves_what_is_pinned() {
    let mut store = Store::new();
    for number in 0..10 {
        store.time_ms = 10_000 + number as i64;
        let (pinned, created_ms) = (number == 0, store.time_ms);
        store.remember(vec![NewMemory {
            pinned,
            created_ms,
            ..memory(number, subject("ann"), &format!("number {number}"))
        }]);
    }
    let gone = |store: &mut Store, rule: Rule| match store.run(Action::Retain(Retain { rules: vec![rule] })) {
        Outcome::Removed(removed) => removed.gone.into_iter().map(|gone| gone.id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let other_kind = Rule { kind: Some("note".to_owned()), count_max: Some(0), ..Rule::default() };
    assert_eq!(gone(&mut store, other_kind), []);
    store.time_ms = 20_000;
    assert_eq!(gone(&mut store, Rule { age_ms_max: Some(9_998), ..Rule::default() }), [id(1)]);
    assert_eq!(gone(&mut store, Rule { count_max: Some(6), ..Rule::default() }), [id(2), id(3)]);
    assert_eq!(gone(&mut store, Rule { bytes_max: Some(8 * 4), ..Rule::default() }), [id(4), id(5)]);
    let left = stats(&store.db, &store.all()).unwrap();
    assert_eq!((left.len(), left[0].memories, left[0].bytes), (1, 5, 40));
}

#[test]
fn what_is_too_large_or_strange_is_refused_and_the_rest_is_kept() {
    let mut store = Store::new();
    let nested = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let with = |number, metadata: &str| NewMemory {
        metadata: Some(metadata.to_owned()),
        ..memory(number, subject("ann"), &format!("text {number}"))
    };
    let fates = store.remember(vec![
        memory(1, subject("ann"), &"x".repeat(10 << 20)),
        with(2, &nested),
        with(3, "[1]"),
        with(4, "{"),
        memory(5, subject("ann"), "nul\0"),
        memory(6, subject("ann"), " \n"),
        NewMemory { sources: vec![], ..memory(7, subject("ann"), "from nowhere") },
        NewMemory { valid_to_ms: Some(1), ..memory(8, subject("ann"), "ends before it begins") },
        memory(9, subject("\n"), "nobody's"),
        memory(10, subject("ann"), "\u{1F600} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{6771}\u{4eac} e\u{301}"),
    ]);
    let refused = fates.iter().filter(|fate| matches!(fate, Fate::Refused(_))).count();
    assert_eq!(refused, 9, "{fates:?}");
    let Fate::Refused(large) = &fates[0] else { panic!("it is too large") };
    let text = format!("bytes of `text`: {}, and {TEXT_BYTES_MAX} is the most; make it smaller or split it", 10 << 20);
    assert_eq!(large.reason.to_string(), text);
    for words in ["\u{1F600}", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}", "\u{6771}", "\u{c9}"] {
        assert_eq!(store.found(&store.all(), words, |query| query.mode = Mode::Words).hits.len(), 1, "{words}");
    }
}

#[test]
fn fifty_thousand_memories_of_one_word_are_found_and_made_smaller() {
    let mut store = Store::new();
    for thousand in 0..50_u128 {
        let one = |number: u128| {
            memory(thousand * 1_000 + number, Scope::Conversation(format!("c{number}-{thousand}")), "word")
        };
        store.remember((0..1_000).map(one).collect());
    }
    let found = store.found(&store.all(), "word", |query| query.limit = 20);
    assert_eq!((found.hits.len(), found.searched, found.meaning), (20, 50_000, Half::Used));
    // Equal scores are told apart by id, so that every node gives the same.
    assert_eq!(found.hits[0].id, id(0));
    for number in 0..40_u128 {
        store.forget(Forget::Memories((number * 1_000..(number + 1) * 1_000).map(id).collect()));
    }
    let found = store.found(&store.all(), "word", |query| query.limit = 20);
    assert_eq!((found.searched, found.hits[0].id), (10_000, id(40_000)));
}

#[test]
fn a_start_anew_ranks_the_same_and_vectors_of_another_model_are_not_used() {
    let mut store = Store::new();
    store.run(Action::Remember {
        entities: vec![entity(subject("ann"), "Ann", "person")],
        memories: (0..50_u128).map(|number| named(number, &format!("text of {number}"), number as i64 * 10)).collect(),
        relations: vec![relation(1, subject("ann"), "Ann", "knows", "Bob")],
    });
    store.run(Action::Edit(Edit { importance: Some(90), ..Edit::of(id(3)) }));
    store.forget(Forget::Memories(vec![id(9)]));
    let ranked = |store: &Store| store.found(&store.all(), "text of 30", |query| query.as_of_ms = None).hits;
    let before = ranked(&store);
    // A start anew takes the vectors from the cache.
    let mut again = Index::load(&store.db, &store.vectors, Letters.model()).unwrap();
    assert_eq!((again.pending_count(), again.pending(10).len()), (0, 0));
    store.index = again;
    assert_eq!((ranked(&store), before.len()), (before, 10));
    // Another model's vectors are not used.
    let mut changed = Letters.model();
    changed.hash = [8; 32];
    let fresh = Index::load(&store.db, &store.vectors, changed).unwrap();
    assert_eq!(fresh.pending_count(), 49);
    let vector = Letters.embed("text");
    let found =
        fresh.search(&store.vectors, &store.all(), &caxton_memory::Query::new("text", Some(&vector), 9_000)).unwrap();
    assert_eq!((found.words, found.meaning), (Half::Used, Half::Partial { missing: 49 }));
}

#[test]
fn metadata_that_were_taken_away_are_not_found_by() {
    let mut store = Store::new();
    let tagged = |number, metadata: &str| NewMemory {
        metadata: Some(metadata.to_owned()),
        ..memory(number, subject("ann"), &format!("text {number}"))
    };
    store.remember(vec![tagged(1, "{\"a\":1,\"b\":[true,null]}"), tagged(2, "{\"a\":1.0}")]);
    let count = |store: &Store, path: &str, value: caxton_memory::Value| {
        let condition = caxton_memory::Condition { path: path.to_owned(), value };
        store.found(&store.all(), "text", |query| query.filter.metadata = vec![condition]).hits.len()
    };
    use caxton_memory::Value::{Bool, Null, Number};
    assert_eq!((count(&store, "a", Number(1.0)), count(&store, "b", Bool(true)), count(&store, "b", Null)), (2, 1, 1));
    store.run(Action::Edit(Edit { metadata: Some("{\"b\":[true]}".to_owned()), ..Edit::of(id(1)) }));
    assert_eq!((count(&store, "a", Number(1.0)), count(&store, "b", Bool(true)), count(&store, "b", Null)), (1, 1, 0));
    store.run(Action::Edit(Edit { metadata: Some(String::new()), ..Edit::of(id(1)) }));
    assert_eq!(count(&store, "b", Bool(true)), 0);
}

#[test]
fn a_damaged_full_text_table_and_cut_vectors_are_made_anew() {
    let mut store = Store::new();
    store.remember(vec![memory(1, subject("ann"), "the quick brown fox"), memory(2, subject("ann"), "a slow fox")]);
    assert!(!repair(&store.db).unwrap());
    let phrase = |store: &Store| {
        let found = phrases(&store.db, &store.all(), &Filter::default(), "\"brown fox\" OR slo*", None, 10);
        found.map(|hits| hits.len()).unwrap_or(0)
    };
    assert_eq!(phrase(&store), 2);
    store.db.execute("UPDATE memory_text_data SET block = x'00ff00ff' WHERE id > 10", []).unwrap();
    store.vectors.execute("UPDATE memory_vector SET vector = x'01'", []).unwrap();
    assert!(repair(&store.db).unwrap());
    assert_eq!(phrase(&store), 2);
    assert_eq!(Index::load(&store.db, &store.vectors, Letters.model()).unwrap().pending_count(), 2);
    store.db.execute("DELETE FROM memory_text WHERE rowid = 1", []).unwrap();
    assert!(repair(&store.db).unwrap());
    assert_eq!(phrase(&store), 2);
}

#[test]
fn phrases_stay_inside_the_permit_whatever_they_say() {
    let mut store = Store::new();
    store.remember(vec![memory(1, subject("ann"), "the quick brown fox"), memory(2, subject("bob"), "the quick fox")]);
    let bob = Permit::of(workspace("w"), [subject("bob")]);
    for expression in [
        "quick",
        "quick OR fox",
        "p1 OR quick",
        "NOT quick",
        "place : p1",
        "quick) OR place : (p1",
        "\"quick",
        "*",
        "{text} : quick",
        ")(",
    ] {
        let found = phrases(&store.db, &bob, &Filter::default(), expression, None, 10);
        assert!(found.unwrap_or_default().iter().all(|(found, _)| *found == id(2)), "{expression}");
    }
    assert_eq!(phrases(&store.db, &bob, &Filter::default(), "quick", None, 10).unwrap().len(), 1);
}
