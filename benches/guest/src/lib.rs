//! The agent of the benchmark of messages: it answers requests with what they say, plays a ball back and forth, and bids.
//!
//! `request` with `serve 7 right ...` sends the ball to the agent `right`: an `inform` with `7 ...`. Whoever has the ball sends it
//! back with one less, and at 0 tells whoever had it served, in `reply-to`. What the platform says is listened to.

wit_bindgen::generate!({ world: "plain-agent", path: "../../node/tools/wit/agent" });

use caxton::agent::types::{Body, Content, Error, Message};
use exports::caxton::agent::handler::Guest;
use heap as _;

struct Partner;

impl Guest for Partner {
    fn handle(message: Message) -> Result<Vec<Message>, Error> {
        if message.sender.as_deref() == Some("platform:") {
            return Ok(Vec::new());
        }
        let text = match &message.content {
            Some(Content { body: Body::Text(text) | Body::Json(text), .. }) => text.clone(),
            _ => String::new(),
        };
        let answers = match message.performative.as_str() {
            "request" => match text.strip_prefix("serve ").map(|rest| rest.splitn(3, ' ').collect::<Vec<_>>()) {
                Some(words) => vec![serve(&message, &words)?],
                None => vec![Message { protocol: message.protocol.clone(), ..answer(&message, "inform", text) }],
            },
            "inform" => vec![play(&message, &text)?],
            "cfp" => {
                let bid = "{\"cost\":10,\"deadline\":\"noon\"}".into();
                vec![Message { protocol: message.protocol.clone(), ..answer(&message, "propose", bid) }]
            }
            "accept-proposal" => {
                vec![Message { protocol: message.protocol.clone(), ..answer(&message, "inform", "done".into()) }]
            }
            _ => Vec::new(),
        };
        Ok(answers)
    }
}

/// The first ball, to the partner that is named.
fn serve(message: &Message, words: &[&str]) -> Result<Message, Error> {
    let [hits, partner, rest] = words else { return Err(Error::Refused("serve HITS PARTNER TEXT".into())) };
    let reply_to = message.sender.clone().into_iter().collect();
    Ok(Message {
        receivers: vec![(*partner).to_owned()],
        reply_to,
        in_reply_to: None,
        ..answer(message, "inform", format!("{hits} {rest}"))
    })
}

/// The ball goes back, or the game is over.
fn play(message: &Message, text: &str) -> Result<Message, Error> {
    let (hits, rest) = text.split_once(' ').unwrap_or((text, ""));
    let hits: u64 = hits.parse().map_err(|_| Error::NotUnderstood("it is no ball".into()))?;
    let (receivers, text) = match hits.checked_sub(1) {
        None => (message.reply_to.clone(), "over".to_owned()),
        Some(left) => (message.sender.clone().into_iter().collect(), format!("{left} {rest}")),
    };
    Ok(Message { receivers, reply_to: message.reply_to.clone(), ..answer(message, "inform", text) })
}

fn answer(to: &Message, performative: &str, text: String) -> Message {
    let receivers = if to.reply_to.is_empty() { to.sender.clone().into_iter().collect() } else { to.reply_to.clone() };
    let media_type = if performative == "propose" { "application/json" } else { "text/plain" }.to_owned();
    let body = if performative == "propose" { Body::Json(text) } else { Body::Text(text) };
    Message {
        performative: performative.into(),
        sender: None,
        receivers,
        reply_to: Vec::new(),
        content: Some(Content { media_type, body }),
        language: None,
        encoding: None,
        ontology: None,
        protocol: None,
        conversation_id: to.conversation_id.clone(),
        reply_with: None,
        in_reply_to: to.reply_with.clone(),
        reply_by: None,
        extensions: Vec::new(),
    }
}

export!(Partner);
