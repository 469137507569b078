//! A tool that draws bar and line charts as SVG.

wit_bindgen::generate!({ world: "tool-server", path: "../../../wit" });

mod chart;
mod svg;

use caxton::tool::types::{Blob, Content};
use chart::Chart;
use exports::caxton::tool::tools::{CallResult, Guest, Tool, ToolError};
use heap as _;
use serde_json::json;

const INPUT: &str = r#"{"type":"object","required":["labels"],"additionalProperties":false,"properties":{
"kind":{"enum":["bar","line"],"default":"bar"},
"title":{"type":"string","maxLength":200},
"labels":{"type":"array","minItems":1,"maxItems":500,"items":{"type":["string","number"]},"description":"One for each value"},
"values":{"type":"array","maxItems":500,"items":{"type":"number"},"description":"For a single series"},
"series":{"type":"array","maxItems":12,"items":{"type":"object","required":["name","values"],"properties":{
"name":{"type":"string"},"values":{"type":"array","maxItems":500,"items":{"type":["number","null"]}}}}},
"x_label":{"type":"string","maxLength":100},"y_label":{"type":"string","maxLength":100},
"width":{"type":"integer","minimum":200,"maximum":4000,"default":800},
"height":{"type":"integer","minimum":150,"maximum":4000,"default":450}}}"#;

struct ChartGenerator;

impl Guest for ChartGenerator {
    fn list_tools() -> Vec<Tool> {
        vec![Tool {
            name: "chart-generator".into(),
            title: Some("Chart generator".into()),
            description: "Draws a bar or line chart as an SVG image from labels and values.".into(),
            input_schema: INPUT.into(),
            output_schema: Some(
                r#"{"type":"object","required":["svg"],"properties":{"svg":{"type":"string"},"width":{"type":"integer"},"height":{"type":"integer"}}}"#
                    .into(),
            ),
            annotations: Some(r#"{"readOnlyHint":true,"idempotentHint":true,"openWorldHint":false}"#.into()),
        }]
    }

    fn call_tool(name: String, arguments: String) -> Result<CallResult, ToolError> {
        if name != "chart-generator" {
            return Err(ToolError::UnknownTool);
        }
        let chart: Chart = serde_json::from_str(&arguments).map_err(|e| ToolError::InvalidArguments(e.to_string()))?;
        Ok(match chart.checked() {
            Ok(chart) => {
                let svg = chart.draw();
                let points: usize = chart.series.iter().map(|series| series.values.len()).sum();
                let structured = json!({ "svg": svg, "width": chart.width, "height": chart.height });
                CallResult {
                    content: vec![
                        Content::Text(format!("{} chart with {points} values", chart.kind.name())),
                        Content::Image(Blob { mime: "image/svg+xml".into(), data: svg.into_bytes() }),
                    ],
                    structured: Some(structured.to_string()),
                    is_error: false,
                }
            }
            Err(problem) => CallResult { content: vec![Content::Text(problem)], structured: None, is_error: true },
        })
    }
}

export!(ChartGenerator);
