//! The deploy log's state: by random commands, what must always hold; and by examples, its limits.

use std::collections::BTreeSet;

use caxton_proto::log::{
    Command, DeleteWorkspace, DeletionTotals, Deploy, IssueToken, Kind, Outcome, RemoveSecret, RevokeToken, Role,
    SetSecret,
};
use caxton_proto::{Digest, Revision};
use caxton_raft::deploy_log::state::{
    DELETIONS_MAX, DEPLOYMENTS_MAX, EXPIRED_KEPT_MS, KEY_KEPT_MS, TOKENS_MAX, WORKSPACE_SECRETS_MAX,
};
use caxton_raft::deploy_log::{State, read_snapshot, write_snapshot};
use proptest::prelude::*;

use crate::support::deploy;

/// What a random command is made from.
#[derive(Debug, Clone)]
enum Step {
    /// `behind`: how far the parent is behind what is live; more than that is ahead of it.
    Deploy {
        workspace: usize,
        behind: u64,
        content: u8,
        key: Option<u8>,
        kept: u32,
        hours: u64,
    },
    Rollback {
        workspace: usize,
        to: u64,
        honest: bool,
        kept: u32,
    },
    Issue {
        id: u8,
        hash: u8,
        expires_hours: u64,
        hours: u64,
    },
    Revoke {
        id: u8,
    },
    Delete {
        workspace: usize,
    },
    Secret {
        workspace: usize,
        name: u8,
        kept: bool,
    },
}

const WORKSPACES: [&str; 2] = ["one", "two"];
const HOUR_MS: u64 = 60 * 60 * 1000;

fn step() -> impl Strategy<Value = Step> {
    let (workspace, kept) = (0..2usize, 0..6u32);
    prop_oneof![
        8 => (workspace.clone(), prop_oneof![5 => Just(0u64), 1 => 1..4u64], 0..4u8, proptest::option::of(0..6u8), kept.clone(), 0..14u64)
            .prop_map(|(workspace, behind, content, key, kept, hours)| Step::Deploy { workspace, behind, content, key, kept, hours }),
        2 => (workspace, 0..8u64, any::<bool>(), kept)
            .prop_map(|(workspace, to, honest, kept)| Step::Rollback { workspace, to, honest, kept }),
        1 => (0..4u8, 0..2u8, 0..40u64, 0..14u64)
            .prop_map(|(id, hash, expires_hours, hours)| Step::Issue { id, hash, expires_hours, hours }),
        1 => (0..4u8).prop_map(|id| Step::Revoke { id }),
        1 => (0..2usize).prop_map(|workspace| Step::Delete { workspace }),
        1 => (0..2usize, 0..3u8, any::<bool>()).prop_map(|(workspace, name, kept)| Step::Secret { workspace, name, kept }),
    ]
}

/// The command that a step is, given the state that it meets.
fn command(step: &Step, state: &State, now_ms: &mut u64) -> Command {
    let live = |name: &str| state.workspace(&name.parse().unwrap()).map_or(0, |it| it.live().0);
    match *step {
        Step::Deploy { workspace, behind, content, key, kept, hours } => {
            *now_ms += hours * HOUR_MS;
            let name = WORKSPACES[workspace];
            let parent = live(name).checked_sub(behind).unwrap_or(live(name) + behind);
            let idempotency_key = key.map_or(String::new(), |key| format!("key {key}"));
            let deploy = deploy(name, parent, &content.to_string());
            Command::Deploy(Deploy { idempotency_key, revisions_kept: kept, time_ms: *now_ms, ..deploy })
        }
        Step::Rollback { workspace, to, honest, kept } => {
            let name = WORKSPACES[workspace];
            let mut deploy = deploy(name, live(name), "another content");
            let old = state.workspace(&deploy.workspace).and_then(|it| it.deployment(Revision(to)));
            if let Some(old) = old.filter(|_| honest) {
                deploy.root = old.root;
            }
            let kind = Kind::Rollback { to: Revision(to) };
            Command::Deploy(Deploy { kind, revisions_kept: kept, time_ms: *now_ms, ..deploy })
        }
        Step::Issue { id, hash, expires_hours, hours } => {
            *now_ms += hours * HOUR_MS;
            let expires_ms = if expires_hours == 0 { 0 } else { *now_ms + expires_hours * HOUR_MS };
            Command::IssueToken(token(&id.to_string(), &[hash], expires_ms, *now_ms))
        }
        Step::Revoke { id } => {
            Command::RevokeToken(RevokeToken { id: id.to_string(), time_ms: *now_ms, actor: "ada".into() })
        }
        Step::Delete { workspace } => delete(WORKSPACES[workspace], *now_ms),
        Step::Secret { workspace, name, kept: true } => secret(WORKSPACES[workspace], &format!("S{name}"), &[name]),
        Step::Secret { workspace, name, kept: false } => {
            let (workspace, name) = (WORKSPACES[workspace].parse().unwrap(), format!("S{name}").parse().unwrap());
            Command::RemoveSecret(RemoveSecret { workspace, name, time_ms: *now_ms, actor: "ada".into() })
        }
    }
}

