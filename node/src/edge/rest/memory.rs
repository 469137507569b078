//! What workspaces remember over HTTP: memories, searches, the graph, export and import.

mod shapes;

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use caxton_proto::memory::{EntityId, MemoryId, RelationId, Scope};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, OpenApi};

use super::{Current, freshness};
use crate::api::memory::{
    EditRequest, EditResponse, ForgetRequest, ForgetResponse, GraphRequest, GraphResponse, ImportMistake,
    ImportResponse, KeepRequest, KeepResponse, MemoryBackendInfo, MemoryDetail, MemoryFilter, MemoryHit, MemoryPage,
    MemoryStats, SearchMode, SearchRequest, SearchResponse,
};
use crate::api::{self, paths};
use crate::app::memory::{Forgetting, Imported, own};
use crate::authz::{ManageMemory, Permit, UseMemory};
use crate::edge::Services;
use crate::edge::extract::{Body, Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, delete, get, post, put};
use crate::invoke::Freshness;
use crate::memory::SearchOrder;

/// Memories on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 1_000;
/// Hits of a search unless told otherwise, and at most.
const HITS: usize = 10;
const HITS_MAX: usize = 1_000;
/// The media type of an export: one JSON document a line.
const LINES: &str = "application/x-ndjson";

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(
    list,
    keep,
    show,
    edit,
    remove,
    undo,
    search,
    forget,
    end_relation,
    graph,
    stats,
    sync,
    export,
    import
))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::MEMORIES).or_stale(), Owner::Shard, list)
        .on(post(paths::MEMORIES).body(BodyLimit::Message), Owner::Shard, keep)
        .on(get(paths::MEMORY).or_stale(), Owner::Shard, show)
        .on(put(paths::MEMORY), Owner::Shard, edit)
        .on(delete(paths::MEMORY), Owner::Shard, remove)
        .on(post(paths::MEMORY_UNDO), Owner::Shard, undo)
        .on(post(paths::MEMORY_SEARCH), Owner::Shard, search)
        .on(post(paths::MEMORY_FORGET), Owner::Shard, forget)
        .on(delete(paths::MEMORY_RELATION), Owner::Shard, end_relation)
        .on(post(paths::MEMORY_GRAPH), Owner::Shard, graph)
        .on(get(paths::MEMORY_STATS).or_stale(), Owner::Shard, stats)
        .on(post(paths::MEMORY_SYNC), Owner::Shard, sync)
        .on(get(paths::MEMORY_EXPORT), Owner::Shard, export)
        .on(post(paths::MEMORY_IMPORT).body(BodyLimit::Message), Owner::Shard, import)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// The `next` of the page before.
    after: Option<String>,
    /// How many at most: 50 unless told, 1,000 at most.
    limit: Option<usize>,
    /// Only this scope: `conversation:ID`, `agent:NAME`, `subject:NAME` or `workspace`.
    scope: Option<String>,
    /// Only this kind.
    kind: Option<String>,
    /// Only observations of this person or thing.
    entity: Option<String>,
    /// What was true then, as RFC 3339 or a day: what was ever true unless told.
    as_of: Option<String>,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// Memories, the oldest change first: one's own and the workspace's, or everybody's for deployers. Needs the role caller.
#[utoipa::path(get, path = paths::MEMORIES.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), Page),
    responses((status = 200, description = "A page of them.", body = MemoryPage)))]
async fn list(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Query(page): Query<Page>,
) -> Result<Json<MemoryPage>, Problem> {
    let wanted = MemoryFilter {
        scopes: page.scope.into_iter().collect(),
        kinds: page.kind.into_iter().collect(),
        entity: page.entity,
        ..MemoryFilter::default()
    };
    let filter = shapes::filter(&wanted)?;
    let as_of_ms = page.as_of.as_deref().map(|text| shapes::time("as_of", text)).transpose()?;
    let after = page.after.as_deref().map(shapes::cursor).transpose()?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let memories = &services.app.memories;
    let found = memories.list(&permit, filter, as_of_ms, (after, limit), freshness(page.stale)).await?;
    let next = found.next.map(shapes::cursor_text);
    Ok(Json(MemoryPage { memories: found.memories.into_iter().map(shapes::memory).collect(), next }))
}

/// Keeps memories, entities and relations. Each is kept or refused by itself, and nothing is kept twice. Needs the role
/// caller, and deployer for scopes that are not one's own.
#[utoipa::path(post, path = paths::MEMORIES.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = KeepRequest,
    responses((status = 200, description = "What became of each.", body = KeepResponse)))]
