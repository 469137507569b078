//! Workspaces with owners of their own: leaders are spread, any node answers, and a turn outlives the node that began it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use caxton::shard::placement::owner_of;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::run::{Place, wait_for};
use crate::support::{Member, post, read, spread, three};

/// A workspace whose agent `thinker` asks a model at `url`.
pub fn workspace(place: &Place, name: &str, provider: &str) -> std::path::PathBuf {
    let root = place.dir.path().join(format!("workspace-{name}"));
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("made");
        std::fs::write(root.join(path), text).expect("written");
    };
    write("caxton.toml", &format!("[workspace]\nname = \"{name}\"\n[providers.m]\n{provider}\n"));
    write("prompts/s.toml", &format!("[[rule]]\nsay = \"this is {name}\"\n"));
    write(
        "agents/thinker.toml",
        "[agent]\nname = \"thinker\"\ndescription = \"thinks\"\n[capabilities]\npatterns = [\"think about it\"]\n",
    );
    root
}

pub fn deploy(member: &Member, folder: &Path) {
    wait_for("a deployment", || {
        let ran = member.run_in(folder, &["deploy", "--yes", "--json"]);
        assert!(matches!(ran.code, Some(0 | 6 | 7)), "{ran:#?}");
        (ran.code == Some(0)).then_some(())
    });
}

pub fn group_of(workspace: &str) -> usize {
    owner_of(&workspace.parse().expect("a name"), NonZeroU32::new(8).expect("not zero")).0 as usize
}

/// Asks until the node serves the workspace.
pub fn ask(member: &Member, workspace: &str, body: &Value) -> Value {
    wait_for(&format!("{} to answer for {workspace}", member.name), || {
        let (status, answer) = post(member, &format!("/api/v1/workspaces/{workspace}/messages"), body)?;
        assert!(matches!(status, 200 | 404 | 503), "{status} {answer}");
        (status == 200).then_some(answer)
    })
}

#[test]
fn workspaces_are_led_by_all_nodes_and_any_node_answers_for_each() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let leaders = spread(&members.iter().collect::<Vec<_>>());
    assert_eq!(leaders.len(), 9, "the deploy log and eight shards: {leaders:?}");
    let names = ["w1", "w2", "w3", "w4", "w5", "w6"];
    let owners: std::collections::BTreeSet<&String> = names.iter().map(|name| &leaders[group_of(name)]).collect();
    assert!(owners.len() > 1, "{owners:?}");
    for name in names {
        let provider = "kind = \"scripted\"\nscript = \"prompts/s.toml\"";
        deploy(&members[0], &workspace(&place, name, provider));
    }
    for name in names {
        for member in &members {
            let answer =
                ask(member, name, &json!({ "agent": "thinker", "text": "hi", "conversation": "c", "create": true }));
            assert_eq!(answer["text"], format!("this is {name}"));
        }
        for member in &members {
            let message = json!({ "agent": "thinker", "text": "hi", "stream": true });
            let path = format!("/api/v1/workspaces/{name}/messages");
            let (status, events) = post(member, &path, &message).expect("a stream");
            let events = events.as_str().unwrap_or_default().to_owned();
            assert!(status == 200 && events.contains("event: answered"), "{status} {events}");
            let completion =
                json!({ "model": format!("{name}/thinker"), "messages": [{ "role": "user", "content": "hi" }] });
            let (status, completed) = post(member, "/v1/chat/completions", &completion).expect("an answer");
            assert_eq!(
                (status, completed["choices"][0]["message"]["content"].as_str()),
                (200, Some(format!("this is {name}").as_str())),
                "{completed}"
            );
        }
    }

    // Two pictures of six megabytes: passed on to the owner as a small message is.
    let picture = format!("data:image/png;base64,{}", "iVBORw0K".repeat(750_000));
    let part = json!({ "type": "image_url", "image_url": { "url": picture } });
    let content = json!([{ "type": "text", "text": "look" }, part, part]);
    for member in &members {
        let large = json!({ "model": "w1/thinker", "messages": [{ "role": "user", "content": content }] });
        let (status, completed) = post(member, "/v1/chat/completions", &large).expect("an answer");
        let said = completed["choices"][0]["message"]["content"].as_str();
        assert_eq!((status, said), (200, Some("this is w1")), "by {}: {completed}", member.name);
    }

    // The owner of one dies: what was said is there at once for whoever does not insist, and soon for everybody.
    let (name, path) = ("w1", "/api/v1/workspaces/w1/conversations/c");
    let at = members.iter().position(|member| member.id() == leaders[group_of(name)]).expect("the owner");
    members[at].kill();
    let rest: Vec<&Member> = members.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, it)| it).collect();
    for member in &rest {
        let shown = read(member, &format!("{path}?stale=true")).expect("an answer");
        assert_eq!(shown["turns"], 3, "{shown}");
    }
    for member in &rest {
        wait_for("the next leader to answer", || read(member, path).filter(|shown| shown["turns"] == 3));
    }
    spread(&rest);
}

