//! The walk's seams bound to the node's own parts: the router and the tools.

use std::sync::Arc;

use caxton_proto::{AgentName, ToolName};
use caxton_tools::{CallContext, Content};
use futures::future::BoxFuture;

use super::seams::{Routes, Toolbox};
use crate::agent::Offered;
use crate::agent::attachments::to_base64;
use crate::agent::attachments::{Attachment, Content as FileContent};
use crate::agent::world::{Found, Invocation, NotFound, ToolOutput};
use crate::capability::{Candidate, Requirements, Router};
use crate::catalog::Catalog;
use crate::tools::Tools;

/// Candidates that are named when nobody fits.
const NEAREST_SHOWN: usize = 3;

fn found(candidate: &Candidate) -> Found {
    let (agent, capability) = (candidate.agent.clone(), candidate.capability.to_string());
    Found { agent, capability, score: candidate.score }
}

impl Routes for Router {
    fn find<'a>(
        &'a self,
        catalog: &'a Arc<Catalog>,
        wanted: &'a str,
        except: &'a [AgentName],
    ) -> BoxFuture<'a, Result<Found, NotFound>> {
        Box::pin(async move {
            let routed = match self.route(catalog, wanted, &Requirements::default()).await {
                Ok(routed) => routed,
                Err(error) => {
                    tracing::warn!(workspace = %catalog.workspace, %error, "a message was not routed");
                    return Err(NotFound { nearest: Vec::new() });
                }
            };
            let allowed = |candidate: &&Candidate| !except.contains(&candidate.agent);
            if let Some(best) = routed.pick_by(self.load()).filter(allowed) {
                return Ok(found(best));
            }
            // The best one asks, or was asked on the way here: whoever else is good enough may do.
            let candidates = routed.ranking.candidates.iter().filter(allowed);
            let fits = |candidate: &&Candidate| {
                candidate.score >= candidate.threshold && catalog.agents().contains_key(&candidate.agent)
            };
            match candidates.clone().find(fits) {
                Some(next) => Ok(found(next)),
                None => Err(NotFound { nearest: candidates.take(NEAREST_SHOWN).map(found).collect() }),
            }
        })
    }

    fn nearest<'a>(&'a self, catalog: &'a Arc<Catalog>, about: &'a str, limit: usize) -> BoxFuture<'a, Vec<Found>> {
        Box::pin(async move {
            let routed = self.route(catalog, about, &Requirements::default()).await;
            let candidates = routed.map(|routed| routed.ranking.candidates.iter().take(limit).map(found).collect());
            candidates.unwrap_or_default()
        })
    }
}

impl Toolbox for Tools {
    fn offered<'a>(
        &'a self,
        catalog: &'a Arc<Catalog>,
        tool: &'a ToolName,
    ) -> BoxFuture<'a, Result<Vec<Offered>, String>> {
        Box::pin(async move {
            let loaded = self.get(catalog, tool).await.map_err(|error| error.to_string())?;
            let manifest = catalog.tools().get(tool).and_then(|entry| entry.manifest().ok());
            let repeatable = manifest.is_some_and(|manifest| manifest.idempotent);
            let offered = loaded.definitions().iter().map(|definition| Offered {
                server: tool.clone(),
                function: definition.name.clone(),
                description: definition.description.clone(),
                parameters: Arc::new(definition.input_schema.clone()),
                fixed: loaded.kind().is_sandboxed(),
                repeatable,
            });
            Ok(offered.collect())
        })
    }

    fn call<'a>(
        &'a self,
        catalog: &'a Arc<Catalog>,
        call: Invocation<'a>,
    ) -> BoxFuture<'a, Result<ToolOutput, String>> {
        Box::pin(async move {
            let tool = self.get(catalog, call.server).await.map_err(|error| error.to_string())?;
            let context = CallContext {
                workspace: catalog.workspace.to_string(),
                caller: call.agent.to_string(),
                idempotency_key: Some(call.step_key),
                deadline: Some(call.deadline),
            };
            let called = tool.call(call.function, call.arguments.clone(), context).await;
            let result = called.result.map_err(|error| error.to_string())?;
            let text = result.text();
            let files = result.content.into_iter().filter_map(|content| file_of(content, call.function));
            Ok(ToolOutput {
                text,
                attachments: files.collect(),
                structured: result.structured,
                failed: result.is_error,
            })
        })
    }
}

/// Pictures and sounds become files that are named for what made them.
fn file_of(content: Content, function: &str) -> Option<Attachment> {
    let (media_type, data) = match content {
        Content::Image { mime, data } | Content::Audio { mime, data } => (mime, data),
        Content::Text { .. } | Content::Embedded { .. } => return None,
    };
    let end = match media_type.as_str() {
        "image/svg+xml" => "svg",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "audio/wav" => "wav",
        "audio/mpeg" => "mp3",
        _ => "bin",
    };
    let content = match String::from_utf8(data) {
        Ok(text) => FileContent::Text(text),
        Err(error) => FileContent::Base64(to_base64(error.as_bytes())),
    };
    Some(Attachment { name: format!("{function}.{end}"), media_type, content })
}