async fn keep(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Json(request): Json<KeepRequest>,
) -> Result<Json<KeepResponse>, Problem> {
    let keeping = shapes::keeping(request, &own(&permit), permit.subject())?;
    let kept = services.app.memories.keep(&permit, keeping).await?;
    Ok(Json(shapes::kept(kept)))
}

/// A memory with what it was before each edit. Needs the role caller.
#[utoipa::path(get, path = paths::MEMORY.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The memory."), Current),
    responses(
    (status = 200, description = "It.", body = MemoryDetail),
    (status = 404, description = "Nothing that one may see has the id: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn show(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Query(current): Query<Current>,
) -> Result<Json<MemoryDetail>, Problem> {
    let id = memory_id(&id)?;
    let (memory, history) = services.app.memories.show(&permit, id, freshness(current.stale)).await?;
    Ok(Json(MemoryDetail {
        memory: shapes::memory(memory),
        history: history.into_iter().map(shapes::before).collect(),
    }))
}

/// Changes a memory; what it was before stays in its history. Needs the role caller, and deployer for those of others.
#[utoipa::path(put, path = paths::MEMORY.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The memory.")),
    request_body = EditRequest,
    responses(
    (status = 200, description = "It was changed.", body = EditResponse),
    (status = 404, description = "Nothing that one may change has the id: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 409, description = "Another memory says the same: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn edit(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Json(request): Json<EditRequest>,
) -> Result<Json<EditResponse>, Problem> {
    let edit = shapes::edit(memory_id(&id)?, request)?;
    let memory = edit.memory;
    let number = services.app.memories.edit(&permit, edit).await?;
    changed(&permit, &services, memory, number).await
}

/// Takes the last edit of a memory back. Needs the role caller, and deployer for those of others.
#[utoipa::path(post, path = paths::MEMORY_UNDO.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The memory.")),
    responses(
    (status = 200, description = "It is what it was before.", body = EditResponse),
    (status = 404, description = "There is no such memory, or no edit of it is left: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn undo(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
) -> Result<Json<EditResponse>, Problem> {
    let memory = memory_id(&id)?;
    let number = services.app.memories.undo(&permit, memory).await?;
    changed(&permit, &services, memory, number).await
}

async fn changed(
    permit: &Permit<UseMemory>,
    services: &Services,
    memory: MemoryId,
    number: u64,
) -> Result<Json<EditResponse>, Problem> {
    let (memory, _) = services.app.memories.show(permit, memory, Freshness::Stale).await?;
    Ok(Json(EditResponse { number, memory: shapes::memory(memory) }))
}

/// Forgets a memory for good. Needs the role caller, and deployer for those of others.
#[utoipa::path(delete, path = paths::MEMORY.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The memory.")),
    responses(
    (status = 200, description = "It was forgotten.", body = ForgetResponse),
    (status = 404, description = "Nothing that one may change has the id: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn remove(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
) -> Result<Json<ForgetResponse>, Problem> {
    let what = Forgetting::Memories(vec![memory_id(&id)?]);
    Ok(Json(shapes::forgotten(services.app.memories.forget(&permit, what, false).await?, false)))
}

/// Searches what is remembered: one's own and the workspace's, or everybody's for deployers. Needs the role caller.
#[utoipa::path(post, path = paths::MEMORY_SEARCH.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = SearchRequest,
    responses((status = 200, description = "What was found, the best first, and by what it was searched.", body = SearchResponse)))]
async fn search(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Json(request): Json<SearchRequest>,
) -> Result<Json<SearchResponse>, Problem> {
    if request.text.trim().is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "`text` is empty").help("say what to search for"));
    }
    let now_ms = crate::time::now_ms().cast_signed();
    let limit = request.limit.unwrap_or(HITS).clamp(1, HITS_MAX);
    let order = SearchOrder {
        mode: shapes::mode(request.mode),
        filter: shapes::filter(&request.filter)?,
        as_of_ms: shapes::as_of(request.as_of.as_deref(), now_ms)?,
        min_similarity: request.min_similarity,
        ..SearchOrder::new(request.text, now_ms, limit)
    };
    let (memories, freshness) = (&services.app.memories, Freshness::Current);
    let unranked = |hits: Vec<MemoryHit>, by: [&str; 2]| SearchResponse {
        searched: hits.len() as u64,
        hits,
        words: by[0].to_owned(),
        meaning: by[1].to_owned(),
        without_vector: 0,
        backend: None,
    };
    Ok(Json(match request.mode {
        SearchMode::Phrase => {
            let found = memories.phrases(&permit, order, freshness).await?;
            let why = "phrases are looked for in the node's own index";
            let backend = memories.passed_over(&permit, why).await?.map(shapes::search_backend);
            let hits = found.into_iter().map(shapes::phrase_hit).collect();
            SearchResponse { backend, ..unranked(hits, ["used", "unasked"]) }
        }
        SearchMode::Conversations => {
            let found = memories.search_conversations(&permit, order, freshness).await?;
            let why = "whole conversations are looked for in the node's own index";
            let backend = memories.passed_over(&permit, why).await?.map(shapes::search_backend);
            let hits = found.into_iter().map(shapes::conversation_hit).collect();
            SearchResponse { backend, ..unranked(hits, ["used", "used"]) }
        }
        SearchMode::Both | SearchMode::Words | SearchMode::Meaning => {
            shapes::found(memories.search(&permit, order, freshness).await?, request.explain)
        }
    }))
}

