//! The rows of the tenant's tables, for what changes them and for what reads them.

use caxton_proto::AgentName;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::log::DocumentKind;
use crate::chat::Usage;

/// What is known of a conversation without its turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How it began.
    pub title: String,
    /// Who answered last.
    pub agent: AgentName,
    /// How many turns it has.
    pub turns: u64,
    /// What they took.
    pub usage: Usage,
    /// When it began.
    pub created_ms: u64,
    /// When it was last answered.
    pub updated_ms: u64,
}

/// A conversation's row.
pub(super) fn conversation_of(
    db: &Connection,
    workspace: &str,
    conversation: &str,
) -> Result<Option<Summary>, rusqlite::Error> {
    db.prepare_cached(
        "SELECT title, agent, turns, input, output, created_ms, updated_ms FROM conversation \
         WHERE workspace = ?1 AND id = ?2",
    )?
    .query_row([workspace, conversation], summary)
    .optional()
}

pub(super) fn summary(row: &Row<'_>) -> rusqlite::Result<Summary> {
    let agent: String = row.get(1)?;
    let agent = agent.parse().map_err(|error: caxton_proto::InvalidId| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(Summary {
        title: row.get(0)?,
        agent,
        turns: number(row, 2)?,
        usage: Usage { input: number(row, 3)?, output: number(row, 4)? },
        created_ms: number(row, 5)?,
        updated_ms: number(row, 6)?,
    })
}

pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// How the file tells pieces apart. On disk for ever.
pub(super) fn number_of(of: DocumentKind) -> i64 {
    match of {
        DocumentKind::Journal => 0,
        DocumentKind::Files => 1,
        DocumentKind::Brought => 2,
    }
}
