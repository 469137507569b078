//! The bytes that version 1 wrote, kept in proto/golden/log-v1: they must mean the same for ever. To add files for a new
//! version, put its commands below and run this once with CAXTON_WRITE_GOLDEN=1, which writes only files that are missing.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use caxton_proto::log::cluster::{
    self, AdmitNode, AnnounceNode, BeginAgain, Credential, FinishRotation, FixShards, IssueJoinToken, KeyKind,
    NodeFacts, RaiseFormat, RemoveNode, RetireNode, RotateKey,
};
use caxton_proto::log::{
    Author, Command, DecodeError, DeleteWorkspace, DeletionTotals, Deploy, Git, IssueToken, Kind, Outcome,
    RemoveSecret, RevokeToken, Role, SetSecret,
};
use caxton_proto::plan::{Change, Item, ItemChange};
use caxton_proto::{Digest, Format, NodeId, Revision};
use caxton_raft::deploy_log::{State, read_snapshot, write_snapshot};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/golden/log-v1").join(name)
}

fn golden(name: &str, bytes: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let file = file(name);
    if std::env::var_os("CAXTON_WRITE_GOLDEN").is_some() && !file.exists() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes()).unwrap();
    }
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The commands of version 1 with every field that it has, in the order in which they are applied.
fn commands() -> [(&'static str, Command); 4] {
    let change = |item, change| ItemChange { item, change };
    let first = Deploy {
        workspace: "demo".parse().unwrap(),
        parent: Revision::NONE,
        root: Digest::of(b"first"),
        kind: Kind::Deploy,
        author: Author { name: "Ada Lovelace".into(), email: "ada@example.org".into() },
        actor: "admin".into(),
        time_ms: 1_700_000_000_123,
        git: Some(Git { commit: "0f1e2d".into(), branch: "main".into(), dirty: true }),
        message: "The first one, with a ü".into(),
        changes: vec![
            change(Item::Agent("translator".into()), Change::New),
            change(Item::Tool("chart".into()), Change::Changed),
            change(Item::File("caxton.toml".into()), Change::Removed),
        ],
        changes_total: 70,
        files: 12,
        bytes: 34_567,
        idempotency_key: "01234567-89ab".into(),
        revisions_kept: 100,
    };
    let back = Deploy {
        parent: Revision(1),
        kind: Kind::Rollback { to: Revision(1) },
        author: Author::default(),
        git: None,
        message: String::new(),
        changes: Vec::new(),
        changes_total: 0,
        idempotency_key: String::new(),
        revisions_kept: 1,
        ..first.clone()
    };
    let issue = IssueToken {
        id: "t-1".into(),
        hash: Digest::of(b"token"),
        subject: "ci".into(),
        role: Role::Deployer,
        workspaces: vec!["demo".parse().unwrap(), "other".parse().unwrap()],
        expires_ms: 1_800_000_000_000,
        time_ms: 1_700_000_000_456,
        actor: "admin".into(),
    };
    let revoke = RevokeToken { id: "t-1".into(), time_ms: 1_700_000_000_789, actor: "admin".into() };
    [
        ("deploy.bin", Command::Deploy(first)),
        ("rollback.bin", Command::Deploy(back)),
        ("issue-token.bin", Command::IssueToken(issue)),
        ("revoke-token.bin", Command::RevokeToken(revoke)),
    ]
}

#[test]
fn the_commands_of_version_1_mean_what_they_meant() {
    let (mut expected, mut found) = (State::default(), State::default());
    for ((name, command), index) in commands().into_iter().zip(1..) {
        let read = Command::decode(&golden(name, || command.encode())).unwrap();
        assert_eq!(read, command, "{name}");
        let outcome = expected.apply(index, &command);
        assert!(
            matches!(outcome, Outcome::Deployed(_) | Outcome::TokenIssued | Outcome::TokenRevoked),
            "{name}: {outcome:?}"
        );
        assert_eq!(found.apply(index, &read), outcome, "{name}");
    }
    let snapshot = golden("snapshot.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&expected, &mut bytes).unwrap();
        bytes
    });
    assert_eq!(read_snapshot(&mut snapshot.as_slice()).unwrap(), found);
    assert_eq!(found, expected);
    let live = found.workspace(&"demo".parse().unwrap()).unwrap();
    assert_eq!((live.live(), live.kept().count()), (Revision(2), 1));
}

