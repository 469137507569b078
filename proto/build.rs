//! Compiles the .proto files into OUT_DIR, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        ["caxton/log/v1/log.proto", "caxton/memory/v1/memory.proto", "caxton/peer/v1/peer.proto"],
        ["proto"],
    )?;
    // Blobs and the log's messages are shared and not copied.
    tonic_prost_build::configure().bytes(".caxton.peer.v1").compile_fds(files)?;
    Ok(())
}
