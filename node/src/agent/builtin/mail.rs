//! The tools by which a model sends messages: their definitions, what their arguments say, and the messages that they become.

use std::sync::Arc;

use caxton_proto::acl::{Address, CONTENT_BYTES_MAX, Content, Message, Pattern, Performative, Priority, Topic};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::llm::ToolDefinition;

/// How long a turn waits for answers unless its call says so, in seconds.
const WAIT_S: u64 = 60;
/// How long it waits at most, in seconds: a week.
const WAIT_S_MAX: u64 = 7 * 86_400;

/// A tool by which a model sends messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTool {
    /// Sends a message, and may wait for the answers.
    SendMessage,
    /// Answers the message that began the turn.
    Reply,
    /// Sends to a topic.
    Publish,
    /// Has what is published on topics delivered.
    Subscribe,
    /// Calls for proposals, and waits for them.
    CallForProposals,
    /// Accepts proposals and rejects all others.
    Award,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Who receives it: addresses, each once.
    pub to: OneOrMany,
    /// What it says: text or any JSON.
    pub content: Value,
    /// What it does; `inform` unless told.
    #[serde(default)]
    pub performative: Option<String>,
    /// The interaction protocol, by FIPA's name.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The conversation that it goes on with.
    #[serde(default)]
    pub conversation: Option<String>,
    /// What the message that it answers said in `reply_with`.
    #[serde(default)]
    pub in_reply_to: Option<String>,
    /// How urgent it is, from 0 to 7.
    #[serde(default)]
    pub priority: Option<u64>,
    /// Whether the turn goes on only once everybody has answered.
    #[serde(default)]
    pub wait: bool,
    /// For how many seconds it waits at most.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
}

/// An answer to the message that began the turn.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// What it does: `inform`, `propose`, `refuse` and so on.
    pub performative: String,
    /// What it says: text or any JSON.
    pub content: Value,
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The topic: levels between slashes.
    pub topic: String,
    /// What is said: text or any JSON.
    pub content: Value,
}

/// What is delivered from now on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// Which topics: `+` stands for one level and a last `#` for any number of them.
    pub topics: String,
    /// Conditions that a message has to meet, such as `content.amount>=100`.
    #[serde(default)]
    pub filter: Vec<String>,
    /// The position after which it begins; what is published from now on unless told.
    #[serde(default)]
    pub after: Option<u64>,
}

/// A call for proposals.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallForProposals {
    /// Who may bid: addresses, each once.
    pub to: OneOrMany,
    /// What is to be done: text or any JSON.
    pub task: Value,
    /// How many seconds they have.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
}

/// What becomes of proposals.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Award {
    /// The conversation of the call for proposals.
    pub conversation: String,
    /// Whose proposals are accepted; nobody's where it is empty.
    pub to: OneOrMany,
    /// What they are told.
    #[serde(default)]
    pub content: Option<Value>,
    /// Whether the turn goes on only once they have done it.
    #[serde(default)]
    pub wait: bool,
    /// For how many seconds it waits at most.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
}

/// One address, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One address alone.
    One(String),
    /// A list of addresses.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The addresses, each once; the error is for the model.
    pub fn addresses(&self) -> Result<Vec<Address>, String> {
        let texts = match self {
            OneOrMany::One(text) => std::slice::from_ref(text),
            OneOrMany::Many(texts) => texts,
        };
        let mut found: Vec<Address> = Vec::new();
        for text in texts {
            let address: Address = text.trim().parse().map_err(|error| format!("`to`: {error}"))?;
            if !found.contains(&address) {
                found.push(address);
            }
        }
        Ok(found)
    }
}

/// A time to wait, in milliseconds.
pub fn wait_ms(seconds: Option<u64>) -> Result<i64, String> {
    let seconds = seconds.unwrap_or(WAIT_S);
    match (1..=WAIT_S_MAX).contains(&seconds) {
        true => Ok(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)),
        false => Err(format!("`wait_seconds` has to be between 1 and {WAIT_S_MAX}")),
    }
}

/// A value of a model's as the content of a message: text stays text.
pub fn content(value: &Value) -> Result<Option<Content>, String> {
    let content = match value {
        Value::Null => return Ok(None),
        Value::String(text) => Content::text(text),
        other => Content::json(other.to_string()),
    };
    match content.bytes() <= CONTENT_BYTES_MAX {
        true => Ok(Some(content)),
        false => Err(format!("`content` has {} bytes, and {CONTENT_BYTES_MAX} is the most", content.bytes())),
    }
}

/// A performative as a model writes it.
pub fn performative(text: &str) -> Result<Performative, String> {
    Performative::read(text.trim()).map(|(performative, _)| performative).map_err(|error| error.to_string())
}

