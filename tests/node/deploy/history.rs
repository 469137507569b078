//! What was live before: read, put back, and forgotten.

use std::time::Duration;

use caxton_proto::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Content, at};
use crate::bench::{Bench, read, refused};

/// Deploys revisions 1 to `count`, the content of each saying its number.
async fn deployed(bench: &Bench, count: u64) -> Vec<Content> {
    let mut contents = vec![Content::default()];
    for n in 1..=count {
        let content = Content::of(&["a", "b"], "same").agent("a", &n.to_string());
        bench.deploy(&content, n - 1, &contents[n as usize - 1], &format!("k{n}")).await;
        contents.push(content);
    }
    contents
}

fn rollback(to: u64, parent: u64, key: &str) -> Value {
    json!({"to": to, "parent": parent, "idempotency_key": key, "message": "back"})
}

#[tokio::test]
async fn a_rollback_is_a_new_deployment_of_old_content() {
    let bench = Bench::new(&[]).await;
    deployed(&bench, 3).await;
    let (status, body) = read(bench.post("/rollback", &rollback(1, 3, "r1"))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["deployment"]["revision"], &body["deployment"]["rollback_to"]), (&json!(4), &json!(1)));
    assert_eq!(bench.says("a").await.as_deref(), Some("says 1"));
    // Retried it is the same one, and from a stale view it is a conflict.
    let (_, again) = read(bench.post("/rollback", &rollback(1, 3, "r1"))).await;
    assert_eq!((&again["repeated"], &again["deployment"]["revision"]), (&json!(true), &json!(4)));
    refused(bench.post("/rollback", &rollback(2, 3, "r2")), 409, "conflict").await;
    let body = refused(bench.post("/rollback", &rollback(9, 4, "r3")), 404, "not_found").await;
    assert!(
        body["detail"].as_str().is_some_and(|detail| detail.contains("r9") && detail.contains("r1 to r4")),
        "{body}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn the_history_is_read_in_pages_from_the_newest() {
    let bench = Bench::new(&[]).await;
    deployed(&bench, 5).await;
    let mut revisions = Vec::new();
    let mut path = at("/deployments?limit=2");
    loop {
        let (status, page) = read(bench.request(Method::GET, &path)).await;
        assert_eq!(status, 200, "{page}");
        let found = page["deployments"].as_array().expect("deployments");
        revisions.extend(found.iter().map(|deployment| deployment["revision"].as_u64().expect("a revision")));
        let Some(next) = page["next"].as_u64() else { break };
        path = at(&format!("/deployments?limit=2&before={next}"));
    }
    assert_eq!(revisions, [5, 4, 3, 2, 1]);
    let (_, one) = read(bench.request(Method::GET, &at("/deployments/r2"))).await;
    assert_eq!((&one["revision"], &one["parent"]), (&json!(2), &json!(1)));
    assert!(one["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    refused(bench.request(Method::GET, &at("/deployments/r77")), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_collection_removes_what_no_kept_revision_names_and_nothing_else() {
    let bench = Bench::new(&["deploy.revisions_kept=2"]).await;
    let contents = deployed(&bench, 4).await;
    let stray = Content::default().file("prompts/stray.md", "sent, and never deployed");
    bench.send(&stray).await;
    let own = |content: &Content| -> Vec<Digest> { content.tree().files().values().map(|file| file.digest).collect() };
    let missing = async |digests: Vec<Digest>| {
        let (_, body) = read(bench.post("/artifacts/missing", &json!({"digests": digests}))).await;
        serde_json::from_value::<Vec<Digest>>(body["missing"].clone()).expect("digests")
    };
    let workspace = "demo".parse().expect("a name");
    // What is young may belong to a deployment that is still to come.
    let young = bench
        .node
        .parts()
        .deployer
        .collector()
        .collect(&workspace, Duration::from_secs(3_600))
        .await
        .expect("collected");
    assert_eq!(young.blobs, 0);
    // What was stored in this very millisecond stays until the next, and a catalog that somebody still prepares keeps its
    // files: collected until all is gone that has to go.
    let (mut removed, deadline) = (0, std::time::Instant::now() + Duration::from_secs(60));
    while removed < 5 && std::time::Instant::now() < deadline {
        let collected = bench.node.parts().deployer.collector().collect(&workspace, Duration::ZERO).await;
        removed += collected.expect("collected").blobs;
    }
    let more = bench.node.parts().deployer.collector().collect(&workspace, Duration::ZERO).await.expect("collected");
    let removed = removed + more.blobs;
    // The agent `a` of r1 and r2, the root nodes of both, and the stray.
    assert_eq!(removed, 5);
    let a_of = |n: usize| contents[n].tree().files()["agents/a.toml"].digest;
    assert_eq!(missing(own(&contents[1])).await, [a_of(1)]);
    assert_eq!(missing(own(&contents[2])).await, [a_of(2)]);
    assert_eq!(missing(own(&stray)).await, own(&stray));
    assert_eq!(missing([own(&contents[3]), own(&contents[4])].concat()).await, []);

    let body = refused(bench.post("/rollback", &rollback(1, 4, "r1")), 404, "not_found").await;
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("r3 to r4 are kept")), "{body}");
    let (status, body) = read(bench.post("/rollback", &rollback(3, 4, "r2"))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(bench.says("a").await.as_deref(), Some("says 3"));
    let bench = Bench::on(bench.stop().await, &["deploy.revisions_kept=2"]).await;
    assert_eq!(bench.says("a").await.as_deref(), Some("says 3"));
    bench.stop().await;
}

#[tokio::test]
async fn deployments_and_collections_at_once_lose_nothing() {
    let bench = Bench::new(&["deploy.revisions_kept=1"]).await;
    let workspace = "demo".parse().expect("a name");
    let stop = tokio_util::sync::CancellationToken::new();
    // The node's own collector, which shares the pins with its deployments.
    let collector = bench.node.parts().deployer.collector();
    let collecting = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut runs = 0;
            while !stop.is_cancelled() {
                collector.collect(&workspace, Duration::ZERO).await.expect("collected");
                runs += 1;
            }
            runs
        }
    });
    // Back and forth between two contents, so that what was just dropped is wanted again.
    let contents = [Content::of(&["a", "b"], "even"), Content::of(&["a", "b"], "odd")];
    let mut live = Content::default();
    let mut revision = 0;
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while revision < 30 {
        assert!(tokio::time::Instant::now() < until, "no deployment gets through");
        let next = &contents[revision as usize % 2];
        bench.send(next).await;
        let request = next.request(revision, &live, &format!("k{revision}"));
        let (status, body) = read(bench.post("/deployments", &request)).await;
        match status {
            200 => {
                assert_eq!(body["serving"]["state"], "live", "{body}");
                (revision, live) = (revision + 1, next.clone());
                let word = if revision % 2 == 1 { "says even" } else { "says odd" };
                assert_eq!(bench.says("a").await.as_deref(), Some(word));
            }
            // Without any grace, what was sent may be gone before it is deployed; it is sent again.
            412 => {}
            other => panic!("{other}: {body}"),
        }
    }
    stop.cancel();
    assert!(collecting.await.expect("no panic") > 0);
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(bench.live().await["serving"], json!({"state": "live", "revision": 30}));
    assert_eq!(bench.says("b").await.as_deref(), Some("says odd"));
    bench.stop().await;
}
