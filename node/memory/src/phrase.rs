//! Phrases and beginnings of words, which the index in memory does not know: the full-text table beside the tables.

use caxton_proto::memory::MemoryId;
use rusqlite::{Connection, params};

use crate::apply::rows;
use crate::filter::{Filter, Permit, is_true};
use crate::tables;

/// The most rows of the full-text table that one search looks at.
const ROWS_MAX: i64 = 10_000;

/// Why phrases cannot be searched for.
#[derive(Debug, thiserror::Error)]
pub enum PhraseError {
    /// It is no expression.
    #[error("this is no search for phrases: write \"two words\", begin*, AND, OR, NOT and brackets")]
    Syntax(#[source] rusqlite::Error),
    /// SQLite.
    #[error("what is remembered cannot be searched")]
    Database(#[from] rusqlite::Error),
}

/// Memories whose text matches an expression of SQLite's FTS5, best first, with their BM25 score; at most `limit`.
pub fn phrases(
    db: &Connection,
    permit: &Permit,
    filter: &Filter,
    expression: &str,
    as_of_ms: Option<i64>,
    limit: usize,
) -> Result<Vec<(MemoryId, f64)>, PhraseError> {
    let places: Vec<String> = tables::places(db, permit.workspace())?
        .into_iter()
        .filter(|(_, scope)| permit.allows(scope))
        .map(|(place, _)| format!("p{place}"))
        .collect();
    if places.is_empty() || expression.trim().is_empty() {
        return Ok(Vec::new());
    }
    // The expression is kept inside its column and its brackets, so that it cannot reach the places.
    if !balanced(expression) {
        return Err(PhraseError::Syntax(rusqlite::Error::InvalidQuery));
    }
    let expression = format!("{{text}} : ({expression}) AND place : ({})", places.join(" OR "));
    let syntax = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::Unknown) => PhraseError::Syntax(error),
        _ => PhraseError::Database(error),
    };
    let mut statement = db.prepare_cached(
        "SELECT rowid, bm25(memory_text) FROM memory_text WHERE memory_text MATCH ?1 ORDER BY 2, rowid LIMIT ?2",
    )?;
    let found: Vec<(i64, f64)> = statement
        .query_map(params![expression, ROWS_MAX], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(syntax)?;
    let mut hits = Vec::new();
    for (row, score) in found {
        // The row is read again: what decides is the table, and not what is derived from it.
        let Some(memory) = rows::memories(db, "WHERE m.row = ?1", [row])?.into_iter().next() else { continue };
        let what = &memory.value.what;
        let here = tables::place(db, permit.workspace(), &what.scope)? == Some(memory.place);
        let now = as_of_ms.is_none_or(|at| is_true(what.valid_from_ms, what.valid_to_ms, at));
        if here && now && permit.allows(&what.scope) && filter.allows(what, memory.value.untrusted) {
            hits.push((what.id, -score));
        }
        if hits.len() >= limit {
            break;
        }
    }
    Ok(hits)
}

/// Whether brackets outside of quotes are closed in order, names no column, and every quote has an end.
fn balanced(expression: &str) -> bool {
    let (mut depth, mut quoted) = (0_i32, false);
    for character in expression.chars() {
        match character {
            '"' => quoted = !quoted,
            '\0' => return false,
            ':' | '{' | '}' if !quoted => return false,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0 && !quoted
}
