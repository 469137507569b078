//! Names and numbers that identify things. Text from outside becomes one of these at the edge and stays one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a workspace, an agent or a tool, in bytes (the limit of a DNS label, so that a name can be one).
pub const NAME_BYTES_MAX: usize = 63;

/// Why a piece of text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("a {kind} name cannot be empty")]
    Empty {
        /// What was being named.
        kind: &'static str,
    },
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("the {kind} name `{name}` has {bytes} bytes, and {NAME_BYTES_MAX} is the most")]
    TooLong {
        /// What was being named.
        kind: &'static str,
        /// The start of the text.
        name: String,
        /// How long it was.
        bytes: usize,
    },
    /// The text has a character that no name may have.
    #[error(
        "the {kind} name `{name}` has {character:?} in it; use lower-case letters, digits and `-`, and start with a letter or digit"
    )]
    Character {
        /// What was being named.
        kind: &'static str,
        /// The text that names no such thing.
        name: String,
        /// The first offending character.
        character: char,
    },
}

fn check(kind: &'static str, name: &str) -> Result<(), InvalidId> {
    if name.is_empty() {
        return Err(InvalidId::Empty { kind });
    }
    if name.len() > NAME_BYTES_MAX {
        let start = name.chars().take(24).collect();
        return Err(InvalidId::TooLong { kind, name: start, bytes: name.len() });
    }
    let bad = name.chars().enumerate().find(|&(at, c)| {
        let plain = c.is_ascii_lowercase() || c.is_ascii_digit();
        !(plain || (at > 0 && c == '-') || (at > 0 && c == '_'))
    });
    match bad {
        Some((_, character)) => Err(InvalidId::Character { kind, name: name.to_owned(), character }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(name: &str) -> Result<Self, InvalidId> {
                check($kind, name)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(name: String) -> Result<Self, InvalidId> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Names a workspace: the unit that is deployed, owned and authorised as one.
    WorkspaceId,
    "workspace"
);
name!(
    /// Names an agent within its workspace; its file is `agents/NAME.toml` or `agents/NAME/agent.toml`.
    AgentName,
    "agent"
);
name!(
    /// Names a tool within its workspace; its folder is `tools/NAME/`.
    ToolName,
    "tool"
);
name!(
    /// Names something that an agent can do; several agents may offer the same.
    CapabilityName,
    "capability"
);
name!(
    /// Names a language model provider, in a workspace's `[providers.NAME]`.
    ProviderName,
    "provider"
);

/// Identifies a node of a cluster. Minted once per data directory and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Counts a workspace's deployments: the first is 1, and 0 stands for "nothing deployed yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first deployment.
    pub const NONE: Revision = Revision(0);

    /// The revision that a deployment on top of this one gets.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;
    /// Takes `r12` and `12`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('r').unwrap_or(text).parse().map(Revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_with_underscores() {
        for good in ["a", "data-fetcher", "a_b", "9lives", &"x".repeat(63)] {
            assert!(good.parse::<AgentName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a/b", "a.b", "..", "é", &"x".repeat(64)] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn revisions_read_back_as_they_are_written() {
        let revision = Revision(12);
        assert_eq!(revision.to_string().parse::<Revision>(), Ok(revision));
        assert_eq!("12".parse::<Revision>(), Ok(revision));
    }
}
