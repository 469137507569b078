//! Messages between workspaces through a real node: they go where both allow it, once, and find their way back.

use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read};
use crate::deploy::{Content, framed};
use crate::policy::token;

/// A workspace whose `[messages]` says this, of agents that are models, each with a script of its own.
fn scripted(name: &str, messages: &str, agents: &[(&str, &str)]) -> Content {
    let mut settings = format!("[workspace]\nname = \"{name}\"\n[messages]\n{messages}\n");
    let mut content = Content::default();
    for (agent, script) in agents {
        settings.push_str(&format!("[providers.{agent}]\nkind = \"scripted\"\nscript = \"prompts/{agent}.toml\"\n"));
        let file = format!("[agent]\nname = \"{agent}\"\n[llm]\nprovider = \"{agent}\"\n[messages]\nconcurrency = 4\n");
        content = content.file(&format!("agents/{agent}.toml"), file);
        content = content.file(&format!("prompts/{agent}.toml"), *script);
    }
    content.file("caxton.toml", settings)
}

async fn deploy(bench: &Bench, workspace: &str, content: &Content, parent: u64, live: &Content) {
    let at = |rest: &str| format!("/api/v1/workspaces/{workspace}{rest}");
    let (_, blobs) = content.cut();
    let upload = bench.request(Method::PUT, &at("/artifacts"));
    let (status, sent) = read(upload.header("content-type", caxton::api::frame::MEDIA_TYPE).body(framed(&blobs))).await;
    assert_eq!(status, 200, "{sent}");
    let request = content.request(parent, live, &format!("{workspace}-{parent}"));
    let (status, body) = read(bench.request(Method::POST, &at("/deployments")).json(&request)).await;
    assert_eq!(status, 200, "{body}");
}

async fn lies_in(bench: &Bench, workspace: &str, owner: &str) -> Vec<Value> {
    let path = format!("/api/v1/workspaces/{workspace}/mailbox?limit=500&owner={owner}");
    let (status, page) = read(bench.request(Method::GET, &path)).await;
    assert_eq!(status, 200, "{page}");
    page["deliveries"].as_array().expect("a list").clone()
}

async fn send(bench: &Bench, token: &str, workspace: &str, to: &str, content: &str) -> (u16, Value) {
    let message = json!({ "performative": "request", "receiver": to, "content": content, "reply_with": "r1" });
    let path = format!("/api/v1/workspaces/{workspace}/mailbox");
    read(bench.request_as(token, Method::POST, &path).json(&json!({ "message": message }))).await
}

/// Sends what it was told on to somebody, and does not wait.
fn passes_on(to: &str) -> String {
    format!(
        "[[rule]]\nwhen.after = []\nwhen.request = \"[request from\"\n[[rule.call]]\ntool = \"send_message\"\n\
         arguments = {{ to = \"{to}\", content = {{ read = \"{{{{request}}}}\" }} }}\n[[rule]]\nsay = \"Passed on.\"\n"
    )
}

const ASKS: &str = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"send_message\"\n\
    arguments = { to = \"helper@team-b\", content = \"Is it so?\", wait = true, wait_seconds = 600 }\n\
    [[rule]]\nwhen.after = \"send_message\"\nwhen.failed = false\nsay = \"{{send_message/answers/0/from}} says: {{send_message/answers/0/content}}\"\n\
    [[rule]]\nwhen.failed = true\nsay = \"I cannot: {{newest}}\"\n";

