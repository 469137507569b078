//! What an operator counts on: a secret that is set on one node opens on all, leadership that moves without a failed write,
//! a backup by way of any node, and lines of what happened on every node.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::run::{Place, agent, caxton, wait_for};
use crate::support::{Member, founder, settled, text, token};

const VALUE: &str = "sk-of-the-lab-5f1e2d3c4b5a";

/// A provider that answers whoever shows the key; it ends with the test's process.
fn provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            let whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).to_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
                body.len() >= length.unwrap_or(0usize)
            };
            while !whole(&request) {
                match stream.read(&mut piece) {
                    Ok(bytes) if bytes > 0 => request.extend_from_slice(&piece[..bytes]),
                    _ => break,
                }
            }
            let shown = String::from_utf8_lossy(&request).contains(&format!("Bearer {VALUE}"));
            let (status, body) = if shown {
                let message = r#"{"role":"assistant","content":"hello from the lab"}"#;
                (
                    "200 OK",
                    format!(r#"{{"model":"m","choices":[{{"index":0,"message":{message},"finish_reason":"stop"}}]}}"#),
                )
            } else {
                ("401 Unauthorized", r#"{"error":{"message":"wrong key"}}"#.to_owned())
            };
            // Whoever asked may be gone.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

fn three(place: &Place) -> Vec<Member> {
    let (one, address) = founder(place.dir.path());
    let file = token(&one, &["--uses", "2"]);
    let mut members = vec![one, Member::new(place.dir.path(), "two"), Member::new(place.dir.path(), "three")];
    for member in &mut members[1..] {
        member.spawn(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
    }
    members[1..].iter_mut().for_each(Member::ready);
    settled(&members[0], 3);
    members
}

#[test]
fn a_secret_that_was_set_on_one_node_opens_on_every_node() {
    let place = Place::new();
    let members = three(&place);
    let workspace = place.workspace("work");
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nbase_url = \"{}\"\n\
         api_key = \"secret:LAB_KEY\"\nmodel = \"m\"\n",
        provider()
    );
    workspace.write("caxton.toml", settings);
    workspace.write("agents/greeter.toml", agent("greeter", "1.0.0"));
    let status = settled(&members[0], 3);
    let follower = members.iter().find(|member| member.id() != status["groups"][0]["leader"]).expect("a follower");
    let mut set = caxton(&workspace.root);
    set.current_dir(&workspace.root).arg("--data-dir").arg(&follower.data).args(["secrets", "set", "LAB_KEY"]);
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
    writeln!(set.stdin.take().expect("its input"), "{VALUE}").expect("written");
    assert!(set.wait().expect("its end").success());
    let ran = follower.run_in(&workspace.root, &["deploy", "--yes", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // The agent runs where its shard is led: there in turn.
    for member in &members {
        wait_for(&format!("{} to lead the shard", member.name), || {
            let status = member.status()?;
            if status["groups"][1]["leader"] == member.id() {
                return Some(());
            }
            member.run(&["cluster", "transfer", "--group", "1", "--to", &member.id()]);
            None
        });
        wait_for(&format!("{} to serve it", member.name), || member.serves(1).then_some(()));
        let ran = member.run_in(&workspace.root, &["send", "greeter", "hi", "--json"]);
        assert!(ran.code == Some(0) && ran.stdout.contains("hello from the lab"), "{}: {ran:?}", member.name);
    }
}

#[test]
fn leadership_moves_and_a_leader_stops_without_a_failed_write() {
    let place = Place::new();
    let mut members = three(&place);
    let urls: Vec<String> = members.iter().map(|member| member.url().expect("an address")).collect();
    let status = settled(&members[0], 3);
    // The one that is to stop is asked for nothing: whoever is connected to it sees it stop.
    let at = members.iter().position(|member| member.id() == status["groups"][0]["leader"]).expect("the leader");
    let others = [(at + 1) % 3, (at + 2) % 3];
    let stop = Arc::new(AtomicBool::new(false));
    let writers = others.map(|other| {
        let (stop, data, url) = (Arc::clone(&stop), members[other].data.clone(), urls[other].clone());
        std::thread::spawn(move || {
            let token = std::fs::read_to_string(data.join("admin-token")).expect("a token");
            let address = url.strip_prefix("http://").expect("plain HTTP").to_owned();
            let (mut written, mut failed) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let answer = write_once(&address, token.trim());
                if answer.starts_with("HTTP/1.1 201") || answer.starts_with("HTTP/1.0 201") {
                    written += 1;
                } else {
                    failed.push(answer);
                }
            }
            (written, failed)
        })
    });
    for _ in 0..4 {
        let ran = members[others[0]].run(&["cluster", "transfer"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let to = members[at].id();
    wait_for("the first leader to lead again", || {
        members[at].run(&["cluster", "transfer", "--group", "0", "--to", &to]);
        (members[others[0]].status()?["groups"][0]["leader"] == to).then_some(())
    });
    assert!(members[at].terminate().success());
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let (written, failed) = writer.join().expect("it ends");
        assert!(failed.is_empty() && written > 0, "{written} written, and {failed:#?}");
    }
}

/// One write, on a connection of its own; gives the whole answer.
fn write_once(address: &str, token: &str) -> String {
    let body = r#"{"subject":"t","role":"viewer","ttl_s":1}"#;
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        write!(
            stream,
            "POST /api/v1/tokens HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_backup_by_way_of_a_follower_has_every_group() {
    let place = Place::new();
    let members = three(&place);
    let workspace = place.workspace("work");
    let status = settled(&members[0], 3);
    let follower = members.iter().find(|member| member.id() != status["groups"][0]["leader"]).expect("a follower");
    let ran = follower.run_in(&workspace.root, &["deploy", "--yes", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let file = place.dir.path().join("b.tar");
    let made = follower.run(&["backup", text(&file), "--json"]).json();
    let groups = made["backup"]["groups"].as_array().expect("groups").len();
    assert_eq!(groups, status["groups"].as_array().expect("groups").len(), "{made}");
    assert_eq!(made["workspaces"], 1, "{made}");
}

#[test]
fn lines_of_every_node_are_shown_and_followed_and_a_node_that_is_away_is_named() {
    let place = Place::new();
    let mut members = three(&place);
    let workspace = place.workspace("work");
    let deploy = |version: &str| {
        workspace.write("agents/greeter.toml", agent("greeter", version));
        wait_for("a deployment", || {
            (members[0].run_in(&workspace.root, &["deploy", "--yes"]).code == Some(0)).then_some(())
        });
    };
    let ids: BTreeSet<String> = members.iter().map(Member::id).collect();
    let serving = |lines: &[serde_json::Value], revision: &str| -> BTreeSet<String> {
        let serving = lines.iter().filter(|line| line["event"] == "serving" && line["detail"] == revision);
        serving.filter_map(|line| Some(line["node"].as_str()?.to_owned())).collect()
    };
    deploy("1.0.0");
    for member in &members {
        wait_for("every node's line", || {
            let told = member.run_in(&workspace.root, &["logs", "--json"]).json();
            (serving(told["lines"].as_array()?, "r1") == ids).then_some(())
        });
    }

    // Whoever follows is told by each as well.
    let mut follow = caxton(&workspace.root);
    follow.current_dir(&workspace.root).arg("--data-dir").arg(&members[1].data).args(["logs", "--follow", "--json"]);
    follow.env("CAXTON_TOKEN_FILE", members[1].data.join("admin-token")).stdout(Stdio::piped());
    let mut follow = follow.spawn().expect("the binary runs");
    let lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut lines = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
    let mut seen: Vec<serde_json::Value> = Vec::new();
    while serving(&seen, "r1") != ids {
        seen.push(lines.next().expect("the stream goes on"));
    }
    deploy("1.0.1");
    while serving(&seen, "r2") != ids {
        seen.push(lines.next().expect("the stream goes on"));
    }
    let twice = seen.iter().enumerate().any(|(at, line)| seen[..at].contains(line));
    assert!(!twice, "a line came twice: {seen:#?}");
    follow.kill().expect("killed");
    follow.wait().expect("ended");

    let away = members[2].id();
    members[2].kill();
    let ran = wait_for("an answer", || {
        let ran = members[0].run_in(&workspace.root, &["logs"]);
        (ran.code == Some(0)).then_some(ran)
    });
    assert!(ran.stderr.contains(&format!("node {away} does not answer")), "{ran:?}");
    assert!(ran.stdout.contains("r2"), "{ran:?}");
}
