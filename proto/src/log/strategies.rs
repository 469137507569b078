//! Arbitrary commands of the deploy log that keep their limits, for property tests: any text, any number, anything absent
//! that may be. The same few names, ids and keys come again and again, so that commands meet one another.

use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::option::of as maybe;
use proptest::prelude::*;

use super::cluster::{
    self, AdmitNode, AnnounceNode, BeginAgain, Credential, FinishRotation, FixShards, IssueJoinToken, KeyKind,
    NodeFacts, Origin, RaiseFormat, RemoveNode, RetireNode, RotateKey, SHARDS_MAX,
};
use super::{
    Author, Command, DeleteWorkspace, Deploy, Git, IssueToken, Kind, RemoveSecret, RevokeToken, Role, SetSecret,
};
use crate::manifest::secret::SecretName;
use crate::plan::{Change, Item, ItemChange};
use crate::{Digest, Format, NodeId, Revision, WorkspaceId};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "\\PC{0,24}", 1 => "[\u{0}-\u{ff}]{0,8}", 1 => Just("x".repeat(super::TEXT_BYTES_MAX))]
}

/// One of a few texts, or any.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]", 1 => "\\PC{1,24}"]
}

fn workspace() -> impl Strategy<Value = WorkspaceId> {
    prop_oneof![4 => "[ab]", 1 => "[a-z0-9][a-z0-9_-]{0,62}"].prop_filter_map("a name", |name| name.parse().ok())
}

fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![4 => (0..3_u8).prop_map(|byte| [byte; 32]), 1 => any::<[u8; 32]>()].prop_map(Digest::from_bytes)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..4_u64, 1 => any::<u64>()]
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![4 => 1..4_u64, 1 => 1..=u64::MAX].prop_map(NodeId)
}

fn revision() -> impl Strategy<Value = Revision> {
    number().prop_map(Revision)
}

fn deploy() -> impl Strategy<Value = Deploy> {
    let kind = prop_oneof![Just(Kind::Deploy), revision().prop_map(|to| Kind::Rollback { to })];
    let author = (text(), text()).prop_map(|(name, email)| Author { name, email });
    let git = (text(), text(), any::<bool>()).prop_map(|(commit, branch, dirty)| Git { commit, branch, dirty });
    let item = prop_oneof![text().prop_map(Item::Agent), text().prop_map(Item::Tool), text().prop_map(Item::File)];
    let change = prop_oneof![Just(Change::New), Just(Change::Changed), Just(Change::Removed)];
    let change = (item, change).prop_map(|(item, change)| ItemChange { item, change });
    let key = prop_oneof![Just(String::new()), id()];
    let what = (workspace(), revision(), digest(), kind);
    let who = (author, text(), number(), maybe(git), text());
    let size = (vec(change, 0..4), any::<u32>(), any::<u64>(), any::<u64>(), key, 0..5_u32);
    (what, who, size).prop_map(|(what, who, size)| {
        let ((workspace, parent, root, kind), (author, actor, time_ms, git, message)) = (what, who);
        let (changes, changes_total, files, bytes, idempotency_key, revisions_kept) = size;
        Deploy {
            workspace,
            parent,
            root,
            kind,
            author,
            actor,
            time_ms,
            git,
            message,
            changes,
            changes_total,
            files,
            bytes,
            idempotency_key,
            revisions_kept,
        }
    })
}

fn issue_token() -> impl Strategy<Value = IssueToken> {
    let role = proptest::sample::select(&Role::ALL[..]);
    (id(), digest(), id(), role, vec(workspace(), 0..3), number(), number(), text()).prop_map(
        |(id, hash, subject, role, workspaces, expires_ms, time_ms, actor)| IssueToken {
            id,
            hash,
            subject,
            role,
            workspaces,
            expires_ms,
            time_ms,
            actor,
        },
    )
}

fn secret_name() -> impl Strategy<Value = SecretName> {
    "[A-Z][A-Z0-9_]{0,3}".prop_filter_map("a name", |name| name.parse().ok())
}

fn facts() -> impl Strategy<Value = NodeFacts> {
    let format = (0..4_u32).prop_map(Format::of);
    (node(), text(), text(), text(), vec(number(), 0..4), format).prop_map(
        |(node, peer_address, client_url, version, holds, format)| NodeFacts {
            node,
            peer_address,
            client_url,
            version,
            holds,
            format,
        },
    )
}

