//! Joining, announcing and leaving.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use caxton_proto::NodeId;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion, spawn_chitchat,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::generation::Generation;
use crate::last_lives::LastLives;
use crate::member::{Fact, Member, Members};
use crate::network::{Network, System};
use crate::seal::{Ciphers, Keys, SealedTransport};

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
    /// The UDP address that could not be listened on.
    pub listen: SocketAddr,
    /// What the system answered.
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A node's part in the gossip. Dropping it falls silent, and the others take the node for dead; [`Gossip::leave`] says so.
pub struct Gossip {
    chitchat: ChitchatHandle,
    members: watch::Receiver<Members>,
    view: AbortHandle,
    ciphers: Ciphers,
}

/// Gives a gossip other keys while it goes on. A clone is a handle on the same.
#[derive(Clone)]
pub struct Rekeyer(Ciphers);

impl Rekeyer {
    /// Seals and opens with these from now on. Nothing that was said is said again.
    pub fn rekey(&self, keys: &Keys) {
        if let Err(error) = self.0.replace(keys) {
            // A key has 32 bytes, so this cannot happen; the keys before go on.
            warn!(%error, "gossip could not be given its new keys");
        }
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.view.abort();
    }
}

impl Gossip {
    /// Starts to gossip with `facts` as the first announcement. Returns at once: members turn up in [`Gossip::members`].
    pub async fn join(settings: Settings, facts: &[(Fact, String)]) -> Result<Gossip, JoinError> {
        Gossip::join_among(settings, facts, watch::Sender::default().subscribe()).await
    }

    /// The same, where `lives` says which process a node is ([`Fact::Life`], in hexadecimal digits): of a node that is in it,
    /// no other process is a member.
    pub async fn join_among(
        settings: Settings,
        facts: &[(Fact, String)],
        lives: watch::Receiver<BTreeMap<NodeId, u64>>,
    ) -> Result<Gossip, JoinError> {
        Gossip::join_over(System, settings, facts, lives).await
    }

    /// The same over another network than the system's.
    pub(crate) async fn join_over(
        network: impl Network,
        settings: Settings,
        facts: &[(Fact, String)],
        mut lives: watch::Receiver<BTreeMap<NodeId, u64>>,
    ) -> Result<Gossip, JoinError> {
        let listen = settings.listen;
        let unusable = |error: anyhow::Error| JoinError { listen, source: error.into() };
        let ciphers = Ciphers::new(&settings.keys, &settings.cluster).map_err(unusable)?;
        let transport = SealedTransport { ciphers: ciphers.clone(), network };
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
        let facts = facts.iter().map(|(fact, value)| (fact.key().to_owned(), value.clone())).collect();
        let chitchat = spawn_chitchat(config, facts, &transport).await;
        let chitchat = chitchat.map_err(|error| JoinError { listen, source: error.into() })?;
        let mut live = chitchat.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let (seen, members) = watch::channel(Members::new());
        let mut last = LastLives::new(settings.forget_after);
        let view = tokio::spawn(async move {
            loop {
                let known = lives.borrow_and_update().clone();
                let now =
                    live.borrow_and_update().iter().filter_map(|(id, state)| member(id, state)).collect::<Vec<_>>();
                let now = now.into_iter().filter(|(_, member)| counts(member, &known)).collect();
                let now = last.only(now, Instant::now());
                seen.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
                tokio::select! {
                    changed = live.changed() => if changed.is_err() { return },
                    // Whoever says so may have ended; what was said last stands.
                    Ok(()) = lives.changed() => {}
                }
            }
        });
        Ok(Gossip { chitchat, members, view: view.abort_handle(), ciphers })
    }

