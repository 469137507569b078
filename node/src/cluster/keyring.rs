//! Rotating the keys that all nodes hold: the authority, the gossip key, and the key that signs tokens.
//!
//! A successor goes through the deploy log, sealed with the data key as secrets are, so that every node gets it, also one
//! that was away. Each node says which ones it has among its facts; what only works when all do waits for that. A rotation
//! is finished by an admin once every node has the successor, or by the log's leader when the overlap is over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_gossip::{Key, Keys, Rekeyer};
use caxton_proto::NodeId;
use caxton_proto::log::cluster::{Command, FinishRotation, KeyKind, Outcome, RotateKey, RotatedKey};
use caxton_proto::log::{self};
use caxton_raft::Role;
use caxton_raft::deploy_log::{self, DeployLog};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::authn::Auth;
use crate::errors::chain;
use crate::files::{FileError, random, write_private};
use crate::peers::Peers;
use crate::secrets::{KeyError, SecretStore};
use crate::tasks;
use crate::time::now_ms;
use crate::trust::bearer::{self, SigningSuccession};
use crate::trust::succession::Succession;
use crate::trust::{Stage, TlsError, key_files};

/// How often the leader looks whether an overlap is over.
const TICK: Duration = Duration::from_secs(1);
/// Who finishes a rotation whose overlap is over.
const NOBODY: &str = "caxton";

/// A key was not rotated, or its rotation not finished.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] deploy_log::ProposeError),
    /// The successor could not be made.
    #[error("a successor of the {kind} cannot be made")]
    Make {
        /// Of which key.
        kind: KeyKind,
        #[source]
        source: Unusable,
    },
    /// The one before is not finished.
    #[error("the {kind} has a successor already, and the rotation is not finished")]
    UnderWay { kind: KeyKind },
    /// Some nodes do not have the successor.
    #[error("the rotation of the {kind} waits for {}", nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Waits {
        /// Of which key.
        kind: KeyKind,
        nodes: Vec<NodeId>,
    },
    /// No rotation of it is under way.
    #[error("no rotation of the {kind} is under way")]
    None {
        /// Of which key.
        kind: KeyKind,
    },
    /// The log answered something that does not fit.
    #[error("the log's answer does not fit")]
    Unexpected,
}

