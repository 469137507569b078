//! The command by which a shard clears what it keeps of a workspace that the deploy log has deleted.

use prost::Message;

use super::error::{DecodeError, field};
use super::pb;
use crate::WorkspaceId;

/// Takes rows of a workspace away from every tenant. It is proposed until nothing is left, and counts once for each deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearWorkspace {
    /// The workspace that was deleted.
    pub workspace: WorkspaceId,
    /// The index of its deletion in the deploy log.
    pub deletion: u64,
    /// How many rows of a table go at most with this command, from 1.
    pub rows_max: u32,
}

impl ClearWorkspace {
    /// The command's bytes, to be put into an envelope.
    pub fn encode(&self) -> Vec<u8> {
        self.message().encode_to_vec()
    }

    /// The command that the bytes stand for. One with a field that this build does not know is refused: whoever adds one
    /// raises the version with it.
    pub fn decode(bytes: &[u8]) -> Result<ClearWorkspace, DecodeError> {
        let pb::ClearWorkspace { workspace, deletion, rows_max } = pb::ClearWorkspace::decode(bytes)?;
        let workspace = workspace.parse().map_err(|_| field("workspace"))?;
        let command = ClearWorkspace { workspace, deletion, rows_max };
        if command.message().encoded_len() != bytes.len() {
            return Err(field("unknown, or there twice"));
        }
        match (deletion, rows_max) {
            (0, _) => Err(field("deletion")),
            (_, 0) => Err(field("rows_max")),
            _ => Ok(command),
        }
    }

    fn message(&self) -> pb::ClearWorkspace {
        pb::ClearWorkspace { workspace: self.workspace.to_string(), deletion: self.deletion, rows_max: self.rows_max }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demo() -> ClearWorkspace {
        ClearWorkspace { workspace: "demo".parse().expect("a name"), deletion: 300, rows_max: 500 }
    }

    #[test]
    fn its_bytes_stay() {
        let bytes = [10, 4, b'd', b'e', b'm', b'o', 16, 172, 2, 24, 244, 3];
        assert_eq!(demo().encode(), bytes);
        assert_eq!(ClearWorkspace::decode(&bytes).expect("read"), demo());
    }

    #[test]
    fn what_is_no_such_command_is_refused() {
        let whole = demo().encode();
        let with = |more: &[u8]| [whole.as_slice(), more].concat();
        for (bad, why) in [
            (Vec::new(), "nothing"),
            (vec![0xff; 3], "no protobuf"),
            (with(&[40, 1]), "an unknown field"),
            (with(&[24, 1]), "a field twice"),
            (ClearWorkspace { deletion: 0, ..demo() }.encode(), "no deletion"),
            (ClearWorkspace { rows_max: 0, ..demo() }.encode(), "no rows"),
        ] {
            assert!(ClearWorkspace::decode(&bad).is_err(), "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in "[a-z0-9][a-z0-9_-]{0,62}", deletion in 1..=u64::MAX, rows_max in 1..=u32::MAX) {
            let Ok(workspace) = name.parse() else { return Ok(()) };
            let command = ClearWorkspace { workspace, deletion, rows_max };
            prop_assert_eq!(ClearWorkspace::decode(&command.encode()).expect("read"), command);
        }
    }
}
