//! Starting and stopping.

use std::time::{Duration, Instant};

use caxton::node::{Node, StartError};
use reqwest::Method;
use serde_json::Value;

use crate::bench::{Bench, config, read};

#[tokio::test]
async fn a_second_node_on_the_data_directory_is_refused_and_names_the_first() {
    let bench = Bench::new(&[]).await;
    let error = Node::start(config(bench.dir.path(), &[])).await.err().expect("is refused");
    let own = std::process::id().to_string();
    assert!(matches!(&error, StartError::Locked { pid: Some(pid), .. } if *pid == own), "{error}");
    assert!(error.to_string().contains(&format!("process {own}")) && error.help().is_some());
    let bench = Bench::on(bench.stop().await, &[]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_what_to_do() {
    let bench = Bench::new(&[]).await;
    let other = tempfile::tempdir().expect("a folder");
    let bind = format!("http.bind={}", bench.node.addr());
    let error = Node::start(config(other.path(), &[&bind])).await.err().expect("is refused");
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("--bind")));
    bench.stop().await;
}

#[tokio::test]
async fn the_address_is_written_down_while_the_node_runs() {
    let bench = Bench::new(&[]).await;
    let path = bench.dir.path().join("server.json");
    let file: Value = serde_json::from_slice(&std::fs::read(&path).expect("is there")).expect("JSON");
    assert_eq!((file["url"].as_str(), file["pid"].as_u64()), (Some(bench.node.url()), Some(std::process::id().into())));
    let dir = bench.stop().await;
    assert!(!path.exists());
    drop(dir);
}

#[tokio::test]
async fn a_stop_lets_what_is_being_answered_end_and_cuts_off_what_goes_on() {
    let bench = Bench::new(&["stop.grace=300ms"]).await;
    let stream = bench.request(Method::GET, "/api/v1/events").send().await.expect("an answer");
    // A request whose body never ends would go on for ever.
    let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<bytes::Bytes, std::io::Error>>();
    sender.unbounded_send(Ok(bytes::Bytes::from_static(b"{"))).expect("is read");
    let endless = bench.request(Method::POST, "/api/v1/tokens").header("content-type", "application/json");
    let endless = tokio::spawn(endless.body(reqwest::Body::wrap_stream(receiver)).send());
    let before = Instant::now();
    let url = bench.node.url().to_owned();
    let client = bench.client.clone();
    bench.stop().await;
    assert!(before.elapsed() < Duration::from_secs(5), "took {:?}", before.elapsed());
    let text = stream.text().await.expect("the stream ends whole");
    assert!(text.contains("event: closed") && text.contains("the node is stopping"), "{text}");
    assert!(client.get(format!("{url}/health")).send().await.is_err(), "still listens");
    let _ = endless.await.expect("no panic");
    drop(sender);
}

#[tokio::test]
async fn a_node_with_an_empty_directory_is_ready_soon() {
    let dir = tempfile::tempdir().expect("a folder");
    let before = Instant::now();
    let bench = Bench::on(dir, &[]).await;
    let took = before.elapsed();
    assert_eq!(read(bench.request(Method::GET, "/ready")).await.0, 200);
    // The figure to reach is 100 ms on a quiet machine, in an optimised build; benches/ measures it. An election that
    // has to be waited for would take a second.
    assert!(took < Duration::from_millis(900), "took {took:?}");
    bench.stop().await;
}

#[tokio::test]
async fn folders_that_were_there_before_are_closed_to_others_and_links_are_not_followed() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("changed");
    };
    let (dir, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for name in ["keys", "raft"] {
        std::fs::create_dir(dir.path().join(name)).expect("made");
        open(&dir.path().join(name));
    }
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("mine")).expect("a link");
    [dir.path(), elsewhere.path()].into_iter().for_each(open);
    let bench = Bench::on(dir, &[]).await;
    assert_eq!(mode(bench.dir.path()), 0o700);
    let folders = std::fs::read_dir(bench.dir.path()).expect("a folder").map(|entry| entry.expect("an entry"));
    let folders: Vec<_> = folders.filter(|it| it.file_type().expect("a type").is_dir()).collect();
    assert!(folders.len() > 3, "{folders:?}");
    for folder in folders {
        assert_eq!(mode(&folder.path()), 0o700, "{folder:?}");
    }
    assert_eq!(mode(elsewhere.path()), 0o755, "what a link leads to is none of its folders");
    bench.stop().await;
}