/// The commands of secrets, which came after the first files of version 1.
fn secret_commands() -> [(&'static str, Command); 2] {
    let set = SetSecret {
        workspace: "demo".parse().unwrap(),
        name: "WEATHER_KEY".parse().unwrap(),
        key: "0011223344556677".into(),
        sealed: (0..44).collect(),
        time_ms: 1_700_000_001_000,
        actor: "admin".into(),
    };
    let remove = RemoveSecret {
        workspace: "demo".parse().unwrap(),
        name: "OLD_KEY".parse().unwrap(),
        time_ms: 1_700_000_002_000,
        actor: "ci".into(),
    };
    [("set-secret.bin", Command::SetSecret(set)), ("remove-secret.bin", Command::RemoveSecret(remove))]
}

#[test]
fn the_commands_of_secrets_mean_what_they_meant() {
    let mut state = State::default();
    for ((name, command), index) in secret_commands().into_iter().zip(1..) {
        let read = Command::decode(&golden(name, || command.encode())).unwrap();
        assert_eq!(read, command, "{name}");
        state.apply(index, &read);
    }
    let snapshot = golden("snapshot-secrets.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&state, &mut bytes).unwrap();
        bytes
    });
    let found = read_snapshot(&mut snapshot.as_slice()).unwrap();
    assert_eq!(found, state);
    let secret = found.secrets().get(&"demo".parse().unwrap(), &"WEATHER_KEY".parse().unwrap()).unwrap();
    assert_eq!((secret.index, secret.set.sealed.len()), (1, 44));
}

/// The commands about nodes, which came later, in the order in which they are applied.
fn node_commands() -> [(&'static str, cluster::Command, cluster::Outcome); 5] {
    let facts = |node: u64| NodeFacts {
        node: NodeId(node),
        peer_address: format!("node{node}.example.org:7412"),
        client_url: format!("https://node{node}.example.org:7411"),
        version: "0.1.0".into(),
        holds: Vec::new(),
        format: Format::JSON,
    };
    let (time_ms, actor) = (1_700_000_000_123, "admin".to_owned());
    let hash = Digest::of(b"secret");
    let issue =
        IssueJoinToken { id: "j-1".into(), hash, uses: 2, expires_ms: time_ms + 1, time_ms, actor: actor.clone() };
    let by_token = Credential::Token { id: "j-1".into(), hash };
    let admit = |node, credential| {
        cluster::Command::AdmitNode(AdmitNode { facts: facts(node), credential, join_key: None, time_ms })
    };
    let announce = cluster::Command::AnnounceNode(AnnounceNode { facts: facts(u64::MAX), time_ms });
    let remove = cluster::Command::RemoveNode(RemoveNode { node: NodeId(2), retired: false, time_ms, actor });
    [
        ("announce-node.bin", announce, cluster::Outcome::NodeAnnounced),
        ("issue-join-token.bin", cluster::Command::IssueJoinToken(issue), cluster::Outcome::JoinTokenIssued),
        ("admit-node-token.bin", admit(2, by_token), cluster::Outcome::NodeAdmitted),
        ("admit-node-secret.bin", admit(3, Credential::Secret), cluster::Outcome::NodeAdmitted),
        ("remove-node.bin", remove, cluster::Outcome::NodeRemoved),
    ]
}

#[test]
fn the_commands_about_nodes_mean_what_they_meant() {
    let mut found = State::default();
    for ((name, command, expected), index) in node_commands().into_iter().zip(1..) {
        let command = Command::Cluster(command);
        let read = Command::decode(&golden(name, || command.encode())).unwrap();
        assert_eq!(read, command, "{name}");
        let outcome = found.apply(index, &read);
        assert_eq!(outcome, Outcome::Cluster(expected), "{name}");
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome, "{name}");
    }
    let snapshot = golden("snapshot-nodes.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&found, &mut bytes).unwrap();
        bytes
    });
    let read = read_snapshot(&mut snapshot.as_slice()).unwrap();
    assert_eq!(read, found);
    let nodes: Vec<u64> = read.cluster().members().map(|member| member.facts.node.0).collect();
    assert_eq!((nodes, read.cluster().is_departed(NodeId(2))), (vec![3, u64::MAX], true));
    assert_eq!(read.cluster().tokens().next().unwrap().used_by, [NodeId(2)]);
}

