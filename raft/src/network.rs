//! How a group reaches its other voters. No group has any yet: each attempt says which node there is no connection to.

use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};

use crate::types::TypeConfig;

type RpcError<E = RaftError<u64>> = RPCError<u64, BasicNode, E>;

/// There is no connection to a node.
#[derive(Debug, thiserror::Error)]
#[error("there is no connection to node {node:x}")]
struct NoConnection {
    node: u64,
}

/// Knows the way to no node.
pub struct Peers;

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer { node: target }
    }
}

/// A node that cannot be reached.
pub struct Peer {
    node: u64,
}

impl Peer {
    fn unreachable<E: std::error::Error>(&self) -> RpcError<E> {
        RPCError::Unreachable(Unreachable::new(&NoConnection { node: self.node }))
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        Err(self.unreachable())
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<RaftError<u64, InstallSnapshotError>>> {
        Err(self.unreachable())
    }

    async fn vote(&mut self, _rpc: VoteRequest<u64>, _option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        Err(self.unreachable())
    }
}
