//! Why a tool cannot be used, in words that say what to do.

use caxton_proto::WorkspaceId;

use crate::secrets::NoSecret;

/// Why a tool of a workspace cannot be used; `Display` ends in what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The workspace has no such tool.
    #[error(
        "there is no tool `{tool}` in workspace `{workspace}`; add it as tools/{tool}/tool.toml and run `caxton deploy`"
    )]
    Absent { tool: String, workspace: WorkspaceId },
    /// The workspace does not allow what the tool asks for.
    #[error("tool `{tool}` asks for what workspace `{workspace}` does not allow; under [grants] of caxton.toml, allow {}", remedies.join(" and "))]
    NotAllowed {
        tool: String,
        workspace: WorkspaceId,
        /// The lines that would allow it.
        remedies: Vec<String>,
    },
    /// A secret that it is given is not set.
    #[error("tool `{tool}` is not given a secret that its file names: {why}")]
    NoSecret {
        tool: String,
        /// Which secret, and what to do.
        why: NoSecret,
    },
    /// It did not load.
    #[error("tool `{tool}` did not load: {why}")]
    Broken {
        tool: String,
        /// The whole chain of causes.
        why: String,
    },
    /// Its server cannot be reached, did not start, or refuses.
    #[error("tool `{tool}` is away: {why}")]
    Away {
        tool: String,
        /// The whole chain of causes.
        why: String,
    },
    /// Too many tools are being loaded or started.
    #[error("tool `{tool}` has to wait: {why}")]
    Busy {
        tool: String,
        /// What is used up.
        why: String,
    },
    /// The node's operator has not allowed processes.
    #[error(
        "tool `{tool}` is a process of the node, and its operator has not allowed that; start the node with \
         --set tools.processes=true, or use a tool in WebAssembly"
    )]
    NoProcesses { tool: String },
}

impl Unusable {
    /// Whether it may be over without anybody doing anything about the workspace.
    pub fn is_passing(&self) -> bool {
        match self {
            Unusable::Away { .. } | Unusable::Busy { .. } => true,
            Unusable::Absent { .. }
            | Unusable::NotAllowed { .. }
            | Unusable::NoSecret { .. }
            | Unusable::Broken { .. }
            | Unusable::NoProcesses { .. } => false,
        }
    }
}

/// Why a node cannot take a tool that is being deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Its module does not load; this is why.
    Broken(String),
    /// It is a process, and the node's operator has not switched those on.
    ProcessesOff,
}
