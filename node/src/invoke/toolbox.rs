//! The tools of a catalog, as a turn offers and calls them.

use std::sync::Arc;

use caxton_proto::ToolName;
use caxton_tools::resource::{Blob, blob};
use caxton_tools::{CallContext, CallResult, Content};
use serde_json::{Value, json};

use crate::agent::OfferedFunction;
use crate::agent::attachments::{Attachment, Content as FileContent, to_base64};
use crate::agent::world::{Invocation, ToolOutput};
use crate::catalog::Catalog;
use crate::telemetry::propagation;
use crate::tools::Tools;

/// Why a tool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotOffered {
    /// The reason, and what to do.
    pub problem: String,
    /// It may be over soon, without anybody changing the workspace: a server that is down costs its tools and no agent.
    pub passing: bool,
}

/// What one tool of the catalog offers.
pub(super) async fn offered(
    tools: &Tools,
    catalog: &Arc<Catalog>,
    tool: &ToolName,
) -> Result<Vec<OfferedFunction>, NotOffered> {
    let loaded = tools.get(catalog, tool).await;
    let loaded = loaded.map_err(|error| NotOffered { problem: error.to_string(), passing: error.is_passing() })?;
    let manifest = catalog.tools().get(tool).and_then(|entry| entry.manifest().ok());
    let repeatable = manifest.is_some_and(|manifest| manifest.idempotent);
    let definitions = loaded.definitions();
    let offered = definitions.iter().map(|definition| OfferedFunction {
        server: tool.clone(),
        function: definition.name.clone(),
        description: definition.description.clone(),
        parameters: Arc::new(definition.input_schema.clone()),
        fixed: loaded.kind().is_sandboxed(),
        repeatable,
    });
    Ok(offered.collect())
}

/// Calls a tool. The error is for the model.
pub(super) async fn call(tools: &Tools, catalog: &Arc<Catalog>, call: Invocation<'_>) -> Result<ToolOutput, String> {
    let tool = tools.get(catalog, call.server).await.map_err(|error| error.to_string())?;
    let context = CallContext {
        workspace: catalog.workspace.to_string(),
        caller: call.agent.to_string(),
        idempotency_key: Some(call.step_key),
        trace: propagation::here(),
        deadline: Some(call.deadline),
    };
    let called = tool.call(call.function, call.arguments.clone(), context).await;
    let result = called.result.map_err(|error| error.to_string())?;
    let (text, structured) = readable(&result);
    let files = result.content.into_iter().filter_map(|content| file_of(content, call.function));
    Ok(ToolOutput { text, attachments: files.collect(), structured, failed: result.is_error, awaited: false })
}

/// What a model reads of a result: its text, and its structured part with the text in it where that says something else.
fn readable(result: &CallResult) -> (String, Option<Value>) {
    let text = result.text();
    let Some(structured) = &result.structured else { return (text, None) };
    let parts = result.content.iter().filter_map(|content| match content {
        Content::Text { text } => Some(says(structured, text)),
        Content::Embedded { .. } => Some(false),
        Content::Image { .. } | Content::Audio { .. } => None,
    });
    let said = text.trim().is_empty() || parts.into_iter().all(|said| said);
    if said {
        return (text, Some(structured.clone()));
    }
    let both = match structured {
        Value::Object(fields) => {
            let mut fields = fields.clone();
            let free = ["text", "text_content", "content_text"].into_iter().find(|name| !fields.contains_key(*name));
            match free {
                Some(name) => _ = fields.insert(name.to_owned(), Value::from(text.clone())),
                None => return (text.clone(), Some(json!({ "text": text, "structured": structured }))),
            }
            Value::Object(fields)
        }
        other => json!({ "text": text, "structured": other }),
    };
    (text, Some(both))
}

/// Whether a value says what a text says: it is the text as JSON, or has it somewhere.
fn says(value: &Value, text: &str) -> bool {
    let parsed = serde_json::from_str::<Value>(text).ok();
    holds(value, text.trim(), parsed.as_ref())
}

