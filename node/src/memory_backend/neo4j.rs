//! Neo4j over its HTTP Query API: memories, the words that they are found by, entities and their relations as one graph.
//!
//! What is asked for are features that every version of the last years has (MERGE, UNWIND, paths of a variable length, a
//! constraint), and no index of vectors or full texts. A search finds memories by their words, and those about whom its words
//! name, and who is next to them; it does not find by meaning, and says so. The crate for its Bolt protocol would change how
//! tokio and the macros of half of all dependencies are built, and resolves addresses where nobody could check them.

use async_trait::async_trait;
use caxton_memory::proto::{EntityId, MemoryId, RelationId};
use caxton_proto::WorkspaceId;
use http::Method;
use serde_json::{Value, json};

use super::document::{Document, EntityNode, Position, RelationEdge, Within};
use super::http::Http;
use super::{BackendError, Candidates, GraphChanges, Listing, MemoryBackend, Wanted};

/// Memories of one page of a listing.
const PAGE: usize = 1_000;
/// Nodes that one statement deletes.
const DELETED_AT_ONCE: usize = 1_000;
/// How often it is deleted: a hundred million nodes.
const DELETE_ROUNDS_MAX: usize = 100_000;
/// Words of a search that are looked for.
const WORDS_MAX: usize = 64;
/// What an answer says of what it does not search by.
const NOTE: &str = "Neo4j finds by words and by the graph; meaning only orders what it found";
/// Constraints by which nodes are found again. They are made once, and are there already the next time.
const CONSTRAINTS: [&str; 4] = [
    "CREATE CONSTRAINT caxton_memory IF NOT EXISTS FOR (n:CaxtonMemory) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT caxton_entity IF NOT EXISTS FOR (n:CaxtonEntity) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT caxton_word IF NOT EXISTS FOR (n:CaxtonWord) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT caxton_position IF NOT EXISTS FOR (n:CaxtonPosition) REQUIRE n.key IS UNIQUE",
];
/// The facts of a memory, where nothing newer is there. Without its digest it counts as unfinished.
const PUT_MEMORIES: &str = "UNWIND $rows AS row MERGE (m:CaxtonMemory {key: row.key})
    WITH m, row WHERE coalesce(m.version, -1) <= row.version SET m = row.facts";
const CUT_MEMORIES: &str = "UNWIND $rows AS row MATCH (m:CaxtonMemory {key: row.key})-[r]->()
    WHERE m.version = row.version DELETE r";
const PUT_WORDS: &str = "UNWIND $rows AS row MATCH (m:CaxtonMemory {key: row.key}) WHERE m.version = row.version
    UNWIND row.words AS word MERGE (w:CaxtonWord {key: word}) MERGE (m)-[:SAYS]->(w)";
const PUT_ABOUT: &str = "UNWIND $rows AS row MATCH (m:CaxtonMemory {key: row.key}) WHERE m.version = row.version
    MATCH (e:CaxtonEntity {key: row.about}) MERGE (m)-[:ABOUT]->(e)";
const FINISH_MEMORIES: &str = "UNWIND $rows AS row MATCH (m:CaxtonMemory {key: row.key})
    WHERE m.version = row.version SET m.digest = row.digest";
const PUT_ENTITIES: &str = "UNWIND $rows AS row MERGE (e:CaxtonEntity {key: row.key})
    WITH e, row WHERE coalesce(e.version, -1) <= row.version SET e = row.facts";
const PUT_NAMES: &str = "UNWIND $rows AS row MATCH (e:CaxtonEntity {key: row.key})
    UNWIND row.words AS word MERGE (w:CaxtonWord {key: word}) MERGE (e)-[:CALLED]->(w)";
const PUT_RELATIONS: &str = "UNWIND $rows AS row MATCH (a:CaxtonEntity {key: row.from})
    MATCH (b:CaxtonEntity {key: row.to}) MERGE (a)-[r:RELATES {key: row.key}]->(b)
    WITH r, row WHERE coalesce(r.version, -1) <= row.version SET r = row.facts";
