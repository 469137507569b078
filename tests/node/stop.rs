//! A turn is stopped: while its model thinks, while its tool runs, and while it waits for a person.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::bench::{Bench, DEADLINE, read, refused};
use crate::deploy::{Content, at};
use crate::messages::{chart, gated, with};
use crate::policy::token;
use caxton_proto::log::Role;

/// What happens at a server that takes requests and never answers.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Request,
    /// Nobody waits for the answer any more.
    Left,
}

/// A server that never answers, and what happens at it.
pub async fn silent() -> (SocketAddr, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, seen) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                let mut asked = false;
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    if !std::mem::replace(&mut asked, true) {
                        sender.send(Seen::Request).await.ok();
                    }
                }
                if asked {
                    sender.send(Seen::Left).await.ok();
                }
            });
        }
    });
    (address, seen)
}

pub async fn next(seen: &mut mpsc::Receiver<Seen>) -> Seen {
    tokio::time::timeout(DEADLINE, seen.recv()).await.expect("in time").expect("the server goes on")
}

/// Begins a turn of `talker` as a stream; gives its id, and the rest of the stream.
pub async fn begun(bench: &Bench, token: &str) -> (String, reqwest::Response) {
    let message = json!({ "text": "hi", "agent": "talker", "conversation": "c-1", "create": true, "stream": true });
    let request = bench.request_as(token, Method::POST, &at("/messages")).json(&message);
    let mut answer = request.send().await.expect("an answer");
    let mut text = String::new();
    while !text.contains("\n\n") {
        let piece = answer.chunk().await.expect("a piece").expect("more");
        text.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event");
    let routed: Value = serde_json::from_str(data).expect("JSON");
    (routed["turn"].as_str().expect("an id").to_owned(), answer)
}

/// Stops the turn while `seen` waits for an answer, and looks at everything that is told of it.
async fn stopped(bench: &Bench, seen: &mut mpsc::Receiver<Seen>) {
    let ada = token(bench, "ada", Role::Caller, &["demo"]).await;
    let eve = token(bench, "eve", Role::Caller, &["demo"]).await;
    let (turn, stream) = begun(bench, &ada).await;
    assert_eq!(next(seen).await, Seen::Request);
    let path = at(&format!("/turns/{turn}"));
    let stop = |token: &str| bench.request_as(token, Method::DELETE, &path);
    refused(stop(&token(bench, "victor", Role::Viewer, &["demo"]).await), 403, "forbidden").await;
    let (status, over) = read(stop(&ada)).await;
    assert_eq!((status, over["outcome"].as_str()), (200, Some("stopped")), "{over}");
    assert_eq!((over["turn"].as_str(), over["conversation"].as_str()), (Some(turn.as_str()), Some("c-1")));
    assert_eq!(next(seen).await, Seen::Left, "what it waited for is let go");
    let rest = stream.text().await.expect("the rest");
    assert!(rest.contains("event: failed") && rest.contains("\"failure\":\"stopped\""), "{rest}");
    refused(stop(&eve), 404, "not_found").await;
    assert_eq!(read(stop(&ada)).await, (200, over), "once more changes nothing");
    let told = refused(bench.request_as(&ada, Method::GET, &path), 502, "turn_failed").await;
    assert_eq!(told["failure"], "stopped");
    let (_, shown) = read(bench.request_as(&ada, Method::GET, &at("/conversations/c-1"))).await;
    assert_eq!(shown["turns_detail"][0]["failure"], "the turn was stopped", "{shown}");
    let (_, logs) = read(bench.request(Method::GET, &at("/logs"))).await;
    assert!(logs.to_string().contains("by ada"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_stopped_while_its_model_thinks() {
    let (address, mut seen) = silent().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n"
    );
    let content = Content::of(&["talker"], "hello").file("caxton.toml", settings);
    let bench = with(&content).await;
    stopped(&bench, &mut seen).await;
    // An operator stops anybody's turn.
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let ops = token(&bench, "ops", Role::Deployer, &["demo"]).await;
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let (turn, stream) = begun(&bench, &ada).await;
    assert_eq!(next(&mut seen).await, Seen::Request);
    let path = at(&format!("/turns/{turn}"));
    let (status, over) = read(bench.request_as(&ops, Method::DELETE, &path)).await;
    assert_eq!((status, over["outcome"].as_str()), (200, Some("stopped")), "{over}");
    assert!(stream.text().await.expect("the rest").contains("event: failed"));
    refused(bench.request_as(&eve, Method::GET, &path), 404, "not_found").await;
    refused(bench.request(Method::DELETE, &at("/turns/none")), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_stopped_while_its_tool_runs() {
    let (address, mut seen) = silent().await;
    let script = format!(
        "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"http-fetch\"\narguments = {{ url = \"http://{address}/\" }}\n\
         [[rule]]\nsay = \"done\"\n"
    );
    let tool = format!(
        "[tool]\nname = \"http-fetch\"\nkind = \"component\"\nmodule = \"http-fetch.wasm\"\n\
                [grants]\nhttp = [\"{address}\"]\n"
    );
    let agent = "[agent]\nname = \"talker\"\ndescription = \"talks\"\n[capabilities]\npatterns = [\"talk\"]\n\
                 [tools]\nrequired = [\"http-fetch\"]\n";
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[grants]\nhttp = [\"{address}\"]\n\
                    [providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n"
    );
    let content = Content::default()
        .file("agents/talker.toml", agent)
        .file("prompts/s.toml", script)
        .file("tools/http-fetch/tool.toml", tool)
        .file("tools/http-fetch/http-fetch.wasm", caxton_tools::examples::HTTP_FETCH)
        .file("caxton.toml", settings);
    let bench = Bench::new(&["tools.networks=127.0.0.0/8"]).await;
    bench.deploy(&content, 0, &Content::default(), "first").await;
    stopped(&bench, &mut seen).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_turn_is_stopped_while_it_waits_for_a_person() {
    let bench = with(&gated()).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let ask = bench.request_as(&ada, Method::POST, &at("/messages")).json(&chart());
    let (status, waiting) = read(ask).await;
    assert_eq!(status, 202, "{waiting}");
    let path = at(&format!("/turns/{}", waiting["turn"].as_str().expect("an id")));
    let approvals = |token: &str| bench.request_as(token, Method::GET, &at("/approvals"));
    let count = |body: Value| body["approvals"].as_array().expect("a list").len();
    assert_eq!(count(read(approvals(&ada)).await.1), 1, "her own, with its arguments");
    assert_eq!(count(read(approvals(&eve)).await.1), 0);
    assert_eq!(count(read(approvals(&bench.admin)).await.1), 1);
    refused(bench.request_as(&eve, Method::GET, &path), 404, "not_found").await;
    refused(bench.request_as(&eve, Method::DELETE, &path), 404, "not_found").await;
    let (status, over) = read(bench.request_as(&ada, Method::DELETE, &path)).await;
    assert_eq!((status, over["outcome"].as_str()), (200, Some("stopped")), "{over}");
    assert_eq!(count(read(approvals(&bench.admin)).await.1), 0, "nothing waits any more");
    let approval = format!("/approvals/{}", waiting["approvals"][0]["id"].as_str().expect("an id"));
    refused(bench.post(&approval, &json!({ "approve": true })), 404, "not_found").await;
    refused(bench.request_as(&ada, Method::GET, &path), 502, "turn_failed").await;
    bench.stop().await;
}
