//! What the benchmarks share: nodes as processes of their own, one or three, clients of HTTP and WebSocket, the map that puts go
//! into, figures, and whether the disk stood still.

pub mod cluster;
pub mod disk;
pub mod figures;
pub mod http;
pub mod map;
pub mod node;
pub mod socket;

/// The part of etcd's protocol that puts need.
#[expect(missing_docs, unused_qualifications, reason = "tonic wrote it")]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
