//! Agents that talk, through a real node: programs that send to each other, and models that send, bid, award, publish and wait.

use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually, read};
use crate::deploy::{Content, at};
use crate::mailbox::{lies_in, send};
use crate::messages::with;
use crate::policy::token;

/// A workspace of agents that are models, each with a script of its own.
fn scripted(agents: &[(&str, &str, &str)]) -> Content {
    let mut settings = "[workspace]\nname = \"demo\"\n".to_owned();
    let mut content = Content::default();
    for (name, more, script) in agents {
        settings.push_str(&format!("[providers.{name}]\nkind = \"scripted\"\nscript = \"prompts/{name}.toml\"\n"));
        let agent = format!("[agent]\nname = \"{name}\"\n[llm]\nprovider = \"{name}\"\n{more}");
        content = content.file(&format!("agents/{name}.toml"), agent);
        content = content.file(&format!("prompts/{name}.toml"), *script);
    }
    content.file("caxton.toml", settings)
}

fn program(name: &str, wasm: &[u8]) -> Content {
    let file = format!("[agent]\nname = \"{name}\"\nkind = \"component\"\nmodule = \"./{name}.wasm\"\n");
    Content::default()
        .file("caxton.toml", "[workspace]\nname = \"demo\"\n")
        .file(&format!("agents/{name}.toml"), file)
        .file(&format!("agents/{name}.wasm"), wasm)
}

async fn lines(bench: &Bench, agents: &str) -> Vec<Value> {
    let path = at(&format!("/logs?agent={agents}&limit=1000"));
    let (status, found) = read(bench.request(Method::GET, &path)).await;
    assert_eq!(status, 200, "{found}");
    found["lines"].as_array().expect("a list").clone()
}

/// Who was given a message of whom, as the log says it.
async fn delivered(bench: &Bench, agents: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = lines(bench, agents).await.into_iter().filter(|line| line["event"] == "delivered");
    lines.map(|line| (text(&line["from"]), text(&line["agent"]))).collect()
}

