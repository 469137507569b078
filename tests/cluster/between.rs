//! Messages between workspaces whose shards other nodes lead: they are carried from node to node, and outlive the one that dies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::run::{Place, wait_for};
use crate::shards::{deploy, group_of};
use crate::support::{Member, post, read, spread, three};

/// How many messages go before the receiver's leader dies, and how many after.
const MESSAGES: usize = 12;

const PASSES_ON: &str = "[[rule]]\nwhen.after = []\nwhen.request = \"[request from\"\n[[rule.call]]\ntool = \"send_message\"\n\
    arguments = { to = \"sink@RECEIVER\", content = { read = \"{{request}}\" } }\n[[rule]]\nsay = \"Passed on.\"\n";

fn workspace(place: &Place, name: &str, messages: &str, agent: &str, script: &str) -> std::path::PathBuf {
    let root = place.dir.path().join(format!("workspace-{name}"));
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("made");
        std::fs::write(root.join(path), text).expect("written");
    };
    let provider = "[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    write("caxton.toml", &format!("[workspace]\nname = \"{name}\"\n[messages]\n{messages}\n{provider}"));
    let file = format!("[agent]\nname = \"{agent}\"\ndescription = \"Passes on\"\n[messages]\nconcurrency = 4\n");
    write(&format!("agents/{agent}.toml"), &file);
    write("prompts/s.toml", script);
    root
}

/// Sends the agent `clerk` a message of this name until one of the members has taken it.
fn send(members: &[&Member], workspace: &str, name: &str) {
    let message = json!({ "performative": "request", "receiver": "clerk", "content": format!("{name}-end") });
    let body = json!({ "message": message, "key": name });
    let path = format!("/api/v1/workspaces/{workspace}/mailbox");
    wait_for("a message to be taken", || {
        members.iter().any(|member| post(member, &path, &body).is_some_and(|(status, _)| status == 200)).then_some(())
    });
}

fn lies_in(member: &Member, workspace: &str, owner: &str) -> Option<Vec<Value>> {
    let page = read(member, &format!("/api/v1/workspaces/{workspace}/mailbox?limit=500&owner={owner}"))?;
    page["deliveries"].as_array().cloned()
}

fn names(deliveries: &[Value]) -> Vec<String> {
    let name = |it: &Value| {
        let text = it["message"]["content"]["read"].as_str()?;
        Some(text[text.find("m-")?..text.find("-end")?].to_owned())
    };
    deliveries.iter().filter_map(name).collect()
}

#[test]
fn messages_go_from_node_to_node_once_each_also_when_the_receivers_leader_dies() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let leaders = spread(&members.iter().collect::<Vec<_>>());
    let all: Vec<String> = (1..40).map(|number| format!("w{number}")).collect();
    let leader_of = |name: &str| leaders[group_of(name)].clone();
    // Not the first member, which is asked, leads the receiver, and another one leads the sender.
    let receiver = all.iter().find(|name| leader_of(name) != members[0].id()).expect("one").clone();
    let sender = all.iter().find(|name| leader_of(name) != leader_of(&receiver)).expect("another").clone();
    let both = |other: &str| format!("signed = true\nsends_to = [\"{other}\"]\nreceives_from = [\"{other}\"]");
    let script = PASSES_ON.replace("RECEIVER", &receiver);
    deploy(&members[0], &workspace(&place, &sender, &both(&receiver), "clerk", &script));
    deploy(&members[0], &workspace(&place, &receiver, &both(&sender), "idle", "[[rule]]\nsay = \"Hm.\"\n"));
    let outbox = format!("sink@{receiver}");
    let mut sent = BTreeSet::new();
    for number in 0..MESSAGES {
        let name = format!("m-before-{number}");
        send(&members.iter().collect::<Vec<_>>(), &sender, &name);
        sent.insert(name);
    }
    wait_for("some to be carried to the other node", || {
        let there = lies_in(&members[0], &receiver, "sink")?;
        (!there.is_empty()).then_some(())
    });
    let dies = members.iter().position(|member| member.id() == leader_of(&receiver)).expect("a member");
    members[dies].kill();
    let left: Vec<&Member> =
        members.iter().enumerate().filter(|(at, _)| *at != dies).map(|(_, member)| member).collect();
    for number in 0..MESSAGES {
        let name = format!("m-after-{number}");
        send(&left, &sender, &name);
        sent.insert(name);
    }
    wait_for("all to be there", || {
        let there: BTreeSet<String> = names(&lies_in(left[0], &receiver, "sink")?).into_iter().collect();
        sent.is_subset(&there).then_some(())
    });
    wait_for("nothing to be on its way", || {
        let waits = lies_in(left[0], &sender, "clerk")?.len() + lies_in(left[0], &sender, &outbox)?.len();
        (waits == 0).then_some(())
    });
    let there = lies_in(left[0], &receiver, "sink").expect("a node answers");
    assert_eq!((there.len(), names(&there).into_iter().collect::<BTreeSet<_>>()), (sent.len(), sent));
    // Whoever leads now verifies what another node signed.
    let path = format!("/api/v1/workspaces/{receiver}/mailbox/{}/signature", there[0]["delivery"]);
    let check = read(left[1], &path).expect("an answer");
    assert_eq!(
        (check["holds"].as_bool(), check["sender"].as_str()),
        (Some(true), Some(format!("clerk@{sender}").as_str()))
    );
}
