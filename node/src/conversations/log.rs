//! What the log of conversations says, and what became of an entry of it. How an entry is written is in `caxton_proto::shard`.
//!
//! What a turn writes carries the term under which it runs, and counts for nothing in another one: a node that lost the
//! shard's lead, and even one that got it back, records nothing of a turn that the next leader took up.

use bytes::Bytes;
pub use caxton_proto::shard::{
    Abandon, Command, DecodeError, DocumentKind, EncodeError, Forget, Keep, Piece, Suspension, TurnRecord,
};

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is applied.
    Applied,
    /// It was applied before.
    Repeated,
    /// Another leader came between the turn's beginning and this entry: nothing was changed.
    Fenced,
}

impl Taken {
    /// The machine's answer.
    pub fn encode(self) -> Bytes {
        Bytes::from_static(match self {
            Taken::Applied => b"",
            Taken::Repeated => b"repeated",
            Taken::Fenced => b"fenced",
        })
    }

    /// Reads the machine's answer.
    pub fn decode(bytes: &[u8]) -> Taken {
        match bytes {
            b"repeated" => Taken::Repeated,
            b"fenced" => Taken::Fenced,
            _ => Taken::Applied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_entry_reads_back() {
        for taken in [Taken::Applied, Taken::Repeated, Taken::Fenced] {
            assert_eq!(Taken::decode(&taken.encode()), taken);
        }
    }
}
