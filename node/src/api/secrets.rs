//! Bodies of the routes for secrets. None that leaves the server holds a value.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `PUT .../secrets/{name}`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// The value: 1 to 32,768 bytes of text. It is never read back.
    pub value: String,
}

impl std::fmt::Debug for SecretRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretRequest(..)")
    }
}

/// One secret in a listing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SecretInfo {
    /// The name that files call it by.
    pub name: String,
    /// When it was set, RFC 3339 in UTC.
    pub set: String,
    /// Whose token set it.
    pub actor: String,
    /// The data key that it was sealed with.
    pub key: String,
}

/// `GET .../secrets`: the workspace's secrets, in the order of their names.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// What is known of each, without its value.
    pub secrets: Vec<SecretInfo>,
}

/// The answer of `DELETE .../secrets/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SecretRemoved {
    /// The name that is free again.
    pub removed: String,
}
