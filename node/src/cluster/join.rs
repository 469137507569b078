//! How a node with an empty data directory comes to its cluster: it founds one, or is let in. Once, and never by guess.
//!
//! A node that was told to join never founds. One that was told to do either (`--found` with `--join`) founds only when
//! none of the nodes that it was told of answers for a cluster; whoever answers, even to say "not now", is joined.
//! The identity is written last: a node that was cut off on the way asks again with the same id, which uses a token once.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::peer::pb::{Facts, JoinReply, JoinRequest};
use caxton_proto::refusal::Refusal;
use caxton_proto::{Format, NodeId};
use caxton_raft::{IdentityError, NodeIdentity, adopt_identity, identity, known_identity, mint_node};
use tokio::time::Instant;
use tracing::{info, warn};

use super::shard_count;
use crate::config::Cluster;
use crate::errors::chain;
use crate::files::{FileError, random, read_or_create, write_private};
use crate::peers::book::Book;
use crate::peers::refusal::{self, is_refusal};
use crate::peers::{DialError, VERSION, dial_stranger};
use crate::trust::authority::{CA_FILE, CA_KEY_FILE};
use crate::trust::credentials::CertificateRefused;
use crate::trust::join_token::{InvalidJoinToken, JoinToken};
use crate::trust::key_files::{self, KeysError};
use crate::trust::shared_secret::{SecretFileError, SharedSecret};
use crate::trust::succession::born;

/// The file with the id of a node that is on its way into a cluster.
const PENDING_FILE: &str = "joining";
/// The file with the key by which it can ask again, and nobody else in its name.
const JOIN_KEY_FILE: &str = "joining.key";
/// The bytes of that key.
const JOIN_KEY_BYTES: usize = 32;
/// How long one attempt with one node may take: an election may have to end first.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two rounds of attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a node that may found looks whether others answer.
const FOUND_PROBE: Duration = Duration::from_secs(3);

/// Why a node came to no cluster.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token's file.
    #[error("the join token in {} cannot be read", .path.display())]
    TokenFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// What the token's file holds.
    #[error("{}: {why}", .path.display())]
    Token {
        path: PathBuf,
        /// What is wrong.
        why: InvalidJoinToken,
    },
    /// The cluster's secret.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A file of this node.
    #[error("a file of the data directory cannot be written")]
    File(#[from] FileError),
    /// The data directory has an authority that the secret does not make.
    #[error("the authority in {} was not made from the cluster's secret", .dir.display())]
    OtherAuthority { dir: PathBuf },
    /// A join was not finished, and the node is not told to join any more.
    #[error("{} was on its way into a cluster and never arrived", .dir.display())]
    Unfinished {
        /// The data directory.
        dir: PathBuf,
    },
    /// The cluster does not want this node.
    #[error("{address} does not let this node join: {why}")]
    Refused {
        /// Who said so.
        address: String,
        why: String,
        /// What was wrong with the node.
        wants: Wants,
    },
    /// The token is for another cluster.
    #[error("{address} does not belong to the cluster that the token or the secret is for")]
    Foreign {
        /// Who that is.
        address: String,
        #[source]
        source: DialError,
    },
    /// Nobody let the node in, in all the time that it had.
    #[error("no node of the cluster could let this one in within {within:?}; the last said: {last}")]
    TimedOut {
        /// How long it tried.
        within: Duration,
        /// What was wrong with the last attempt.
        last: String,
    },
    /// The answer of the cluster cannot be used.
    #[error("the answer of {address} cannot be used")]
    Answer {
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl EnterError {
    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            EnterError::Token { .. } | EnterError::TokenFile { .. } => {
                "make one with `caxton cluster token create` on a node of the cluster, and put it into a file of its own"
            }
            EnterError::Refused { wants, .. } => return wants.help(),
            EnterError::Foreign { .. } => {
                "check the addresses after --join, and that the token was made there; one that was made before the cluster's authority was rotated is good until the overlap ends: then make a new one"
            }
            EnterError::TimedOut { .. } => {
                "check that the addresses after --join are right and can be reached from here (TCP and UDP)"
            }
            EnterError::OtherAuthority { .. } => {
                "give all nodes the secret that the cluster was founded with; a cluster that was founded without one takes join tokens"
            }
            EnterError::Unfinished { .. } => "start it with --join again, or empty the data directory to start over",
            EnterError::Identity(_) | EnterError::Secret(_) | EnterError::File(_) | EnterError::Answer { .. } => {
                return None;
            }
        })
    }
}

