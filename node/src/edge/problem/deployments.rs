//! What a person is told of a failed deployment, and what they can do about it.

use caxton_proto::Digest;

use crate::api;
use crate::api::frame::{DIGESTS_MAX, FrameError};
use crate::app::deployments::ContentError;
use crate::app::workspaces::WorkspacesError;
use crate::artifacts::{DiskFull, GetError, PutError};
use crate::catalog::LoadError;
use crate::deploy::DeployError;
use crate::deploy::assemble::AssembleError;
use crate::deploy::check::CheckError;
use crate::deploy::verify::VerifyError;
use crate::edge::problem::{Code, Problem, chain};

const RETRY_HELP: &str = "try again with the same idempotency key: what was applied already is not applied twice";
const CORRUPT_HELP: &str = "put the same content back with `caxton deploy`, or restore the node's data directory from a backup; docs/OPERATIONS.md says how";

impl From<WorkspacesError> for Problem {
    fn from(error: WorkspacesError) -> Problem {
        let detail = error.to_string();
        match error {
            WorkspacesError::None { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton workspaces list` shows the ones there are")
            }
            WorkspacesError::Conflict { .. } => {
                Problem::new(Code::Conflict, detail).help("look at what is there now: `caxton workspaces list`")
            }
            WorkspacesError::Read(error) => error.into(),
            WorkspacesError::Propose(error) => error.into(),
            error @ (WorkspacesError::Shard(_) | WorkspacesError::Unexpected) => Problem::internal(&error),
        }
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Problem {
        let detail = error.to_string();
        match error {
            DeployError::NoKey => Problem::new(Code::InvalidRequest, detail)
                .help("draw `idempotency_key` at random, and send the same one when you try again"),
            DeployError::Busy { max: _ } => {
                Problem::new(Code::TooManyRequests, detail).help("try again in a moment").retry_after(1)
            }
            DeployError::Conflict { live, .. } => {
                let problem = Problem::new(Code::Conflict, detail).help("run `caxton pull`, then deploy again");
                problem.with("conflict", live.as_deref().map(api::Deployment::from))
            }
            DeployError::KeyReused { deployment } => Problem::new(Code::Conflict, detail)
                .help("draw a new idempotency key for other content")
                .with("conflict", api::Deployment::from(&*deployment)),
            DeployError::NoSuchRevision { .. } => Problem::new(Code::NotFound, detail)
                .help("`caxton log` lists the revisions; deploy an older one again from its git commit"),
            DeployError::TooManyWorkspaces { .. } => {
                Problem::new(Code::TooManyRequests, detail).help("deploy to a workspace that is there already")
            }
            DeployError::Assemble(error) => error.into(),
            DeployError::Verify(error) => error.into(),
            DeployError::Check(error) => error.into(),
            DeployError::Limits(_) => Problem::new(Code::InvalidRequest, detail).help("send a shorter text"),
            DeployError::Load(error) => error.into(),
            DeployError::Get(error) => error.into(),
            DeployError::Put(error) => error.into(),
            DeployError::Read(error) => error.into(),
            DeployError::Propose(error) => error.into(),
            DeployError::Spread(_) => Problem::new(Code::Unavailable, detail)
                .help("nothing was changed: try again when the other nodes can be reached (`caxton cluster status`)")
                .retry_after(1),
            DeployError::Unexpected => Problem::internal(&DeployError::Unexpected),
            DeployError::Stopped(ref cause) if cause.is_cancelled() => {
                Problem::new(Code::Unavailable, detail).help(RETRY_HELP).retry_after(1)
            }
            DeployError::Stopped(_) => Problem::internal(&error),
        }
    }
}

impl From<ContentError> for Problem {
    fn from(error: ContentError) -> Problem {
        let detail = error.to_string();
        match error {
            ContentError::Busy => {
                Problem::new(Code::TooManyRequests, detail).help("try again in a moment").retry_after(1)
            }
            ContentError::Missing { missing } => artifacts_missing(&missing, missing.len()),
            ContentError::Get(error) => error.into(),
            ContentError::Put(error) => error.into(),
            ContentError::Stopped(error) => Problem::internal(&error),
        }
    }
}

impl From<AssembleError> for Problem {
    fn from(error: AssembleError) -> Problem {
        let detail = error.to_string();
        let (code, help) = match error {
            AssembleError::RootMismatch { .. } => (
                Code::RootMismatch,
                "the client's view of the live revision is not the server's: run `caxton status`, then deploy again",
            ),
            AssembleError::Twice { .. } => (Code::InvalidRequest, "name each file once, as an upsert or as a removal"),
            AssembleError::Absent { .. } => (Code::InvalidRequest, "run `caxton status`, then deploy again"),
            AssembleError::FileAndFolder { .. } => (Code::InvalidRequest, "rename one of the two"),
            AssembleError::Chunking { .. } => (Code::InvalidRequest, "use a client of this server's version"),
            AssembleError::FileTooLarge { .. }
            | AssembleError::TooManyFiles { .. }
            | AssembleError::TooManyBytes { .. } => (
                Code::BodyTooLarge,
                "leave out what agents do not need (.caxtonignore), or raise the limit that is named on the server",
            ),
        };
        Problem::new(code, detail).help(help)
    }
}

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Problem {
        let detail = error.to_string();
        match error {
            VerifyError::Missing { missing, total } => artifacts_missing(&missing, total),
            VerifyError::Size { .. } | VerifyError::Join { .. } => Problem::new(Code::DigestMismatch, detail)
                .help("the file changed while it was read, or the client is broken: deploy again"),
            VerifyError::List { .. } => {
                Problem::new(Code::InvalidRequest, detail).help("use a client of this server's version")
            }
            VerifyError::Read { path, source } => named(source.into(), path.as_str()),
            VerifyError::Store(source) => source.into(),
        }
    }
}

impl From<CheckError> for Problem {
    fn from(error: CheckError) -> Problem {
        let detail = error.to_string();
        match error {
            CheckError::Problems(found) => Problem::new(Code::CheckFailed, detail)
                .help("put right what is listed, then deploy again; `caxton validate` checks without a server")
                .with("diagnostics", found),
            CheckError::Read { path, source } => match source.downcast::<GetError>() {
                Ok(source) => named((*source).into(), path.as_str()),
                Err(_) => Problem::new(Code::Internal, detail).help("look at the server's log, and try again"),
            },
        }
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Problem {
        let detail = error.to_string();
        match error {
            LoadError::Absent { .. } => {
                Problem::new(Code::NotFound, detail).help("add it to the workspace, and run `caxton deploy`")
            }
            LoadError::Unreadable { path, source, .. } => named(source.into(), path.as_str()),
            LoadError::Tree { .. } => {
                tracing::error!(error = chain(&error), "a workspace's tree is damaged");
                Problem::new(Code::Corrupt, chain(&error)).help(CORRUPT_HELP)
            }
            LoadError::Invalid { .. } => {
                Problem::new(Code::CheckFailed, detail).help("put the file right, and run `caxton deploy`")
            }
        }
    }
}

/// The problem of a blob, with the file that it belongs to.
fn named(problem: Problem, path: &str) -> Problem {
    problem.with("path", path)
}

impl From<GetError> for Problem {
    fn from(error: GetError) -> Problem {
        let detail = error.to_string();
        match error {
            GetError::Corrupt { workspace, digest, .. } => Problem::new(Code::Corrupt, detail)
                .help(CORRUPT_HELP)
                .with("workspace", workspace)
                .with("digest", digest),
            GetError::Missing { digest, .. } => {
                Problem::new(Code::Corrupt, detail).help(CORRUPT_HELP).with("digest", digest)
            }
            GetError::Store(_) => Problem::internal(&error),
            GetError::Closed => Problem::new(Code::Unavailable, detail).help("look at the server's log").retry_after(5),
        }
    }
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Problem {
        let detail = error.to_string();
        match error {
            PutError::Mismatch { digest, found } => mismatch(detail, digest, found),
            PutError::Full(full) => full.into(),
            PutError::Store(_) => Problem::internal(&error),
            PutError::Closed => Problem::new(Code::Unavailable, detail).help("look at the server's log").retry_after(5),
        }
    }
}

impl From<DiskFull> for Problem {
    fn from(full: DiskFull) -> Problem {
        tracing::warn!(free = full.free, reserve = full.reserve, "a write was refused: the disk is full");
        // Where the node keeps its data is not for everyone to know.
        let detail = format!(
            "the server's disk has {} bytes free, and {} must stay free beside the {} to be written",
            full.free, full.reserve, full.wanted
        );
        Problem::new(Code::DiskFull, detail).help(DiskFull::HELP)
    }
}

impl From<FrameError> for Problem {
    fn from(error: FrameError) -> Problem {
        let detail = error.to_string();
        match error {
            FrameError::Truncated { .. } => {
                Problem::new(Code::InvalidRequest, detail).help("nothing was stored: send it again, whole")
            }
            FrameError::TooLarge { .. } => {
                Problem::new(Code::InvalidRequest, detail).help("cut large files into chunks, as `caxton deploy` does")
            }
            FrameError::Mismatch { digest, found } => mismatch(detail, digest, found),
        }
    }
}

fn mismatch(detail: String, digest: Digest, found: Digest) -> Problem {
    Problem::new(Code::DigestMismatch, detail)
        .help("nothing was stored: it was damaged on its way, or its file changed while it was read; send it again")
        .with("digest", digest)
        .with("found", found)
}

/// The problem of blobs that have to be sent first.
fn artifacts_missing(missing: &[Digest], total: usize) -> Problem {
    Problem::new(Code::ArtifactsMissing, format!("{total} artifacts are not on the server"))
        .help("send what `missing` lists to PUT .../artifacts, then try again")
        .with("missing", &missing[..missing.len().min(DIGESTS_MAX)])
        .with("missing_total", total)
}
