//! Messages as `caxton:agent` has them, and as the node does.

use crate::exchange::HostRefusal;
use caxton_proto::acl::{Address, Body, Content, Message, Performative};
use std::str::FromStr;
use wasmtime::component::{ComponentType, Lift, Lower};

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct WitArtifact {
    digest: String,
    bytes: u64,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum WitBody {
    #[component(name = "text")]
    Text(String),
    #[component(name = "json")]
    Json(String),
    #[component(name = "bytes")]
    Bytes(Vec<u8>),
    #[component(name = "artifact")]
    Artifact(WitArtifact),
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct WitContent {
    #[component(name = "media-type")]
    media_type: String,
    body: WitBody,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct WitMessage {
    performative: String,
    sender: Option<String>,
    receivers: Vec<String>,
    #[component(name = "reply-to")]
    reply_to: Vec<String>,
    content: Option<WitContent>,
    language: Option<String>,
    encoding: Option<String>,
    ontology: Option<String>,
    protocol: Option<String>,
    #[component(name = "conversation-id")]
    conversation_id: Option<String>,
    #[component(name = "reply-with")]
    reply_with: Option<String>,
    #[component(name = "in-reply-to")]
    in_reply_to: Option<String>,
    #[component(name = "reply-by")]
    reply_by: Option<i64>,
    extensions: Vec<(String, String)>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum WitError {
    #[component(name = "not-understood")]
    NotUnderstood(String),
    #[component(name = "refused")]
    Refused(String),
    #[component(name = "failed")]
    Failed(String),
}

impl WitMessage {
    /// A message as a guest is given it.
    pub(super) fn of(message: &Message) -> WitMessage {
        let addresses = |all: &[Address]| all.iter().map(Address::to_string).collect();
        WitMessage {
            performative: message.performative.name().to_owned(),
            sender: message.sender.as_ref().map(Address::to_string),
            receivers: addresses(&message.receivers),
            reply_to: addresses(&message.reply_to),
            content: message.content.as_ref().map(|content| WitContent {
                media_type: content.media_type.clone(),
                body: match &content.body {
                    Body::Text(text) => WitBody::Text(text.clone()),
                    Body::Json(text) => WitBody::Json(text.clone()),
                    Body::Bytes(bytes) => WitBody::Bytes(bytes.clone()),
                    Body::Artifact { digest, bytes } => {
                        WitBody::Artifact(WitArtifact { digest: digest.to_string(), bytes: *bytes })
                    }
                },
            }),
            language: message.language.clone(),
            encoding: message.encoding.clone(),
            ontology: message.ontology.clone(),
            protocol: message.protocol.clone(),
            conversation_id: message.conversation_id.clone(),
            reply_with: message.reply_with.clone(),
            in_reply_to: message.in_reply_to.clone(),
            reply_by: message.reply_by_ms,
            extensions: message.extensions.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    /// A message that a guest wrote. Whom it says it is from does not count.
    pub(super) fn read(self) -> Result<Message, HostRefusal> {
        let refuse = |why: String| HostRefusal { why };
        let (performative, _) = Performative::read(&self.performative).map_err(|error| refuse(error.to_string()))?;
        let addresses = |all: Vec<String>| -> Result<Vec<Address>, HostRefusal> {
            all.iter()
                .map(|text| text.parse().map_err(|error: <Address as FromStr>::Err| refuse(error.to_string())))
                .collect()
        };
        let content = self.content.map(|content| {
            let body = match content.body {
                WitBody::Text(text) => Body::Text(text),
                WitBody::Json(text) => Body::Json(text),
                WitBody::Bytes(bytes) => Body::Bytes(bytes),
                WitBody::Artifact(WitArtifact { digest, bytes }) => {
                    let why = "an artifact's digest is its SHA-256 in hexadecimal";
                    Body::Artifact { digest: digest.parse().map_err(|_| refuse(why.to_owned()))?, bytes }
                }
            };
            Ok(Content { media_type: content.media_type, body })
        });
        Ok(Message {
            content: content.transpose()?,
            reply_to: addresses(self.reply_to)?,
            language: self.language,
            encoding: self.encoding,
            ontology: self.ontology,
            protocol: self.protocol,
            conversation_id: self.conversation_id,
            reply_with: self.reply_with,
            in_reply_to: self.in_reply_to,
            reply_by_ms: self.reply_by,
            extensions: self.extensions.into_iter().collect(),
            ..Message::new(performative, addresses(self.receivers)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_crosses_both_ways() {
        for body in [
            Body::Text("text".into()),
            Body::Json("{\"a\":[1]}".into()),
            Body::Bytes(vec![0, 255]),
            Body::Artifact { digest: "ab".repeat(32).parse().unwrap(), bytes: 7 },
        ] {
            let message = Message {
                sender: None,
                reply_to: vec!["subject:ann".parse().unwrap()],
                content: Some(Content { media_type: "text/x-y".into(), body }),
                language: Some("l".into()),
                encoding: Some("e".into()),
                ontology: Some("o".into()),
                protocol: Some("p".into()),
                conversation_id: Some("c".into()),
                reply_with: Some("r".into()),
                in_reply_to: Some("i".into()),
                reply_by_ms: Some(5),
                extensions: [("X-a".to_owned(), "b".to_owned())].into(),
                ..Message::new(Performative::Propose, ["topic:a/b".parse().unwrap(), "pong".parse().unwrap()])
            };
            assert_eq!(WitMessage::of(&message).read().unwrap(), message);
            let forged = message.clone().stamped("other".parse().unwrap());
            assert_eq!(WitMessage::of(&forged).sender.as_deref(), Some("other"));
            assert_eq!(WitMessage::of(&forged).read().unwrap(), message, "the sender is not the guest's to say");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_by_name() {
        let good = || WitMessage::of(&Message::new(Performative::Inform, ["pong".parse().unwrap()]));
        let mut unknown = good();
        unknown.performative = "shout".into();
        assert!(unknown.read().unwrap_err().why.contains("`shout` is no performative"));
        let mut nobody = good();
        nobody.receivers = vec!["No Body".into()];
        assert!(nobody.read().unwrap_err().why.contains("is no address"));
        let mut short = good();
        let body = WitBody::Artifact(WitArtifact { digest: "ab".into(), bytes: 1 });
        short.content = Some(WitContent { media_type: "a/b".into(), body });
        assert!(short.read().unwrap_err().why.contains("SHA-256"));
    }
}
