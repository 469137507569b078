//! The lines of an export, and the reader that tells whose file it is.

use caxton_proto::memory::{MemoryId, NewEntity, NewMemory, NewRelation, Origin, RelationId, Scope, Source};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::foreign;
use super::line::{Line, LineError, Report};
use super::{LINE_BYTES_MAX, VERSION};
use crate::filter::{Filter, Permit};
use crate::read;

/// How many rows are read at a time.
const ROWS: usize = 500;

/// The first line of an export.
#[derive(Serialize, Deserialize)]
struct Head {
    caxton_memory: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
enum Document {
    Memory {
        id: MemoryId,
        scope: String,
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entity: Option<String>,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<String>,
        importance: u8,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pinned: bool,
        sources: Vec<Source>,
        created_ms: i64,
        valid_from_ms: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        valid_to_ms: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<MemoryId>,
    },
    Entity {
        scope: String,
        name: String,
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<String>,
        sources: Vec<Source>,
        created_ms: i64,
    },
    Relation {
        id: RelationId,
        scope: String,
        from: String,
        kind: String,
        to: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<String>,
        sources: Vec<Source>,
        created_ms: i64,
        valid_from_ms: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        valid_to_ms: Option<i64>,
    },
}

/// Writes all that a permit reaches, line by line: entities, memories, relations. An error of `line` ends it.
pub fn export<E: From<rusqlite::Error>>(
    db: &Connection,
    permit: &Permit,
    filter: &Filter,
    mut line: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let text = |document: &Document| serde_json::to_string(document).unwrap_or_default();
    line(&serde_json::to_string(&Head { caxton_memory: VERSION }).unwrap_or_default())?;
    let mut after: Option<(String, caxton_proto::memory::EntityId)> = None;
    loop {
        let page = read::entities(db, permit, after.as_ref().map(|(name, id)| (name.as_str(), *id)), ROWS)?;
        let Some(last) = page.last() else { break };
        after = Some((last.what.name.clone(), last.what.id()));
        for it in page {
            let what = it.what;
            let (scope, sources) = (what.scope.to_string(), marked(what.sources, it.untrusted));
            line(&text(&Document::Entity {
                scope,
                name: what.name,
                kind: what.kind,
                metadata: what.metadata,
                sources,
                created_ms: what.created_ms,
            }))?;
        }
    }
    read::each(db, permit, filter, |it| line(&text(&memory_document(it.what, it.untrusted))))?;
    let mut after = None;
    loop {
        let page = read::relations(db, permit, after, ROWS)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last.what.id.as_bytes());
        for it in page {
            let what = it.what;
            line(&text(&Document::Relation {
                id: what.id,
                scope: what.scope.to_string(),
                from: what.from,
                kind: what.kind,
                to: what.to,
                metadata: what.metadata,
                sources: marked(what.sources, it.untrusted),
                created_ms: what.created_ms,
                valid_from_ms: what.valid_from_ms,
                valid_to_ms: what.valid_to_ms,
            }))?;
        }
    }
}

fn memory_document(what: NewMemory, untrusted: bool) -> Document {
    Document::Memory {
        id: what.id,
        scope: what.scope.to_string(),
        kind: what.kind,
        name: what.name,
        entity: what.entity,
        text: what.text,
        metadata: what.metadata,
        importance: what.importance,
        pinned: what.pinned,
        sources: marked(what.sources, untrusted),
        created_ms: what.created_ms,
        valid_from_ms: what.valid_from_ms,
        valid_to_ms: what.valid_to_ms,
        replaces: what.replaces,
    }
}

/// The mark of what is not trusted goes along even where the source that brought it was forgotten since.
fn marked(mut sources: Vec<Source>, untrusted: bool) -> Vec<Source> {
    if sources.is_empty() {
        sources.push(Source { origin: Origin::Import { import: "forgotten".to_owned() }, at_ms: 0, untrusted });
    }
    if untrusted && !sources.iter().any(|source| source.untrusted) {
        sources[0].untrusted = true;
    }
    sources
}

/// Reads an import line by line. It knows an own export by its first line, and the documents of the MCP memory server, of
/// mem0 and of LangGraph's store by their fields.
pub struct Reader {
    /// Where what another system has is put, as it knows no scopes like these.
    scope: Scope,
    /// What the file is, for the sources.
    label: String,
    /// When it is imported, for documents without a time.
    now_ms: i64,
    /// What was not known so far.
    report: Report,
}

impl Reader {
    /// A reader of a file. What comes from another system is put into `scope`, unless it names an agent or a person.
    pub fn new(scope: Scope, label: &str, now_ms: i64) -> Reader {
        Reader { scope, label: label.to_owned(), now_ms, report: Report::default() }
    }

    /// What was not known so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Takes a line in. One line may bring several things, or none.
    pub fn line(&mut self, line: &str) -> Result<Vec<Line>, LineError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong { bytes: line.len() });
        }
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.is_empty() {
            return Ok(Vec::new());
        }
        let value: Value = serde_json::from_str(line)?;
        if let Some(version) = value.get("caxton_memory") {
            let found = version.as_u64().and_then(|version| u32::try_from(version).ok());
            return match found.ok_or(LineError::Field { field: "caxton_memory" })? {
                1..=VERSION => Ok(Vec::new()),
                found => Err(LineError::Version { found }),
            };
        }
        match serde_json::from_value::<Document>(value.clone()) {
            Ok(document) => Ok(vec![own(document)?]),
            Err(_) => {
                let at = foreign::At { scope: &self.scope, label: &self.label, now_ms: self.now_ms };
                foreign::lines(&value, &at, &mut self.report)
            }
        }
    }
}

fn own(document: Document) -> Result<Line, LineError> {
    let scope = |text: &str| text.parse::<Scope>().map_err(|_| LineError::Field { field: "scope" });
    Ok(match document {
        Document::Memory {
            id,
            scope: of,
            kind,
            name,
            entity,
            text,
            metadata,
            importance,
            pinned,
            sources,
            created_ms,
            valid_from_ms,
            valid_to_ms,
            replaces,
        } => Line::Memory(NewMemory {
            id,
            scope: scope(&of)?,
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
            replaces,
            entity,
        }),
        Document::Entity { scope: of, name, kind, metadata, sources, created_ms } => {
            Line::Entity(NewEntity { scope: scope(&of)?, name, kind, metadata, sources, created_ms })
        }
        Document::Relation {
            id,
            scope: of,
            from,
            kind,
            to,
            metadata,
            sources,
            created_ms,
            valid_from_ms,
            valid_to_ms,
        } => Line::Relation(NewRelation {
            id,
            scope: scope(&of)?,
            from,
            kind,
            to,
            metadata,
            sources,
            created_ms,
            valid_from_ms,
            valid_to_ms,
        }),
    })
}
