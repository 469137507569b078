//! An agent of Caxton in Rust: it greets whoever sends it a request, and remembers how often it did.
//! `wit/caxton-agent.wit` is the whole interface, with comments.

wit_bindgen::generate!({ world: "agent", path: "wit" });

use caxton::agent::log::{self, Level};
use caxton::agent::state;
use caxton::agent::types::{Body, Content, Error, Message};
use exports::caxton::agent::handler::Guest;

struct Greeter;

impl Guest for Greeter {
    /// One message, in an instance of its own: what is to be remembered belongs into the state.
    fn handle(message: Message) -> Result<Vec<Message>, Error> {
        match message.performative.as_str() {
            "request" => Ok(vec![greet(&message)?]),
            // That it was deployed, for example.
            "inform" => Ok(Vec::new()),
            other => Err(Error::NotUnderstood(format!("this agent takes request and inform, not {other}"))),
        }
    }
}

fn greet(message: &Message) -> Result<Message, Error> {
    let sender = message.sender.clone().unwrap_or_default();
    let times = state::get(&sender).and_then(|times| times.parse::<u64>().ok()).unwrap_or(0) + 1;
    // Nothing that is sent or kept counts where the message is answered with an error.
    state::set(&sender, &times.to_string()).map_err(Error::Refused)?;
    log::write(Level::Info, &format!("greets {sender}"));
    Ok(reply(message, format!("Hello {sender}, for the {times}. time!")))
}

fn reply(to: &Message, text: String) -> Message {
    Message {
        performative: "inform".into(),
        sender: None,
        receivers: if to.reply_to.is_empty() { to.sender.clone().into_iter().collect() } else { to.reply_to.clone() },
        reply_to: Vec::new(),
        content: Some(Content { media_type: "text/plain".into(), body: Body::Text(text) }),
        language: None,
        encoding: None,
        ontology: None,
        protocol: to.protocol.clone(),
        conversation_id: to.conversation_id.clone(),
        reply_with: None,
        in_reply_to: to.reply_with.clone(),
        reply_by: None,
        extensions: Vec::new(),
    }
}

export!(Greeter);
