//! `caxton ask` whose connection breaks off: it goes on at another server, and a person reads the answer once.
//!
//! The servers are a few lines here, because a real one does not break off at a given byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::run::{Place, Ran};

/// What a server does with one message.
struct Script {
    events: Vec<Value>,
    status: u16,
}

/// A server that answers one message after the other, and gives what it was asked.
fn server(scripts: Vec<Script>) -> (String, JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = std::thread::spawn(move || {
        scripts.into_iter().map(|script| answer(listener.accept().expect("a client").0, &script)).collect()
    });
    (url, asked)
}

/// Reads a request, writes the events, and closes without an end of the body.
fn answer(stream: TcpStream, script: &Script) -> Value {
    let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).expect("a line") > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let events: String = script
        .events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["event"].as_str().unwrap_or("")))
        .collect();
    let mut stream = stream;
    let head =
        format!("HTTP/1.1 {} x\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n", script.status);
    write!(stream, "{head}connection: close\r\n\r\n{:x}\r\n{events}\r\n", events.len()).expect("written");
    serde_json::from_slice(&body).expect("JSON")
}

fn routed() -> Value {
    json!({ "event": "routed", "conversation": "c", "turn": "t", "agent": "talker", "route": { "by": "address" } })
}

fn text(text: &str) -> Value {
    json!({ "event": "text", "depth": 0, "agent": "talker", "text": text })
}

fn answered(text: &str) -> Value {
    json!({
        "event": "answered", "conversation": "c", "turn": "t", "agent": "talker", "route": { "by": "address" },
        "text": text, "cut": false, "attachments": [], "attachments_omitted": 0, "usage": { "input": 1, "output": 1 },
        "steps": 1, "duration_ms": 1, "revision": 1,
    })
}

fn ok(events: Vec<Value>) -> Script {
    Script { events, status: 200 }
}

fn ask(place: &Place, servers: &[&str]) -> Ran {
    place.workspace("w").run(&["--server", &servers.join(","), "ask", "What is it?", "--agent", "talker"])
}

#[test]
fn an_answer_that_breaks_off_goes_on_at_another_server_and_is_read_once() {
    let place = Place::new();
    // The first one dies in the middle; the second one is asked, and says it from the beginning.
    let (first, first_asked) = server(vec![ok(vec![routed(), text("The ans"), text("wer is")])]);
    let (second, second_asked) =
        server(vec![ok(vec![routed(), text("The answ"), text("er is 42."), answered("The answer is 42.")])]);
    let ran = ask(&place, &[&first, &second]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "The answer is 42.\n"), "{}", ran.shown());
    assert!(ran.stderr.contains("asking again"), "{}", ran.shown());
    let (first, second) = (first_asked.join().expect("asked"), second_asked.join().expect("asked"));
    assert_eq!(first, second, "it is the same message, with the same key");
    assert!(first[0]["idempotency_key"].as_str().is_some_and(|key| !key.is_empty()), "{first:?}");
}

#[test]
fn the_record_of_a_turn_that_ended_meanwhile_says_the_rest() {
    let place = Place::new();
    let (first, first_asked) = server(vec![ok(vec![routed(), text("The ans")])]);
    let (second, second_asked) = server(vec![
        // Between two leaders, and then the answer at once.
        ok(vec![
            json!({ "event": "failed", "type": "/problems/unavailable", "title": "x", "status": 503, "code": "unavailable", "detail": "the turn t is under way" }),
        ]),
        ok(vec![answered("The answer is 42.")]),
    ]);
    let ran = ask(&place, &[&first, &second]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "The answer is 42.\n"), "{}", ran.shown());
    first_asked.join().expect("asked");
    assert_eq!(second_asked.join().expect("asked").len(), 2);
}

#[test]
fn another_reply_than_the_one_that_broke_off_is_shown_as_such() {
    let place = Place::new();
    let (first, first_asked) = server(vec![ok(vec![routed(), text("The answer is 4")])]);
    let (second, second_asked) =
        server(vec![ok(vec![routed(), text("The answer was"), text(" lost."), answered("The answer was lost.")])]);
    let ran = ask(&place, &[&first, &second]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "The answer is 4\nThe answer was lost.\n"),
        "{}",
        ran.shown()
    );
    assert!(ran.stderr.contains("the model begins anew"), "{}", ran.shown());
    first_asked.join().expect("asked");
    second_asked.join().expect("asked");
}

/// A turn that goes on until whoever asked goes away; it is said once its first event is on the way.
fn endless_turn() -> (String, std::sync::mpsc::Receiver<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (told, heard) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        let mut line = String::new();
        while reader.read_line(&mut line).expect("a line") > 2 {
            line.clear();
        }
        let event = format!("event: routed\ndata: {}\n\n", routed());
        let head = "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        write!(stream, "{head}{:x}\r\n{event}\r\n", event.len()).expect("written");
        told.send(()).expect("told");
        let _ = reader.read_to_end(&mut Vec::new());
    });
    (url, heard, server)
}

/// Begins to ask that server.
fn begin_to_ask(place: &Place, url: &str, more: &[&str]) -> std::process::Child {
    let workspace = place.workspace("w");
    let mut command = crate::run::caxton(&workspace.root);
    command.current_dir(&workspace.root).env("CAXTON_DATA_DIR", &workspace.data);
    command.args(["--server", url, "ask", "What is it?", "--agent", "talker"]).args(more);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.spawn().expect("the binary runs")
}

fn interrupt(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
}

#[test]
fn ctrl_c_says_that_the_turn_goes_on_and_how_to_stop_it() {
    let place = Place::new();
    let (url, heard, server) = endless_turn();
    let mut child = begin_to_ask(&place, &url, &[]);
    heard.recv_timeout(crate::run::DEADLINE).expect("the turn began");
    // The step is on the screen once the event was read.
    let mut shown = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut first = String::new();
    shown.read_line(&mut first).expect("a line");
    assert!(first.contains("talker"), "{first}");
    interrupt(&child);
    let mut rest = String::new();
    shown.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest}");
    for part in ["the turn goes on", "caxton stop --turn t", "caxton conversations show c"] {
        assert!(rest.contains(part), "`{part}` is not said: {rest}");
    }
    server.join().expect("the server");
}

#[test]
fn ctrl_c_says_it_as_a_document_where_one_is_wanted() {
    let place = Place::new();
    let (url, heard, server) = endless_turn();
    let child = begin_to_ask(&place, &url, &["--json"]);
    heard.recv_timeout(crate::run::DEADLINE).expect("the turn began");
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, Some(130), "{}", ran.shown());
    let said: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.shown()));
    // Nothing shows whether the event was read before the signal came; either way there is a way to stop the turn.
    let (code, help) = (&said["error"]["code"], said["error"]["help"].as_str().unwrap_or_default());
    assert!(code == "interrupted" && help.contains("caxton stop --turn"), "{said}");
    server.join().expect("the server");
}

#[test]
fn a_document_is_the_answer_without_the_stream_around_it() {
    let place = Place::new();
    let (url, asked) = server(vec![ok(vec![routed(), text("half"), answered("The whole.")])]);
    let child = begin_to_ask(&place, &url, &["--json"]);
    let answer = Ran::of(child.wait_with_output().expect("it ends")).json();
    assert_eq!((&answer["text"], &answer["agent"]), (&"The whole.".into(), &"talker".into()), "{answer}");
    assert!(answer.get("event").is_none(), "{answer}");
    asked.join().expect("asked");
}