/// What a search lets through, of a memory `m`.
const WITHIN: &str = "m.workspace = $workspace AND ($scopes IS NULL OR m.scope IN $scopes)
    AND ($kinds IS NULL OR m.kind IN $kinds) AND ($entity IS NULL OR m.entity = $entity)
    AND ($created_from IS NULL OR m.created_ms >= $created_from) AND ($created_to IS NULL OR m.created_ms < $created_to)
    AND ($untrusted IS NULL OR m.untrusted = $untrusted) AND all(x IN $met WHERE x IN m.met)
    AND ($at IS NULL OR (m.valid_from_ms <= $at AND m.valid_to_ms > $at))";

/// A database of Neo4j, in which nodes carry the workspace's name.
pub struct Neo4j {
    http: Http,
    workspace: WorkspaceId,
    path: String,
}

impl Neo4j {
    /// The part of a database that is a workspace's.
    pub fn new(http: Http, workspace: WorkspaceId, database: &str) -> Neo4j {
        Neo4j { http, workspace, path: format!("/db/{database}/query/v2") }
    }

    /// Runs a statement and gives its rows.
    async fn run(&self, statement: &str, parameters: Value) -> Result<Vec<Vec<Value>>, BackendError> {
        let body = json!({ "statement": statement, "parameters": parameters });
        let (status, answer, text) = self.http.send(Method::POST, &self.path, Some(&body)).await?;
        // It answers 202 also to some statements that fail.
        if let Some(error) = answer.as_ref().and_then(|answer| answer["errors"].get(0)) {
            let said = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            return Err(self.http.refused(status, &format!("{}: {}", said("code"), said("message"))));
        }
        if !(200..=299).contains(&status) {
            return Err(self.http.refused(status, &text));
        }
        let rows = answer.and_then(|mut answer| match answer["data"]["values"].take() {
            Value::Array(rows) => Some(rows),
            _ => None,
        });
        let rows = rows.ok_or_else(|| self.http.nonsense("its answer has no `data` with `values`"))?;
        let row = |row| match row {
            Value::Array(cells) => Ok(cells),
            _ => Err(self.http.nonsense("a row of its answer is no list")),
        };
        rows.into_iter().map(row).collect()
    }

    /// The name of a node, which those of other workspaces do not have.
    fn key(&self, of: impl std::fmt::Display) -> String {
        format!("{}/{of}", self.workspace)
    }

    fn words<'a>(&self, words: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        words.into_iter().map(|word| self.key(word)).collect()
    }

    fn row(&self, document: &Document) -> Value {
        let mut facts = serde_json::to_value(&document.facts).unwrap_or_default();
        facts["key"] = json!(self.key(document.id));
        facts["id"] = json!(document.id);
        facts["version"] = json!(document.version);
        let scope = document.facts.scope.parse().ok();
        let about = document.facts.entity.as_ref().zip(scope).map(|(name, scope)| self.key(EntityId::of(&scope, name)));
        json!({
            "key": self.key(document.id), "version": document.version, "digest": document.digest, "about": about,
            "words": self.words(document.words.iter().map(|(word, _)| word)), "facts": facts,
        })
    }

    fn entity(&self, node: &EntityNode, version: u64) -> Value {
        let EntityNode { id, scope, name, kind, words } = node;
        let key = self.key(id);
        let facts = json!({
            "key": key, "id": id, "workspace": self.workspace, "scope": scope, "name": name, "kind": kind, "version": version,
        });
        json!({ "key": key, "version": version, "words": self.words(words), "facts": facts })
    }

    fn relation(&self, edge: &RelationEdge, version: u64) -> Value {
        let key = self.key(edge.id);
        let facts = json!({
            "key": key, "id": edge.id, "workspace": self.workspace, "scope": edge.scope, "kind": edge.kind,
            "valid_from_ms": edge.valid_from_ms, "valid_to_ms": edge.valid_to_ms, "version": version,
        });
        json!({
            "key": key, "version": version, "from": self.key(edge.from), "to": self.key(edge.to), "facts": facts,
        })
    }

    /// Deletes what a pattern names, as often as there is more. It counts what it deletes.
    async fn delete_all(&self, pattern: &str, parameters: Value) -> Result<(), BackendError> {
        let statement = format!("{pattern} WITH n LIMIT {DELETED_AT_ONCE} DETACH DELETE n RETURN count(*) AS gone");
        for _ in 0..DELETE_ROUNDS_MAX {
            let rows = self.run(&statement, parameters.clone()).await?;
            let gone = rows.first().and_then(|row| row.first()).and_then(Value::as_u64).unwrap_or(0);
            if gone < DELETED_AT_ONCE as u64 {
                return Ok(());
            }
        }
        Err(BackendError::Unable("it deletes for ever; empty it by hand"))
    }
}

