//! The example tools, built from node/tools/examples/rust: the demo's workspace, the tests and the benchmarks use them.
//!
//! They are components, loaded and limited like any other.

/// Reads CSV text into columns, types and rows; one function, `csv-reader`.
pub const CSV_READER: &[u8] = include_bytes!("../fixtures/csv-reader.wasm");
/// Describes and groups a table; functions `describe` and `group-by`.
pub const STATS: &[u8] = include_bytes!("../fixtures/stats.wasm");
/// Draws bar and line charts as SVG; one function, `chart-generator`.
pub const CHART_GENERATOR: &[u8] = include_bytes!("../fixtures/chart-generator.wasm");
/// Stands in the place of a language model: one function, `chat`.
pub const PLAIN_MODEL: &[u8] = include_bytes!("../fixtures/plain-model.wasm");
/// Fetches a URL of a granted host; one function, `http-fetch`.
pub const HTTP_FETCH: &[u8] = include_bytes!("../fixtures/http-fetch.wasm");
