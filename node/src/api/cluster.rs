//! The cluster's nodes and groups, as the API tells of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/v1/cluster`: the nodes, and the groups of the log, as the answering node sees them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// The cluster's id.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// Where the answering node takes peers; nothing when it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// The format in which its nodes write what others read. It is raised once all of them say that they read a newer one,
    /// and never goes back.
    #[serde(default)]
    pub format: u32,
    /// The nodes, in the order of their ids.
    pub members: Vec<ClusterMember>,
    /// The groups, in the order of their numbers.
    pub groups: Vec<ClusterGroup>,
    /// The keys that were ever rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<ClusterKey>,
}

/// A key that all nodes hold, and that was rotated.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterKey {
    /// Which: `ca`, `gossip-key` or `signing-key`.
    pub key: String,
    /// Names the newest one.
    pub id: String,
    /// When it was made, RFC 3339.
    pub rotated: String,
    /// Until when the one before is good as well, unless the rotation is finished earlier, RFC 3339.
    pub until: String,
    /// When the one before stopped being good, RFC 3339; nothing while both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// The nodes that do not have it yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// `POST /api/v1/cluster/keys/rotate` and `POST /api/v1/cluster/keys/finish`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// Which keys: `ca`, `gossip-key`, `signing-key`; unless told all, or all whose rotation is under way.
    #[serde(default)]
    pub keys: Vec<String>,
    /// For how many seconds the keys before are good as well; a day unless told, 90 days at most.
    #[serde(default)]
    pub overlap_s: Option<u64>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterMember {
    /// The id of the node.
    pub node: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_url: String,
    /// The version that it runs.
    pub version: String,
    /// The newest format that it says it reads.
    #[serde(default)]
    pub format: u32,
    /// When it came, RFC 3339.
    pub joined: String,
    /// `alive`, or `suspect` when gossip has not heard of it; `unknown` where there is no gossip.
    pub state: String,
    /// When the answering node last heard of it, RFC 3339; nothing for the answering node itself, and for one that it has
    /// not heard of since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<String>,
    /// How busy it says that it is, 0.0 to 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
}

/// A group of the log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterGroup {
    /// Its number: 0 is the deploy log, the others are shards.
    pub group: u32,
    /// Who leads it, as far as the answering node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The term that the group is in.
    pub term: u64,
    /// The nodes that vote.
    pub voters: Vec<String>,
    /// Who follows without a vote.
    pub learners: Vec<String>,
    /// The index of the last command that the answering node has applied.
    pub applied: u64,
    /// How far each other node is behind; only the group's leader knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lag: Vec<ClusterLag>,
}

/// How far a node is behind its leader.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterLag {
    /// The node that lacks them.
    pub node: String,
    /// How many entries it lacks.
    pub entries: u64,
    /// How long ago it last answered, in milliseconds; nothing when it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u64>,
}

/// The body of `POST /api/v1/cluster/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// Seconds until it expires; one hour unless told, 30 days at most.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// How many nodes may join by it; one unless told, 64 at most.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// The answer of `POST /api/v1/cluster/tokens`: the only time that the token itself is shown.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenIssued {
    /// The token itself.
    pub token: String,
    /// The id of the token.
    pub id: String,
    /// When it expires, RFC 3339.
    pub expires: String,
    /// How many nodes may join by it.
    pub uses: u32,
    /// Where to join: the addresses of the cluster's nodes.
    pub join: Vec<String>,
}

/// `POST /api/v1/cluster/transfer`: another node is to lead.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The group; all that the present leader of the deploy log leads unless told.
    #[serde(default)]
    pub group: Option<u32>,
    /// The node, as its id; the voter that is furthest unless told.
    #[serde(default)]
    pub to: Option<String>,
}

/// The answer of `POST /api/v1/cluster/transfer` and `DELETE /api/v1/cluster/nodes/{node}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterChanged {
    /// What happened, in a sentence.
    pub done: String,
}

/// The body of `POST /api/v1/cluster/backup`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// The recovery key that the cluster's keys are sealed with in the archive: 64 hexadecimal digits.
    pub key: String,
}

impl std::fmt::Debug for BackupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupRequest { .. }")
    }
}
