//! Between what travels and what is remembered: times, scopes, filters, memories and hits.

use caxton_memory::proto::{
    Edit, Fate, Item, MemoryId, NewEntity, NewMemory, NewRelation, Origin, RelationId, Remembered, Scope, Source,
};
use caxton_memory::{
    Condition, Direction, Edited, Filter, GraphEdge, GraphLimits, GraphNode, GraphQuery, GraphView, Half, Hit, Memory,
    Mode, Parts, Path, Stats, Value,
};
use caxton_proto::memory::InvalidMemoryId;

use crate::api::memory::{
    EditRequest, ForgetResponse, GraphEntity, GraphRelation, GraphRequest, GraphResponse, KeepRequest, KeepResponse,
    KeptInfo, MemoryBackendInfo, MemoryBefore, MemoryFilter, MemoryHit, MemoryInfo, MemorySource, MemoryStats,
    NewEntityInfo, NewMemoryInfo, NewRelationInfo, ScopeStats, ScoreParts, SearchBackend, SearchMode, SearchResponse,
};
use crate::app::memory::{Forgotten, Keeping};
use crate::edge::problem::{Code, Problem};
use crate::memory::{BackendPart, FoundMemories, Progress};
use crate::memory_backend::{BackendState, Stage};

/// The kind of a memory of which nobody says what it is.
const FACT: &str = "fact";
/// How far a look at the graph goes at most.
const DEPTH_MAX: u32 = 16;

fn invalid(problem: impl Into<String>, help: &str) -> Problem {
    Problem::new(Code::InvalidRequest, problem).help(help)
}

pub fn no_id(error: InvalidMemoryId) -> Problem {
    invalid(error.to_string(), "`caxton memory list` shows the ids")
}

/// A moment as RFC 3339, or the beginning of a day.
pub fn time(field: &str, text: &str) -> Result<i64, Problem> {
    let moment = text.parse::<jiff::Timestamp>().map(|at| at.as_millisecond());
    let day = || {
        let day: jiff::civil::Date = text.parse()?;
        Ok::<_, jiff::Error>(day.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_millisecond())
    };
    moment
        .or_else(|_| day())
        .map_err(|_| invalid(format!("`{field}` is no time: {text:?}"), "write 2026-01-31T12:00:00Z, or 2026-01-31"))
}

/// What was true when: now where nothing is said, and at any time for `any`.
pub fn as_of(text: Option<&str>, now_ms: i64) -> Result<Option<i64>, Problem> {
    match text {
        None => Ok(Some(now_ms)),
        Some("any") => Ok(None),
        Some(text) => time("as_of", text).map(Some),
    }
}

fn moment(ms: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX))
}

pub fn scope(text: &str) -> Result<Scope, Problem> {
    text.parse().map_err(|_| {
        invalid(format!("{text:?} is no scope"), "write conversation:ID, agent:NAME, subject:NAME or workspace")
    })
}

pub fn cursor(text: &str) -> Result<(i64, MemoryId), Problem> {
    let wrong = || invalid("`after` is not the `next` of a page", "leave it out for the first page");
    let (time, id) = text.split_once('-').ok_or_else(wrong)?;
    let time = u64::from_str_radix(time, 16).map_err(|_| wrong())?.cast_signed();
    Ok((time, id.parse().map_err(|_| wrong())?))
}

pub fn cursor_text((time, id): (i64, MemoryId)) -> String {
    format!("{:x}-{id}", time.cast_unsigned())
}

pub fn mode(mode: SearchMode) -> Mode {
    match mode {
        SearchMode::Both | SearchMode::Conversations => Mode::Both,
        SearchMode::Words | SearchMode::Phrase => Mode::Words,
        SearchMode::Meaning => Mode::Meaning,
    }
}

