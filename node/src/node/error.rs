//! Why a node does not start, and what to do about each reason: whoever reads it has no node to ask.

use std::path::PathBuf;

use caxton_raft::{ClaimError, OpenError, OpenGroupError};

use crate::cluster::hearsay::HearsayError;
use crate::cluster::join::EnterError;
use crate::cluster::watch::COPY_HELP;
use crate::edge::listen::BindError;
use crate::files::FileError;
use crate::peers::NotIntroduced;
use crate::peers::lives::LivesError;
use crate::secrets::KeyError;
use crate::shard::placement::ShardsError;
use crate::trust::shared_secret::SecretFileError;
use crate::trust::{TlsError, bearer};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used", .dir.display())]
    DataDir {
        dir: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another node has the data directory.
    #[error("another node uses the data directory {}{}", .dir.display(), process(.pid))]
    Locked {
        dir: PathBuf,
        /// The other node's process.
        pid: Option<String>,
    },
    /// A file is missing without which the log is of no use.
    #[error("{} is missing, and this data directory holds a log; it is never made anew", .path.display())]
    Lost { path: PathBuf },
    /// Its node was taken out of its cluster, as somebody asked.
    #[error("the node of this data directory has left its cluster at {time}: it was removed from the cluster for good")]
    Left { time: String },
    #[error("the keys of a new node cannot be made")]
    Keys(#[source] FileError),
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The node's cluster.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The secret that all nodes of the cluster share.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Which start of the data directory this is.
    #[error(transparent)]
    Lives(#[from] LivesError),
    /// The data directory is a copy of a node's that runs.
    #[error(transparent)]
    NotIntroduced(#[from] NotIntroduced),
    #[error("the node cannot gossip")]
    Gossip(#[from] HearsayError),
    /// The address that others are told is no address.
    #[error("other nodes could not find this one at {name} (`cluster.advertise`)")]
    Advertise {
        name: String,
        #[source]
        source: std::io::Error,
    },
    /// The log's store.
    #[error("the log's store cannot be opened")]
    Store(#[from] OpenError),
    /// The log is not the one that the node had.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The deploy log.
    #[error("the deploy log cannot be opened")]
    Log(#[from] OpenGroupError),
    /// The artifacts' store.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::OpenError),
    /// A shard's state or its log cannot be opened.
    #[error(transparent)]
    Shard(#[from] crate::shard::OpenError),
    /// The language models' providers.
    #[error("the language models' providers cannot be set up")]
    Models(#[from] crate::llm::Error),
    /// The sentence model that the settings name.
    #[error("the sentence model in {} (`embed.model`) cannot be used", .dir.display())]
    Sentences {
        dir: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// How many shards there are.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// Tokens and keys.
    #[error("authentication cannot be set up")]
    Auth(#[from] bearer::OpenError),
    /// Where models' answers are to be recorded.
    #[error("what language models answer cannot be recorded in {}", .dir.display())]
    Record {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The keys of secrets.
    #[error("secrets cannot be opened")]
    Secrets(#[from] KeyError),
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    #[error("the address cannot be written down")]
    Announce(#[source] FileError),
}

fn process(pid: &Option<String>) -> String {
    pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl StartError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            StartError::DataDir { .. } => {
                "check that it can be written, or choose another with --data-dir DIR".to_owned()
            }
            StartError::Locked { .. } => "stop that one first, or give this one its own with --data-dir DIR".to_owned(),
            StartError::Left { .. } => {
                "a node that was removed comes back as a new one: empty the data directory, and join with `caxton serve --join ADDRESS --token-file FILE`".to_owned()
            }
            StartError::Lost { path } if path.ends_with("identity") => {
                "put the file back from a copy of this data directory; if there is none, take the node out with `caxton cluster remove` on another one, empty its data directory and let it join again, or restore a backup with `caxton restore FILE --data-dir NEW_DIR`".to_owned()
            }
            StartError::Lost { .. } => {
                "put the file back from a copy of this data directory, or from another node of the cluster, where it is the same; or take the node out with `caxton cluster remove` on another one, empty its data directory and let it join again".to_owned()
            }
            StartError::Keys(_) => "check that the data directory can be written".to_owned(),
            StartError::Bind(BindError::InUse { address }) => format!(
                "perhaps a node runs already: ask it with `caxton health`; or choose another port, as in `caxton serve --bind {}:0`, which takes a free one",
                address.ip()
            ),
            StartError::Bind(BindError::Io { .. }) => {
                "choose an address of this machine, as in `caxton serve --bind 127.0.0.1:7411`".to_owned()
            }
            StartError::Sentences { .. } => {
                "put the model's files there, or leave `embed.model` out to use the built-in one".to_owned()
            }
            StartError::Tls(_) => {
                "check the settings below [tls], and the folder tls/ of the data directory".to_owned()
            }
            StartError::Auth(_) | StartError::Secrets(_) => {
                "check the file it names; docs/SECURITY.md says what each is for".to_owned()
            }
            StartError::Models(_) => "check the variables that name providers: docs/agents.md lists them".to_owned(),
            StartError::Record { .. } => "name a directory that can be written with --record DIR".to_owned(),
            StartError::Announce(_) => "check that the data directory can be written".to_owned(),
            StartError::Store(_)
            | StartError::Log(_)
            | StartError::Artifacts(_)
            | StartError::Shard(_)
            | StartError::Shards(_) => {
                "if it is damaged, restore the data directory from a backup: docs/OPERATIONS.md".to_owned()
            }
            StartError::Claim(ClaimError::Lost { .. }) => {
                "put the folder back; or restore a backup with `caxton restore FILE --data-dir NEW_DIR`; or, when other nodes of the cluster are alive, take this node out with `caxton cluster remove`, empty its data directory and let it join again".to_owned()
            }
            StartError::Claim(_) => "restore the data directory from a backup: docs/OPERATIONS.md".to_owned(),
            StartError::Enter(error) => return error.help().map(str::to_owned),
            StartError::Gossip(_) => "check `cluster.bind`, and the folder keys/ of the data directory".to_owned(),
            StartError::Advertise { .. } => {
                "name the address of this machine that the other nodes use, as in `--advertise 10.0.0.1:7412`"
                    .to_owned()
            }
            StartError::Lives(_) => {
                "check that the data directory can be written; a damaged file means that the directory is put back from a backup, or, where other nodes are, that this node is taken out with `caxton cluster remove`, its directory is emptied and it joins again".to_owned()
            }
            StartError::NotIntroduced(NotIntroduced::Copied(_)) => COPY_HELP.to_owned(),
            StartError::NotIntroduced(NotIntroduced::Authority { .. }) => {
                "take this node out with `caxton cluster remove` on another one, empty its data directory and let it join again".to_owned()
            }
            StartError::Secret(_) => return None,
        })
    }
}
