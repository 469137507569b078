//! Event streams: resumed without a gap, in order, and closed when they have to be.

use std::time::Duration;

use caxton_proto::log::{Author, Command, Deploy, Kind, Outcome};
use caxton_proto::{Digest, Revision};
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;

use crate::bench::{Bench, DEADLINE, read, refused};

/// One event as it came over the wire.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub id: Option<u64>,
    pub data: Value,
}

/// A stream that is being read.
pub struct Reader {
    body: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Reader {
    pub async fn open(request: reqwest::RequestBuilder) -> Reader {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Reader { body: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event that is not a comment; nothing at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let Some(name) = field("event:") {
                    let id = field("id:").map(|id| id.parse().expect("a number"));
                    let data = serde_json::from_str(field("data:").expect("data")).expect("JSON");
                    return Some(Event { name: name.to_owned(), id, data });
                }
            }
            let chunk = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("an event in time")?;
            self.text += std::str::from_utf8(&chunk.expect("a whole body")).expect("text");
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("an event");
            assert_eq!(event.name, "deployment", "{event:?}");
            assert_eq!(event.data["event_id"].as_u64(), event.id);
            ids.extend(event.id);
        }
        ids
    }
}

/// Puts an empty workspace live once more, and gives the event's id.
async fn deploy(bench: &Bench, workspace: &str) -> u64 {
    let log = &bench.node.parts().log;
    let workspace: caxton_proto::WorkspaceId = workspace.parse().expect("a name");
    let parent = log.read(|state| state.workspace(&workspace).map_or(Revision::NONE, |workspace| workspace.live()));
    let root = caxton_proto::tree::Tree::default().root();
    let command = Command::Deploy(Deploy {
        workspace,
        parent,
        root,
        kind: Kind::Deploy,
        author: Author::default(),
        actor: "test".to_owned(),
        time_ms: 1,
        git: None,
        message: String::new(),
        changes: Vec::new(),
        changes_total: 0,
        files: 0,
        bytes: 0,
        idempotency_key: Digest::of(&parent.0.to_be_bytes()).short(),
        revisions_kept: 100,
    });
    let answer = log.propose(&command).await.expect("an answer");
    assert!(matches!(answer.outcome, Outcome::Deployed(_)), "{answer:?}");
    answer.index
}

#[tokio::test]
async fn a_stream_is_resumed_without_a_gap_and_in_order() {
    let bench = Bench::new(&[]).await;
    let mut sent = vec![deploy(&bench, "a").await, deploy(&bench, "b").await, deploy(&bench, "a").await];
    let mut all = Reader::open(bench.request(Method::GET, "/api/v1/events?after=0")).await;
    assert_eq!(all.ids(3).await, sent);
    // What is not a deployment takes an index too, and must not end or stall the stream.
    bench.token("viewer", &[], 60).await;
    let mut now = Reader::open(bench.request(Method::GET, "/api/v1/events")).await;
    for workspace in ["b", "a", "b", "a"] {
        sent.push(deploy(&bench, workspace).await);
    }
    assert_eq!(all.ids(4).await, sent[3..]);
    assert_eq!(now.ids(4).await, sent[3..]);
    drop(all);
    for at in 0..sent.len() - 1 {
        let resumed = bench.request(Method::GET, "/api/v1/events?after=0").header("last-event-id", sent[at]);
        assert_eq!(Reader::open(resumed).await.ids(sent.len() - at - 1).await, sent[at + 1..]);
    }
    bench.stop().await;
}

#[tokio::test]
async fn many_deployments_at_once_arrive_each_once_and_in_order() {
    let bench = Bench::new(&[]).await;
    let mut before = Reader::open(bench.request(Method::GET, "/api/v1/events?after=0")).await;
    let names: Vec<String> = (0..8).map(|n| format!("w{n}")).collect();
    let each = names.iter().map(|name| async {
        let mut ids = Vec::new();
        for _ in 0..25 {
            ids.push(deploy(&bench, name).await);
        }
        ids
    });
    let mut sent = futures::future::join_all(each).await.concat();
    sent.sort_unstable();
    assert_eq!(before.ids(200).await, sent);
    let middle = sent[99];
    let mut after = Reader::open(bench.request(Method::GET, &format!("/api/v1/events?after={middle}"))).await;
    assert_eq!(after.ids(100).await, sent[100..]);
    bench.stop().await;
}

#[tokio::test]
async fn a_token_for_one_workspace_hears_of_no_other() {
    let bench = Bench::new(&[]).await;
    let token = bench.token("viewer", &["a"], 60).await["token"].as_str().expect("a token").to_owned();
    let (first, _, third) = (deploy(&bench, "a").await, deploy(&bench, "b").await, deploy(&bench, "a").await);
    for path in ["/api/v1/events?after=0", "/api/v1/workspaces/a/events?after=0"] {
        let mut stream = Reader::open(bench.request_as(&token, Method::GET, path)).await;
        assert_eq!(stream.ids(2).await, [first, third]);
    }
    refused(bench.request_as(&token, Method::GET, "/api/v1/workspaces/b/events"), 403, "forbidden").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let bench = Bench::new(&[]).await;
    let revoked = bench.token("viewer", &[], 3600).await;
    let short = bench.token("viewer", &[], 1).await;
    let token = |issued: &Value| issued["token"].as_str().expect("a token").to_owned();
    let mut one = Reader::open(bench.request_as(&token(&revoked), Method::GET, "/api/v1/events")).await;
    let mut two = Reader::open(bench.request_as(&token(&short), Method::GET, "/api/v1/events")).await;
    let path = format!("/api/v1/tokens/{}", revoked["id"].as_str().expect("an id"));
    assert_eq!(read(bench.request(Method::DELETE, &path)).await.0, 200);
    for (stream, why) in [(&mut one, "the token was revoked"), (&mut two, "the token has expired")] {
        let last = stream.next().await.expect("an event");
        assert_eq!((last.name.as_str(), last.data["code"].as_str()), ("closed", Some("unauthorized")));
        assert_eq!(last.data["detail"], why);
        assert!(stream.next().await.is_none(), "the stream goes on");
    }
    bench.stop().await;
}

#[tokio::test]
async fn ids_that_cannot_be_and_streams_too_many_are_refused() {
    let bench = Bench::new(&["http.event_streams_max=1", "http.event_heartbeat=100ms"]).await;
    let events = || bench.request(Method::GET, "/api/v1/events");
    refused(events().header("last-event-id", "x"), 400, "invalid_request").await;
    let body = refused(bench.request(Method::GET, "/api/v1/events?after=4000"), 400, "invalid_request").await;
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("4000")), "{body}");
    let mut stream = Reader::open(events()).await;
    refused(events(), 503, "unavailable").await;
    // A quiet stream is kept open by comments.
    let comment = tokio::time::timeout(Duration::from_secs(10), stream.body.next()).await.expect("in time");
    assert!(comment.expect("a chunk").expect("whole").starts_with(b":"));
    drop(stream);
    crate::bench::eventually("the place is free again", || async {
        events().send().await.expect("an answer").status() == 200
    })
    .await;
    bench.stop().await;
}
