//! Whom a node believes, and what it shows to be believed: the cluster's authority and its successors, the certificates of
//! nodes, the shared secret, join tokens, and the files with the keys that every node of a cluster holds.
//!
//! Nothing here knows the log, the peers or the cluster: those build on it.

pub mod authority;

pub mod succession;

pub mod credentials;

pub mod shared_secret;

pub mod join_token;

pub mod signing;

pub mod bearer;

pub mod key_files;

pub use authority::{Authority, TlsError};
pub use bearer::ADMIN_TOKEN_FILE;
pub use credentials::Credentials;
pub use join_token::JoinToken;
pub use key_files::DATA_KEY_FILE;
pub use shared_secret::SharedSecret;

/// How far the rotation of a key has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// This node has the successor, and others may not have it yet.
    Known,
    /// All nodes have the successor.
    Everywhere,
    /// Only the successor is good any more.
    Finished,
}

/// Makes rustls use ring in this process, if nothing else was chosen before.
pub fn install_provider() {
    // The first provider stays; every part of this program installs the same one.
    _ = rustls::crypto::ring::default_provider().install_default();
}
