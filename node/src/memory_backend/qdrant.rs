//! Qdrant over its REST API: a point for each memory, with a vector of its meaning and a sparse one of its words, so that both
//! halves of a search are asked for in one request.
//!
//! The official client for Rust brings its own connections, on which nobody could see to it that they lead nowhere but where the
//! node's operator lets workspaces go; and it would change how tonic is built.

use std::collections::BTreeMap;

use async_trait::async_trait;
use caxton_memory::proto::MemoryId;
use caxton_proto::{Digest, WorkspaceId};
use http::Method;
use serde_json::{Value, json};

use super::document::{Document, Position, Within};
use super::http::Http;
use super::{BackendError, Candidates, Listing, MemoryBackend, Wanted};

/// The vector of what a memory means.
const MEANING: &str = "meaning";
/// The sparse vector of its words.
const WORDS: &str = "words";
/// Points of one page of a listing.
const PAGE: usize = 1_000;
/// What is filtered by, and as what it is indexed.
const INDEXED: [(&str, &str); 10] = [
    ("workspace", "keyword"),
    ("scope", "keyword"),
    ("kind", "keyword"),
    ("entity", "keyword"),
    ("met", "keyword"),
    ("untrusted", "bool"),
    ("created_ms", "integer"),
    ("valid_from_ms", "integer"),
    ("valid_to_ms", "integer"),
    ("version", "integer"),
];

/// A collection of Qdrant, or a workspace's part of one.
pub struct Qdrant {
    http: Http,
    workspace: WorkspaceId,
    collection: String,
    dimensions: usize,
}

impl Qdrant {
    /// The part of a collection that is a workspace's, for vectors of so many numbers.
    pub fn new(http: Http, workspace: WorkspaceId, collection: Option<&str>, dimensions: usize) -> Qdrant {
        let collection = collection.map_or_else(|| format!("caxton-{workspace}"), str::to_owned);
        Qdrant { http, workspace, collection, dimensions }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Option<Value>), BackendError> {
        let path = format!("/collections/{}{path}", self.collection);
        let (status, answer, text) = self.http.send(method, &path, body.as_ref()).await?;
        match status {
            200..=299 | 404 => Ok((status, answer)),
            _ => {
                let said = answer.as_ref().and_then(|answer| answer["status"]["error"].as_str());
                Err(self.http.refused(status, said.unwrap_or(&text)))
            }
        }
    }

    /// The `result` of an answer that has to be a good one.
    async fn result(&self, method: Method, path: &str, body: Value) -> Result<Value, BackendError> {
        match self.send(method, path, Some(body)).await? {
            (404, _) => Err(BackendError::Setup(format!(
                "the collection `{}` is not there; `caxton memory sync` makes it anew",
                self.collection
            ))),
            (_, Some(mut answer)) if answer.get("result").is_some() => Ok(answer["result"].take()),
            _ => Err(self.http.nonsense("its answer has no `result`")),
        }
    }

    /// The number of a point that no memory has: that of the workspace's position.
    fn place_of_position(&self) -> String {
        hyphened(&Digest::of(format!("caxton position of {}", self.workspace).as_bytes()).as_bytes()[..16])
    }

    fn own(&self) -> Value {
        json!({ "key": "workspace", "match": { "value": self.workspace } })
    }

    /// The workspace's points but for the one of its position.
    fn memories(&self) -> Value {
        json!({ "must": [self.own()], "must_not": [{ "has_id": [self.place_of_position()] }] })
    }
}

/// An id as Qdrant writes it.
fn hyphened(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes).unwrap_or_default().to_string()
}

fn point_of(id: &MemoryId) -> String {
    hyphened(id.as_bytes())
}

fn memory_of(point: &Value) -> Option<MemoryId> {
    point.as_str()?.parse::<uuid::Uuid>().ok().map(|id| MemoryId::from_bytes(*id.as_bytes()))
}

/// Words as the numbers of a sparse vector. Two words may share a number, and then count together.
fn sparse(words: impl IntoIterator<Item = (String, f32)>) -> Value {
    let mut weights: BTreeMap<u32, f32> = BTreeMap::new();
    for (word, weight) in words {
        let mut number = [0; 4];
        number.copy_from_slice(&Digest::of(word.as_bytes()).as_bytes()[..4]);
        *weights.entry(u32::from_be_bytes(number)).or_insert(0.0) += weight;
    }
    let (indices, values): (Vec<u32>, Vec<f32>) = weights.into_iter().unzip();
    json!({ "indices": indices, "values": values })
}

