//! What a tool server is made of before it is loaded.

use crate::grants::Grants;
use crate::limits::Limits;
use crate::tool::Kind;

/// A tool server to load.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name under which agents call it.
    pub name: String,
    /// What its bytes are.
    pub kind: Kind,
    /// What it may reach.
    pub grants: Grants,
    /// How much each call may use.
    pub limits: Limits,
}
