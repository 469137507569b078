//! A database with its index and the sentence model inside the binary.

use std::path::Path;

use anyhow::{Result, bail};
use caxton_embed::{DIMENSIONS, Embedder};
use caxton_memory::cache::{self, TextKey};
use caxton_memory::proto::{Action, Command, Fate, MemoryId, NewMemory, Origin, Outcome, Scope, Source};
use caxton_memory::{Index, Model, Permit, TABLES, apply};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// The most memories of one command.
const BATCH: usize = 1_000;

pub struct Store {
    pub db: Connection,
    pub index: Index,
    /// The cache of vectors.
    pub vectors: Connection,
}

/// The model inside the binary. Its hash only tells vectors of this benchmark from others.
pub const MODEL: Model = Model { hash: [1; 32], dimensions: DIMENSIONS };

pub fn permit() -> Permit {
    Permit::everything("bench".parse().unwrap_or_else(|_| unreachable!("it is a name")))
}

pub fn memory(number: u64, text: &str, turn: Option<(&str, u32)>) -> NewMemory {
    let origin = match turn {
        Some((conversation, position)) => {
            Origin::Turn { conversation: conversation.to_owned(), turn: number.to_string(), position }
        }
        None => Origin::Import { import: "bench".to_owned() },
    };
    NewMemory {
        id: MemoryId::from_bytes(u128::from(number).to_be_bytes()),
        scope: Scope::Workspace,
        kind: "fact".to_owned(),
        name: None,
        text: text.to_owned(),
        metadata: None,
        importance: 50,
        pinned: false,
        sources: vec![Source { origin, at_ms: 1, untrusted: false }],
        created_ms: 1,
        valid_from_ms: 1,
        valid_to_ms: None,
        replaces: None,
        entity: None,
    }
}

impl Store {
    /// An empty one in `folder`, or in memory, whose vectors are kept in the file `vectors`.
    pub fn new(folder: Option<&Path>, vectors: &Path) -> Result<Store> {
        let db = match folder {
            None => Connection::open_in_memory()?,
            Some(folder) => Connection::open(folder.join("memory.sqlite"))?,
        };
        db.set_prepared_statement_cache_capacity(128);
        // As a shard's connection has it: otherwise SQLite makes a statement anew whenever it is given other values.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")?;
        TABLES.iter().try_for_each(|table| db.execute_batch(table.sql))?;
        let vectors = Connection::open(vectors)?;
        vectors.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")?;
        cache::create(&vectors)?;
        Ok(Store { db, index: Index::new(MODEL), vectors })
    }

    /// Applies memories in batches, each a transaction, as a shard does.
    pub fn remember(&mut self, memories: &[NewMemory]) -> Result<()> {
        for memories in memories.chunks(BATCH) {
            let action = Action::Remember { entities: vec![], memories: memories.to_vec(), relations: vec![] };
            let (workspace, actor) = ("bench".parse()?, "bench".to_owned());
            let command = Command { workspace, time_ms: 1, actor, permit: None, action };
            let transaction = self.db.unchecked_transaction()?;
            let applied = apply(&self.db, &command)?;
            transaction.commit()?;
            let Outcome::Remembered(all) = &applied.outcome else { bail!("refused: {:?}", applied.outcome) };
            if let Some(item) = all.memories.iter().find(|item| matches!(item.fate, Fate::Refused(_))) {
                bail!("refused: {item:?}");
            }
            self.index.refresh(&self.db, &applied.touched)?;
        }
        Ok(())
    }

    /// The vector of a text, from the work folder where it is known.
    pub fn vector(&self, text: &str) -> Result<Vec<f32>> {
        let key = TextKey::of(text);
        if let Some(known) = cache::read(&self.vectors, &MODEL, key)? {
            return Ok(known);
        }
        let vector = Embedder::shared().embed(text).as_slice().to_vec();
        cache::write(&self.vectors, &MODEL, key, &vector)?;
        Ok(vector)
    }

    /// Gives every text its vector.
    pub fn embed(&mut self) -> Result<()> {
        for pending in self.index.pending(usize::MAX) {
            let vector = self.vector(&pending.text)?;
            self.index.learn(pending.key, &vector);
        }
        Ok(())
    }
}
