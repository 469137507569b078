//! What a day may cost, and what a reply says that it cost.

use std::sync::OnceLock;

use tokio::sync::Barrier;

use super::*;

/// Nobody is answered before three have asked.
static TOGETHER: OnceLock<Barrier> = OnceLock::new();

pub(super) fn answer(asked: &Question) -> Option<Response> {
    let most = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| asked.body[*name].as_u64());
    Some(match asked.quirk.as_str() {
        "cap" if most.is_some_and(|most| most > 16_384) => {
            refuse(400, "max_tokens is over the 16384 that this model writes")
        }
        "cap" => say("ok"),
        "three" => held(),
        // It ends without a reason, after a thousand tokens.
        "breaks" => raw(chunk(&json!({ "content": "x".repeat(4_000) }), None)),
        "absurd" | "absurd-float" => {
            let tokens = if asked.quirk == "absurd" { json!(1_u64 << 62) } else { json!(1e30) };
            let usage = json!({ "choices": [], "usage": { "prompt_tokens": tokens, "completion_tokens": tokens } });
            raw([chunk(&json!({ "content": "dear" }), Some("stop")), format!("data: {usage}\n\ndata: [DONE]\n\n")]
                .concat())
        }
        _ => return None,
    })
}

/// An answer that comes when three have asked.
fn held() -> Response {
    let wait = async {
        TOGETHER.get_or_init(|| Barrier::new(3)).wait().await;
        Ok::<_, Infallible>([chunk(&json!({ "content": "ok" }), Some("stop")), done()].concat())
    };
    raw(Body::from_stream(futures::stream::once(wait)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_budget_is_no_longest_reply_and_three_at_once_answer() {
    let lab = Lab::start().await;
    let budget = "[budget]\ntokens_per_day = 2000000";
    let bench = bench(&lab, &[("cap", "", budget), ("three", "", budget)]).await;
    assert_eq!(bench.answer_of("cap").await, "ok");
    assert_eq!(lab.asked("cap")[0].body.get("max_tokens"), None);

    let (one, two, three) = tokio::join!(bench.ask_quirk("three"), bench.ask_quirk("three"), bench.ask_quirk("three"));
    for (status, body) in [one, two, three] {
        assert_eq!((status, body["text"].as_str()), (200, Some("ok")), "{body}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_day_cost_is_shown_for_each_agent_and_counted() {
    let lab = Lab::start().await;
    let prices = "prices = { fake = { input = 2.0, output = 10.0 } }";
    let bench = bench(&lab, &[("priced", prices, ""), ("unpriced", "", "")]).await;
    for quirk in ["priced", "priced", "unpriced"] {
        assert_eq!(bench.answer_of(quirk).await, "ok");
    }
    // Each reply has 10 tokens in and 5 out, at 2 and 10 dollars for a million.
    let (_, used) = read(bench.request(Method::GET, &at("/usage?days=1"))).await;
    let cost = |agent: &str| {
        let all = used["usage"].as_array().expect("a list");
        let one = all.iter().find(|one| one["agent"] == agent).unwrap_or_else(|| panic!("{agent} is not in {used}"));
        (one["tokens"].as_u64(), one["cost_microusd"].as_u64())
    };
    assert_eq!((cost("m-priced"), cost("m-unpriced")), ((Some(30), Some(140)), (Some(15), Some(0))), "{used}");
    assert_eq!(used["total"], json!({ "tokens": 45, "cost_microusd": 140 }));
    let (_, metrics) = read(bench.request(Method::GET, "/metrics")).await;
    let metrics = metrics.as_str().expect("text");
    let counted = |agent: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with("caxton_agent_cost_microusd_total{"));
        let label = format!("agent=\"{agent}\"");
        lines.filter(|line| line.contains(&label)).find_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!((counted("m-priced"), counted("m-unpriced")), (Some(140), Some(0)), "{metrics}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_breaks_off_is_charged() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("breaks", "", "[budget]\ntokens_per_day = 2500")]).await;
    // Each try has a thousand tokens in it.
    let first = bench.failure_of("breaks").await;
    let second = if first.contains("budget") { first } else { bench.failure_of("breaks").await };
    assert!(second.contains("budget of agent `m-breaks`"), "{second}");
    assert!(lab.asked("breaks").len() <= 3, "{}", lab.asked("breaks").len());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_says_it_cost_the_world_harms_nobody() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("absurd", "", ""), ("absurd-float", "", ""), ("harmless", "", "")]).await;
    for quirk in ["absurd", "absurd", "absurd-float", "absurd-float"] {
        let (status, body) = bench.ask_quirk(quirk).await;
        assert_eq!((status, body["text"].as_str()), (200, Some("dear")), "{body}");
        assert_eq!(body["usage"]["input"], 10_000_000, "{body}");
    }
    assert_eq!(bench.answer_of("harmless").await, "ok");
    // What was stored is read back.
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(bench.answer_of("harmless").await, "ok");
    bench.stop().await;
}