/// The commands by which a node is taken out once no group counts it, and the key by which it asks to join, which came
/// after all the above.
fn retirement_commands() -> [(&'static str, cluster::Command, cluster::Outcome); 5] {
    let facts = |node: u64| NodeFacts {
        node: NodeId(node),
        peer_address: format!("node{node}.example.org:7412"),
        client_url: format!("https://node{node}.example.org:7411"),
        version: "0.1.0".into(),
        holds: Vec::new(),
        format: Format::JSON,
    };
    let (time_ms, actor) = (1_700_000_000_123, "admin".to_owned());
    let admit = |node| {
        let join_key = Some(Digest::of(b"the key of a node"));
        let credential = Credential::Secret;
        cluster::Command::AdmitNode(AdmitNode { facts: facts(node), credential, join_key, time_ms })
    };
    let retire = |node| {
        let (node, actor) = (NodeId(node), actor.clone());
        cluster::Command::RetireNode(RetireNode { node, until_ms: time_ms + 60_000, time_ms, actor })
    };
    let (node, actor) = (NodeId(2), actor.clone());
    let remove = cluster::Command::RemoveNode(RemoveNode { node, retired: true, time_ms, actor });
    [
        ("admit-node-key.bin", admit(2), cluster::Outcome::NodeAdmitted),
        ("admit-node-key-other.bin", admit(3), cluster::Outcome::NodeAdmitted),
        ("retire-node.bin", retire(2), cluster::Outcome::NodeRetires),
        ("remove-node-retired.bin", remove, cluster::Outcome::NodeRemoved),
        ("retire-node-last.bin", retire(3), cluster::Outcome::LastNode),
    ]
}

#[test]
fn the_commands_that_take_a_node_out_mean_what_they_meant() {
    let mut found = State::default();
    for ((name, command, expected), index) in retirement_commands().into_iter().zip(1..) {
        let command = Command::Cluster(command);
        let read = Command::decode(&golden(name, || command.encode())).unwrap();
        assert_eq!(read, command, "{name}");
        if name == "remove-node-retired.bin" {
            let snapshot = golden("snapshot-retirement.bin", || {
                let mut bytes = Vec::new();
                write_snapshot(&found, &mut bytes).unwrap();
                bytes
            });
            let read = read_snapshot(&mut snapshot.as_slice()).unwrap();
            assert_eq!(read, found);
            let retirement = read.cluster().retirement().unwrap();
            assert_eq!((retirement.node, retirement.until_ms), (NodeId(2), 1_700_000_060_123));
            assert!(read.cluster().members().all(|member| member.join_key.is_some()));
        }
        assert_eq!(found.apply(index, &read), Outcome::Cluster(expected), "{name}");
    }
    use cluster::Outcome::{AnotherRetires, NodeRetires, NotRetiring};
    for outcome in [NodeRetires, AnotherRetires(NodeId(7)), NotRetiring] {
        let outcome = Outcome::Cluster(outcome);
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    }
}

/// The first command of a log says how many shards its cluster has; a log that begins with another one means 1.
#[test]
fn the_number_of_shards_is_fixed_by_the_first_command_of_a_log_and_by_no_other() {
    let shards = |count| NonZeroU32::new(count).expect("not zero");
    let fix = |count| Command::Cluster(cluster::Command::FixShards(FixShards { count: shards(count) }));
    let are = |count| Outcome::Cluster(cluster::Outcome::ShardsAre(shards(count)));
    let read = Command::decode(&golden("fix-shards.bin", || fix(8).encode())).unwrap();
    assert_eq!(read, fix(8));
    let mut found = State::default();
    assert_eq!(found.apply(1, &read), are(8));
    assert_eq!(found.apply(2, &fix(9)), are(8));
    assert_eq!(Outcome::decode(&are(8).encode()).unwrap(), are(8));
    let snapshot = golden("snapshot-shards.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&found, &mut bytes).unwrap();
        bytes
    });
    let read = read_snapshot(&mut snapshot.as_slice()).unwrap();
    assert_eq!((read.cluster().shards(), &read), (shards(8), &found));

    let old = fs::read(file("snapshot-nodes.bin")).unwrap();
    let mut old = read_snapshot(&mut old.as_slice()).unwrap();
    assert_eq!(old.cluster().shards(), shards(1));
    assert_eq!(old.apply(old.applied() + 1, &fix(8)), are(1), "an old log has one shard for ever");
}

