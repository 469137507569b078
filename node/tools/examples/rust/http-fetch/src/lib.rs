//! A tool that fetches a URL. Which hosts it reaches is not its to say: tool.toml names them, and Caxton checks.

wit_bindgen::generate!({ world: "tool-server", path: "../../../wit" });

use caxton::tool::http;
use caxton::tool::types::Content;
use exports::caxton::tool::tools::{CallResult, Guest, Tool, ToolError};
use heap as _;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Characters of a body that go to the model.
const TEXT_MAX: usize = 50_000;

const INPUT: &str = r#"{"type":"object","required":["url"],"additionalProperties":false,"properties":{
"url":{"type":"string","description":"http or https"},
"method":{"enum":["GET","HEAD","POST","PUT","PATCH","DELETE"],"default":"GET"},
"headers":{"type":"object","additionalProperties":{"type":"string"}},
"body":{"type":"string"}}}"#;

#[derive(Deserialize)]
struct Arguments {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

fn get() -> String {
    "GET".into()
}

struct HttpFetch;

impl Guest for HttpFetch {
    fn list_tools() -> Vec<Tool> {
        vec![Tool {
            name: "http-fetch".into(),
            title: Some("HTTP fetch".into()),
            description: "Fetches a URL of a host that the operator has allowed.".into(),
            input_schema: INPUT.into(),
            output_schema: None,
            annotations: Some(r#"{"openWorldHint":true}"#.into()),
        }]
    }

    fn call_tool(name: String, arguments: String) -> Result<CallResult, ToolError> {
        if name != "http-fetch" {
            return Err(ToolError::UnknownTool);
        }
        let arguments: Arguments =
            serde_json::from_str(&arguments).map_err(|e| ToolError::InvalidArguments(e.to_string()))?;
        Ok(fetch(arguments))
    }
}

fn fetch(arguments: Arguments) -> CallResult {
    let request = http::Request {
        method: arguments.method,
        url: arguments.url,
        headers: arguments.headers.into_iter().collect(),
        body: arguments.body.into_bytes(),
        timeout_ms: 0,
    };
    match http::fetch(&request) {
        Ok(response) => {
            let body = String::from_utf8_lossy(&response.body);
            let text: String = body.chars().take(TEXT_MAX).collect();
            let structured = json!({
                "status": response.status,
                "headers": response.headers,
                "body": text,
                "truncated": text.len() < body.len(),
            });
            CallResult {
                content: vec![Content::Text(text)],
                structured: Some(structured.to_string()),
                is_error: response.status >= 400,
            }
        }
        Err(error) => {
            let text = match error {
                http::Error::Denied(why) => format!("refused: {why}"),
                http::Error::Timeout => "the server did not answer in time".into(),
                http::Error::TooLarge => "the answer is too large".into(),
                http::Error::Transport(why) => format!("the request failed: {why}"),
            };
            CallResult { content: vec![Content::Text(text)], structured: None, is_error: true }
        }
    }
}

export!(HttpFetch);
