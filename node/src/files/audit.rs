//! What was done to a data directory as a whole, while no node ran on it or by its node at the end: one JSON document a
//! line in `audit.jsonl`, which is only ever appended to. The node tells of the last one at each of its starts.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// What the last entry says once the node of the directory has left its cluster: it starts no more.
pub const LEFT: &str = "left";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339.
    pub time: String,
    /// `restored`, `recovered`, or [`LEFT`].
    pub what: String,
    /// Who, as the operating system knows them.
    pub actor: String,
    /// The cluster before.
    pub cluster_before: String,
    /// The cluster from then on.
    pub cluster: String,
    /// The node from then on.
    pub node: String,
    /// From what, and what may be lost by it.
    pub detail: String,
}

/// Appends an entry; on disk when this returns.
pub fn append(dir: &Path, entry: &Entry) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(AUDIT_FILE))?;
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_all()
}

/// The last entry, if there is one that reads back.
pub fn last(dir: &Path) -> Option<Entry> {
    let text = std::fs::read_to_string(dir.join(AUDIT_FILE)).ok()?;
    serde_json::from_str(text.lines().next_back()?).ok()
}