pub fn filter(wanted: &MemoryFilter) -> Result<Filter, Problem> {
    let scopes = wanted.scopes.iter().map(|text| scope(text)).collect::<Result<_, _>>()?;
    let condition = |(path, value): (&String, &serde_json::Value)| {
        let value = match value {
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::Bool(is) => Value::Bool(*is),
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                let help = "name the field inside it, with dots: \"address.city\"";
                return Err(invalid(format!("metadata `{path}` is compared with a list or an object"), help));
            }
        };
        Ok(Condition { path: path.clone(), value })
    };
    let at = |name: &str, text: &Option<String>| text.as_deref().map(|text| time(name, text)).transpose();
    Ok(Filter {
        scopes: (!wanted.scopes.is_empty()).then_some(scopes),
        kinds: wanted.kinds.iter().cloned().collect(),
        entity: wanted.entity.clone(),
        created_from_ms: at("created_from", &wanted.created_from)?,
        created_to_ms: at("created_to", &wanted.created_to)?,
        metadata: wanted.metadata.iter().map(condition).collect::<Result<_, _>>()?,
        untrusted: wanted.untrusted,
    })
}

pub fn memory(memory: Memory) -> MemoryInfo {
    let Memory { what, changed_ms, untrusted } = memory;
    info(what, changed_ms, untrusted)
}

fn info(what: NewMemory, changed_ms: i64, untrusted: bool) -> MemoryInfo {
    MemoryInfo {
        id: what.id.to_string(),
        scope: what.scope.to_string(),
        kind: what.kind,
        name: what.name,
        entity: what.entity,
        text: what.text,
        metadata: what.metadata.and_then(|text| serde_json::from_str(&text).ok()),
        importance: what.importance,
        pinned: what.pinned,
        untrusted,
        sources: what.sources.into_iter().map(source).collect(),
        created: moment(what.created_ms),
        changed: moment(changed_ms),
        valid_from: moment(what.valid_from_ms),
        valid_to: what.valid_to_ms.map(moment),
        replaces: what.replaces.map(|id| id.to_string()),
    }
}

fn source(source: Source) -> MemorySource {
    let (from, name, turn) = match source.origin {
        Origin::Turn { conversation, turn, position: _ } => ("turn", conversation, Some(turn)),
        Origin::Agent { agent } => ("agent", agent, None),
        Origin::Subject { subject } => ("subject", subject, None),
        Origin::Tool { tool } => ("tool", tool, None),
        Origin::Import { import } => ("import", import, None),
    };
    MemorySource { from: from.to_owned(), name, turn, at: moment(source.at_ms), untrusted: source.untrusted }
}

pub fn before(edited: Edited) -> MemoryBefore {
    let Edited { number, actor, at_ms, before } = edited;
    let Memory { what, changed_ms, untrusted } = before;
    MemoryBefore { number, actor, at: moment(at_ms), before: info(what, changed_ms, untrusted) }
}

pub fn keeping(request: KeepRequest, own: &Scope, subject: &str) -> Result<Keeping, Problem> {
    let now_ms = crate::time::now_ms().cast_signed();
    let new = New { own, now_ms, source: Origin::Subject { subject: subject.to_owned() } };
    Ok(Keeping {
        entities: request.entities.into_iter().map(|it| new.entity(it)).collect::<Result<_, _>>()?,
        memories: request.memories.into_iter().map(|it| new.memory(it)).collect::<Result<_, _>>()?,
        relations: request.relations.into_iter().map(|it| new.relation(it)).collect::<Result<_, _>>()?,
    })
}

/// What goes without saying of new things.
struct New<'a> {
    own: &'a Scope,
    now_ms: i64,
    source: Origin,
}

