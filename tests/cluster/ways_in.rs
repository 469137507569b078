//! gRPC and WebSocket in a cluster: any node answers for any workspace, and what is followed goes on when its owner dies.

use caxton_proto::v1::pb;
use caxton_proto::v1::pb::conversations_client::ConversationsClient;
use caxton_proto::v1::pb::messages_client::MessagesClient;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::Request;
use tonic::transport::Channel;

use crate::run::{DEADLINE, Place};
use crate::shards::{ask, deploy, group_of, workspace};
use crate::support::{Member, spread, three};

fn bearer(member: &Member) -> String {
    let token = std::fs::read_to_string(member.data.join("admin-token")).expect("a token");
    format!("Bearer {}", token.trim())
}

fn authorized<T>(member: &Member, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer(member).parse().expect("a header"));
    request
}

async fn channel(member: &Member) -> Channel {
    let url = member.url().expect("an address");
    Channel::from_shared(url).expect("an address").timeout(DEADLINE).connect().await.expect("a connection")
}

fn follow(after: Option<u64>) -> pb::FollowConversationRequest {
    let (workspace, conversation) = ("w1".to_owned(), "c".to_owned());
    pb::FollowConversationRequest { workspace, conversation, after, ..Default::default() }
}

#[test]
fn any_node_answers_and_what_is_followed_outlives_the_owner() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let leaders = spread(&members.iter().collect::<Vec<_>>());
    deploy(&members[0], &workspace(&place, "w1", "kind = \"scripted\"\nscript = \"prompts/s.toml\""));
    let message = json!({ "agent": "thinker", "text": "hi", "conversation": "c", "create": true });
    members.iter().for_each(|member| assert_eq!(ask(member, "w1", &message)["text"], "this is w1"));
    let owner = members.iter().position(|member| member.id() == leaders[group_of("w1")]).expect("the owner");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for (at, member) in members.iter().enumerate() {
            let asked = pb::AskRequest {
                workspace: "w1".to_owned(),
                agent: Some("thinker".to_owned()),
                text: "hi".to_owned(),
                conversation: Some("c".to_owned()),
                ..Default::default()
            };
            let mut messages = MessagesClient::new(channel(member).await);
            let mut steps = messages.ask_stream(authorized(member, asked)).await.expect("a stream").into_inner();
            let mut last = None;
            while let Some(step) = steps.message().await.expect("a step") {
                last = step.event;
            }
            let Some(pb::turn_event::Event::Answer(answer)) = last else { panic!("{last:?}") };
            assert_eq!(answer.text, "this is w1");
            let mut conversations = ConversationsClient::new(channel(member).await);
            let after = 3 + at as u64;
            let told = conversations.follow_conversation(authorized(member, follow(Some(after)))).await;
            let mut told = told.expect("a stream").into_inner();
            assert_eq!(told.message().await.expect("told").expect("an event").number, after + 1);
        }
    });
    // Two follow at nodes that go on: over WebSocket and over gRPC.
    let [one, two] = [(owner + 1) % 3, (owner + 2) % 3];
    let mut socket = runtime.block_on(async {
        let url = members[one].url().expect("an address").replacen("http", "ws", 1);
        let (mut socket, _) = connect_async(format!("{url}/api/v1/socket")).await.expect("a connection");
        let token = bearer(&members[one]).split_off("Bearer ".len());
        let frames = [
            json!({ "type": "authenticate", "token": token }),
            json!({ "type": "subscribe", "id": "s", "workspace": "w1", "to": { "conversation": "c" }, "after": 5 }),
        ];
        for frame in frames {
            socket.send(Message::text(frame.to_string())).await.expect("sent");
        }
        socket
    });
    members[owner].kill();
    ask(&members[two], "w1", &message);
    let numbers = runtime.block_on(async {
        let mut numbers = Vec::new();
        while numbers.len() < 2 {
            let message = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time");
            let Message::Text(text) = message.expect("a message").expect("whole") else { continue };
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            assert_ne!(frame["type"], "error", "{frame}");
            numbers.extend(frame["number"].as_u64());
        }
        numbers
    });
    assert_eq!(numbers, [6, 7], "nothing is missed, and nothing comes twice");
    runtime.block_on(async {
        let member = &members[two];
        let mut conversations = ConversationsClient::new(channel(member).await);
        let told = conversations.follow_conversation(authorized(member, follow(Some(6)))).await;
        let mut told = told.expect("a stream").into_inner();
        assert_eq!(told.message().await.expect("told").expect("an event").number, 7);
    });
}