impl SendMessage {
    /// The message, with the sender and the receivers as they are named.
    pub fn message(&self) -> Result<Message, String> {
        let does = self.performative.as_deref().map_or(Ok(Performative::Inform), performative)?;
        let message = Message {
            content: content(&self.content)?,
            protocol: filled(&self.protocol),
            conversation_id: filled(&self.conversation),
            in_reply_to: filled(&self.in_reply_to),
            ..Message::new(does, self.to.addresses()?)
        };
        message.check().map_err(|error| error.to_string())?;
        self.priority()?;
        Ok(message)
    }

    /// How urgent it is.
    pub fn priority(&self) -> Result<Priority, String> {
        match self.priority {
            None => Ok(Priority::default()),
            Some(number) => Priority::new(number).ok_or_else(|| "`priority` is a number from 0 to 7".to_owned()),
        }
    }
}

impl Publish {
    /// The message to the topic.
    pub fn message(&self) -> Result<Message, String> {
        let topic: Topic = self.topic.trim().parse().map_err(|error| format!("`topic`: {error}"))?;
        let content = content(&self.content)?;
        let message = Message { content, ..Message::new(Performative::Inform, [Address::Topic(topic)]) };
        message.check().map_err(|error| error.to_string())?;
        Ok(message)
    }
}

impl Subscribe {
    /// The pattern of topics that is meant.
    pub fn pattern(&self) -> Result<Pattern, String> {
        self.topics.trim().parse().map_err(|error| format!("`topics`: {error}"))
    }
}

fn filled(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.trim().is_empty())
}

impl MailTool {
    /// All of them.
    pub const ALL: [MailTool; 6] = [
        MailTool::SendMessage,
        MailTool::Reply,
        MailTool::Publish,
        MailTool::Subscribe,
        MailTool::CallForProposals,
        MailTool::Award,
    ];

