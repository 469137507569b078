//! Deployments that become live, and those that do not.

use reqwest::Method;
use serde_json::json;

use super::{Content, at, upsert};
use crate::bench::{Bench, read, refused};
use crate::messages::example;

#[tokio::test]
async fn a_deployment_is_live_when_it_is_answered_and_the_next_one_sends_what_changed() {
    let bench = Bench::new(&[]).await;
    assert_eq!(bench.live().await["serving"]["state"], "nothing");
    let (one, two) =
        (Content::of(&["a", "b"], "one"), Content::of(&["a", "b"], "one").agent("b", "two").agent("c", "two"));
    let answer = bench.deploy(&one, 0, &Content::default(), "k1").await;
    assert_eq!(answer["serving"], json!({"state": "live", "revision": 1}));
    assert_eq!(answer["deployment"]["author"]["name"], "Ada");
    assert_eq!(answer["deployment"]["actor"], "admin");
    let steps: Vec<_> = answer["steps_ms"].as_array().expect("steps").iter().map(|step| step[0].clone()).collect();
    assert_eq!(steps, ["check", "store", "spread", "propose", "load"]);
    assert_eq!(bench.says("b").await.as_deref(), Some("says one"));

    let answer = bench.deploy(&two, 1, &one, "k2").await;
    let changes: Vec<_> = answer["changes"].as_array().expect("changes").iter().map(|c| c.to_string()).collect();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(bench.says("a").await.as_deref(), Some("says one"));
    assert_eq!(bench.says("b").await.as_deref(), Some("says two"));
    let live = bench.live().await;
    assert_eq!((&live["revision"], &live["agents"]), (&json!(2), &json!(3)));

    // Gone is gone.
    bench.deploy(&one, 2, &two, "k3").await;
    assert_eq!(bench.says("c").await, None);
    refused(bench.request(Method::GET, &at("/agents/c")), 404, "not_found").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_deployment_on_top_of_what_is_not_live_is_a_conflict_that_names_the_other() {
    let bench = Bench::new(&[]).await;
    let (one, two) = (Content::of(&["a"], "one"), Content::of(&["a"], "two"));
    bench.deploy(&one, 0, &Content::default(), "k1").await;
    bench.send(&two).await;
    let body = refused(bench.post("/deployments", &two.request(0, &Content::default(), "k2")), 409, "conflict").await;
    assert_eq!(body["conflict"]["revision"], 1);
    assert_eq!(body["conflict"]["author"]["name"], "Ada");
    let (detail, help) = (body["detail"].as_str().expect("text"), body["help"].as_str().expect("text"));
    assert!(detail.contains("Ada deployed r1, which changed agent a"), "{detail}");
    assert!(help.contains("caxton pull") && help.contains("deploy again"), "{help}");
    assert_eq!(bench.says("a").await.as_deref(), Some("says one"));
    bench.stop().await;
}

#[tokio::test]
async fn of_deployments_at_once_one_becomes_live_and_the_others_conflict_with_it() {
    let bench = Bench::new(&[]).await;
    let contents: Vec<_> = (0..6).map(|n| Content::of(&["a"], &n.to_string())).collect();
    for content in &contents {
        bench.send(content).await;
    }
    let requests = contents.iter().enumerate().map(|(n, content)| {
        let request = content.request(0, &Content::default(), &format!("k{n}"));
        read(bench.post("/deployments", &request))
    });
    let answers = futures::future::join_all(requests).await;
    let won: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    for (status, body) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((*status, &body["code"]), (409, &json!("conflict")), "{body}");
        assert_eq!(body["conflict"]["root"], won[0].1["deployment"]["root"]);
    }
    assert_eq!(bench.live().await["revision"], 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_retried_deployment_is_applied_once() {
    let bench = Bench::new(&[]).await;
    let (one, two) = (Content::of(&["a"], "one"), Content::of(&["a"], "two"));
    let first = bench.deploy(&one, 0, &Content::default(), "k1").await;
    let again = bench.deploy(&one, 0, &Content::default(), "k1").await;
    assert_eq!((&first["repeated"], &again["repeated"]), (&json!(false), &json!(true)));
    assert_eq!(first["deployment"], again["deployment"]);
    // Also when somebody else has deployed since.
    bench.deploy(&two, 1, &one, "k2").await;
    let again = bench.deploy(&one, 0, &Content::default(), "k1").await;
    assert_eq!(again["deployment"]["revision"], 1);
    assert_eq!(bench.live().await["revision"], 2);
    // Many at once, as a client does that lost its connection.
    let three = Content::of(&["a"], "three");
    bench.send(&three).await;
    let request = three.request(2, &two, "k3");
    let retries = (0..5).map(|_| read(bench.post("/deployments", &request)));
    for (status, body) in futures::future::join_all(retries).await {
        assert_eq!((status, &body["deployment"]["revision"]), (200, &json!(3)), "{body}");
    }
    // A key that is used for other content is refused, and nothing becomes live.
    let four = Content::of(&["a"], "four");
    bench.send(&four).await;
    refused(bench.post("/deployments", &four.request(3, &three, "k3")), 409, "conflict").await;
    let no_key = refused(bench.post("/deployments", &four.request(3, &three, "")), 400, "invalid_request").await;
    assert!(no_key["help"].as_str().is_some_and(|help| help.contains("idempotency_key")));
    assert_eq!(bench.live().await["revision"], 3);
    bench.stop().await;
}

#[tokio::test]
async fn a_dry_run_finds_every_problem_and_proposes_nothing() {
    let bench = Bench::new(&[]).await;
    let good = Content::of(&["a"], "one");
    bench.send(&good).await;
    let mut request = good.request(0, &Content::default(), "k1");
    request["dry_run"] = json!(true);
    let (status, body) = read(bench.post("/deployments", &request)).await;
    assert_eq!((status, &body["deployment"]), (200, &json!(null)), "{body}");
    assert_eq!(body["changes"].as_array().map(Vec::len), Some(1));
    assert_eq!(bench.live().await["revision"], 0);

    let bad = good.file("agents/b.toml", "[agent]\nname = \"c\"\nnmae = 1\n").file("agents/d.toml", "[agent\n");
    bench.send(&bad).await;
    for dry_run in [true, false] {
        let mut request = bad.request(0, &Content::default(), "k2");
        request["dry_run"] = json!(dry_run);
        let body = refused(bench.post("/deployments", &request), 422, "check_failed").await;
        let diagnostics = body["diagnostics"].as_array().expect("diagnostics");
        let paths: std::collections::HashSet<_> =
            diagnostics.iter().filter_map(|found| found["path"].as_str()).collect();
        assert!(paths.contains("agents/b.toml") && paths.contains("agents/d.toml"), "{diagnostics:?}");
        assert!(diagnostics.iter().any(|found| found["place"]["line"] == 3), "{diagnostics:?}");
    }
    assert_eq!(bench.live().await["revision"], 0);
    bench.stop().await;
}

#[tokio::test]
async fn what_does_not_add_up_is_refused_with_its_reason() {
    let bench = Bench::new(&["deploy.files_max=3"]).await;
    let one = Content::of(&["a"], "one");
    bench.send(&one).await;
    let request = one.request(0, &Content::default(), "k");
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    let root = with(&|request| request["root"] = json!(caxton_proto::Digest::of(b"other")));
    refused(bench.post("/deployments", &root), 400, "root_mismatch").await;
    let removal = with(&|request| request["removals"] = json!(["agents/x.toml"]));
    refused(bench.post("/deployments", &removal), 400, "invalid_request").await;
    let file = *one.tree().files().values().next().expect("a file");
    for path in ["../agents/a.toml", "agents/../../a", "/etc/passwd", "a//b", "agents\\a", "a\u{0}b", ""] {
        let outside = with(&|request| request["upserts"] = json!([upsert(path, &file)]));
        let body = refused(bench.post("/deployments", &outside), 400, "invalid_request").await;
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("path")), "{body}");
    }
    let many = Content::of(&["a", "b", "c", "d"], "one");
    let body =
        refused(bench.post("/deployments", &many.request(0, &Content::default(), "k")), 413, "body_too_large").await;
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("deploy.files_max")), "{body}");
    let long = with(&|request| request["message"] = json!("x".repeat(5_000)));
    refused(bench.post("/deployments", &long), 400, "invalid_request").await;
    bench.stop().await;
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_or_not_json_are_refused() {
    let bench = Bench::new(&[]).await;
    let post = |body: &[u8]| {
        let request = bench.request(Method::POST, &at("/deployments")).header("content-type", "application/json");
        request.body(body.to_vec())
    };
    refused(post(b"{\"parent\": 0, \"root\": \"\xff\xfe\"}"), 400, "invalid_request").await;
    refused(post(b"{"), 400, "invalid_request").await;
    refused(bench.request(Method::GET, "/api/v1/workspaces/%ff%fe"), 400, "invalid_request").await;
    refused(bench.request(Method::GET, "/api/v1/workspaces/..%2Fdemo"), 400, "invalid_request").await;
    refused(bench.request(Method::GET, &at("/deployments/x")), 400, "invalid_request").await;
    // A file that is not text where text belongs is the check's to name.
    let bad = Content::of(&["a"], "one").file("agents/b.toml", b"name = \"\xff\"".to_vec());
    bench.send(&bad).await;
    let body =
        refused(bench.post("/deployments", &bad.request(0, &Content::default(), "k")), 422, "check_failed").await;
    assert!(body["diagnostics"].to_string().contains("UTF-8"), "{body}");
    bench.stop().await;
}

