//! gRPC: the services through a real node with the published client: on HTTP's port, with its tokens, limits and errors.

use std::time::Duration;

use caxton_proto::log::Role;
use caxton_proto::v1::pb::conversations_client::ConversationsClient;
use caxton_proto::v1::pb::deployments_client::DeploymentsClient;
use caxton_proto::v1::pb::mailbox_client::MailboxClient;
use caxton_proto::v1::pb::messages_client::MessagesClient;
use caxton_proto::v1::pb::{self, ConversationKind};
use prost_types::value::Kind;
use reqwest::Method;
use serde_json::json;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

use crate::bench::{Bench, DEADLINE, eventually};
use crate::deploy::Content;
use crate::messages::{talker, with};
use crate::policy::token;
use crate::stop::{Seen, next, silent};

/// A client's channel with a token.
type Line = InterceptedService<Channel, Bearer>;

#[derive(Clone)]
struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

async fn channel(bench: &Bench) -> Channel {
    let url = bench.node.url();
    let mut endpoint = Endpoint::from_shared(url.to_owned()).expect("an address").timeout(DEADLINE);
    if url.starts_with("https") {
        let pem = std::fs::read(bench.dir.path().join("tls/ca.pem")).expect("a certificate");
        endpoint = endpoint
            .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
            .expect("settings of TLS");
    }
    endpoint.connect().await.expect("a connection")
}

async fn line(bench: &Bench, token: &str) -> Line {
    let bearer = Bearer(format!("Bearer {token}").parse().expect("a header"));
    InterceptedService::new(channel(bench).await, bearer)
}

fn ask(text: &str) -> pb::AskRequest {
    pb::AskRequest {
        workspace: "demo".to_owned(),
        text: text.to_owned(),
        agent: Some("talker".to_owned()),
        ..Default::default()
    }
}

fn follow(id: &str, after: Option<u64>) -> pb::FollowConversationRequest {
    pb::FollowConversationRequest {
        workspace: "demo".to_owned(),
        conversation: id.to_owned(),
        after,
        ..Default::default()
    }
}

/// What the details of a status name: a code of docs/errors.md.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.to_lowercase()).unwrap_or_default()
}

/// The refusal of a call has this status and this code.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, name: &str) -> Status {
    let status = answer.expect_err("it is refused");
    assert_eq!((status.code(), reason(&status).as_str()), (code, name), "{status:?}");
    status
}

