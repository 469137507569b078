//! The limits of a command, which the proposer checks: a command in the log is applied as it is.

use super::cluster::{
    self, AdmitNode, AnnounceNode, BeginAgain, FinishRotation, FixShards, HOLDS_MAX, IssueJoinToken, LISTED_NODES_MAX,
    NodeFacts, RaiseFormat, RemoveNode, RetireNode, RotateKey, SEALED_KEY_BYTES_MAX, SHARDS_MAX,
};
use super::{CHANGES_MAX, Command, DeleteWorkspace, Deploy, IssueToken, RemoveSecret, RevokeToken, SetSecret};
use crate::Format;
use crate::plan::Item;

/// The most bytes of a deployment's message.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The most bytes of an idempotency key.
pub const KEY_BYTES_MAX: usize = 128;

/// The most bytes of every other text of a command: names, addresses, subjects, ids, branches.
pub const TEXT_BYTES_MAX: usize = 512;

/// The most workspaces that a token lists.
pub const TOKEN_WORKSPACES_MAX: usize = 256;

/// The most bytes of a sealed secret, nonce and tag included.
pub const SEALED_BYTES_MAX: usize = (32 << 10) + 64;

/// Why a command may not be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A text or a list is longer than its limit.
    #[error("{field} has {len} {unit}, and {max} is the most")]
    TooLong {
        /// The field that is too long.
        field: &'static str,
        /// How long it is.
        len: usize,
        /// The most that it may be.
        max: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// A format is none that can be raised to: the first, or one that this build does not know.
    #[error("format {format} is not one that this build can raise the cluster to; the newest is {}", Format::NEWEST)]
    Format {
        /// The format that was named.
        format: Format,
    },
    /// A text is empty that may not be.
    #[error("{field} is empty")]
    Empty {
        /// The field that may not be empty.
        field: &'static str,
    },
}

impl Command {
    /// Whether the command keeps its limits.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            Command::Deploy(deploy) => check_deploy(deploy),
            Command::IssueToken(issue) => check_issue(issue),
            Command::RevokeToken(RevokeToken { id, time_ms: _, actor }) => {
                required("the token's id", id)?;
                text("the actor", actor, TEXT_BYTES_MAX)
            }
            Command::SetSecret(set) => check_secret(set),
            Command::RemoveSecret(RemoveSecret { workspace: _, name: _, time_ms: _, actor }) => {
                text("the actor", actor, TEXT_BYTES_MAX)
            }
            Command::DeleteWorkspace(DeleteWorkspace { workspace: _, time_ms: _, actor, seen: _ }) => {
                text("the actor", actor, TEXT_BYTES_MAX)
            }
            Command::Cluster(command) => check_cluster(command),
        }
    }
}

fn check_secret(set: &SetSecret) -> Result<(), CheckError> {
    required("the data key's id", &set.key)?;
    text("the actor", &set.actor, TEXT_BYTES_MAX)?;
    if set.sealed.is_empty() {
        return Err(CheckError::Empty { field: "the sealed secret" });
    }
    count("the sealed secret", set.sealed.len(), SEALED_BYTES_MAX, "bytes")
}

fn check_deploy(deploy: &Deploy) -> Result<(), CheckError> {
    text("the author's name", &deploy.author.name, TEXT_BYTES_MAX)?;
    text("the author's address", &deploy.author.email, TEXT_BYTES_MAX)?;
    text("the actor", &deploy.actor, TEXT_BYTES_MAX)?;
    text("the message", &deploy.message, MESSAGE_BYTES_MAX)?;
    text("the idempotency key", &deploy.idempotency_key, KEY_BYTES_MAX)?;
    if let Some(git) = &deploy.git {
        text("the git commit", &git.commit, TEXT_BYTES_MAX)?;
        text("the git branch", &git.branch, TEXT_BYTES_MAX)?;
    }
    count("the list of changes", deploy.changes.len(), CHANGES_MAX, "items")?;
    for change in &deploy.changes {
        let (Item::Agent(name) | Item::Tool(name) | Item::File(name)) = &change.item;
        text("the name of a changed item", name, TEXT_BYTES_MAX)?;
    }
    Ok(())
}

fn check_issue(issue: &IssueToken) -> Result<(), CheckError> {
    required("the token's id", &issue.id)?;
    required("the token's subject", &issue.subject)?;
    text("the actor", &issue.actor, TEXT_BYTES_MAX)?;
    count("the token's list of workspaces", issue.workspaces.len(), TOKEN_WORKSPACES_MAX, "names")
}

fn check_cluster(command: &cluster::Command) -> Result<(), CheckError> {
    match command {
        cluster::Command::IssueJoinToken(IssueJoinToken { id, actor, .. }) => {
            required("the join token's id", id)?;
            text("the actor", actor, TEXT_BYTES_MAX)
        }
        cluster::Command::AdmitNode(AdmitNode { facts, .. })
        | cluster::Command::AnnounceNode(AnnounceNode { facts, .. }) => check_facts(facts),
        cluster::Command::RetireNode(RetireNode { actor, .. })
        | cluster::Command::RemoveNode(RemoveNode { actor, .. }) => text("the actor", actor, TEXT_BYTES_MAX),
        cluster::Command::BeginAgain(BeginAgain { before, now, actor, .. }) => {
            text("the cluster's id before", before, TEXT_BYTES_MAX)?;
            text("the cluster's id", now, TEXT_BYTES_MAX)?;
            text("the actor", actor, TEXT_BYTES_MAX)
        }
        cluster::Command::FixShards(FixShards { count: shards }) => {
            count("the number of shards", shards.get() as usize, SHARDS_MAX as usize, "shards")
        }
        cluster::Command::RotateKey(RotateKey { sealed_with, sealed, actor, .. }) => {
            required("the data key's id", sealed_with)?;
            count("the sealed key", sealed.len(), SEALED_KEY_BYTES_MAX, "bytes")?;
            text("the actor", actor, TEXT_BYTES_MAX)
        }
        cluster::Command::FinishRotation(FinishRotation { actor, .. }) => text("the actor", actor, TEXT_BYTES_MAX),
        cluster::Command::RaiseFormat(RaiseFormat { format, members, time_ms: _ }) => {
            if *format == Format::JSON || !format.is_known() {
                return Err(CheckError::Format { format: *format });
            }
            count("the list of nodes", members.len(), LISTED_NODES_MAX, "nodes")
        }
    }
}

fn check_facts(facts: &NodeFacts) -> Result<(), CheckError> {
    text("the node's address", &facts.peer_address, TEXT_BYTES_MAX)?;
    text("the node's URL", &facts.client_url, TEXT_BYTES_MAX)?;
    text("the node's version", &facts.version, TEXT_BYTES_MAX)?;
    count("the node's list of keys", facts.holds.len(), HOLDS_MAX, "keys")
}

fn required(field: &'static str, value: &str) -> Result<(), CheckError> {
    if value.is_empty() {
        return Err(CheckError::Empty { field });
    }
    text(field, value, TEXT_BYTES_MAX)
}

fn text(field: &'static str, value: &str, max: usize) -> Result<(), CheckError> {
    count(field, value.len(), max, "bytes")
}

fn count(field: &'static str, len: usize, max: usize, unit: &'static str) -> Result<(), CheckError> {
    if len > max { Err(CheckError::TooLong { field, len, max, unit }) } else { Ok(()) }
}
