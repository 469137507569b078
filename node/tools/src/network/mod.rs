//! Outgoing HTTP for tools: the policy, which decides without doing anything, and the fetcher, which obeys it.

mod fetch;
mod policy;

pub(crate) use fetch::why;
pub use fetch::{FetchError, FetchRequest, FetchResponse, Fetcher};
pub use policy::{BadNetwork, Denied, Network, Target, check_address, check_url};
