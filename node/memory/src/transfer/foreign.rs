//! Documents of other systems: the official MCP memory server's file, mem0's memories, and items of LangGraph's store.
//!
//! Each gets an id out of its own key, so that a second import brings nothing twice.

use caxton_proto::memory::{MemoryId, NewEntity, NewMemory, NewRelation, Origin, RelationId, Scope, Source};
use serde_json::{Map, Value};

use super::line::{Line, LineError, Report};

/// Where what is imported is put, and what is noted about it.
pub(super) struct At<'a> {
    pub scope: &'a Scope,
    pub label: &'a str,
    pub now_ms: i64,
}

impl At<'_> {
    fn source(&self, at_ms: i64) -> Vec<Source> {
        vec![Source { origin: Origin::Import { import: self.label.to_owned() }, at_ms, untrusted: false }]
    }

    fn memory(&self, id: MemoryId, kind: &str, text: &str, at_ms: i64) -> NewMemory {
        NewMemory {
            id,
            scope: self.scope.clone(),
            kind: kind.to_owned(),
            name: None,
            text: text.to_owned(),
            metadata: None,
            importance: 50,
            pinned: false,
            sources: self.source(at_ms),
            created_ms: at_ms,
            valid_from_ms: at_ms,
            valid_to_ms: None,
            replaces: None,
            entity: None,
        }
    }
}

/// What a document of another system brings. A list, and the `results` or `items` of an answer, bring what each has.
pub(super) fn lines(value: &Value, at: &At<'_>, report: &mut Report) -> Result<Vec<Line>, LineError> {
    match value {
        Value::Array(all) => {
            let mut found = Vec::new();
            for one in all {
                found.extend(object(one.as_object().ok_or(LineError::Unknown)?, at, report)?);
            }
            Ok(found)
        }
        Value::Object(fields) => {
            let list = ["results", "items", "memories"].iter().find_map(|name| Some((name, fields.get(*name)?)));
            match list {
                Some((name, list @ Value::Array(_))) => {
                    note(fields, &[name], report);
                    lines(list, at, report)
                }
                Some(_) | None => object(fields, at, report),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(LineError::Unknown),
    }
}

fn object(fields: &Map<String, Value>, at: &At<'_>, report: &mut Report) -> Result<Vec<Line>, LineError> {
    let has = |names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
    match fields.get("type").and_then(Value::as_str) {
        Some("entity") if has(&["name", "entityType"]) => mcp_entity(fields, at, report),
        Some("relation") if has(&["from", "to", "relationType"]) => mcp_relation(fields, at, report),
        _ if has(&["memory"]) => mem0(fields, at, report),
        _ if has(&["namespace", "key", "value"]) => langgraph(fields, at, report),
        _ => Err(LineError::Unknown),
    }
}

/// Notes the fields that are not among those that are known.
fn note(fields: &Map<String, Value>, known: &[&str], report: &mut Report) {
    for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
        *report.unknown_fields.entry(name.clone()).or_default() += 1;
    }
}

fn text<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, LineError> {
    fields.get(field).and_then(Value::as_str).ok_or(LineError::Field { field })
}

/// A time as RFC 3339, or as seconds since 1970; nothing where there is none.
fn time(fields: &Map<String, Value>, field: &'static str) -> Result<Option<i64>, LineError> {
    let wrong = LineError::Field { field };
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let zoned = text.parse::<jiff::Timestamp>().map(|at| at.as_millisecond());
            // Some write no zone, and mean UTC.
            let plain = || format!("{text}Z").parse::<jiff::Timestamp>().map(|at| at.as_millisecond());
            zoned.or_else(|_| plain()).map(Some).map_err(|_| wrong)
        }
        Some(Value::Number(seconds)) => seconds.as_f64().map(|seconds| Some((seconds * 1_000.0) as i64)).ok_or(wrong),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Err(wrong),
    }
}

