//! An agent that begins with a request, sends `ping` to the agent `pong`, and sends the next one for each `pong`.

wit_bindgen::generate!({ world: "agent", path: "../../../wit/agent" });

use caxton::agent::state;
use caxton::agent::types::{Body, Content, Error, Message};
use exports::caxton::agent::handler::Guest;
use heap as _;

/// The state's key for the number of the last ping.
const SENT: &str = "sent";

struct Ping;

impl Guest for Ping {
    fn handle(message: Message) -> Result<Vec<Message>, Error> {
        match message.performative.as_str() {
            "request" => {
                let ping = ping()?;
                Ok(vec![answer(&message, "pinging pong"), ping])
            }
            "inform" => Ok(vec![ping()?]),
            other => Err(Error::NotUnderstood(format!("ping takes request and inform, not {other}"))),
        }
    }
}

/// The next ping, counted.
fn ping() -> Result<Message, Error> {
    let number = state::get(SENT).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
    state::set(SENT, &number.to_string()).map_err(Error::Failed)?;
    Ok(Message {
        receivers: vec!["pong".into()],
        reply_with: Some(format!("ping-{number}")),
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
