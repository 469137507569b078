//! Signed messages through a real node: who signed what, keys that are rotated, and everything that does not hold.

use caxton::secrets::SigningPair;
use caxton_proto::acl::{Address, Content as Said, Message, MessageId, Performative};
use caxton_proto::log::Role;
use caxton_proto::mailbox::{KeyId, Submission, decode_message, encode_message, signed_id};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read, refused};
use crate::deploy::{Content, at};
use crate::mailbox::{lies_in, send};
use crate::messages::{talker, with};
use crate::policy::token;

const SCRIPT: &str = "[[rule]]\nsay = \"It rains.\"\n";

/// A workspace that asks for signatures.
fn signed() -> Content {
    let settings = "[workspace]\nname = \"demo\"\n[messages]\nsigned = true\n[providers.s]\nkind = \"scripted\"\n\
        script = \"prompts/s.toml\"\n";
    talker(SCRIPT, "").file("caxton.toml", settings)
}

async fn check(bench: &Bench, token: &str, which: &str) -> Value {
    let (status, found) = read(bench.request_as(token, Method::GET, &at(&format!("/mailbox/{which}/signature")))).await;
    assert_eq!(status, 200, "{found}");
    found
}

async fn keys(bench: &Bench, owner: &str) -> Vec<Value> {
    let (status, page) = read(bench.request(Method::GET, &at(&format!("/message-keys?owner={owner}")))).await;
    assert_eq!(status, 200, "{page}");
    page["keys"].as_array().expect("a list").clone()
}

