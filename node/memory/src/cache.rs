//! Vectors by text and model, on disk: whoever starts again, restores or imports does not embed the same text twice.

use caxton_proto::Digest;
use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::model::Model;
use crate::vectors::{self, Grains};

/// A text by the first half of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextKey([u8; 16]);

impl TextKey {
    /// The key of a text.
    pub fn of(text: &str) -> TextKey {
        let mut key = [0; 16];
        key.copy_from_slice(&Digest::of(text.as_bytes()).as_bytes()[..16]);
        TextKey(key)
    }
}

/// Makes the table in a file of its own. One with a table of that name and another form is emptied: it is only a cache.
pub fn create(db: &Connection) -> Result<()> {
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS memory_vector (
        model BLOB NOT NULL, text BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (model, text)) WITHOUT ROWID, STRICT;";
    db.execute_batch(TABLE)?;
    if db.prepare("SELECT model, text, vector FROM memory_vector LIMIT 0").is_err() {
        db.execute_batch("DROP TABLE memory_vector")?;
        db.execute_batch(TABLE)?;
    }
    Ok(())
}

/// Keeps a vector. One without a direction is not kept.
pub fn write(db: &Connection, model: &Model, key: TextKey, vector: &[f32]) -> Result<()> {
    let Some(vector) = vectors::unit(vector) else { return Ok(()) };
    db.prepare_cached("INSERT OR REPLACE INTO memory_vector VALUES (?1, ?2, ?3)")?.execute(params![
        &model.hash[..8],
        key.0,
        vectors::to_bytes(&vector)
    ])?;
    Ok(())
}

/// A vector of the model, if one is kept that is whole.
pub fn read(db: &Connection, model: &Model, key: TextKey) -> Result<Option<Vec<f32>>> {
    let found = db
        .prepare_cached("SELECT vector FROM memory_vector WHERE model = ?1 AND text = ?2")?
        .query_row(params![&model.hash[..8], key.0], |row| {
            Ok(vectors::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default(), model.dimensions))
        })
        .optional()?;
    Ok(found.flatten())
}

/// Hands out every vector of the model, as it is kept in memory.
pub(crate) fn each(db: &Connection, model: &Model, mut vector: impl FnMut(TextKey, Grains)) -> Result<()> {
    let mut statement = db.prepare_cached("SELECT text, vector FROM memory_vector WHERE model = ?1")?;
    let mut rows = statement.query([&model.hash[..8]])?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(1)?.as_blob().unwrap_or_default();
        if let (Ok(key), Some(found)) = (row.get(0), Grains::from_bytes(bytes, model.dimensions)) {
            vector(TextKey(key), found);
        }
    }
    Ok(())
}

/// Deletes the vectors of other models, and those of texts that no memory has. Gives how many went.
pub fn sweep(db: &Connection, model: &Model, needed: impl Fn(TextKey) -> bool) -> Result<usize> {
    let mut gone = db.execute("DELETE FROM memory_vector WHERE model <> ?1", [&model.hash[..8]])?;
    let keys: Vec<TextKey> = db
        .prepare_cached("SELECT text FROM memory_vector WHERE model = ?1")?
        .query_map([&model.hash[..8]], |row| row.get(0).map(TextKey))?
        .collect::<Result<_>>()?;
    for key in keys.into_iter().filter(|key| !needed(*key)) {
        gone += db
            .prepare_cached("DELETE FROM memory_vector WHERE model = ?1 AND text = ?2")?
            .execute(params![&model.hash[..8], key.0])?;
    }
    Ok(gone)
}