/// The commands of keys that all nodes hold, which came after all the above.
fn key_commands() -> [(&'static str, cluster::Command, cluster::Outcome); 5] {
    let (time_ms, actor) = (1_700_000_000_123, "admin".to_owned());
    let rotate = |kind, id| {
        let (sealed_with, sealed) = ("0011223344556677".to_owned(), (0..44).collect());
        let actor = actor.clone();
        cluster::Command::RotateKey(RotateKey { kind, id, sealed_with, sealed, until_ms: time_ms + 1, time_ms, actor })
    };
    let finish = |kind, id, overdue| {
        cluster::Command::FinishRotation(FinishRotation { kind, id, overdue, time_ms, actor: actor.clone() })
    };
    let facts = NodeFacts {
        node: NodeId(1),
        peer_address: "node1.example.org:7412".into(),
        client_url: "https://node1.example.org:7411".into(),
        version: "0.1.0".into(),
        holds: vec![7, u64::MAX],
        format: Format::JSON,
    };
    let announce = cluster::Command::AnnounceNode(AnnounceNode { facts, time_ms });
    [
        ("rotate-authority.bin", rotate(KeyKind::Authority, 7), cluster::Outcome::RotationStarted),
        ("rotate-gossip.bin", rotate(KeyKind::Gossip, u64::MAX), cluster::Outcome::RotationStarted),
        ("rotate-signing.bin", rotate(KeyKind::Signing, 9), cluster::Outcome::RotationStarted),
        ("announce-node-keys.bin", announce, cluster::Outcome::NodeAnnounced),
        ("finish-rotation.bin", finish(KeyKind::Authority, 7, true), cluster::Outcome::RotationFinished),
    ]
}

#[test]
fn the_commands_of_keys_mean_what_they_meant() {
    let mut found = State::default();
    for ((name, command, expected), index) in key_commands().into_iter().zip(1..) {
        let command = Command::Cluster(command);
        let read = Command::decode(&golden(name, || command.encode())).unwrap();
        assert_eq!(read, command, "{name}");
        let outcome = found.apply(index, &read);
        assert_eq!(outcome, Outcome::Cluster(expected), "{name}");
    }
    use cluster::Outcome::{NoRotation, RotationFinished, RotationStarted, RotationUnderWay, RotationWaits};
    for outcome in [RotationStarted, RotationUnderWay, RotationFinished, RotationWaits, NoRotation] {
        let outcome = Outcome::Cluster(outcome);
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    }
    let snapshot = golden("snapshot-keys.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&found, &mut bytes).unwrap();
        bytes
    });
    let read = read_snapshot(&mut snapshot.as_slice()).unwrap();
    assert_eq!(read, found);
    let finished: Vec<bool> = read.cluster().keys().map(|key| key.finished_ms.is_some()).collect();
    assert_eq!(finished, [true, false, false]);
    assert_eq!(read.cluster().lacking(9).collect::<Vec<_>>(), [NodeId(1)]);
}

#[test]
fn the_command_of_a_cluster_that_begins_again_means_what_it_meant() {
    let again = |from| {
        Command::Cluster(cluster::Command::BeginAgain(BeginAgain {
            node: NodeId(7),
            before: "11111111-2222-4333-8444-555555555555".into(),
            now: "66666666-7777-4888-9999-000000000000".into(),
            from,
            time_ms: 1_700_000_000_123,
            actor: "local:root".into(),
        }))
    };
    for (name, command) in [
        ("begin-again-backup.bin", again(cluster::Origin::Backup)),
        ("begin-again-one-node.bin", again(cluster::Origin::OneNode)),
    ] {
        assert_eq!(Command::decode(&golden(name, || command.encode())).unwrap(), command, "{name}");
    }
    let outcome = Outcome::Cluster(cluster::Outcome::BegunAgain);
    assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
}

#[test]
fn every_refusal_reads_back() {
    use cluster::JoinRefusal::{Expired, Format, NoSuchToken, NodeIdTaken, Removed, Spent, TooManyNodes};
    for why in [NoSuchToken, Expired, Spent, Removed, TooManyNodes, NodeIdTaken, Format] {
        let outcome = Outcome::Cluster(cluster::Outcome::JoinRefused(why));
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    }
}

