//! Compiles the .proto files into OUT_DIR, without protoc.

use prost::Message;

/// What is published for clients.
const PUBLISHED: [&str; 4] = [
    "caxton/v1/conversations.proto",
    "caxton/v1/deployments.proto",
    "caxton/v1/mailbox.proto",
    "caxton/v1/messages.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        [
            "caxton/log/v1/log.proto",
            "caxton/memory/v1/memory.proto",
            "caxton/messages/v1/messages.proto",
            "caxton/peer/v1/peer.proto",
            "caxton/shard/v1/shard.proto",
        ],
        ["proto"],
    )?;
    // Blobs, the log's messages and what is in an envelope are shared and not copied.
    let shared = tonic_prost_build::configure().bytes(".caxton.peer.v1").bytes(".caxton.shard.v1.Envelope");
    shared.compile_fds(files)?;
    // What clients call: its descriptors go into the binary, which tells them to whoever asks.
    let published = protox::compile(PUBLISHED, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("caxton.v1.bin"), published.encode_to_vec())?;
    // Every client is in the tests of the node; its servers are handlers of its edge.
    tonic_prost_build::configure().build_server(false).compile_fds(published)?;
    Ok(())
}
