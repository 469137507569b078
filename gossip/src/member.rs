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
    /// Where clients reach it, a URL.
    ClientAddress,
    /// Which process it is: the number of its start, as its peers know it.
    Life,
    /// The version of its binary.
    Version,
    /// How busy it is: requests under way over the most it takes, 0.0 to 1.0.
    Load,
    /// The root of the catalog that it serves of a workspace: two members with the same one have the same capabilities.
    Catalog(String),
    /// It leads the numbered group of the log.
    Leads(u32),
}

impl Fact {
    /// The key under which the fact travels. Keys are part of the protocol between versions: add, never change.
    pub(crate) fn key(&self) -> String {
        match self {
            Fact::PeerAddress => "peer".to_owned(),
            Fact::ClientAddress => "client".to_owned(),
            Fact::Life => "life".to_owned(),
            Fact::Version => "version".to_owned(),
            Fact::Load => "load".to_owned(),
            Fact::Catalog(workspace) => format!("catalog/{workspace}"),
            Fact::Leads(group) => format!("leads/{group}"),
        }
    }
}

/// A member that is alive as far as this node can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
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
        self.facts.get(&fact.key()).map(String::as_str)
    }
}

/// All that are alive, this node included.
pub type Members = BTreeMap<NodeId, Member>;