/// Forgets many things at once: by ids, by a filter, a whole scope, or an entity with all that is said of it. Needs the role
/// caller, and deployer for those of others.
#[utoipa::path(post, path = paths::MEMORY_FORGET.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = ForgetRequest,
    responses((status = 200, description = "What was forgotten, or would be.", body = ForgetResponse)))]
async fn forget(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Json(request): Json<ForgetRequest>,
) -> Result<Json<ForgetResponse>, Problem> {
    let dry_run = request.dry_run;
    let what = forgetting(request, &own(&permit))?;
    Ok(Json(shapes::forgotten(services.app.memories.forget(&permit, what, dry_run).await?, dry_run)))
}

fn forgetting(request: ForgetRequest, own: &Scope) -> Result<Forgetting, Problem> {
    let ForgetRequest { ids, filter, scope, entity, entity_scope, dry_run: _ } = request;
    match (ids.is_empty(), filter, scope, entity) {
        (false, None, None, None) => {
            Ok(Forgetting::Memories(ids.iter().map(|id| memory_id(id)).collect::<Result<_, _>>()?))
        }
        (true, Some(filter), None, None) if filter == MemoryFilter::default() => {
            Err(Problem::new(Code::InvalidRequest, "the filter lets everything through")
                .help("say `scope` to forget all of a scope"))
        }
        (true, Some(filter), None, None) => Ok(Forgetting::Matching(Box::new(shapes::filter(&filter)?))),
        (true, None, Some(scope), None) => Ok(Forgetting::Scope(shapes::scope(&scope)?)),
        (true, None, None, Some(entity)) => {
            let scope = entity_scope.as_deref().map_or_else(|| Ok(own.clone()), shapes::scope)?;
            Ok(Forgetting::Entities(vec![EntityId::of(&scope, &entity)]))
        }
        _ => Err(Problem::new(Code::InvalidRequest, "it has to say one of `ids`, `filter`, `scope` and `entity`")
            .help("send one request for each")),
    }
}

/// When a relation ceased to be true.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct End {
    /// When it ceased to be true, as RFC 3339 or a day; without it the relation is deleted.
    valid_to: Option<String>,
}

/// Says that a relation is true no longer, or deletes it. Needs the role caller, and deployer for those of others.
#[utoipa::path(delete, path = paths::MEMORY_RELATION.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The relation."), End),
    responses(
    (status = 200, description = "It is true no longer, or gone.", body = ForgetResponse),
    (status = 404, description = "Nothing that one may change has the id: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn end_relation(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Query(end): Query<End>,
) -> Result<Json<ForgetResponse>, Problem> {
    let id: RelationId = id.parse().map_err(shapes::no_id)?;
    let memories = &services.app.memories;
    match end.valid_to.as_deref().map(|text| shapes::time("valid_to", text)).transpose()? {
        Some(at_ms) => {
            memories.end_relation(&permit, id, at_ms).await?;
            Ok(Json(shapes::forgotten(crate::app::memory::Forgotten::default(), false)))
        }
        None => {
            let gone = memories.forget(&permit, Forgetting::Relations(vec![id]), false).await?;
            Ok(Json(shapes::forgotten(gone, false)))
        }
    }
}

/// What is around entities in the graph, or a shortest way from one to another. Needs the role caller.
#[utoipa::path(post, path = paths::MEMORY_GRAPH.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = GraphRequest,
    responses(
    (status = 200, description = "Entities and the relations between them.", body = GraphResponse),
    (status = 404, description = "There is no way between the two: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn graph(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Json(request): Json<GraphRequest>,
) -> Result<Json<GraphResponse>, Problem> {
    let scope = request.scope.as_deref().map_or_else(|| Ok(own(&permit)), shapes::scope)?;
    let of = |name: &str| EntityId::of(&scope, name);
    let from: Vec<EntityId> = request.from.iter().map(|name| of(name)).collect();
    let Some(first) = from.first().copied() else {
        return Err(Problem::new(Code::InvalidRequest, "`from` names no entity").help("name at least one"));
    };
    let query = shapes::graph_query(&request, crate::time::now_ms().cast_signed())?;
    let (memories, freshness) = (&services.app.memories, Freshness::Current);
    let Some(to) = &request.to else {
        return Ok(Json(shapes::graph(memories.subgraph(&permit, from, query, freshness).await?)));
    };
    let path = memories.path(&permit, (first, of(to)), query, freshness).await?;
    let path = path.ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no way between the two within the limits")
            .help("ask for a larger `depth`, both directions, or another scope")
    })?;
    Ok(Json(shapes::path(path)))
}