fn token(id: &str, token: &[u8], expires_ms: u64, time_ms: u64) -> IssueToken {
    IssueToken {
        id: id.into(),
        hash: Digest::of(token),
        subject: "ci".into(),
        role: Role::Deployer,
        workspaces: vec!["one".parse().unwrap()],
        expires_ms,
        time_ms,
        actor: "ada".into(),
    }
}

fn through_a_snapshot(state: &State) -> State {
    let mut bytes = Vec::new();
    write_snapshot(state, &mut bytes).unwrap();
    read_snapshot(&mut bytes.as_slice()).unwrap()
}

/// What holds in every state.
fn check(state: &State) {
    let mut indexes = BTreeSet::new();
    for (name, workspace) in state.workspaces() {
        let all: Vec<_> = workspace.deployments().collect();
        assert_eq!(all.last().unwrap().revision, workspace.live());
        let before = state.deletions().of(name).map_or(0, |it| it.revision.0);
        for (deployment, number) in all.iter().zip(before + 1..) {
            let parent = if number == before + 1 { 0 } else { number - 1 };
            assert_eq!(deployment.revision, Revision(number), "revisions have no gap");
            assert_eq!(deployment.parent, Revision(parent), "one winner for each parent");
            assert!(indexes.insert(deployment.index), "an index is one deployment's");
        }
        assert!(all.last().unwrap().kept, "what is live is kept");
        assert!(all.windows(2).all(|pair| pair[0].kept <= pair[1].kept), "the newest are kept");
        assert!(workspace.kept().eq(all.iter().copied().filter(|it| it.kept)));
    }
    let log: Vec<_> = state.deployments_after(0).map(|it| it.index).collect();
    assert_eq!(log, indexes.into_iter().collect::<Vec<_>>(), "the log has all deployments in order");
    let half = state.applied() / 2;
    assert!(state.deployments_after(half).map(|it| it.index).eq(log.into_iter().filter(|index| *index > half)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_proposed_the_history_is_whole(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut state, mut replica, mut now_ms) = (State::default(), State::default(), 1_700_000_000_000);
        for (step, index) in steps.iter().zip(1..) {
            let command = command(step, &state, &mut now_ms);
            let before = state.clone();
            let outcome = state.apply(index, &command);
            check(&state);
            prop_assert_eq!(&Outcome::decode(&outcome.encode()).unwrap(), &outcome);

            // Another node reads the command from its log, and comes from a snapshot.
            replica = through_a_snapshot(&replica);
            let read = Command::decode(&command.encode()).unwrap();
            prop_assert_eq!(&read, &command);
            prop_assert_eq!(&replica.apply(index, &read), &outcome);
            prop_assert_eq!(&replica, &state);

            if let Command::DeleteWorkspace(delete) = &command {
                prop_assert!(state.workspace(&delete.workspace).is_none());
                prop_assert_eq!(state.secrets().of(&delete.workspace).count(), 0);
                let opens = |it: &caxton_proto::log::Token| {
                    it.is_good(0) && (it.issued.workspaces.is_empty() || it.issued.workspaces.contains(&delete.workspace))
                };
                let open: Vec<_> = before.tokens().filter(|it| it.is_good(0) && it.issued.workspaces.is_empty()).collect();
                if matches!(outcome, Outcome::WorkspaceDeleted { .. }) {
                    prop_assert!(state.tokens().filter(|it| opens(it)).eq(open), "no token reaches it, and none more than before");
                }
            }
            let Command::Deploy(deploy) = &command else { continue };
            let live = before.workspace(&deploy.workspace).map_or(Revision::NONE, |it| it.live());
            match &outcome {
                Outcome::Deployed(it) => {
                    let gone = before.deletions().of(&deploy.workspace).map_or(Revision::NONE, |it| it.revision);
                    prop_assert_eq!((it.parent, it.revision, it.index), (live, live.max(gone).next(), index));
                    // A retry, even much later in the log, is answered with the same deployment.
                    let again = state.clone().apply(index + 100, &command);
                    let expected = match deploy.idempotency_key.is_empty() {
                        true => Outcome::Conflict { live_revision: it.revision, live: Some(it.clone()) },
                        false => Outcome::Repeated(it.clone()),
                    };
                    prop_assert_eq!(again, expected);
                }
                Outcome::Conflict { live_revision, live: deployment } => {
                    prop_assert_ne!(deploy.parent, live);
                    prop_assert_eq!(*live_revision, live);
                    prop_assert_eq!(deployment.as_ref().map_or(Revision::NONE, |it| it.revision), live);
                }
                Outcome::Repeated(it) => prop_assert_eq!(it.root, deploy.root),
                Outcome::KeyReused(it) => prop_assert_ne!(it.root, deploy.root),
                Outcome::NoSuchRevision { to, .. } => {
                    let old = before.workspace(&deploy.workspace).and_then(|it| it.deployment(*to));
                    prop_assert!(old.is_none_or(|it| !it.kept));
                }
                Outcome::RollbackDiffers(it) => prop_assert!(it.kept && it.root != deploy.root),
                other => prop_assert!(false, "{:?}", other),
            }
            if !matches!(outcome, Outcome::Deployed(_)) {
                // Nothing but the index has changed.
                prop_assert!(state.workspaces().eq(before.workspaces()) && state.tokens().eq(before.tokens()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A replica that comes from snapshots and reads bytes stays equal to one that took the values themselves.
    #[test]
    fn every_command_that_may_be_proposed_is_read_and_applied_alike_everywhere(
        commands in proptest::collection::vec(caxton_proto::log::strategies::command(), 1..40),
    ) {
        let (mut state, mut replica) = (State::default(), State::default());
        for (command, index) in commands.iter().zip(1..) {
            let read = Command::decode(&command.encode()).unwrap();
            prop_assert_eq!(&read, command);
            let format = state.cluster().format();
            let outcome = state.apply(index, command);
            prop_assert_eq!(&Outcome::decode(&outcome.encode()).unwrap(), &outcome);
            prop_assert_eq!(&replica.apply(index, &read), &outcome);
            replica = through_a_snapshot(&replica);
            prop_assert_eq!(&replica, &state);
            prop_assert!(state.cluster().format() >= format, "it never goes back");
        }
    }
}

#[test]
fn a_key_is_forgotten_after_a_day() {
    let mut state = State::default();
    let with_key = |parent, content: &str, time_ms| {
        let deploy = deploy("one", parent, content);
        Command::Deploy(Deploy { idempotency_key: "key".into(), time_ms, ..deploy })
    };
    assert!(matches!(state.apply(1, &with_key(0, "a", 5)), Outcome::Deployed(_)));
    assert!(matches!(state.apply(2, &with_key(1, "b", 5 + KEY_KEPT_MS)), Outcome::KeyReused(_)));
    assert!(matches!(state.apply(3, &with_key(0, "a", 5 + KEY_KEPT_MS)), Outcome::Repeated(_)));
    assert!(matches!(state.apply(4, &with_key(1, "b", 6 + KEY_KEPT_MS)), Outcome::Deployed(_)));
    assert!(matches!(state.apply(5, &with_key(1, "b", 7 + KEY_KEPT_MS)), Outcome::Repeated(it) if it.index == 4));
}

#[test]
fn what_is_no_longer_kept_stays_so_when_more_are_kept_again() {
    let mut state = State::default();
    let keep = |parent, kept| Command::Deploy(Deploy { revisions_kept: kept, ..deploy("one", parent, "x") });
    for parent in 0..4 {
        state.apply(parent + 1, &keep(parent, 2));
    }
    state.apply(5, &keep(4, 100));
    let workspace = state.workspace(&"one".parse().unwrap()).unwrap();
    assert_eq!(workspace.kept().map(|it| it.revision.0).collect::<Vec<_>>(), [3, 4, 5]);
    let back = Deploy { kind: Kind::Rollback { to: Revision(2) }, ..deploy("one", 5, "x") };
    let refused = state.apply(6, &Command::Deploy(back));
    let expected = Outcome::NoSuchRevision { to: Revision(2), oldest_kept: Revision(3), live_revision: Revision(5) };
    assert_eq!(refused, expected);
}

#[test]
fn a_history_longer_than_its_limit_forgets_its_oldest_and_says_so() {
    let (mut state, all) = (State::default(), DEPLOYMENTS_MAX as u64 + 3);
    for parent in 0..all {
        let command = Deploy { idempotency_key: parent.to_string(), ..deploy("one", parent, "x") };
        state.apply(parent + 1, &Command::Deploy(command));
    }
    let workspace = state.workspace(&"one".parse().unwrap()).unwrap();
    let revisions: Vec<u64> = workspace.deployments().map(|it| it.revision.0).collect();
    assert_eq!(revisions, (4..=all).collect::<Vec<_>>());
    assert_eq!((state.forgotten(), state.deployments_after(0).count()), (3, DEPLOYMENTS_MAX));
    assert_eq!(through_a_snapshot(&state), state);
}

#[test]
fn tokens_are_limited_and_those_that_expired_make_room() {
    let mut state = State::default();
    let issue = |id: usize, time_ms| Command::IssueToken(token(&id.to_string(), b"x", 1000, time_ms));
    for id in 0..TOKENS_MAX {
        assert_eq!(state.apply(id as u64 + 1, &issue(id, 1)), Outcome::TokenIssued);
    }
    assert_eq!(state.apply(10_001, &issue(TOKENS_MAX, 1)), Outcome::TooManyTokens);
    assert_eq!(state.apply(10_002, &issue(TOKENS_MAX, 1000 + EXPIRED_KEPT_MS)), Outcome::TooManyTokens);
    assert_eq!(state.apply(10_003, &issue(TOKENS_MAX, 1001 + EXPIRED_KEPT_MS)), Outcome::TokenIssued);
    assert_eq!(state.tokens().len(), 1);
}

#[test]
fn a_token_is_issued_once_and_revoked_once() {
    let mut state = State::default();
    let issue = |hash: &[u8]| Command::IssueToken(token("t", hash, 0, 7));
    let revoke = |actor: &str| Command::RevokeToken(RevokeToken { id: "t".into(), time_ms: 8, actor: actor.into() });
    assert_eq!(state.apply(1, &revoke("ada")), Outcome::NoSuchToken);
    assert_eq!(state.apply(2, &issue(b"a")), Outcome::TokenIssued);
    assert_eq!(state.apply(3, &issue(b"a")), Outcome::TokenIssued);
    assert_eq!(state.apply(4, &issue(b"b")), Outcome::TokenIdTaken);
    assert!(state.token("t").unwrap().is_good(u64::MAX));
    assert_eq!(state.apply(5, &revoke("ada")), Outcome::TokenRevoked);
    assert_eq!(state.apply(6, &revoke("eve")), Outcome::TokenRevoked);
    let token = state.token("t").unwrap();
    assert!(!token.is_good(8));
    assert_eq!(token.revoked.as_ref().unwrap().actor, "ada");
}

fn secret(workspace: &str, name: &str, sealed: &[u8]) -> Command {
    Command::SetSecret(SetSecret {
        workspace: workspace.parse().unwrap(),
        name: name.parse().unwrap(),
        key: "k".into(),
        sealed: sealed.into(),
        time_ms: 7,
        actor: "ada".into(),
    })
}

#[test]
fn a_secret_is_replaced_removed_and_lives_through_a_snapshot() {
    let (mut state, one) = (State::default(), "one".parse().unwrap());
    let remove = |name: &str| {
        let (workspace, name) = ("one".parse().unwrap(), name.parse().unwrap());
        Command::RemoveSecret(RemoveSecret { workspace, name, time_ms: 8, actor: "ada".into() })
    };
    assert_eq!(state.apply(1, &remove("A")), Outcome::NoSuchSecret);
    assert_eq!(state.apply(2, &secret("one", "A", b"first")), Outcome::SecretSet);
    assert_eq!(state.apply(3, &secret("two", "A", b"other")), Outcome::SecretSet);
    assert_eq!(state.apply(4, &secret("one", "A", b"second")), Outcome::SecretSet);
    assert_eq!(through_a_snapshot(&state), state);
    let found = state.secrets().get(&one, &"A".parse().unwrap()).unwrap();
    assert_eq!((found.index, found.set.sealed.as_slice()), (4, b"second".as_slice()));
    assert_eq!(state.apply(5, &remove("A")), Outcome::SecretRemoved);
    assert_eq!((state.secrets().of(&one).count(), state.secrets().of(&"two".parse().unwrap()).count()), (0, 1));
    for outcome in [Outcome::SecretSet, Outcome::SecretRemoved, Outcome::NoSuchSecret, Outcome::TooManySecrets] {
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    }
}

#[test]
fn a_workspace_has_so_many_secrets_and_can_still_replace_one() {
    let mut state = State::default();
    for number in 0..WORKSPACE_SECRETS_MAX {
        assert_eq!(state.apply(number as u64 + 1, &secret("one", &format!("S{number}"), b"x")), Outcome::SecretSet);
    }
    assert_eq!(state.apply(1000, &secret("one", "MORE", b"x")), Outcome::TooManySecrets);
    assert_eq!(state.apply(1001, &secret("one", "S7", b"y")), Outcome::SecretSet);
    assert_eq!(state.apply(1002, &secret("two", "MORE", b"x")), Outcome::SecretSet);
}

fn delete(workspace: &str, time_ms: u64) -> Command {
    Command::DeleteWorkspace(DeleteWorkspace {
        workspace: workspace.parse().unwrap(),
        time_ms,
        actor: "ada".into(),
        seen: None,
    })
}

#[test]
fn a_workspace_goes_with_what_is_its_own_and_one_of_its_name_counts_on() {
    let mut state = State::default();
    let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
    let with = |id: &str, workspaces: &[&str]| {
        let workspaces = workspaces.iter().map(|name| name.parse().unwrap()).collect();
        Command::IssueToken(IssueToken { workspaces, ..token(id, id.as_bytes(), 0, 7) })
    };
    let commands = [
        Command::Deploy(deploy("one", 0, "a")),
        Command::Deploy(deploy("two", 0, "a")),
        Command::Deploy(deploy("one", 1, "b")),
        secret("one", "A", b"x"),
        secret("two", "A", b"x"),
        with("all", &[]),
        with("both", &["one", "two"]),
        with("one", &["one"]),
        // Nobody says that a name is there once.
        with("twice", &["one", "one"]),
    ];
    for (command, index) in commands.iter().zip(1..) {
        state.apply(index, command);
    }
    let Outcome::WorkspaceDeleted { deletion, totals } = state.apply(10, &delete("one", 8)) else {
        panic!("it is there")
    };
    assert_eq!((deletion.index, deletion.revision), (10, Revision(2)));
    assert_eq!(totals, DeletionTotals { deployments: 2, secrets: 1, tokens: 2 });
    assert!(state.workspace(&one).is_none() && state.secrets().of(&one).count() == 0);
    assert!(state.deployments_after(0).map(|it| it.index).eq([2]), "the others' history stays");
    assert_eq!(state.secrets().of(&two).count(), 1);
    let good: Vec<_> = state
        .tokens()
        .filter(|it| it.is_good(9))
        .map(|it| (it.issued.id.as_str(), it.issued.workspaces.len()))
        .collect();
    assert_eq!(good, [("all", 0), ("both", 1)], "no list became empty, which would be everywhere");
    assert_eq!(through_a_snapshot(&state), state);
    let again = |seen| {
        let workspace = "one".parse().unwrap();
        Command::DeleteWorkspace(DeleteWorkspace {
            workspace,
            time_ms: 9,
            actor: "ada".into(),
            seen: Some(Revision(seen)),
        })
    };
    let conflict = Outcome::Conflict { live_revision: Revision::NONE, live: None };
    assert_eq!(state.apply(11, &again(2)), conflict, "what somebody saw is not what is there");
    assert_eq!(state.deletions().of(&one).unwrap().index, 10);

    let stale = state.apply(12, &Command::Deploy(deploy("one", 2, "c")));
    assert_eq!(stale, Outcome::Conflict { live_revision: Revision::NONE, live: None }, "who saw the old one is told");
    let Outcome::Deployed(anew) = state.apply(13, &Command::Deploy(deploy("one", 0, "a"))) else {
        panic!("it is free")
    };
    assert_eq!((anew.revision, anew.parent), (Revision(3), Revision::NONE));
    let Outcome::Deployed(next) = state.apply(14, &Command::Deploy(deploy("one", 3, "d"))) else {
        panic!("it goes on")
    };
    assert_eq!(next.revision, Revision(4));
    assert!(matches!(state.apply(15, &again(3)), Outcome::Conflict { live_revision: Revision(4), live: Some(_) }));
    assert_eq!(through_a_snapshot(&state), state);
    check(&state);
}

#[test]
fn so_many_deletions_are_remembered_and_the_oldest_go_first() {
    let mut state = State::default();
    for number in 0..=DELETIONS_MAX as u64 {
        let name = format!("w{number}");
        state.apply(2 * number + 1, &secret(&name, "A", b"x"));
        state.apply(2 * number + 2, &delete(&name, 8));
    }
    let deletions = state.deletions();
    assert_eq!(deletions.all().len(), DELETIONS_MAX);
    assert!(deletions.of(&"w0".parse().unwrap()).is_none() && deletions.of(&"w1".parse().unwrap()).is_some());
    assert_eq!(through_a_snapshot(&state), state);
}
