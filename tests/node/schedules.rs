//! Schedules through a real node: ticks come to the agent, each once, over restarts, and end with the deployment that had them.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::bench::{Bench, eventually, read};
use crate::deploy::Content;
use crate::mailbox::lies_in;
use crate::messages::{talker, with};

/// An agent that fails at every message, so that its mailbox keeps them.
fn scheduled(schedule: &str) -> Content {
    talker("[[rule]]\nwhen.request = \"never said\"\nsay = \"Hello.\"\n", schedule)
}

async fn schedules(bench: &Bench) -> Vec<Value> {
    let (status, found) = read(bench.request(Method::GET, "/api/v1/workspaces/demo/schedules")).await;
    assert_eq!(status, 200, "{found}");
    found["schedules"].as_array().expect("a list").clone()
}

/// The ticks that the agent was sent, as its mailbox has them.
async fn ticks(bench: &Bench) -> Vec<String> {
    let lies = lies_in(bench, &bench.admin, "talker").await;
    let tick = |one: &Value| {
        let message = &one["message"];
        assert_eq!((message["sender"].as_str(), message["content"].as_str()), (Some("platform:"), Some("Look.")));
        message["X-tick"].as_str().expect("a tick").to_owned()
    };
    lies.iter().map(tick).collect()
}

#[tokio::test]
async fn each_tick_comes_once_over_a_restart_and_ends_with_its_deployment() {
    let content = scheduled("[[schedule]]\nevery = \"1s\"\nmessage = \"Look.\"\n");
    let bench = with(&content).await;
    eventually("two ticks", || async { ticks(&bench).await.len() >= 2 }).await;
    let state = &schedules(&bench).await[0];
    assert_eq!((state["agent"].as_str(), state["when"].as_str()), (Some("talker"), Some("every 1s")), "{state}");
    assert!(state["next"].as_str() > state["reached"].as_str(), "{state}");
    let before = ticks(&bench).await;

    // Another term: whoever leads goes on from what was reached.
    let bench = Bench::on(bench.stop().await, &[]).await;
    eventually("two more", || async { ticks(&bench).await.len() >= before.len() + 2 }).await;
    let all = ticks(&bench).await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each once: {all:?}");
    assert!(all.is_sorted() && before.iter().all(|tick| all.contains(tick)), "{before:?} and then {all:?}");

    let quiet = scheduled("");
    bench.deploy(&quiet, 1, &content, "second").await;
    assert!(schedules(&bench).await.is_empty());
    let reached = || async {
        let read =
            bench.node.parts().mailboxes.of(&"demo".parse().expect("a name")).read(caxton_messages::schedules).await;
        read.expect("rows").len()
    };
    eventually("it is forgotten", || async { reached().await == 0 }).await;
    bench.stop().await;
}

#[tokio::test]
async fn what_an_agent_answers_a_schedule_goes_where_its_file_says() {
    let schedule = "[[schedule]]\nname = \"hourly\"\nevery = \"1s\"\nmessage = \"Look.\"\nreply_to = \"subject:ada\"\n\
        [messages]\naccepts = [\"cfp\"]\n";
    let bench = with(&talker("[[rule]]\nsay = \"Nothing new.\"\n", schedule)).await;
    eventually("an answer", || async { !lies_in(&bench, &bench.admin, "subject:ada").await.is_empty() }).await;
    let answer = &lies_in(&bench, &bench.admin, "subject:ada").await[0]["message"];
    assert_eq!(
        (answer["content"].as_str(), answer["sender"].as_str()),
        (Some("Nothing new."), Some("talker")),
        "{answer}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn ticks_that_could_not_be_sent_are_made_up_for_with_one_message() {
    let bench = with(&scheduled("[[schedule]]\nevery = \"1s\"\nmessage = \"Look.\"\n")).await;
    eventually("a tick", || async { !ticks(&bench).await.is_empty() }).await;
    let space = bench.node.parts().artifacts.space().clone();
    space.set_reserve_bytes(u64::MAX);
    let seconds =
        |time: &Value| time.as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok()).map(|it| it.as_second());
    let behind = || async {
        let state = &schedules(&bench).await[0];
        seconds(&state["next"]).zip(seconds(&state["reached"])).is_some_and(|(next, reached)| next - reached >= 4)
    };
    eventually("ticks are missed", behind).await;
    space.set_reserve_bytes(0);
    let missed = |one: &Value| one["message"]["X-missed-since"].is_string();
    eventually("they are made up for", || async { lies_in(&bench, &bench.admin, "talker").await.iter().any(missed) })
        .await;
    let lies = lies_in(&bench, &bench.admin, "talker").await;
    let late: Vec<&Value> = lies.iter().filter(|one| missed(one)).collect();
    let (first, tick) = (&late[0]["message"]["X-missed-since"], &late[0]["message"]["X-tick"]);
    assert!(seconds(tick).zip(seconds(first)).is_some_and(|(tick, first)| tick - first >= 2), "{first} to {tick}");
    let between = lies
        .iter()
        .map(|one| seconds(&one["message"]["X-tick"]))
        .filter(|at| *at >= seconds(first) && *at < seconds(tick));
    assert_eq!(between.count(), 0, "and with no other: {lies:?}");
    bench.stop().await;
}
