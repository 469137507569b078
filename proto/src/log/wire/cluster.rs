//! Between the types about the cluster's nodes and the messages of the .proto file.

use std::num::NonZeroU32;

use super::convert::digest;
use super::pb::{self, cluster_command as command, cluster_outcome as outcome};
use super::{DecodeError, field};
use crate::log::cluster::{
    AdmitNode, AnnounceNode, BeginAgain, Command, Credential, FinishRotation, FixShards, IssueJoinToken, JoinRefusal,
    JoinToken, KeyKind, Member, NodeFacts, Origin, Outcome, RaiseFormat, RemoveNode, RetireNode, Retirement, RotateKey,
    RotatedKey, SHARDS_MAX,
};
use crate::{Digest, Format, NodeId};

impl From<&Command> for pb::ClusterCommand {
    fn from(it: &Command) -> Self {
        let body = match it {
            Command::IssueJoinToken(issue) => command::Body::IssueJoinToken(issue.into()),
            Command::AdmitNode(AdmitNode { facts, credential, join_key, time_ms }) => {
                let (token, hash) = match credential {
                    Credential::Token { id, hash } => (Some(id.clone()), hash.as_bytes().to_vec()),
                    Credential::Secret => (None, Vec::new()),
                };
                let (facts, join_key) = (Some(facts.into()), key_bytes(join_key.as_ref()));
                command::Body::AdmitNode(pb::AdmitNode { facts, token, hash, time_ms: *time_ms, join_key })
            }
            Command::AnnounceNode(AnnounceNode { facts, time_ms }) => {
                command::Body::AnnounceNode(pb::AnnounceNode { facts: Some(facts.into()), time_ms: *time_ms })
            }
            Command::RetireNode(RetireNode { node, until_ms, time_ms, actor }) => {
                let (node, actor) = (node.0, actor.clone());
                command::Body::RetireNode(pb::RetireNode { node, until_ms: *until_ms, time_ms: *time_ms, actor })
            }
            Command::RemoveNode(RemoveNode { node, retired, time_ms, actor }) => {
                let (node, actor) = (node.0, actor.clone());
                command::Body::RemoveNode(pb::RemoveNode { node, retired: *retired, time_ms: *time_ms, actor })
            }
            Command::BeginAgain(BeginAgain { node, before, now, from, time_ms, actor }) => {
                command::Body::BeginAgain(pb::BeginAgain {
                    node: node.0,
                    before: before.clone(),
                    now: now.clone(),
                    restored: matches!(from, Origin::Backup),
                    time_ms: *time_ms,
                    actor: actor.clone(),
                })
            }
            Command::FixShards(FixShards { count }) => command::Body::FixShards(pb::Shards { count: count.get() }),
            Command::RotateKey(rotate) => command::Body::RotateKey(rotate.into()),
            Command::FinishRotation(FinishRotation { kind, id, overdue, time_ms, actor }) => {
                command::Body::FinishRotation(pb::FinishRotation {
                    kind: pb::KeyKind::from(*kind).into(),
                    id: *id,
                    overdue: *overdue,
                    time_ms: *time_ms,
                    actor: actor.clone(),
                })
            }
            Command::RaiseFormat(RaiseFormat { format, members, time_ms }) => {
                command::Body::RaiseFormat(pb::RaiseFormat {
                    format: format.number(),
                    members: members.iter().map(|node| node.0).collect(),
                    time_ms: *time_ms,
                })
            }
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::ClusterCommand> for Command {
    type Error = DecodeError;
    fn try_from(it: pb::ClusterCommand) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("cluster"))? {
            command::Body::IssueJoinToken(issue) => Command::IssueJoinToken(issue.try_into()?),
            command::Body::AdmitNode(pb::AdmitNode { facts, token, hash, time_ms, join_key }) => {
                let credential = match token {
                    Some(id) => Credential::Token { id, hash: digest(&hash, "hash")? },
                    None => Credential::Secret,
                };
                let join_key = read_key(join_key)?;
                Command::AdmitNode(AdmitNode { facts: read_facts(facts)?, credential, join_key, time_ms })
            }
            command::Body::AnnounceNode(pb::AnnounceNode { facts, time_ms }) => {
                Command::AnnounceNode(AnnounceNode { facts: read_facts(facts)?, time_ms })
            }
            command::Body::RetireNode(pb::RetireNode { node, until_ms, time_ms, actor }) => {
                Command::RetireNode(RetireNode { node: NodeId(node), until_ms, time_ms, actor })
            }
            command::Body::RemoveNode(pb::RemoveNode { node, retired, time_ms, actor }) => {
                Command::RemoveNode(RemoveNode { node: NodeId(node), retired, time_ms, actor })
            }
            command::Body::BeginAgain(pb::BeginAgain { node, before, now, restored, time_ms, actor }) => {
                let from = if restored { Origin::Backup } else { Origin::OneNode };
                Command::BeginAgain(BeginAgain { node: NodeId(node), before, now, from, time_ms, actor })
            }
            command::Body::FixShards(shards) => Command::FixShards(FixShards { count: count(shards)? }),
            command::Body::RotateKey(rotate) => Command::RotateKey(rotate.try_into()?),
            command::Body::FinishRotation(it) => {
                let kind = kind(it.kind())?;
                let pb::FinishRotation { kind: _, id, overdue, time_ms, actor } = it;
                Command::FinishRotation(FinishRotation { kind, id, overdue, time_ms, actor })
            }
            command::Body::RaiseFormat(pb::RaiseFormat { format, members, time_ms }) => {
                let members = members.into_iter().map(NodeId).collect();
                Command::RaiseFormat(RaiseFormat { format: raised(format)?, members, time_ms })
            }
        })
    }
}

