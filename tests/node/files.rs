//! The files of a conversation are there in its later turns too, and what was said is shown as it was said.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read};
use crate::deploy::{Content, at};
use crate::messages::with;

const SALES: &str = "quarter,sales\nQ1,110250\nQ2,99000\n";

/// It reads the file that it is told of first.
const SCRIPT: &str = r#"
[[rule]]
when.request = "attachment:"
when.after = []
[[rule.call]]
tool = "csv-reader"
arguments = { text = "{{attachment}}" }

[[rule]]
when.after = "csv-reader"
say = "{{csv-reader}}"

[[rule]]
say = "there is no file"
"#;

/// An agent that reads files, and with `more` in its file.
fn reader(more: &str) -> Content {
    let agent = "[agent]\nname = \"reader\"\n[capabilities]\npatterns = [\"read a CSV file\"]\n[tools]\nrequired = \
                 [\"csv-reader\"]\n[prompts]\nuser = \"The task:\\n{{request}}\"\n";
    let tool = "[tool]\nname = \"csv-reader\"\nkind = \"component\"\nmodule = \"csv-reader.wasm\"\n";
    let settings = "[workspace]\nname = \"demo\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    Content::default()
        .file("agents/reader.toml", format!("{agent}{more}"))
        .file("prompts/s.toml", SCRIPT)
        .file("caxton.toml", settings)
        .file("tools/csv-reader/tool.toml", tool)
        .file("tools/csv-reader/csv-reader.wasm", caxton_tools::examples::CSV_READER)
}

fn message(text: &str, files: Value) -> Value {
    json!({ "text": text, "agent": "reader", "conversation": "c-1", "create": true, "attachments": files })
}

fn sales() -> Value {
    json!([{ "name": "sales.csv", "media_type": "text/csv", "text": SALES }])
}

/// The one answer of a message, which a person lets through where something waits.
async fn answered(bench: &Bench, message: &Value) -> String {
    let (status, mut answer) = read(bench.post("/messages", message)).await;
    if status == 202 {
        let id = answer["approvals"][0]["id"].as_str().expect("an approval").to_owned();
        let decided;
        (decided, answer) = read(bench.post(&format!("/approvals/{id}"), &json!({ "approve": true }))).await;
        assert_eq!(decided, 200, "{answer}");
    } else {
        assert_eq!(status, 200, "{answer}");
    }
    answer["text"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_file_of_an_earlier_turn_is_there_in_the_next_also_after_a_restart() {
    let bench = with(&reader("")).await;
    let first = answered(&bench, &message("Read this", sales())).await;
    assert!(first.contains("110250"), "{first}");

    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(answered(&bench, &message("And once more, please", json!([]))).await, first);
    // One of the same name is another file, and the older one stays.
    let newer = json!([{ "name": "sales.csv", "media_type": "text/csv", "text": "quarter,sales\nQ3,7\n" }]);
    let third = answered(&bench, &message("Now this", newer)).await;
    assert!(third.contains('7') && !third.contains("110250"), "{third}");

    let (_, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    let turns = shown["turns_detail"].as_array().expect("turns");
    let files = |turn: &Value| -> Vec<String> {
        let names = turn["attachments"].as_array().expect("files").iter();
        names.map(|file| file["name"].as_str().expect("a name").to_owned()).collect()
    };
    let named: Vec<_> = turns.iter().map(files).collect();
    assert_eq!(named, [vec!["sales.csv"], vec![], vec!["sales-2.csv"]], "each has its own only");

    assert_eq!(read(bench.request(Method::DELETE, &at("/conversations/c-1"))).await.0, 200);
    assert_eq!(answered(&bench, &message("Read it", json!([]))).await, "there is no file", "they went with it");
    bench.stop().await;
}

#[tokio::test]
async fn a_turn_that_was_put_down_finds_the_files_of_earlier_turns_again() {
    let bench = with(&reader("[approval]\ntools = [\"csv-reader\"]\n")).await;
    let first = answered(&bench, &message("Read this", sales())).await;
    let (status, waiting) = read(bench.post("/messages", &message("Once more", json!([])))).await;
    assert_eq!(status, 202, "{waiting}");

    let bench = Bench::on(bench.stop().await, &[]).await;
    let id = waiting["approvals"][0]["id"].as_str().expect("an approval");
    let (status, answer) = read(bench.post(&format!("/approvals/{id}"), &json!({ "approve": true }))).await;
    assert_eq!((status, answer["text"].as_str()), (200, Some(first.as_str())), "{answer}");
    assert_eq!(answer["attachments"], json!([]), "what was there before is no file of the answer");
    bench.stop().await;
}

#[tokio::test]
async fn a_conversation_is_called_and_shown_as_it_was_said() {
    let bench = with(&reader("[approval]\ntools = [\"csv-reader\"]\n")).await;
    answered(&bench, &message("Read this,\nplease", sales())).await;
    let (_, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    assert_eq!(shown["title"], "Read this,");
    let turn = &shown["turns_detail"][0];
    assert_eq!(turn["request"], "Read this,\nplease", "also after it was put down");
    assert!(turn["messages"][0].to_string().contains("The task:"), "{turn}");
    bench.stop().await;
}

#[tokio::test]
async fn of_the_files_of_earlier_turns_the_newest_are_there_and_the_rest_is_named() {
    let bench = Bench::new(&["limits.answer_files_bytes_max=1KiB"]).await;
    bench.deploy(&reader(""), 0, &Content::default(), "first").await;
    for name in ["first.csv", "second.csv"] {
        let file = json!([{ "name": name, "media_type": "text/csv", "text": format!("a\n{}", "1\n".repeat(300)) }]);
        answered(&bench, &message("Read this", file)).await;
    }
    answered(&bench, &message("What is there?", json!([]))).await;
    let (_, shown) = read(bench.request(Method::GET, &at("/conversations/c-1"))).await;
    let told = shown["turns_detail"][2]["messages"].to_string();
    let there = "Files from earlier in this conversation:\\n- `attachment:second.csv` (text/csv, 602 bytes)\\n";
    assert!(told.contains(there), "{told}");
    assert!(told.contains("Not here from earlier, to be sent again where they are needed: `first.csv`."), "{told}");
    bench.stop().await;
}
