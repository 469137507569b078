//! What is sent and fetched: whole, checked, and seen by its own workspace only.

use caxton::api::frame;
use caxton_proto::Digest;
use caxton_proto::tree::{Descent, Tree};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Content, at, framed, noise, upsert};
use crate::bench::{Bench, DEADLINE, read, refused};

fn named(content: &[u8]) -> (Digest, Vec<u8>) {
    (Digest::of(content), content.to_vec())
}

#[tokio::test]
async fn a_wrong_checksum_and_a_truncated_upload_store_nothing() {
    let bench = Bench::new(&[]).await;
    let good = named(b"good");
    let mut body = framed(&[good.clone(), (Digest::of(b"this"), b"that".to_vec())]);
    let refusal = refused(bench.upload(body.clone()), 400, "digest_mismatch").await;
    assert_eq!(refusal["digest"], json!(Digest::of(b"this")));
    assert_eq!(refusal["found"], json!(Digest::of(b"that")));
    body.truncate(body.len() - 2);
    let refusal = refused(bench.upload(body), 400, "invalid_request").await;
    assert!(refusal["detail"].as_str().is_some_and(|detail| detail.contains("middle of a blob")), "{refusal}");
    let (_, asked) = read(bench.post("/artifacts/missing", &json!({"digests": [good.0]}))).await;
    assert_eq!(asked["missing"], json!([good.0]), "a part of a refused body was stored");
    bench.stop().await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_before_it_is_whole() {
    let bench = Bench::new(&[]).await;
    // Framed as it should be, so that its size is all that is wrong with it.
    let blobs: Vec<_> = (0..1_600u64).map(|n| named(&noise(64 << 10, n))).collect();
    let body = framed(&blobs);
    assert!(body.len() > 100 << 20);
    let refusal = bench.upload(body).send().await;
    // The server answers and closes; a client that is still sending may see only the closing.
    if let Ok(answer) = refusal {
        assert_eq!(answer.status(), 413);
    }
    let text = vec![b' '; 100 << 20];
    let json = bench.request(Method::POST, &at("/deployments")).header("content-type", "application/json").body(text);
    if let Ok(answer) = json.send().await {
        assert_eq!(answer.status(), 413);
    }
    let (_, asked) = read(bench.post("/artifacts/missing", &json!({"digests": [blobs[0].0]}))).await;
    assert_eq!(asked["missing"], json!([blobs[0].0]));
    assert_eq!(read(bench.request(Method::GET, "/health")).await.0, 200);
    bench.stop().await;
}

#[tokio::test]
async fn artifacts_that_were_not_sent_are_listed() {
    let bench = Bench::new(&[]).await;
    let content = Content::of(&["a", "b"], "one");
    let refusal =
        refused(bench.post("/deployments", &content.request(0, &Content::default(), "k")), 412, "artifacts_missing");
    let refusal = refusal.await;
    let mut missing: Vec<Digest> = serde_json::from_value(refusal["missing"].clone()).expect("digests");
    let mut sent: Vec<Digest> = content.tree().files().values().map(|file| file.digest).collect();
    missing.sort();
    sent.sort();
    assert_eq!(missing, sent);
    assert_eq!(bench.live().await["revision"], 0);
    // What another workspace was sent is not there for this one.
    let elsewhere = bench.request(Method::PUT, "/api/v1/workspaces/other/artifacts").body(framed(&content.cut().1));
    assert_eq!(read(elsewhere).await.0, 200);
    refused(bench.post("/deployments", &content.request(0, &Content::default(), "k")), 412, "artifacts_missing").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_large_file_travels_in_chunks_and_must_join_to_what_it_claims() {
    let bench = Bench::new(&[]).await;
    let base = Content::of(&["a"], "one");
    let content = base.clone().file("prompts/large.md", "word ".repeat(40_000));
    let (tree, blobs) = content.cut();
    // The list first: then the chunks are what is missing.
    let file = tree.files()["prompts/large.md"];
    let list = file.chunks.expect("a chunked file");
    let request = content.request(0, &Content::default(), "k");
    let refusal = refused(bench.post("/deployments", &request), 412, "artifacts_missing").await;
    assert!(refusal["missing"].to_string().contains(&list.to_string()));

    // A tree that claims another digest for these chunks is refused.
    let mut lying: Tree = tree.clone();
    let lie = caxton_proto::tree::File { digest: Digest::of(b"else"), ..file };
    lying.insert("prompts/large.md".parse().expect("a path"), lie);
    bench.send(&content).await;
    let mut request = content.request(0, &Content::default(), "k");
    request["root"] = json!(lying.root());
    let upserts: Vec<_> = lying.files().iter().map(|(path, file)| upsert(path.as_str(), file)).collect();
    request["upserts"] = json!(upserts);
    let refusal = refused(bench.post("/deployments", &request), 400, "digest_mismatch").await;
    assert!(refusal["detail"].as_str().is_some_and(|detail| detail.contains("prompts/large.md")), "{refusal}");
    assert!(blobs.len() > 3);
    bench.stop().await;
}

#[tokio::test]
async fn a_client_reads_a_whole_workspace_back() {
    let bench = Bench::new(&[]).await;
    let content = (0..60).fold(Content::default(), |content, n| content.agent(&format!("a{n}"), "one"));
    bench.deploy(&content, 0, &Content::default(), "k").await;
    let root: Digest = serde_json::from_value(bench.live().await["deployment"]["root"].clone()).expect("a digest");
    let nothing = Tree::default();
    let mut descent = Descent::new(root, &nothing);
    while !descent.wanted().is_empty() {
        let asked = bench.post("/tree/nodes", &json!({"digests": descent.wanted()}));
        let answer = asked.send().await.expect("an answer");
        assert_eq!(answer.headers()["content-type"], frame::MEDIA_TYPE);
        let nodes = frame::decode(&answer.bytes().await.expect("a body")).expect("whole frames");
        let nodes: Vec<_> = nodes.into_iter().map(|(_, node)| node.to_vec()).collect();
        descent.supply(&nodes).expect("the nodes that were asked for");
    }
    let tree = descent.finish();
    assert_eq!(tree, content.tree());
    let digests: Vec<_> = tree.files().values().map(|file| file.digest).collect();
    let answer = bench.post("/artifacts/fetch", &json!({"digests": digests})).send().await.expect("an answer");
    let blobs = frame::decode(&answer.bytes().await.expect("a body")).expect("whole frames");
    let fetched: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
    assert_eq!(fetched, digests);
    refused(bench.post("/artifacts/fetch", &json!({"digests": [Digest::of(b"no")]})), 412, "artifacts_missing").await;
    let many: Vec<_> = (0..5_000u32).map(|n| Digest::of(&n.to_be_bytes())).collect();
    refused(bench.post("/artifacts/missing", &json!({"digests": many})), 400, "invalid_request").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_fetch_larger_than_what_is_read_ahead_is_streamed_whole() {
    let bench = Bench::new(&[]).await;
    let blobs: Vec<_> = (0..300u64).map(|n| named(&noise(64 << 10, n))).collect();
    assert_eq!(read(bench.upload(framed(&blobs))).await.0, 200);
    let digests: Vec<_> = blobs.iter().map(|(digest, _)| digest).collect();
    let answer = bench.post("/artifacts/fetch", &json!({"digests": digests})).send().await.expect("an answer");
    let fetched = frame::decode(&answer.bytes().await.expect("a body")).expect("whole frames");
    assert!(fetched.iter().map(|(_, blob)| blob.to_vec()).eq(blobs.into_iter().map(|(_, blob)| blob)));
    bench.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_in_an_artifact_is_named_and_never_served() {
    let bench = Bench::new(&[]).await;
    let prompt = noise(20_000, 9).iter().map(|byte| char::from(b'a' + byte % 26)).collect::<String>();
    let content = Content::of(&["a"], "one").file("prompts/p.md", prompt.clone());
    bench.deploy(&content, 0, &Content::default(), "k1").await;
    let digest = Digest::of(prompt.as_bytes());
    let dir = bench.stop().await;
    // The prompt is large enough to lie in a blob file.
    let entries = std::fs::read_dir(dir.path().join("artifacts")).expect("a folder");
    let blobs: Vec<_> =
        entries.map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "blob")).collect();
    assert!(!blobs.is_empty(), "a stopped node has its artifacts in blob files");
    for path in blobs {
        let mut bytes = std::fs::read(&path).expect("a file");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
    }
    let bench = Bench::on(dir, &[]).await;
    for _ in 0..2 {
        let refusal = refused(bench.post("/artifacts/fetch", &json!({"digests": [digest]})), 500, "corrupt").await;
        assert_eq!((&refusal["digest"], &refusal["workspace"]), (&json!(digest), &json!("demo")));
        assert!(refusal["help"].is_string());
    }
    // The rest is served, and sending it again heals it.
    assert_eq!(bench.says("a").await.as_deref(), Some("says one"));
    assert_eq!(read(bench.upload(framed(&[named(prompt.as_bytes())]))).await.0, 200);
    let answer = bench.post("/artifacts/fetch", &json!({"digests": [digest]})).send().await.expect("an answer");
    assert_eq!(frame::decode(&answer.bytes().await.expect("a body")).expect("whole")[0].1, prompt.as_bytes());
    bench.stop().await;
}

/// The threads that block on a disk are few, and a client that does not read keeps none of them.
#[test]
fn clients_that_do_not_read_what_they_fetch_keep_nobody_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(8).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new(&["http.write_timeout=10m"]).await;
        let blob = named(&noise(60 << 10, 7));
        assert_eq!(read(bench.upload(framed(std::slice::from_ref(&blob)))).await.0, 200);
        let body = json!({ "digests": vec![blob.0; 1_000] }).to_string();
        let address = bench.node.url().replace("http://", "");
        let token = &bench.admin;
        let mut unread = Vec::new();
        for _ in 0..24 {
            let mut stream = TcpStream::connect(&address).await.expect("a connection");
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: \
                 application/json\r\nContent-Length: {}\r\n\r\n",
                at("/artifacts/fetch"),
                body.len()
            );
            stream.write_all(head.as_bytes()).await.expect("written");
            stream.write_all(body.as_bytes()).await.expect("written");
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("an answer");
            assert_eq!(&status, b"HTTP/1.1 200");
            unread.push(stream);
        }
        let whole = bench.post("/artifacts/fetch", &json!({ "digests": [blob.0, blob.0] })).send();
        let whole = tokio::time::timeout(DEADLINE, whole).await.expect("in time").expect("an answer");
        assert_eq!(whole.bytes().await.expect("a body"), framed(&[blob.clone(), blob]));
        drop(unread);
        bench.stop().await;
    });
}
