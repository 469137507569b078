//! One member as the others see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use caxton_proto::NodeId;

use crate::generation::Generation;

/// What a member says of itself. Each is a hint: it can be seconds old.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Where its peers reach it, `HOST:PORT`.
    PeerAddress,
    /// Which process it is: the number of its start, as its peers know it.
    Life,
    /// How busy it is: requests under way over the most it takes, 0.0 to 1.0.
    Load,
}

impl Fact {
    /// The key under which the fact travels. Keys are part of the protocol between versions: add, never change. Builds before
    /// this one also say `client`, `version`, `catalog/WORKSPACE` and `leads/GROUP`, which nobody reads.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Fact::PeerAddress => "peer",
            Fact::Life => "life",
            Fact::Load => "load",
        }
    }
}

/// A member that is alive as far as this node can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node's id, which it keeps over all its lives.
    pub node: NodeId,
    /// Which life of it.
    pub generation: Generation,
    /// Where its gossip arrives.
    pub address: SocketAddr,
    pub(crate) facts: BTreeMap<String, String>,
}

impl Member {
    /// What it says of itself, where it said anything.
    pub fn fact(&self, fact: &Fact) -> Option<&str> {
        self.facts.get(fact.key()).map(String::as_str)
    }
}

/// All that are alive, this node included.
pub type Members = BTreeMap<NodeId, Member>;