/// How much is remembered, by scope, and how far this node's index is. Needs the role caller.
#[utoipa::path(get, path = paths::MEMORY_STATS.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), Current),
    responses((status = 200, description = "How much.", body = MemoryStats)))]
async fn stats(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Query(current): Query<Current>,
) -> Result<Json<MemoryStats>, Problem> {
    let (scopes, progress) = services.app.memories.stats(&permit, freshness(current.stale)).await?;
    let backend = services.app.memories.backend(&permit).await?;
    Ok(Json(shapes::stats(scopes, progress, backend)))
}

/// Has the workspace's memory backend emptied and filled anew from what is remembered, also where it holds what another
/// cluster told it. It is done behind the answer; `memory/stats` says how far it is. Needs the role deployer.
#[utoipa::path(post, path = paths::MEMORY_SYNC.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace.")),
    responses(
    (status = 200, description = "It is begun.", body = MemoryBackendInfo),
    (status = 400, description = "The workspace has no memory backend: `invalid_request`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn sync(
    permit: Permit<ManageMemory>,
    State(services): State<Services>,
) -> Result<Json<MemoryBackendInfo>, Problem> {
    Ok(Json(shapes::backend(services.app.memories.sync(&permit).await?)))
}

/// Which memories are exported.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only this scope.
    scope: Option<String>,
    /// Only memories of this kind, with every entity and relation.
    kind: Option<String>,
}

/// Everything that one may see, one JSON document a line: entities, memories, relations. The first line says the version.
/// Needs the role caller.
#[utoipa::path(get, path = paths::MEMORY_EXPORT.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), Which),
    responses((status = 200, description = "The lines.", body = String, content_type = "application/x-ndjson")))]
async fn export(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let (scopes, kinds) = (which.scope.into_iter().collect(), which.kind.into_iter().collect());
    let filter = shapes::filter(&MemoryFilter { scopes, kinds, ..MemoryFilter::default() })?;
    let pieces = services.app.memories.export(&permit, filter).await?;
    Ok(([(CONTENT_TYPE, LINES)], Stream::from_stream(ReceiverStream::new(pieces))).into_response())
}

/// How lines are taken in.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Into {
    /// Where memories go that name no scope: one's own unless told.
    scope: Option<String>,
    /// What the file is, for the sources of what it brings: `import` unless told.
    label: Option<String>,
}

/// Takes in lines of an export, of the MCP memory server's file, of mem0 or of LangGraph's store. Lines that were taken in
/// before change nothing. Needs the role caller, and deployer for scopes that are not one's own.
#[utoipa::path(post, path = paths::MEMORY_IMPORT.text(), tag = "memory",
    params(("workspace" = String, Path, description = "The workspace."), Into),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, description = "What became of them.", body = ImportResponse)))]
async fn import(
    permit: Permit<UseMemory>,
    State(services): State<Services>,
    Query(into): Query<Into>,
    Body(lines): Body,
) -> Result<Json<ImportResponse>, Problem> {
    let scope = into.scope.as_deref().map_or_else(|| Ok(own(&permit)), shapes::scope)?;
    let label = into.label.unwrap_or_else(|| "import".to_owned());
    let lines = std::str::from_utf8(&lines).map_err(|error| {
        let line = 1 + lines[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Problem::new(Code::InvalidRequest, format!("line {line} is not UTF-8"))
            .help("send the lines as `caxton memory export` writes them")
    })?;
    let imported = services.app.memories.import(&permit, scope, &label, lines).await?;
    let Imported { stored, known, mistakes, refused, report } = imported;
    let mistakes = mistakes.into_iter().map(|(line, problem)| ImportMistake { line, problem }).collect();
    Ok(Json(ImportResponse { stored, known, refused, mistakes, unknown_fields: report.unknown_fields }))
}

fn memory_id(text: &str) -> Result<MemoryId, Problem> {
    text.parse().map_err(shapes::no_id)
}
