//! Two programs that talk, from the commands with which somebody deploys and watches them.

use std::fs;

use crate::run::{Node, Place, Workspace, wait_for};

#[test]
fn ping_and_pong_are_deployed_alone_and_their_talk_is_in_the_log() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    // No workspace is around it.
    let here = Workspace { root: place.dir.path().join("elsewhere"), data: place.data() };
    fs::create_dir_all(&here.root).expect("a folder");
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["ping", "pong"] {
        let module = examples.join(format!("{name}.wasm"));
        here.run(&["deploy", module.to_str().expect("UTF-8"), "--name", name, "--yes"]).ok();
    }
    wait_for("ping and pong to talk", || {
        let log = here.run(&["logs", "--agents", "ping,pong"]).ok();
        let said = |line: &str| log.matches(line).count() >= 2;
        (said("has a message of ping: request") && said("has a message of pong: inform")).then_some(())
    });
}
