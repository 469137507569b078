//! What is written can be read back: by properties, and against the bytes of every version that was ever written.

use std::path::Path;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;

const TEXT: &str = "\\PC{0,24}";

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(Scope::Conversation),
        "[a-z]{1,8}".prop_map(Scope::Agent),
        "\\PC{1,8}".prop_map(Scope::Subject),
        Just(Scope::Workspace),
        Just(Scope::Global),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    let origin = prop_oneof![
        (TEXT, TEXT, any::<u32>()).prop_map(|(conversation, turn, position)| Origin::Turn {
            conversation,
            turn,
            position
        }),
        TEXT.prop_map(|agent| Origin::Agent { agent }),
        TEXT.prop_map(|subject| Origin::Subject { subject }),
        TEXT.prop_map(|tool| Origin::Tool { tool }),
        TEXT.prop_map(|import| Origin::Import { import }),
    ];
    (origin, any::<i64>(), any::<bool>()).prop_map(|(origin, at_ms, untrusted)| Source { origin, at_ms, untrusted })
}

fn memory() -> impl Strategy<Value = NewMemory> {
    let about = (scope(), TEXT, of(TEXT), TEXT, of(TEXT), of(TEXT));
    let rest = (any::<[u8; 16]>(), any::<u8>(), any::<bool>(), vec(source(), 0..3), of(any::<[u8; 16]>()));
    let times = (any::<i64>(), any::<i64>(), of(any::<i64>()));
    (about, rest, times).prop_map(
        |(
            (scope, kind, name, text, metadata, entity),
            (id, importance, pinned, sources, replaces),
            (created_ms, valid_from_ms, valid_to_ms),
        )| NewMemory {
            id: MemoryId::from_bytes(id),
            scope,
            kind,
            name,
            text,
            metadata,
            importance,
            pinned,
            sources,
            created_ms,
            valid_from_ms,
            valid_to_ms,
            replaces: replaces.map(MemoryId::from_bytes),
            entity,
        },
    )
}

fn entity() -> impl Strategy<Value = NewEntity> {
    (scope(), TEXT, TEXT, of(TEXT), vec(source(), 0..3), any::<i64>()).prop_map(
        |(scope, name, kind, metadata, sources, created_ms)| NewEntity {
            scope,
            name,
            kind,
            metadata,
            sources,
            created_ms,
        },
    )
}