/// A key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It was sealed with another data key, or changed.
    #[error("it does not open with this node's data keys")]
    Sealed,
    /// It is not what it should be.
    #[error("it is damaged")]
    Damaged(#[from] serde_json::Error),
    /// The gossip key.
    #[error(transparent)]
    Gossip(#[from] FileError),
    #[error(transparent)]
    Authority(#[from] TlsError),
    /// The signing key.
    #[error(transparent)]
    Signing(#[from] bearer::OpenError),
    /// The data key.
    #[error(transparent)]
    Seal(#[from] KeyError),
}

/// The cluster's keys on this node. A clone is a handle on the same.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    parts: Parts,
    /// How far this node has followed each key, so that nothing is written twice.
    followed: Mutex<BTreeMap<KeyKind, (u64, Stage)>>,
    holds: watch::Sender<Vec<u64>>,
}

/// What a keyring works with.
pub struct Parts {
    /// The data directory.
    pub dir: PathBuf,
    /// The deploy log.
    pub log: DeployLog,
    /// The way to the others, and what this node shows them.
    pub peers: Peers,
    pub auth: Arc<Auth>,
    pub secrets: SecretStore,
    /// Gives gossip its keys; nothing where there is no gossip.
    pub gossip: Option<Rekeyer>,
}

impl Keyring {
    /// A keyring of these parts.
    pub fn new(parts: Parts) -> Keyring {
        let (followed, holds) = (Mutex::default(), watch::Sender::new(Vec::new()));
        Keyring(Arc::new(Inner { parts, followed, holds }))
    }

    /// The ids of the rotated keys that this node has.
    pub fn holds(&self) -> watch::Receiver<Vec<u64>> {
        self.0.holds.subscribe()
    }

    /// Gives a key a successor; both are good for `overlap`. The leader of the deploy log does it.
    pub async fn rotate(&self, kind: KeyKind, overlap: Duration, actor: &str) -> Result<(), RotateError> {
        if self.under_way(kind).is_some() {
            return Err(RotateError::UnderWay { kind });
        }
        let make = |source| RotateError::Make { kind, source };
        let id = u64::from_le_bytes(random().map_err(Unusable::from).map_err(make)?).max(1);
        let plain = self.successor(kind).map_err(make)?;
        let (sealed_with, sealed) = self.0.parts.secrets.seal_key(kind, id, &plain).map_err(|it| make(it.into()))?;
        let time_ms = now_ms();
        let until_ms = time_ms.saturating_add(u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX));
        let actor = actor.to_owned();
        let rotate = RotateKey { kind, id, sealed_with, sealed, until_ms, time_ms, actor: actor.clone() };
        match self.propose(Command::RotateKey(rotate)).await? {
            Outcome::RotationStarted => {
                info!(target: "caxton::audit", %kind, id = format!("{id:x}"), actor, overlap_s = overlap.as_secs(), "a key of the cluster is rotated");
                Ok(())
            }
            Outcome::RotationUnderWay => Err(RotateError::UnderWay { kind }),
            _ => Err(RotateError::Unexpected),
        }
    }

    /// Lets only the successor be good, if every node has it.
    pub async fn finish(&self, kind: KeyKind, actor: &str) -> Result<(), RotateError> {
        let id = self.under_way(kind).ok_or(RotateError::None { kind })?.rotated.id;
        self.finish_with(kind, id, actor, false).await
    }

    /// The rotations that are under way.
    pub fn open(&self) -> Vec<KeyKind> {
        let open = |key: &&RotatedKey| key.finished_ms.is_none();
        self.0.parts.log.read(|state| state.cluster().keys().filter(open).map(|key| key.rotated.kind).collect())
    }

    fn under_way(&self, kind: KeyKind) -> Option<RotatedKey> {
        let key = self.0.parts.log.read(|state| state.cluster().key(kind).cloned())?;
        key.finished_ms.is_none().then_some(key)
    }

    async fn finish_with(&self, kind: KeyKind, id: u64, actor: &str, overdue: bool) -> Result<(), RotateError> {
        let finish = FinishRotation { kind, id, overdue, time_ms: now_ms(), actor: actor.to_owned() };
        match self.propose(Command::FinishRotation(finish)).await? {
            Outcome::RotationFinished => {
                info!(target: "caxton::audit", %kind, id = format!("{id:x}"), actor, overdue, "the rotation of a key is finished");
                Ok(())
            }
            Outcome::RotationWaits => {
                let nodes = self.0.parts.log.read(|state| state.cluster().lacking(id).collect());
                Err(RotateError::Waits { kind, nodes })
            }
            Outcome::NoRotation => Err(RotateError::None { kind }),
            _ => Err(RotateError::Unexpected),
        }
    }

    async fn propose(&self, command: Command) -> Result<Outcome, RotateError> {
        match self.0.parts.log.propose(&log::Command::Cluster(command)).await?.outcome {
            log::Outcome::Cluster(outcome) => Ok(outcome),
            _ => Err(RotateError::Unexpected),
        }
    }

    fn successor(&self, kind: KeyKind) -> Result<Vec<u8>, Unusable> {
        let parts = &self.0.parts;
        Ok(match kind {
            KeyKind::Gossip => random::<32>()?.to_vec(),
            KeyKind::Signing => serde_json::to_vec(&parts.auth.successor()?)?,
            KeyKind::Authority => serde_json::to_vec(&Succession::of(&parts.peers.credentials().authority()?)?)?,
        })
    }

    /// Goes by what the log says of keys. Blocks on the disk.
    pub fn follow(&self) {
        let parts = &self.0.parts;
        let keys: Vec<(RotatedKey, Stage)> = parts.log.read(|state| {
            let stage = |key: &RotatedKey| match key.finished_ms {
                Some(_) => Stage::Finished,
                None if state.cluster().lacking(key.rotated.id).next().is_none() => Stage::Everywhere,
                None => Stage::Known,
            };
            state.cluster().keys().map(|key| (key.clone(), stage(key))).collect()
        });
        let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, stage) in keys {
            let (kind, now) = (key.rotated.kind, (key.rotated.id, stage));
            if followed.get(&kind) == Some(&now) {
                continue;
            }
            match self.follow_one(&key.rotated, stage) {
                Ok(()) => {
                    info!(%kind, id = format!("{:x}", now.0), ?stage, "the rotation of a key went on");
                    followed.insert(kind, now);
                }
                // This node goes on without it, and the rotation waits for it.
                Err(error) => warn!(%kind, error = chain(&error), "a rotated key cannot be used on this node"),
            }
        }
        let holds: Vec<u64> = followed.values().map(|(id, _)| *id).collect();
        self.0.holds.send_if_modified(|known| std::mem::replace(known, holds.clone()) != holds);
    }

    fn follow_one(&self, rotated: &RotateKey, stage: Stage) -> Result<(), Unusable> {
        let parts = &self.0.parts;
        let plain = parts.secrets.open_key(rotated).ok_or(Unusable::Sealed)?;
        match rotated.kind {
            KeyKind::Gossip => {
                let new = Key(plain.try_into().map_err(|_| Unusable::Sealed)?);
                if stage == Stage::Finished && key_files::gossip(&parts.dir)? != new {
                    write_private(&parts.dir.join(key_files::GOSSIP_KEY_FILE), &new.0)?;
                }
                let old = key_files::gossip(&parts.dir)?;
                let (seal, also_open) = match stage {
                    Stage::Known => (old, vec![new]),
                    Stage::Everywhere => (new, vec![old]),
                    Stage::Finished => (new, Vec::new()),
                };
                if let Some(gossip) = &parts.gossip {
                    gossip.rekey(&Keys { seal, also_open });
                }
            }
            KeyKind::Signing => {
                let next: SigningSuccession = serde_json::from_slice(&plain)?;
                parts.auth.succeed(&next, stage)?;
            }
            KeyKind::Authority => {
                let (next, credentials): (Succession, _) = (serde_json::from_slice(&plain)?, parts.peers.credentials());
                let known = Succession::read(credentials.dir())?;
                match stage {
                    Stage::Known | Stage::Everywhere if known.as_ref() == Some(&next) => {}
                    Stage::Known | Stage::Everywhere => next.begin(credentials.dir())?,
                    Stage::Finished => next.end(credentials.dir())?,
                }
                credentials.renew()?;
            }
        }
        Ok(())
    }

    /// Follows the log until it is stopped, and finishes what is overdue where this node leads.
    pub async fn run(self, stop: CancellationToken) {
        let (mut applied, status) = (self.0.parts.log.applied(), self.0.parts.log.status());
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = applied.changed() => if changed.is_err() { return },
                _ = ticks.tick() => {}
            }
            let keyring = self.clone();
            // It has said what was wrong.
            _ = tasks::blocking(move || keyring.follow()).await;
            if status.borrow().role != Role::Leader {
                continue;
            }
            for kind in self.open() {
                let Some(key) = self.under_way(kind).filter(|key| key.rotated.until_ms <= now_ms()) else { continue };
                if let Err(error) = self.finish_with(kind, key.rotated.id, NOBODY, true).await {
                    warn!(%kind, error = chain(&error), "a rotation whose overlap is over was not finished");
                }
            }
        }
    }
}