fn key_kind() -> impl Strategy<Value = KeyKind> {
    prop_oneof![Just(KeyKind::Authority), Just(KeyKind::Gossip), Just(KeyKind::Signing)]
}

fn cluster_command() -> impl Strategy<Value = cluster::Command> {
    let credential =
        prop_oneof![Just(Credential::Secret), (id(), digest()).prop_map(|(id, hash)| Credential::Token { id, hash })];
    let origin = prop_oneof![Just(Origin::Backup), Just(Origin::OneNode)];
    let shards = (1..=SHARDS_MAX).prop_filter_map("a number", NonZeroU32::new);
    prop_oneof![
        1 => (id(), digest(), 0..3_u32, number(), number(), text()).prop_map(
            |(id, hash, uses, expires_ms, time_ms, actor)| cluster::Command::IssueJoinToken(IssueJoinToken {
                id,
                hash,
                uses,
                expires_ms,
                time_ms,
                actor
            })
        ),
        1 => (facts(), credential, maybe(digest()), number()).prop_map(|(facts, credential, join_key, time_ms)| {
            cluster::Command::AdmitNode(AdmitNode { facts, credential, join_key, time_ms })
        }),
        3 => (facts(), number())
            .prop_map(|(facts, time_ms)| cluster::Command::AnnounceNode(AnnounceNode { facts, time_ms })),
        1 => (node(), number(), number(), text()).prop_map(|(node, until_ms, time_ms, actor)| {
            cluster::Command::RetireNode(RetireNode { node, until_ms, time_ms, actor })
        }),
        1 => (node(), any::<bool>(), number(), text()).prop_map(|(node, retired, time_ms, actor)| {
            cluster::Command::RemoveNode(RemoveNode { node, retired, time_ms, actor })
        }),
        1 => (node(), text(), text(), origin, number(), text()).prop_map(|(node, before, now, from, time_ms, actor)| {
            cluster::Command::BeginAgain(BeginAgain { node, before, now, from, time_ms, actor })
        }),
        1 => shards.prop_map(|count| cluster::Command::FixShards(FixShards { count })),
        1 => (key_kind(), number(), id(), vec(any::<u8>(), 0..24), number(), number(), text()).prop_map(
            |(kind, id, sealed_with, sealed, until_ms, time_ms, actor)| cluster::Command::RotateKey(RotateKey {
                kind,
                id,
                sealed_with,
                sealed,
                until_ms,
                time_ms,
                actor
            })
        ),
        1 => (key_kind(), number(), any::<bool>(), number(), text()).prop_map(|(kind, id, overdue, time_ms, actor)| {
            cluster::Command::FinishRotation(FinishRotation { kind, id, overdue, time_ms, actor })
        }),
        1 => (vec(node(), 0..4), number()).prop_map(|(members, time_ms)| {
            cluster::Command::RaiseFormat(RaiseFormat { format: Format::NEWEST, members, time_ms })
        }),
    ]
}

/// Any command that may be proposed.
pub fn command() -> impl Strategy<Value = Command> {
    let sealed = vec(any::<u8>(), 1..24);
    let commands = prop_oneof![
        4 => deploy().prop_map(Command::Deploy),
        2 => issue_token().prop_map(Command::IssueToken),
        1 => (id(), number(), text())
            .prop_map(|(id, time_ms, actor)| Command::RevokeToken(RevokeToken { id, time_ms, actor })),
        1 => (workspace(), secret_name(), id(), sealed, number(), text()).prop_map(
            |(workspace, name, key, sealed, time_ms, actor)| Command::SetSecret(SetSecret {
                workspace,
                name,
                key,
                sealed,
                time_ms,
                actor
            })
        ),
        1 => (workspace(), secret_name(), number(), text()).prop_map(|(workspace, name, time_ms, actor)| {
            Command::RemoveSecret(RemoveSecret { workspace, name, time_ms, actor })
        }),
        1 => (workspace(), number(), text(), maybe(revision())).prop_map(|(workspace, time_ms, actor, seen)| {
            Command::DeleteWorkspace(DeleteWorkspace { workspace, time_ms, actor, seen })
        }),
        4 => cluster_command().prop_map(Command::Cluster),
    ];
    commands.prop_filter("within the limits", |command| command.check().is_ok())
}
