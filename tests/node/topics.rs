//! What people do with messages: dead letters all at once, topics with positions and filters, and what is said as it is said.

use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read, refused};
use crate::events::Reader;
use crate::mailbox::{lies_in, send};
use crate::messages::{talker, with};
use crate::policy::token;

const AT: &str = "/api/v1/workspaces/demo";

async fn get(bench: &Bench, token: &str, path: &str) -> Value {
    let (status, found) = read(bench.request_as(token, Method::GET, &format!("{AT}/{path}"))).await;
    assert_eq!(status, 200, "{path}: {found}");
    found
}

async fn post(bench: &Bench, token: &str, path: &str, body: Value) -> Value {
    let (status, found) = read(bench.request_as(token, Method::POST, &format!("{AT}/{path}")).json(&body)).await;
    assert_eq!(status, 200, "{path}: {found}");
    found
}

/// Messages that nobody takes before they expire.
async fn expired(bench: &Bench, owner: &str, number: usize) {
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    for _ in 0..number {
        let message = json!({ "performative": "inform", "receiver": owner, "content": "old news" });
        send(bench, &bench.admin, json!({ "message": message, "expires": expires.to_string() })).await;
    }
}

async fn dead(bench: &Bench, owner: &str) -> usize {
    let page = get(bench, &bench.admin, &format!("mailbox?dead=true&owner={owner}")).await;
    page["deliveries"].as_array().expect("a list").len()
}

