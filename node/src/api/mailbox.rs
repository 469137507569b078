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
    /// Its number.
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
    /// Its number.
    pub delivery: u64,
    /// `dropped` or `retried`.
    pub change: String,
}
