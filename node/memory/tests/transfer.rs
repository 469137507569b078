//! Exports come back as they were, and other systems' files are read with nothing lost in silence.

mod support;

use caxton_memory::proto::{Action, Fate, NewMemory, Origin, Outcome, Scope};
use caxton_memory::transfer::{Line, LineError, Reader, export};
use caxton_memory::{Filter, GraphQuery};
use support::{Store, entity, memory, relation, subject};

fn exported(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    let written = export::<rusqlite::Error>(&store.db, &store.all(), &Filter::default(), |line| {
        lines.push(line.to_owned());
        Ok(())
    });
    written.expect("SQLite");
    lines
}

fn import(store: &mut Store, reader: &mut Reader, lines: &[String]) -> Vec<Outcome> {
    let (mut entities, mut memories, mut relations) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines.iter().flat_map(|line| reader.line(line).expect("a line")) {
        match line {
            Line::Entity(new) => entities.push(new),
            Line::Memory(new) => memories.push(new),
            Line::Relation(new) => relations.push(new),
        }
    }
    vec![store.run(Action::Remember { entities, memories, relations })]
}

#[test]
fn an_import_elsewhere_gives_the_same_ids_and_the_same_ranking() {
    let mut store = Store::new();
    let one = |number: u128| NewMemory {
        name: number.is_multiple_of(5).then(|| "home".to_owned()),
        entity: number.is_multiple_of(2).then(|| "Ann".to_owned()),
        metadata: Some(format!("{{\"number\":{number}}}")),
        valid_from_ms: number as i64,
        ..memory(number, subject("ann"), &format!("the text of number {number}"))
    };
    store.run(Action::Remember {
        entities: vec![entity(subject("ann"), "Ann", "person")],
        memories: (0..40).map(one).collect(),
        relations: vec![relation(1, subject("ann"), "Ann", "knows", "Bob")],
    });
    let lines = exported(&store);
    assert_eq!(lines.len(), 1 + 2 + 40 + 1);
    let mut other = Store::new();
    let mut reader = Reader::new(Scope::Workspace, "a file", 5);
    import(&mut other, &mut reader, &lines);
    assert_eq!(reader.report().unknown_fields.len(), 0);
    let mut again = exported(&other);
    assert_eq!(again.len(), lines.len());
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    again = sorted(again);
    assert_eq!(again, sorted(lines.clone()));
    let ranked = |store: &Store| store.found(&store.all(), "text of number 7", |query| query.as_of_ms = None).hits;
    assert_eq!(ranked(&other), ranked(&store));
    // A second import, and one that was cut off and begins again, brings nothing twice.
    import(&mut other, &mut Reader::new(Scope::Workspace, "a file", 6), &lines);
    assert_eq!(sorted(exported(&other)), again);
}

#[test]
fn the_mcp_memory_servers_file_becomes_entities_observations_and_relations() {
    let lines = [
        r#"{"type":"entity","name":"Ann","entityType":"person","observations":["likes tea","lives in Rome"],"extra":1}"#,
        r#"{"type":"entity","name":"Bob","entityType":"person","observations":[]}"#,
        r#"{"type":"relation","from":"Ann","to":"Bob","relationType":"knows"}"#,
    ]
    .map(str::to_owned);
    let mut store = Store::new();
    for round in 0..2 {
        let mut reader = Reader::new(Scope::Workspace, "memory.jsonl", 1_500 + round);
        let outcomes = import(&mut store, &mut reader, &lines);
        assert_eq!(reader.report().unknown_fields, [("extra".to_owned(), 1)].into());
        let Outcome::Remembered(all) = &outcomes[0] else { panic!("{outcomes:?}") };
        let known = all.memories.iter().filter(|item| item.fate == Fate::Known).count();
        assert_eq!((all.memories.len(), known), (2, 2 * round as usize));
    }
    let found = store.found(&store.all(), "tea", |query| query.limit = 1);
    let id = found.hits[0].id;
    let kept = caxton_memory::get(&store.db, &store.all(), &id).unwrap().unwrap().what;
    assert_eq!(
        (kept.entity.as_deref(), kept.kind.as_str(), kept.text.as_str()),
        (Some("Ann"), "observation", "likes tea")
    );
    assert_eq!(kept.sources[0].origin, Origin::Import { import: "memory.jsonl".to_owned() });
    let ann = caxton_memory::proto::EntityId::of(&Scope::Workspace, "Ann");
    let view = store.index.subgraph(&store.all(), &[ann], &GraphQuery::default());
    assert_eq!((view.entities.len(), view.relations[0].kind.as_str()), (2, "knows"));
}

#[test]
fn memories_of_mem0_and_items_of_langgraph_are_read() {
    let lines = [
        r#"{"results":[{"id":"5c1e","memory":"Ann works at a bank","hash":"00","user_id":"ann","metadata":{"type":"job"},
        "categories":["work"],"created_at":"2025-07-01T10:00:00-07:00","updated_at":null,"odd":true}],"page":1}"#
            .replace('\n', ""),
        r#"{"namespace":["memories","bob"],"key":"k1","value":{"content":"Bob plays chess","level":3},
        "created_at":"2025-07-01T10:00:00","updated_at":"2025-07-01T10:00:00"}"#
            .replace('\n', ""),
    ];
    let mut store = Store::new();
    store.time_ms = 1_800_000_000_000;
    let mut reader = Reader::new(Scope::Workspace, "others", 7);
    import(&mut store, &mut reader, &lines);
    let unknown: Vec<&str> = reader.report().unknown_fields.keys().map(String::as_str).collect();
    assert_eq!(unknown, ["odd", "page"]);
    let all = caxton_memory::list(&store.db, &store.all(), &Filter::default(), None, None, 10).unwrap().memories;
    let of = |text: &str| all.iter().map(|it| &it.what).find(|it| it.text.contains(text)).unwrap().clone();
    let (bank, chess) = (of("bank"), of("chess"));
    assert_eq!((bank.scope, bank.created_ms), (subject("ann"), 1_751_389_200_000));
    let parsed = |metadata: Option<String>| serde_json::from_str::<serde_json::Value>(&metadata.unwrap()).unwrap();
    assert_eq!(parsed(bank.metadata), serde_json::json!({"categories": ["work"], "type": "job"}));
    assert_eq!((chess.scope, chess.created_ms), (Scope::Workspace, 1_751_364_000_000));
    assert_eq!(parsed(chess.metadata), serde_json::json!({"level": 3, "namespace": ["memories", "bob"]}));
}

#[test]
fn lines_that_cannot_be_read_say_why() {
    let mut reader = Reader::new(Scope::Workspace, "a file", 1);
    assert!(matches!(reader.line("{"), Err(LineError::Json(_))));
    assert!(matches!(reader.line("{\"a\":1}"), Err(LineError::Unknown)));
    assert!(matches!(reader.line("7"), Err(LineError::Unknown)));
    assert!(matches!(reader.line("{\"caxton_memory\":2}"), Err(LineError::Version { found: 2 })));
    assert!(matches!(reader.line("{\"memory\":7}"), Err(LineError::Field { field: "memory" })));
    assert!(matches!(reader.line(&" ".repeat(2 << 20)), Err(LineError::TooLong { .. })));
    assert!(matches!(reader.line(&"[".repeat(5_000)), Err(LineError::Json(_))));
    assert!(reader.line("").unwrap().is_empty());
}