fn mcp_entity(fields: &Map<String, Value>, at: &At<'_>, report: &mut Report) -> Result<Vec<Line>, LineError> {
    note(fields, &["type", "name", "entityType", "observations"], report);
    let name = text(fields, "name")?;
    let mut found = vec![Line::Entity(NewEntity {
        scope: at.scope.clone(),
        name: name.to_owned(),
        kind: text(fields, "entityType")?.to_owned(),
        metadata: None,
        sources: at.source(at.now_ms),
        created_ms: at.now_ms,
    })];
    let none = Vec::new();
    let observations = match fields.get("observations") {
        None => &none,
        Some(list) => list.as_array().ok_or(LineError::Field { field: "observations" })?,
    };
    for observation in observations {
        let said = observation.as_str().ok_or(LineError::Field { field: "observations" })?;
        let id = MemoryId::imported("mcp", &format!("{}\n{name}\n{said}", at.scope));
        let memory = at.memory(id, "observation", said, at.now_ms);
        found.push(Line::Memory(NewMemory { entity: Some(name.to_owned()), ..memory }));
    }
    Ok(found)
}

fn mcp_relation(fields: &Map<String, Value>, at: &At<'_>, report: &mut Report) -> Result<Vec<Line>, LineError> {
    note(fields, &["type", "from", "to", "relationType"], report);
    let (from, to, kind) = (text(fields, "from")?, text(fields, "to")?, text(fields, "relationType")?);
    Ok(vec![Line::Relation(NewRelation {
        id: RelationId::imported("mcp", &format!("{}\n{from}\n{kind}\n{to}", at.scope)),
        scope: at.scope.clone(),
        from: from.to_owned(),
        kind: kind.to_owned(),
        to: to.to_owned(),
        metadata: None,
        sources: at.source(at.now_ms),
        created_ms: at.now_ms,
        valid_from_ms: at.now_ms,
        valid_to_ms: None,
    })])
}

/// One of mem0's memories. Whose it is becomes its scope: the person's if it names one, else the agent's, else the run's.
fn mem0(fields: &Map<String, Value>, at: &At<'_>, report: &mut Report) -> Result<Vec<Line>, LineError> {
    let known = [
        "id",
        "memory",
        "hash",
        "metadata",
        "categories",
        "created_at",
        "updated_at",
        "user_id",
        "agent_id",
        "run_id",
        "score",
    ];
    note(fields, &known, report);
    let said = text(fields, "memory")?;
    let of = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
    let scope = of("user_id").map(Scope::Subject).or_else(|| of("agent_id").map(Scope::Agent));
    let scope = scope.or_else(|| of("run_id").map(Scope::Conversation)).unwrap_or_else(|| at.scope.clone());
    let key = of("id").unwrap_or_else(|| format!("{scope}\n{said}"));
    let at_ms = time(fields, "created_at")?.unwrap_or(at.now_ms);
    let mut metadata = match fields.get("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(metadata) => metadata.as_object().cloned().ok_or(LineError::Field { field: "metadata" })?,
    };
    if let Some(categories) = fields.get("categories").filter(|it| it.is_array()) {
        metadata.insert("categories".to_owned(), categories.clone());
    }
    let metadata = (!metadata.is_empty()).then(|| Value::Object(metadata).to_string());
    let memory = at.memory(MemoryId::imported("mem0", &key), "fact", said, at_ms);
    Ok(vec![Line::Memory(NewMemory { scope, metadata, ..memory })])
}

/// An item of LangGraph's store. Its key is the memory's name, its namespace and what its value has beside the text its
/// metadata.
fn langgraph(fields: &Map<String, Value>, at: &At<'_>, report: &mut Report) -> Result<Vec<Line>, LineError> {
    note(fields, &["namespace", "key", "value", "created_at", "updated_at", "score"], report);
    let namespace = fields.get("namespace").cloned().unwrap_or(Value::Null);
    let key = text(fields, "key")?;
    let value = fields.get("value").and_then(Value::as_object).ok_or(LineError::Field { field: "value" })?;
    let at_ms = time(fields, "created_at")?.unwrap_or(at.now_ms);
    let field =
        ["text", "content", "memory", "data"].into_iter().find(|name| value.get(*name).is_some_and(Value::is_string));
    let mut metadata: Map<String, Value> = value.clone();
    let said = match field.and_then(|field| metadata.remove(field)) {
        Some(Value::String(said)) => said,
        Some(_) | None => Value::Object(value.clone()).to_string(),
    };
    if field.is_none() {
        metadata.clear();
    }
    metadata.insert("namespace".to_owned(), namespace.clone());
    let id = MemoryId::imported("langgraph", &format!("{namespace}\n{key}"));
    let memory = at.memory(id, "fact", &said, at_ms);
    Ok(vec![Line::Memory(NewMemory { metadata: Some(Value::Object(metadata).to_string()), ..memory })])
}
