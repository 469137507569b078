//! Backups: one tar archive of all that a cluster is, which can be checked by itself and become a new cluster.
//!
//! The archive holds every group's state, every artifact, and the cluster's keys. The keys are sealed with a key of
//! their own, the recovery key, which never is in the archive: whoever finds an archive can read what was deployed and
//! said in it, and opens no secret, signs no token and lets no node in.
//!
//! ```text
//! caxton-backup.json           what it is of; first
//! groups/N.snapshot            the state of group N, with checksums of its own
//! artifacts/WORKSPACE/DIGEST   content, named by its SHA-256
//! keys.sealed                  the cluster's keys, sealed with the recovery key
//! SHA256SUMS                   the digest of each file above, and of all bytes before this file; last
//! ```
//!
//! SHA256SUMS is authenticated under the recovery key, and with it every byte of the archive: one that somebody edited is whole
//! in itself and is not restored.

pub mod key;

mod digesting;

pub mod write;

pub mod verify;

pub mod restore;

pub mod recover;

use serde::{Deserialize, Serialize};

use crate::config::environment;

/// The version of the archive that this program writes: the second is authenticated.
pub const FORMAT: u32 = 2;
/// The version that is read as well and was not authenticated.
pub const UNAUTHENTICATED_FORMAT: u32 = 1;
/// What the archive is of.
pub const HEADER_FILE: &str = "caxton-backup.json";
/// The cluster's keys.
pub const KEYS_FILE: &str = "keys.sealed";
/// The digests of all other files.
pub const SUMS_FILE: &str = "SHA256SUMS";
/// What the line with the digest of all bytes before the digests begins with. A comment to `sha256sum --check`.
pub const WHOLE: &str = "# all bytes before this file: ";
/// What the line begins with by which the digests are authenticated. It is no part of what it authenticates.
pub const AUTHENTICATED: &str = "# authenticated under the recovery key: ";
/// The media type of an archive.
pub const MEDIA_TYPE: &str = "application/x-tar";

/// What an archive is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the archive.
    pub format: u32,
    /// The version of the program that wrote it.
    pub version: String,
    pub cluster: String,
    /// The node that wrote it.
    pub node: String,
    /// When, RFC 3339.
    pub created: String,
    /// The id of the recovery key.
    pub key: String,
    /// The groups, in the order of their numbers.
    pub groups: Vec<GroupHeader>,
}

/// A group of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHeader {
    pub group: u32,
    /// The index of its last command.
    pub commands: u64,
}

fn group_file(group: u32) -> String {
    format!("groups/{group}.snapshot")
}

/// Who runs this program, as the operating system knows them.
fn actor() -> String {
    let name = environment::variable("USER").and_then(|name| name.into_string().ok()).unwrap_or_default();
    let uid = rustix::process::getuid().as_raw();
    if name.is_empty() { format!("local:{uid}") } else { format!("local:{name}({uid})") }
}
