//! Joining, announcing and leaving.

use std::net::SocketAddr;
use std::time::Duration;

use caxton_proto::NodeId;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion, spawn_chitchat,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::generation::Generation;
use crate::member::{Fact, Member, Members};
use crate::seal::{Keys, Network, Sealed, Udp};

/// How a node gossips.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which node this is.
    pub node: NodeId,
    /// Which life of it.
    pub generation: Generation,
    /// The cluster's id: members of another one are strangers.
    pub cluster: String,
    /// The cluster's keys.
    pub keys: Keys,
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The UDP address at which the others reach this node.
    pub advertise: SocketAddr,
    /// `HOST:PORT` of members to start from; names are resolved again and again.
    pub seeds: Vec<String>,
    /// Time between two rounds. Detection takes about eight of them.
    pub interval: Duration,
    /// Time after which a dead member is forgotten.
    pub forget_after: Duration,
}

/// Why a node could not start to gossip.
#[derive(Debug, thiserror::Error)]
#[error("cannot gossip on UDP {listen}")]
pub struct JoinError {
    /// The address.
    pub listen: SocketAddr,
    /// Why.
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A node's part in the gossip. Dropping it falls silent, and the others take the node for dead; [`Gossip::leave`] says so.
pub struct Gossip {
    chitchat: ChitchatHandle,
    members: watch::Receiver<Members>,
    view: AbortHandle,
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.view.abort();
    }
}

impl Gossip {
    /// Starts to gossip with `facts` as the first announcement. Returns at once: members turn up in [`Gossip::members`].
    pub async fn join(settings: Settings, facts: &[(Fact, String)]) -> Result<Gossip, JoinError> {
        Gossip::join_over(Udp, settings, facts).await
    }

    /// The same over `network`.
    pub(crate) async fn join_over(
        network: impl Network,
        settings: Settings,
        facts: &[(Fact, String)],
    ) -> Result<Gossip, JoinError> {
        let listen = settings.listen;
        let transport = Sealed { keys: settings.keys, cluster: settings.cluster.clone(), network };
        let failures = FailureDetectorConfig {
            // The library's prior of several seconds makes the first detections take most of a minute.
            initial_interval: Duration::from_secs(1).min(settings.interval * 4),
            dead_node_grace_period: settings.forget_after,
            ..FailureDetectorConfig::default()
        };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(settings.node.to_string(), settings.generation.0, settings.advertise),
            cluster_id: settings.cluster,
            gossip_interval: settings.interval,
            listen_addr: listen,
            seed_nodes: settings.seeds,
            failure_detector_config: failures,
            marked_for_deletion_grace_period: settings.forget_after,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let facts = facts.iter().map(|(fact, value)| (fact.key(), value.clone())).collect();
        let chitchat = spawn_chitchat(config, facts, &transport).await;
        let chitchat = chitchat.map_err(|error| JoinError { listen, source: error.into() })?;
        let mut live = chitchat.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let (seen, members) = watch::channel(Members::new());
        let view = tokio::spawn(async move {
            loop {
                let now: Members =
                    live.borrow_and_update().iter().filter_map(|(id, state)| member(id, state)).collect();
                seen.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
                if live.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Gossip { chitchat, members, view: view.abort_handle() })
    }

    /// Says something of this node, in the place of what it said before.
    pub async fn announce(&self, fact: &Fact, value: &str) {
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(fact.key(), value)).await;
    }

    /// Takes back what this node said.
    pub async fn withdraw(&self, fact: &Fact) {
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().delete(&fact.key())).await;
    }

    /// Who is alive as far as this node can tell, this node included.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.members.clone()
    }

    /// Stops gossiping and waits for the socket to close.
    pub async fn leave(self) {
        if let Err(error) = self.chitchat.initiate_shutdown() {
            warn!(%error, "gossip had already ended");
        }
        if let Err(error) = self.chitchat.termination_watcher().await {
            warn!(%error, "gossip did not end well");
        }
    }
}

/// Nothing for a node whose id is not ours: only members can seal, so it is a newer version's.
fn member(id: &ChitchatId, state: &NodeState) -> Option<(NodeId, Member)> {
    let node = NodeId(u64::from_str_radix(&id.node_id, 16).ok()?);
    let facts = state.key_values().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let generation = Generation(id.generation_id);
    Some((node, Member { node, generation, address: id.gossip_advertise_addr, facts }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Key;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn free_port() -> SocketAddr {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("its address")
    }

    fn settings(node: u64, at: SocketAddr, seed: SocketAddr, key: u8) -> Settings {
        Settings {
            node: NodeId(node),
            generation: Generation(1),
            cluster: "test".into(),
            keys: Keys { seal: Key([key; 32]), also_open: Vec::new() },
            listen: at,
            advertise: at,
            seeds: vec![seed.to_string()],
            interval: Duration::from_millis(50),
            forget_after: Duration::from_secs(60),
        }
    }

    async fn wait(gossip: &Gossip, what: &str, ready: impl Fn(&Members) -> bool) {
        let mut members = gossip.members();
        let seen = tokio::time::timeout(PATIENCE, members.wait_for(|members| ready(members))).await;
        assert!(seen.is_ok(), "{what}: {:?}", gossip.members().borrow());
    }

    #[tokio::test]
    async fn members_find_each_other_hear_facts_and_notice_who_leaves() {
        let (a, b, c) = (free_port(), free_port(), free_port());
        let version = [(Fact::Version, "0.1.0".to_owned())];
        let one = Gossip::join(settings(1, a, b, 7), &version).await.expect("joined");
        let two = Gossip::join(settings(2, b, a, 7), &version).await.expect("joined");
        wait(&one, "two is seen with its version", |members| {
            members.get(&NodeId(2)).is_some_and(|two| two.fact(&Fact::Version) == Some("0.1.0"))
        })
        .await;

        two.announce(&Fact::Leads(3), "term 4").await;
        let leads =
            |members: &Members| members.get(&NodeId(2)).and_then(|two| two.fact(&Fact::Leads(3)).map(str::to_owned));
        wait(&one, "an announcement travels", |members| leads(members).as_deref() == Some("term 4")).await;
        two.withdraw(&Fact::Leads(3)).await;
        wait(&one, "a withdrawal travels", |members| leads(members).is_none()).await;

        // The control of the sealing: with another key the same node is never seen, and sees nobody.
        let stranger = Gossip::join(settings(3, c, a, 8), &version).await.expect("listens");
        wait(&stranger, "the stranger sees itself", |members| members.len() == 1).await;

        two.leave().await;
        wait(&one, "who leaves is gone", |members| !members.contains_key(&NodeId(2))).await;
        assert!(!one.members().borrow().contains_key(&NodeId(3)), "a stranger is no member");
        assert_eq!(stranger.members().borrow().len(), 1, "a stranger sees no member");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let at = taken.local_addr().expect("its address");
        let error = Gossip::join(settings(1, at, at, 7), &[]).await.err().expect("refused");
        assert!(error.to_string().contains(&at.to_string()), "{error}");
    }
}