const BOTH_A: &str = "sends_to = [\"team-b\"]\nreceives_from = [\"team-b\"]\nsigned = true";
const BOTH_B: &str = "sends_to = [\"team-a\"]\nreceives_from = [\"team-a\"]";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_one_of_another_workspace_and_has_its_answer_also_after_a_restart() {
    let bench = Bench::new(&[]).await;
    let nothing = Content::default();
    deploy(&bench, "team-a", &scripted("team-a", BOTH_A, &[("asker", ASKS)]), 0, &nothing).await;
    let empty = scripted("team-b", BOTH_B, &[("other", "[[rule]]\nsay = \"Hm.\"\n")]);
    deploy(&bench, "team-b", &empty, 0, &nothing).await;
    let ada = token(&bench, "ada", Role::Caller, &["team-a"]).await;
    let (status, sent) = send(&bench, &ada, "team-a", "asker", "Ask around").await;
    assert_eq!(status, 200, "{sent}");
    eventually("it is with the other", || async { lies_in(&bench, "team-b", "helper").await.len() == 1 }).await;
    let there = lies_in(&bench, "team-b", "helper").await;
    assert_eq!(there[0]["message"]["sender"], "asker@team-a");
    let conversation = there[0]["message"]["conversation_id"].as_str().expect("a conversation");
    assert!(conversation.ends_with("@team-a"), "{conversation}");
    let bench = Bench::on(bench.stop().await, &[]).await;
    let helps = scripted("team-b", BOTH_B, &[("helper", "[[rule]]\nsay = \"It is.\"\n")]);
    deploy(&bench, "team-b", &helps, 1, &empty).await;
    eventually("the answer", || async { !lies_in(&bench, "team-a", "subject:ada").await.is_empty() }).await;
    let answers = lies_in(&bench, "team-a", "subject:ada").await;
    assert_eq!(answers[0]["message"]["content"], "helper@team-b says: It is.", "{answers:?}");
    eventually("nothing is left on the way", || async {
        lies_in(&bench, "team-a", "helper@team-b").await.is_empty()
            && lies_in(&bench, "team-b", "asker@team-a").await.is_empty()
            && lies_in(&bench, "team-a", "asker").await.is_empty()
    })
    .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_workspace_does_not_allow_is_a_dead_letter_of_which_the_sender_is_told() {
    let bench = Bench::new(&[]).await;
    let nothing = Content::default();
    let sends = "sends_to = [\"team-b\", \"nowhere\"]";
    let asks_nowhere = ASKS.replace("helper@team-b", "helper@nowhere");
    let asks_unnamed = ASKS.replace("helper@team-b", "helper@team-c");
    let agents = [("asker", ASKS), ("lost", asks_nowhere.as_str()), ("barred", asks_unnamed.as_str())];
    deploy(&bench, "team-a", &scripted("team-a", sends, &agents), 0, &nothing).await;
    let closed = scripted("team-b", "receives_from = [\"team-c\"]", &[("helper", "[[rule]]\nsay = \"It is.\"\n")]);
    deploy(&bench, "team-b", &closed, 0, &nothing).await;
    let ada = token(&bench, "ada", Role::Caller, &["team-a"]).await;
    for (agent, outbox, why) in [
        ("asker", Some("helper@team-b"), "does not receive from `team-a`"),
        ("lost", Some("helper@nowhere"), "there is no workspace `nowhere`"),
        ("barred", None, "`sends_to` under [messages]"),
    ] {
        assert_eq!(send(&bench, &ada, "team-a", agent, "Ask around").await.0, 200);
        let answered = || async {
            let answers = lies_in(&bench, "team-a", "subject:ada").await;
            answers.into_iter().find(|it| it["message"]["sender"] == agent)
        };
        eventually("it is told", || async { answered().await.is_some() }).await;
        let answer = answered().await.expect("it was there");
        let text = answer["message"]["content"].as_str().expect("text");
        assert!(text.contains(why), "{agent}: {text}");
        if let Some(outbox) = outbox {
            let dead = lies_in(&bench, "team-a", outbox).await;
            assert_eq!((dead.len(), dead[0]["state"].as_str()), (1, Some("dead")), "{dead:?}");
            assert!(dead[0]["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{dead:?}");
        }
    }
    assert!(lies_in(&bench, "team-b", "helper").await.is_empty());
    let (status, refused) = send(&bench, &ada, "team-a", "helper@team-b", "x").await;
    assert_eq!(status, 400);
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("only agents write")), "{refused}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stops_in_between_each_message_arrives_once() {
    const MESSAGES: usize = 24;
    let mut bench = Bench::new(&[]).await;
    let nothing = Content::default();
    let passes = scripted("team-a", BOTH_A, &[("clerk", &passes_on("sink@team-b"))]);
    deploy(&bench, "team-a", &passes, 0, &nothing).await;
    // Nobody takes them there, so that they can be counted.
    deploy(&bench, "team-b", &scripted("team-b", BOTH_B, &[("other", "[[rule]]\nsay = \"Hm.\"\n")]), 0, &nothing).await;
    for round in 0..3 {
        let admin = bench.admin.clone();
        for number in 0..MESSAGES / 3 {
            let (status, sent) = send(&bench, &admin, "team-a", "clerk", &format!("m-{round}-{number}-end")).await;
            assert_eq!(status, 200, "{sent}");
        }
        let some = round * MESSAGES / 3 + 1;
        let why = format!("round {round}: some are there");
        eventually(&why, || async { lies_in(&bench, "team-b", "sink").await.len() >= some }).await;
        // In the middle of it.
        bench = Bench::on(bench.stop().await, &[]).await;
    }
    eventually("all are there", || async { lies_in(&bench, "team-b", "sink").await.len() >= MESSAGES }).await;
    eventually("nothing is left on the way", || async {
        lies_in(&bench, "team-a", "clerk").await.is_empty() && lies_in(&bench, "team-a", "sink@team-b").await.is_empty()
    })
    .await;
    let there = lies_in(&bench, "team-b", "sink").await;
    let mut texts: Vec<String> = there
        .iter()
        .map(|it| {
            let read = it["message"]["content"]["read"].as_str().expect("text");
            read[read.find("m-").expect("its name")..read.find("-end").expect("its end")].to_owned()
        })
        .collect();
    texts.sort();
    texts.dedup();
    assert_eq!((there.len(), texts.len()), (MESSAGES, MESSAGES), "each of them, and each once: {texts:?}");
    bench.stop().await;
}
