//! WebSocket: what one connection follows, asks and sends, how it goes on after it was lost, and how it is ended.

use std::time::Duration;

use caxton_proto::log::Role;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, connect_async};

use crate::bench::{Bench, DEADLINE, eventually, refused};
use crate::deploy::Content;
use crate::messages::{talker, with};
use crate::policy::token;
use crate::stop::{Seen, next, silent};

/// A client's end.
struct Client(WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(bench: &Bench, bearer: Option<&str>) -> Result<Client, Error> {
        let url = format!("{}/api/v1/socket", bench.node.url().replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a request");
        if let Some(token) = bearer {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.headers_mut().insert("authorization", value);
        }
        Ok(Client(connect_async(request).await?.0))
    }

    /// One whose token is good.
    async fn open(bench: &Bench, token: &str) -> Client {
        let mut client = Client::connect(bench, Some(token)).await.expect("a connection");
        assert_eq!(client.frame().await["type"], "authenticated");
        client
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("sent");
    }

    async fn message(&mut self) -> Option<Message> {
        tokio::time::timeout(DEADLINE, self.0.next()).await.expect("in time")?.ok()
    }

    /// The next frame of text.
    async fn frame(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).expect("JSON"),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no frame: {other:?}"),
            }
        }
    }

    /// The code with which the node closes, after an error without an id that has this code.
    async fn closed(&mut self, code: &str) -> Option<CloseCode> {
        let frame = self.frame().await;
        let found = frame["problem"]["code"].as_str();
        assert_eq!((frame["type"].as_str(), found, &frame["id"]), (Some("error"), Some(code), &Value::Null), "{frame}");
        loop {
            match self.message().await {
                Some(Message::Close(close)) => return close.map(|close| close.code),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// The numbers of the next events of a subscription.
    async fn numbers(&mut self, id: &str, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let frame = self.frame().await;
            assert_eq!((frame["type"].as_str(), frame["id"].as_str()), (Some("event"), Some(id)), "{frame}");
            numbers.extend(frame["number"].as_u64());
        }
        numbers
    }

    async fn ask(&mut self, conversation: &str, text: &str) -> Value {
        let request = json!({ "agent": "talker", "text": text, "conversation": conversation, "create": true });
        self.send(json!({ "type": "ask", "id": "ask", "workspace": "demo", "request": request })).await;
        let mut last = Value::Null;
        loop {
            let frame = self.frame().await;
            assert_eq!(frame["id"], "ask", "something else came: {frame}");
            match frame["type"].as_str() {
                Some("event") => last = frame,
                Some("end") => return last,
                _ => panic!("{frame}"),
            }
        }
    }
}

fn subscribe(id: &str, to: Value, after: Option<u64>) -> Value {
    json!({ "type": "subscribe", "id": id, "workspace": "demo", "to": to, "after": after })
}

#[tokio::test]
async fn an_agent_is_asked_and_its_conversation_resumed_without_a_gap_on_another_connection() {
    let bench = with(&talker("[[rule]]\nsay = \"It rains.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    // Without a header, the first frame has the token.
    let mut one = Client::connect(&bench, None).await.expect("a connection");
    one.send(json!({ "type": "authenticate", "token": ada })).await;
    let ready = one.frame().await;
    assert_eq!((ready["subject"].as_str(), ready["role"].as_str()), (Some("ada"), Some("caller")), "{ready}");
    let answered = one.ask("c1", "How is it?").await;
    assert_eq!((answered["event"].as_str(), answered["data"]["text"].as_str()), (Some("answered"), Some("It rains.")));
    assert!(answered["number"].as_u64().is_some_and(|number| number > 2), "{answered}");
    let turn = answered["data"]["turn"].as_str().expect("an id").to_owned();

    let mut two = Client::open(&bench, &ada).await;
    two.send(subscribe("s", json!({ "conversation": "c1" }), None)).await;
    assert_eq!(two.frame().await, json!({ "type": "subscribed", "id": "s" }));
    let first = two.frame().await;
    assert_eq!((first["number"].as_u64(), first["event"].as_str()), (Some(1), Some("turn")), "{first}");
    assert_eq!(first["data"]["turn"], turn.as_str());
    // It is lost, and more is said meanwhile.
    drop(two);
    one.ask("c1", "And now?").await;
    one.ask("c1", "And then?").await;
    let mut three = Client::open(&bench, &ada).await;
    three.send(subscribe("s", json!({ "conversation": "c1" }), Some(1))).await;
    assert_eq!(three.frame().await["type"], "subscribed");
    assert_eq!(three.numbers("s", 2).await, [2, 3]);
    one.ask("c1", "At last?").await;
    assert_eq!(three.numbers("s", 1).await, [4]);
    three.send(json!({ "type": "unsubscribe", "id": "s" })).await;
    assert_eq!(three.frame().await, json!({ "type": "end", "id": "s" }));

    three.send(subscribe("t", json!({ "turn": turn }), None)).await;
    assert_eq!(three.frame().await["type"], "subscribed");
    let told = three.frame().await;
    assert_eq!(
        (told["event"].as_str(), told["data"]["text"].as_str()),
        (Some("answered"), Some("It rains.")),
        "{told}"
    );
    assert_eq!(three.frame().await, json!({ "type": "end", "id": "t" }));
    bench.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_and_its_answer_comes_to_the_mailbox_that_is_followed() {
    let bench = with(&talker("[[rule]]\nsay = \"It rains.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let mut client = Client::open(&bench, &ada).await;
    client.send(subscribe("box", json!("own_mailbox"), None)).await;
    assert_eq!(client.frame().await["id"], "box");
    let message = json!({ "performative": "request", "receiver": "talker", "content": "How is the weather?",
        "conversation_id": "weather", "protocol": "fipa-request", "reply_with": "r1" });
    let request = json!({ "message": message, "key": "k1" });
    client.send(json!({ "type": "send", "id": "m", "workspace": "demo", "request": request })).await;
    let (mut reply, mut delivery) = (Value::Null, Value::Null);
    while reply.is_null() || delivery.is_null() {
        let frame = client.frame().await;
        match frame["type"].as_str() {
            Some("reply") => reply = frame,
            Some("event") => delivery = frame,
            _ => panic!("{frame}"),
        }
    }
    assert_eq!((reply["id"].as_str(), reply["data"]["conversation"].as_str()), (Some("m"), Some("weather")));
    assert_eq!(delivery["event"], "delivery", "{delivery}");
    assert_eq!(delivery["data"]["message"]["in_reply_to"], "r1");
    // What has its reply is over: the id can be used again at once. The message is known by its key.
    for _ in 0..20 {
        client.send(json!({ "type": "send", "id": "m", "workspace": "demo", "request": request })).await;
        let again = client.frame().await;
        assert_eq!((&again["type"], &again["data"]["id"]), (&json!("reply"), &reply["data"]["id"]), "{again}");
    }
    client.send(subscribe("talk", json!({ "messages": "weather" }), Some(1))).await;
    assert_eq!(client.frame().await["type"], "subscribed");
    let inform = client.frame().await;
    assert_eq!((inform["number"].as_u64(), inform["data"]["performative"].as_str()), (Some(2), Some("inform")));

    // Nobody else hears of it, and their own mailbox is empty.
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let mut other = Client::open(&bench, &eve).await;
    other.send(subscribe("talk", json!({ "messages": "weather" }), None)).await;
    other.send(subscribe("box", json!({ "mailbox": "subject:ada" }), None)).await;
    assert_eq!(
        (other.frame().await["type"].as_str(), other.frame().await["type"].as_str()),
        (Some("subscribed"), Some("subscribed"))
    );
    assert_eq!(other.ask("hers", "x").await["event"], "answered", "nothing else came before");
    bench.stop().await;
}

#[tokio::test]
async fn what_may_not_be_is_refused_and_ends_what_it_has_to() {
    let bench = Bench::new(&["http.event_streams_max=1", "http.message_bytes_max=64KiB"]).await;
    bench.deploy(&talker("[[rule]]\nsay = \"x\"\n", ""), 0, &Content::default(), "first").await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let Err(Error::Http(answer)) = Client::connect(&bench, Some("caxton_admin_0000")).await else { panic!("let in") };
    assert_eq!(answer.status(), 401);
    refused(bench.request(reqwest::Method::GET, "/api/v1/socket"), 400, "invalid_request").await;
    for first in [json!({ "type": "authenticate", "token": "x" }), json!({ "type": "unsubscribe", "id": "s" })] {
        let mut bad = Client::connect(&bench, None).await.expect("a connection");
        bad.send(first).await;
        assert_eq!(bad.closed("unauthorized").await, Some(CloseCode::Policy));
    }
    let mut client = Client::open(&bench, &ada).await;
    let code =
        |frame: Value| (frame["id"].as_str().map(str::to_owned), frame["problem"]["code"].as_str().map(str::to_owned));
    let expected = |id: &str, code: &str| (Some(id.to_owned()), Some(code.to_owned()));
    let mut elsewhere = subscribe("a", json!("own_mailbox"), None);
    elsewhere["workspace"] = json!("elsewhere");
    client.send(elsewhere).await;
    assert_eq!(code(client.frame().await), expected("a", "forbidden"));
    client
        .send(json!({ "type": "ask", "id": "b", "workspace": "demo", "request": { "text": "x", "agent": "nobody" } }))
        .await;
    assert_eq!(code(client.frame().await), expected("b", "not_found"));
    client.send(json!({ "type": "send", "id": "c", "workspace": "demo", "request": { "message": {} } })).await;
    assert_eq!(code(client.frame().await), expected("c", "invalid_request"));
    client.send(json!({ "type": "unsubscribe", "id": "d" })).await;
    assert_eq!(code(client.frame().await), expected("d", "not_found"));
    client.send(subscribe("", json!("own_mailbox"), None)).await;
    assert_eq!(code(client.frame().await), expected("", "invalid_request"));
    client.send(subscribe("e", json!("own_mailbox"), None)).await;
    assert_eq!(client.frame().await["type"], "subscribed");
    client.send(subscribe("e", json!("own_mailbox"), None)).await;
    assert_eq!(code(client.frame().await), expected("e", "conflict"));
    client.send(subscribe("f", json!("own_mailbox"), None)).await;
    assert_eq!(code(client.frame().await), expected("f", "unavailable"), "there is one place");
    // One that goes gives its place back.
    drop(client);
    eventually("the place is free", || async {
        let mut client = Client::open(&bench, &ada).await;
        client.send(subscribe("g", json!("own_mailbox"), None)).await;
        client.frame().await["type"] == "subscribed"
    })
    .await;
    for bad in [Message::text("no JSON"), Message::text("{\"type\":\"shout\"}"), Message::text("[]")] {
        let mut client = Client::open(&bench, &ada).await;
        client.0.send(bad).await.expect("sent");
        assert_eq!(client.closed("invalid_request").await, Some(CloseCode::Policy));
    }
    let mut binary = Client::open(&bench, &ada).await;
    binary.0.send(Message::binary(vec![1, 2])).await.expect("sent");
    assert_eq!(binary.closed("unsupported_media_type").await, Some(CloseCode::Policy));
    let mut large = Client::open(&bench, &ada).await;
    _ = large.0.send(Message::text("x".repeat(80 << 10))).await;
    eventually_gone(&mut large).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_stranger_sends_nothing_long_and_whoever_showed_a_token_does() {
    let bench = Bench::new(&[]).await;
    bench.deploy(&talker("[[rule]]\nsay = \"x\"\n", ""), 0, &Content::default(), "first").await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let mut stranger = Client::connect(&bench, None).await.expect("a connection");
    // A good token, in a frame that is longer than a stranger's may be.
    let frame = json!({ "type": "authenticate", "token": ada }).to_string() + &" ".repeat(80 << 10);
    _ = stranger.0.send(Message::text(frame)).await;
    while let Some(message) = stranger.message().await {
        assert!(!message.to_string().contains("authenticated"), "{message}");
    }
    let mut known = Client::open(&bench, &ada).await;
    let request = json!({ "text": "y".repeat(80 << 10), "agent": "talker" });
    known.send(json!({ "type": "ask", "id": "a", "workspace": "demo", "request": request })).await;
    assert_eq!(known.frame().await["id"], "a");
    bench.stop().await;
}

async fn eventually_gone(client: &mut Client) {
    while let Some(message) = client.message().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_token_its_silence_or_its_node_and_stops_what_it_asked() {
    let (address, mut seen) = silent().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n"
    );
    let bench = Bench::new(&["http.event_heartbeat=500ms", "http.header_timeout=2s"]).await;
    bench
        .deploy(&Content::of(&["talker"], "hello").file("caxton.toml", settings), 0, &Content::default(), "first")
        .await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let mut asks = Client::open(&bench, &ada).await;
    let ask = json!({ "type": "ask", "id": "a", "workspace": "demo", "request": { "text": "x", "agent": "talker" } });
    asks.send(ask.clone()).await;
    assert_eq!(next(&mut seen).await, Seen::Request);
    asks.send(json!({ "type": "unsubscribe", "id": "a" })).await;
    assert_eq!(next(&mut seen).await, Seen::Left, "nobody waits for the turn any more");
    while asks.frame().await["type"] != "end" {}
    asks.send(ask).await;
    assert_eq!(next(&mut seen).await, Seen::Request);
    drop(asks);
    assert_eq!(next(&mut seen).await, Seen::Left);

    let mut mute = Client::connect(&bench, None).await.expect("a connection");
    assert_eq!(mute.closed("unauthorized").await, Some(CloseCode::Policy), "no token came in time");
    let issued = bench.token("caller", &["demo"], 3).await;
    let mut short = Client::open(&bench, issued["token"].as_str().expect("a token")).await;
    assert_eq!(short.closed("unauthorized").await, Some(CloseCode::Policy));
    // A client that answers no ping has gone. This one does not read, and so answers none.
    let deaf = Client::open(&bench, &ada).await;
    let (stream, mut probe) = (deaf.0.get_ref(), [0; 1]);
    let tokio_tungstenite::MaybeTlsStream::Plain(stream) = stream else { panic!("no TLS") };
    let gone = tokio::time::timeout(DEADLINE, async {
        // What it was sent stays unread; the end of it is seen all the same.
        loop {
            let ready = stream.ready(tokio::io::Interest::READABLE).await.expect("a state");
            if ready.is_read_closed() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("it is cut off");
    _ = stream.try_read(&mut probe);
    let mut last = Client::open(&bench, &ada).await;
    let closed = tokio::spawn(async move { last.closed("unavailable").await });
    bench.stop().await;
    assert_eq!(closed.await.expect("it ends"), Some(CloseCode::Away));
}
