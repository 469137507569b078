//! A message from outside becomes one that can be walked with, or is refused with everything that is wrong with it.

use std::collections::BTreeMap;

use caxton_proto::manifest::agent::PARAMETERS_MAX;
use caxton_proto::manifest::prompt::{LIST_MAX, Parameter, Parameters, is_parameter_name};
use caxton_proto::{AgentName, Digest, WorkspaceId};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::InvokeError;
use super::mail_turns::{MAIL_TURN, mailed};
use crate::agent::attachments::{Attachment, Shelf, Visible, from_base64};
use crate::agent::run::Opening;
use crate::api::messages::{
    ATTACHMENT_BYTES_MAX, ATTACHMENTS_MAX, Content, KEY_BYTES_MAX, MessageRequest, TEXT_BYTES_MAX,
};
use crate::conversations::check_id;
use crate::llm::{Message, ReplyOptions, ToolDefinition};

/// Images in one message.
const IMAGES_MAX: usize = 16;
/// The longest address of an image, in bytes; `data:` addresses carry the image.
const IMAGE_BYTES_MAX: usize = 8 << 20;

/// What stands before instructions that a sender brings.
const SENDER_SAYS: &str = "[the sender's own instructions]";

/// A message that can be walked with.
pub(super) struct CheckedMessage {
    pub text: String,
    pub agent: Option<AgentName>,
    pub capability: Option<String>,
    pub conversation: String,
    /// The sender named the conversation, so that it may have a history.
    pub continues: bool,
    /// The conversation is begun under the name that the sender gave it, if there is none.
    pub creates: bool,
    /// The text alone says which agent is meant.
    pub reroutes: bool,
    parameters: Parameters,
    attachments: Vec<Attachment>,
    images: Vec<String>,
}

/// What the key of a message says: which turn it is, whoever asks for it again, and what was asked.
pub(super) struct MessageKey {
    pub turn: String,
    pub asked: String,
}

impl MessageKey {
    pub(super) fn of(
        workspace: &WorkspaceId,
        subject: &str,
        request: &MessageRequest,
        client: &ClientTurn,
    ) -> Option<MessageKey> {
        let key = request.idempotency_key.as_deref()?;
        let id = keyed(workspace, subject, key);
        let same = MessageRequest { idempotency_key: None, stream: false, detached: false, ..request.clone() };
        let mut asked = Digest::of(&serde_json::to_vec(&same).unwrap_or_default());
        if client.keeps_history {
            let brought = (&client.history, &client.after, &client.tools, &client.options);
            let brought = Digest::of(&serde_json::to_vec(&brought).unwrap_or_default());
            asked = Digest::of_parts([asked.as_bytes().as_slice(), brought.as_bytes().as_slice()]);
        }
        // The key of a message says which one it is, whatever words a turn gets for it by this program and this agent's file.
        if client.mailed {
            return Some(MessageKey { turn: mailed(&id), asked: id });
        }
        Some(MessageKey { turn: id, asked: short(asked) })
    }

    /// The turn of a message of a mailbox.
    pub(super) fn mailed(workspace: &WorkspaceId, subject: &str, key: &str) -> String {
        mailed(&keyed(workspace, subject, key))
    }
}

/// What a key of a subject stands for in a workspace: somebody else's key is another one.
fn keyed(workspace: &WorkspaceId, subject: &str, key: &str) -> String {
    let whose = [workspace.as_str(), subject, key].map(|part| Digest::of(part.as_bytes()));
    short(Digest::of_parts(whose.iter().map(|part| part.as_bytes().as_slice())))
}

fn short(digest: Digest) -> String {
    hex::encode(&digest.as_bytes()[..16])
}

