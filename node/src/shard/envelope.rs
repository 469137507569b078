//! Whose an entry of a shard's log is: the envelope of `caxton_proto::shard` says it.
//!
//! Entries that were written before there were envelopes are JSON objects. No envelope begins with a brace: as the first byte
//! of one, it would begin a group with the number 15.

use bytes::Bytes;
pub use caxton_proto::shard::Envelope;

use super::tenant::Refusal;

/// The first byte of an entry without an envelope.
const BRACE: u8 = b'{';

/// What an entry is, as far as its first bytes say.
#[derive(Debug, PartialEq)]
pub(super) enum Form {
    /// A JSON object without an envelope.
    Bare,
    /// A command in its envelope.
    Enveloped(Envelope),
}

/// Reads the envelope of an entry.
pub(super) fn open(entry: &Bytes) -> Result<Form, Refusal> {
    if entry.first() == Some(&BRACE) {
        return Ok(Form::Bare);
    }
    Envelope::decode(entry)
        .map(Form::Enveloped)
        .map_err(|error| Refusal::new(format!("its envelope cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_envelope_or_a_json_object() {
        let envelope = Envelope { version: 1, tenant: 2, term: 300, body: Bytes::from_static(b"{}") };
        assert_eq!(open(&envelope.encode()), Ok(Form::Enveloped(envelope)));
        assert_eq!(open(&Bytes::from_static(b"{\"v\":1}")), Ok(Form::Bare));
        assert!(open(&Bytes::from_static(&[0xff; 3])).is_err());
    }
}
