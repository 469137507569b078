//! What a command may hold. The proposer checks before it proposes, and whoever applies a command checks again.

use std::fmt;

use super::{Action, Command, Edit, NewEntity, NewMemory, NewRelation, Origin, Reason, Scope, Source};
use crate::shard::json_depth;

/// The most bytes of a memory's text.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// The most bytes of metadata.
pub const METADATA_BYTES_MAX: usize = 16 << 10;
/// How deep metadata may be nested.
pub const METADATA_DEPTH_MAX: usize = 16;
/// The most values that metadata may hold: each can be filtered by.
pub const METADATA_VALUES_MAX: usize = 256;
/// The most bytes of a name: of a memory, an entity, a conversation, a subject.
pub const NAME_BYTES_MAX: usize = 256;
/// The most bytes of a kind: of a memory, an entity, a relation.
pub const KIND_BYTES_MAX: usize = 64;
/// The most bytes of who asks.
pub const ACTOR_BYTES_MAX: usize = 256;
/// The most sources that a memory keeps; later ones are not added.
pub const SOURCES_MAX: usize = 16;
/// The most things of one sort in one command.
pub const ITEMS_MAX: usize = 4_096;
/// The most rules of one retention.
pub const RULES_MAX: usize = 64;
/// The latest time, and before 1970 the earliest: about the year 9999.
pub const TIME_MAX_MS: i64 = 253_402_300_800_000;

/// Why a command, or a part of it, cannot be kept.
pub type CheckError = Reason;

type Result = std::result::Result<(), CheckError>;

fn most(what: &str, found: usize, most: usize) -> Result {
    if found <= most {
        return Ok(());
    }
    Err(Reason::Limit { what: what.to_owned(), found: found as u64, most: most as u64 })
}

fn wrong(field: &str) -> CheckError {
    Reason::Field { field: field.to_owned() }
}

/// A name has no control characters: it is shown on a terminal.
fn name(field: &str, text: &str, bytes_max: usize) -> Result {
    most(&format!("bytes of `{field}`"), text.len(), bytes_max)?;
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err(wrong(field)),
        false => Ok(()),
    }
}

fn time(field: &str, at_ms: i64) -> Result {
    if at_ms.unsigned_abs() <= TIME_MAX_MS as u64 { Ok(()) } else { Err(wrong(field)) }
}

fn span(from_ms: i64, to_ms: Option<i64>) -> Result {
    time("valid_from", from_ms)?;
    match to_ms {
        Some(to_ms) if to_ms < from_ms => Err(wrong("valid_to")),
        Some(to_ms) => time("valid_to", to_ms),
        None => Ok(()),
    }
}

fn text(text: &str) -> Result {
    most("bytes of `text`", text.len(), TEXT_BYTES_MAX)?;
    match text.trim().is_empty() || text.contains('\0') {
        true => Err(wrong("text")),
        false => Ok(()),
    }
}

/// Metadata are a JSON object. Their depth is counted before they are parsed, because parsing recurses.
fn metadata(text: Option<&str>) -> Result {
    let Some(text) = text else { return Ok(()) };
    most("bytes of `metadata`", text.len(), METADATA_BYTES_MAX)?;
    most("levels of `metadata`", json_depth(text.as_bytes()), METADATA_DEPTH_MAX)?;
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return Err(wrong("metadata")) };
    if !value.is_object() {
        return Err(wrong("metadata"));
    }
    most("values of `metadata`", values(&value), METADATA_VALUES_MAX)
}

fn values(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(all) => all.iter().map(values).sum(),
        serde_json::Value::Object(all) => all.values().map(values).sum(),
        _ => 1,
    }
}

impl Scope {
    /// Checks the name.
    pub fn check(&self) -> Result {
        match self {
            Scope::Workspace | Scope::Global => Ok(()),
            Scope::Conversation(of) | Scope::Agent(of) | Scope::Subject(of) => name("scope", of, NAME_BYTES_MAX),
        }
    }
}

impl Source {
    fn check(&self) -> Result {
        time("source.at", self.at_ms)?;
        name("source", self.origin.name(), NAME_BYTES_MAX)?;
        match &self.origin {
            Origin::Turn { turn, .. } => name("source.turn", turn, NAME_BYTES_MAX),
            _ => Ok(()),
        }
    }
}

fn sources(sources: &[Source]) -> Result {
    if sources.is_empty() {
        return Err(wrong("sources"));
    }
    most("sources", sources.len(), SOURCES_MAX)?;
    sources.iter().try_for_each(Source::check)
}

