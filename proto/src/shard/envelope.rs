//! What is around a command in a shard's log: who has to read it, whose it is, and in which term it counts.

use bytes::Bytes;
use prost::Message;

use super::error::{DecodeError, field};
use super::pb;

/// One entry of a shard's log, since [`Format::PROTOBUF`](crate::Format::PROTOBUF). One of the first format is a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The oldest format whose readers understand the body, from 2.
    pub version: u32,
    /// Whose command it is, from 1: a number stands for one tenant for ever.
    pub tenant: u32,
    /// The term under which the proposer leads the shard; 0 where the command counts in any.
    pub term: u64,
    /// The tenant's command.
    pub body: Bytes,
}

impl Envelope {
    /// The tenant that keeps what was said: conversations and turns.
    pub const CONVERSATIONS: u32 = 1;
    /// The tenant that keeps what workspaces remember.
    pub const MEMORY: u32 = 2;
    /// The tenant that keeps agents' mailboxes, the conversations that messages belong to, and what is published.
    pub const MAILBOX: u32 = 3;
    /// The shard itself, which clears what all tenants keep of a workspace.
    pub const WORKSPACES: u32 = 4;

    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        self.message().encode_to_vec().into()
    }

    /// Reads an entry; what is in the body is left to its tenant, and so is whether this build knows the version. One with a
    /// field that this build does not know is refused: whoever adds one raises the version with it.
    pub fn decode(entry: &Bytes) -> Result<Envelope, DecodeError> {
        let pb::Envelope { version, tenant, term, body } = pb::Envelope::decode(entry.clone())?;
        let envelope = Envelope { version, tenant, term, body };
        if envelope.message().encoded_len() != entry.len() {
            return Err(field("unknown, or there twice"));
        }
        if version == 0 {
            return Err(field("version"));
        }
        if tenant == 0 {
            return Err(field("tenant"));
        }
        Ok(envelope)
    }

    fn message(&self) -> pb::Envelope {
        pb::Envelope { version: self.version, tenant: self.tenant, term: self.term, body: self.body.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_reads_back_and_its_bytes_stay() {
        let envelope = Envelope { version: 2, tenant: 3, term: 300, body: Bytes::from_static(b"{}") };
        let bytes = envelope.encode();
        assert_eq!(bytes.as_ref(), [8, 2, 16, 3, 24, 172, 2, 34, 2, b'{', b'}']);
        assert_eq!(Envelope::decode(&bytes).expect("read"), envelope);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let whole = Envelope { version: 2, tenant: 1, term: 0, body: Bytes::from_static(b"x") };
        let with = |more: &[u8]| Bytes::from([whole.encode().as_ref(), more].concat());
        for (bad, why) in [
            (Bytes::new(), "nothing"),
            (Bytes::from_static(&[0xff; 3]), "no protobuf"),
            (whole.encode().slice(..6), "cut"),
            (with(&[40, 1]), "an unknown field"),
            (with(&[8, 1]), "a field twice"),
            (Envelope { tenant: 0, ..whole.clone() }.encode(), "no tenant"),
            (Envelope { version: 0, ..whole.clone() }.encode(), "no version"),
            (Bytes::from_static(br#"{"v":1}"#), "JSON"),
        ] {
            assert!(Envelope::decode(&bad).is_err(), "{why}");
        }
    }
}
