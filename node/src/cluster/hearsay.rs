//! Gossip: this node says where it is, which process it is and how busy it is, and hears the same of the others. Hints: they
//! say where to look first, and nothing is decided by them. What else is to be known of a node, the deploy log says.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use caxton_gossip::{Fact, Generation, GenerationError, Gossip, JoinError, Keys, Members, Rekeyer, Settings};
use caxton_proto::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::files::FileError;
use crate::peers::Peers;
use crate::time::now_ms;
use crate::trust::key_files;

/// The file with the generation of the last start.
const GENERATION_FILE: &str = "gossip-generation";
/// How often the load is said anew.
const LOAD_EVERY: Duration = Duration::from_secs(1);
/// A change of the load below this is not worth a word.
const LOAD_CHANGE_MIN: f64 = 0.05;

/// Why a node could not gossip.
#[derive(Debug, thiserror::Error)]
pub enum HearsayError {
    #[error(transparent)]
    Key(#[from] FileError),
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// How to gossip.
pub struct Manner<'a> {
    /// The data directory.
    pub dir: &'a Path,
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The UDP address at which the others reach this node.
    pub advertise: SocketAddr,
    /// Where peers reach it, which the others are told.
    pub peer_address: &'a str,
    /// Time between two rounds.
    pub interval: Duration,
    /// Time after which a silent node is forgotten.
    pub forget_after: Duration,
}

/// This node's part in the gossip.
pub struct Hearsay {
    gossip: Gossip,
    peers: Peers,
}

impl Hearsay {
    /// Starts to gossip with the nodes in the book.
    pub async fn start(manner: Manner<'_>, peers: Peers) -> Result<Hearsay, HearsayError> {
        let settings = Settings {
            node: peers.credentials().node(),
            generation: Generation::next(&manner.dir.join(GENERATION_FILE), now_ms())?,
            cluster: peers.credentials().cluster().to_string(),
            keys: Keys { seal: key_files::gossip(manner.dir)?, also_open: Vec::new() },
            listen: manner.listen,
            advertise: manner.advertise,
            seeds: peers.book().all().into_values().filter(|address| address != manner.peer_address).collect(),
            interval: manner.interval,
            forget_after: manner.forget_after,
        };
        let facts = [
            (Fact::PeerAddress, manner.peer_address.to_owned()),
            (Fact::Life, format!("{:x}", peers.lives().own().life().unwrap_or_default())),
        ];
        Ok(Hearsay { gossip: Gossip::join_among(settings, &facts, peers.lives().counts()).await?, peers })
    }

    /// Gives it other keys.
    pub fn rekeyer(&self) -> Rekeyer {
        self.gossip.rekeyer()
    }

    /// Who is alive as far as is heard.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.gossip.members()
    }

    /// Says how busy this node is, and notes where the others are; says goodbye when it is stopped.
    pub async fn run(self, load: impl Fn() -> f64 + Send, stop: CancellationToken) {
        let mut members = self.gossip.members();
        let mut said = None;
        let mut ticks = tokio::time::interval(LOAD_EVERY);
        loop {
            let now = load();
            if said.is_none_or(|said: f64| (said - now).abs() >= LOAD_CHANGE_MIN) {
                said = Some(now);
                self.gossip.announce(&Fact::Load, &format!("{now:.2}")).await;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                changed = members.changed() => if changed.is_err() { break },
            }
            self.note(&members.borrow_and_update());
        }
        self.gossip.leave().await;
    }

    /// A node that is heard of somewhere else than the book says, or again, is tried there at once.
    fn note(&self, members: &Members) {
        let own: NodeId = self.peers.credentials().node();
        for (node, member) in members.iter().filter(|(node, _)| **node != own) {
            self.peers.note_heard(*node);
            if let Some(address) = member.fact(&Fact::PeerAddress)
                && self.peers.book().note(*node, address)
            {
                self.peers.heard_from(*node);
            }
        }
    }
}