/// What a sender that keeps the conversation by itself brings along; nothing, for one that does not.
#[derive(Debug, Default)]
pub struct ClientTurn {
    /// A message of a mailbox begins the turn.
    pub mailed: bool,
    /// The sender keeps the history: what this node knows of the conversation is left out.
    pub keeps_history: bool,
    /// Everything before the request.
    pub history: Vec<Message>,
    /// Calls that were made for the request already, with their results.
    pub after: Vec<Message>,
    /// Tools that the sender calls by itself.
    pub tools: Vec<ToolDefinition>,
    /// What it asks of the model's replies.
    pub options: ReplyOptions,
    /// Cancelled when nobody waits for the answer any more, which stops the turn.
    pub left: Option<CancellationToken>,
}

impl ClientTurn {
    /// Instructions that the sender brings are the sender's words. They stand beside the agent's own only for senders who could
    /// have written the agent's file; what others write reads as what it is, a wish of whoever asks.
    pub(super) fn speak_as_sender(&mut self, deploys: bool) {
        if deploys {
            return;
        }
        for message in self.history.iter_mut().chain(&mut self.after) {
            if let Message::System { text } = message {
                *message = Message::user(format!("{SENDER_SAYS}\n{text}"));
            }
        }
    }
}

pub(super) fn check(request: MessageRequest, is_mailed: bool) -> Result<CheckedMessage, InvokeError> {
    let mut problems = Vec::new();
    // An image says something by itself, but not who is meant.
    let is_addressed = request.agent.is_some() || request.capability.is_some() || request.conversation.is_some();
    if request.text.trim().is_empty() && request.images.is_empty() {
        problems.push("`text` is empty: say what you want".to_owned());
    } else if request.text.trim().is_empty() && !is_addressed {
        problems.push("`text` is empty, and an image finds no agent: name one, or say what you want".to_owned());
    }
    if request.text.len() > TEXT_BYTES_MAX {
        problems.push(format!("`text` has {} bytes, and {TEXT_BYTES_MAX} is the most", request.text.len()));
    }
    if request.agent.is_some() && request.capability.is_some() {
        problems.push("`agent` and `capability` are both there: name one of them, or neither".to_owned());
    }
    if request.create && request.conversation.is_none() {
        problems.push("`create` goes with `conversation`: say under which id, or leave both out".to_owned());
    }
    if let Some(Err(problem)) = request.conversation.as_deref().map(check_id) {
        problems.push(format!("`conversation`: {problem}"));
    }
    if !is_mailed && request.conversation.as_deref().is_some_and(|id| id.starts_with(MAIL_TURN)) {
        problems.push(format!(
            "`conversation`: what begins with `{MAIL_TURN}` is for messages of mailboxes; send one, or name another"
        ));
    }
    if request.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
        problems.push(format!("`idempotency_key` has 1 to {KEY_BYTES_MAX} bytes"));
    }
    let parameters = parameters_of(&request.parameters, &mut problems);
    if request.attachments.len() > ATTACHMENTS_MAX {
        problems.push(format!("{} attachments, and {ATTACHMENTS_MAX} are the most", request.attachments.len()));
    }
    for file in &request.attachments {
        let bytes = file.content.len();
        if bytes > ATTACHMENT_BYTES_MAX {
            problems.push(format!(
                "the attachment `{}` has {bytes} bytes, and {ATTACHMENT_BYTES_MAX} is the most",
                file.name
            ));
        }
        if matches!(&file.content, Content::Base64(text) if from_base64(text).is_none()) {
            problems.push(format!("the attachment `{}` is not base64", file.name));
        }
    }
    if request.images.len() > IMAGES_MAX {
        problems.push(format!("{} images, and {IMAGES_MAX} are the most", request.images.len()));
    }
    for url in &request.images {
        let known = url.starts_with("https://") || url.starts_with("data:image/");
        if !known || url.len() > IMAGE_BYTES_MAX {
            problems.push("an image is an https:// address, or data:image/... of at most 8 MiB".to_owned());
        }
    }
    if !problems.is_empty() {
        return Err(InvokeError::Invalid { problems });
    }
    let continues = request.conversation.is_some();
    Ok(CheckedMessage {
        text: request.text,
        agent: request.agent,
        capability: request.capability.filter(|capability| !capability.trim().is_empty()),
        creates: request.create,
        reroutes: request.reroute,
        conversation: request.conversation.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string()),
        continues,
        parameters,
        attachments: request.attachments.into_iter().map(Into::into).collect(),
        images: request.images,
    })
}

