//! The example tools, built from node/tools/examples: the demo's workspace, the tests and the benchmarks use them.
//!
//! They are loaded and limited like any other. Those of the example workspace lie in it, so that it can be deployed from
//! a checkout, and nowhere else.

/// Reads CSV text into columns, types and rows; a component with one function, `csv-reader`.
pub const CSV_READER: &[u8] = include_bytes!("../../examples/csv-to-chart/tools/csv-reader/csv-reader.wasm");
/// Describes and groups a table; a component with the functions `describe` and `group-by`.
pub const STATS: &[u8] = include_bytes!("../../examples/csv-to-chart/tools/stats/stats.wasm");
/// Draws bar and line charts as SVG; a component with one function, `chart-generator`.
pub const CHART_GENERATOR: &[u8] =
    include_bytes!("../../examples/csv-to-chart/tools/chart-generator/chart-generator.wasm");
/// Stands in the place of a language model: a component with one function, `chat`.
pub const PLAIN_MODEL: &[u8] = include_bytes!("../fixtures/plain-model.wasm");
/// Fetches a URL of a granted host; a component with one function, `http-fetch`.
pub const HTTP_FETCH: &[u8] = include_bytes!("../fixtures/http-fetch.wasm");
/// SHA-256 and CRC-32 of a text, in C; a WASI command with one function, `checksum`.
pub const CHECKSUM: &[u8] = include_bytes!("../fixtures/checksum.wasm");
/// Sends pings to the agent `pong`; a component of the world `agent`.
pub const PING: &[u8] = include_bytes!("../../examples/ping.wasm");
/// Answers pings; a component of the world `plain-agent`.
pub const PONG: &[u8] = include_bytes!("../../examples/pong.wasm");
