//! The example agents in JavaScript, Python and Go: what they answer, send and keep, message by message.

use super::common::Bench;
use super::{NotRun, built, can_build_rust};
use caxton_proto::acl::{Body, Content, Message, Performative};
use caxton_tools::{
    AgentCode, AgentHost, AgentOutcome, CallResult, HandlingError, HostAnswer, HostRefusal, Incoming, Kind, Limits,
    Question, SandboxedAgent, Settings,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A node that keeps state, reaches every agent but those that offer a capability, and has a model that names the counter.
struct Desk;

impl AgentHost for Desk {
    fn check(&self, message: &Message) -> Result<(), HostRefusal> {
        match message.receivers.iter().find(|address| address.to_string().starts_with("capability:")) {
            Some(nobody) => Err(HostRefusal::new(format!("no agent stands for {nobody}"))),
            None => Ok(()),
        }
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn call_tool(&self, _: String, _: Value) -> HostAnswer<CallResult> {
        Box::pin(async { Err(HostRefusal::new("there are no tools")) })
    }

    fn ask_model(&self, question: Question) -> HostAnswer<String> {
        Box::pin(async move {
            match question.prompt.contains("offline") {
                true => Err(HostRefusal::new("the model is away")),
                false if question.prompt.contains("poem") => Ok("nobody".to_owned()),
                false => Ok("counter".to_owned()),
            }
        })
    }

    fn remember(&self, _: String) -> HostAnswer<()> {
        Box::pin(async { Err(HostRefusal::new("there is no memory")) })
    }

    fn recall(&self, _: String, _: u32) -> HostAnswer<Vec<String>> {
        Box::pin(async { Err(HostRefusal::new("there is no memory")) })
    }
}

/// An agent with the state that its messages leave behind.
struct Talk {
    bench: Bench,
    agent: SandboxedAgent,
    state: BTreeMap<String, String>,
}

impl Talk {
    fn with(kind: Kind, wasm: &[u8]) -> Talk {
        let bench = Bench::new(Settings::default());
        let limits = Limits { wall: Duration::from_secs(300), ..Limits::default() };
        let code = AgentCode { name: "me".into(), kind, limits };
        let agent = bench.sandbox.load_agent(code, wasm).unwrap_or_else(|error| panic!("{}", super::chain(&error)));
        println!("    {} bytes", wasm.len());
        Talk { bench, agent, state: BTreeMap::new() }
    }

    /// Hands it a message; what it keeps counts where it was handled.
    fn say(&mut self, message: Message) -> Result<Vec<Message>, HandlingError> {
        let (state, host) = (self.state.clone(), Arc::new(Desk));
        let incoming = Incoming { message, state, host, workspace: "w".into(), deadline: None };
        let AgentOutcome { messages, state } = self.bench.runtime.block_on(self.agent.handle(incoming)).result?;
        for (key, value) in state {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Ok(messages)
    }

    /// The one message that it answers.
    fn answer(&mut self, message: Message) -> Message {
        let mut answers = self.say(message).unwrap();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// Why it did not take a message.
    fn refusal(&mut self, message: Message) -> String {
        self.say(message).unwrap_err().to_string()
    }
}

fn message(performative: Performative, sender: &str, content: Content) -> Message {
    Message {
        content: Some(content),
        conversation_id: Some("c1".into()),
        reply_with: Some("r1".into()),
        ..Message::new(performative, ["me".parse().unwrap()])
    }
    .stamped(sender.parse().unwrap())
}

fn goods(performative: Performative, content: Value) -> Message {
    message(performative, "buyer", Content::json(content.to_string()))
}

/// What a message says, and that it goes back to where the one came from that it answers.
fn said(answer: &Message, performative: Performative, to: &str) -> Value {
    assert_eq!(answer.performative, performative, "{answer:?}");
    assert_eq!(answer.receivers, [to.parse().unwrap()], "{answer:?}");
    assert_eq!((answer.in_reply_to.as_deref(), answer.conversation_id.as_deref()), (Some("r1"), Some("c1")));
    match answer.content.as_ref().map(|content| &content.body) {
        Some(Body::Json(text)) => serde_json::from_str(text).unwrap(),
        Some(Body::Text(text)) => json!(text),
        other => panic!("{other:?}"),
    }
}

/// The agent of the benchmark of messages: what is committed is what its source builds, or does the same.
pub fn partner() -> Result<(), NotRun> {
    can_build_rust()?;
    let fresh = &built("../../../benches/guest/build.sh", &[], &["partner"])?[0];
    let committed: &[u8] = include_bytes!("../../../../benches/guest/partner.wasm");
    println!("    the same bytes: {}", fresh == committed);
    for wasm in [fresh, committed] {
        let mut partner = Talk::with(Kind::Component, wasm);
        let mut says = |performative, text: &str| {
            let answer = partner.answer(message(performative, "eve", Content::text(text)));
            let to = answer.receivers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            (answer.performative, to, answer.content.map(|content| content.body))
        };
        let text = |text: &str| Some(Body::Text(text.to_owned()));
        assert_eq!(says(Performative::Request, "hello"), (Performative::Inform, "eve".to_owned(), text("hello")));
        let served = (Performative::Inform, "right".to_owned(), text("7 ball"));
        assert_eq!(says(Performative::Request, "serve 7 right ball"), served);
        assert_eq!(says(Performative::Inform, "7 ball"), (Performative::Inform, "eve".to_owned(), text("6 ball")));
        assert_eq!(says(Performative::Cfp, "").0, Performative::Propose);
    }
    Ok(())
}

pub fn negotiator() -> Result<(), NotRun> {
    let mut shop = Talk::with(Kind::Component, &built("javascript/build.sh", &[], &["negotiator"])?[0]);
    let call = |offer: Option<u32>| {
        goods(Performative::Cfp, json!({ "item": "desk", "quantity": 2, "offer": offer }).without_nulls())
    };
    let bids = |shop: &mut Talk, offer| said(&shop.answer(call(offer)), Performative::Propose, "buyer")["cost"].clone();
    let first = said(&shop.answer(call(None)), Performative::Propose, "buyer");
    assert_eq!(first, json!({ "item": "desk", "quantity": 2, "cost": 240, "deadline": "within 3 days" }));
    // It comes half-way to each offer, and never below 90 a piece.
    assert_eq!(bids(&mut shop, Some(160)), 200);
    assert_eq!(bids(&mut shop, Some(170)), 185);
    assert_eq!(bids(&mut shop, Some(0)), 180);
    assert_eq!(bids(&mut shop, Some(1_000)), 180, "a bid is not raised");
    let sold = said(&shop.answer(goods(Performative::AcceptProposal, json!({}))), Performative::Inform, "buyer");
    assert_eq!(sold, json!({ "item": "desk", "quantity": 2, "cost": 180, "left": 8 }));
    assert_eq!(shop.state, BTreeMap::from([("sold:desk".to_owned(), "2".to_owned())]), "nothing else is kept");
    // What was sold makes the next bid.
    assert_eq!(bids(&mut shop, None), 264);
    assert!(shop.say(goods(Performative::RejectProposal, json!({}))).unwrap().is_empty());
    assert_eq!(shop.state.len(), 1, "{:?}", shop.state);
    let again = shop.refusal(goods(Performative::AcceptProposal, json!({})));
    assert!(again.contains("nothing was bid in this conversation"), "{again}");
    proposals(&mut shop);
    let stock = said(&shop.answer(goods(Performative::QueryRef, json!({}))), Performative::Inform, "buyer");
    assert_eq!(stock, json!({ "desk": { "price": 138, "left": 7 }, "chair": { "price": 40, "left": 24 } }));
    for (performative, content, why) in [
        (Performative::Cfp, json!({ "item": "sofa" }), "refuses: there is no sofa; there are: desk, chair"),
        (Performative::Cfp, json!({ "item": "desk", "quantity": 8 }), "refuses: 8 of desk are wanted, and 7 are left"),
        (Performative::Cfp, json!({ "item": "desk", "quantity": 0.5 }), "does not understand the message: `quantity`"),
        (Performative::Cfp, json!({ "item": "desk", "offer": "cheap" }), "`offer` and `cost` are amounts"),
        (Performative::Cfp, json!({ "item": "constructor" }), "refuses: there is no constructor"),
        (Performative::Cfp, json!(null), "has JSON as its content"),
        (Performative::Subscribe, json!({}), "this agent takes cfp, accept-proposal"),
    ] {
        let refused = shop.refusal(goods(performative, content.clone()));
        assert!(refused.contains(why), "{content}: {refused}");
    }
    Ok(())
}

/// Whoever proposes to buy is answered at once.
fn proposals(shop: &mut Talk) {
    let propose = |cost: u32| goods(Performative::Propose, json!({ "item": "desk", "cost": cost }));
    let little = said(&shop.answer(propose(89)), Performative::RejectProposal, "buyer");
    assert_eq!(little, json!({ "reason": "89 is too little for 1 desk" }));
    let enough = said(&shop.answer(propose(90)), Performative::AcceptProposal, "buyer");
    assert_eq!(enough, json!({ "item": "desk", "quantity": 1, "cost": 90, "left": 7 }));
}

/// JSON without what is null.
trait WithoutNulls {
    fn without_nulls(self) -> Value;
}

impl WithoutNulls for Value {
    fn without_nulls(mut self) -> Value {
        if let Value::Object(fields) = &mut self {
            fields.retain(|_, value| !value.is_null());
        }
        self
    }
}

fn text(performative: Performative, content: &str) -> Message {
    message(performative, "subject:ann", Content::text(content))
}

/// The answer of an agent to a message that was passed on to it.
fn back(to: &Message, performative: Performative, content: &str) -> Message {
    Message {
        conversation_id: Some("another".into()),
        reply_with: None,
        in_reply_to: to.reply_with.clone(),
        ..message(performative, "negotiator", Content::text(content))
    }
}

pub fn router() -> Result<(), NotRun> {
    let mut desk = Talk::with(Kind::Component, &built("python/build.sh", &[], &["router"])?[0]);
    let onward = desk.answer(text(Performative::Request, "What does a desk cost?"));
    assert_eq!(onward.receivers, ["negotiator".parse().unwrap()]);
    assert_eq!(onward.content, Some(Content::text("What does a desk cost?")));
    assert_eq!((onward.performative, onward.conversation_id.as_deref()), (Performative::Request, None));
    let other = desk.answer(text(Performative::QueryRef, "How many messages were sent?"));
    assert_eq!((other.receivers[0].to_string().as_str(), other.performative), ("counter", Performative::QueryRef));
    assert_ne!(onward.reply_with, other.reply_with);
    // Whoever waits is told, under what they asked with; agreeing is not the end of it.
    let agreed = desk.answer(back(&onward, Performative::Agree, "soon"));
    assert_eq!(said(&agreed, Performative::Agree, "subject:ann"), "soon");
    let done = desk.answer(back(&onward, Performative::Inform, "120"));
    assert_eq!(said(&done, Performative::Inform, "subject:ann"), "120");
    assert_eq!(done.extensions.get("X-Answered-By").map(String::as_str), Some("negotiator"));
    assert!(
        desk.say(back(&onward, Performative::Inform, "once more")).unwrap().is_empty(),
        "an answer is passed on once"
    );
    let failed = desk.answer(back(&other, Performative::Failure, "no agent"));
    assert_eq!(said(&failed, Performative::Failure, "subject:ann"), "no agent");
    assert_eq!(desk.state, BTreeMap::from([("last".to_owned(), "2".to_owned())]), "nobody waits any more");
    // What is told is passed on and not waited for; JSON is read as it is written.
    let told = message(Performative::Inform, "subject:ann", Content::json(r#"{"buy":["chair"]}"#));
    let told = desk.answer(told);
    assert_eq!((told.receivers[0].to_string().as_str(), &told.reply_with), ("negotiator", &None));
    // Where no word says who deals with it, the model does.
    let guessed = desk.answer(text(Performative::Request, "Statistics, please."));
    assert_eq!(guessed.receivers[0].to_string(), "counter");
    for (content, why) in [
        ("a poem", "refuses: nobody here deals with this"),
        ("offline", "no model could be asked: the model is away"),
        ("translate this", "to capability:translation: no agent stands for capability:translation"),
    ] {
        let refused = desk.refusal(text(Performative::Request, content));
        assert!(refused.contains(why), "{content}: {refused}");
    }
    let odd = desk.refusal(text(Performative::Cfp, "a desk"));
    assert!(odd.contains("does not understand") && odd.contains("not cfp"), "{odd}");
    the_oldest_gives_way(&mut desk);
    Ok(())
}

/// So many answers may be waited for; then whoever has waited for longest is told that none came.
fn the_oldest_gives_way(desk: &mut Talk) {
    let waits = |number: u32| {
        let waits = json!({ "to": [format!("asker-{number}")], "conversation": "c1", "protocol": null, "word": "r1", "number": number });
        (format!("waits:routed-{number}"), waits.to_string())
    };
    desk.state = (100..300).map(waits).chain([("last".to_owned(), "299".to_owned())]).collect();
    let sent = desk.say(text(Performative::Request, "What does a chair cost?")).unwrap();
    let [onward, given_up] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(onward.receivers, ["negotiator".parse().unwrap()]);
    assert!(said(given_up, Performative::Failure, "asker-100").as_str().unwrap().contains("no answer came"));
    assert_eq!(desk.state.len(), 201);
}

pub fn counter() -> Result<(), NotRun> {
    let mut counter = Talk::with(Kind::Command, &built("go/build.sh", &[], &["counter"])?[0]);
    let says = |performative, sender: &str| message(performative, sender, Content::text("x"));
    let counts = |counter: &mut Talk| {
        said(&counter.answer(says(Performative::QueryRef, "subject:eve")), Performative::Inform, "subject:eve")
    };
    assert_eq!(counts(&mut counter), json!({ "total": 0, "senders": {} }));
    for sender in ["subject:ann", "ping", "subject:ann"] {
        assert!(counter.say(says(Performative::Inform, sender)).unwrap().is_empty());
    }
    assert!(counter.say(says(Performative::Inform, "platform:")).unwrap().is_empty());
    let third = said(&counter.answer(says(Performative::Request, "subject:ann")), Performative::Inform, "subject:ann");
    assert_eq!(third, json!({ "sender": "subject:ann", "count": 3 }));
    assert_eq!(counts(&mut counter), json!({ "total": 4, "senders": { "ping": 1, "subject:ann": 3 } }));
    // Replies go where they are wanted.
    let mut elsewhere = says(Performative::QueryRef, "subject:eve");
    elsewhere.reply_to = vec!["ping".parse().unwrap(), "subject:bob".parse().unwrap()];
    assert_eq!(counter.answer(elsewhere).receivers, ["ping".parse().unwrap(), "subject:bob".parse().unwrap()]);
    // The thousandth sender is the last that is counted by its name.
    let many: BTreeMap<String, u64> = (0..1_000).map(|number| (format!("agent-{number}"), 1)).collect();
    counter.state = BTreeMap::from([("counts".to_owned(), json!(many).to_string())]);
    let late = said(&counter.answer(says(Performative::Request, "late")), Performative::Inform, "late");
    assert_eq!(late, json!({ "sender": "others", "count": 1 }));
    counter.state = BTreeMap::from([("counts".to_owned(), "spoiled".to_owned())]);
    let spoiled = counter.refusal(says(Performative::Inform, "ping"));
    assert!(spoiled.contains("the state's \"counts\": invalid character 's'"), "{spoiled}");
    Ok(())
}
