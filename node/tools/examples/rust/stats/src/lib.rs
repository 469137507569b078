//! A tool server with two tools over a table: `describe` its columns, and `group-by` one of them.

wit_bindgen::generate!({ world: "tool-server", path: "../../../wit" });

mod table;

use caxton::tool::types::Content;
use exports::caxton::tool::tools::{CallResult, Guest, Tool, ToolError};
use heap as _;
use serde::Deserialize;
use serde_json::{Value, json};
use table::{Aggregate, Table};

const DESCRIBE: &str = r#"{"type":"object","required":["columns","rows"],"properties":{
"columns":{"type":"array","items":{"type":"string"},"minItems":1,"description":"The columns' names, as csv-reader returns them"},
"rows":{"type":"array","items":{"type":"array"},"description":"Rows of values"}}}"#;

const GROUP_BY: &str = r#"{"type":"object","required":["columns","rows","by"],"properties":{
"columns":{"type":"array","items":{"type":"string"},"minItems":1,"description":"The columns' names, as csv-reader returns them"},
"rows":{"type":"array","items":{"type":"array"},"description":"Rows of values"},
"by":{"type":"string","description":"The column that says which group a row is in"},
"value":{"type":"string","description":"The column that is aggregated; not needed to count"},
"aggregate":{"enum":["sum","mean","min","max","count"],"default":"sum"},
"sort":{"enum":["label","value","none"],"default":"none","description":"By label, by value (largest first), or as they first appear"}}}"#;

const HINTS: &str = r#"{"readOnlyHint":true,"idempotentHint":true,"openWorldHint":false}"#;

#[derive(Deserialize)]
struct GroupBy {
    #[serde(flatten)]
    table: Table,
    by: String,
    value: Option<String>,
    #[serde(default)]
    aggregate: Aggregate,
    #[serde(default)]
    sort: Sort,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Sort {
    Label,
    Value,
    #[default]
    None,
}

struct Stats;

impl Guest for Stats {
    fn list_tools() -> Vec<Tool> {
        let tool = |name: &str, description: &str, input_schema: &str| Tool {
            name: name.into(),
            title: None,
            description: description.into(),
            input_schema: input_schema.into(),
            output_schema: None,
            annotations: Some(HINTS.into()),
        };
        vec![
            tool(
                "describe",
                "Count, mean, deviation, minimum, median and maximum of each column of a table.",
                DESCRIBE,
            ),
            tool(
                "group-by",
                "Sums, means, minima, maxima or counts of one column for each value of another.",
                GROUP_BY,
            ),
        ]
    }

    fn call_tool(name: String, arguments: String) -> Result<CallResult, ToolError> {
        let invalid = |e: serde_json::Error| ToolError::InvalidArguments(e.to_string());
        let answer = match name.as_str() {
            "describe" => Ok(describe(&serde_json::from_str(&arguments).map_err(invalid)?)),
            "group-by" => group_by(&serde_json::from_str(&arguments).map_err(invalid)?),
            _ => return Err(ToolError::UnknownTool),
        };
        Ok(match answer {
            Ok((text, structured)) => CallResult {
                content: vec![Content::Text(text)],
                structured: Some(structured.to_string()),
                is_error: false,
            },
            Err(problem) => CallResult { content: vec![Content::Text(problem)], structured: None, is_error: true },
        })
    }
}

fn describe(table: &Table) -> (String, Value) {
    let (mut lines, mut columns) = (Vec::new(), Vec::new());
    for (index, name) in table.columns.iter().enumerate() {
        let numbers = table.numbers(index);
        let empty = table.rows.iter().filter(|row| row.get(index).is_none_or(Value::is_null)).count();
        if numbers.is_empty() {
            let distinct = table.groups(index).len();
            lines.push(format!("{name}: {distinct} distinct values"));
            columns.push(json!({ "column": name, "distinct": distinct, "empty": empty }));
        } else {
            let s = table::Summary::of(&numbers);
            lines.push(format!("{name}: mean {}, from {} to {}", round(s.mean), round(s.min), round(s.max)));
            columns.push(json!({ "column": name, "count": numbers.len(), "empty": empty, "sum": s.sum, "mean": s.mean,
                "deviation": s.deviation, "min": s.min, "median": s.median, "max": s.max }));
        }
    }
    (lines.join("\n"), json!({ "rows": table.rows.len(), "columns": columns }))
}

fn group_by(request: &GroupBy) -> Result<(String, Value), String> {
    let by = request.table.column(&request.by)?;
    let value = match (&request.value, request.aggregate) {
        (Some(name), _) => Some(request.table.column(name)?),
        (None, Aggregate::Count) => None,
        (None, other) => return Err(format!("`value` names the column to {}", other.name())),
    };
    let mut groups: Vec<(String, f64)> = Vec::new();
    for (label, rows) in request.table.groups(by) {
        if let Some(result) = request.table.aggregate(&rows, value, request.aggregate) {
            groups.push((label, result));
        }
    }
    match request.sort {
        Sort::Label => groups.sort_by(|a, b| a.0.cmp(&b.0)),
        Sort::Value => groups.sort_by(|a, b| b.1.total_cmp(&a.1)),
        Sort::None => {}
    }
    let text: Vec<String> = groups.iter().map(|(label, value)| format!("{label}: {}", round(*value))).collect();
    let (labels, values): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    let of = request.value.as_deref().unwrap_or("rows");
    Ok((
        text.join("\n"),
        json!({ "by": request.by, "aggregate": request.aggregate.name(), "value": of, "labels": labels, "values": values }),
    ))
}

/// Three digits after the point are enough for a person.
fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

export!(Stats);
