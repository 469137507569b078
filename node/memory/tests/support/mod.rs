//! What the tests share: a database in memory with its index, short ways to say commands, and vectors without a model.

#![allow(dead_code)]

use std::collections::BTreeSet;

use caxton_memory::proto::{
    Action, Command, Fate, Forget, MemoryId, NewEntity, NewMemory, NewRelation, Origin, Outcome, RelationId, Scope,
    Source,
};
use caxton_memory::{Embedder, Index, Model, Permit, Query, TABLES, apply, cache};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// Vectors whose numbers are counts of letters: near where the letters are alike.
pub struct Letters;

pub const DIMENSIONS: usize = 64;

impl Embedder for Letters {
    fn model(&self) -> Model {
        Model { hash: [7; 32], dimensions: DIMENSIONS }
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.01; DIMENSIONS];
        text.bytes().for_each(|byte| vector[usize::from(byte) % DIMENSIONS] += 1.0);
        vector
    }
}

pub struct Store {
    pub db: Connection,
    pub vectors: Connection,
    pub index: Index,
    pub time_ms: i64,
}

pub fn workspace(name: &str) -> caxton_proto::WorkspaceId {
    name.parse().expect("a name")
}

pub fn id(number: u128) -> MemoryId {
    MemoryId::from_bytes(number.to_be_bytes())
}

pub fn relation_id(number: u128) -> RelationId {
    RelationId::from_bytes(number.to_be_bytes())
}

pub fn subject(name: &str) -> Scope {
    Scope::Subject(name.to_owned())
}

pub fn said_by(subject: &str) -> Source {
    Source { origin: Origin::Subject { subject: subject.to_owned() }, at_ms: 1_000, untrusted: false }
}

pub fn memory(number: u128, scope: Scope, text: &str) -> NewMemory {
    NewMemory {
        id: id(number),
        scope,
        kind: "fact".to_owned(),
        name: None,
        text: text.to_owned(),
        metadata: None,
        importance: 50,
        pinned: false,
        sources: vec![said_by("ann")],
        created_ms: 1_000,
        valid_from_ms: 1_000,
        valid_to_ms: None,
        replaces: None,
        entity: None,
    }
}

pub fn entity(scope: Scope, name: &str, kind: &str) -> NewEntity {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    NewEntity { scope, name, kind, metadata: None, sources: vec![said_by("ann")], created_ms: 1_000 }
}

pub fn relation(number: u128, scope: Scope, from: &str, kind: &str, to: &str) -> NewRelation {
    NewRelation {
        id: relation_id(number),
        scope,
        from: from.to_owned(),
        kind: kind.to_owned(),
        to: to.to_owned(),
        metadata: None,
        sources: vec![said_by("ann")],
        created_ms: 1_000,
        valid_from_ms: 1_000,
        valid_to_ms: None,
    }
}

impl Store {
    pub fn new() -> Store {
        let db = Connection::open_in_memory().expect("memory");
        // As a shard's connection has it: with fewer, every statement is parsed again and again.
        db.set_prepared_statement_cache_capacity(128);
        TABLES.iter().for_each(|table| db.execute_batch(table.sql).expect(table.name));
        let vectors = Connection::open_in_memory().expect("memory");
        cache::create(&vectors).expect("a table");
        Store { db, vectors, index: Index::new(Letters.model()), time_ms: 2_000 }
    }

    pub fn command(&self, action: Action) -> Command {
        Command { workspace: workspace("w"), time_ms: self.time_ms, actor: "ann".to_owned(), permit: None, action }
    }

    pub fn run(&mut self, action: Action) -> Outcome {
        let command = self.command(action);
        self.carry_out(&command)
    }

    pub fn carry_out(&mut self, command: &Command) -> Outcome {
        let decoded = Command::decode(&command.encode()).expect("what is written can be read");
        assert_eq!(&decoded, command);
        let transaction = self.db.unchecked_transaction().expect("SQLite");
        let applied = apply(&transaction, command).expect("SQLite");
        transaction.commit().expect("SQLite");
        self.index.refresh(&self.db, &applied.touched).expect("SQLite");
        self.embed();
        assert_eq!(Outcome::decode(&applied.outcome.encode()).expect("an outcome"), applied.outcome);
        applied.outcome
    }

    pub fn embed(&mut self) {
        for pending in self.index.pending(usize::MAX) {
            let vector = Letters.embed(&pending.text);
            cache::write(&self.vectors, &Letters.model(), pending.key, &vector).expect("SQLite");
            self.index.learn(pending.key, &vector);
        }
    }

    pub fn remember(&mut self, memories: Vec<NewMemory>) -> Vec<Fate<MemoryId>> {
        match self.run(Action::Remember { entities: Vec::new(), memories, relations: Vec::new() }) {
            Outcome::Remembered(all) => all.memories.into_iter().map(|item| item.fate).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub fn forget(&mut self, forget: Forget) -> Outcome {
        self.run(Action::Forget(forget))
    }

    pub fn all(&self) -> Permit {
        Permit::everything(workspace("w"))
    }

    pub fn get(&self, number: u128) -> Option<NewMemory> {
        caxton_memory::get(&self.db, &self.all(), &id(number)).expect("SQLite").map(|memory| memory.what)
    }

    pub fn find(&self, permit: &Permit, text: &str) -> Vec<MemoryId> {
        self.found(permit, text, |_| {}).hits.into_iter().map(|hit| hit.id).collect()
    }

    pub fn found(&self, permit: &Permit, text: &str, with: impl FnOnce(&mut Query<'_>)) -> caxton_memory::Found {
        let vector = Letters.embed(text);
        let mut query = Query::new(text, Some(&vector), self.time_ms);
        with(&mut query);
        self.index.search(&self.vectors, permit, &query).expect("SQLite")
    }

    /// Everything that is kept, each row as text.
    pub fn rows(&self) -> BTreeSet<String> {
        let mut rows = BTreeSet::new();
        for table in TABLES.iter().filter(|table| !table.derived) {
            let mut statement = self.db.prepare(&format!("SELECT * FROM {}", table.name)).expect("SQLite");
            let columns = statement.column_count();
            let mut found = statement.query([]).expect("SQLite");
            while let Some(row) = found.next().expect("SQLite") {
                let value = |column| match row.get_ref(column).expect("a value") {
                    ValueRef::Text(text) | ValueRef::Blob(text) => text.escape_ascii().to_string(),
                    other => format!("{other:?}"),
                };
                let values: Vec<String> = (0..columns).map(value).collect();
                rows.insert(format!("{}: {}", table.name, values.join(", ")));
            }
        }
        rows
    }
}
