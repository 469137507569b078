//! Messages through a real node: sent over HTTP, given to an agent as a turn, answered, kept, refused, tried again and dropped.

use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read, refused};
use crate::messages::{talker, with};
use crate::policy::token;

const AT: &str = "/api/v1/workspaces/demo/mailbox";

pub async fn send(bench: &Bench, token: &str, body: Value) -> Value {
    let (status, sent) = read(bench.request_as(token, Method::POST, AT).json(&body)).await;
    assert_eq!(status, 200, "{sent}");
    sent
}

pub async fn lies_in(bench: &Bench, token: &str, owner: &str) -> Vec<Value> {
    let (status, page) = read(bench.request_as(token, Method::GET, &format!("{AT}?owner={owner}"))).await;
    assert_eq!(status, 200, "{page}");
    page["deliveries"].as_array().expect("a list").clone()
}

fn request(to: &str) -> Value {
    json!({ "performative": "request", "receiver": to, "content": "How is the weather?", "reply_with": "r1",
        "protocol": "fipa-request", "sender": "subject:somebody-else" })
}

#[tokio::test]
async fn a_request_is_answered_by_its_agent_once_and_the_answer_outlives_a_restart() {
    let bench = with(&talker("[[rule]]\nsay = \"It rains.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let body = json!({ "message": request("talker"), "key": "k1", "priority": 7 });
    let sent = send(&bench, &ada, body.clone()).await;
    assert_eq!((sent["duplicate"].as_bool(), sent["deliveries"].as_u64()), (Some(false), Some(1)));
    eventually("the answer", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let again = send(&bench, &ada, body).await;
    assert_eq!((again["duplicate"].as_bool(), &again["id"]), (Some(true), &sent["id"]));
    assert!(lies_in(&bench, &bench.admin, "talker").await.is_empty(), "what is answered is gone");
    let bench = Bench::on(bench.stop().await, &[]).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    assert_eq!(answers.len(), 1, "one answer: {answers:?}");
    let message = &answers[0]["message"];
    assert_eq!((message["performative"].as_str(), message["content"].as_str()), (Some("inform"), Some("It rains.")));
    assert_eq!((message["sender"].as_str(), message["in_reply_to"].as_str()), (Some("talker"), Some("r1")));
    assert_eq!(message["receiver"], "subject:ada", "a sender cannot be forged");
    assert_eq!(message["conversation_id"], sent["conversation"]);

    let one = format!("{AT}/{}", answers[0]["delivery"]);
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    refused(bench.request_as(&eve, Method::GET, &one), 404, "not_found").await;
    refused(bench.request_as(&eve, Method::DELETE, &one), 404, "not_found").await;
    assert!(lies_in(&bench, &eve, "subject:ada").await.is_empty());
    let (status, gone) = read(bench.request_as(&ada, Method::DELETE, &one)).await;
    assert_eq!((status, gone["change"].as_str()), (200, Some("dropped")));
    refused(bench.request_as(&ada, Method::GET, &one), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_away_keeps_its_messages_and_has_them_when_it_comes() {
    let bench = with(&talker("[[rule]]\nsay = \"Hello.\"\n", "")).await;
    let admin = bench.admin.clone();
    send(&bench, &admin, json!({ "message": { "performative": "inform", "receiver": "later", "content": "x" } })).await;
    send(&bench, &admin, json!({ "message": { "performative": "inform", "receiver": "talker", "content": "x" } }))
        .await;
    eventually("the other is done", || async { lies_in(&bench, &admin, "talker").await.is_empty() }).await;
    let kept = lies_in(&bench, &admin, "later").await;
    assert_eq!((kept.len(), kept[0]["state"].as_str(), kept[0]["attempts"].as_u64()), (1, Some("ready"), Some(0)));
    let retry = format!("{AT}/{}/retry", kept[0]["delivery"]);
    refused(bench.request_as(&admin, Method::POST, &retry), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_what_to_do() {
    let bench = with(&talker("[[rule]]\nsay = \"Hello.\"\n", "")).await;
    let admin = bench.admin.clone();
    let ask = |message: Value| bench.request_as(&admin, Method::POST, AT).json(&json!({ "message": message }));
    for (message, part) in [
        (json!({ "performative": "shout", "receiver": "talker" }), "use one of"),
        (json!({ "performative": "inform" }), "say who receives it"),
        (json!({ "performative": "inform", "receiver": "a@b" }), "another workspace"),
        (json!({ "performative": "inform", "receiver": "talker", "content": "x".repeat(300 << 10) }), "artifact"),
    ] {
        let problem = refused(ask(message), 400, "invalid_request").await;
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{part}: {problem}");
    }
    let nobody = json!({ "performative": "inform", "receiver": "capability:flying" });
    refused(ask(nobody), 404, "not_found").await;
    let mut begun = request("later");
    begun["conversation_id"] = json!("c1");
    let (status, _) = read(ask(begun.clone())).await;
    assert_eq!(status, 200);
    let problem = refused(ask(begun), 409, "conflict").await;
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("it may say cancel")), "{problem}");
    let (status, noted) = read(ask(json!({ "performative": "QUERY", "receiver": "later" }))).await;
    assert_eq!(status, 200, "{noted}");
    assert!(noted["notes"][0].as_str().is_some_and(|note| note.contains("query-ref")), "{noted}");
    let away = json!({ "performative": "inform", "receiver": ["broadcast:"], "content": "all" });
    let (status, sent) = read(ask(away)).await;
    assert_eq!((status, sent["deliveries"].as_u64()), (200, Some(1)), "{sent}");
    bench.stop().await;
}

#[tokio::test]
async fn below_the_disks_reserve_nothing_is_sent_or_subscribed_and_what_lies_there_can_be_read() {
    let bench = with(&talker("[[rule]]\nsay = \"Hello.\"\n", "")).await;
    let admin = bench.admin.clone();
    let message = json!({ "message": { "performative": "inform", "receiver": "later", "content": "x" } });
    send(&bench, &admin, message.clone()).await;
    let space = bench.node.parts().artifacts.space().clone();
    space.set_reserve_bytes(u64::MAX);
    let at = |path: &str| format!("/api/v1/workspaces/demo/{path}");
    for (path, body) in [
        ("mailbox", message.clone()),
        ("publications", json!({ "topic": "a", "content": 1 })),
        ("subscriptions", json!({ "pattern": "a" })),
    ] {
        let problem = refused(bench.request(Method::POST, &at(path)).json(&body), 507, "disk_full").await;
        assert!(problem["help"].as_str().is_some_and(|help| help.contains("free space")), "{problem}");
    }
    let kept = lies_in(&bench, &admin, "later").await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    // What makes room is taken.
    let (status, _) = read(bench.request(Method::DELETE, &at(&format!("mailbox/{}", kept[0]["delivery"])))).await;
    assert_eq!(status, 200);
    space.set_reserve_bytes(0);
    send(&bench, &admin, message).await;
    bench.stop().await;
}
