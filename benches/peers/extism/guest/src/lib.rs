//! The tool `stats` as an Extism plug-in: the same table, read and described by the tool's own code.
//!
//! It does a little less than the tool, which also writes its answer in words.

#[path = "../../../../../node/tools/examples/rust/stats/src/table.rs"]
#[allow(dead_code, reason = "the tool's own file, of which only the summary is used")]
mod table;

use extism_pdk::{FnResult, plugin_fn};
use serde_json::{Value, json};

/// Describes each column of a table.
#[plugin_fn]
pub fn describe(input: String) -> FnResult<String> {
    let table: table::Table = serde_json::from_str(&input)?;
    let described = |(index, name): (usize, &String)| {
        let numbers = table.numbers(index);
        let s = table::Summary::of(&numbers);
        json!({ "column": name, "count": numbers.len(), "sum": s.sum, "mean": s.mean, "deviation": s.deviation,
            "min": s.min, "median": s.median, "max": s.max })
    };
    let columns: Vec<Value> = table.columns.iter().enumerate().map(described).collect();
    Ok(json!({ "rows": table.rows.len(), "columns": columns }).to_string())
}
