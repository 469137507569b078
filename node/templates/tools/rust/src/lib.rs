//! A tool of Caxton in Rust. `wit/caxton-tool.wit` is the whole interface, with comments.

wit_bindgen::generate!({ world: "tool-server", path: "wit" });

use caxton::tool::types::Content;
use exports::caxton::tool::tools::{CallResult, Guest, Tool, ToolError};

struct Server;

impl Guest for Server {
    fn list_tools() -> Vec<Tool> {
        vec![Tool {
            name: "TOOL_NAME".into(),
            title: None,
            description: "Greets someone by name.".into(),
            input_schema: r#"{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}"#.into(),
            output_schema: None,
            annotations: None,
        }]
    }

    fn call_tool(_: String, arguments: String) -> Result<CallResult, ToolError> {
        let arguments: serde_json::Value =
            serde_json::from_str(&arguments).map_err(|error| ToolError::InvalidArguments(error.to_string()))?;
        let text = format!("Hello, {}!", arguments["name"].as_str().unwrap_or("you"));
        Ok(CallResult { content: vec![Content::Text(text)], structured: None, is_error: false })
    }
}

export!(Server);