impl From<&IssueJoinToken> for pb::IssueJoinToken {
    fn from(it: &IssueJoinToken) -> Self {
        Self {
            id: it.id.clone(),
            hash: it.hash.as_bytes().to_vec(),
            uses: it.uses,
            expires_ms: it.expires_ms,
            time_ms: it.time_ms,
            actor: it.actor.clone(),
        }
    }
}

impl TryFrom<pb::IssueJoinToken> for IssueJoinToken {
    type Error = DecodeError;
    fn try_from(it: pb::IssueJoinToken) -> Result<Self, DecodeError> {
        let pb::IssueJoinToken { id, hash, uses, expires_ms, time_ms, actor } = it;
        Ok(Self { id, hash: digest(&hash, "hash")?, uses, expires_ms, time_ms, actor })
    }
}

impl From<KeyKind> for pb::KeyKind {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Authority => Self::Authority,
            KeyKind::Gossip => Self::Gossip,
            KeyKind::Signing => Self::Signing,
        }
    }
}

fn kind(kind: pb::KeyKind) -> Result<KeyKind, DecodeError> {
    Ok(match kind {
        pb::KeyKind::Unspecified => return Err(field("kind")),
        pb::KeyKind::Authority => KeyKind::Authority,
        pb::KeyKind::Gossip => KeyKind::Gossip,
        pb::KeyKind::Signing => KeyKind::Signing,
    })
}

impl From<&RotateKey> for pb::RotateKey {
    fn from(it: &RotateKey) -> Self {
        Self {
            kind: pb::KeyKind::from(it.kind).into(),
            id: it.id,
            sealed_with: it.sealed_with.clone(),
            sealed: it.sealed.clone(),
            until_ms: it.until_ms,
            time_ms: it.time_ms,
            actor: it.actor.clone(),
        }
    }
}

impl TryFrom<pb::RotateKey> for RotateKey {
    type Error = DecodeError;
    fn try_from(it: pb::RotateKey) -> Result<Self, DecodeError> {
        let kind = kind(it.kind())?;
        let pb::RotateKey { kind: _, id, sealed_with, sealed, until_ms, time_ms, actor } = it;
        Ok(Self { kind, id, sealed_with, sealed, until_ms, time_ms, actor })
    }
}

impl From<&RotatedKey> for pb::RotatedKey {
    fn from(it: &RotatedKey) -> Self {
        Self { rotated: Some((&it.rotated).into()), finished_ms: it.finished_ms }
    }
}

impl TryFrom<pb::RotatedKey> for RotatedKey {
    type Error = DecodeError;
    fn try_from(it: pb::RotatedKey) -> Result<Self, DecodeError> {
        let rotated = it.rotated.ok_or(field("rotated"))?.try_into()?;
        Ok(Self { rotated, finished_ms: it.finished_ms })
    }
}

