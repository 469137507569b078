//! What a sender signs: the bytes that stand for a message, the same in every language, and the signature beside it.
//!
//! The bytes are text. The first line is `caxton message 1`. Then each field is a line with its name, a blank and the number of
//! bytes of its value, and after that line the value and a line feed:
//!
//! `workspace`, `key`, `signed`, `id`, `sender`, `receiver` (once for each, in their order), `reply_to` (the same),
//! `performative`, `conversation_id`, `protocol`, `language`, `encoding`, `ontology`, `reply_with`, `in_reply_to`, `reply_by`,
//! `content_type`, `content_kind` (`text`, `json`, `bytes` or `artifact`), `content` (the SHA-256 of the content in hexadecimal:
//! of the text, of the JSON as it is written, of the bytes, or the artifact's), `content_bytes` (how many there are), each
//! extension under its own name in the order of their bytes, `priority`, and `expires`.
//!
//! What a message does not have is left out. Times are milliseconds since 1970 in decimal digits. The signature is Ed25519 over
//! these bytes.

use std::fmt;
use std::str::FromStr;

use super::Submission;
use crate::acl::{Address, Body, MessageId};
use crate::{Digest, WorkspaceId};

/// The bytes of an Ed25519 public key, and of its seed.
pub const KEY_BYTES: usize = 32;
/// The bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// The most bytes of a sealed key, and of the name of what sealed it.
pub const SEALED_BYTES_MAX: usize = 256;

/// Names a key: the first 8 bytes of the SHA-256 of the public key, written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

/// The text names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's id is 16 hexadecimal digits")]
pub struct InvalidKeyId;

impl KeyId {
    /// The id of a public key.
    pub fn of(public: &[u8; KEY_BYTES]) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&Digest::of(public).as_bytes()[..8]);
        KeyId(id)
    }

    /// The id of 8 bytes that were read elsewhere.
    pub const fn from_bytes(bytes: [u8; 8]) -> KeyId {
        KeyId(bytes)
    }

    /// The 8 bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;
    fn from_str(text: &str) -> Result<KeyId, InvalidKeyId> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidKeyId)?;
        Ok(KeyId(bytes))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A signature over a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key that made it.
    pub key: KeyId,
    /// When it was made, in milliseconds since 1970.
    pub signed_ms: i64,
    /// The signature itself.
    pub bytes: [u8; SIGNATURE_BYTES],
}

/// The id of a message that its sender signs: the first 16 bytes of the SHA-256 of `caxton signed message 1`, the sender and the
/// sender's key for it, with a line feed between. So nobody chooses the id of another's message.
pub fn signed_id(sender: &Address, key: &str) -> MessageId {
    let text = format!("caxton signed message 1\n{sender}\n{key}");
    let mut id = [0; 16];
    id.copy_from_slice(&Digest::of(text.as_bytes()).as_bytes()[..16]);
    MessageId::from_bytes(id)
}

/// Fields after each other, each with its length.
struct Form(Vec<u8>);

impl Form {
    fn put(&mut self, name: &str, value: impl fmt::Display) {
        let value = value.to_string();
        self.0.extend_from_slice(format!("{name} {}\n{value}\n", value.len()).as_bytes());
    }

