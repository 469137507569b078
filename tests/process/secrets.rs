//! `caxton secrets`, and a search for the value in everything that the command and the node leave behind.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::run::{Node, Place, caxton};

const VALUE: &str = "sk-never-logged-0f9e8d7c6b5a";

fn set(place: &Place, root: &Path, args: &[&str], input: &str) -> std::process::Output {
    let mut command = caxton(root);
    command.current_dir(root).arg("--data-dir").arg(place.data()).args(["secrets", "set"]).args(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("its input");
    // A command that refuses its arguments does not read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("its end")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_value_from_standard_input_is_kept_and_appears_nowhere() {
    let place = Place::new();
    let workspace = place.workspace("work");
    // Everything that the node could possibly say.
    let node = Node::start_with(&place.data(), &[("CAXTON_TELEMETRY_FILTER", "trace")]);
    let output = set(&place, &workspace.root, &["LAB_KEY"], &format!("{VALUE}\n"));
    assert!(output.status.success(), "{output:?}");
    let listed = workspace.run(&["secrets", "list"]).ok();
    assert!(listed.contains("LAB_KEY") && listed.contains("admin"), "{listed}");
    for wrong in [&["LAB_KEY", VALUE] as &[&str], &[&format!("LAB_KEY={VALUE}")], &[VALUE]] {
        let refused = set(&place, &workspace.root, wrong, "");
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(!String::from_utf8_lossy(&refused.stderr).contains(VALUE), "{refused:?}");
    }
    let empty = set(&place, &workspace.root, &["LAB_KEY"], "\n");
    assert_eq!(empty.status.code(), Some(2), "{empty:?}");
    assert!(workspace.run(&["secrets", "remove", "LAB_KEY", "--json"]).json()["removed"] == "LAB_KEY");
    assert_eq!(workspace.run(&["secrets", "remove", "LAB_KEY"]).code, Some(1));
    assert_eq!(workspace.run(&["secrets", "list", "--json"]).json()["secrets"].as_array().map(Vec::len), Some(0));
    node.terminate();
    let all = files(place.dir.path());
    let holds = |path: &PathBuf, text: &str| {
        std::fs::read(path).expect("a file").windows(text.len()).any(|part| part == text.as_bytes())
    };
    let log = place.dir.path().join("serve.log");
    assert!(holds(&log, "secret set") && holds(&log, "LAB_KEY"), "the log does not say that a secret was set");
    let leaked: Vec<_> = all.iter().filter(|path| holds(path, VALUE)).collect();
    assert!(leaked.is_empty(), "the value is in {leaked:?}");
}
