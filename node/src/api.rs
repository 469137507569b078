//! The HTTP API's request and response bodies, shared by the server and the command line.
//!
//! Every field that a client may leave out has a default, and unknown fields are ignored, so that a client and a
//! server one minor version apart understand each other. Blobs travel in the frames of [`frame`]: `PUT .../artifacts`
//! takes them, `POST .../artifacts/fetch` and `POST .../tree/nodes` answer with them, in the order asked for.

pub mod paths;

pub mod deployment;

pub mod frame;

pub mod tools;

pub mod secrets;

pub mod logs;

pub mod route;

pub use route::{RouteCandidate, RouteChoice, RouteParts, RouteRequest, RouteResponse};

pub mod cluster;

mod schema;

pub mod messages;

pub mod memory;

pub mod mailbox;

pub mod socket;

pub mod topics;

pub mod schedules;

pub mod workspaces;

pub mod usage;

mod durable;

use caxton_proto::plan::ItemChange;
use caxton_proto::tree::{File, TreePath};
use caxton_proto::{Digest, Revision, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/v1/workspaces/{workspace}`: what is live.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceStatus {
    /// The workspace that it is in.
    #[schema(value_type = String)]
    pub workspace: WorkspaceId,
    /// The newest deployment that the log holds; 0 when nothing was ever deployed.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// The deployment that is live.
    pub deployment: Option<Deployment>,
    /// What this node serves, which lags `revision` for the moment it takes to load, or stays behind when it cannot.
    pub serving: Serving,
    /// How many agents it has.
    pub agents: u64,
    /// How many tools it has.
    pub tools: u64,
    /// What is named in its files and not set on the node that answers: secrets, and variables for keys. A sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// What a node serves of a workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Serving {
    /// Nothing is deployed.
    Nothing,
    /// The newest revision.
    Live {
        /// The revision that is served.
        #[schema(value_type = u64)]
        revision: Revision,
    },
    /// An older revision, while the newest one loads.
    Loading {
        /// The one served; 0 for none.
        #[schema(value_type = u64)]
        revision: Revision,
    },
    /// An older revision, because the newest could not be loaded.
    Failed {
        /// The one served; 0 for none.
        #[schema(value_type = u64)]
        revision: Revision,
        /// Why, and what to do.
        error: String,
    },
}

/// One entry of a workspace's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// The workspace whose history it is.
    #[schema(value_type = String)]
    pub workspace: WorkspaceId,
    /// Its place in it.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// The revision it was made on top of.
    #[schema(value_type = u64)]
    pub parent: Revision,
    /// The Merkle root of its files.
    #[schema(value_type = String)]
    pub root: Digest,
    /// For a rollback, the revision whose content was put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub rollback_to: Option<Revision>,
    /// Who wrote it, as git knows them.
    pub author: Author,
    /// Whose token deployed it.
    pub actor: String,
    /// When it was proposed, RFC 3339 in UTC.
    pub time: String,
    /// The state of the git repository that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Git>,
    /// What its author said of it.
    #[serde(default)]
    pub message: String,
    /// The first changes, at most 64.
    #[schema(value_type = Vec<schema::ItemChange>)]
    pub changes: Vec<ItemChange>,
    /// How many changes there were.
    pub changes_total: u32,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Its id in the event stream: the deploy log's index.
    pub event_id: u64,
    /// Its content is still there to go back to.
    pub kept: bool,
}

/// A person, as git names people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Author {
    /// The name that they go by.
    #[serde(default)]
    pub name: String,
    /// The address of their mail.
    #[serde(default)]
    pub email: String,
}

/// The state of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Git {
    /// The commit checked out, 40 or 64 hexadecimal digits.
    pub commit: String,
    /// The branch, empty when detached.
    #[serde(default)]
    pub branch: String,
    /// Whether the work tree differed from the commit.
    #[serde(default)]
    pub dirty: bool,
}

/// `POST .../tree/nodes`, `.../artifacts/missing` and `.../artifacts/fetch`: which blobs.
///
/// `tree/nodes` and `artifacts/fetch` answer with a framed body ([`frame::MEDIA_TYPE`]) that holds exactly these blobs
/// in this order, or with `artifacts_missing` when the workspace does not have one of them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// Their names, at most [`frame::DIGESTS_MAX`].
    #[schema(value_type = Vec<String>)]
    pub digests: Vec<Digest>,
}

/// The answer of `POST .../artifacts/missing`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Missing {
    /// The blobs that have to be sent.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<Digest>,
}

/// The answer of `PUT .../artifacts`, whose body is framed and has at most [`frame::UPLOAD_BYTES_MAX`] bytes.
///
/// All of a body is stored, or nothing: every digest is checked first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoredBlobs {
    /// How many blobs were stored.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// A file put into a workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(from = "SentUpsert")]
pub struct Upsert {
    /// The path that it has in the workspace.
    #[schema(value_type = String)]
    pub path: TreePath,
    /// What the path holds.
    #[serde(flatten)]
    #[schema(value_type = schema::File)]
    pub file: File,
}

/// A file as a client writes it, with nothing beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentUpsert {
    path: TreePath,
    digest: Digest,
    bytes: u64,
    chunks: Option<Digest>,
}

impl From<SentUpsert> for Upsert {
    fn from(SentUpsert { path, digest, bytes, chunks }: SentUpsert) -> Upsert {
        Upsert { path, file: File { digest, bytes, chunks } }
    }
}

/// `POST .../deployments`: make `root` live on top of `parent`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The revision that the client saw live; 0 for the first deployment. Anything else live is a conflict.
    #[schema(value_type = u64)]
    pub parent: Revision,
    /// The Merkle root of the tree that results: the server computes it too, and refuses a difference.
    #[schema(value_type = String)]
    pub root: Digest,
    /// Files that are new or have other content than in `parent`.
    #[serde(default)]
    pub upserts: Vec<Upsert>,
    /// Files of `parent` that are gone.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub removals: Vec<TreePath>,
    /// Who made it.
    #[serde(default)]
    pub author: Author,
    /// Where it comes from.
    #[serde(default)]
    pub git: Option<Git>,
    /// What it is for, at most 4,096 bytes.
    #[serde(default)]
    pub message: String,
    /// A retried request with the same key is applied once. 1 to 128 bytes; the client draws it at random.
    pub idempotency_key: String,
    /// Check everything and propose nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST .../rollback`: put old content back as a new deployment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision whose content becomes live.
    #[schema(value_type = u64)]
    pub to: Revision,
    /// The revision that the client saw live.
    #[schema(value_type = u64)]
    pub parent: Revision,
    /// Who does it.
    #[serde(default)]
    pub author: Author,
    /// Why it is done, in words.
    #[serde(default)]
    pub message: String,
    /// As in [`DeployRequest`].
    pub idempotency_key: String,
}

