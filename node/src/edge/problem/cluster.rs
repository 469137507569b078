//! What a person is told when the cluster or its log did not do what was asked, and what they can do about it.

use caxton_raft::{ChangeError, ProposeError, ReadError, deploy_log};

use crate::app::cluster::{JoinTokenError, RotationError};
use crate::app::node::NotReady;
use crate::backup::write::BackupError;
use crate::cluster::ClusterError;
use crate::cluster::keyring::RotateError;
use crate::edge::problem::{Code, Problem, chain};

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        let leader = match error {
            ReadError::NotLeader { leader } => leader,
            ReadError::Unavailable | ReadError::Fatal { .. } => None,
        };
        Problem::new(Code::Unavailable, error.to_string()).help("try again in a moment").retry_after(1).led_by(leader)
    }
}

impl From<deploy_log::ProposeError> for Problem {
    fn from(error: deploy_log::ProposeError) -> Problem {
        match error {
            deploy_log::ProposeError::Invalid(limit) => {
                Problem::new(Code::InvalidRequest, limit.to_string()).help("send less of it")
            }
            deploy_log::ProposeError::Group(ProposeError::TooLong { .. }) => {
                Problem::new(Code::InvalidRequest, error.to_string()).help("send less of it")
            }
            deploy_log::ProposeError::Group(ProposeError::NotLeader { leader }) => {
                let problem = Problem::new(Code::Unavailable, error.to_string());
                problem.help("nothing was done: try again in a moment").retry_after(1).led_by(leader)
            }
            deploy_log::ProposeError::Group(ProposeError::Unavailable | ProposeError::Fatal { .. }) => {
                Problem::new(Code::Unavailable, error.to_string())
                    .help("look whether it happened before you repeat it, or repeat it with its idempotency key")
                    .retry_with_key(1)
            }
            deploy_log::ProposeError::TooNew { .. } => Problem::new(Code::Unavailable, error.to_string())
                .help("`caxton cluster status` shows which nodes read less; upgrade those"),
            deploy_log::ProposeError::Unreadable(_) | deploy_log::ProposeError::Answer(_) => Problem::internal(&error),
        }
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Problem {
        let detail = error.to_string();
        match error {
            ClusterError::Log(error) => error.into(),
            ClusterError::Change(ChangeError::NotLeader { leader }) => {
                Problem::new(Code::Unavailable, detail).help("try again in a moment").retry_after(1).led_by(leader)
            }
            ClusterError::Change(error) => {
                Problem::new(Code::Unavailable, chain(&error)).help("try again in a moment").retry_after(1)
            }
            ClusterError::Closed => Problem::new(Code::InvalidRequest, detail).help(
                "start it with an address for other nodes, as in `caxton serve --set cluster.bind=127.0.0.1:7412`",
            ),
            ClusterError::TooManyTokens => Problem::new(Code::TooManyRequests, detail)
                .help("wait until some expire, or give new ones a shorter life"),
            ClusterError::NoSuchNode { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton cluster members` shows the nodes there are")
            }
            ClusterError::NoSuchGroup { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton cluster status` shows the groups there are")
            }
            ClusterError::Retires { .. } => Problem::new(Code::Unavailable, detail)
                .help("ask again to wait on; when nobody asks for a minute it stays a member, and `caxton cluster status` shows what is missing")
                .retry_after(1),
            ClusterError::LastNode => Problem::new(Code::InvalidRequest, detail)
                .help("stop it, and remove its data directory if nothing of it is needed"),
            ClusterError::NoHeir { .. } => Problem::new(Code::Unavailable, detail)
                .help("`caxton cluster status` shows who lags; try again when another voter has caught up")
                .retry_after(1),
            error @ (ClusterError::Random(_) | ClusterError::Unexpected) => Problem::internal(&error),
        }
    }
}

impl From<RotateError> for Problem {
    fn from(error: RotateError) -> Problem {
        let detail = error.to_string();
        match error {
            RotateError::Log(error) => error.into(),
            RotateError::UnderWay { .. } => Problem::new(Code::InvalidRequest, detail)
                .help("finish that one with `caxton cluster rotate --finish`, or wait until its overlap is over"),
            RotateError::Waits { .. } => Problem::new(Code::InvalidRequest, detail).help(
                "start these nodes, or take them out with `caxton cluster remove`; without that, the rotation is finished when its overlap is over, and a node that comes back later has to join again",
            ),
            RotateError::None { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton cluster status` shows the keys")
            }
            error @ (RotateError::Make { .. } | RotateError::Unexpected) => Problem::internal(&error),
        }
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Problem {
        match error {
            BackupError::Read { source, .. } => source.into(),
            BackupError::Content { .. } => Problem::new(Code::Unavailable, chain(&error))
                .help("no node that can be reached has it: start the other nodes, or deploy the same content again"),
            BackupError::Archive(_) | BackupError::Keys(_) | BackupError::Key(_) | BackupError::Header(_) => {
                Problem::internal(&error)
            }
        }
    }
}

impl From<JoinTokenError> for Problem {
    fn from(error: JoinTokenError) -> Problem {
        let detail = error.to_string();
        match error {
            JoinTokenError::Limits { .. } => {
                Problem::new(Code::InvalidRequest, detail).help("ask for less, and make another when it is needed")
            }
            JoinTokenError::Full(full) => full.into(),
            JoinTokenError::Cluster(error) => error.into(),
        }
    }
}

impl From<RotationError> for Problem {
    fn from(error: RotationError) -> Problem {
        let detail = error.to_string();
        match error {
            RotationError::Overlap { .. } => Problem::new(Code::InvalidRequest, detail).help("ask for another overlap"),
            RotationError::None => Problem::new(Code::NotFound, detail).help("`caxton cluster status` shows the keys"),
            RotationError::Rotate(error) => error.into(),
        }
    }
}

impl From<NotReady> for Problem {
    fn from(not_ready: NotReady) -> Problem {
        Problem::new(Code::Unavailable, not_ready.to_string()).help("wait; `caxton health` tells more").retry_after(1)
    }
}
