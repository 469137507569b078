//! What a provider is told beside the request: memories and files where the prompt says `{{context}}`, and what was said before
//! as messages.

use super::*;

/// An agent whose prompt says `{{context}}`.
const TOLD: &str = "[agent]\nname = \"m-told\"\ndescription = \"asks told\"\n[capabilities]\npatterns = [\"ask told\"]\n\
                    [prompts]\nsystem = \"C=[{{context}}]\"\n[llm]\nprovider = \"told\"\n\
                    [memory]\nscope = \"workspace\"\nmin_similarity = 0.2\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_context_is_memories_and_files_and_what_was_said_before_is_messages() {
    let lab = Lab::start().await;
    let settings = format!(
        "[workspace]\nname = \"demo\"\n[providers.told]\nkind = \"openai\"\nbase_url = \"{}/told/v1\"\nmodel = \"fake\"\n",
        lab.url
    );
    let bench = Bench::new(&[]).await;
    let content = Content::default().file("agents/m-told.toml", TOLD).file("caxton.toml", settings);
    bench.deploy(&content, 0, &Content::default(), "first").await;
    let memory = json!({ "memories": [{ "text": "what Ann drinks is tea with milk", "scope": "workspace" }] });
    let (status, kept) = read(bench.post("/memories", &memory)).await;
    assert_eq!(status, 200, "{kept}");
    for message in [
        json!({ "text": "What does Ann drink?", "agent": "m-told", "conversation": "c1", "create": true,
                "attachments": [{ "name": "cups.csv", "media_type": "text/csv", "text": "cup,count\nred,3\n" }] }),
        json!({ "text": "And what does Ann drink at home?", "agent": "m-told", "conversation": "c1" }),
    ] {
        let (status, body) = read(bench.post("/messages", &message)).await;
        assert_eq!((status, body["text"].as_str()), (200, Some("ok")), "{body}");
    }
    let asked = lab.asked("told");
    let [first, second] = asked.as_slice() else { panic!("{} requests", asked.len()) };
    let context = |question: &Question| {
        let prompt = question.messages()[0]["content"].to_string();
        assert!(prompt.contains("C=["), "{prompt}");
        prompt
    };
    for part in ["tea with milk", "cups.csv", "red,3"] {
        assert!(context(first).contains(part), "{part:?} is not in {}", context(first));
    }
    // What was said is no part of it: it is there once, as a message of its own.
    for part in ["tea with milk", "cups.csv"] {
        assert!(context(second).contains(part), "{part:?} is not in {}", context(second));
    }
    assert!(!context(second).contains("What does Ann drink?"), "{}", context(second));
    let said =
        |role: &str, text: &str| second.of_role(role).filter(|it| it["content"].to_string().contains(text)).count();
    assert_eq!((said("user", "What does Ann drink?"), said("assistant", "ok")), (1, 1), "{:?}", second.messages());
    bench.stop().await;
}
