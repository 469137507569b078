//! What a shard keeps: the entries of its log, the rows that are made of them, and the documents of turns that are not
//! over. These are plain values without behaviour; the node maps its own types to them, and HTTP its bodies.
//!
//! There are two forms of each, see [`Format`]: JSON, and protobuf in the messages of shard.proto. Both stay on disk for
//! years. Change the one only by adding fields to the .proto file, the other not at all, and keep the golden files.

mod check;
mod clear;
mod command;
mod envelope;
mod error;
#[cfg(test)]
mod golden;
mod journal;
mod json;
mod message;
mod pb;
#[cfg(test)]
mod properties;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
mod text;
mod wire;

pub use crate::Format;
pub use check::{CheckError, RUN_DEPTH_MAX};
pub use clear::ClearWorkspace;
pub use command::{Abandon, Command, DocumentKind, Ending, Forget, Keep, Piece, Suspension, TurnRecord};
pub use envelope::Envelope;
pub use error::{DecodeError, EncodeError};
pub use journal::{
    Action, AskCapability, Beginning, Call, CallResult, Decision, Finish, Gate, Limits, ListCapabilities, Outcome,
    Phase, Repetition, Reply, Run, Slot, SlotState, Step, ToolDefinition, TurnSpent, TurnState,
};
pub use message::{
    Approval, Attachment, AttachmentInfo, COUNT_MAX, Content, Failure, Message, Part, Route, Spent, TIME_MS_MAX,
    ToolCall, Usage,
};
pub use text::{JSON_BYTES_MAX, JSON_DEPTH_MAX, JSON_DEPTH_READ, JsonError, JsonText, json_depth};
pub use wire::Written;
