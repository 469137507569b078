//! What everybody who lists a server's functions is told of it beside them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Something odd about a server's functions, for everybody who lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// The function, as far as it can be named; nothing where it is about the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// What is odd, and what comes of it.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "function `{function}`: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}