/// The answer to a deployment that is live, or whose check passed (`dry_run`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployResponse {
    /// The deployment; nothing for a dry run.
    pub deployment: Option<Deployment>,
    /// What it changes.
    #[schema(value_type = Vec<schema::ItemChange>)]
    pub changes: Vec<ItemChange>,
    /// The request repeated one that was already applied.
    #[serde(default)]
    pub repeated: bool,
    /// What this node serves now.
    pub serving: Serving,
    /// Milliseconds that each step took on the server, in order: check, store, spread, propose, load.
    #[schema(value_type = Vec<schema::Step>)]
    pub steps_ms: Vec<(String, f64)>,
}

/// `GET /api/v1/workspaces`: the workspaces that the caller may see, in the order of their names.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Workspaces {
    /// What each of them has live.
    pub workspaces: Vec<WorkspaceStatus>,
}

/// `GET .../deployments?before=REV&limit=N`: the history, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Deployments {
    /// At most `limit` (100 unless told, 1,000 at most).
    pub deployments: Vec<Deployment>,
    /// Pass as `before` to read on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub next: Option<Revision>,
}

/// `GET .../agents`: a page of agents in the order of their names (`?after=NAME&limit=N`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Agents {
    /// The agents of this page.
    pub agents: Vec<AgentSummary>,
    /// Pass as `after` to read on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One agent in a listing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentSummary {
    /// The name by which it is called.
    pub name: String,
    /// How it is shown to people, where that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its version, as its file gives it.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// The names of what it can do.
    pub capabilities: Vec<String>,
    /// The tools that its file names.
    pub tools: Vec<String>,
    /// The path of its file.
    #[schema(value_type = String)]
    pub path: TreePath,
    /// What is known to be odd about its tools, a line each: that one is away, or lacks a function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The answer to `GET .../agents/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentDetail {
    /// As in the listing.
    #[serde(flatten)]
    pub summary: AgentSummary,
    /// The revision that serves it.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// The whole manifest.
    #[schema(value_type = Object)]
    pub manifest: serde_json::Value,
    /// Its file's text.
    pub source: String,
}

/// The answer to `GET /api/v1/server`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// The server's version.
    pub version: String,
    /// The node's id.
    pub node: String,
    /// The cluster's id.
    pub cluster: String,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// The deploy log's applied index.
    pub applied: u64,
}

/// The body of `POST /api/v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Who will use it.
    pub subject: String,
    /// `viewer`, `caller`, `deployer` or `admin`.
    pub role: String,
    /// For which workspaces; none means all.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub workspaces: Vec<WorkspaceId>,
    /// Seconds until it expires; 30 days unless told, a year at most.
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

/// The answer of `POST /api/v1/tokens`: the only time that the token itself is shown.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenIssued {
    /// The token itself, a JWT.
    pub token: String,
    /// What is known of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// One row of `GET /api/v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Its id, the JWT's `jti`.
    pub id: String,
    /// Who uses it.
    pub subject: String,
    /// What it allows.
    pub role: String,
    /// Where; none means everywhere.
    #[schema(value_type = Vec<String>)]
    pub workspaces: Vec<WorkspaceId>,
    /// When it was issued, RFC 3339.
    pub issued: String,
    /// When it expires, RFC 3339.
    pub expires: String,
    /// When it was revoked, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// The answer to `GET /api/v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// All that have not expired, the newest first.
    pub tokens: Vec<TokenInfo>,
}

/// An error's body (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem: `/problems/CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable name for programs.
    pub code: String,
    /// What happened this time.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Names the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Facts that belong to the code: `conflict`, `diagnostics`, `missing`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}
