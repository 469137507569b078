//! Tools in the real binary: what compiles them, and what a crash leaves behind.

use std::fs;

use crate::run::{Node, PROGRAM, Place};

#[test]
fn a_binary_under_another_name_compiles_by_a_process_and_clears_what_a_crash_left() {
    let place = Place::new();
    let renamed = place.dir.path().join("agentd");
    if fs::hard_link(PROGRAM, &renamed).is_err() {
        fs::copy(PROGRAM, &renamed).expect("a copy");
    }
    let left = place.data().join("scratch/call-left/deep");
    fs::create_dir_all(&left).expect("a folder");
    fs::write(left.join("file"), "left by a crash").expect("a file");

    let node = Node::start_as(&renamed, &place.data(), &[]);
    assert!(!place.data().join("scratch/call-left").exists(), "what a crash left is still there");
    let workspace = place.workspace("work");
    workspace.write("tools/csv-reader/csv-reader.wasm", caxton_tools::examples::CSV_READER);
    workspace.write(
        "tools/csv-reader/tool.toml",
        "[tool]\nname = \"csv-reader\"\nkind = \"component\"\nmodule = \"csv-reader.wasm\"\n",
    );
    workspace.deploy().ok();
    // The file that a running program was started from may go, as with an upgrade: it still compiles.
    fs::remove_file(&renamed).expect("removed");
    workspace.write("tools/stats/stats.wasm", caxton_tools::examples::STATS);
    workspace
        .write("tools/stats/tool.toml", "[tool]\nname = \"stats\"\nkind = \"component\"\nmodule = \"stats.wasm\"\n");
    workspace.deploy().ok();
    let called = workspace.run(&["tools", "call", "csv-reader", "{\"text\": \"a,b\\n1,2\"}", "--json"]).json();
    assert_eq!(called["result"]["is_error"], false, "{called}");
    node.terminate();
    let log = fs::read_to_string(place.dir.path().join("serve.log")).expect("a log");
    assert!(log.contains("tool compiled") && !log.contains("process of their own"), "{log}");
}