#[tokio::test]
async fn ten_thousand_files_are_deployed_and_one_of_them_changed() {
    let bench = Bench::new(&[]).await;
    let mut content = Content::default();
    for n in 0..10_000 {
        content = content.agent(&format!("agent-{n}"), "one");
    }
    bench.deploy(&content, 0, &Content::default(), "k1").await;
    let live = bench.live().await;
    assert_eq!((&live["agents"], &live["deployment"]["files"]), (&json!(10_000), &json!(10_000)));
    assert_eq!(live["deployment"]["changes"].as_array().map(Vec::len), Some(64));
    let changed = content.clone().agent("agent-77", "two");
    bench.deploy(&changed, 1, &content, "k2").await;
    assert_eq!(bench.says("agent-77").await.as_deref(), Some("says two"));
    assert_eq!(bench.says("agent-78").await.as_deref(), Some("says one"));
    let mut after = String::new();
    let mut seen = 0;
    loop {
        let (_, page) = read(bench.request(Method::GET, &at(&format!("/agents?limit=1000&after={after}")))).await;
        seen += page["agents"].as_array().expect("agents").len();
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 10_000);
    bench.stop().await;
}

#[tokio::test]
async fn a_restarted_node_serves_the_same() {
    let bench = Bench::new(&[]).await;
    let content = Content::of(&["a", "b"], "one");
    bench.deploy(&content, 0, &Content::default(), "k1").await;
    let before = bench.live().await;
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(bench.live().await, before);
    assert_eq!(bench.says("a").await.as_deref(), Some("says one"));
    let (_, list) = read(bench.request(Method::GET, "/api/v1/workspaces")).await;
    assert_eq!(list["workspaces"][0]["workspace"], "demo");
    bench.stop().await;
}