fn inform(to: &str, content: &str) -> Value {
    json!({ "message": { "performative": "inform", "receiver": to, "content": content } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_and_people_send_is_signed_and_verifies_also_after_their_keys_are_rotated() {
    let bench = with(&signed()).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let sent = send(&bench, &ada, inform("later", "x")).await;
    let id = sent["id"].as_str().expect("an id");
    let first = check(&bench, &ada, id).await;
    assert_eq!(
        (&first["holds"], &first["sender"], &first["held_by"]),
        (&json!(true), &json!("subject:ada"), &json!("node"))
    );
    send(&bench, &ada, json!({ "message": { "performative": "request", "receiver": "talker", "content": "?" } })).await;
    eventually("the answer", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let answer = &lies_in(&bench, &ada, "subject:ada").await[0];
    let of_talker = check(&bench, &ada, &answer["delivery"].to_string()).await;
    assert_eq!((&of_talker["holds"], &of_talker["sender"]), (&json!(true), &json!("talker")));
    let known = keys(&bench, "talker").await;
    assert_eq!((known.len(), &known[0]["key"], &known[0]["ends"]), (1, &of_talker["key"], &Value::Null));

    // A caller rotates nobody's.
    let rotate = |owner: &str| json!({ "owner": owner, "overlap_s": 0 });
    let path = at("/message-keys/rotate");
    refused(bench.request_as(&ada, Method::POST, &path).json(&rotate("talker")), 403, "forbidden").await;
    for owner in ["talker", "subject:ada"] {
        let (status, made) = read(bench.request(Method::POST, &path).json(&rotate(owner))).await;
        assert_eq!((status, &made["owner"], &made["held_by"]), (200, &json!(owner), &json!("node")), "{made}");
        let all = keys(&bench, owner).await;
        assert!(all.len() == 2 && all[0]["ends"].is_string() && all[1]["key"] == made["key"], "{all:?}");
    }
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(check(&bench, &ada, id).await, first, "it was taken in before its key ended");
    let sent = send(&bench, &ada, inform("later", "y")).await;
    let second = check(&bench, &ada, sent["id"].as_str().expect("an id")).await;
    assert!(second["holds"] == json!(true) && second["key"] != first["key"], "{second}");
    // Who neither sent nor receives it, and asks for what nobody sent.
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    refused(bench.request_as(&eve, Method::GET, &at(&format!("/mailbox/{id}/signature"))), 404, "not_found").await;
    refused(bench.request(Method::GET, &at("/mailbox/999/signature")), 404, "not_found").await;
    bench.stop().await;
}

/// A message of `subject:ada` that she signs herself.
fn own(pair: &SigningPair, key: &str, content: &str, signed_ms: i64) -> Value {
    let sender: Address = "subject:ada".parse().expect("an address");
    let mut message =
        Message::new(Performative::Inform, ["later".parse().expect("an address")]).stamped(sender.clone());
    message.content = Some(Said::text(content));
    let submission = Submission::new(signed_id(&sender, key), message);
    let id = KeyId::of(&pair.public());
    let form = submission.signed_form(&"demo".parse().expect("a name"), id, signed_ms);
    let signature = hex::encode(pair.sign(&form));
    let mut body = inform("later", content);
    body["key"] = json!(key);
    body["signature"] = json!({ "key": id.to_string(), "signed_ms": signed_ms, "signature": signature });
    body
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registered_a_key_signs_and_nothing_else_is_sent_in_their_name() {
    let bench = with(&signed()).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let [pair, other] = [1, 2].map(|seed| SigningPair::of(&[seed; 32]).expect("a key"));
    let mailbox = at("/mailbox");
    let post = |body: Value| bench.request_as(&ada, Method::POST, &mailbox).json(&body);
    let register = |pair: &SigningPair, overlap_s: u64| {
        let body = json!({ "public_key": hex::encode(pair.public()), "overlap_s": overlap_s });
        bench.request_as(&ada, Method::POST, &at("/message-keys")).json(&body)
    };
    let said = |problem: &Value, part: &str| {
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{part}: {problem}");
    };
    said(&refused(post(own(&pair, "k0", "x", now_ms())), 400, "invalid_request").await, "does not know");
    let (status, made) = read(register(&pair, 0)).await;
    assert_eq!((status, &made["owner"], &made["held_by"]), (200, &json!("subject:ada"), &json!("sender")), "{made}");
    // A token alone is not enough any more.
    said(&refused(post(inform("later", "x")), 400, "invalid_request").await, "a key of their own");

    let good = own(&pair, "k1", "pay 10", now_ms());
    let sent = send(&bench, &ada, good.clone()).await;
    assert_eq!(sent["duplicate"], false);
    let found = check(&bench, &ada, sent["id"].as_str().expect("an id")).await;
    assert_eq!((&found["holds"], &found["held_by"], &found["key"]), (&json!(true), &json!("sender"), &made["key"]));
    // Replayed, with what was signed or something else, under the same key or another.
    let replayed = send(&bench, &ada, good.clone()).await;
    assert_eq!((&replayed["duplicate"], &replayed["id"]), (&json!(true), &sent["id"]));
    let mut altered = good.clone();
    altered["message"]["content"] = json!("pay 1000");
    said(&refused(post(altered), 400, "invalid_request").await, "altered");
    let mut renamed = good.clone();
    renamed["key"] = json!("k2");
    said(&refused(post(renamed), 400, "invalid_request").await, "altered");
    let mut urgent = good.clone();
    urgent["priority"] = json!(7);
    said(&refused(post(urgent), 400, "invalid_request").await, "altered");
    said(&refused(post(own(&pair, "k3", "x", now_ms() - 400_000)), 400, "invalid_request").await, "replay");
    let mut forged = own(&other, "k4", "x", now_ms());
    said(&refused(post(forged.clone()), 400, "invalid_request").await, "does not know");
    forged["signature"]["key"] = made["key"].clone();
    said(&refused(post(forged), 400, "invalid_request").await, "forged");
    let mut keyless = good.clone();
    keyless.as_object_mut().expect("an object").remove("key");
    said(&refused(post(keyless), 400, "invalid_request").await, "`key`");
    let mut broad = good.clone();
    broad["message"]["receiver"] = json!("broadcast:");
    said(&refused(post(broad), 400, "invalid_request").await, "names agents");
    // Somebody else's token does not make it theirs.
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let stolen = bench.request_as(&eve, Method::POST, &mailbox).json(&good);
    said(&refused(stolen, 400, "invalid_request").await, "of subject:ada");

    // With an overlap both count, and without one the older ends; a token alone takes nobody's own key away.
    let rotate = |overlap_s: u64| {
        let body = json!({ "owner": "subject:ada", "overlap_s": overlap_s });
        bench.request(Method::POST, &at("/message-keys/rotate")).json(&body)
    };
    said(&refused(register(&other, 3_600), 400, "invalid_request").await, "a deployer rotates it first");
    assert_eq!(read(rotate(3_600)).await.0, 200);
    assert_eq!(read(register(&other, 3_600)).await.0, 200);
    send(&bench, &ada, own(&pair, "k5", "x", now_ms())).await;
    send(&bench, &ada, own(&other, "k6", "x", now_ms())).await;
    let third = SigningPair::of(&[3; 32]).expect("a key");
    assert_eq!(read(rotate(0)).await.0, 200);
    assert_eq!(read(register(&third, 0)).await.0, 200);
    said(&refused(post(own(&other, "k7", "x", now_ms())), 400, "invalid_request").await, "was rotated");
    assert_eq!(lies_in(&bench, &bench.admin, "later").await.len(), 3);
    bench.stop().await;
}

/// Changes the only message that the mailboxes of a stopped node hold, and says its id.
fn tamper(dir: &std::path::Path, change: impl Fn(&mut Submission)) -> MessageId {
    for entry in std::fs::read_dir(dir.join("conversations")).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_none_or(|kind| kind != "db") {
            continue;
        }
        let rows = rusqlite::Connection::open(&path).expect("SQLite");
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        let mut all = rows.prepare("SELECT message, body FROM mailbox_message").expect("a table");
        let found: Vec<_> = all.query_map([], read).expect("rows").map(|row| row.expect("a row")).collect();
        if let [(number, body)] = &found[..] {
            let mut submission = decode_message(body).expect("a message");
            change(&mut submission);
            let values = rusqlite::params![number, encode_message(&submission)];
            rows.execute("UPDATE mailbox_message SET body = ?2 WHERE message = ?1", values).expect("changed");
            return submission.id;
        }
    }
    panic!("no shard has the message");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_on_the_disk_is_a_dead_letter_and_is_given_to_nobody() {
    let cases: [(&str, fn(&mut Submission)); 4] = [
        ("it was altered", |of| of.message.content = Some(Said::text("pay 1000"))),
        ("says that mallory sent it", |of| of.message.sender = "mallory".parse().ok()),
        ("has no signature", |of| of.signature = None),
        ("does not know", |of| {
            if let Some(signature) = &mut of.signature {
                signature.key = KeyId::from_bytes([9; 8]);
            }
        }),
    ];
    let live = signed();
    let mut bench = with(&live).await;
    let file = "[agent]\nname = \"later\"\ndescription = \"comes later\"\n";
    let both = live.clone().file("agents/later.toml", file);
    let mut revision = 1;
    for (why, change) in cases {
        send(&bench, &bench.admin, inform("later", "pay 10")).await;
        let dir = bench.stop().await;
        let id = tamper(dir.path(), change).to_string();
        bench = Bench::on(dir, &[]).await;
        let found = check(&bench, &bench.admin, &id).await;
        assert_eq!(found["holds"], false, "{found}");
        assert!(found["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{why}: {found}");
        bench.deploy(&both, revision, &live, why).await;
        eventually("it is a dead letter", || async {
            let lies = lies_in(&bench, &bench.admin, "later").await;
            lies.len() == 1 && lies[0]["state"] == "dead"
        })
        .await;
        let dead = lies_in(&bench, &bench.admin, "later").await;
        assert!(dead[0]["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{why}: {dead:?}");
        assert_eq!(dead[0]["attempts"], 1, "its agent was given nothing: {dead:?}");
        bench.deploy(&live, revision + 1, &both, &format!("{why}, and away again")).await;
        revision += 2;
        let one = at(&format!("/mailbox/{}", dead[0]["delivery"]));
        assert_eq!(read(bench.request(Method::DELETE, &one)).await.0, 200);
    }
    bench.stop().await;
}
