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