#[tokio::test]
async fn who_may_not_deploy_is_told_so() {
    let bench = Bench::new(&[]).await;
    let content = Content::of(&["a"], "one");
    bench.deploy(&content, 0, &Content::default(), "k1").await;
    let viewer = bench.token("viewer", &["demo"], 600).await["token"].as_str().expect("a token").to_owned();
    let other = bench.token("deployer", &["other"], 600).await["token"].as_str().expect("a token").to_owned();
    let request = content.request(1, &content, "k2");
    refused(bench.request_as(&viewer, Method::POST, &at("/deployments")).json(&request), 403, "forbidden").await;
    refused(bench.request_as(&viewer, Method::PUT, &at("/artifacts")).body(Vec::new()), 403, "forbidden").await;
    refused(bench.request_as(&other, Method::GET, &at("")), 403, "forbidden").await;
    assert_eq!(read(bench.request_as(&viewer, Method::GET, &at(""))).await.0, 200);
    let (_, list) = read(bench.request_as(&other, Method::GET, "/api/v1/workspaces")).await;
    assert_eq!(list["workspaces"], json!([]));
    bench.stop().await;
}

#[tokio::test]
async fn a_tool_that_cannot_be_loaded_never_gets_live() {
    let bench = Bench::new(&[]).await;
    let good = Content::of(&["a"], "one");
    bench.deploy(&good, 0, &Content::default(), "k1").await;
    let manifest = "[tool]\nname = \"t\"\nkind = \"core\"\nmodule = \"t.wasm\"\n";
    // A module that validates and exports nothing of what a tool has to export.
    let content = good.clone().file("tools/t/tool.toml", manifest).file("tools/t/t.wasm", *b"\0asm\x01\0\0\0");
    bench.send(&content).await;
    let (status, body) = read(bench.post("/deployments", &content.request(1, &good, "k2"))).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("check_failed")), "{body}");
    assert_eq!(body["diagnostics"][0]["code"], "tool_broken", "{body}");
    assert_eq!(bench.live().await["revision"], 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_deployment_that_takes_longer_than_a_request_is_answered() {
    let content = example();
    let bench = Bench::new(&[]).await;
    bench.send(&content).await;
    // Its tools are compiled while it is checked, which takes longer than this.
    let bench = Bench::on(bench.stop().await, &["http.timeout=100ms"]).await;
    let (status, body) = read(bench.post("/deployments", &content.request(0, &Content::default(), "first"))).await;
    assert_eq!((status, body["deployment"]["revision"].as_u64()), (200, Some(1)), "{body}");
    bench.stop().await;
}