    /// The name by which a model calls it.
    pub fn name(self) -> &'static str {
        match self {
            MailTool::SendMessage => "send_message",
            MailTool::Reply => "reply",
            MailTool::Publish => "publish",
            MailTool::Subscribe => "subscribe",
            MailTool::CallForProposals => "call_for_proposals",
            MailTool::Award => "award",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<MailTool> {
        MailTool::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// The tool as a model is told of it.
    pub fn definition(self) -> ToolDefinition {
        let (description, parameters) = self.describe();
        let (name, description) = (self.name().to_owned(), description.to_owned());
        ToolDefinition { name, description, parameters: Arc::new(parameters) }
    }

    fn describe(self) -> (&'static str, Value) {
        let text = |description: &str| json!({ "type": "string", "description": description });
        let any = |description: &str| json!({ "description": description });
        let to = |description: &str| {
            let one = json!({ "type": "string" });
            json!({ "anyOf": [one, { "type": "array", "items": one }], "description": description })
        };
        let seconds = json!({ "type": "integer", "minimum": 1, "maximum": WAIT_S_MAX,
            "description": "For how many seconds at most; 60 unless told." });
        let wait = |description: &str| json!({ "type": "boolean", "description": description });
        let whom = "An agent's name, AGENT@WORKSPACE, capability:NAME, subject:NAME for a person, broadcast: for all agents, or \
                    a list.";
        match self {
            MailTool::SendMessage => (
                "Sends a message to agents or people, whether they are there or not.",
                json!({ "type": "object", "required": ["to", "content"], "properties": {
                    "to": to(whom),
                    "content": any("What it says: text or JSON."),
                    "performative": text("What it does: inform (unless told), request, query-ref, propose, cancel and so on."),
                    "protocol": text("FIPA's name of a protocol that is checked, such as fipa-request."),
                    "conversation": text("The conversation that it goes on with."),
                    "in_reply_to": text("The reply_with of the message that it answers."),
                    "priority": { "type": "integer", "minimum": 0, "maximum": 7, "description": "7 is the most urgent; 4 unless told." },
                    "wait": wait("Wait for the answers of everybody who receives it, and get them as a table."),
                    "wait_seconds": seconds,
                } }),
            ),
            MailTool::Reply => (
                "Answers the message that this turn is about. Without it, your answer's text is the reply. With it, that text \
                 is sent to nobody.",
                json!({ "type": "object", "required": ["performative", "content"], "properties": {
                    "performative": text("inform, agree, refuse, failure or not-understood; propose or refuse for a cfp."),
                    "content": any("What it says: text or JSON. A proposal has the fields cost (a number) and deadline (by when it is done)."),
                } }),
            ),
            MailTool::Publish => (
                "Publishes something on a topic, for everybody who has subscribed to it.",
                json!({ "type": "object", "required": ["topic", "content"], "properties": {
                    "topic": text("Levels between slashes, such as orders/new."), "content": any("What is said: text or JSON."),
                } }),
            ),
            MailTool::Subscribe => (
                "Has you given what is published on topics from now on, each time as a message of its own.",
                json!({ "type": "object", "required": ["topics"], "properties": {
                    "topics": text("A topic or a pattern: + stands for one level and a last # for any number, as in orders/#."),
                    "filter": { "type": "array", "items": { "type": "string" },
                        "description": "Conditions that have to hold, such as content.amount>=100 or sender=ann." },
                    "after": { "type": "integer", "minimum": 0, "description": "Begin after this position instead." },
                } }),
            ),
            MailTool::CallForProposals => (
                "Calls for proposals, waits until all have bid or the time is over, and gives the bids as a table. Award one \
                 afterwards: until then every bid stands.",
                json!({ "type": "object", "required": ["to", "task"], "properties": {
                    "to": to(whom), "task": any("What is to be done, complete: text or JSON."), "wait_seconds": seconds,
                } }),
            ),
            MailTool::Award => (
                "Accepts the proposals of some bidders and rejects all others: each is told once.",
                json!({ "type": "object", "required": ["conversation", "to"], "properties": {
                    "conversation": text("The conversation of the call for proposals."),
                    "to": to("Whose proposals are accepted, as the table names them; an empty list for nobody's."),
                    "content": any("What they are told."),
                    "wait": wait("Wait for what they make of it, and get that as a table."),
                    "wait_seconds": seconds,
                } }),
            ),
        }
    }
}

/// What a model's arguments say; the error is for the model.
pub fn parse<T: DeserializeOwned>(arguments: &Value) -> Result<T, String> {
    T::deserialize(arguments).map_err(|error| format!("the arguments do not fit: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_described_and_reads_what_it_describes() {
        let examples = [
            json!({ "to": "ann", "content": "x", "wait": true, "wait_seconds": 5, "performative": "request" }),
            json!({ "performative": "propose", "content": { "cost": 3 } }),
            json!({ "topic": "a/b", "content": [1] }),
            json!({ "topics": "a/#", "filter": ["sender=ann"] }),
            json!({ "to": ["ann", "capability:charts"], "task": "paint" }),
            json!({ "conversation": "c1", "to": [], "wait": false }),
        ];
        for (tool, arguments) in MailTool::ALL.into_iter().zip(&examples) {
            assert_eq!(MailTool::of(tool.name()), Some(tool));
            let definition = tool.definition();
            let properties = definition.parameters["properties"].as_object().expect("properties").clone();
            let named = arguments.as_object().expect("an object").keys();
            named.for_each(|name| assert!(properties.contains_key(name), "{tool:?} {name}"));
            let read = match tool {
                MailTool::SendMessage => parse::<SendMessage>(arguments).map(drop),
                MailTool::Reply => parse::<Reply>(arguments).map(drop),
                MailTool::Publish => parse::<Publish>(arguments).map(drop),
                MailTool::Subscribe => parse::<Subscribe>(arguments).map(drop),
                MailTool::CallForProposals => parse::<CallForProposals>(arguments).map(drop),
                MailTool::Award => parse::<Award>(arguments).map(drop),
            };
            assert_eq!(read, Ok(()), "{tool:?}");
        }
    }

    #[test]
    fn what_a_model_writes_becomes_a_message_or_says_what_is_wrong() {
        let send = |arguments: Value| parse::<SendMessage>(&arguments).and_then(|it| it.message());
        let message = send(json!({ "to": ["ann", "ann"], "content": { "a": 1 } })).expect("a message");
        assert_eq!((message.performative, message.receivers.len()), (Performative::Inform, 1));
        assert_eq!(message.content, Some(Content::json("{\"a\":1}")));
        for (arguments, part) in [
            (json!({ "to": "a@B!", "content": "x" }), "AGENT@WORKSPACE"),
            (json!({ "to": [], "content": "x" }), "say who receives it"),
            (json!({ "to": "ann", "content": "x", "performative": "shout" }), "use one of"),
            (json!({ "to": "ann", "content": "x", "priority": 9 }), "0 to 7"),
            (json!({ "to": "ann" }), "do not fit"),
            (json!({ "to": "platform:", "content": "x" }), "nobody can write"),
        ] {
            let problem = send(arguments).expect_err("refused");
            assert!(problem.contains(part), "{part}: {problem}");
        }
        assert!(wait_ms(Some(0)).is_err() && wait_ms(Some(WAIT_S_MAX + 1)).is_err());
        assert_eq!(wait_ms(None), Ok(60_000));
    }
}
