//! What the benchmarks share: nodes as processes of their own, clients of HTTP, the map that puts go into, figures, and whether
//! the disk stood still.

pub mod disk;
pub mod figures;
pub mod http;
pub mod map;
pub mod node;

/// The part of etcd's protocol that puts need.
#[expect(missing_docs, unused_qualifications, reason = "tonic wrote it")]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
