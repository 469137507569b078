//! What a provider is told beside the request: memories and files where the prompt says `{{context}}`, what was said before as
//! messages, and the trace that it is part of.

use opentelemetry::trace::TracerProvider;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

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

/// The trace that a provider is told of, by a request that is part of one.
async fn told_trace(lab: &Lab, quirk: &str, given: &str) -> Option<String> {
    let bench = bench(lab, &[(quirk, "", "")]).await;
    let message = json!({ "agent": format!("m-{quirk}"), "text": "hi" });
    let (status, body) = read(bench.post("/messages", &message).header("traceparent", given)).await;
    assert_eq!(status, 200, "{body}");
    bench.stop().await;
    let asked = lab.asked(quirk);
    assert_eq!(asked.len(), 1);
    asked[0].headers.get("traceparent").map(|value| value.to_str().expect("text").to_owned())
}

// On one thread, since the subscriber is the thread's own.
#[tokio::test]
async fn a_trace_goes_on_to_the_provider_where_traces_are_made() {
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let lab = Lab::start().await;
    assert_eq!(told_trace(&lab, "untraced", GIVEN).await, None);
    let made = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(made.tracer("test")).with_filter(LevelFilter::INFO);
    let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let told = told_trace(&lab, "traced", GIVEN).await.expect("a trace");
    assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{told}");
    assert_ne!(told, GIVEN, "it is below a span of the node");
}
