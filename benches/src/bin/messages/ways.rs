//! The ways in which a message gets into a mailbox: each is one connection that waits for the acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use caxton_benches::http::Pool;
use caxton_benches::socket::Socket;
use caxton_proto::v1::pb;
use caxton_proto::v1::pb::messages_client::MessagesClient;
use clap::ValueEnum;
use serde_json::json;
use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// `POST .../mailbox`.
    Http,
    /// `Messages.Send`.
    Grpc,
    /// The frame `send`.
    Websocket,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Http, Way::Grpc, Way::Websocket];

    /// What a row calls it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Http => "POST .../mailbox",
            Way::Grpc => "gRPC Messages.Send",
            Way::Websocket => "WebSocket send",
        }
    }
}

/// A message that is sent again and again.
#[derive(Debug, Clone)]
pub struct Letter {
    pub workspace: String,
    pub receiver: String,
    pub text: String,
    /// The conversation of all of them; one each without it.
    pub conversation: Option<String>,
}

impl Letter {
    /// As the body of a request over HTTP.
    pub fn body(&self) -> String {
        let mut message = json!({ "performative": "request", "receiver": self.receiver, "content": self.text });
        if let Some(conversation) = &self.conversation {
            message["conversation_id"] = json!(conversation);
        }
        json!({ "message": message }).to_string()
    }
}

/// One sender.
#[derive(Clone)]
pub enum Sender {
    Http { pool: Pool, path: Arc<str>, body: Arc<str> },
    Grpc { client: MessagesClient<Channel>, bearer: MetadataValue<Ascii>, request: Box<pb::SendRequest> },
    Websocket { socket: Arc<Mutex<Socket>>, frame: Arc<str>, sent: Arc<AtomicU64> },
}

impl Sender {
    /// Connects to a node.
    pub async fn open(way: Way, address: &str, token: &str, letter: &Letter) -> Result<Sender> {
        Ok(match way {
            Way::Http => {
                let path = format!("/api/v1/workspaces/{}/mailbox", letter.workspace).into();
                Sender::Http { pool: Pool::open(address, 1, token).await?, path, body: letter.body().into() }
            }
            Way::Grpc => {
                let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
                let bearer = format!("Bearer {token}").parse()?;
                let content = pb::content::Body::Text(letter.text.clone());
                let message = pb::Message {
                    performative: "request".to_owned(),
                    receivers: vec![letter.receiver.clone()],
                    content: Some(pb::Content { body: Some(content), ..Default::default() }),
                    conversation_id: letter.conversation.clone().unwrap_or_default(),
                    ..Default::default()
                };
                let workspace = letter.workspace.clone();
                let request = Box::new(pb::SendRequest { workspace, message: Some(message), ..Default::default() });
                Sender::Grpc { client: MessagesClient::new(channel), bearer, request }
            }
            Way::Websocket => {
                let socket = Arc::new(Mutex::new(Socket::open(address, "/api/v1/socket", token).await?));
                let (workspace, request) = (&letter.workspace, letter.body());
                let frame = format!(r#""type":"send","workspace":"{workspace}","request":{request}}}"#);
                Sender::Websocket { socket, frame: frame.into(), sent: Arc::default() }
            }
        })
    }

    /// Sends the message, and waits until it is acknowledged.
    pub async fn send(&mut self) -> Result<()> {
        match self {
            Sender::Http { pool, path, body } => {
                pool.post(0, path, body.as_bytes().to_vec()).await?;
            }
            Sender::Grpc { client, bearer, request } => {
                let mut request = tonic::Request::new((**request).clone());
                request.metadata_mut().insert("authorization", bearer.clone());
                client.send(request).await.context("the call failed")?;
            }
            Sender::Websocket { socket, frame, sent } => {
                let mut socket = socket.lock().await;
                // An id is free a moment after its reply has come.
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let answer = socket.exchange(&format!(r#"{{"id":"{number}",{frame}"#)).await?;
                let text = std::str::from_utf8(answer)?;
                ensure!(text.contains(r#""type":"reply""#), "{text}");
            }
        }
        Ok(())
    }
}
