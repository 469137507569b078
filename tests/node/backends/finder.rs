//! A memory backend that is a tool: an MCP server with the functions that docs/memory.md describes, which finds by words.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Stage;
use crate::deploy::Content;

/// What the server keeps.
#[derive(Default)]
struct Kept {
    documents: BTreeMap<String, Value>,
    position: Option<Value>,
}

/// The server, and what it keeps while it is away.
pub struct Finder {
    port: u16,
    kept: Arc<Mutex<Kept>>,
    is_down: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Handler(Arc<Mutex<Kept>>);

/// Whether a document is one of those that are asked for.
fn is_within(document: &Value, within: &Value) -> bool {
    let one_of =
        |field: &str, of: &Value| of.as_array().is_none_or(|all| all.is_empty() || all.contains(&document[field]));
    let in_scope = within["scopes"].as_array().is_none_or(|scopes| scopes.contains(&document["scope"]));
    let met = within["met"]
        .as_array()
        .is_none_or(|all| all.iter().all(|wanted| document["met"].as_array().is_some_and(|met| met.contains(wanted))));
    let entity = within["entity"].is_null() || within["entity"] == document["entity"];
    in_scope && one_of("kind", &within["kinds"]) && met && entity
}

fn answer(kept: &mut Kept, function: &str, asked: &Value) -> Value {
    match function {
        "upsert" => {
            for document in asked["documents"].as_array().expect("documents") {
                let id = document["id"].as_str().expect("an id").to_owned();
                let newer =
                    kept.documents.get(&id).is_some_and(|had| had["version"].as_u64() > document["version"].as_u64());
                if !newer {
                    kept.documents.insert(id, document.clone());
                }
            }
            json!({})
        }
        "delete" => {
            for id in asked["ids"].as_array().expect("ids").iter().filter_map(Value::as_str) {
                kept.documents.remove(id);
            }
            json!({})
        }
        // Pages of two, so that more than one has to be asked for.
        "list" => {
            let after = asked["after"].as_str().unwrap_or_default().to_owned();
            let page: Vec<&Value> =
                kept.documents.iter().filter(|(id, _)| **id > after).map(|(_, document)| document).take(2).collect();
            let next = (page.len() == 2).then(|| page[1]["id"].clone());
            let documents: Vec<Value> =
                page.iter().map(|it| json!({ "id": it["id"], "digest": it["digest"] })).collect();
            json!({ "documents": documents, "next": next })
        }
        "position" => {
            if asked["position"].is_string() {
                kept.position = Some(asked["position"].clone());
            }
            json!({ "position": kept.position })
        }
        "search" => {
            let vector: Vec<f64> = asked["vector"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            let words: Vec<&str> = asked["words"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let score = |document: &Value| {
                let text = document["text"].as_str().unwrap_or_default().to_lowercase();
                let own = document["vector"].as_array().into_iter().flatten().filter_map(Value::as_f64);
                let near: f64 = own.zip(&vector).map(|(a, b)| a * b).sum();
                near + words.iter().filter(|word| text.contains(**word)).count() as f64
            };
            let mut hits: Vec<(f64, &Value)> = kept
                .documents
                .values()
                .filter(|document| is_within(document, &asked["within"]))
                .map(|document| (score(document), document))
                .collect();
            hits.sort_by(|a, b| b.0.total_cmp(&a.0));
            let limit = asked["limit"].as_u64().expect("a limit") as usize;
            let hits: Vec<Value> = hits.iter().take(limit).map(|(_, it)| json!({ "id": it["id"] })).collect();
            json!({ "hits": hits })
        }
        other => panic!("nobody asks for {other}"),
    }
}

impl ServerHandler for Handler {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Owned(vec![ProtocolVersion::LATEST])
    }

    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_protocol_version(ProtocolVersion::LATEST)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let any = Arc::new(json!({ "type": "object" }).as_object().cloned().expect("an object"));
        let tool = |name: &'static str| Tool::new(name, "A function of a memory backend.", Arc::clone(&any));
        let names = ["upsert", "delete", "search", "list", "position"];
        Ok(ListToolsResult::with_all_items(names.map(tool).to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asked = Value::Object(request.arguments.unwrap_or_default());
        let said = answer(&mut self.0.lock().expect("kept"), &request.name, &asked).to_string();
        Ok(CallToolResponse::Complete(CallToolResult::success(vec![ContentBlock::text(said)])))
    }
}

impl Finder {
    /// An empty one on a free port.
    pub async fn start() -> Finder {
        let (kept, is_down) = (Arc::<Mutex<Kept>>::default(), Arc::<AtomicBool>::default());
        let handler = Handler(Arc::clone(&kept));
        let service = StreamableHttpService::new(
            move || Ok(handler.clone()),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let down = Arc::clone(&is_down);
        let guard = from_fn(move |request: Request, next: Next| {
            let down = down.load(Ordering::Relaxed);
            async move {
                match down {
                    true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    false => next.run(request).await,
                }
            }
        });
        let router = Router::new().nest_service("/mcp", service).layer(guard);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Finder { port, kept, is_down }
    }
}

impl Stage for Finder {
    fn memory(&self) -> String {
        "backend = \"tool:finder\"".to_owned()
    }

    fn files(&self, content: Content) -> Content {
        let tool =
            format!("[tool]\nname = \"finder\"\nkind = \"mcp-http\"\nurl = \"http://127.0.0.1:{}/mcp\"\n", self.port);
        content.file("tools/finder/tool.toml", tool)
    }

    fn finds_by_meaning(&self) -> bool {
        true
    }

    async fn has(&self) -> Vec<Value> {
        self.kept.lock().expect("kept").documents.values().cloned().collect()
    }

    async fn spoil(&self) {
        let mut kept = self.kept.lock().expect("kept");
        let mut ghost = kept.documents.pop_first().expect("a document").1;
        ghost["id"] = json!("00000000000000000000000000000001");
        ghost["text"] = json!("a ghost");
        kept.documents.insert("00000000000000000000000000000001".to_owned(), ghost);
    }

    async fn goes_down(&mut self) {
        self.is_down.store(true, Ordering::Relaxed);
    }

    async fn comes_back(&mut self) {
        self.is_down.store(false, Ordering::Relaxed);
    }
}