#[tokio::test]
async fn an_agent_is_asked_and_its_conversation_is_followed_and_resumed_without_a_gap() {
    let bench = with(&talker("[[rule]]\nsay = \"It rains.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let (mut messages, mut conversations) =
        (MessagesClient::new(line(&bench, &ada).await), ConversationsClient::new(line(&bench, &ada).await));
    let first = pb::AskRequest { conversation: Some("c1".to_owned()), create: true, ..ask("How is it?") };
    let asked = messages.ask(first).await.expect("an answer").into_inner();
    let Some(pb::ask_response::Outcome::Answer(answer)) = asked.outcome else { panic!("no answer: {asked:?}") };
    assert_eq!((answer.text.as_str(), answer.agent.as_str()), ("It rains.", "talker"));
    assert_eq!((answer.conversation.as_str(), answer.revision), ("c1", 1));

    let again = pb::AskRequest { conversation: Some("c1".to_owned()), ..ask("And now?") };
    let mut steps = messages.ask_stream(again.clone()).await.expect("a stream").into_inner();
    let mut events = Vec::new();
    while let Some(event) = steps.message().await.expect("a step") {
        events.push(event);
    }
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(matches!(events[0].event, Some(pb::turn_event::Event::Routed(_))), "{:?}", events[0]);
    let Some(pb::turn_event::Event::Answer(last)) = &events[events.len() - 1].event else { panic!("{events:?}") };
    assert_eq!(last.text, "It rains.");
    let wanted = pb::GetTurnRequest { workspace: "demo".to_owned(), turn: last.turn.clone(), stale: false };
    let known = messages.get_turn(wanted).await.expect("a turn").into_inner();
    assert!(matches!(known.outcome, Some(pb::ask_response::Outcome::Answer(known)) if known.text == "It rains."));

    let mut told = conversations.follow_conversation(follow("c1", Some(1))).await.expect("a stream").into_inner();
    let second = told.message().await.expect("told").expect("an event");
    assert_eq!(second.number, 2);
    messages.ask(again).await.expect("an answer");
    let third = told.message().await.expect("told").expect("an event");
    assert_eq!(third.number, 3);
    let Some(pb::conversation_event::Event::Turn(turn)) = third.event else { panic!("{third:?}") };
    let said: Vec<&str> = turn.said.iter().map(|said| said.text.as_str()).collect();
    assert_eq!((said.first(), said.last()), (Some(&"And now?"), Some(&"It rains.")));
    let mut all = conversations.follow_conversation(follow("c1", None)).await.expect("a stream").into_inner();
    for number in 1..=3 {
        assert_eq!(all.message().await.expect("told").expect("an event").number, number);
    }

    let workspace = "demo".to_owned();
    let wanted = pb::GetConversationRequest { workspace, conversation: "c1".to_owned(), ..Default::default() };
    let shown = conversations.get_conversation(wanted.clone()).await.expect("it").into_inner();
    let numbers: Vec<u64> = shown.events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let page = pb::ListConversationsRequest { workspace: "demo".to_owned(), ..Default::default() };
    let listed = conversations.list_conversations(page).await.expect("a page").into_inner();
    assert_eq!((listed.conversations.len(), listed.conversations[0].turns), (1, 3));

    // It is hers, and nobody else's.
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let mut others = ConversationsClient::new(line(&bench, &eve).await);
    refused(others.get_conversation(wanted).await, Code::NotFound, "not_found");
    refused(others.follow_conversation(follow("c1", None)).await, Code::NotFound, "not_found");
    refused(conversations.follow_conversation(follow("c1", Some(9))).await, Code::InvalidArgument, "invalid_request");
    refused(conversations.follow_conversation(follow("none", None)).await, Code::NotFound, "not_found");
    bench.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_to_a_mailbox_and_its_answer_followed_there_and_dropped() {
    let bench = with(&talker("[[rule]]\nsay = \"It rains.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let (mut messages, mut mailbox) =
        (MessagesClient::new(line(&bench, &ada).await), MailboxClient::new(line(&bench, &ada).await));
    let mut conversations = ConversationsClient::new(line(&bench, &ada).await);
    // Followed before there is anything in it.
    let own = pb::FollowMailboxRequest { workspace: "demo".to_owned(), ..Default::default() };
    let mut told = mailbox.follow_mailbox(own).await.expect("a stream").into_inner();
    let awaited = pb::FollowConversationRequest {
        kind: ConversationKind::Messages.into(),
        wait: true,
        ..follow("weather", None)
    };
    let mut events = conversations.follow_conversation(awaited.clone()).await.expect("a stream").into_inner();
    let text = pb::content::Body::Text("How is the weather?".to_owned());
    let message = pb::Message {
        performative: "request".to_owned(),
        sender: "subject:somebody-else".to_owned(),
        receivers: vec!["talker".to_owned()],
        content: Some(pb::Content { media_type: String::new(), body: Some(text) }),
        protocol: "fipa-request".to_owned(),
        conversation_id: "weather".to_owned(),
        reply_with: "r1".to_owned(),
        ..Default::default()
    };
    let request = pb::SendRequest {
        workspace: "demo".to_owned(),
        message: Some(message),
        key: Some("k1".to_owned()),
        ..Default::default()
    };
    let sent = messages.send(request.clone()).await.expect("taken in").into_inner();
    assert_eq!((sent.duplicate, sent.conversation.as_str(), sent.event, sent.deliveries), (false, "weather", 1, 1));
    let known = messages.send(request.clone()).await.expect("known").into_inner();
    assert_eq!((known.duplicate, &known.id), (true, &sent.id));
    let answer = told.message().await.expect("told").expect("a delivery");
    let message = answer.message.expect("a message");
    assert_eq!((message.performative.as_str(), message.in_reply_to.as_str()), ("inform", "r1"));
    assert_eq!(
        (message.sender.as_str(), message.receivers.as_slice()),
        ("talker", ["subject:ada".to_owned()].as_slice())
    );
    let said = message.content.and_then(|content| content.body);
    assert_eq!(said, Some(pb::content::Body::Text("It rains.".to_owned())));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = events.message().await.expect("told").expect("an event");
        let Some(pb::conversation_event::Event::Message(message)) = event.event else { panic!("{event:?}") };
        seen.push((event.number, message.performative));
    }
    assert_eq!(seen, [(1, "request".to_owned()), (2, "inform".to_owned())]);
    let resumed = pb::FollowConversationRequest { after: Some(1), wait: false, ..awaited };
    let mut rest = conversations.follow_conversation(resumed).await.expect("a stream").into_inner();
    assert_eq!(rest.message().await.expect("told").expect("an event").number, 2);

    let (workspace, delivery) = ("demo".to_owned(), answer.number);
    let one = pb::GetDeliveryRequest { workspace: workspace.clone(), delivery, stale: false };
    assert_eq!(mailbox.get_delivery(one.clone()).await.expect("it").into_inner().owner, "subject:ada");
    mailbox.drop_delivery(pb::DropDeliveryRequest { workspace, delivery }).await.expect("dropped");
    refused(mailbox.get_delivery(one).await, Code::NotFound, "not_found");
    let empty = pb::SendRequest { message: Some(pb::Message::default()), ..request };
    refused(messages.send(empty).await, Code::InvalidArgument, "invalid_request");
    bench.stop().await;
}

#[tokio::test]
async fn deployments_are_listed_shown_followed_and_rolled_back() {
    let bench = with(&talker("[[rule]]\nsay = \"One.\"\n", "")).await;
    let (first, second) = (talker("[[rule]]\nsay = \"One.\"\n", ""), talker("[[rule]]\nsay = \"Two.\"\n", ""));
    let mut deployments = DeploymentsClient::new(line(&bench, &bench.admin).await);
    let all = pb::FollowDeploymentsRequest { workspace: Some("demo".to_owned()), after: Some(0) };
    let mut told = deployments.follow_deployments(all).await.expect("a stream").into_inner();
    assert_eq!(told.message().await.expect("told").expect("one").revision, 1);
    bench.deploy(&second, 1, &first, "second").await;
    let came = told.message().await.expect("told").expect("one");
    assert_eq!((came.revision, came.actor.as_str()), (2, "admin"));
    let workspace = "demo".to_owned();
    let back = pb::RollbackRequest {
        workspace: workspace.clone(),
        to: 1,
        parent: 2,
        idempotency_key: "back".to_owned(),
        ..Default::default()
    };
    let done = deployments.rollback(back.clone()).await.expect("done").into_inner();
    assert_eq!(done.deployment.map(|it| (it.revision, it.rollback_to)), Some((3, Some(1))));
    let other = pb::RollbackRequest { idempotency_key: "other".to_owned(), ..back };
    refused(deployments.rollback(other).await, Code::Aborted, "conflict");
    let current = deployments.get_current(pb::GetCurrentRequest { workspace: workspace.clone(), stale: false }).await;
    let current = current.expect("it").into_inner();
    assert_eq!((current.revision, current.serving, current.agents), (3, 3, 1));
    let page = pb::ListDeploymentsRequest { workspace: workspace.clone(), before: None, limit: 2 };
    let page = deployments.list_deployments(page).await.expect("a page").into_inner();
    let revisions: Vec<u64> = page.deployments.iter().map(|it| it.revision).collect();
    assert_eq!((revisions, page.next), (vec![3, 2], Some(2)));
    let one = deployments.get_deployment(pb::GetDeploymentRequest { workspace, revision: 1 }).await;
    assert!(one.expect("it").into_inner().event_id < came.event_id);
    let none = pb::GetDeploymentRequest { workspace: "demo".to_owned(), revision: 9 };
    refused(deployments.get_deployment(none).await, Code::NotFound, "not_found");
    let served = deployments.list_workspaces(pb::ListWorkspacesRequest {}).await.expect("them").into_inner();
    assert_eq!(served.workspaces.len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn what_may_not_be_is_refused_with_its_code_and_what_to_do() {
    let bench = Bench::new(&["http.message_bytes_max=64KiB", "http.event_streams_max=1"]).await;
    bench.deploy(&talker("[[rule]]\nsay = \"x\"\n", ""), 0, &Content::default(), "first").await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let viewer = token(&bench, "vic", Role::Viewer, &["demo"]).await;
    let mut anybody = MessagesClient::new(channel(&bench).await);
    let status = refused(anybody.ask(ask("x")).await, Code::Unauthenticated, "unauthorized");
    assert!(status.get_error_details().error_info().is_some_and(|it| it.metadata["help"].contains("Bearer")));
    assert!(status.metadata().get("x-request-id").is_some(), "{status:?}");
    let mut wrong = MessagesClient::new(line(&bench, "caxton_admin_0000").await);
    refused(wrong.ask(ask("x")).await, Code::Unauthenticated, "unauthorized");
    let mut reader = MessagesClient::new(line(&bench, &viewer).await);
    refused(reader.ask(ask("x")).await, Code::PermissionDenied, "forbidden");
    let mut messages = MessagesClient::new(line(&bench, &ada).await);
    let elsewhere = pb::AskRequest { workspace: "elsewhere".to_owned(), ..ask("x") };
    refused(messages.ask(elsewhere).await, Code::PermissionDenied, "forbidden");
    let nameless = pb::AskRequest { workspace: "No name".to_owned(), ..ask("x") };
    refused(messages.ask(nameless).await, Code::InvalidArgument, "invalid_request");
    let nobody = pb::AskRequest { agent: Some("nobody".to_owned()), ..ask("x") };
    refused(messages.ask(nobody).await, Code::NotFound, "not_found");
    refused(messages.ask(ask(&"x".repeat(65 << 10))).await, Code::ResourceExhausted, "body_too_large");
    let not_a_number = prost_types::Value { kind: Some(Kind::NumberValue(f64::NAN)) };
    let parameters = prost_types::Struct { fields: [("n".to_owned(), not_a_number)].into() };
    let odd = pb::AskRequest { parameters: Some(parameters), ..ask("x") };
    refused(messages.ask(odd).await, Code::InvalidArgument, "invalid_request");

    let mut conversations = ConversationsClient::new(line(&bench, &ada).await);
    let awaited = || pb::FollowConversationRequest { wait: true, ..follow("c", None) };
    let one = conversations.follow_conversation(awaited()).await.expect("a stream");
    refused(conversations.follow_conversation(awaited()).await, Code::Unavailable, "unavailable");
    // Its place is free again when the client has gone.
    drop(one);
    eventually("the place is free", || async {
        ConversationsClient::new(line(&bench, &ada).await).follow_conversation(awaited()).await.is_ok()
    })
    .await;

    // A method that is not there, and what is no call of gRPC.
    let mut raw = tonic::client::Grpc::new(line(&bench, &ada).await);
    raw.ready().await.expect("ready");
    let path = http::uri::PathAndQuery::from_static("/caxton.v1.Messages/Shout");
    let codec = tonic_prost::ProstCodec::<pb::AskRequest, pb::AskResponse>::default();
    refused(raw.unary(Request::new(ask("x")), path, codec).await, Code::Unimplemented, "method_not_allowed");
    let json = bench.request(Method::POST, "/caxton.v1.Messages/Ask").json(&json!({}));
    crate::bench::refused(json, 415, "unsupported_media_type").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_and_a_stream_ends_with_its_token() {
    let (address, mut seen) = silent().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n"
    );
    let bench = with(&Content::of(&["talker"], "hello").file("caxton.toml", settings)).await;
    let mut messages = MessagesClient::new(line(&bench, &bench.admin).await);
    // Long enough that the model is asked, and the model never answers.
    let mut asked = Request::new(ask("x"));
    asked.set_timeout(Duration::from_secs(5));
    let late = messages.ask(asked).await.expect_err("too late");
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&late.code()), "{late:?}");
    assert_eq!(next(&mut seen).await, Seen::Request);
    assert_eq!(next(&mut seen).await, Seen::Left, "nobody waits for the turn any more");
    // A client that goes takes its stream's turn with it.
    let mut steps = messages.ask_stream(ask("x")).await.expect("a stream").into_inner();
    assert!(steps.message().await.expect("told").is_some());
    assert_eq!(next(&mut seen).await, Seen::Request);
    drop(steps);
    assert_eq!(next(&mut seen).await, Seen::Left);

    let issued = bench.token("caller", &["demo"], 3600).await;
    let token = issued["token"].as_str().expect("a token");
    let mut conversations = ConversationsClient::new(line(&bench, token).await);
    let awaited = pb::FollowConversationRequest { wait: true, ..follow("c", None) };
    let mut told = conversations.follow_conversation(awaited).await.expect("a stream").into_inner();
    let short = bench.token("caller", &["demo"], 3).await;
    let mut brief = ConversationsClient::new(line(&bench, short["token"].as_str().expect("a token")).await);
    let awaited = pb::FollowConversationRequest { wait: true, ..follow("c", None) };
    let mut ends = brief.follow_conversation(awaited).await.expect("a stream").into_inner();
    refused(ends.message().await, Code::Unauthenticated, "unauthorized");
    // One whose node stops is told so.
    let stopped = tokio::spawn(async move { told.message().await });
    bench.stop().await;
    refused(stopped.await.expect("it ends"), Code::Unavailable, "unavailable");
}

#[tokio::test]
async fn health_and_reflection_are_open_and_work_over_tls_too() {
    let bench = Bench::new(&["tls.mode=always"]).await;
    assert!(bench.node.url().starts_with("https"), "{}", bench.node.url());
    let mut health = HealthClient::new(channel(&bench).await);
    for service in ["", "caxton.v1.Messages", "caxton.v1.Conversations"] {
        let wanted = HealthCheckRequest { service: service.to_owned() };
        let HealthCheckResponse { status } = health.check(wanted).await.expect("an answer").into_inner();
        assert_eq!(status, i32::from(ServingStatus::Serving), "{service}");
    }
    let unknown = HealthCheckRequest { service: "nothing".to_owned() };
    refused(health.check(unknown.clone()).await, Code::NotFound, "not_found");
    let mut watched = health.watch(unknown).await.expect("a stream").into_inner();
    let first = watched.message().await.expect("told").expect("a status");
    assert_eq!(first.status, i32::from(ServingStatus::ServiceUnknown));

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = |wanted: MessageRequest| tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(wanted),
    };
    let asked = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("caxton.v1.Messages.Ask".to_owned())),
    ]);
    let mut reflection = ServerReflectionClient::new(channel(&bench).await);
    let mut told = reflection.server_reflection_info(asked).await.expect("a stream").into_inner();
    let services = told.message().await.expect("told").and_then(|it| it.message_response);
    let Some(MessageResponse::ListServicesResponse(services)) = services else { panic!("{services:?}") };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["caxton.v1.Messages", "caxton.v1.Mailbox", "caxton.v1.Deployments", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let file = told.message().await.expect("told").and_then(|it| it.message_response);
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
    bench.stop().await;
}

#[tokio::test]
async fn strangers_take_no_more_watches_of_the_node_s_health_than_an_address_has() {
    let bench = with(&talker("[[rule]]\nsay = \"x\"\n", "")).await;
    let mut health = HealthClient::new(channel(&bench).await);
    let wanted = || HealthCheckRequest { service: String::new() };
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(health.watch(wanted()).await.expect("a stream").into_inner());
    }
    refused(health.watch(wanted()).await, Code::Unavailable, "unavailable");
    let check = health.check(wanted()).await.expect("an answer").into_inner();
    assert_eq!(check.status, i32::from(ServingStatus::Serving), "it can be asked all the same");
    drop(watches);
    eventually("a place to be free", || {
        let mut health = health.clone();
        async move { health.watch(wanted()).await.is_ok() }
    })
    .await;
    bench.stop().await;
}
