//! The deploy log's commands about the cluster's own nodes: who may join, who belongs to it, and who must not come back.
//!
//! These are facts, not votes: which nodes vote is each group's own membership, which a reconciler brings in line with
//! them.

use std::fmt;
use std::num::NonZeroU32;

use crate::{Digest, Format, NodeId};

/// A change of what is known of the cluster's nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a token known by which nodes can join.
    IssueJoinToken(IssueJoinToken),
    /// Let a node in.
    AdmitNode(AdmitNode),
    /// Note what a node says of itself, at each of its starts. The first node of a cluster comes in this way.
    AnnounceNode(AnnounceNode),
    /// Begin to take a node out: no group may count it any more before it goes.
    RetireNode(RetireNode),
    /// Take a node out for good.
    RemoveNode(RemoveNode),
    /// Begin the cluster again with one node. Never proposed: a restore or a recovery writes it into the log.
    BeginAgain(BeginAgain),
    /// Say how many shards the cluster has. Only the first command of a log can: with another number a workspace would
    /// belong to a group that knows nothing of it.
    FixShards(FixShards),
    /// Give one of the keys that all nodes hold a successor.
    RotateKey(RotateKey),
    /// Let only the successor be good.
    FinishRotation(FinishRotation),
    /// Let nodes write in a newer format.
    RaiseFormat(RaiseFormat),
}

/// A key that all nodes of the cluster hold, and that can be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// The authority that certifies the nodes.
    Authority,
    /// The key that gossip is sealed with.
    Gossip,
    /// The key that signs tokens, and with it the admin token.
    Signing,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::Authority => "ca",
            KeyKind::Gossip => "gossip-key",
            KeyKind::Signing => "signing-key",
        })
    }
}

/// The most bytes of a sealed key.
pub const SEALED_KEY_BYTES_MAX: usize = 16 << 10;
/// How many rotated keys a node can say that it holds.
pub const HOLDS_MAX: usize = 16;

/// Gives a key a successor; both are good until the rotation is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateKey {
    /// The kind of key that gets a successor.
    pub kind: KeyKind,
    /// Names the successor.
    pub id: u64,
    /// The id of the data key that the successor is sealed with.
    pub sealed_with: String,
    /// The successor, sealed.
    pub sealed: Vec<u8>,
    /// When the rotation is finished without being asked for, in milliseconds since 1970.
    pub until_ms: u64,
    /// When it began, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that asked for it.
    pub actor: String,
}

/// Lets only the successor be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishRotation {
    /// The kind of key whose rotation is over.
    pub kind: KeyKind,
    /// The id of the successor, as it was drawn when the rotation began.
    pub id: u64,
    /// The overlap is over: nodes that do not have the successor are not waited for.
    pub overdue: bool,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that asked for it.
    pub actor: String,
}

/// The newest key of a kind that was ever rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedKey {
    /// How it came.
    pub rotated: RotateKey,
    /// When the one before stopped being good, in milliseconds since 1970; nothing while both are.
    pub finished_ms: Option<u64>,
}

/// Says how many shards the cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixShards {
    /// How many, at most [`SHARDS_MAX`].
    pub count: NonZeroU32,
}

/// The most shards of a cluster.
pub const SHARDS_MAX: u32 = 1_024;

/// Makes a join token known. The log holds the digest of its secret only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueJoinToken {
    /// Names the token; it is part of it.
    pub id: String,
    /// The digest of the token's secret.
    pub hash: Digest,
    /// How many nodes may join by it.
    pub uses: u32,
    /// When it stops being honoured, in milliseconds since 1970.
    pub expires_ms: u64,
    /// When it was issued, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that issued it.
    pub actor: String,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's id, which no other node ever gets.
    pub node: NodeId,
    /// Where its peers reach it, `HOST:PORT`.
    pub peer_address: String,
    /// Where clients reach it, a URL.
    pub client_url: String,
    /// The version of its binary.
    pub version: String,
    /// The ids of the rotated keys that it has.
    pub holds: Vec<u64>,
    /// The newest format that it reads, as far as its operator lets it say so.
    pub format: Format,
}

/// Lets nodes write in a newer format. The format never goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaiseFormat {
    /// The format that is written from now on.
    pub format: Format,
    /// The nodes that have said that they read it. The command counts only if no other node belongs to the cluster.
    pub members: Vec<NodeId>,
    /// When it was proposed, in milliseconds since 1970.
    pub time_ms: u64,
}

/// How many nodes a command can list; far more than a cluster can have.
pub const LISTED_NODES_MAX: usize = 1_024;

/// Lets a node in. The same node can be let in again until it first says where it is, because its first answer may have
/// got lost: with the same credential, while that is good, and with the same join key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmitNode {
    /// What the node says of itself, its id among it.
    pub facts: NodeFacts,
    /// What entitles it.
    pub credential: Credential,
    /// The digest of a key that the node drew before it first asked and shows each time: nobody else can ask again in its
    /// name. Nothing in entries of builds that knew no such key.
    pub join_key: Option<Digest>,
    /// When it asked, in milliseconds since 1970.
    pub time_ms: u64,
}

