//! What workspaces remember, as it travels: memories, searches and their hits, the graph, and what was kept or forgotten.
//!
//! Times are RFC 3339. Scopes are written `conversation:ID`, `agent:NAME`, `subject:NAME` and `workspace`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Where something was learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemorySource {
    /// From what: `turn`, `agent`, `subject`, `tool` or `import`.
    pub from: String,
    /// Which conversation, agent, person, tool or file.
    pub name: String,
    /// The turn of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<String>,
    /// When it was said, as RFC 3339.
    pub at: String,
    /// It comes from a tool or a stranger.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
}

/// A memory with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryInfo {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Who shares it.
    pub scope: String,
    /// What kind of memory it is: `fact`, `preference`, `exchange`, or a word of the workspace's own.
    pub kind: String,
    /// What it is about: another text of the same scope, kind and name contradicts it, and ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The person or thing of which it is an observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// What is remembered.
    pub text: String,
    /// A JSON object, to filter by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// From 0 to 100.
    pub importance: u8,
    /// Retention leaves it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// It once came from a tool or a stranger: it is data, and grants nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
    /// Where it was learnt.
    pub sources: Vec<MemorySource>,
    /// When it was first kept.
    pub created: String,
    /// When it was last changed.
    pub changed: String,
    /// From when it is true.
    pub valid_from: String,
    /// From when it is no longer true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
    /// The memory that it took the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// A page of memories.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MemoryPage {
    /// The memories, the oldest change first.
    pub memories: Vec<MemoryInfo>,
    /// The `after` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A memory with what it was before.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MemoryDetail {
    /// The memory as it is now.
    #[serde(flatten)]
    pub memory: MemoryInfo,
    /// What it was before each edit, the oldest first.
    pub history: Vec<MemoryBefore>,
}

/// A memory before an edit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MemoryBefore {
    /// The edit's number, from 1.
    pub number: u64,
    /// The subject of who edited it.
    pub actor: String,
    /// When it was edited, as RFC 3339.
    pub at: String,
    /// What the memory was before.
    pub before: MemoryInfo,
}

/// A memory to be kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMemoryInfo {
    /// What is to be remembered.
    pub text: String,
    /// Who shares it: one's own scope unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What kind it is: `fact` unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The person or thing of which it is an observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// A JSON object, to filter by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// From 0 to 100: 50 unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<u8>,
    /// Retention leaves it alone.
    #[serde(default)]
    pub pinned: bool,
    /// From when it is true: now unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// From when it is no longer true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
    /// The id of the memory that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// An id of 32 hexadecimal digits, drawn by the sender: sent again, it is kept once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A person, a place or a thing to be kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEntityInfo {
    /// What it is called.
    pub name: String,
    /// What kind of thing it is.
    pub kind: String,
    /// Who shares it: one's own scope unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// How one entity relates to another, to be kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRelationInfo {
    /// The name of the entity that it begins at; one that is not known is made.
    pub from: String,
    /// How they relate.
    pub kind: String,
    /// The name of the entity that it ends at; one that is not known is made.
    pub to: String,
    /// Who shares it: one's own scope unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// From when it is true: now unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// From when it is no longer true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
}

/// `POST .../memories`: things to keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepRequest {
    /// Entities, which come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<NewEntityInfo>,
    /// The memories to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memories: Vec<NewMemoryInfo>,
    /// Relations, which come last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<NewRelationInfo>,
}

/// What became of one thing to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptInfo {
    /// The id under which it is kept: that of an older one that says the same.
    pub id: String,
    /// `stored`, `known` or `refused`.
    pub fate: String,
    /// What it contradicts, which is true no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What became of things to keep, in their order.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct KeepResponse {
    /// What became of each entity.
    pub entities: Vec<KeptInfo>,
    /// What became of each memory.
    pub memories: Vec<KeptInfo>,
    /// What became of each relation.
    pub relations: Vec<KeptInfo>,
}

