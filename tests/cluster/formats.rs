//! Which format nodes write in: what all of them say they read, one after the other as they are upgraded, and never an older
//! one again.

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::run::{Place, wait_for};
use crate::support::{Member, PEERS, post, read, settled, text, token};

/// How a node of the version before looks to the others: it says that it reads the first format, and no other.
const BEFORE: [&str; 2] = ["--set", "cluster.format_max=1"];

/// The format that all write in the end.
const NEWEST: u64 = caxton_proto::Format::NEWEST.number() as u64;

fn format(member: &Member) -> Option<u64> {
    member.status()?["format"].as_u64()
}

/// Waits until a member sees the cluster write in this format.
fn writes(member: &Member, expected: u64) -> Value {
    wait_for(&format!("{} to see format {expected}", member.name), || {
        let status = member.status()?;
        (status["format"] == expected).then_some(status)
    })
}

/// Whether each turn of the workspace `demo` is written as JSON, in the member's own copy, the oldest first.
fn are_json(member: &Member, turns: usize) -> Vec<bool> {
    wait_for(&format!("{turns} turns at {}", member.name), || {
        let mut found = Vec::new();
        for file in std::fs::read_dir(member.data.join("conversations")).ok()?.flatten() {
            if file.path().extension().is_none_or(|end| end != "db") {
                continue;
            }
            let rows = Connection::open_with_flags(file.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
            let mut statement = rows.prepare("SELECT body FROM turn WHERE workspace = 'demo' ORDER BY number").ok()?;
            let bodies = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).ok()?;
            found.extend(bodies.flatten().map(|body| body.starts_with(b"{")));
        }
        (found.len() == turns).then_some(found)
    })
}

fn say(member: &Member) {
    let message = json!({ "agent": "thinker", "text": "hi", "conversation": "c", "create": true });
    wait_for(&format!("{} to answer", member.name), || {
        let (status, answer) = post(member, "/api/v1/workspaces/demo/messages", &message)?;
        assert!(matches!(status, 200 | 404 | 503), "{status} {answer}");
        (status == 200).then_some(())
    });
}

fn deploy(member: &Member, place: &Place) {
    let root = place.dir.path().join("workspace");
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("made");
        std::fs::write(root.join(path), text).expect("written");
    };
    let provider = "[providers.m]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    write("caxton.toml", &format!("[workspace]\nname = \"demo\"\n{provider}"));
    write("prompts/s.toml", "[[rule]]\nsay = \"well\"\n");
    write(
        "agents/thinker.toml",
        "[agent]\nname = \"thinker\"\ndescription = \"thinks\"\n[capabilities]\npatterns = [\"think about it\"]\n",
    );
    wait_for("a deployment", || {
        let ran = member.run_in(&root, &["deploy", "--yes", "--json"]);
        assert!(matches!(ran.code, Some(0 | 6 | 7)), "{ran:#?}");
        (ran.code == Some(0)).then_some(())
    });
}

#[test]
fn a_newer_format_is_written_once_every_node_reads_it_and_never_an_older_one_again() {
    let place = Place::new();
    let home = place.dir.path();
    let mut one = Member::new(home, "one");
    one.start(&[&PEERS[..], &BEFORE].concat());
    let address = one.peer_address();
    let file = token(&one, &["--uses", "4"]);
    let join = [&PEERS[..], &["--join", &address, "--token-file", text(&file)]].concat();
    let mut members = vec![one, Member::new(home, "two"), Member::new(home, "three")];
    for member in &mut members[1..] {
        member.start(&[&join[..], &BEFORE].concat());
    }
    settled(&members[2], 3);
    deploy(&members[0], &place);
    say(&members[0]);
    assert_eq!(format(&members[0]), Some(1));

    // One node after the other is upgraded; as long as one is not, all write what it reads.
    for (index, member) in members.iter_mut().enumerate() {
        member.terminate();
        member.start(&PEERS);
        if index < 2 {
            settled(member, 3);
            say(member);
            let status = member.status().expect("its view");
            assert_eq!(status["format"], 1, "{status}");
            let shown = member.run(&["cluster", "status"]).ok();
            assert!(shown.contains(&format!("format 1; {NEWEST} once it is read by")), "{shown}");
        }
    }
    for member in &members {
        writes(member, NEWEST);
        assert_eq!(are_json(member, 3), [true; 3], "{}", member.name);
    }
    say(&members[0]);
    for member in &members {
        assert_eq!(are_json(member, 4), [true, true, true, false], "{}", member.name);
        let shown = wait_for("the conversation", || read(member, "/api/v1/workspaces/demo/conversations/c"));
        assert_eq!(shown["turns"], 4, "{shown}");
    }
    assert!(members[0].run(&["cluster", "status"]).ok().contains(&format!("format {NEWEST}\n")));

    // What a node says later does not matter any more; and nobody is let in who reads less.
    members[1].terminate();
    members[1].start(&[&PEERS[..], &BEFORE].concat());
    settled(&members[1], 3);
    writes(&members[1], NEWEST);
    say(&members[1]);
    for member in &members {
        assert_eq!(are_json(member, 5)[3..], [false, false], "{}", member.name);
    }
    let address = members[0].peer_address();
    let join = [&PEERS[..], &BEFORE, &["--join", &address, "--token-file", text(&file)]].concat();
    let said = Member::new(home, "late").refused(&join);
    assert!(said.contains("newer format") && said.contains("cluster.format_max"), "{said}");
}
