//! A tool of the workspace as a backend: what a system is asked that nobody here knows, as calls with JSON.
//!
//! It gets no more than any other tool, its own grants and limits hold, and what it answers is a stranger's: ids that are looked
//! at again, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use caxton_memory::proto::MemoryId;
use caxton_proto::{ToolName, WorkspaceId};
use caxton_tools::CallContext;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::document::{Document, Position};
use super::{BackendError, Candidates, Listing, MemoryBackend, Wanted};
use crate::catalog::{Catalog, Catalogs};
use crate::errors::chain;
use crate::tools::Tools;

/// What is shown of what a tool says, in bytes.
const SAID_BYTES_MAX: usize = 300;
/// Pages of a listing that are followed.
const PAGES_MAX: usize = 100_000;
/// The function by which a tool keeps a position, which it need not have.
const POSITION: &str = "position";

/// A tool as a backend.
pub struct ToolBackend {
    /// The workspace whose tool it is.
    pub workspace: WorkspaceId,
    /// The tool that is called.
    pub tool: ToolName,
    /// How long a call may take.
    pub timeout: Duration,
    /// What is deployed.
    pub catalogs: Catalogs,
    /// The tools of workspaces, in which it is.
    pub tools: Tools,
    /// The revision that was asked last: when the workspace is deleted, it has to forget it too.
    pub last: Mutex<Option<Arc<Catalog>>>,
    /// The workspace was deleted: only that revision is asked.
    pub parting: AtomicBool,
}

#[derive(Debug, Deserialize)]
struct Hit {
    id: MemoryId,
}

#[derive(Debug, Deserialize)]
struct Hits {
    hits: Vec<Hit>,
    /// What it did not search by, for whoever asked.
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: MemoryId,
    #[serde(default)]
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    documents: Vec<Listed>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Kept {
    #[serde(default)]
    position: Option<String>,
}

impl ToolBackend {
    fn failed(&self, function: &'static str, problem: &str) -> BackendError {
        let problem = crate::text::preview(problem, SAID_BYTES_MAX);
        BackendError::Tool { tool: self.tool.to_string(), function, problem }
    }

    /// Calls a function; `None` where the tool has none of that name.
    async fn call(&self, function: &'static str, arguments: Value) -> Result<Option<Value>, BackendError> {
        let failed = |problem: &str| self.failed(function, problem);
        let catalog = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            // One of that name may be another workspace by now.
            let parting = self.parting.load(Ordering::Relaxed);
            if let Some(live) = self.catalogs.get(&self.workspace).filter(|_| !parting) {
                *last = Some(live);
            }
            last.clone().ok_or_else(|| failed("nothing is deployed"))?
        };
        let tool = self.tools.get(&catalog, &self.tool).await.map_err(|error| failed(&chain(&error).to_string()))?;
        if !tool.definitions().iter().any(|it| it.name == function) {
            return Ok(None);
        }
        let context = CallContext {
            workspace: self.workspace.to_string(),
            caller: "memory".to_owned(),
            idempotency_key: None,
            trace: None,
            deadline: Some(Instant::now() + self.timeout),
        };
        let result = tool.call(function, arguments, context).await.result;
        let result = result.map_err(|error| failed(&chain(&error).to_string()))?;
        let text = result.text();
        if result.is_error {
            return Err(failed(&text));
        }
        let value = result.structured.or_else(|| serde_json::from_str(&text).ok());
        Ok(Some(value.unwrap_or(Value::Null)))
    }

    async fn needed(&self, function: &'static str, arguments: Value) -> Result<Value, BackendError> {
        let answer = self.call(function, arguments).await?;
        answer
            .ok_or_else(|| self.failed(function, "it has no such function; docs/memory.md says which a backend needs"))
    }

    async fn read<T: DeserializeOwned>(&self, function: &'static str, arguments: Value) -> Result<T, BackendError> {
        let answer = self.needed(function, arguments).await?;
        serde_json::from_value(answer).map_err(|error| self.failed(function, &format!("its answer is none: {error}")))
    }
}

#[async_trait]
impl MemoryBackend for ToolBackend {
    async fn prepare(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn position(&self) -> Result<Option<Position>, BackendError> {
        let Some(kept) = self.call(POSITION, json!({})).await? else { return Ok(None) };
        let kept: Kept = serde_json::from_value(kept)
            .map_err(|error| self.failed(POSITION, &format!("its answer is none: {error}")))?;
        Ok(kept.position.as_deref().and_then(Position::decode))
    }

    async fn set_position(&self, position: &Position) -> Result<(), BackendError> {
        self.call(POSITION, json!({ "position": position.encode() })).await.map(drop)
    }

    async fn upsert(&self, documents: &[Document]) -> Result<(), BackendError> {
        if documents.is_empty() {
            return Ok(());
        }
        self.needed("upsert", json!({ "documents": documents })).await.map(drop)
    }

    async fn delete(&self, ids: &[MemoryId], version: u64) -> Result<(), BackendError> {
        self.needed("delete", json!({ "ids": ids, "version": version })).await.map(drop)
    }

    async fn list(&self, after: Option<&str>) -> Result<Listing, BackendError> {
        let page: Page = self.read("list", json!({ "after": after.unwrap_or_default() })).await?;
        let documents = page.documents.into_iter().map(|it| (it.id, it.digest)).collect();
        Ok(Listing { documents, next: page.next.filter(|next| !next.is_empty()) })
    }

    async fn part(&self) -> Result<(), BackendError> {
        self.parting.store(true, Ordering::Relaxed);
        self.clear().await
    }

    async fn clear(&self) -> Result<(), BackendError> {
        // What is listed is deleted, page by page: a tool needs no function of its own for it.
        let mut after: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let Listing { documents, next } = self.list(after.as_deref()).await?;
            let ids: Vec<MemoryId> = documents.into_iter().map(|(id, _)| id).collect();
            if !ids.is_empty() {
                self.delete(&ids, u64::MAX >> 11).await?;
            }
            match next {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                Some(_) | None => return Ok(()),
            }
        }
        Err(BackendError::Unable("it lists for ever; empty it by hand"))
    }

    async fn search(&self, wanted: &Wanted) -> Result<Candidates, BackendError> {
        let Wanted { text, words, vector, within, limit } = wanted;
        let asked = json!({ "text": text, "words": words, "vector": vector, "within": within, "limit": limit });
        let Hits { hits, note } = self.read("search", asked).await?;
        let ids = hits.into_iter().take(wanted.limit * 2).map(|hit| hit.id).collect();
        Ok(Candidates { ids, note: note.map(|note| crate::text::preview(&note, SAID_BYTES_MAX)) })
    }
}