fn parameters(within: &Within) -> Value {
    json!({
        "workspace": within.workspace, "scopes": within.scopes, "entity": within.entity, "met": within.met,
        "kinds": (!within.kinds.is_empty()).then_some(&within.kinds), "untrusted": within.untrusted,
        "created_from": within.created_from_ms, "created_to": within.created_to_ms, "at": within.true_at_ms,
    })
}

fn ids(rows: &[Vec<Value>]) -> impl Iterator<Item = MemoryId> + '_ {
    rows.iter().filter_map(|row| row.first()?.as_str()?.parse().ok())
}

#[async_trait]
impl MemoryBackend for Neo4j {
    async fn prepare(&self) -> Result<(), BackendError> {
        for constraint in CONSTRAINTS {
            self.run(constraint, json!({})).await?;
        }
        Ok(())
    }

    async fn position(&self) -> Result<Option<Position>, BackendError> {
        let read = "MATCH (p:CaxtonPosition {key: $key}) RETURN p.position AS position";
        let rows = self.run(read, json!({ "key": self.key("position") })).await?;
        let text = rows.first().and_then(|row| row.first()).and_then(Value::as_str);
        Ok(text.and_then(Position::decode))
    }

    async fn set_position(&self, position: &Position) -> Result<(), BackendError> {
        let write = "MERGE (p:CaxtonPosition {key: $key}) SET p.position = $position, p.workspace = $workspace";
        let key = self.key("position");
        let parameters = json!({ "key": key, "position": position.encode(), "workspace": self.workspace });
        self.run(write, parameters).await.map(drop)
    }