    fn put_some(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

impl Submission {
    /// The bytes that a sender signs with a key at a time, in a workspace.
    pub fn signed_form(&self, workspace: &WorkspaceId, key: KeyId, signed_ms: i64) -> Vec<u8> {
        let message = &self.message;
        let mut form = Form(b"caxton message 1\n".to_vec());
        form.put("workspace", workspace);
        form.put("key", key);
        form.put("signed", signed_ms);
        form.put("id", self.id);
        form.put_some("sender", message.sender.as_ref());
        message.receivers.iter().for_each(|address| form.put("receiver", address));
        message.reply_to.iter().for_each(|address| form.put("reply_to", address));
        form.put("performative", message.performative.name());
        let texts = [
            ("conversation_id", &message.conversation_id),
            ("protocol", &message.protocol),
            ("language", &message.language),
            ("encoding", &message.encoding),
            ("ontology", &message.ontology),
            ("reply_with", &message.reply_with),
            ("in_reply_to", &message.in_reply_to),
        ];
        texts.into_iter().for_each(|(name, text)| form.put_some(name, text.as_ref()));
        form.put_some("reply_by", message.reply_by_ms);
        if let Some(content) = &message.content {
            let (kind, digest, bytes) = match &content.body {
                Body::Text(text) => ("text", Digest::of(text.as_bytes()), text.len() as u64),
                Body::Json(text) => ("json", Digest::of(text.as_bytes()), text.len() as u64),
                Body::Bytes(bytes) => ("bytes", Digest::of(bytes), bytes.len() as u64),
                Body::Artifact { digest, bytes } => ("artifact", *digest, *bytes),
            };
            form.put("content_type", &content.media_type);
            form.put("content_kind", kind);
            form.put("content", hex::encode(digest.as_bytes()));
            form.put("content_bytes", bytes);
        }
        message.extensions.iter().for_each(|(name, value)| form.put(name, value));
        form.put("priority", self.priority.number());
        form.put_some("expires", self.expires_ms);
        form.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acl::strategies::message;
    use crate::acl::{Content, Message, Performative, Priority};

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    fn workspace(text: &str) -> WorkspaceId {
        text.parse().expect("a name")
    }

    #[test]
    fn the_bytes_are_those_that_the_page_describes() {
        let mut message = Message::new(Performative::Inform, [address("bob")]).stamped(address("ann"));
        message.content = Some(Content::text("hé"));
        message.extensions.insert("X-a".to_owned(), "1\n2".to_owned());
        let submission = Submission::new(MessageId::from_bytes([1; 16]), message);
        let form = submission.signed_form(&workspace("demo"), KeyId::from_bytes([2; 8]), 5);
        let digest = hex::encode(Digest::of("hé".as_bytes()).as_bytes());
        let expected = format!(
            "caxton message 1\nworkspace 4\ndemo\nkey 16\n0202020202020202\nsigned 1\n5\nid 32\n{}\nsender 3\nann\n\
             receiver 3\nbob\nperformative 6\ninform\ncontent_type 10\ntext/plain\ncontent_kind 4\ntext\ncontent 64\n\
             {digest}\ncontent_bytes 1\n3\nX-a 3\n1\n2\npriority 1\n4\n",
            "01".repeat(16)
        );
        assert_eq!(String::from_utf8(form).expect("text"), expected);
        assert_eq!(signed_id(&address("subject:ann"), "k1"), signed_id(&address("subject:ann"), "k1"));
        assert_ne!(signed_id(&address("subject:ann"), "k1"), signed_id(&address("ann"), "k1"));
    }

    /// A message in which one thing is another.
    fn altered(of: &Submission, which: usize) -> Submission {
        let mut other = of.clone();
        let message = &mut other.message;
        match which {
            0 => other.id = MessageId::from_bytes([9; 16]),
            1 => message.sender = Some(address("mallory")),
            2 => message.receivers.push(address("mallory")),
            3 => message.reply_to.push(address("mallory")),
            4 => message.conversation_id = Some("another one".to_owned()),
            5 => message.content = Some(Content::text("another content")),
            6 => message.reply_by_ms = Some(message.reply_by_ms.unwrap_or_default() + 1),
            7 => message.performative = Performative::ALL[usize::from(message.performative == Performative::ALL[0])],
            8 => drop(message.extensions.insert("X-other.one".to_owned(), "1".to_owned())),
            9 => other.priority = Priority::new(7 - u64::from(other.priority.number())).expect("from 0 to 7"),
            10 => other.expires_ms = Some(other.expires_ms.unwrap_or_default() + 1),
            11 => message.protocol = Some("another protocol".to_owned()),
            12 => message.in_reply_to = Some("another reply".to_owned()),
            _ => message.reply_with = Some("another word".to_owned()),
        }
        other
    }

    proptest! {
        #[test]
        fn whatever_is_altered_makes_other_bytes(message in message(), which in 0..14_usize) {
            let of = Submission::new(MessageId::from_bytes([1; 16]), message);
            let (home, key) = (workspace("demo"), KeyId::from_bytes([2; 8]));
            let form = of.signed_form(&home, key, 5);
            prop_assert_ne!(&altered(&of, which).signed_form(&home, key, 5), &form);
            prop_assert_ne!(&of.signed_form(&workspace("else"), key, 5), &form);
            prop_assert_ne!(&of.signed_form(&home, key, 6), &form);
            prop_assert_eq!(&of.clone().signed_form(&home, key, 5), &form);
        }
    }
}
