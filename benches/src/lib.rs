//! What the benchmarks share: nodes as processes of their own, clients of HTTP, and figures.

pub mod figures;
pub mod http;
pub mod node;