    async fn upsert(&self, documents: &[Document]) -> Result<(), BackendError> {
        let rows: Vec<Value> = documents.iter().map(|document| self.row(document)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        // The digest comes last: what was broken off in between is fed again.
        for statement in [PUT_MEMORIES, CUT_MEMORIES, PUT_WORDS, PUT_ABOUT, FINISH_MEMORIES] {
            self.run(statement, json!({ "rows": rows })).await?;
        }
        Ok(())
    }

    async fn delete(&self, ids: &[MemoryId], version: u64) -> Result<(), BackendError> {
        let keys: Vec<String> = ids.iter().map(|id| self.key(id)).collect();
        let delete =
            "UNWIND $keys AS key MATCH (m:CaxtonMemory {key: key}) WHERE m.version <= $version DETACH DELETE m";
        self.run(delete, json!({ "keys": keys, "version": version })).await.map(drop)
    }

    async fn change_graph(&self, changes: &GraphChanges) -> Result<(), BackendError> {
        let GraphChanges { version, entities, gone_entities, relations, gone_relations } = changes;
        let keys = |ids: Vec<String>| ids.into_iter().map(|id| self.key(id)).collect::<Vec<_>>();
        let nodes: Vec<Value> = entities.iter().map(|node| self.entity(node, *version)).collect();
        let edges: Vec<Value> = relations.iter().map(|edge| self.relation(edge, *version)).collect();
        let of = |id: &EntityId| id.to_string();
        let gone_nodes = keys(gone_entities.iter().map(of).collect());
        let gone_edges = keys(gone_relations.iter().map(RelationId::to_string).collect());
        for (statement, rows) in [(PUT_ENTITIES, &nodes), (PUT_NAMES, &nodes), (PUT_RELATIONS, &edges)] {
            if !rows.is_empty() {
                self.run(statement, json!({ "rows": rows })).await?;
            }
        }
        let drop_edges = "UNWIND $keys AS key MATCH (:CaxtonEntity)-[r:RELATES {key: key}]->(:CaxtonEntity)
            WHERE r.version <= $version DELETE r";
        let drop_nodes = "UNWIND $keys AS key MATCH (e:CaxtonEntity {key: key}) WHERE e.version <= $version
            DETACH DELETE e";
        for (statement, keys) in [(drop_edges, gone_edges), (drop_nodes, gone_nodes)] {
            if !keys.is_empty() {
                self.run(statement, json!({ "keys": keys, "version": version })).await?;
            }
        }
        Ok(())
    }

    async fn drop_older_graph(&self, version: u64) -> Result<(), BackendError> {
        let parameters = json!({ "workspace": self.workspace, "version": version });
        let edges = "MATCH (:CaxtonEntity {workspace: $workspace})-[r:RELATES]->(:CaxtonEntity)
            WHERE r.version < $version DELETE r";
        self.run(edges, parameters.clone()).await?;
        let nodes = "MATCH (n:CaxtonEntity) WHERE n.workspace = $workspace AND n.version < $version";
        self.delete_all(nodes, parameters).await
    }

    async fn list(&self, after: Option<&str>) -> Result<Listing, BackendError> {
        let read = format!(
            "MATCH (m:CaxtonMemory) WHERE m.workspace = $workspace AND m.key > $after
             RETURN m.key AS key, m.id AS id, m.digest AS digest ORDER BY key LIMIT {PAGE}"
        );
        let parameters = json!({ "workspace": self.workspace, "after": after.unwrap_or_default() });
        let rows = self.run(&read, parameters).await?;
        let next = rows.last().filter(|_| rows.len() == PAGE).and_then(|row| row.first()?.as_str()).map(str::to_owned);
        let document = |row: &Vec<Value>| {
            let digest = row.get(2).and_then(Value::as_str).unwrap_or_default();
            Some((row.get(1)?.as_str()?.parse().ok()?, digest.to_owned()))
        };
        Ok(Listing { documents: rows.iter().filter_map(document).collect(), next })
    }

    async fn clear(&self) -> Result<(), BackendError> {
        let parameters = json!({ "workspace": self.workspace, "start": self.key("") });
        for label in ["CaxtonPosition", "CaxtonMemory", "CaxtonEntity"] {
            let pattern = format!("MATCH (n:{label}) WHERE n.workspace = $workspace");
            self.delete_all(&pattern, parameters.clone()).await?;
        }
        self.delete_all("MATCH (n:CaxtonWord) WHERE n.key STARTS WITH $start", parameters).await
    }

    async fn part(&self) -> Result<(), BackendError> {
        self.http.part();
        self.clear().await
    }

    async fn search(&self, wanted: &Wanted) -> Result<Candidates, BackendError> {
        if wanted.words.is_empty() {
            let why = "Neo4j finds by words and by the graph, and this search has no word to find by; search `--by words` or \
                       `--by both` with words in it";
            return Err(BackendError::Unable(why));
        }
        let mut parameters = parameters(&wanted.within);
        parameters["words"] = json!(self.words(wanted.words.iter().take(WORDS_MAX)));
        let limit = wanted.limit;
        let by_words = format!(
            "UNWIND $words AS word MATCH (w:CaxtonWord {{key: word}})<-[:SAYS]-(m:CaxtonMemory) WHERE {WITHIN}
             RETURN m.id AS id, count(*) AS has ORDER BY has DESC, id LIMIT {limit}"
        );
        let around = format!(
            "UNWIND $words AS word MATCH (w:CaxtonWord {{key: word}})<-[:CALLED]-(e:CaxtonEntity)
             WHERE $scopes IS NULL OR e.scope IN $scopes
             MATCH (e)-[:RELATES*0..1]-(n:CaxtonEntity)<-[:ABOUT]-(m:CaxtonMemory) WHERE {WITHIN}
             RETURN DISTINCT m.id AS id LIMIT {limit}"
        );
        let mut found: Vec<MemoryId> = ids(&self.run(&by_words, parameters.clone()).await?).collect();
        if wanted.vector.is_some() {
            found.extend(ids(&self.run(&around, parameters).await?));
        }
        Ok(Candidates { ids: found, note: wanted.vector.is_some().then(|| NOTE.to_owned()) })
    }
}
