//! Ids of what is remembered: 16 bytes, written as 32 hexadecimal digits. They are the same wherever it is imported.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Scope;
use crate::Digest;

/// The text or the bytes are no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id of something remembered is 32 hexadecimal digits (16 bytes)")]
pub struct InvalidMemoryId;

macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 16]);

        impl $type {
            /// The id of 16 bytes that were drawn or read elsewhere.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl From<Uuid> for $type {
            fn from(id: Uuid) -> Self {
                Self(id.into_bytes())
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = InvalidMemoryId;
            fn try_from(bytes: &[u8]) -> Result<Self, InvalidMemoryId> {
                bytes.try_into().map(Self).map_err(|_| InvalidMemoryId)
            }
        }

        impl FromStr for $type {
            type Err = InvalidMemoryId;
            /// Takes a UUID with or without dashes.
            fn from_str(text: &str) -> Result<Self, InvalidMemoryId> {
                Uuid::try_parse(text).map(Self::from).map_err(|_| InvalidMemoryId)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidMemoryId;
            fn try_from(text: String) -> Result<Self, InvalidMemoryId> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
    };
}

id!(
    /// Identifies a memory within its workspace.
    MemoryId
);
id!(
    /// Identifies an entity: its scope and its name make it.
    EntityId
);
id!(
    /// Identifies a relation within its workspace.
    RelationId
);

/// The first 16 bytes of the digest of parts, each with its length before it so that no two lists give the same bytes.
fn derived(parts: &[&[u8]]) -> [u8; 16] {
    let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_le_bytes()).collect();
    let digest = Digest::of_parts(lengths.iter().zip(parts).flat_map(|(length, part)| [length.as_slice(), part]));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes
}

impl EntityId {
    /// The id of the entity of this name in a scope.
    pub fn of(scope: &Scope, name: &str) -> EntityId {
        let kind = [scope.kind().number() as u8];
        Self(derived(&[b"entity", &kind, scope.name().as_bytes(), name.as_bytes()]))
    }
}

impl MemoryId {
    /// An id for something that comes from another system under a key of its own: importing it again gives the same id.
    pub fn imported(system: &str, key: &str) -> MemoryId {
        Self(derived(&[b"memory", system.as_bytes(), key.as_bytes()]))
    }
}

impl RelationId {
    /// An id for a relation that comes from another system under a key of its own: importing it again gives the same id.
    pub fn imported(system: &str, key: &str) -> RelationId {
        Self(derived(&[b"relation", system.as_bytes(), key.as_bytes()]))
    }
}