fn holds(value: &Value, text: &str, parsed: Option<&Value>) -> bool {
    if parsed == Some(value) {
        return true;
    }
    match value {
        Value::String(own) => own.trim() == text,
        Value::Array(values) => values.iter().any(|value| holds(value, text, parsed)),
        Value::Object(fields) => fields.values().any(|value| holds(value, text, parsed)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Pictures, sounds and resources that are no text become files that are named for what made them, or as they are.
fn file_of(content: Content, function: &str) -> Option<Attachment> {
    let (name, media_type, data) = match content {
        Content::Image { mime, data } | Content::Audio { mime, data } => (None, mime, data),
        Content::Embedded { resource } => {
            let Blob { name, mime, data } = blob(&resource)?;
            (Some(name).filter(|name| !name.is_empty()), mime, data)
        }
        Content::Text { .. } => return None,
    };
    let end = match media_type.split(';').next().unwrap_or_default().trim() {
        "image/svg+xml" => "svg",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "audio/wav" | "audio/x-wav" => "wav",
        "audio/mpeg" => "mp3",
        "audio/ogg" => "ogg",
        "application/pdf" => "pdf",
        _ => "bin",
    };
    let content = match String::from_utf8(data) {
        Ok(text) => FileContent::Text(text),
        Err(error) => FileContent::Base64(to_base64(error.as_bytes())),
    };
    Some(Attachment { name: name.unwrap_or_else(|| format!("{function}.{end}")), media_type, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str], structured: Value) -> Value {
        let content = texts.iter().map(|text| Content::Text { text: (*text).to_owned() }).collect();
        readable(&CallResult { content, structured: Some(structured), is_error: false }).1.unwrap()
    }

    #[test]
    fn a_structured_result_hides_no_text() {
        let facts = json!({ "fileName": "README.md", "lines": 1 });
        let both = json!({ "fileName": "README.md", "lines": 1, "text": "THE FILE ITSELF" });
        assert_eq!(read(&["THE FILE ITSELF"], facts), both);
        let taken = read(&["other"], json!({ "text": "taken" }));
        assert_eq!(taken, json!({ "text": "taken", "text_content": "other" }));
        assert_eq!(read(&["a", "b"], json!([1])), json!({ "text": "a\nb", "structured": [1] }));
    }

    #[test]
    fn a_text_that_says_the_same_is_not_said_twice() {
        for (texts, structured) in [
            (vec!["{ \"a\": [1, 2] }"], json!({ "a": [1, 2] })),
            (vec!["rain in Graz"], json!({ "result": "rain in Graz" })),
            (vec!["{\"n\":1}", "{\"n\":2}"], json!({ "result": [{ "n": 1 }, { "n": 2 }] })),
            (vec!["5"], json!({ "result": 5 })),
            (vec![""], json!({ "a": 1 })),
            (vec![], json!({ "a": 1 })),
        ] {
            assert_eq!(read(&texts, structured.clone()), structured, "{texts:?}");
        }
    }

    #[test]
    fn resources_are_text_or_files() {
        let text = json!({ "uri": "repo://a/README.md", "text": "THE FILE ITSELF" });
        let link = json!({ "type": "resource_link", "uri": "repo://a/LICENSE", "name": "LICENSE" });
        let file = json!({ "uri": "repo://a/data.bin", "mimeType": "application/x-data", "blob": "/wAB" });
        let content: Vec<Content> =
            [text, link, file.clone()].into_iter().map(|resource| Content::Embedded { resource }).collect();
        let (read, _) = readable(&CallResult { content, structured: None, is_error: false });
        for part in ["THE FILE ITSELF", "repo://a/README.md", "LICENSE", "repo://a/data.bin"] {
            assert!(read.contains(part), "{part}: {read}");
        }
        let made = file_of(Content::Embedded { resource: file }, "fetch").unwrap();
        assert_eq!((made.name.as_str(), made.media_type.as_str()), ("data.bin", "application/x-data"));
        assert!(matches!(made.content, FileContent::Base64(text) if text == "/wAB"));
    }
}
