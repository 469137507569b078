//! The first form: JSON. Nothing in it changes any more; what comes new is said in protobuf only.

use serde::{Deserialize, Serialize};

use super::{Command, DecodeError, EncodeError, Suspension, TurnRecord};

/// What an entry of the log begins with.
#[derive(Serialize)]
struct Entry<'a> {
    v: u32,
    #[serde(flatten)]
    command: &'a Command,
}

pub(super) fn entry_of(command: &Command) -> Result<Vec<u8>, EncodeError> {
    to_vec(&Entry { v: 1, command })
}

/// What an entry says of itself before its command is read.
#[derive(Deserialize)]
struct Head {
    v: u32,
}

pub(super) fn command_of(entry: &[u8]) -> Result<Command, DecodeError> {
    match read::<Head>(entry)? {
        Head { v: 0 } => Err(super::error::field("v")),
        Head { v: 1 } => read(entry),
        Head { v: found } => Err(DecodeError::Version { found }),
    }
}

pub(super) fn to_vec<T: Serialize>(document: &T) -> Result<Vec<u8>, EncodeError> {
    serde_json::to_vec(document).map_err(EncodeError::Json)
}

pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    Ok(serde_json::from_slice(bytes)?)
}

/// What SQLite holds of a command that makes a row.
pub(super) trait Row: Serialize + for<'a> Deserialize<'a> {
    /// The row that a command makes, if it makes one of this kind.
    fn of(command: Command) -> Option<Self>;
}

impl Row for TurnRecord {
    fn of(command: Command) -> Option<Self> {
        match command {
            Command::Record(record) => Some(*record),
            Command::Keep(_) | Command::Suspend(_) | Command::Abandon(_) | Command::Forget(_) => None,
        }
    }
}

impl Row for Suspension {
    fn of(command: Command) -> Option<Self> {
        match command {
            Command::Suspend(suspension) => Some(*suspension),
            Command::Keep(_) | Command::Record(_) | Command::Abandon(_) | Command::Forget(_) => None,
        }
    }
}

/// Bytes that are text, as a string.
pub(super) mod utf8 {
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(bytes).map_err(S::Error::custom)?)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}