/// A model that asks for a call first and takes its time once it has the result.
struct SlowModel {
    url: String,
    first: Arc<AtomicUsize>,
    second: Arc<AtomicUsize>,
    hold: Arc<AtomicBool>,
}

impl SlowModel {
    fn start() -> SlowModel {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let model = SlowModel { url, first: Arc::default(), second: Arc::default(), hold: Arc::default() };
        let (first, second, hold) = (Arc::clone(&model.first), Arc::clone(&model.second), Arc::clone(&model.hold));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (first, second, hold) = (Arc::clone(&first), Arc::clone(&second), Arc::clone(&hold));
                std::thread::spawn(move || {
                    let Some(asked) = request(&stream) else { return };
                    let messages = asked["messages"].as_array().cloned().unwrap_or_default();
                    let message = if messages.iter().any(|message| message["role"] == "tool") {
                        second.fetch_add(1, Ordering::SeqCst);
                        while hold.load(Ordering::SeqCst) {
                            std::thread::park_timeout(Duration::from_millis(5));
                        }
                        json!({ "role": "assistant", "content": "done" })
                    } else {
                        first.fetch_add(1, Ordering::SeqCst);
                        let function = json!({ "name": "list_capabilities", "arguments": "{}" });
                        let call = json!({ "id": "c1", "type": "function", "function": function });
                        json!({ "role": "assistant", "content": "", "tool_calls": [call] })
                    };
                    answer(&stream, &message);
                });
            }
        });
        model
    }
}

fn request(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

fn answer(mut stream: &TcpStream, message: &Value) {
    let finish = if message["tool_calls"].is_array() { "tool_calls" } else { "stop" };
    let choices = json!([{ "index": 0, "message": message, "finish_reason": finish }]);
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2 });
    let body = json!({ "model": "m", "choices": choices, "usage": usage }).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    // Whoever asked may be gone.
    _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

#[test]
fn a_turn_whose_node_is_killed_is_finished_by_the_next_leader_and_answered_once() {
    let place = Place::new();
    let model = SlowModel::start();
    let mut members = three(place.dir.path());
    let provider = format!("kind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\ntimeout = \"60s\"", model.url);
    deploy(&members[0], &workspace(&place, "slow", &provider));
    for member in &members {
        let warm = ask(
            member,
            "slow",
            &json!({ "agent": "thinker", "text": "warm up", "conversation": "warm", "create": true }),
        );
        assert_eq!(warm["text"], "done");
    }
    let before = (model.first.load(Ordering::SeqCst), model.second.load(Ordering::SeqCst));
    let leaders = spread(&members.iter().collect::<Vec<_>>());
    let at = members.iter().position(|member| member.id() == leaders[group_of("slow")]).expect("the owner");
    let others = [(at + 1) % 3, (at + 2) % 3];

    model.hold.store(true, Ordering::SeqCst);
    let message = json!({
        "agent": "thinker", "text": "go", "conversation": "c", "create": true, "idempotency_key": "once",
    });
    let path = "/api/v1/workspaces/slow/messages";
    let (lost, victim) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| post(&members[others[0]], path, &message));
        wait_for("the turn's second step", || (model.second.load(Ordering::SeqCst) > before.1).then_some(()));
        // In the middle of the turn, with one step behind it.
        let pid = members[at].pid();
        kill_process(pid, Signal::KILL).expect("killed");
        (asking.join().expect("no panic"), at)
    });
    assert!(lost.as_ref().is_none_or(|(status, _)| *status == 503), "{lost:?}");
    members[victim].ended();
    model.hold.store(false, Ordering::SeqCst);

    let answers = others.map(|index| {
        let retried = wait_for("the one answer", || {
            let (status, answer) = post(&members[index], path, &message)?;
            assert!(matches!(status, 200 | 503), "{status} {answer}");
            (status == 200).then_some(answer)
        });
        assert_eq!(retried["text"], "done");
        retried
    });
    assert_eq!(answers[0], answers[1], "whoever is asked");
    let asked = model.first.load(Ordering::SeqCst) - before.0;
    assert_eq!(asked, 1, "the step that was kept is not paid for again");
    for index in others {
        let path = "/api/v1/workspaces/slow/conversations/c";
        let shown = wait_for("the conversation", || read(&members[index], path).filter(|it| it["turns"].is_u64()));
        assert_eq!(shown["turns"], 1, "{shown}");
    }
}