#[test]
fn the_command_that_raises_the_format_means_what_it_meant() {
    let facts = NodeFacts {
        node: NodeId(1),
        peer_address: "node1.example.org:7412".into(),
        client_url: "https://node1.example.org:7411".into(),
        version: "0.1.0".into(),
        holds: Vec::new(),
        format: Format::PROTOBUF,
    };
    let time_ms = 1_700_000_000_123;
    let announce = cluster::Command::AnnounceNode(AnnounceNode { facts, time_ms });
    let raise = RaiseFormat { format: Format::PROTOBUF, members: vec![NodeId(1), NodeId(u64::MAX)], time_ms };
    let commands = [
        ("announce-node-format.bin", announce, cluster::Outcome::NodeAnnounced),
        ("raise-format.bin", cluster::Command::RaiseFormat(raise), cluster::Outcome::FormatIs(Format::PROTOBUF)),
    ];
    let mut found = State::default();
    for ((name, command, expected), index) in commands.into_iter().zip(1..) {
        let command = Command::Cluster(command);
        let read = Command::decode(&golden(name, || command.encode())).unwrap();
        assert_eq!(read, command, "{name}");
        let outcome = found.apply(index, &read);
        assert_eq!(outcome, Outcome::Cluster(expected), "{name}");
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    }
    let snapshot = golden("snapshot-format.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&found, &mut bytes).unwrap();
        bytes
    });
    let read = read_snapshot(&mut snapshot.as_slice()).unwrap();
    assert_eq!((&read, read.cluster().format()), (&found, Format::PROTOBUF));
    // Version 1 of this file's reader stops at what it does not know, and says that a newer build does.
    let raise = fs::read(file("raise-format.bin")).unwrap();
    assert_eq!(raise[..2], [0x08, 2], "the command's version is the format that it raises to");
}

#[test]
fn the_command_that_deletes_a_workspace_means_what_it_meant() {
    let delete = Command::DeleteWorkspace(DeleteWorkspace {
        workspace: "demo".parse().unwrap(),
        time_ms: 1_700_000_003_000,
        actor: "admin".into(),
        seen: Some(Revision(2)),
    });
    let read = Command::decode(&golden("delete-workspace.bin", || delete.encode())).unwrap();
    assert_eq!(read, delete);
    let raise = RaiseFormat { format: Format::DELETION, members: Vec::new(), time_ms: 1_700_000_000_123 };
    let mut found = State::default();
    found.apply(1, &Command::Cluster(cluster::Command::RaiseFormat(raise)));
    for ((_, command), index) in commands().into_iter().zip(2..) {
        found.apply(index, &command);
    }
    let outcome = found.apply(6, &read);
    let Outcome::WorkspaceDeleted { deletion, totals } = &outcome else { panic!("it is there") };
    assert_eq!((deletion.index, deletion.revision), (6, Revision(2)));
    assert_eq!(*totals, DeletionTotals { deployments: 2, secrets: 0, tokens: 0 }, "the token was for another one, too");
    assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    let snapshot = golden("snapshot-deletions.bin", || {
        let mut bytes = Vec::new();
        write_snapshot(&found, &mut bytes).unwrap();
        bytes
    });
    assert_eq!(read_snapshot(&mut snapshot.as_slice()).unwrap(), found);
    // A reader of format 2 stops, and says that a newer build knows it.
    assert_eq!(fs::read(file("delete-workspace.bin")).unwrap()[..2], [0x08, 3]);
}

#[test]
fn a_newer_version_is_named_and_not_guessed_at() {
    // Field 1 is the version.
    let newer = [0x08, Format::NEWEST.number() as u8 + 1];
    let found = Format::NEWEST.number() + 1;
    assert!(matches!(Command::decode(&newer), Err(DecodeError::Version { found: it }) if it == found));
    assert!(Command::decode(&[]).is_err());
}

#[test]
fn a_snapshot_that_ends_early_is_refused() {
    let snapshot = fs::read(file("snapshot.bin")).unwrap();
    for len in 0..snapshot.len() {
        assert!(read_snapshot(&mut &snapshot[..len]).is_err(), "{len} bytes");
    }
}
