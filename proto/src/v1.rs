//! What clients call over gRPC: the messages, the clients and the descriptors of the published .proto files.

/// Generated from the files in proto/caxton/v1.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::doc_markdown, reason = "prost writes it")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/caxton.v1.rs"));
}

/// The descriptors of the published files with those that they import, as a `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/caxton.v1.bin"));