#[tokio::test]
async fn dead_letters_are_tried_again_and_dropped_all_at_once() {
    let bench = with(&talker("[[rule]]\nsay = \"Hello.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    for (owner, number) in [("away", 3), ("subject:ada", 2), ("subject:eve", 1)] {
        expired(&bench, owner, number).await;
        eventually("they expire", || async { dead(&bench, owner).await == number }).await;
    }
    let change = |path: &'static str, body: Value| post(&bench, &bench.admin, path, body);
    let would = change("dead-letters/drop", json!({ "dry_run": true })).await;
    assert_eq!((would["deliveries"].as_u64(), would["dry_run"].as_bool()), (Some(6), Some(true)));
    assert_eq!(dead(&bench, "away").await, 3, "nothing was changed");

    refused(
        bench.request_as(&ada, Method::POST, &format!("{AT}/dead-letters/retry")).json(&json!({})),
        403,
        "forbidden",
    )
    .await;
    let others = bench.request_as(&ada, Method::POST, &format!("{AT}/dead-letters/drop"));
    refused(others.json(&json!({ "owner": "subject:eve" })), 403, "forbidden").await;
    let own = post(&bench, &ada, "dead-letters/drop", json!({})).await;
    assert_eq!(
        (own["deliveries"].as_u64(), own["change"].as_str()),
        (Some(2), Some("dropped")),
        "one's own, and no others"
    );
    assert_eq!(dead(&bench, "subject:eve").await, 1);

    let retried = change("dead-letters/retry", json!({ "owner": "away" })).await;
    assert_eq!((retried["deliveries"].as_u64(), retried["next"].as_u64()), (Some(3), None));
    let waits = lies_in(&bench, &bench.admin, "away").await;
    assert!(waits.len() == 3 && waits.iter().all(|one| one["state"] == "ready"), "{waits:?}");
    let rest = change("dead-letters/drop", json!({})).await;
    assert_eq!(rest["deliveries"].as_u64(), Some(1));
    let none = change("dead-letters/drop", json!({})).await;
    assert_eq!(none["deliveries"].as_u64(), Some(0));
    let unknown = bench.request(Method::POST, &format!("{AT}/dead-letters/drop")).json(&json!({ "owner": "a:b" }));
    refused(unknown, 400, "invalid_request").await;
    bench.stop().await;
}

#[tokio::test]
async fn what_is_published_comes_to_those_who_subscribed_and_can_be_read_again() {
    let bench = with(&talker("[[rule]]\nsay = \"Hello.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let made =
        post(&bench, &ada, "subscriptions", json!({ "pattern": "orders/+", "filter": ["content.amount >= 100"] }));
    let made = made.await;
    assert_eq!((made["name"].as_str(), made["subscriber"].as_str()), (Some("orders/+"), Some("subject:ada")));
    let agent = json!({ "pattern": "#", "name": "all", "subscriber": "away", "after": 0 });
    refused(bench.request_as(&ada, Method::POST, &format!("{AT}/subscriptions")).json(&agent), 403, "forbidden").await;
    post(&bench, &bench.admin, "subscriptions", agent).await;
    let publish = |topic: &'static str, amount: u64| {
        let body = json!({ "topic": topic, "content": { "amount": amount }, "key": format!("{topic}{amount}") });
        post(&bench, &ada, "publications", body)
    };
    for (at, (topic, amount)) in [("orders/new", 5), ("orders/new", 500), ("weather", 900)].into_iter().enumerate() {
        assert_eq!(publish(topic, amount).await["position"].as_u64(), Some(at as u64 + 1));
    }
    assert_eq!(publish("weather", 900).await["duplicate"], true, "published once");
    eventually("the agent has all", || async { lies_in(&bench, &bench.admin, "away").await.len() == 3 }).await;
    let mine = lies_in(&bench, &ada, "subject:ada").await;
    assert_eq!(mine.len(), 1, "{mine:?}");
    assert_eq!(mine[0]["message"]["content"]["amount"], 500);

    // What each has seen outlives the node, and a subscription that is made again goes on from there.
    let bench = Bench::on(bench.stop().await, &[]).await;
    let own = get(&bench, &ada, "subscriptions").await;
    let own = own["subscriptions"].as_array().expect("a list");
    assert_eq!((own.len(), own[0]["position"].as_u64(), own[0]["missed"].as_u64()), (1, Some(3), Some(0)));
    let again = post(&bench, &ada, "subscriptions", json!({ "pattern": "#", "name": "orders/+" })).await;
    assert_eq!(again["position"], 3);
    let all = get(&bench, &bench.admin, "subscriptions?limit=1").await;
    assert_eq!(all["subscriptions"][0]["filter"], Value::Null, "it was changed: {all}");
    let second = get(&bench, &bench.admin, &format!("subscriptions?after={}", all["next"])).await;
    assert_eq!(second["subscriptions"][0]["name"], "all", "{second}");
    let topics = get(&bench, &ada, "topics").await;
    assert_eq!(
        topics["topics"],
        json!([
            { "topic": "orders/new", "publications": 2, "first": 1, "last": 2 },
            { "topic": "weather", "publications": 1, "first": 3, "last": 3 },
        ])
    );
    let replay = get(&bench, &ada, "publications?pattern=orders/%2B&filter=content.amount%3C100&after=0").await;
    assert_eq!(replay["publications"][0]["message"]["content"]["amount"], 5, "{replay}");
    assert_eq!((replay["publications"].as_array().map(Vec::len), replay["reached"].as_u64()), (Some(1), Some(3)));

    // A stream that goes on where another one was left.
    let follow = format!("{AT}/publications?follow=true&pattern=orders/%23");
    let mut stream = Reader::open(bench.request_as(&ada, Method::GET, &follow).header("last-event-id", 1)).await;
    let first = stream.next().await.expect("an event");
    assert_eq!(
        (first.name.as_str(), first.id, &first.data["message"]["content"]["amount"]),
        ("publication", Some(2), &json!(500))
    );
    for (topic, amount) in [("weather", 1), ("orders/old", 2)] {
        post(&bench, &ada, "publications", json!({ "topic": topic, "content": { "amount": amount } })).await;
    }
    assert_eq!(stream.next().await.expect("an event").id, Some(5));
    drop(stream);

    let gone = bench.request_as(&ada, Method::DELETE, &format!("{AT}/subscriptions/orders%2F%2B"));
    let (status, gone) = read(gone).await;
    assert_eq!((status, gone["change"].as_str()), (200, Some("unsubscribed")), "{gone}");
    for (path, status, code) in
        [("subscriptions/orders%2F%2B", 404, "not_found"), ("subscriptions/all?subscriber=away", 403, "forbidden")]
    {
        refused(bench.request_as(&ada, Method::DELETE, &format!("{AT}/{path}")), status, code).await;
    }
    for (body, part) in [
        (json!({ "pattern": "a/#/b" }), "last level"),
        (json!({ "pattern": "a", "filter": ["amount>1"] }), "content.amount>=100"),
        (json!({ "pattern": "a", "name": "x".repeat(200) }), "128"),
    ] {
        let wrong = bench.request_as(&ada, Method::POST, &format!("{AT}/subscriptions")).json(&body);
        let problem = refused(wrong, 400, "invalid_request").await;
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{part}: {problem}");
    }
    let wild = bench.request_as(&ada, Method::POST, &format!("{AT}/publications"));
    refused(wild.json(&json!({ "topic": "a/+", "content": 1 })), 400, "invalid_request").await;
    bench.stop().await;
}

#[tokio::test]
async fn what_is_said_is_followed_without_a_gap_by_those_who_may_see_it() {
    let bench = with(&talker("[[rule]]\nsay = \"It rains.\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let follow = format!("{AT}/mailbox/events?follow=true");
    let mut all = Reader::open(bench.request(Method::GET, &follow)).await;
    let mut hers = Reader::open(bench.request_as(&ada, Method::GET, &follow)).await;
    let ask = |id: &str| {
        json!({ "message": { "performative": "request", "receiver": "talker", "content": "Weather?", "protocol": "fipa-request",
            "conversation_id": id } })
    };
    send(&bench, &eve, json!({ "message": { "performative": "inform", "receiver": "away", "content": "secret" } }))
        .await;
    send(&bench, &ada, ask("c1")).await;
    let told = |event: crate::events::Event| {
        let data = event.data;
        assert_eq!((event.name.as_str(), event.id), ("message", data["position"].as_u64()));
        (data["sender"].as_str().expect("a sender").to_owned(), data["performative"].as_str().expect("one").to_owned())
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(told(all.next().await.expect("an event")));
    }
    let pair = |sender: &str, does: &str| (sender.to_owned(), does.to_owned());
    let (question, answer) = (pair("subject:ada", "request"), pair("talker", "inform"));
    assert_eq!(seen, [pair("subject:eve", "inform"), question.clone(), answer.clone()]);
    assert_eq!(
        [told(hers.next().await.expect("one")), told(hers.next().await.expect("one"))],
        [question, answer.clone()]
    );
    drop((all, hers));
    // From a position on, as a stream and as pages.
    let mut rest = Reader::open(bench.request(Method::GET, &follow).header("last-event-id", 2)).await;
    assert_eq!(told(rest.next().await.expect("an event")), answer);
    let page = get(&bench, &bench.admin, "mailbox/events?after=1&limit=1").await;
    assert_eq!(
        (page["events"][0]["position"].as_u64(), page["reached"].as_u64(), &page["more"]),
        (Some(2), Some(2), &json!(true))
    );
    let hers = get(&bench, &ada, "mailbox/events").await;
    assert_eq!(hers["events"].as_array().map(Vec::len), Some(2), "{hers}");
    assert_eq!(hers["reached"], 3, "what is another's is passed over");

    // One conversation, by the numbers of its messages.
    let one = get(&bench, &ada, "conversations/c1/events").await;
    assert_eq!((one["protocol"].as_str(), one["open"].as_bool()), (Some("fipa-request"), Some(false)), "{one}");
    assert_eq!(one["participants"], json!([{ "participant": "talker", "state": "done" }]));
    let numbers: Vec<_> = one["events"].as_array().expect("a list").iter().map(|it| it["number"].as_u64()).collect();
    assert_eq!((numbers, one["missed"].as_u64(), &one["next"]), (vec![Some(1), Some(2)], Some(0), &Value::Null));
    let first = get(&bench, &ada, "conversations/c1/events?limit=1").await;
    assert_eq!((first["next"].as_u64(), first["events"].as_array().map(Vec::len)), (Some(1), Some(1)), "{first}");
    let mut later =
        Reader::open(bench.request_as(&ada, Method::GET, &format!("{AT}/conversations/c1/events?follow=true&after=1")))
            .await;
    let event = later.next().await.expect("an event");
    assert_eq!((event.id, event.data["sender"].as_str()), (Some(2), Some("talker")));
    for (token, id) in [(&eve, "c1"), (&ada, "none")] {
        refused(bench.request_as(token, Method::GET, &format!("{AT}/conversations/{id}/events")), 404, "not_found")
            .await;
    }
    bench.stop().await;
}