/// What a cluster wants of a node that it refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    Token,
    Secret,
    /// A version nearer to its own.
    Version,
    /// What its answer says.
    Said,
}

impl Wants {
    fn of(status: &tonic::Status, pass: &Pass) -> Wants {
        let credential = if pass.token.is_empty() { Wants::Secret } else { Wants::Token };
        match (refusal::heard(status), status.code()) {
            (Some(Refusal::Version), _) => Wants::Version,
            (Some(Refusal::Credential), _) => credential,
            // A build that gives no code, or one that this build does not know.
            (_, tonic::Code::FailedPrecondition) => Wants::Version,
            (_, tonic::Code::PermissionDenied | tonic::Code::Unauthenticated) => credential,
            _ => Wants::Said,
        }
    }

    fn help(self) -> Option<&'static str> {
        match self {
            Wants::Token => Some("make a new token with `caxton cluster token create` on a node of the cluster"),
            Wants::Secret => Some(
                "give this node the secret that the cluster was founded with; a cluster that was founded without one takes join tokens",
            ),
            Wants::Version => Some("install a version of caxton on this node that those of the cluster can speak with"),
            Wants::Said => None,
        }
    }
}

/// What a node says of itself when it joins.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Where peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_url: String,
    /// The newest format that it says it reads.
    pub format: Format,
}

/// Brings the node to its cluster, unless it belongs to one, and says who it is.
pub async fn enter(dir: &Path, config: &Cluster, own: &Introduction) -> Result<NodeIdentity, EnterError> {
    let secret = (!config.secret_file.as_os_str().is_empty()).then(|| SharedSecret::read(&config.secret_file));
    let secret = secret.transpose()?;
    if let Some(known) = known_identity(dir)? {
        if let Some(secret) = &secret {
            same_authority(dir, secret)?;
        }
        if !config.join.is_empty() {
            info!(cluster = %known.cluster, node = %known.node, dir = %dir.display(), "this data directory belongs to a cluster already: it goes on there, and what --join names is not asked");
        }
        return Ok(known);
    }
    // A list that every node of a cluster gets names this one too.
    let others: Vec<&String> = config.join.iter().filter(|address| **address != own.peer_address).collect();
    if !others.is_empty() || (!config.join.is_empty() && !config.found) {
        let pass = Pass::read(config, secret.as_ref())?;
        let mut joining = Joining { dir, others, pass, own, last: "nobody was asked".to_owned(), heard: false };
        if let Some(identity) = joining.run(config).await? {
            return Ok(identity);
        }
    } else if dir.join(PENDING_FILE).exists() && !config.found {
        return Err(EnterError::Unfinished { dir: dir.to_owned() });
    }
    found(dir, secret.as_ref())
}

/// Begins a cluster with this node.
fn found(dir: &Path, secret: Option<&SharedSecret>) -> Result<NodeIdentity, EnterError> {
    if let Some(secret) = secret {
        let key = dir.join("tls").join(CA_KEY_FILE);
        if !key.exists() {
            write_private(&key, secret.authority_pem().as_bytes())?;
        }
        same_authority(dir, secret)?;
    }
    let founded = identity(dir)?;
    // What it asked others with, if it asked.
    [PENDING_FILE, JOIN_KEY_FILE].into_iter().for_each(|file| _ = std::fs::remove_file(dir.join(file)));
    Ok(founded)
}

/// Refuses an authority that was not made from the secret: nodes with the secret would trust another.
fn same_authority(dir: &Path, secret: &SharedSecret) -> Result<(), EnterError> {
    let tls = dir.join("tls");
    let known = std::fs::read_to_string(tls.join(CA_KEY_FILE)).unwrap_or_default();
    // One that was rotated has another key by now.
    let ours = known == secret.authority_pem() || born(&tls) == Some(secret.pin());
    if ours { Ok(()) } else { Err(EnterError::OtherAuthority { dir: tls }) }
}