impl From<&NodeFacts> for pb::NodeFacts {
    fn from(it: &NodeFacts) -> Self {
        Self {
            node: it.node.0,
            peer_address: it.peer_address.clone(),
            client_url: it.client_url.clone(),
            version: it.version.clone(),
            holds: it.holds.clone(),
            format: it.format.number(),
        }
    }
}

/// A format that a cluster can have been raised to.
pub(super) fn raised(format: u32) -> Result<Format, DecodeError> {
    match Format::of(format) {
        Format::JSON => Err(field("format")),
        format if format.is_known() => Ok(format),
        _ => Err(DecodeError::Version { found: format }),
    }
}

fn read_facts(facts: Option<pb::NodeFacts>) -> Result<NodeFacts, DecodeError> {
    let pb::NodeFacts { node, peer_address, client_url, version, holds, format } = facts.ok_or(field("facts"))?;
    if node == 0 {
        return Err(field("node"));
    }
    Ok(NodeFacts { node: NodeId(node), peer_address, client_url, version, holds, format: Format::of(format) })
}

impl From<&JoinToken> for pb::JoinToken {
    fn from(it: &JoinToken) -> Self {
        Self { issued: Some((&it.issued).into()), used_by: it.used_by.iter().map(|node| node.0).collect() }
    }
}

impl TryFrom<pb::JoinToken> for JoinToken {
    type Error = DecodeError;
    fn try_from(it: pb::JoinToken) -> Result<Self, DecodeError> {
        let issued = it.issued.ok_or(field("issued"))?.try_into()?;
        Ok(Self { issued, used_by: it.used_by.into_iter().map(NodeId).collect() })
    }
}

impl From<&Member> for pb::Member {
    fn from(it: &Member) -> Self {
        let join_key = key_bytes(it.join_key.as_ref());
        Self { facts: Some((&it.facts).into()), joined_ms: it.joined_ms, join_key }
    }
}

impl TryFrom<pb::Member> for Member {
    type Error = DecodeError;
    fn try_from(it: pb::Member) -> Result<Self, DecodeError> {
        Ok(Self { facts: read_facts(it.facts)?, joined_ms: it.joined_ms, join_key: read_key(it.join_key)? })
    }
}

impl From<&Retirement> for pb::Retirement {
    fn from(it: &Retirement) -> Self {
        Self { node: it.node.0, until_ms: it.until_ms, actor: it.actor.clone() }
    }
}

impl From<pb::Retirement> for Retirement {
    fn from(it: pb::Retirement) -> Self {
        Self { node: NodeId(it.node), until_ms: it.until_ms, actor: it.actor }
    }
}

fn key_bytes(key: Option<&Digest>) -> Option<Vec<u8>> {
    key.map(|key| key.as_bytes().to_vec())
}

fn read_key(key: Option<Vec<u8>>) -> Result<Option<Digest>, DecodeError> {
    key.map(|key| digest(&key, "join_key")).transpose()
}

impl From<Outcome> for pb::ClusterOutcome {
    fn from(it: Outcome) -> Self {
        let empty = pb::Empty {};
        Self {
            body: Some(match it {
                Outcome::JoinTokenIssued => outcome::Body::JoinTokenIssued(empty),
                Outcome::JoinTokenIdTaken => outcome::Body::JoinTokenIdTaken(empty),
                Outcome::TooManyJoinTokens => outcome::Body::TooManyJoinTokens(empty),
                Outcome::NodeAdmitted => outcome::Body::NodeAdmitted(empty),
                Outcome::JoinRefused(why) => {
                    outcome::Body::JoinRefused(pb::JoinRefused { why: pb::JoinRefusal::from(why).into() })
                }
                Outcome::NodeAnnounced => outcome::Body::NodeAnnounced(empty),
                Outcome::NodeRetires => outcome::Body::NodeRetires(empty),
                Outcome::AnotherRetires(node) => outcome::Body::AnotherRetires(pb::AnotherNode { node: node.0 }),
                Outcome::NotRetiring => outcome::Body::NotRetiring(empty),
                Outcome::NodeRemoved => outcome::Body::NodeRemoved(empty),
                Outcome::NoSuchNode => outcome::Body::NoSuchNode(empty),
                Outcome::LastNode => outcome::Body::LastNode(empty),
                Outcome::BegunAgain => outcome::Body::BegunAgain(empty),
                Outcome::ShardsAre(count) => outcome::Body::ShardsAre(pb::Shards { count: count.get() }),
                Outcome::RotationStarted => outcome::Body::RotationStarted(empty),
                Outcome::RotationUnderWay => outcome::Body::RotationUnderWay(empty),
                Outcome::RotationFinished => outcome::Body::RotationFinished(empty),
                Outcome::RotationWaits => outcome::Body::RotationWaits(empty),
                Outcome::NoRotation => outcome::Body::NoRotation(empty),
                Outcome::FormatIs(format) => outcome::Body::FormatIs(pb::FormatInForce { format: format.number() }),
            }),
        }
    }
}

