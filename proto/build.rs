//! Compiles the .proto files into OUT_DIR, without protoc.

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
    Ok(())
}