/// What entitles a node to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A join token.
    Token {
        /// The token's id, under which the log knows it.
        id: String,
        /// The digest of the secret that the node showed.
        hash: Digest,
    },
    /// The secret that all nodes of the cluster were started with, which the proposer has checked.
    Secret,
}

/// Notes what a node of the cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceNode {
    /// What it says.
    pub facts: NodeFacts,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Begins to take a node out. From now on it is to vote in no group and to lead none, and no other node can be taken out
/// before it is gone or the time is up; then it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetireNode {
    /// The node that is to go.
    pub node: NodeId,
    /// Until when, in milliseconds since 1970. The same command again moves it on.
    pub until_ms: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that asked for it.
    pub actor: String,
}

/// Takes a node out: its id is never let in again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveNode {
    /// The node that goes, and never comes back under this id.
    pub node: NodeId,
    /// No group counts the node any more, as the proposer has seen: it goes only if it still retires. Without this, in
    /// entries of earlier builds, it goes at once.
    pub retired: bool,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that asked for it.
    pub actor: String,
}

/// Begins the cluster again with one node: all others are out, and no join token is good any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginAgain {
    /// The node that begins again, under a new id.
    pub node: NodeId,
    /// The cluster's id before.
    pub before: String,
    /// The cluster's id from now on.
    pub now: String,
    /// Where the log came from.
    pub from: Origin,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who did it.
    pub actor: String,
}

/// Where the log of a cluster that began again came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a backup, on an empty data directory.
    Backup,
    /// The disk of one node, after a majority was lost.
    OneNode,
}

/// A join token that the log knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// How it was issued.
    pub issued: IssueJoinToken,
    /// The nodes that joined by it.
    pub used_by: Vec<NodeId>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it last said of itself.
    pub facts: NodeFacts,
    /// When it came, in milliseconds since 1970.
    pub joined_ms: u64,
    /// The digest of the key with which it asked to be let in; nothing once it has said where it is, since when nobody can
    /// ask again in its name.
    pub join_key: Option<Digest>,
}

/// The node that is being taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The node that is to go.
    pub node: NodeId,
    /// Until when, in milliseconds since 1970; after that it stays.
    pub until_ms: u64,
    /// The subject of the token that asked for it.
    pub actor: String,
}

/// What became of a command about nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The token is known.
    JoinTokenIssued,
    /// Another token has this id.
    JoinTokenIdTaken,
    /// The log holds as many join tokens as it may.
    TooManyJoinTokens,
    /// The node belongs to the cluster.
    NodeAdmitted,
    /// The node was not let in.
    JoinRefused(JoinRefusal),
    /// What the node says is noted.
    NodeAnnounced,
    /// The node is being taken out.
    NodeRetires,
    /// Another node is being taken out, and has to be gone first.
    AnotherRetires(NodeId),
    /// The node is not being taken out any more: its time is up, or another one's is.
    NotRetiring,
    /// The node is out.
    NodeRemoved,
    /// No such node belongs to the cluster.
    NoSuchNode,
    /// It is the only node, and stays.
    LastNode,
    /// The cluster has begun again.
    BegunAgain,
    /// The cluster has so many shards, now or since it began.
    ShardsAre(NonZeroU32),
    /// The successor is known.
    RotationStarted,
    /// The key has a successor already, and the rotation is not finished.
    RotationUnderWay,
    /// Only the successor is good.
    RotationFinished,
    /// There are nodes that do not have the successor.
    RotationWaits,
    /// No such rotation is under way.
    NoRotation,
    /// The format in which nodes write from now on, raised or not.
    FormatIs(Format),
}

/// Why a node was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The token is not known here, or its secret is another.
    NoSuchToken,
    /// The token has expired.
    Expired,
    /// As many nodes as may have joined by the token.
    Spent,
    /// The node was removed from the cluster.
    Removed,
    /// The cluster has as many nodes as it may.
    TooManyNodes,
    /// A node with this id is there already, and this is not it.
    NodeIdTaken,
    /// The node does not read the format in which the cluster's nodes write.
    Format,
}

impl fmt::Display for JoinRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinRefusal::NoSuchToken => "the cluster does not know this join token: it was used up, has expired, or was made by another cluster",
            JoinRefusal::Expired => "the join token has expired",
            JoinRefusal::Spent => "the join token was used as often as it may be",
            JoinRefusal::Removed => "this node was removed from the cluster; a node that was removed comes back as a new one, with an empty data directory",
            JoinRefusal::TooManyNodes => "the cluster has as many nodes as it may",
            JoinRefusal::NodeIdTaken => "a node with this id belongs to the cluster already",
            JoinRefusal::Format => "the cluster writes in a newer format than this node reads; install the version of caxton that its other nodes run, and leave `cluster.format_max` as it is",
        })
    }
}
