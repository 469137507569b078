//! What is around a command in a shard's log: who has to read it, whose it is, and in which term it counts.

use bytes::Bytes;
use prost::Message;
use serde::Deserialize;

use super::Format;
use super::wire::{DecodeError, field, is_json, known, pb};

/// Who keeps something in a shard. A number stands for one tenant for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub u32);

impl Tenant {
    /// What was said: conversations and turns.
    pub const CONVERSATIONS: Tenant = Tenant(1);
}

/// One entry of a shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The oldest format whose readers understand the body.
    pub version: Format,
    /// Whose command it is.
    pub tenant: Tenant,
    /// The term under which the proposer leads the shard; 0 where the command counts in any.
    pub term: u64,
    /// The tenant's command. In an entry of [`Format::JSON`] it is the whole entry.
    pub body: Bytes,
}

/// What is read of an entry of the first format before its command is.
#[derive(Deserialize)]
struct Head {
    v: u32,
    #[serde(default)]
    term: u64,
}

impl Envelope {
    /// The entry's bytes. One of [`Format::JSON`] is its body.
    pub fn encode(&self) -> Bytes {
        if self.version == Format::JSON {
            return self.body.clone();
        }
        let (version, tenant) = (self.version.number(), self.tenant.0);
        pb::Envelope { version, tenant, term: self.term, body: self.body.clone() }.encode_to_vec().into()
    }

    /// Reads an entry, of any format that this build knows; what is in the body is left to its tenant.
    pub fn decode(bytes: &Bytes) -> Result<Envelope, DecodeError> {
        if is_json(bytes) {
            let Head { v, term } = serde_json::from_slice(bytes)?;
            return match v {
                1 => Ok(Envelope { version: Format::JSON, tenant: Tenant::CONVERSATIONS, term, body: bytes.clone() }),
                found => Err(DecodeError::Version { found }),
            };
        }
        let pb::Envelope { version, tenant, term, body } = pb::Envelope::decode(bytes.clone())?;
        let version = known(version)?;
        if tenant == 0 {
            return Err(field("tenant"));
        }
        Ok(Envelope { version, tenant: Tenant(tenant), term, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_reads_back_and_one_of_a_newer_format_says_so() {
        let mut envelope =
            Envelope { version: Format::PROTOBUF, tenant: Tenant(7), term: 9, body: Bytes::from_static(b"body") };
        assert_eq!(Envelope::decode(&envelope.encode()).expect("read"), envelope);
        envelope.version = Format::of(Format::NEWEST.number() + 1);
        let error = Envelope::decode(&envelope.encode()).expect_err("newer");
        assert!(error.is_newer() && error.to_string().contains("use a newer build"), "{error}");
        envelope.version = Format::PROTOBUF;
        envelope.tenant = Tenant(0);
        assert!(matches!(Envelope::decode(&envelope.encode()), Err(DecodeError::Field { field: "tenant" })));
        for wrong in [&b""[..], b"\xff", b"{", b"{}"] {
            let error = Envelope::decode(&Bytes::from_static(wrong)).expect_err("no entry");
            assert!(!error.is_newer(), "{error}");
        }
    }

    #[test]
    fn an_entry_of_the_first_format_is_one_of_the_conversations() {
        let entry = Bytes::from_static(br#"{"v":1,"command":"abandon","workspace":"team","turn":"t","term":9}"#);
        let envelope = Envelope::decode(&entry).expect("read");
        assert_eq!((envelope.version, envelope.tenant, envelope.term), (Format::JSON, Tenant::CONVERSATIONS, 9));
        assert_eq!((&envelope.body, &envelope.encode()), (&entry, &entry));
        assert!(Envelope::decode(&Bytes::from_static(br#"{"v":2}"#)).expect_err("newer").is_newer());
    }
}