fn relation() -> impl Strategy<Value = NewRelation> {
    let what = (any::<[u8; 16]>(), scope(), TEXT, TEXT, TEXT, of(TEXT), vec(source(), 0..3));
    (what, any::<i64>(), any::<i64>(), of(any::<i64>())).prop_map(
        |((id, scope, from, kind, to, metadata, sources), created_ms, valid_from_ms, valid_to_ms)| NewRelation {
            id: RelationId::from_bytes(id),
            scope,
            from,
            kind,
            to,
            metadata,
            sources,
            created_ms,
            valid_from_ms,
            valid_to_ms,
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let texts = (any::<[u8; 16]>(), of(TEXT), of(TEXT), of(TEXT), of(TEXT));
    (texts, of(any::<u8>()), of(any::<bool>()), of(any::<i64>()), of(of(any::<i64>()))).prop_map(
        |((memory, text, kind, name, metadata), importance, pinned, valid_from_ms, valid_to_ms)| Edit {
            memory: MemoryId::from_bytes(memory),
            text,
            kind,
            name,
            metadata,
            importance,
            pinned,
            valid_from_ms,
            valid_to_ms,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = of(scope().prop_map(|scope| scope.kind()));
    (kind, of(TEXT), of(any::<u64>()), of(any::<u64>()), of(any::<u64>())).prop_map(
        |(scope, kind, age_ms_max, count_max, bytes_max)| Rule { scope, kind, age_ms_max, count_max, bytes_max },
    )
}

fn ids() -> impl Strategy<Value = Vec<[u8; 16]>> {
    vec(any::<[u8; 16]>(), 0..3)
}

fn action() -> impl Strategy<Value = Action> {
    let to = |ids: Vec<[u8; 16]>| ids.into_iter();
    prop_oneof![
        (vec(entity(), 0..3), vec(memory(), 0..3), vec(relation(), 0..3))
            .prop_map(|(entities, memories, relations)| Action::Remember { entities, memories, relations }),
        edit().prop_map(Action::Edit),
        any::<[u8; 16]>().prop_map(|id| Action::Undo { memory: MemoryId::from_bytes(id) }),
        ids().prop_map(move |ids| Action::Forget(Forget::Memories(to(ids).map(MemoryId::from_bytes).collect()))),
        ids().prop_map(move |ids| Action::Forget(Forget::Entities(to(ids).map(EntityId::from_bytes).collect()))),
        scope().prop_map(|scope| Action::Forget(Forget::Scope(scope))),
        Just(Action::Forget(Forget::Everything)),
        (ids(), of(any::<i64>())).prop_map(|(ids, valid_to_ms)| Action::EndRelations {
            relations: ids.into_iter().map(RelationId::from_bytes).collect(),
            valid_to_ms
        }),
        vec(rule(), 0..3).prop_map(|rules| Action::Retain(Retain { rules })),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    (any::<i64>(), TEXT, of(vec(scope(), 0..3)), action()).prop_map(|(time_ms, actor, permit, action)| Command {
        workspace: "w".parse().expect("a name"),
        time_ms,
        actor,
        permit,
        action,
    })
}

proptest! {
    #[test]
    fn every_command_reads_back_as_it_was_written(command in command()) {
        prop_assert_eq!(Command::decode(&command.encode()).expect("it was written"), command);
    }

    #[test]
    fn every_row_reads_back_as_it_was_written(
        memory in memory(),
        (changed_ms, untrusted) in (any::<i64>(), any::<bool>()),
    ) {
        let row = Row { workspace: "w".parse().expect("a name"), memory, changed_ms, untrusted };
        prop_assert_eq!(Row::decode(&row.encode()).expect("it was written"), row);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = (Command::decode(&bytes), Outcome::decode(&bytes), Row::decode(&bytes));
    }

    #[test]
    fn bytes_that_were_cut_or_changed_make_no_reader_panic(command in command(), at in any::<usize>(), with in any::<u8>()) {
        let mut bytes = command.encode();
        let at = at % bytes.len();
        bytes[at] ^= with;
        let _ = Command::decode(&bytes);
        bytes.truncate(at);
        let _ = Command::decode(&bytes);
    }

    #[test]
    fn a_scope_reads_back_as_it_is_shown(scope in scope()) {
        match scope.check() {
            Ok(()) => prop_assert_eq!(scope.to_string().parse::<Scope>().expect("it was shown"), scope),
            Err(_) => prop_assert!(scope.to_string().parse::<Scope>().is_err()),
        }
    }
}

/// One of everything, with every field filled.
fn example() -> (NewMemory, NewEntity, NewRelation) {
    let scope = Scope::Subject("ann".to_owned());
    let turn = Origin::Turn { conversation: "c1".to_owned(), turn: "t1".to_owned(), position: 7 };
    let sources = vec![
        Source { origin: turn, at_ms: 1_700_000_000_000, untrusted: false },
        Source { origin: Origin::Tool { tool: "web".to_owned() }, at_ms: 1_700_000_000_001, untrusted: true },
    ];
    let memory = NewMemory {
        id: MemoryId::from_bytes([1; 16]),
        scope: scope.clone(),
        kind: "fact".to_owned(),
        name: Some("home".to_owned()),
        text: "Ann lives in Rome.".to_owned(),
        metadata: Some("{\"certain\":true}".to_owned()),
        importance: 80,
        pinned: true,
        sources: sources.clone(),
        created_ms: 1_700_000_000_000,
        valid_from_ms: -1,
        valid_to_ms: Some(1_800_000_000_000),
        replaces: Some(MemoryId::from_bytes([2; 16])),
        entity: Some("Ann".to_owned()),
    };
    let entity = NewEntity {
        scope: scope.clone(),
        name: "Ann".to_owned(),
        kind: "person".to_owned(),
        metadata: Some("{}".to_owned()),
        sources: sources.clone(),
        created_ms: 1_700_000_000_000,
    };
    let relation = NewRelation {
        id: RelationId::from_bytes([3; 16]),
        scope,
        from: "Ann".to_owned(),
        kind: "lives_in".to_owned(),
        to: "Rome".to_owned(),
        metadata: Some("{}".to_owned()),
        sources,
        created_ms: 1_700_000_000_000,
        valid_from_ms: 5,
        valid_to_ms: Some(6),
    };
    (memory, entity, relation)
}

/// The commands, outcomes and rows of which version 1 has a golden file each.
fn golden() -> Vec<(&'static str, Vec<u8>, fn(&[u8]) -> Option<Vec<u8>>)> {
    let workspace: crate::WorkspaceId = "demo".parse().expect("a name");
    let (memory, entity, relation) = example();
    let command = |action: Action| {
        let permit = Some(vec![Scope::Subject("ann".to_owned()), Scope::Workspace]);
        let (workspace, actor) = (workspace.clone(), "ann".to_owned());
        Command { workspace, time_ms: 1_700_000_000_000, actor, permit, action }.encode()
    };
    let again: fn(&[u8]) -> Option<Vec<u8>> = |bytes| Command::decode(bytes).ok().map(|it| it.encode());
    let outcome: fn(&[u8]) -> Option<Vec<u8>> = |bytes| Outcome::decode(bytes).ok().map(|it| it.encode());
    let row: fn(&[u8]) -> Option<Vec<u8>> = |bytes| Row::decode(bytes).ok().map(|it| it.encode());
    let id = memory.id;
    let edit = Edit {
        text: Some("Ann lives in Oslo.".to_owned()),
        kind: Some("fact".to_owned()),
        name: Some(String::new()),
        metadata: Some(String::new()),
        importance: Some(1),
        pinned: Some(false),
        valid_from_ms: Some(2),
        valid_to_ms: Some(None),
        ..Edit::of(id)
    };
    let rule = Rule {
        scope: Some(ScopeKind::Conversation),
        kind: Some("exchange".to_owned()),
        age_ms_max: Some(1),
        count_max: Some(2),
        bytes_max: Some(3),
    };
    let limit = Reason::Limit { what: "bytes of `text`".to_owned(), found: 2, most: 1 };
    let items = vec![
        Item { id, fate: Fate::Stored { closed: vec![MemoryId::from_bytes([2; 16])] } },
        Item { id, fate: Fate::Known },
        Item { id, fate: Fate::Refused(limit.about(id.as_bytes())) },
    ];
    let gone = Gone { id, scope: Scope::Workspace, kind: "fact".to_owned(), bytes: 9, rule: Some(0) };
    let removed = Removed { memories: 1, entities: 2, relations: 3, bytes: 9, gone: vec![gone], more: true };
    let before =
        Row { workspace: workspace.clone(), memory: memory.clone(), changed_ms: 1_700_000_000_002, untrusted: true };
    let remember =
        Action::Remember { entities: vec![entity], memories: vec![memory], relations: vec![relation.clone()] };
    let remembered = Remembered { memories: items, ..Remembered::default() };
    vec![
        ("remember", command(remember), again),
        ("edit", command(Action::Edit(edit)), again),
        ("undo", command(Action::Undo { memory: id }), again),
        ("forget-memories", command(Action::Forget(Forget::Memories(vec![id]))), again),
        ("forget-scope", command(Action::Forget(Forget::Scope(Scope::Global))), again),
        ("forget-everything", command(Action::Forget(Forget::Everything)), again),
        ("end-relations", command(Action::EndRelations { relations: vec![relation.id], valid_to_ms: Some(7) }), again),
        ("retain", command(Action::Retain(Retain { rules: vec![rule] })), again),
        ("outcome-remembered", Outcome::Remembered(remembered).encode(), outcome),
        ("outcome-removed", Outcome::Removed(removed).encode(), outcome),
        ("outcome-refused", Outcome::Refused(Reason::NotFound.alone()).encode(), outcome),
        ("row-memory", before.encode(), row),
    ]
}

#[test]
fn bytes_of_version_1_are_read_and_written_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/memory-v1");
    for (name, bytes, again) in golden() {
        let file = folder.join(format!("{name}.bin"));
        if std::env::var_os("CAXTON_WRITE_GOLDEN").is_some() && !file.exists() {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(&file, &bytes).expect("a new golden file");
        }
        let golden = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(golden, bytes, "{name}: it is written otherwise than it was");
        assert_eq!(again(&golden), Some(golden), "{name}: it is read otherwise than it was");
    }
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let error = Command::decode(&[8, 9]).expect_err("version 9 is not known");
    assert!(matches!(error, DecodeError::Version { found: 9 }), "{error}");
    assert!(Command::decode(&[]).is_err() && Row::decode(&[8, 1]).is_err() && Outcome::decode(&[8, 1]).is_err());
}