#[test]
fn a_message_that_a_leader_could_not_pass_on_before_it_was_deposed_is_answered_by_the_next_one() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let provider = "kind = \"scripted\"\nscript = \"prompts/s.toml\"";
    deploy(&members[0], &workspace(&place, "w1", provider));
    for member in &members {
        ask(member, "w1", &json!({ "agent": "thinker", "text": "warm up", "conversation": "warm", "create": true }));
    }
    let group = group_of("w1");
    let leaders = spread(&members.iter().collect::<Vec<_>>());
    let at = members.iter().position(|member| member.id() == leaders[group]).expect("the owner");
    let owner = members.remove(at);
    let addresses: Vec<String> = members.iter().map(Member::peer_address).collect();
    // Frozen ones would find the entry in their sockets.
    members.iter_mut().for_each(Member::kill);

    let message =
        json!({ "agent": "thinker", "text": "go", "conversation": "c", "create": true, "idempotency_key": "once" });
    let path = "/api/v1/workspaces/w1/messages";
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| post(&owner, path, &message));
        wait_for("the record in the leader's log", || {
            let lag = owner.status()?["groups"][group]["lag"].as_array()?.clone();
            lag.iter().any(|lag| lag["entries"].as_u64() > Some(0)).then_some(())
        });
        kill_process(owner.pid(), Signal::STOP).expect("a signal");
        for (member, address) in members.iter_mut().zip(&addresses) {
            member.spawn(&["--peers", address]);
        }
        members.iter_mut().for_each(Member::ready);
        ask(
            &members[0],
            "w1",
            &json!({ "agent": "thinker", "text": "meanwhile", "conversation": "warm", "create": true }),
        );
        kill_process(owner.pid(), Signal::CONT).expect("a signal");
        asking.join().expect("no panic")
    });
    let (status, answer) = answered.expect("an answer");
    assert_eq!((status, answer["text"].as_str()), (200, Some("this is w1")), "{answer}");
    let shown = wait_for("the conversation", || {
        read(&members[1], "/api/v1/workspaces/w1/conversations/c").filter(|it| it["turns"].is_u64())
    });
    assert_eq!(shown["turns"], 1, "{shown}");
}

#[test]
fn a_node_that_stands_alone_goes_on_with_its_turns_after_a_power_cut() {
    let place = Place::new();
    let model = SlowModel::start();
    let mut one = Member::new(place.dir.path(), "one");
    one.start(&[]);
    let provider = format!("kind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\ntimeout = \"60s\"", model.url);
    deploy(&one, &workspace(&place, "slow", &provider));
    model.hold.store(true, Ordering::SeqCst);
    let message =
        json!({ "agent": "thinker", "text": "go", "conversation": "c", "create": true, "idempotency_key": "once" });
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| post(&one, "/api/v1/workspaces/slow/messages", &message));
        wait_for("the turn's second step", || (model.second.load(Ordering::SeqCst) == 1).then_some(()));
        kill_process(one.pid(), Signal::KILL).expect("killed");
        assert_eq!(asking.join().expect("no panic"), None);
    });
    one.ended();
    model.hold.store(false, Ordering::SeqCst);
    one.start(&[]);
    // Nobody asks again: the node goes on by itself.
    let path = "/api/v1/workspaces/slow/conversations/c";
    let shown = wait_for("the turn to end", || read(&one, path).filter(|it| it["turns"].is_u64()));
    assert_eq!(shown["turns"], 1, "{shown}");
    assert_eq!(ask(&one, "slow", &message)["text"], "done");
    assert_eq!(model.first.load(Ordering::SeqCst), 1, "the step that was kept is not paid for again");
}