fn request(to: &str, content: &str) -> Value {
    json!({ "message": { "performative": "request", "receiver": to, "content": content, "reply_with": "r1" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_and_pong_talk_from_the_moment_both_are_deployed_until_one_is_gone() {
    let bench = Bench::new(&[]).await;
    let ping = program("ping", caxton_tools::examples::PING);
    bench.deploy(&ping, 0, &Content::default(), "ping").await;
    eventually("ping has begun", || async { !lies_in(&bench, &bench.admin, "pong").await.is_empty() }).await;
    let both = ping
        .clone()
        .file("agents/pong.toml", "[agent]\nname = \"pong\"\nkind = \"component\"\nmodule = \"./pong.wasm\"\n")
        .file("agents/pong.wasm", caxton_tools::examples::PONG);
    bench.deploy(&both, 1, &ping, "pong").await;
    let count = |found: &[(String, String)], from: &str, to: &str| {
        found.iter().filter(|(one, other)| (one.as_str(), other.as_str()) == (from, to)).count()
    };
    eventually("they talk", || async {
        let found = delivered(&bench, "ping,pong").await;
        count(&found, "ping", "pong") >= 3 && count(&found, "pong", "ping") >= 2
    })
    .await;
    let of_pong = delivered(&bench, "pong").await;
    assert!(count(&of_pong, "pong", "ping") >= 2, "what an agent sends is found by its name too: {of_pong:?}");
    eventually("the state goes on", || async {
        let waits = lies_in(&bench, &bench.admin, "pong").await;
        waits.iter().any(|it| it["message"]["content"].as_str().is_some_and(|text| text > "ping 3" && text.len() == 6))
    })
    .await;
    assert!(lines(&bench, "ping,pong").await.iter().all(|line| line["failed"].is_null()));
    bench.deploy(&ping, 2, &both, "no pong").await;
    eventually("its message waits for pong", || async {
        let waits = lies_in(&bench, &bench.admin, "pong").await;
        waits.len() == 1 && lies_in(&bench, &bench.admin, "ping").await.is_empty()
    })
    .await;
    let bench = Bench::on(bench.stop().await, &[]).await;
    bench.deploy(&both, 3, &ping, "pong again").await;
    eventually("they go on", || async { count(&delivered(&bench, "ping,pong").await, "pong", "ping") >= 1 }).await;
    bench.stop().await;
}

/// A core module that sends what it is given on to `ann`, keeps how often it did, and says what is wrong with the message.
fn forwarder() -> Vec<u8> {
    let sent = r#"{"performative":"inform","receiver":"subject:ann","content":"on its way"}"#;
    let kept = r#"{"key":"sent","value":"yes"}"#;
    let hex = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let wat = format!(
        r#"(module (import "caxton" "send" (func $send (param i32 i32) (result i64)))
  (import "caxton" "state_set" (func $set (param i32 i32) (result i64)))
  (import "caxton" "reason" (func $reason (param i32 i32)))
  (memory (export "memory") 8) (data (i32.const 1024) "{}") (data (i32.const 2048) "{}")
  (global $free (mut i32) (i32.const 131072))
  (func (export "alloc") (param i32) (result i32)
    (global.get $free) (global.set $free (i32.add (global.get $free) (local.get 0))))
  (func (export "handle_message") (param i32 i32) (result i32)
    (drop (call $set (i32.const 2048) (i32.const {})))
    (drop (call $send (i32.const 1024) (i32.const {})))
    (call $reason (local.get 0) (local.get 1))
    (i32.const 1)))"#,
        hex(sent),
        hex(kept),
        kept.len(),
        sent.len()
    );
    wat::parse_str(&wat).expect("a module")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_handed_the_message_itself_and_what_it_did_counts_only_with_its_outcome() {
    let file = "[agent]\nname = \"strict\"\nkind = \"core\"\nmodule = \"./strict.wasm\"\n[messages]\naccepts = [\"request\"]\n";
    let content = Content::default()
        .file("caxton.toml", "[workspace]\nname = \"demo\"\n")
        .file("agents/strict.toml", file)
        .file("agents/strict.wasm", forwarder());
    let bench = with(&content).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let mut body = request("strict", "what is this?");
    body["message"]["protocol"] = json!("fipa-request");
    body["message"]["X-Mood"] = json!("curious");
    let sent = send(&bench, &ada, body).await;
    eventually("it does not understand", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    let answer = &answers[0]["message"];
    assert_eq!((answers.len(), &answer["performative"]), (1, &json!("not-understood")), "{answers:?}");
    assert_eq!((&answer["in_reply_to"], &answer["conversation_id"]), (&json!("r1"), &sent["conversation"]));
    let given: Value = serde_json::from_str(answer["content"].as_str().expect("text")).expect("the message, as JSON");
    assert_eq!((&given["performative"], &given["sender"]), (&json!("request"), &json!("subject:ada")));
    assert_eq!((&given["reply_with"], &given["protocol"]), (&json!("r1"), &json!("fipa-request")));
    assert_eq!((&given["content"], &given["X-Mood"]), (&json!("what is this?"), &json!("curious")));
    let ann = token(&bench, "ann", Role::Caller, &["demo"]).await;
    assert!(lies_in(&bench, &ann, "subject:ann").await.is_empty(), "what it sent before it gave up is sent to nobody");
    // What its file does not take never reaches it.
    let inform = json!({ "message": { "performative": "inform", "receiver": "strict", "content": "x" } });
    send(&bench, &ada, inform).await;
    eventually("it does not take it", || async { lies_in(&bench, &ada, "subject:ada").await.len() == 2 }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    assert_eq!(answers[1]["message"]["content"], "strict does not take inform");
    bench.stop().await;
}

const MESSAGES: &str = "[messages]\n";

/// Bids with a cost, and does what it is awarded.
fn bidder(cost: u32) -> String {
    format!(
        "[[rule]]\nwhen.request = \"[cfp from\"\nwhen.after = []\n[[rule.call]]\ntool = \"reply\"\n\
         arguments = {{ performative = \"propose\", content = {{ cost = {cost}, deadline = \"friday\" }} }}\n\
         [[rule]]\nwhen.request = \"[accept-proposal from\"\nsay = \"It is painted for {cost}.\"\n\
         [[rule]]\nsay = \"Thank you.\"\n"
    )
}

const MANAGER: &str = r#"
[[rule]]
when.after = []
[[rule.call]]
tool = "call_for_proposals"
arguments = { to = ["dear", "cheap", "lazy"], task = "Paint the fence", wait_seconds = 60 }
[[rule]]
when.after = "call_for_proposals"
when.failed = false
[[rule.call]]
tool = "award"
arguments = { conversation = "{{call_for_proposals/conversation}}", to = "{{call_for_proposals/proposals/0/from}}", content = "Go ahead", wait = true }
[[rule]]
when.after = "award"
when.failed = false
say = "{{award/answers/0/from}} says: {{award/answers/0/content}} (conversation {{call_for_proposals/conversation}})"
[[rule]]
when.failed = true
say = "It failed: {{newest}}"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_net_is_called_for_bid_in_and_awarded_by_models() {
    let lazy = "[[rule]]\nwhen.after = []\nwhen.request = \"[cfp from\"\n[[rule.call]]\ntool = \"reply\"\n\
        arguments = { performative = \"refuse\", content = \"no time\" }\n[[rule]]\nsay = \"No.\"\n";
    let content = scripted(&[
        ("manager", MESSAGES, MANAGER),
        ("dear", MESSAGES, &bidder(90)),
        ("cheap", MESSAGES, &bidder(50)),
        ("lazy", MESSAGES, lazy),
    ]);
    let bench = with(&content).await;
    let ask = json!({ "agent": "manager", "text": "Have the fence painted" });
    let (status, answer) = read(bench.post("/messages", &ask)).await;
    assert_eq!(status, 200, "{answer}");
    let said = answer["text"].as_str().expect("text");
    assert!(said.starts_with("cheap says: It is painted for 50."), "{said}");
    // The same from a mailbox: the turn is put down twice, and its answer goes to whoever asked.
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    send(&bench, &ada, request("manager", "Have the fence painted")).await;
    eventually("the answer", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    let text = answers[0]["message"]["content"].as_str().expect("text");
    assert!(text.starts_with("cheap says: It is painted for 50."), "{text}");
    eventually("nothing is left", || async {
        let mut left = 0;
        for agent in ["manager", "dear", "cheap", "lazy"] {
            left += lies_in(&bench, &bench.admin, agent).await.len();
        }
        left == 0
    })
    .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_turn_sends_goes_out_with_its_outcome_and_what_is_published_reaches_subscribers() {
    let reader = "[[rule]]\nwhen.request = \"[request from\"\nwhen.after = []\n[[rule.call]]\ntool = \"subscribe\"\n\
        arguments = { topics = \"news/#\" }\n\
        [[rule]]\nwhen.request = \"[inform from\"\nwhen.after = []\n[[rule.call]]\ntool = \"send_message\"\n\
        arguments = { to = \"subject:ada\", content = { read = \"{{request}}\" }, priority = 7 }\n[[rule]]\nsay = \"Done.\"\n";
    let writer = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"publish\"\n\
        arguments = { topic = \"news/today\", content = \"It rains.\" }\n[[rule.call]]\ntool = \"reply\"\n\
        arguments = { performative = \"failure\", content = \"only half of it\" }\n[[rule]]\nsay = \"Published.\"\n";
    let bench = with(&scripted(&[("reader", MESSAGES, reader), ("writer", MESSAGES, writer)])).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    send(&bench, &ada, request("reader", "subscribe, please")).await;
    eventually("it has subscribed", || async { lies_in(&bench, &ada, "subject:ada").await.len() == 1 }).await;
    send(&bench, &ada, request("writer", "write")).await;
    eventually("it was read", || async { lies_in(&bench, &ada, "subject:ada").await.len() == 3 }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    let of = |from: &str| -> Vec<&Value> {
        answers.iter().map(|it| &it["message"]).filter(|message| message["sender"] == from).collect()
    };
    let (read, wrote) = (of("reader"), of("writer"));
    assert_eq!(
        (wrote.len(), &wrote[0]["performative"], &wrote[0]["in_reply_to"]),
        (1, &json!("failure"), &json!("r1"))
    );
    let told = read[1]["content"]["read"].as_str().expect("text");
    assert!(told.contains("[inform from writer") && told.contains("It rains."), "{told}");
    let priority =
        answers.iter().find(|it| it["message"]["content"]["read"].is_string()).expect("it")["priority"].clone();
    assert_eq!(priority, 7);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_waits_for_an_answer_outlives_a_restart_and_a_circle_of_waits_is_ended() {
    let asks = |whom: &str| {
        format!(
            "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"send_message\"\n\
             arguments = {{ to = \"{whom}\", content = \"Is it so?\", wait = true, wait_seconds = 600 }}\n\
             [[rule]]\nwhen.after = \"send_message\"\nwhen.failed = false\nsay = \"I was told: {{{{send_message/answers/0/content}}}}\"\n\
             [[rule]]\nwhen.failed = true\nsay = \"I cannot: {{{{newest}}}}\"\n"
        )
    };
    let first = scripted(&[("asker", MESSAGES, &asks("helper"))]);
    let bench = with(&first).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    send(&bench, &ada, request("asker", "Ask around")).await;
    eventually("its turn is put down", || async {
        let lies = lies_in(&bench, &bench.admin, "asker").await;
        lies.first().is_some_and(|it| it["state"] == "waiting")
    })
    .await;
    let bench = Bench::on(bench.stop().await, &[]).await;
    let circle = scripted(&[("asker", MESSAGES, &asks("helper")), ("helper", MESSAGES, &asks("asker"))]);
    bench.deploy(&circle, 1, &first, "a circle").await;
    eventually("the answer", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    let text = answers[0]["message"]["content"].as_str().expect("text");
    assert!(text.starts_with("I was told: I cannot: ") && text.contains("would wait for each other"), "{text}");
    assert!(lies_in(&bench, &bench.admin, "asker").await.is_empty());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_waits_for_a_person_keeps_its_delivery_and_its_reply_is_sent_afterwards() {
    let script = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"csv-reader\"\narguments = { text = \"a,b\\n1,2\" }\n\
        [[rule]]\nsay = \"It has {{csv-reader/row_count}} row.\"\n";
    let more = "[tools]\nrequired = [\"csv-reader\"]\n[approval]\ntools = [\"csv-reader\"]\n";
    let tool = "[tool]\nname = \"csv-reader\"\nkind = \"component\"\nmodule = \"csv-reader.wasm\"\n";
    let content = scripted(&[("clerk", more, script)])
        .file("tools/csv-reader/tool.toml", tool)
        .file("tools/csv-reader/csv-reader.wasm", caxton_tools::examples::CSV_READER);
    let bench = with(&content).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    send(&bench, &ada, request("clerk", "Count the rows")).await;
    let approvals = |bench: &Bench| bench.request(Method::GET, &at("/approvals"));
    eventually("it waits", || async {
        let lies = lies_in(&bench, &bench.admin, "clerk").await;
        lies.first().is_some_and(|it| it["state"] == "waiting")
    })
    .await;
    let bench = Bench::on(bench.stop().await, &[]).await;
    let (_, listed) = read(approvals(&bench)).await;
    let id = listed["approvals"][0]["id"].as_str().expect("an id").to_owned();
    assert!(lies_in(&bench, &ada, "subject:ada").await.is_empty());
    let (status, decided) = read(bench.post(&format!("/approvals/{id}"), &json!({ "approve": true }))).await;
    assert_eq!(status, 200, "{decided}");
    eventually("the reply", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    assert_eq!(answers[0]["message"]["content"], "It has 1 row.");
    assert!(lies_in(&bench, &bench.admin, "clerk").await.is_empty());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_of_a_request_that_nobody_handles_is_told_so() {
    let bench = with(&scripted(&[("clerk", "", "[[rule]]\nsay = \"Yes.\"\n")])).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    let mut body = request("later", "Are you there?");
    body["expires"] = json!(soon.to_string());
    send(&bench, &ada, body).await;
    eventually("it is told", || async { !lies_in(&bench, &ada, "subject:ada").await.is_empty() }).await;
    let answers = lies_in(&bench, &ada, "subject:ada").await;
    let message = &answers[0]["message"];
    assert_eq!((&message["performative"], &message["sender"]), (&json!("failure"), &json!("platform:")));
    assert_eq!(
        (&message["content"]["receiver"], &message["content"]["reason"]),
        (&json!("later"), &json!("it expired"))
    );
    assert_eq!(message["in_reply_to"], "r1");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_contract_net_ends_in_an_award_and_has_its_picture() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/contract-net");
    let files =
        ["organizer", "bicycle", "van"].map(|name| [format!("agents/{name}.toml"), format!("prompts/{name}.toml")]);
    let read_file = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the example");
    let content =
        files.as_flattened().iter().fold(Content::default(), |content, name| content.file(name, read_file(name)));
    let settings = read_file("caxton.toml").replace("name = \"contract-net\"", "name = \"demo\"");
    let bench = with(&content.file("caxton.toml", settings)).await;
    let ask = json!({ "agent": "organizer", "text": "Have this parcel carried across town" });
    let (status, answer) = read(bench.post("/messages", &ask)).await;
    assert_eq!(status, 200, "{answer}");
    let said = answer["text"].as_str().expect("text");
    assert!(said.starts_with("bicycle has it, for 12: Carried across town by bicycle. (conversation "), "{said}");
    let id = said.rsplit_once("(conversation ").expect("its conversation").1.trim_end_matches(')');
    let (status, found) = read(bench.request(Method::GET, &at(&format!("/conversations/{id}/events")))).await;
    assert_eq!(status, 200, "{found}");
    let mut said: Vec<String> = Vec::new();
    for event in found["events"].as_array().expect("events") {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        said.push(format!("{} {} {}", text("sender"), text("performative"), event["receivers"]));
    }
    let expected = [
        "organizer cfp [\"bicycle\",\"van\"]",
        "bicycle propose [\"organizer\"]",
        "van propose [\"organizer\"]",
        "organizer accept-proposal [\"bicycle\"]",
        "organizer reject-proposal [\"van\"]",
        "bicycle inform [\"organizer\"]",
    ];
    assert!(expected.iter().all(|one| said.iter().any(|it| it == one)) && said.len() == expected.len(), "{said:?}");
    assert_eq!(found["open"], false, "{found}");
    bench.stop().await;
}
