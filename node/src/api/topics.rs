//! Topics as they travel: subscriptions, what is published, and what was published before. Times are RFC 3339.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A subscription to be made, or to be changed where one of its name is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeRequest {
    /// Which topics: levels between slashes, where `+` stands for one level and a last `#` for any number of them.
    pub pattern: String,
    /// Its name, of 128 bytes at most: the pattern unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who receives what is published: whoever asks unless told. An agent's name, or `subject:NAME`, needs the role deployer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<String>,
    /// Conditions on the message, all of which have to hold, such as `content.amount>=100`: 16 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<String>,
    /// The position after which it begins, 0 for all that is kept. Without it, one that is there goes on from its own, and a
    /// new one has what is published from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// A subscription that stands, or that was ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionChange {
    /// `subscribed` or `unsubscribed`.
    pub change: String,
    /// Whose it is.
    pub subscriber: String,
    /// The name by which it is ended.
    pub name: String,
    /// The last position that it has seen.
    pub position: u64,
}

/// A subscription, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionInfo {
    /// The name by which it is ended.
    pub name: String,
    /// Who receives what is published.
    pub subscriber: String,
    /// Which topics are meant.
    pub pattern: String,
    /// Conditions on the message, all of which have to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<String>,
    /// The last position that it has seen.
    pub position: u64,
    /// How many publications it had yet to see when they were no longer kept.
    pub missed: u64,
}

/// A page of subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionPage {
    /// The subscriptions, in the order in which they were made.
    pub subscriptions: Vec<SubscriptionInfo>,
    /// The number to ask for the next page after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A topic with what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicInfo {
    /// The topic as it was published on.
    pub topic: String,
    /// How many publications of it are kept.
    pub publications: u64,
    /// The position of the oldest of them.
    pub first: u64,
    /// The position of the newest of them.
    pub last: u64,
}

/// A page of topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicPage {
    /// The topics of which publications are kept, by their names.
    pub topics: Vec<TopicInfo>,
    /// The name to ask for the next page after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A message to be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Where: levels between slashes, without `+` and `#`.
    pub topic: String,
    /// What it says: text, or any JSON value.
    #[schema(value_type = Object)]
    pub content: Box<serde_json::value::RawValue>,
    /// The media type of the content.
    #[serde(default)]
    pub content_type: Option<String>,
    /// What it does: `inform` unless told.
    #[serde(default)]
    pub performative: Option<String>,
    /// How urgent it is, from 0 to 7, the most urgent: 4 unless told.
    #[serde(default)]
    pub priority: Option<u64>,
    /// The sender's key: the same message sent again with it is published once.
    #[serde(default)]
    pub key: Option<String>,
    /// From when on nobody wants it any more: never unless told.
    #[serde(default)]
    pub expires: Option<String>,
}

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PublicationInfo {
    /// Its position among all that the workspace publishes.
    pub position: u64,
    /// Where it was published.
    pub topic: String,
    /// When it was taken in.
    pub time: String,
    /// The message's id.
    pub id: String,
    /// The message with FIPA's fields.
    #[schema(value_type = Object)]
    pub message: Value,
}

/// What was published, from a position on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PublicationPage {
    /// The messages, in the order of their positions.
    pub publications: Vec<PublicationInfo>,
    /// The position up to which everything was looked at: what comes later is after it.
    pub reached: u64,
    /// There are more after that.
    pub more: bool,
    /// How many after the position that was asked for are no longer kept.
    pub missed: u64,
}