    /// Says something of this node, in the place of what it said before.
    pub async fn announce(&self, fact: &Fact, value: &str) {
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(fact.key(), value)).await;
    }

    /// Gives this gossip other keys.
    pub fn rekeyer(&self) -> Rekeyer {
        Rekeyer(self.ciphers.clone())
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

/// Whether a member is the process that counts. One that says nothing of that is of a build that does not know of it.
fn counts(member: &Member, lives: &BTreeMap<NodeId, u64>) -> bool {
    let said = member.fact(&Fact::Life);
    lives.get(&member.node).zip(said).is_none_or(|(life, said)| format!("{life:x}") == said)
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
        let at = [(Fact::PeerAddress, "192.0.2.1:7412".to_owned())];
        let one = Gossip::join(settings(1, a, b, 7), &at).await.expect("joined");
        let two = Gossip::join(settings(2, b, a, 7), &at).await.expect("joined");
        wait(&one, "two is seen with its address", |members| {
            members.get(&NodeId(2)).is_some_and(|two| two.fact(&Fact::PeerAddress) == Some("192.0.2.1:7412"))
        })
        .await;

        let load = |members: &Members| members.get(&NodeId(2)).and_then(|two| two.fact(&Fact::Load).map(str::to_owned));
        for said in ["0.25", "0.50"] {
            two.announce(&Fact::Load, said).await;
            wait(&one, "an announcement travels", |members| load(members).as_deref() == Some(said)).await;
        }

        // The control of the sealing: with another key the same node is never seen, and sees nobody.
        let stranger = Gossip::join(settings(3, c, a, 8), &at).await.expect("listens");
        wait(&stranger, "the stranger sees itself", |members| members.len() == 1).await;

        two.leave().await;
        wait(&one, "who leaves is gone", |members| !members.contains_key(&NodeId(2))).await;
        assert!(!one.members().borrow().contains_key(&NodeId(3)), "a stranger is no member");
        assert_eq!(stranger.members().borrow().len(), 1, "a stranger sees no member");
    }

    #[tokio::test]
    async fn a_key_is_replaced_while_members_gossip() {
        let (a, b) = (free_port(), free_port());
        let one = Gossip::join(settings(1, a, b, 7), &[]).await.expect("joined");
        let two = Gossip::join(settings(2, b, a, 7), &[]).await.expect("joined");
        let both = [&one, &two];
        for keys in [(7, vec![8]), (8, vec![7]), (8, vec![])] {
            let key = |byte: u8| Key([byte; 32]);
            let keys = Keys { seal: key(keys.0), also_open: keys.1.into_iter().map(key).collect() };
            both.iter().for_each(|gossip| gossip.rekeyer().rekey(&keys));
            let said = format!("{keys:?} {:?}", keys.also_open.len());
            two.announce(&Fact::Load, &said).await;
            wait(&one, "what the other says", |members| {
                members.get(&NodeId(2)).and_then(|two| two.fact(&Fact::Load)) == Some(&said)
            })
            .await;
        }
        // The control: with the key that was dropped, nothing comes through.
        let late = Gossip::join(settings(3, free_port(), a, 7), &[]).await.expect("listens");
        wait(&late, "it sees itself", |members| members.contains_key(&NodeId(3))).await;
        two.announce(&Fact::Load, "once more").await;
        wait(&one, "what the other says", |members| {
            members.get(&NodeId(2)).and_then(|two| two.fact(&Fact::Load)) == Some("once more")
        })
        .await;
        assert!(!one.members().borrow().contains_key(&NodeId(3)), "the old key still opens");
    }

    #[tokio::test]
    async fn of_two_processes_of_one_node_only_the_one_that_counts_is_a_member() {
        let (a, b, c) = (free_port(), free_port(), free_port());
        let (says, lives) = watch::channel(BTreeMap::from([(NodeId(2), 0xb)]));
        let one = Gossip::join_among(settings(1, a, b, 7), &[], lives).await.expect("joined");
        let life = |life: &str| [(Fact::Life, life.to_owned())];
        let _first = Gossip::join(settings(2, b, a, 7), &life("b")).await.expect("joined");
        let copy = Settings { generation: Generation(2), ..settings(2, c, a, 7) };
        let copy = Gossip::join(copy, &life("c")).await.expect("joined");
        let at = |members: &Members| members.get(&NodeId(2)).map(|two| two.address);
        wait(&one, "the one that counts", |members| at(members) == Some(b)).await;
        // The copy has heard of this node, so this one has heard of the copy.
        wait(&copy, "the copy hears", |members| members.contains_key(&NodeId(1))).await;
        copy.announce(&Fact::Load, "0.9").await;
        assert_eq!(at(&one.members().borrow()), Some(b));
        says.send_replace(BTreeMap::from([(NodeId(2), 0xc)]));
        wait(&one, "the other counts now", |members| at(members) == Some(c)).await;
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let at = taken.local_addr().expect("its address");
        let error = Gossip::join(settings(1, at, at, 7), &[]).await.err().expect("refused");
        assert!(error.to_string().contains(&at.to_string()), "{error}");
    }
}
