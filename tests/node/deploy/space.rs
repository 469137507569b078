//! A full disk: new work is refused, what runs is finished, reads go on, and nothing is lost when space returns.

use std::io::Write;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::{Content, at, framed, noise};
use crate::bench::{Bench, read, refused};
use crate::messages::{chart, gated, with};
use caxton_proto::Digest;

#[tokio::test]
async fn below_the_reserve_uploads_and_proposals_are_refused_and_reads_go_on() {
    let bench = Bench::new(&[]).await;
    let (one, two) = (Content::of(&["a"], "one"), Content::of(&["a"], "two"));
    bench.deploy(&one, 0, &Content::default(), "k1").await;
    bench.send(&two).await;
    bench.node.parts().artifacts.space().set_reserve_bytes(u64::MAX);
    let refusal = refused(bench.upload(framed(&[(Digest::of(b"x"), b"x".to_vec())])), 507, "disk_full").await;
    assert!(refusal["help"].as_str().is_some_and(|help| help.contains("free space")), "{refusal}");
    // Its files are all there, and yet the log must not grow.
    refused(bench.post("/deployments", &two.request(1, &one, "k2")), 507, "disk_full").await;
    refused(
        bench.post("/rollback", &serde_json::json!({"to": 1, "parent": 1, "idempotency_key": "r"})),
        507,
        "disk_full",
    )
    .await;
    assert_eq!(bench.says("a").await.as_deref(), Some("says one"));
    assert_eq!(bench.live().await["revision"], 1);
    bench.node.parts().artifacts.space().set_reserve_bytes(0);
    let (status, body) = read(bench.post("/deployments", &two.request(1, &one, "k2"))).await;
    assert_eq!((status, &body["deployment"]["revision"]), (200, &serde_json::json!(2)), "{body}");
    bench.stop().await;
}

/// A small disk of its own, for as long as the value lives.
struct SmallDisk(tempfile::TempDir);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

fn mount(bytes: u64) -> Option<SmallDisk> {
    let dir = tempfile::tempdir().expect("a folder");
    let size = format!("size={bytes}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
    mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk(dir))
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
async fn a_disk_that_is_really_full_is_survived() {
    let Some(disk) = mount(96 << 20) else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let home = tempfile::tempdir_in(disk.0.path()).expect("a folder");
    // More than what the store could give back by itself once the disk is full.
    let bench = Bench::on(home, &["disk.reserve_bytes=40MiB"]).await;
    let one = Content::of(&["a"], "one");
    bench.deploy(&one, 0, &Content::default(), "k1").await;
    let full = async || {
        for seed in 0u64..200 {
            let blobs: Vec<_> = (0..16).map(|n| noise(64 << 10, seed * 16 + n)).map(|b| (Digest::of(&b), b)).collect();
            let (status, body) = read(bench.upload(framed(&blobs))).await;
            if status != 200 {
                assert_eq!((status, &body["code"]), (507, &serde_json::json!("disk_full")), "{body}");
                return;
            }
        }
        panic!("the disk has no end");
    };
    full().await;
    let mut somebody_else = std::fs::File::create(disk.0.path().join("somebody-else-s")).expect("a file");
    while bench.node.parts().artifacts.space().free_bytes().expect("a size") > 8 << 20 {
        somebody_else.write_all(&[7; 1 << 20]).expect("written");
    }
    let two = Content::of(&["a"], "two");
    let sent = bench.upload(framed(&two.cut().1));
    let _ = read(sent).await;
    let request = two.request(1, &one, "k2");
    // The blobs may or may not have fitted; the deployment must not.
    let (status, _) = read(bench.post("/deployments", &request)).await;
    assert!(matches!(status, 507 | 412), "{status}");
    assert_eq!(bench.says("a").await.as_deref(), Some("says one"));
    assert_eq!(read(bench.request(Method::GET, &at("/deployments"))).await.0, 200);

    let grown = Command::new("mount").args(["-o", "remount,size=256m"]).arg(disk.0.path()).status().expect("mount");
    assert!(grown.success());
    bench.deploy(&two, 1, &one, "k2").await;
    assert_eq!(bench.says("a").await.as_deref(), Some("says two"));
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(bench.says("a").await.as_deref(), Some("says two"));
    assert_eq!(bench.live().await["revision"], 2);
    drop(bench.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_no_new_work_begins_and_what_waits_is_finished() {
    let bench = with(&gated()).await;
    let mut message = chart();
    message["conversation"] = json!("c-1");
    message["create"] = json!(true);
    message["idempotency_key"] = json!("k-1");
    let (status, waiting) = read(bench.post("/messages", &message)).await;
    assert_eq!(status, 202, "{waiting}");
    let space = bench.node.parts().artifacts.space();
    space.set_reserve_bytes(u64::MAX);
    // Whatever makes the log grow and can be asked for again.
    refused(bench.post("/messages", &chart()), 507, "disk_full").await;
    let completion = json!({ "model": "auto", "messages": [{ "role": "user", "content": "hello" }] });
    let (status, said) = read(bench.request(Method::POST, "/v1/chat/completions").json(&completion)).await;
    assert_eq!(status, 507, "{said}");
    let token = json!({ "subject": "late", "role": "viewer" });
    refused(bench.request(Method::POST, "/api/v1/tokens").json(&token), 507, "disk_full").await;
    let secret = json!({ "value": "v" });
    refused(bench.request(Method::PUT, &at("/secrets/LATE")).json(&secret), 507, "disk_full").await;
    // What was begun goes on: its sender hears how it is, and a person decides.
    let (status, again) = read(bench.post("/messages", &message)).await;
    assert_eq!((status, &again["turn"]), (202, &waiting["turn"]), "{again}");
    let path = format!("/approvals/{}", waiting["approvals"][0]["id"].as_str().expect("an id"));
    let (status, answer) = read(bench.post(&path, &json!({ "approve": true }))).await;
    assert_eq!((status, answer["turn"].as_str()), (200, waiting["turn"].as_str()), "{answer}");
    let (status, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    assert_eq!(status, 200, "{shown}");
    // Space is back.
    space.set_reserve_bytes(0);
    assert_eq!(read(bench.post("/messages", &chart())).await.0, 202);
    bench.stop().await;
}
