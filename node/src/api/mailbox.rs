//! Messages between agents and people as they travel. Times are RFC 3339.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A message to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// The message with FIPA's fields: `performative`, `receiver`, `content`, `protocol`, `conversation_id`, `reply_with`,
    /// `in_reply_to`, `reply_by`, and so on. Its sender is whoever sends it.
    #[schema(value_type = Object)]
    pub message: Box<serde_json::value::RawValue>,
    /// How urgent it is, from 0 to 7, the most urgent: 4 unless told.
    #[serde(default)]
    pub priority: Option<u64>,
    /// The sender's key: the same message sent again with it is taken in once.
    #[serde(default)]
    pub key: Option<String>,
    /// From when on nobody wants it any more: never unless told.
    #[serde(default)]
    pub expires: Option<String>,
    /// The sender's own signature; without it the node signs where the workspace asks for that.
    #[serde(default)]
    pub signature: Option<SenderSignature>,
}

/// An Ed25519 signature that the sender made, as docs/messages.md#signatures describes it. The message then has a `key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SenderSignature {
    /// The id of the key, 16 hexadecimal digits.
    pub key: String,
    /// When it was made, in milliseconds since 1970.
    pub signed_ms: i64,
    /// The signature, 128 hexadecimal digits.
    pub signature: String,
}

/// Who signed a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignatureCheck {
    /// The message's id.
    pub id: String,
    /// Whether it is what its sender sent, as far as the workspace asks for that.
    pub holds: bool,
    /// Who is said to have sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The key that signed it; absent where no signature is asked for, and of what the platform says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
    /// Who holds the key: `node`, or `sender` where they registered one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Why it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A key with which a sender signs, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageKeyInfo {
    /// Who signs with it: an agent, or `subject:NAME`.
    pub owner: String,
    /// Its id, 16 hexadecimal digits: the beginning of the public key's SHA-256.
    pub key: String,
    /// The Ed25519 public key, 64 hexadecimal digits.
    pub public_key: String,
    /// Who holds the other half: `node`, or `sender`.
    pub held_by: String,
    /// When it was made.
    pub made: String,
    /// What is taken in from then on it does not verify; absent for the one that its owner signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

/// A page of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageKeyPage {
    /// The keys, by their owners, the oldest first.
    pub keys: Vec<MessageKeyInfo>,
    /// What the next page is asked for after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A public key of whoever registers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterKeyRequest {
    /// The Ed25519 public key, 64 hexadecimal digits.
    pub public_key: String,
    /// For how many seconds the keys before it go on: a day unless told, 30 days at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_s: Option<u64>,
}

/// Whose key is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateMessageKeyRequest {
    /// An agent, or `subject:NAME`: the nodes sign for them with a new key.
    pub owner: String,
    /// For how many seconds the keys before it go on: a day unless told, 30 days at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_s: Option<u64>,
}

/// A message that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SendResponse {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// It had been taken in before, under the same key.
    pub duplicate: bool,
    /// The conversation that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// Its number among the events of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// In how many mailboxes it lies.
    #[serde(default)]
    pub deliveries: u32,
    /// Its position among what the workspace publishes, where it went to a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// What was taken although it was not written as FIPA has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A message in somebody's mailbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// The number of the delivery.
    pub delivery: u64,
    /// Whose mailbox it is in.
    pub owner: String,
    /// The message's id.
    pub id: String,
    /// `ready`, `started`, `retry`, `dead`, or `waiting`: for the turn that it began and that was put down, or kept for a turn that
    /// waits for it.
    pub state: String,
    /// How often it was given to its receiver.
    pub attempts: u32,
    /// How urgent it is, from 0 to 7, the most urgent.
    pub priority: u8,
    /// When it was sent, or is tried again.
    pub due: String,
    /// Why it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The message with FIPA's fields.
    #[schema(value_type = Object)]
    pub message: Value,
}

/// A page of deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryPage {
    /// The deliveries, in the order of their numbers.
    pub deliveries: Vec<Delivery>,
    /// The number to ask for the next page after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What was done to a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryChange {
    /// The number of the delivery.
    pub delivery: u64,
    /// `dropped` or `retried`.
    pub change: String,
}

/// Which dead letters are to be tried again or dropped at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersRequest {
    /// Only those in this mailbox: an agent's name, or `subject:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Only those with a greater number: the `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only say how many there are.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was done to dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLettersChange {
    /// `dropped` or `retried`.
    pub change: String,
    /// How many of them.
    pub deliveries: u64,
    /// Nothing was changed: this is what would be.
    pub dry_run: bool,
    /// There are more than one request takes: ask again with this number as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A message that was sent, as those see it who follow what is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageEvent {
    /// Its position among all that was said in the workspace, from 1.
    pub position: u64,
    /// The conversation that it belongs to.
    pub conversation: String,
    /// Its number in the conversation, from 1.
    pub number: u64,
    /// When it was taken in.
    pub time: String,
    /// What it does: `request`, `inform`, and so on.
    pub performative: String,
    /// Who sent it.
    pub sender: String,
    /// Who receives it.
    pub receivers: Vec<String>,
    /// The message's id.
    pub id: String,
    /// The first 500 bytes of what it says, as long as the message is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What was said in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageEvents {
    /// The messages, in their order.
    pub events: Vec<MessageEvent>,
    /// The position up to which everything was looked at: what comes later is after it.
    pub reached: u64,
    /// There are more after that.
    pub more: bool,
}

/// How far a conversation is with one participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationParticipant {
    /// Who it is.
    pub participant: String,
    /// The state that the protocol is in with them.
    pub state: String,
}

/// A conversation of messages, with what was said in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationEvents {
    /// The conversation that was asked for.
    pub conversation: String,
    /// The protocol that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Who began it.
    pub initiator: String,
    /// Somebody has something more to say.
    pub open: bool,
    /// By when somebody has to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How far it is with each participant.
    pub participants: Vec<ConversationParticipant>,
    /// The messages after the number that was asked for.
    pub events: Vec<MessageEvent>,
    /// How many after that number are no longer kept.
    pub missed: u64,
    /// The number to ask for the next page after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