/// `PUT .../memories/{id}`: what of a memory is to be changed; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditRequest {
    /// What it says from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The kind that it is from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name; an empty one takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its metadata, an object; an empty text takes them away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Its importance, from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<u8>,
    /// Whether retention leaves it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    /// From when it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// From when it is no longer true; an empty text makes it true without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
}

/// That a memory was changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EditResponse {
    /// The edit's number in the memory's history.
    pub number: u64,
    /// The memory as it is now.
    pub memory: MemoryInfo,
}

/// Which memories; what is absent says nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryFilter {
    /// Only these scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Only these kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Only observations of this person or thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Only those kept at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_from: Option<String>,
    /// Only those kept before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_to: Option<String>,
    /// Only those whose metadata have these values: names of fields with dots between them, and a text, a number, true, false
    /// or null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
    /// Only those, or without those, that come from a tool or a stranger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrusted: Option<bool>,
}

/// By what to search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchMode {
    /// By words and by meaning, in one ranking.
    #[default]
    Both,
    /// By words only.
    Words,
    /// By meaning only.
    Meaning,
    /// By an expression: `"two words"`, `begin*`, `AND`, `OR`, `NOT` and brackets.
    Phrase,
    /// By words and by meaning, for the conversations that memories come from.
    Conversations,
}

/// `POST .../memory/search`: what to search for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// A question or a few words.
    pub text: String,
    /// Whether words, meaning or both are compared.
    #[serde(default)]
    pub mode: SearchMode,
    /// Which memories are looked through.
    #[serde(default)]
    pub filter: MemoryFilter,
    /// How many at most: 10 unless it says otherwise, 1,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// How well a memory itself has to fit, from 0 to 1.
    #[serde(default)]
    pub min_similarity: f32,
    /// What was true then: now unless it says otherwise, and `any` for what was ever true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// Say what each score is made of.
    #[serde(default)]
    pub explain: bool,
}

/// What a score is made of; it is their sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScoreParts {
    /// The words of the search that the memory has.
    pub words: f32,
    /// How near the meanings are.
    pub meaning: f32,
    /// What was said directly before and after in its conversation.
    pub neighbours: f32,
    /// The words of the search that its whole conversation has.
    pub conversation: f32,
    /// How new it is.
    pub recency: f32,
    /// How important it is.
    pub importance: f32,
}

/// A memory that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryHit {
    /// The memory that was found.
    pub memory: MemoryInfo,
    /// Its score, by which hits are ordered.
    pub score: f32,
    /// How well the memory itself fits, from 0 to 1; absent where only an expression was searched by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
    /// The conversation that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// What the score is made of, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<ScoreParts>,
}

/// What a search found, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchResponse {
    /// The hits, the best first.
    pub hits: Vec<MemoryHit>,
    /// Whether words were used: `used`, `unasked` or `unusable`.
    pub words: String,
    /// Whether meaning was used: `used`, `unasked`, `unusable`, or `partial` while vectors are made.
    pub meaning: String,
    /// How many memories have no vector yet, so that they were found by words only.
    #[serde(default)]
    pub without_vector: u64,
    /// How many memories the token and the filter let through.
    pub searched: u64,
    /// What the workspace's memory backend had to do with it; null where it has none.
    #[serde(default)]
    pub backend: Option<SearchBackend>,
}

/// What a memory backend had to do with an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchBackend {
    /// Its name, as the workspace's file has it: `qdrant`, `neo4j` or `tool:NAME`.
    pub name: String,
    /// It found the candidates; otherwise the node's own index answered in its place.
    pub answered: bool,
    /// Why it did not answer, or what it does not search by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How far a workspace's memory backend is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryBackendInfo {
    /// Its name, as the workspace's file has it: `qdrant`, `neo4j` or `tool:NAME`.
    pub name: String,
    /// `following` where it has everything but the last changes, `filling` while it is compared with what is remembered,
    /// `failing` where it was not reached the last time or said no, `waiting` where this node has not spoken to it yet.
    pub state: String,
    /// Changes that it does not have for certain; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// Everything up to this entry of the shard's log is in it; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The last entry of the shard's log that is applied on the node that answers.
    pub applied: u64,
    /// Memories that were compared so far, while it is filled.
    pub compared: u64,
    /// Memories that there are to compare.
    pub to_compare: u64,
    /// What was wrong the last time that something was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<String>,
}