/// The parameters that came with a message, or what is wrong with them.
fn parameters_of(given: &BTreeMap<String, Value>, problems: &mut Vec<String>) -> Parameters {
    if given.len() > PARAMETERS_MAX {
        problems.push(format!("`parameters` has {} entries, and {PARAMETERS_MAX} are the most", given.len()));
        return Parameters::new();
    }
    let mut parameters = Parameters::new();
    let mut bytes = 0;
    for (name, value) in given {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        if !is_parameter_name(name) {
            problems.push(format!("`parameters`: `{shown}` cannot be a name; use letters, digits, `_` and `-`"));
            continue;
        }
        match parameter_of(value) {
            Some(parameter) => {
                bytes += parameter.to_string().len();
                parameters.insert(name.clone(), parameter);
            }
            None => problems.push(format!(
                "`parameters`: `{shown}` has to be text, a number, a boolean, or a list of at most {LIST_MAX} of these"
            )),
        }
    }
    if bytes > TEXT_BYTES_MAX {
        problems
            .push(format!("`parameters` has {bytes} bytes, and {TEXT_BYTES_MAX} are the most; send a file instead"));
    }
    parameters
}

fn parameter_of(value: &Value) -> Option<Parameter> {
    match value {
        Value::String(text) => Some(Parameter::Text(text.clone())),
        Value::Bool(value) => Some(Parameter::Boolean(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(Parameter::Integer(whole)),
            // What is larger than that is shown as it came.
            None if number.is_u64() => Some(Parameter::Text(number.to_string())),
            None => number.as_f64().filter(|number| number.is_finite()).map(Parameter::Number),
        },
        Value::Array(values) if values.len() <= LIST_MAX && !values.iter().any(Value::is_array) => {
            values.iter().map(parameter_of).collect::<Option<_>>().map(Parameter::List)
        }
        Value::Array(_) | Value::Object(_) | Value::Null => None,
    }
}

impl CheckedMessage {
    /// Puts the files that came with it on the shelf, and says under which names.
    pub(super) fn shelve(&mut self, shelf: &Shelf) -> Result<Visible, InvokeError> {
        let named = std::mem::take(&mut self.attachments).into_iter().map(|file| shelf.add(file));
        named.collect::<Result<_, _>>().map_err(|full| InvokeError::Invalid { problems: vec![full.to_string()] })
    }

    /// What a run of it begins with, but for the files.
    pub(super) fn into_opening(self, client: ClientTurn, history: Vec<Message>, recalled: String) -> Opening {
        let ClientTurn { keeps_history, history: brought, after, tools: sender_tools, options, left: _, mailed: _ } =
            client;
        let history = if keeps_history { brought } else { history };
        let (request, parameters, images) = (self.text, self.parameters, self.images);
        Opening { request, parameters, recalled, images, history, after, sender_tools, options, ..Opening::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_the_same_turn_for_the_same_sender_whatever_is_asked() {
        let of = |workspace: &str, subject: &str, text: &str, stream: bool| {
            let key = Some("k".to_owned());
            let request =
                MessageRequest { text: text.into(), idempotency_key: key, stream, ..MessageRequest::default() };
            MessageKey::of(&workspace.parse().expect("a name"), subject, &request, &ClientTurn::default())
                .map(|it| (it.turn, it.asked))
                .expect("a key")
        };
        let first = of("team", "ada", "hi", false);
        assert_eq!(first, of("team", "ada", "hi", true));
        let other = of("team", "ada", "ho", false);
        assert_eq!((&other.0, other.1 == first.1), (&first.0, false));
        assert_ne!(first.0, of("team", "bob", "hi", false).0);
        assert_ne!(first.0, of("other", "ada", "hi", false).0);
        let none = MessageRequest::default();
        assert!(MessageKey::of(&"team".parse().expect("a name"), "ada", &none, &ClientTurn::default()).is_none());
    }

    #[test]
    fn the_turn_of_a_message_of_a_mailbox_is_found_by_its_key_alone() {
        let workspace = "team".parse().expect("a name");
        let of = |text: &str, mailed: bool| {
            let idempotency_key = Some("k".to_owned());
            let request = MessageRequest { text: text.into(), idempotency_key, ..MessageRequest::default() };
            let client = ClientTurn { mailed, ..ClientTurn::default() };
            let key = MessageKey::of(&workspace, "ada", &request, &client).expect("a key");
            (key.turn, key.asked)
        };
        assert_eq!(of("hi", true).0, MessageKey::mailed(&workspace, "ada", "k"));
        assert_ne!(of("hi", true).0, of("hi", false).0);
        assert_eq!(of("hi", true), of("the same in other words", true));
        assert_ne!(of("hi", false), of("something else", false));
    }

    #[test]
    fn the_conversations_of_mailboxes_are_for_their_messages() {
        let request = MessageRequest {
            text: "hi".into(),
            conversation: Some("mail-0123".into()),
            create: true,
            ..MessageRequest::default()
        };
        assert!(check(request.clone(), true).is_ok());
        let Err(InvokeError::Invalid { problems }) = check(request, false) else { panic!("it is not theirs") };
        assert!(problems.len() == 1 && problems[0].contains("mail-"), "{problems:?}");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let request = MessageRequest {
            text: " ".into(),
            agent: Some("a".parse().expect("a name")),
            capability: Some("b".into()),
            conversation: Some("no/slash".into()),
            attachments: vec![crate::api::messages::Attachment {
                name: "x".into(),
                media_type: "image/png".into(),
                content: Content::Base64("not base64!".into()),
            }],
            images: vec!["file:///etc/passwd".into()],
            parameters: [("a b".to_owned(), 1.into()), ("n".to_owned(), Value::Null)].into(),
            idempotency_key: Some(String::new()),
            ..MessageRequest::default()
        };
        let Err(InvokeError::Invalid { problems }) = check(request, false) else { panic!("it is wrong") };
        assert_eq!(problems.len(), 7, "{problems:?}");
    }

    #[test]
    fn parameters_are_text_numbers_booleans_and_lists_of_these() {
        let given = serde_json::json!({ "a": "x", "b": -1, "c": 1.5, "d": true, "e": ["y", 2], "f": u64::MAX });
        let request = MessageRequest {
            text: "hi".into(),
            parameters: serde_json::from_value(given).expect("parameters"),
            ..MessageRequest::default()
        };
        let checked = check(request, false).expect("fine");
        let shown: Vec<String> = checked.parameters.values().map(ToString::to_string).collect();
        assert_eq!(shown, ["x", "-1", "1.5", "true", "y, 2", "18446744073709551615"]);
        let many = (0..=PARAMETERS_MAX).map(|n| (format!("p{n}"), Value::from(n))).collect();
        let nested = [("l".to_owned(), serde_json::json!([[1]]))].into();
        let long = [("l".to_owned(), Value::from("x".repeat(TEXT_BYTES_MAX + 1)))].into();
        for parameters in [many, nested, long] {
            let request = MessageRequest { text: "hi".into(), parameters, ..MessageRequest::default() };
            let Err(InvokeError::Invalid { problems }) = check(request, false) else { panic!("it is wrong") };
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
    }

    #[test]
    fn a_new_conversation_gets_an_id() {
        let request = MessageRequest { text: "hi".into(), ..MessageRequest::default() };
        let checked = check(request, false).expect("fine");
        assert!(!checked.continues && check_id(&checked.conversation).is_ok());
    }
}
