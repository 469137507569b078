//! The lines of the cluster's other nodes. What happens in a workspace happens where its turns run, which moves, and each
//! node keeps the lines of what happened on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use caxton_proto::NodeId;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use hyper::body::Incoming;

use crate::api::logs::{LogLine, LogLines};
use crate::edge::Services;
use crate::llm::sse::Reader;

/// How long a node may take to tell its lines.
const LINES_TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes of them.
const LINES_BYTES_MAX: usize = 4 << 20;
/// The most bytes of one event of a node's stream.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// The pause before a node whose stream ended is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a stream looks whether another node has joined.
const LOOK: Duration = Duration::from_secs(2);

/// Asks the other nodes, as whoever asked this one.
#[derive(Clone)]
pub struct Others {
    pub services: Services,
    /// Whose permission counts: each node looks at it.
    pub token: Option<HeaderValue>,
    /// Path and query, which ask a node for its own lines.
    pub own_lines: String,
}

impl Others {
    /// The nodes that belong to the cluster, but this one.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.services.cluster.others()
    }

    /// The newest lines of each, up to `limit`; of whoever does not answer in time nothing.
    pub async fn lines(&self, limit: usize) -> BTreeMap<NodeId, Option<Vec<LogLine>>> {
        let asked = self.nodes().into_iter().map(|node| async move {
            let lines = tokio::time::timeout(LINES_TIMEOUT, self.lines_of(node, limit)).await;
            (node, lines.ok().flatten())
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    async fn lines_of(&self, node: NodeId, limit: usize) -> Option<Vec<LogLine>> {
        let body = self.ask(node, &format!("&limit={limit}")).await?;
        let body = axum::body::to_bytes(Body::new(body), LINES_BYTES_MAX).await.ok()?;
        let LogLines { lines, .. } = serde_json::from_slice(&body).ok()?;
        Some(lines)
    }

    async fn ask(&self, node: NodeId, more: &str) -> Option<Incoming> {
        let mut request = Request::get(format!("{}{more}", self.own_lines));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let answer = self.services.cluster.peers().forward(node, request.body(Body::empty()).ok()?).await.ok()?;
        answer.status().is_success().then(|| answer.into_body())
    }

    /// Each line as it is written, of every node: those that are there, after the numbers in `after`, and those that join.
    pub fn follow(self, after: BTreeMap<NodeId, u64>) -> impl futures::Stream<Item = LogLine> + Send + 'static {
        let followed = Followed { others: self, after, known: BTreeSet::new(), streams: SelectAll::new() };
        stream::unfold(followed, |mut followed| async move {
            let line = followed.next().await;
            Some((line, followed))
        })
    }

    /// The lines of one node until it does not belong to the cluster any more.
    fn stream(self, node: NodeId, after: u64) -> BoxStream<'static, LogLine> {
        let reading = Reading { others: self, node, last: after, open: None };
        let lines = stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) });
        lines.boxed()
    }
}

struct Followed {
    others: Others,
    after: BTreeMap<NodeId, u64>,
    known: BTreeSet<NodeId>,
    streams: SelectAll<BoxStream<'static, LogLine>>,
}

impl Followed {
    async fn next(&mut self) -> LogLine {
        loop {
            let nodes = self.others.nodes();
            for node in nodes.difference(&self.known) {
                let after = self.after.get(node).copied().unwrap_or_default();
                self.streams.push(self.others.clone().stream(*node, after));
            }
            // One that has gone ended its stream, and a node id never comes back.
            self.known = nodes;
            match tokio::time::timeout(LOOK, self.streams.next()).await {
                Ok(Some(line)) => return line,
                // There is no other node.
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(_) => {}
            }
        }
    }
}

/// What is read of one node.
struct Reading {
    others: Others,
    node: NodeId,
    /// The number of the last line that was read.
    last: u64,
    open: Option<(Incoming, Reader)>,
}

impl Reading {
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.read().await {
                // A node that was started again counts from 1.
                self.last = line.id;
                return Some(line);
            }
            tokio::time::sleep(AGAIN).await;
            if !self.others.nodes().contains(&self.node) {
                return None;
            }
            let body = self.others.ask(self.node, &format!("&follow=true&after={}", self.last)).await;
            self.open = body.map(|body| (body, Reader::new(EVENT_BYTES_MAX)));
        }
    }

    /// The next line; nothing once the stream has ended.
    async fn read(&mut self) -> Option<LogLine> {
        use http_body_util::BodyExt;
        let (body, reader) = self.open.as_mut()?;
        loop {
            while let Some(event) = reader.next().ok()? {
                if event.name == "line"
                    && let Ok(line) = serde_json::from_str(&event.data)
                {
                    return Some(line);
                }
            }
            let frame = body.frame().await?.ok()?;
            if let Some(bytes) = frame.data_ref() {
                reader.feed(bytes);
            }
        }
    }
}