impl NewMemory {
    /// Checks every field.
    pub fn check(&self) -> Result {
        self.scope.check()?;
        name("kind", &self.kind, KIND_BYTES_MAX)?;
        self.name.as_deref().map_or(Ok(()), |of| name("name", of, NAME_BYTES_MAX))?;
        self.entity.as_deref().map_or(Ok(()), |of| name("entity", of, NAME_BYTES_MAX))?;
        text(&self.text)?;
        metadata(self.metadata.as_deref())?;
        most("importance", self.importance.into(), 100)?;
        sources(&self.sources)?;
        time("created", self.created_ms)?;
        span(self.valid_from_ms, self.valid_to_ms)
    }
}

impl NewEntity {
    /// Checks every field.
    pub fn check(&self) -> Result {
        self.scope.check()?;
        name("name", &self.name, NAME_BYTES_MAX)?;
        name("kind", &self.kind, KIND_BYTES_MAX)?;
        metadata(self.metadata.as_deref())?;
        sources(&self.sources)?;
        time("created", self.created_ms)
    }
}

impl NewRelation {
    /// Checks every field.
    pub fn check(&self) -> Result {
        self.scope.check()?;
        name("from", &self.from, NAME_BYTES_MAX)?;
        name("kind", &self.kind, KIND_BYTES_MAX)?;
        name("to", &self.to, NAME_BYTES_MAX)?;
        metadata(self.metadata.as_deref())?;
        sources(&self.sources)?;
        time("created", self.created_ms)?;
        span(self.valid_from_ms, self.valid_to_ms)
    }
}

impl Edit {
    /// Checks every field that changes.
    pub fn check(&self) -> Result {
        self.text.as_deref().map_or(Ok(()), text)?;
        self.kind.as_deref().map_or(Ok(()), |of| name("kind", of, KIND_BYTES_MAX))?;
        self.name.as_deref().filter(|of| !of.is_empty()).map_or(Ok(()), |of| name("name", of, NAME_BYTES_MAX))?;
        metadata(self.metadata.as_deref().filter(|of| !of.is_empty()))?;
        most("importance", self.importance.unwrap_or(0).into(), 100)?;
        self.valid_from_ms.map_or(Ok(()), |at| time("valid_from", at))?;
        self.valid_to_ms.flatten().map_or(Ok(()), |at| time("valid_to", at))
    }
}

impl Command {
    /// Checks what holds for the command as a whole. Each thing to remember is checked by itself, because one that is
    /// refused does not keep the others from being kept.
    pub fn check(&self) -> Result {
        time("time", self.time_ms)?;
        most("bytes of `actor`", self.actor.len(), ACTOR_BYTES_MAX)?;
        if let Some(permit) = &self.permit {
            most("scopes of the permit", permit.len(), ITEMS_MAX)?;
        }
        let items = |counts: &[usize]| counts.iter().try_for_each(|&count| most("items", count, ITEMS_MAX));
        match &self.action {
            Action::Remember { entities, memories, relations } => {
                items(&[entities.len(), memories.len(), relations.len()])
            }
            Action::Edit(edit) => edit.check(),
            Action::Undo { .. } => Ok(()),
            Action::Forget(forget) => match forget {
                super::Forget::Memories(ids) => items(&[ids.len()]),
                super::Forget::Entities(ids) => items(&[ids.len()]),
                super::Forget::Scope(scope) => scope.check(),
                super::Forget::Everything => Ok(()),
            },
            Action::EndRelations { relations, valid_to_ms } => {
                items(&[relations.len()])?;
                valid_to_ms.map_or(Ok(()), |at| time("valid_to", at))
            }
            Action::Retain(retain) => most("rules", retain.rules.len(), RULES_MAX),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Conversation(name) => write!(f, "conversation:{name}"),
            Scope::Agent(name) => write!(f, "agent:{name}"),
            Scope::Subject(name) => write!(f, "subject:{name}"),
            Scope::Workspace => f.write_str("workspace"),
            Scope::Global => f.write_str("global"),
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = CheckError;
    /// Takes `workspace`, `global`, `conversation:ID`, `agent:NAME` and `subject:NAME`.
    fn from_str(text: &str) -> std::result::Result<Scope, CheckError> {
        let scope = match text.split_once(':') {
            None if text == "workspace" => Scope::Workspace,
            None if text == "global" => Scope::Global,
            Some(("conversation", name)) => Scope::Conversation(name.to_owned()),
            Some(("agent", name)) => Scope::Agent(name.to_owned()),
            Some(("subject", name)) => Scope::Subject(name.to_owned()),
            None | Some(_) => return Err(wrong("scope")),
        };
        scope.check().map(|()| scope)
    }
}