/// How much a word counts that is so often in a text of so many words: as BM25 has it, with texts of forty words as the usual.
fn weight(count: u32, length: u32) -> f32 {
    let count = count as f32;
    count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length as f32 / 40.0))
}

fn filter(within: &Within) -> Value {
    let any = |key: &str, values: &[String]| json!({ "key": key, "match": { "any": values } });
    let is = |key: &str, value: Value| json!({ "key": key, "match": { "value": value } });
    let range = |key: &str, range: Value| json!({ "key": key, "range": range });
    let mut must = vec![is("workspace", json!(within.workspace))];
    must.extend(within.scopes.as_ref().map(|scopes| any("scope", scopes)));
    must.extend((!within.kinds.is_empty()).then(|| any("kind", &within.kinds)));
    must.extend(within.entity.as_ref().map(|entity| is("entity", json!(entity))));
    must.extend(within.untrusted.map(|untrusted| is("untrusted", json!(untrusted))));
    must.extend(within.met.iter().map(|met| is("met", json!(met))));
    must.extend(within.created_from_ms.map(|at| range("created_ms", json!({ "gte": at }))));
    must.extend(within.created_to_ms.map(|at| range("created_ms", json!({ "lt": at }))));
    if let Some(at) = within.true_at_ms {
        must.push(range("valid_from_ms", json!({ "lte": at })));
        must.push(range("valid_to_ms", json!({ "gt": at })));
    }
    json!({ "must": must })
}

#[async_trait]
impl MemoryBackend for Qdrant {
    async fn prepare(&self) -> Result<(), BackendError> {
        match self.send(Method::GET, "", None).await? {
            (404, _) => {
                let body = json!({
                    "vectors": { MEANING: { "size": self.dimensions, "distance": "Cosine" } },
                    "sparse_vectors": { WORDS: { "modifier": "idf" } },
                });
                self.result(Method::PUT, "", body).await?;
            }
            (_, found) => {
                let config = found.map(|found| found["result"]["config"]["params"].clone()).unwrap_or_default();
                let size = config["vectors"][MEANING]["size"].as_u64();
                if size != Some(self.dimensions as u64) || config["sparse_vectors"][WORDS].is_null() {
                    return Err(BackendError::Setup(format!(
                        "the collection `{}` is not made for these memories (vectors `{MEANING}` of {} numbers and sparse \
                         vectors `{WORDS}`); name another as `collection`, or delete it",
                        self.collection, self.dimensions
                    )));
                }
            }
        }
        for (field, schema) in INDEXED {
            let index = json!({ "field_name": field, "field_schema": schema });
            self.result(Method::PUT, "/index?wait=true", index).await?;
        }
        Ok(())
    }

    async fn position(&self) -> Result<Option<Position>, BackendError> {
        let wanted = json!({ "ids": [self.place_of_position()], "with_payload": true, "with_vector": false });
        let found = self.result(Method::POST, "/points", wanted).await?;
        let text = found.get(0).and_then(|point| point["payload"]["position"].as_str());
        Ok(text.and_then(Position::decode))
    }

    async fn set_position(&self, position: &Position) -> Result<(), BackendError> {
        let payload = json!({ "workspace": self.workspace, "position": position.encode() });
        let points = json!({ "points": [{ "id": self.place_of_position(), "vector": {}, "payload": payload }] });
        self.result(Method::PUT, "/points?wait=true", points).await.map(drop)
    }

    async fn upsert(&self, documents: &[Document]) -> Result<(), BackendError> {
        let Some(version) = documents.iter().map(|it| it.version).max() else { return Ok(()) };
        let point = |it: &Document| {
            let mut payload = serde_json::to_value(&it.facts).unwrap_or_default();
            payload["version"] = json!(it.version);
            payload["digest"] = json!(it.digest);
            let length = it.words.iter().map(|(_, count)| *count).sum();
            let words = it.words.iter().map(|(word, count)| (word.clone(), weight(*count, length)));
            json!({ "id": point_of(&it.id), "vector": { MEANING: it.vector, WORDS: sparse(words) }, "payload": payload })
        };
        let points: Vec<Value> = documents.iter().map(point).collect();
        // What comes late never takes the place of something newer.
        let older = json!({ "must": [{ "key": "version", "range": { "lte": version } }] });
        let body = json!({ "points": points, "update_filter": older });
        self.result(Method::PUT, "/points?wait=true", body).await.map(drop)
    }