impl New<'_> {
    fn scope(&self, text: Option<&str>) -> Result<Scope, Problem> {
        text.map_or_else(|| Ok(self.own.clone()), scope)
    }

    fn at(&self, field: &str, text: Option<&str>) -> Result<i64, Problem> {
        text.map_or(Ok(self.now_ms), |text| time(field, text))
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source { origin: self.source.clone(), at_ms: self.now_ms, untrusted: false }]
    }

    fn memory(&self, new: NewMemoryInfo) -> Result<NewMemory, Problem> {
        let drawn = || MemoryId::from(uuid::Uuid::now_v7());
        Ok(NewMemory {
            id: new.id.map_or_else(|| Ok(drawn()), |id| id.parse().map_err(no_id))?,
            scope: self.scope(new.scope.as_deref())?,
            kind: new.kind.unwrap_or_else(|| FACT.to_owned()),
            name: new.name,
            text: new.text,
            metadata: new.metadata.map(|value| value.to_string()),
            importance: new.importance.unwrap_or(50),
            pinned: new.pinned,
            sources: self.sources(),
            created_ms: self.now_ms,
            valid_from_ms: self.at("valid_from", new.valid_from.as_deref())?,
            valid_to_ms: new.valid_to.map(|text| time("valid_to", &text)).transpose()?,
            replaces: new.replaces.map(|id| id.parse().map_err(no_id)).transpose()?,
            entity: new.entity,
        })
    }

    fn entity(&self, new: NewEntityInfo) -> Result<NewEntity, Problem> {
        Ok(NewEntity {
            scope: self.scope(new.scope.as_deref())?,
            name: new.name,
            kind: new.kind,
            metadata: new.metadata.map(|value| value.to_string()),
            sources: self.sources(),
            created_ms: self.now_ms,
        })
    }

    fn relation(&self, new: NewRelationInfo) -> Result<NewRelation, Problem> {
        Ok(NewRelation {
            id: RelationId::from(uuid::Uuid::now_v7()),
            scope: self.scope(new.scope.as_deref())?,
            from: new.from,
            kind: new.kind,
            to: new.to,
            metadata: new.metadata.map(|value| value.to_string()),
            sources: self.sources(),
            created_ms: self.now_ms,
            valid_from_ms: self.at("valid_from", new.valid_from.as_deref())?,
            valid_to_ms: new.valid_to.map(|text| time("valid_to", &text)).transpose()?,
        })
    }
}

pub fn kept(kept: Remembered) -> KeepResponse {
    fn each<Id: ToString>(items: Vec<Item<Id>>) -> Vec<KeptInfo> {
        let told = |item: Item<Id>| {
            let (fate, closed, problem) = match item.fate {
                Fate::Stored { closed } => ("stored", closed.iter().map(ToString::to_string).collect(), None),
                Fate::Known => ("known", Vec::new(), None),
                Fate::Refused(refusal) => ("refused", Vec::new(), Some(refusal.to_string())),
            };
            KeptInfo { id: item.id.to_string(), fate: fate.to_owned(), closed, problem }
        };
        items.into_iter().map(told).collect()
    }
    KeepResponse { entities: each(kept.entities), memories: each(kept.memories), relations: each(kept.relations) }
}

pub fn edit(id: MemoryId, request: EditRequest) -> Result<Edit, Problem> {
    let metadata = |value: serde_json::Value| match value {
        serde_json::Value::String(text) if text.is_empty() => text,
        value => value.to_string(),
    };
    let valid_to = |text: String| if text.is_empty() { Ok(None) } else { time("valid_to", &text).map(Some) };
    Ok(Edit {
        memory: id,
        text: request.text,
        kind: request.kind,
        name: request.name,
        metadata: request.metadata.map(metadata),
        importance: request.importance,
        pinned: request.pinned,
        valid_from_ms: request.valid_from.map(|text| time("valid_from", &text)).transpose()?,
        valid_to_ms: request.valid_to.map(valid_to).transpose()?,
    })
}

pub fn forgotten(forgotten: Forgotten, dry_run: bool) -> ForgetResponse {
    let Forgotten { memories, entities, relations, bytes, ids } = forgotten;
    ForgetResponse { dry_run, memories, entities, relations, bytes, ids: ids.iter().map(ToString::to_string).collect() }
}

pub fn found(found: FoundMemories, explain: bool) -> SearchResponse {
    let FoundMemories { found, memories, backend } = found;
    let half = |half: Half| match half {
        Half::Used => ("used", 0),
        Half::Unasked => ("unasked", 0),
        Half::Unusable => ("unusable", 0),
        Half::Partial { missing } => ("partial", missing),
    };
    let ((words, _), (meaning, without_vector)) = (half(found.words), half(found.meaning));
    let hits = found.hits.into_iter().zip(memories).map(|(hit, it)| ranked(hit, it, explain)).collect();
    let (words, meaning) = (words.to_owned(), meaning.to_owned());
    let backend = backend.map(search_backend);
    SearchResponse { hits, words, meaning, without_vector, searched: found.searched, backend }
}

