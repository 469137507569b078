//! A tool that reads CSV text into columns with types and rows of values.

wit_bindgen::generate!({ world: "tool-server", path: "../../../wit" });

mod csv;

use caxton::tool::types::Content;
use exports::caxton::tool::tools::{CallResult, Guest, Tool, ToolError};
use heap as _;
use serde::Deserialize;
use serde_json::json;

/// Rows that one call returns unless it asks for fewer.
const ROWS_MAX: usize = 10_000;

const INPUT: &str = r#"{"type":"object","required":["text"],"additionalProperties":false,"properties":{
"text":{"type":"string","description":"The CSV text"},
"delimiter":{"type":"string","minLength":1,"maxLength":1,"description":"One of , ; tab |. Guessed from the first line when absent"},
"header":{"type":"boolean","default":true,"description":"Whether the first line names the columns"},
"limit":{"type":"integer","minimum":0,"maximum":10000,"description":"How many rows to return; all are counted"}}}"#;

const OUTPUT: &str = r#"{"type":"object","required":["columns","types","rows","row_count"],"properties":{
"columns":{"type":"array","items":{"type":"string"}},
"types":{"type":"array","items":{"enum":["integer","number","boolean","string","empty"]}},
"rows":{"type":"array","items":{"type":"array"}},
"row_count":{"type":"integer"},"truncated":{"type":"boolean"}}}"#;

#[derive(Deserialize)]
struct Arguments {
    text: String,
    delimiter: Option<char>,
    #[serde(default = "yes")]
    header: bool,
    limit: Option<usize>,
}

fn yes() -> bool {
    true
}

struct CsvReader;

impl Guest for CsvReader {
    fn list_tools() -> Vec<Tool> {
        vec![Tool {
            name: "csv-reader".into(),
            title: Some("CSV reader".into()),
            description: "Reads CSV text into columns, their types, and rows of typed values.".into(),
            input_schema: INPUT.into(),
            output_schema: Some(OUTPUT.into()),
            annotations: Some(r#"{"readOnlyHint":true,"idempotentHint":true,"openWorldHint":false}"#.into()),
        }]
    }

    fn call_tool(name: String, arguments: String) -> Result<CallResult, ToolError> {
        if name != "csv-reader" {
            return Err(ToolError::UnknownTool);
        }
        let arguments: Arguments =
            serde_json::from_str(&arguments).map_err(|e| ToolError::InvalidArguments(e.to_string()))?;
        Ok(read(&arguments).unwrap_or_else(|problem| CallResult {
            content: vec![Content::Text(problem)],
            structured: None,
            is_error: true,
        }))
    }
}

fn read(arguments: &Arguments) -> Result<CallResult, String> {
    let delimiter = arguments.delimiter.unwrap_or_else(|| csv::guess_delimiter(&arguments.text));
    let mut records = csv::parse(&arguments.text, delimiter)?;
    if records.is_empty() {
        return Err("the text has no rows".into());
    }
    let columns = if arguments.header {
        csv::column_names(records.remove(0))
    } else {
        (1..=records[0].len()).map(|n| format!("column{n}")).collect()
    };
    if let Some((row, record)) = records.iter().enumerate().find(|(_, record)| record.len() > columns.len()) {
        let line = row + 1 + usize::from(arguments.header);
        return Err(format!("row {line} has {} fields, but there are {} columns", record.len(), columns.len()));
    }
    let types: Vec<csv::Type> = (0..columns.len()).map(|c| csv::Type::of(records.iter().map(|r| r.get(c)))).collect();
    let limit = arguments.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    let row = |record: &Vec<String>| -> Vec<serde_json::Value> {
        types.iter().enumerate().map(|(c, kind)| kind.value(record.get(c))).collect()
    };
    let rows: Vec<_> = records.iter().take(limit).map(row).collect();
    let truncated = rows.len() < records.len();
    let described: Vec<String> = columns.iter().zip(&types).map(|(name, kind)| format!("{name} ({kind})")).collect();
    let text = format!("{} rows; columns: {}", records.len(), described.join(", "));
    let structured = json!({
        "columns": columns,
        "types": types.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rows": rows,
        "row_count": records.len(),
        "truncated": truncated,
    });
    Ok(CallResult { content: vec![Content::Text(text)], structured: Some(structured.to_string()), is_error: false })
}

export!(CsvReader);
