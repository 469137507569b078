//! Scripted providers: what is wrong with a script is found when it is deployed.

use super::*;
use crate::bench::refused;

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_checked_at_deploy_with_file_and_line() {
    let bench = Bench::new(&[]).await;
    let settings = "[workspace]\nname = \"demo\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    let script = "[[rule]]\nwhen.reqest = \"a\"\nsay = \"x\"\n[[rule]]\nsay = \"you said {{reqest}}\"\n";
    let content = Content::of(&["greeter"], "hello").file("caxton.toml", settings).file("prompts/s.toml", script);
    bench.send(&content).await;
    let request = content.request(0, &Content::default(), "first");
    let problem = refused(bench.post("/deployments", &request), 422, "check_failed").await;
    let found: Vec<Value> = problem["diagnostics"].as_array().expect("diagnostics").clone();
    let places: Vec<_> =
        found.iter().map(|one| (one["code"].as_str(), one["path"].as_str(), one["place"]["line"].as_u64())).collect();
    let path = Some("prompts/s.toml");
    assert_eq!(places, [(Some("unknown_key"), path, Some(2)), (Some("bad_prompt"), path, Some(5))], "{problem}");

    let good = content.clone().file("prompts/s.toml", "[[rule]]\nsay = \"you said {{request}}\"\n");
    bench.deploy(&good, 0, &Content::default(), "second").await;
    let (status, body) = read(bench.post("/messages", &json!({ "agent": "greeter", "text": "hi" }))).await;
    assert_eq!((status, body["text"].as_str()), (200, Some("you said hi")), "{body}");
    bench.stop().await;
}
