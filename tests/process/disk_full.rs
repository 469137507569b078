//! A full disk: deployments are refused, reads go on, and nothing is lost when space returns.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Node, Place, agent};

/// The size of the small disk.
const DISK: &str = "size=96m";
/// What the node keeps free for its log.
const RESERVE: (&str, &str) = ("CAXTON_DISK_RESERVE_BYTES", "16MiB");

/// A small disk, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then(|| SmallDisk(at.to_owned()))
    }

    /// Leaves about `left` bytes free.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("a file");
        let piece = vec![0u8; 64 << 10];
        while free(&self.0) > left.max(piece.len() as u64) && file.write_all(&piece).is_ok() {}
        if left == 0 {
            // The last bytes, until the disk says no.
            while file.write_all(&piece[..4096]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is still ending may have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn free(at: &Path) -> u64 {
    let disk = rustix::fs::statvfs(at).expect("the disk's numbers");
    disk.f_bavail * disk.f_frsize
}

#[test]
fn a_full_disk_refuses_deployments_and_loses_nothing() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place.dir.path().join("disk")) else {
        println!("skipped: a small disk cannot be mounted here (that takes root)");
        return;
    };
    let data = disk.0.join("data");
    std::os::unix::fs::symlink(&data, place.data()).expect("a symlink");
    let node = Node::start_with(&data, &[RESERVE]);
    let workspace = place.workspace("work");
    assert_eq!(workspace.deploy().json()["revision"], 1);
    let root = workspace.root_digest();

    for (round, left) in [8u64 << 20, 0].into_iter().enumerate() {
        let filler = disk.fill(left);
        workspace.write("agents/greeter.toml", agent("greeter", &format!("2.0.{round}")));
        workspace.write("prompts/large.md", format!("{round} of many words.\n").repeat(20_000));
        let refused = workspace.run(&["deploy", "--yes"]);
        assert_eq!(refused.code, Some(7), "a full disk is a refusal: {refused:#?}");
        assert!(refused.stderr.contains("disk") && refused.stderr.contains("help:"), "{}", refused.stderr);
        // Reads go on.
        let status = workspace.run(&["status", "--json"]).json();
        assert_eq!(status["live"]["root"], root.as_str());
        let shown = workspace.run(&["agents", "show", "greeter", "--json"]).json();
        assert!(shown["source"].as_str().is_some_and(|source| source.contains("1.0.0")), "{shown}");
        std::fs::remove_file(filler).expect("removed");
    }

    // Space is back: the same deployment goes through, and a restart finds both.
    assert_eq!(workspace.deploy().json()["revision"], 2);
    let root = workspace.root_digest();
    assert!(node.terminate().success());
    let _node = Node::start_with(&data, &[RESERVE]);
    let log = workspace.run(&["log", "--json"]).json();
    assert_eq!(log["deployments"].as_array().map(Vec::len), Some(2));
    assert_eq!(log["deployments"][0]["root"], root.as_str());
}
