//! An agent that answers each request with `pong` and the number that was in it.

wit_bindgen::generate!({ world: "plain-agent", path: "../../../wit/agent" });

use caxton::agent::types::{Body, Content, Error, Message};
use exports::caxton::agent::handler::Guest;
use heap as _;

struct Pong;

impl Guest for Pong {
    fn handle(message: Message) -> Result<Vec<Message>, Error> {
        if message.performative != "request" {
            return Err(Error::NotUnderstood(format!("pong takes request, not {}", message.performative)));
        }
        let Some(Content { body: Body::Text(text), .. }) = message.content else {
            return Err(Error::NotUnderstood("pong takes text".into()));
        };
        let number = text.strip_prefix("ping ").unwrap_or(&text);
        let receivers = if message.reply_to.is_empty() { message.sender.into_iter().collect() } else { message.reply_to };
        Ok(vec![Message {
            performative: "inform".into(),
            sender: None,
            receivers,
            reply_to: Vec::new(),
            content: Some(Content { media_type: "text/plain".into(), body: Body::Text(format!("pong {number}")) }),
            language: message.language,
            encoding: None,
            ontology: message.ontology,
            protocol: message.protocol,
            conversation_id: message.conversation_id,
            reply_with: None,
            in_reply_to: message.reply_with,
            reply_by: None,
            extensions: Vec::new(),
        }])
    }
}

export!(Pong);