    async fn delete(&self, ids: &[MemoryId], version: u64) -> Result<(), BackendError> {
        let points: Vec<String> = ids.iter().map(point_of).collect();
        let older = json!({ "key": "version", "range": { "lte": version } });
        let body = json!({ "filter": { "must": [{ "has_id": points }, self.own(), older] } });
        self.result(Method::POST, "/points/delete?wait=true", body).await.map(drop)
    }

    async fn list(&self, after: Option<&str>) -> Result<Listing, BackendError> {
        let body = json!({
            "limit": PAGE, "offset": after, "filter": self.memories(), "with_payload": ["digest"], "with_vector": false,
        });
        let page = self.result(Method::POST, "/points/scroll", body).await?;
        let points = page["points"].as_array().ok_or_else(|| self.http.nonsense("a listing without `points`"))?;
        let read = |point: &Value| {
            let digest = point["payload"]["digest"].as_str().unwrap_or_default().to_owned();
            memory_of(&point["id"]).map(|id| (id, digest))
        };
        let next = page["next_page_offset"].as_str().map(str::to_owned);
        Ok(Listing { documents: points.iter().filter_map(read).collect(), next })
    }

    async fn clear(&self) -> Result<(), BackendError> {
        let body = json!({ "filter": { "must": [self.own()] } });
        // One that is not there has nothing to be deleted.
        self.send(Method::POST, "/points/delete?wait=true", Some(body)).await.map(drop)
    }

    async fn part(&self) -> Result<(), BackendError> {
        self.http.part();
        self.clear().await
    }

    async fn search(&self, wanted: &Wanted) -> Result<Candidates, BackendError> {
        let filter = filter(&wanted.within);
        let search = |query: Value, using: &str| {
            json!({
                "query": query, "using": using, "filter": filter, "limit": wanted.limit,
                "with_payload": false, "with_vector": false,
            })
        };
        let words = (!wanted.words.is_empty()).then(|| {
            let words = wanted.words.iter().map(|word| (word.clone(), 1.0));
            search(sparse(words), WORDS)
        });
        let meaning = wanted.vector.as_ref().map(|vector| search(json!(vector), MEANING));
        let searches: Vec<Value> = words.into_iter().chain(meaning).collect();
        if searches.is_empty() {
            return Ok(Candidates::default());
        }
        let asked = searches.len();
        let found = self.result(Method::POST, "/points/query/batch", json!({ "searches": searches })).await?;
        let answers = found.as_array().filter(|answers| answers.len() == asked);
        let answers = answers.ok_or_else(|| self.http.nonsense("not an answer for each half of the search"))?;
        let mut ids = Vec::new();
        for answer in answers {
            let points = answer["points"].as_array();
            let points = points.ok_or_else(|| self.http.nonsense("an answer of a search without `points`"))?;
            ids.extend(points.iter().filter_map(|point| memory_of(&point["id"])));
        }
        Ok(Candidates { ids, note: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_words_become_points_and_numbers_and_ids_come_back() {
        let id = MemoryId::imported("test", "1");
        assert_eq!(memory_of(&json!(point_of(&id))), Some(id));
        assert_eq!((memory_of(&json!(7)), memory_of(&json!("no id"))), (None, None));
        let one = sparse([("tea".to_owned(), 1.0)]);
        assert_eq!(one, sparse([("tea".to_owned(), 0.5), ("tea".to_owned(), 0.5)]));
        assert!(weight(2, 40) > weight(1, 40) && weight(1, 20) > weight(1, 400));
    }

    #[test]
    fn a_search_never_asks_outside_its_scopes() {
        let within = |scopes: Option<Vec<String>>| Within {
            workspace: "team".parse().expect("a name"),
            scopes,
            kinds: vec![],
            entity: None,
            created_from_ms: None,
            created_to_ms: None,
            untrusted: None,
            met: vec![],
            true_at_ms: Some(5),
        };
        let asked = filter(&within(Some(vec!["subject:ann".to_owned()])));
        assert_eq!(asked["must"][0]["match"]["value"], "team");
        assert_eq!(asked["must"][1], json!({ "key": "scope", "match": { "any": ["subject:ann"] } }));
        assert_eq!(asked["must"][3], json!({ "key": "valid_to_ms", "range": { "gt": 5 } }));
        assert_eq!(filter(&within(Some(vec![])))["must"][1]["match"]["any"], json!([]), "no scope is no memory");
        assert_eq!(filter(&within(None))["must"].as_array().map(Vec::len), Some(3));
    }
}