/// What lets a node in.
struct Pass {
    token: String,
    secret: Vec<u8>,
    pin: caxton_proto::Digest,
}

impl Pass {
    fn read(config: &Cluster, secret: Option<&SharedSecret>) -> Result<Pass, EnterError> {
        if let Some(secret) = secret {
            return Ok(Pass { token: String::new(), secret: secret.credential().to_vec(), pin: secret.pin() });
        }
        let path = config.token_file.clone();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|source| EnterError::TokenFile { path: path.clone(), source })?;
        let token: JoinToken = text.parse().map_err(|why| EnterError::Token { path, why })?;
        Ok(Pass { token: token.id.clone(), secret: token.secret().to_vec(), pin: token.pin })
    }
}

struct Joining<'a> {
    dir: &'a Path,
    others: Vec<&'a String>,
    pass: Pass,
    own: &'a Introduction,
    /// What was wrong last.
    last: String,
    /// A node of the cluster answered.
    heard: bool,
}

impl Joining<'_> {
    /// Asks one node after the other until one lets this one in. Nothing when nobody answers and this one may found.
    async fn run(&mut self, config: &Cluster) -> Result<Option<NodeIdentity>, EnterError> {
        let began = Instant::now();
        let within = config.join_timeout;
        let node = self.pending()?;
        let join_key = self.join_key()?;
        loop {
            for address in self.others.clone() {
                if let Some(reply) = self.ask(address, node, &join_key).await? {
                    return self.arrive(address, node, reply).map(Some);
                }
            }
            if config.found && !self.heard && began.elapsed() >= FOUND_PROBE {
                info!(others = self.others.len(), "nobody answers for a cluster: this node founds it");
                return Ok(None);
            }
            if began.elapsed() >= within {
                return Err(EnterError::TimedOut { within, last: self.last.clone() });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The id of this node, which it keeps when it has to ask again.
    fn pending(&self) -> Result<NodeId, EnterError> {
        let path = self.dir.join(PENDING_FILE);
        let text = read_or_create(&path, || Ok(format!("{:016x}\n", mint_node().0).into_bytes()))?;
        let id = std::str::from_utf8(&text).ok().and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        match id.filter(|id| *id != 0) {
            Some(id) => Ok(NodeId(id)),
            None => {
                let what = "does not hold a node's id; empty the data directory to start over";
                Err(FileError::Io { path, what, source: std::io::ErrorKind::InvalidData.into() }.into())
            }
        }
    }

    /// The key with which this node asks, each time the same.
    fn join_key(&self) -> Result<Bytes, EnterError> {
        let path = self.dir.join(JOIN_KEY_FILE);
        let key = read_or_create(&path, || Ok(random::<JOIN_KEY_BYTES>()?.to_vec()))?;
        if key.len() != JOIN_KEY_BYTES {
            let what = "does not hold a key of 32 bytes; empty the data directory to start over";
            return Err(FileError::Io { path, what, source: std::io::ErrorKind::InvalidData.into() }.into());
        }
        Ok(key.into())
    }

    /// Asks one node. Nothing when it could not answer now; an error when asking again makes no sense.
    async fn ask(&mut self, address: &str, node: NodeId, join_key: &Bytes) -> Result<Option<JoinReply>, EnterError> {
        let asked = tokio::time::timeout(ATTEMPT_TIMEOUT, async {
            let mut client = match dial_stranger(address, self.pass.pin).await {
                Ok(client) => client,
                Err(error) => return JoinAttempt::Unreached(error),
            };
            let facts = Facts {
                node: node.0,
                peer_address: self.own.peer_address.clone(),
                client_url: self.own.client_url.clone(),
                version: VERSION.to_owned(),
                holds: Vec::new(),
                format: self.own.format.number(),
            };
            let (token, secret) = (self.pass.token.clone(), self.pass.secret.clone().into());
            let join_key = join_key.clone();
            match client.join(JoinRequest { facts: Some(facts), token, secret, forwarded: false, join_key }).await {
                Ok(reply) => JoinAttempt::LetIn(reply.into_inner()),
                Err(status) => JoinAttempt::Answered(status),
            }
        });
        let address = address.to_owned();
        match asked.await {
            Ok(JoinAttempt::LetIn(reply)) => return Ok(Some(reply)),
            Ok(JoinAttempt::Answered(status)) if is_refusal(&status) => {
                let wants = Wants::of(&status, &self.pass);
                return Err(EnterError::Refused { address, why: status.message().to_owned(), wants });
            }
            Ok(JoinAttempt::Answered(status)) => {
                self.heard = true;
                self.last = format!("{address}: {}", status.message());
            }
            Ok(JoinAttempt::Unreached(
                source @ DialError::Certificate { why: CertificateRefused::AnotherAuthority, .. },
            )) => {
                return Err(EnterError::Foreign { address, source });
            }
            Ok(JoinAttempt::Unreached(error)) => self.last = chain(&error),
            Err(_) => self.last = format!("{address} did not answer within {ATTEMPT_TIMEOUT:?}"),
        }
        warn!(address, why = self.last, "could not join yet");
        Ok(None)
    }

    /// Takes over what the cluster gave, the identity last.
    fn arrive(&self, address: &str, node: NodeId, reply: JoinReply) -> Result<NodeIdentity, EnterError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| {
            let address = address.to_owned();
            EnterError::Answer { address, source }
        };
        let cluster = reply.cluster.parse().map_err(|error: uuid::Error| unusable(error.into()))?;
        key_files::adopt(self.dir, &reply.keys).map_err(|error: KeysError| unusable(error.into()))?;
        let members = reply.members.iter().map(|facts| (NodeId(facts.node), facts.peer_address.clone()));
        Book::open(self.dir).replace(members.collect());
        debug_assert!(self.dir.join("tls").join(CA_FILE).exists());
        shard_count::note(self.dir, NonZeroU32::new(reply.shards).unwrap_or(NonZeroU32::MIN))?;
        let identity = adopt_identity(self.dir, node, cluster)?;
        // They have done their work; those that stay do no harm.
        [PENDING_FILE, JOIN_KEY_FILE].into_iter().for_each(|file| _ = std::fs::remove_file(self.dir.join(file)));
        info!(cluster = %identity.cluster, node = %identity.node, by = address, "joined the cluster");
        Ok(identity)
    }
}

/// What became of one attempt.
enum JoinAttempt {
    LetIn(JoinReply),
    Answered(tonic::Status),
    Unreached(DialError),
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::peers::refusal::refuse;

    #[test]
    fn who_is_refused_hears_what_to_change() {
        let pass =
            |token: &str| Pass { token: token.to_owned(), secret: Vec::new(), pin: caxton_proto::Digest::of(b"") };
        let (by_token, by_secret) = (pass("0123"), pass(""));
        for (status, pass, expected) in [
            (refuse(Code::PermissionDenied, Refusal::Credential, "no"), &by_token, Some("cluster token create")),
            (
                refuse(Code::PermissionDenied, Refusal::Credential, "no"),
                &by_secret,
                Some("the secret that the cluster"),
            ),
            (refuse(Code::PermissionDenied, Refusal::Version, "no"), &by_token, Some("install a version")),
            (tonic::Status::permission_denied("it has expired"), &by_token, Some("cluster token create")),
            (tonic::Status::permission_denied("another secret"), &by_secret, Some("the secret that the cluster")),
            (tonic::Status::failed_precondition("version 9.0.0"), &by_token, Some("install a version")),
            (tonic::Status::failed_precondition("version 9.0.0"), &by_secret, Some("install a version")),
            (tonic::Status::invalid_argument("a node has an id and an address"), &by_token, None),
        ] {
            let help = Wants::of(&status, pass).help();
            assert!(help.map_or(expected.is_none(), |help| expected.is_some_and(|it| help.contains(it))), "{status}");
        }
    }
}