impl TryFrom<pb::ClusterOutcome> for Outcome {
    type Error = DecodeError;
    fn try_from(it: pb::ClusterOutcome) -> Result<Self, DecodeError> {
        use outcome::Body;
        Ok(match it.body.ok_or(field("cluster"))? {
            Body::JoinTokenIssued(pb::Empty {}) => Self::JoinTokenIssued,
            Body::JoinTokenIdTaken(pb::Empty {}) => Self::JoinTokenIdTaken,
            Body::TooManyJoinTokens(pb::Empty {}) => Self::TooManyJoinTokens,
            Body::NodeAdmitted(pb::Empty {}) => Self::NodeAdmitted,
            Body::JoinRefused(refused) => Self::JoinRefused(refusal(refused.why())?),
            Body::NodeAnnounced(pb::Empty {}) => Self::NodeAnnounced,
            Body::NodeRetires(pb::Empty {}) => Self::NodeRetires,
            Body::AnotherRetires(another) => Self::AnotherRetires(NodeId(another.node)),
            Body::NotRetiring(pb::Empty {}) => Self::NotRetiring,
            Body::NodeRemoved(pb::Empty {}) => Self::NodeRemoved,
            Body::NoSuchNode(pb::Empty {}) => Self::NoSuchNode,
            Body::LastNode(pb::Empty {}) => Self::LastNode,
            Body::BegunAgain(pb::Empty {}) => Self::BegunAgain,
            Body::ShardsAre(shards) => Self::ShardsAre(count(shards)?),
            Body::RotationStarted(pb::Empty {}) => Self::RotationStarted,
            Body::RotationUnderWay(pb::Empty {}) => Self::RotationUnderWay,
            Body::RotationFinished(pb::Empty {}) => Self::RotationFinished,
            Body::RotationWaits(pb::Empty {}) => Self::RotationWaits,
            Body::NoRotation(pb::Empty {}) => Self::NoRotation,
            Body::FormatIs(pb::FormatInForce { format }) => Self::FormatIs(Format::of(format)),
        })
    }
}

/// A number of shards that a cluster can have.
pub(super) fn count(shards: pb::Shards) -> Result<NonZeroU32, DecodeError> {
    NonZeroU32::new(shards.count).filter(|count| count.get() <= SHARDS_MAX).ok_or(field("count"))
}

impl From<JoinRefusal> for pb::JoinRefusal {
    fn from(why: JoinRefusal) -> Self {
        match why {
            JoinRefusal::NoSuchToken => Self::NoSuchToken,
            JoinRefusal::Expired => Self::Expired,
            JoinRefusal::Spent => Self::Spent,
            JoinRefusal::Removed => Self::Removed,
            JoinRefusal::TooManyNodes => Self::TooManyNodes,
            JoinRefusal::NodeIdTaken => Self::NodeIdTaken,
            JoinRefusal::Format => Self::Format,
        }
    }
}

fn refusal(why: pb::JoinRefusal) -> Result<JoinRefusal, DecodeError> {
    Ok(match why {
        pb::JoinRefusal::Unspecified => return Err(field("why")),
        pb::JoinRefusal::NoSuchToken => JoinRefusal::NoSuchToken,
        pb::JoinRefusal::Expired => JoinRefusal::Expired,
        pb::JoinRefusal::Spent => JoinRefusal::Spent,
        pb::JoinRefusal::Removed => JoinRefusal::Removed,
        pb::JoinRefusal::TooManyNodes => JoinRefusal::TooManyNodes,
        pb::JoinRefusal::NodeIdTaken => JoinRefusal::NodeIdTaken,
        pb::JoinRefusal::Format => JoinRefusal::Format,
    })
}