pub fn search_backend(part: BackendPart) -> SearchBackend {
    let BackendPart { name, answered, note } = part;
    SearchBackend { name, answered, note }
}

pub fn backend(state: BackendState) -> MemoryBackendInfo {
    let word = match state.stage {
        _ if state.failing => "failing",
        Stage::Waiting => "waiting",
        Stage::Filling => "filling",
        Stage::Following => "following",
    };
    let (last_error, last_error_at) = state.last_failure.map(|it| (it.problem, moment(it.at_ms.cast_signed()))).unzip();
    MemoryBackendInfo {
        name: state.name,
        state: word.to_owned(),
        behind: state.behind,
        position: state.position,
        applied: state.applied,
        compared: state.done,
        to_compare: state.total,
        last_error,
        last_error_at,
    }
}

fn ranked(hit: Hit, it: Memory, explain: bool) -> MemoryHit {
    let Parts { words, meaning, neighbours, episode: conversation, recency, importance } = hit.parts;
    let parts = ScoreParts { words, meaning, neighbours, conversation, recency, importance };
    MemoryHit {
        memory: memory(it),
        score: hit.score,
        similarity: Some(hit.similarity),
        conversation: hit.conversation,
        parts: explain.then_some(parts),
    }
}

pub fn phrase_hit((it, score): (Memory, f64)) -> MemoryHit {
    MemoryHit { memory: memory(it), score: score as f32, similarity: None, conversation: None, parts: None }
}

pub fn conversation_hit((conversation, score, best): (String, f32, Memory)) -> MemoryHit {
    let conversation = Some(conversation);
    MemoryHit { memory: memory(best), score, similarity: None, conversation, parts: None }
}

pub fn graph_query(request: &GraphRequest, now_ms: i64) -> Result<GraphQuery, Problem> {
    let limits = GraphLimits::default();
    Ok(GraphQuery {
        relation_kinds: request.relation_kinds.iter().cloned().collect(),
        entity_kinds: request.entity_kinds.iter().cloned().collect(),
        direction: match request.direction.as_deref() {
            None | Some("both") => Direction::Both,
            Some("out") => Direction::Out,
            Some("in") => Direction::In,
            Some(other) => {
                return Err(invalid(format!("{other:?} is no direction"), "write `out`, `in` or `both`"));
            }
        },
        as_of_ms: as_of(request.as_of.as_deref(), now_ms)?,
        limits: GraphLimits {
            depth_max: request.depth.unwrap_or(if request.to.is_some() { DEPTH_MAX } else { 1 }).min(DEPTH_MAX),
            entities_max: request.limit.unwrap_or(limits.entities_max).clamp(1, limits.entities_max),
            ..limits
        },
    })
}

pub fn graph(view: GraphView) -> GraphResponse {
    let GraphView { entities, relations, more } = view;
    let entities = entities.into_iter().map(entity).collect();
    GraphResponse { entities, relations: relations.into_iter().map(relation).collect(), more }
}

pub fn path(path: Path) -> GraphResponse {
    graph(GraphView { entities: path.entities, relations: path.relations, more: false })
}

fn entity(node: GraphNode) -> GraphEntity {
    GraphEntity { id: node.id.to_string(), name: node.name, kind: node.kind, depth: node.depth }
}

fn relation(edge: GraphEdge) -> GraphRelation {
    let [id, from, to] = [edge.id.to_string(), edge.from.to_string(), edge.to.to_string()];
    GraphRelation { id, from, kind: edge.kind, to }
}

pub fn stats(scopes: Vec<Stats>, progress: Progress, state: Option<BackendState>) -> MemoryStats {
    let scope = |it: Stats| ScopeStats {
        scope: it.scope.to_string(),
        memories: it.memories,
        bytes: it.bytes,
        entities: it.entities,
        relations: it.relations,
    };
    MemoryStats {
        scopes: scopes.into_iter().map(scope).collect(),
        loading: progress.loading,
        pending_vectors: progress.pending,
        index_bytes: progress.bytes,
        backend: state.map(backend),
    }
}
