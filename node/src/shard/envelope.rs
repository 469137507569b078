//! The envelope of an entry of a shard's log: whose command it is, in which version, and under which term it counts.
//!
//! Entries that were written before there were envelopes are JSON objects. No envelope begins with a brace: as the first byte
//! of one, it would begin a group with the number 15.

use bytes::Bytes;
use prost::Message;

use super::tenant::Refusal;

/// The first byte of an entry without an envelope.
const BRACE: u8 = b'{';

/// A command with what the shard has to know of it. On disk for ever.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Envelope {
    /// The version of the tenant's commands in which the body is written, from 1.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The tenant's number, from 1.
    #[prost(uint32, tag = "2")]
    pub tenant: u32,
    /// The term without which the command counts for nothing; 0 for none.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// The command.
    #[prost(bytes = "bytes", tag = "4")]
    pub body: Bytes,
}

impl Envelope {
    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

/// What an entry is, as far as its first bytes say.
#[derive(Debug, PartialEq)]
pub(super) enum Form {
    /// A JSON object without an envelope.
    Bare,
    /// A command in its envelope.
    Enveloped(Envelope),
}

/// Reads the envelope of an entry. One with a field that this program does not know is refused: a newer program that adds one
/// raises the version of the tenant's commands with it, so that nobody ignores what it says.
pub(super) fn open(entry: &Bytes) -> Result<Form, Refusal> {
    if entry.first() == Some(&BRACE) {
        return Ok(Form::Bare);
    }
    let Ok(envelope) = Envelope::decode(entry.clone()) else { return Err(Refusal::new("its envelope cannot be read")) };
    if envelope.encoded_len() != entry.len() {
        return Err(Refusal::new("its envelope has a field that is not known, or one twice"));
    }
    if envelope.tenant == 0 || envelope.version == 0 {
        return Err(Refusal::new("its envelope names no tenant or no version"));
    }
    Ok(Form::Enveloped(envelope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_as_it_was_written_and_its_bytes_stay() {
        let envelope = Envelope { version: 1, tenant: 2, term: 300, body: Bytes::from_static(b"{}") };
        let bytes = envelope.encode();
        assert_eq!(bytes.as_ref(), [8, 1, 16, 2, 24, 172, 2, 34, 2, b'{', b'}']);
        assert_eq!(open(&bytes), Ok(Form::Enveloped(envelope)));
        assert_eq!(open(&Bytes::from_static(b"{\"v\":1}")), Ok(Form::Bare));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let whole = Envelope { version: 1, tenant: 2, term: 0, body: Bytes::from_static(b"x") };
        let with = |more: &[u8]| Bytes::from([whole.encode().as_ref(), more].concat());
        let cut = whole.encode().slice(..6);
        for (bad, why) in [
            (Bytes::new(), "nothing"),
            (Bytes::from_static(&[0xff; 3]), "no protobuf"),
            (cut, "cut"),
            (with(&[40, 1]), "an unknown field"),
            (with(&[8, 1]), "a field twice"),
            (Envelope { tenant: 0, ..whole.clone() }.encode(), "no tenant"),
            (Envelope { version: 0, ..whole.clone() }.encode(), "no version"),
        ] {
            assert!(open(&bad).is_err(), "{why}");
        }
    }
}