/// `POST .../memory/forget`: what is to be forgotten, one of these.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// Memories by their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// The memories that this lets through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<MemoryFilter>,
    /// All of a scope: memories, entities and relations, and the sources elsewhere that name its conversation or person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// An entity of the scope `entity_scope`, with its observations and relations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The scope of `entity`: one's own unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_scope: Option<String>,
    /// Only say what would be forgotten; goes with `filter`.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was forgotten, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgetResponse {
    /// Whether nothing was forgotten, because it was only asked what would be.
    pub dry_run: bool,
    /// How many memories.
    pub memories: u64,
    /// How many entities.
    pub entities: u64,
    /// How many relations.
    pub relations: u64,
    /// The bytes of the memories' texts and metadata.
    pub bytes: u64,
    /// The first of the memories.
    pub ids: Vec<String>,
}

/// `POST .../memory/graph`: where to look, and how far.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphRequest {
    /// Where it begins: names of entities.
    pub from: Vec<String>,
    /// Where it ends: a shortest way there instead of what is around.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The scope of these entities: one's own unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Relations between the beginning and an entity, at most: 1 unless it says otherwise, 16 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Which way relations are followed: `out`, `in` or `both`, which it is unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// Only relations of these kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relation_kinds: Vec<String>,
    /// Only entities of these kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entity_kinds: Vec<String>,
    /// What was true then: now unless it says otherwise, and `any` for what was ever true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// Entities at most: 1,000 unless it says otherwise, and no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// An entity of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphEntity {
    /// The id of the entity.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What kind of thing it is.
    pub kind: String,
    /// Relations between the beginning and it.
    pub depth: u32,
}

/// A relation of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphRelation {
    /// The id of the relation.
    pub id: String,
    /// The id of the entity that it begins at.
    pub from: String,
    /// How they relate.
    pub kind: String,
    /// The id of the entity that it ends at.
    pub to: String,
}

/// A part of the graph, or a way through it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphResponse {
    /// The entities, the nearest first; of a way in its order.
    pub entities: Vec<GraphEntity>,
    /// The relations between them.
    pub relations: Vec<GraphRelation>,
    /// A limit was reached: there is more.
    pub more: bool,
}

/// How much a scope holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScopeStats {
    /// The scope that is counted.
    pub scope: String,
    /// How many memories it has.
    pub memories: u64,
    /// Bytes of their texts and metadata.
    pub bytes: u64,
    /// How many entities it has.
    pub entities: u64,
    /// How many relations it has.
    pub relations: u64,
}

/// How much is remembered.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MemoryStats {
    /// Each scope that may be seen.
    pub scopes: Vec<ScopeStats>,
    /// The index of the node that answers is being loaded.
    pub loading: bool,
    /// Texts of the shard that wait for their vectors on that node.
    pub pending_vectors: u64,
    /// Bytes of memory that the shard's index takes there, about.
    pub index_bytes: u64,
    /// How far the workspace's memory backend is; null where it has none.
    #[serde(default)]
    pub backend: Option<MemoryBackendInfo>,
}

/// A line of an import that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportMistake {
    /// Its number, from 1, or that of the first line of those that were taken in together.
    pub line: u64,
    /// Why it was refused, in words.
    pub problem: String,
}

/// What became of the lines of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportResponse {
    /// Memories, entities and relations that are new.
    pub stored: u64,
    /// Those that were known.
    pub known: u64,
    /// Lines and things that were not kept.
    pub refused: u64,
    /// The first of these.
    pub mistakes: Vec<ImportMistake>,
    /// Fields that have no place here, and how often each was there.
    pub unknown_fields: BTreeMap<String, u64>,
}
