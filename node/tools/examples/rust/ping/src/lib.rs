//! An agent that sends `ping` to the agent `pong`, and the next one for each `pong`. It begins once it is deployed, or with a
//! request.

wit_bindgen::generate!({ world: "agent", path: "../../../wit/agent" });

use caxton::agent::state;
use caxton::agent::types::{Body, Content, Error, Message};
use exports::caxton::agent::handler::Guest;
use heap as _;

/// The state's key for the number of the last ping.
const SENT: &str = "sent";
/// How long a ping lies in pong's mailbox before it is handled, in milliseconds: two agents that talk are to burn no machine.
const DELAY_MS: &str = "500";

struct Ping;

impl Guest for Ping {
    fn handle(message: Message) -> Result<Vec<Message>, Error> {
        let from_platform = message.sender.as_deref() == Some("platform:");
        match message.performative.as_str() {
            "request" => {
                let ping = ping(None)?;
                Ok(vec![answer(&message, "pinging pong"), ping])
            }
            // It was deployed. Where it had sent something before, that goes on by itself.
            "inform" if from_platform && state::get(SENT).is_some() => Ok(Vec::new()),
            "inform" if from_platform => Ok(vec![ping(None)?]),
            "inform" => Ok(vec![ping(message.conversation_id)?]),
            other => Err(Error::NotUnderstood(format!("ping takes request and inform, not {other}"))),
        }
    }
}

/// The next ping, counted, in the conversation of the one before.
fn ping(conversation_id: Option<String>) -> Result<Message, Error> {
    let number = state::get(SENT).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
    state::set(SENT, &number.to_string()).map_err(Error::Failed)?;
    Ok(Message {
        receivers: vec!["pong".into()],
        conversation_id,
        reply_with: Some(format!("ping-{number}")),
        extensions: vec![("X-Delay-Ms".into(), DELAY_MS.into())],
        ..said("request", format!("ping {number}"))
    })
}

fn answer(to: &Message, text: &str) -> Message {
    let receivers = if to.reply_to.is_empty() { to.sender.clone().into_iter().collect() } else { to.reply_to.clone() };
    Message {
        receivers,
        protocol: to.protocol.clone(),
        conversation_id: to.conversation_id.clone(),
        in_reply_to: to.reply_with.clone(),
        ..said("inform", text.into())
    }
}

fn said(performative: &str, text: String) -> Message {
    Message {
        performative: performative.into(),
        sender: None,
        receivers: Vec::new(),
        reply_to: Vec::new(),
        content: Some(Content { media_type: "text/plain".into(), body: Body::Text(text) }),
        language: None,
        encoding: None,
        ontology: None,
        protocol: None,
        conversation_id: None,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        extensions: Vec::new(),
    }
}

export!(Ping);
