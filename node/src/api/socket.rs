//! What travels over a WebSocket: a frame of JSON in each direction. docs/asyncapi.yaml is made of these types.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The longest `id` that a client gives, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// What a client sends. `id` is the client's own, and names what comes of the frame; 1 to 64 bytes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientFrame {
    /// Says who it is, where the request for the connection had no header `Authorization`: the first frame then.
    Authenticate {
        /// The token, as the header would have it behind `Bearer`.
        token: String,
    },
    /// Begins to follow something: `subscribed`, then an `event` for each thing that was there and for each that comes.
    Subscribe {
        /// Names the subscription until it ends.
        id: String,
        /// The workspace that it is about.
        workspace: String,
        /// What is followed.
        to: Target,
        /// The number of the last event seen: it goes on after that one. Without it, it begins with the oldest that is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// Ends a subscription, or stops listening to an agent that is asked: `end`.
    Unsubscribe {
        /// Names what is to end.
        id: String,
    },
    /// Sends a message to mailboxes: `reply` with the body that `POST .../mailbox` answers with.
    Send {
        /// Names what comes of it.
        id: String,
        /// The workspace that it is about.
        workspace: String,
        /// The body of `POST .../mailbox`.
        #[schema(value_type = Object)]
        request: Value,
    },
    /// Asks an agent: an `event` for each step, the last of which is `answered` or `waiting`, and `end`.
    Ask {
        /// Names what comes of it.
        id: String,
        /// The workspace that it is about.
        workspace: String,
        /// The body of `POST .../messages`.
        #[schema(value_type = Object)]
        request: Value,
    },
}

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// A conversation with agents, by its id: events named `turn`.
    Conversation(String),
    /// A conversation of messages between agents and people, by its id: events named `message`.
    Messages(String),
    /// The mailbox of an agent, or of a person as `subject:NAME`: events named `delivery`.
    Mailbox(String),
    /// One's own mailbox: events named `delivery`.
    OwnMailbox,
    /// The end of a turn, by its id: one event `answered` or `waiting`, or an error.
    Turn(String),
}

/// What a node sends.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The token is good: the first frame of every connection.
    Authenticated {
        /// Whose token it is.
        subject: String,
        /// What it allows: `viewer`, `caller`, `deployer` or `admin`.
        role: String,
    },
    /// A subscription has begun.
    Subscribed {
        /// Names the subscription, as the client said it.
        id: String,
    },
    /// Something that was followed came, or a step of an agent that was asked.
    Event {
        /// What it belongs to.
        id: String,
        /// Its number, which grows: in a conversation, among deliveries, or among the steps of a turn, from 1.
        number: u64,
        /// What it is: `turn`, `message`, `delivery`, or the name of a `TurnEvent`.
        event: String,
        /// A `TurnRecord`, a `MessageEvent`, a `Delivery` or a `TurnEvent`.
        #[schema(value_type = Object)]
        data: Value,
    },
    /// What came of a `send`.
    Reply {
        /// Names the `send` that is answered.
        id: String,
        /// A `SendResponse`, as `POST .../mailbox` answers it.
        #[schema(value_type = Object)]
        data: Value,
    },
    /// Nothing more comes under this id, which can be used again.
    End {
        /// Names what has ended.
        id: String,
    },
    /// Something was refused or broke off: what the id names, which can be used again, or without one the connection, which
    /// is closed then.
    Error {
        /// What it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What happened, and what to do.
        problem: super::Problem,
    },
}
