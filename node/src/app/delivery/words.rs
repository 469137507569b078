//! A message in words: as the turn that it begins, and as a model reads it.

use caxton_messages::Ready;
use caxton_messages::acl::{Address, Body, CONTENT_BYTES_MAX, Content, Message, Performative};
use caxton_proto::{AgentName, Digest};

use crate::api::messages::MessageRequest;
use crate::recalled::UNTRUSTED_MARK;

/// Now, in milliseconds since 1970.
pub(in crate::app) fn now_ms() -> i64 {
    i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX)
}

/// The beginning of a text, of so many bytes at most.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// A text as content, as much of it as a message may have.
pub(super) fn said(text: &str) -> Content {
    Content::text(&text[..text.floor_char_boundary(CONTENT_BYTES_MAX)])
}

/// In whose name an agent handles a message.
pub(super) fn subject(message: &Message) -> String {
    match &message.sender {
        Some(Address::Subject(subject)) => subject.as_str().to_owned(),
        // Never the name of a person, whose memories and conversations it would reach.
        sender => format!("agent:{}", sender.as_ref().map(Address::to_string).unwrap_or_default()),
    }
}

/// The same for every attempt in one round of a delivery; `turn` counts the turns before that no provider answered.
pub(super) fn turn_key(ready: &Ready, turn: u32) -> String {
    let key = format!("mailbox-{}-{}-{}", ready.submission.id, ready.delivery, ready.round);
    if turn == 0 { key } else { format!("{key}-{turn}") }
}

/// The conversation of the turns of a message: one of the agent's own for each sender and conversation.
pub(super) fn conversation(agent: &AgentName, ready: &Ready) -> String {
    let message = &ready.submission.message;
    let id = ready.submission.id.to_string();
    let talk = message.conversation_id.as_deref().unwrap_or(&id);
    let whose = Digest::of_parts([agent.as_str(), "\n", &subject(message), "\n", talk].map(str::as_bytes));
    format!("mail-{}", hex::encode(&whose.as_bytes()[..16]))
}

/// The message as a turn of the agent's.
pub(super) fn request(agent: &AgentName, ready: &Ready, with_tools: bool, turn: u32) -> MessageRequest {
    MessageRequest {
        text: told(ready, with_tools),
        agent: Some(agent.clone()),
        conversation: Some(conversation(agent, ready)),
        create: true,
        detached: true,
        idempotency_key: Some(turn_key(ready, turn)),
        ..MessageRequest::default()
    }
}

/// A message as a model reads it.
pub(super) fn told(ready: &Ready, with_tools: bool) -> String {
    let message = &ready.submission.message;
    let id = ready.submission.id.to_string();
    let sender = message.sender.as_ref().map(Address::to_string).unwrap_or_default();
    let content = match message.content.as_ref().map(|content| (&content.body, &content.media_type)) {
        None => String::new(),
        Some((Body::Text(text) | Body::Json(text), _)) => text.clone(),
        Some((Body::Bytes(bytes), kind)) => format!("({} bytes of {kind})", bytes.len()),
        Some((Body::Artifact { digest, bytes }, kind)) => format!("(artifact {digest}, {bytes} bytes of {kind})"),
    };
    // What a person says is what it is; an agent may have read anything.
    let mark = match message.sender {
        Some(Address::Subject(_)) => String::new(),
        Some(_) | None => format!(" ({UNTRUSTED_MARK})"),
    };
    let mut header = format!("[{} from {sender}{mark}", message.performative);
    let conversation = message.conversation_id.as_deref().unwrap_or(&id);
    header.push_str(&format!(", conversation {conversation}"));
    let by = message.reply_by_ms.and_then(|ms| u64::try_from(ms).ok()).map(crate::time::rfc3339);
    for (name, value) in [("protocol", message.protocol.clone()), ("to be answered by", by)] {
        if let Some(value) = value {
            header.push_str(&format!(", {name} {value}"));
        }
    }
    let hint = match (message.performative, with_tools) {
        (Performative::Cfp, true) => {
            "\n\n[Bid with `reply`: `propose` with the fields cost (a number) and deadline (by when it is done) in its content, or \
             `refuse`.]"
        }
        (Performative::Cfp, false) => {
            "\n\n[Your answer is your bid: a JSON object with the fields cost (a number) and deadline (by when it is done).]"
        }
        _ => "",
    };
    format!("{header}]\n{content}{hint}")
}
