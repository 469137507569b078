//! Trouble: who, what, and what to do, in one sentence; and when it is worth asking again.

use super::*;
use crate::bench::eventually;

pub(super) fn answer(asked: &Question) -> Option<Response> {
    let json =
        |status: u16, body: Value| (StatusCode::from_u16(status).expect("a status"), axum::Json(body)).into_response();
    let html = |status: u16| {
        let page = "<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body></body></html>";
        (StatusCode::from_u16(status).expect("a status"), [("content-type", "text/html")], page).into_response()
    };
    let start = chunk(&json!({ "content": "half" }), None);
    Some(match asked.quirk.as_str() {
        "page" => html(200),
        "page-404" => html(404),
        "moved" => (StatusCode::MOVED_PERMANENTLY, [("location", "https://elsewhere.example/v1")]).into_response(),
        "nokey" => refuse(401, "Missing bearer authentication"),
        "nomodel" => refuse(404, "The model `fake` does not exist"),
        "quota" => json(
            429,
            json!({ "error": { "message": "You exceeded your current quota, please check your plan.", "type": "insufficient_quota", "code": "insufficient_quota" } }),
        ),
        "balance" => json(402, json!({ "error": { "message": "Insufficient Balance" } })),
        "credit" => json(
            400,
            json!({ "type": "error", "error": { "type": "invalid_request_error", "message": "Your credit balance is too low to access the API." } }),
        ),
        "object" => {
            raw([start, "data: {\"error\":{\"message\":\"the prompt is too long\",\"code\":400}}\n\n".to_owned()]
                .concat())
        }
        "string" => raw([start, "data: {\"error\":\"out of memory\"}\n\n".to_owned()].concat()),
        "named" => raw([start, "event: error\ndata: the worker died\n\n".to_owned()].concat()),
        "vllm" => raw([
            start,
            "data: {\"object\":\"error\",\"message\":\"bad grammar\",\"type\":\"BadRequestError\",\"code\":400}\n\n"
                .to_owned(),
        ]
        .concat()),
        "within" => json(200, json!({ "error": { "message": "no such deployment", "code": "invalid_request" } })),
        "paced" if asked.number == 0 => {
            let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
            let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).expect("a date");
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", date)], "{}").into_response()
        }
        "cut" => raw(start),
        "twice" if asked.number == 0 => raw(start),
        "slow" => raw(Body::from_stream(futures::stream::once(async {
            // Longer than any pause or timeout that is set in these tests for something else.
            tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
            Ok::<_, Infallible>([chunk(&json!({ "content": "late, but here" }), Some("stop")), done()].concat())
        }))),
        "drip" => endless(asked, chunk(&json!({ "content": "word " }), None)),
        "silent" => endless(asked, String::new()),
        "query" if !asked.path.ends_with("/chat/completions?api-version=1") => refuse(404, "no version"),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_says_who_what_and_what_to_do() {
    let lab = Lab::start().await;
    let quirks = [
        ("page", "", 1, vec!["Welcome to nginx!", "/page/v1/chat/completions", "`base_url`"]),
        ("page-404", "", 1, vec!["404", "/page-404/v1/chat/completions", "`base_url`"]),
        ("moved", "", 1, vec!["https://elsewhere.example/v1", "`base_url`"]),
        ("nomodel", "", 1, vec!["The model `fake` does not exist", "check `model`"]),
        ("nokey", "", 1, vec!["401", "Missing bearer", "`api_key = \"secret:NAME\"`", "[providers.nokey]"]),
        ("quota", "", 1, vec!["is used up", "exceeded your current quota", "`fallback`"]),
        ("balance", "", 1, vec!["is used up", "Insufficient Balance"]),
        ("credit", "", 1, vec!["is used up", "credit balance"]),
        ("object", "", 1, vec!["the prompt is too long"]),
        ("string", "", 3, vec!["out of memory"]),
        ("named", "", 3, vec!["the worker died"]),
        ("vllm", "", 1, vec!["bad grammar"]),
        ("within", "", 1, vec!["no such deployment"]),
        ("cut", "", 3, vec!["broke off", "try again"]),
        (
            "unset",
            "api_key = \"env:CAXTON_PROVIDER_UNSET\"",
            0,
            vec!["variable CAXTON_PROVIDER_UNSET", "set it and start"],
        ),
        ("nosecret", "api_key = \"secret:NOT_THERE\"", 0, vec!["NOT_THERE", "caxton secrets set"]),
        // Nobody listens at port 1.
        ("down", "base_url = \"http://127.0.0.1:1/v1\"", 0, vec!["http://127.0.0.1:1/v1", "refused", "that it runs"]),
    ];
    let bench = bench(&lab, &quirks.each_ref().map(|(quirk, provider, ..)| (*quirk, *provider, ""))).await;
    for (quirk, provider, requests, words) in &quirks {
        let failure = bench.failure_of(quirk).await;
        for word in words.iter().chain([quirk]) {
            assert!(failure.contains(word), "{quirk}: {word:?} is not in {failure:?}");
        }
        assert_eq!(lab.asked(quirk).len(), *requests, "{quirk}: {failure}");
        // One sentence: nothing is said twice, and what the connection's parts say of each other is not said at all.
        let prefixed = usize::from(provider.contains("api_key"));
        assert_eq!(failure.matches("could not be prepared").count(), prefixed, "{quirk}: {failure}");
        for noise in ["error sending request", "client error", "os error"] {
            assert!(!failure.contains(noise), "{quirk}: {noise:?} is in {failure:?}");
        }
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_account_opens_no_circuit_and_the_next_model_answers() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("quota", "fallback = [\"plain-one\"]", ""), ("plain-one", "", "")]).await;
    for _ in 0..8 {
        assert_eq!(bench.answer_of("quota").await, "ok");
    }
    assert_eq!(lab.asked("quota").len(), 8, "asked each time, and once each time");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_asked_again() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("paced", "", ""), ("twice", "", "")]).await;
    for quirk in ["paced", "twice"] {
        assert_eq!(bench.answer_of(quirk).await, "ok", "{quirk}");
        assert_eq!(lab.asked(quirk).len(), 2, "{quirk}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_byte_is_waited_for_and_asked_for_once() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("slow", "timeout = \"90s\"", "[limits]\nwall_time = \"3m\"")]).await;
    assert_eq!(bench.answer_of("slow").await, "late, but here");
    assert_eq!(lab.asked("slow").len(), 1);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_over_hangs_up_on_its_provider() {
    let lab = Lab::start().await;
    let wall = "[limits]\nwall_time = \"1s\"";
    let bench = bench(&lab, &[("drip", "timeout = \"90s\"", wall), ("silent", "timeout = \"90s\"", wall)]).await;
    for quirk in ["drip", "silent"] {
        let (status, body) = bench.ask_quirk(quirk).await;
        assert!(status >= 400 && body.to_string().contains("wall_time"), "{quirk}: {body}");
        eventually("nobody listens any more", || async { lab.open.load(Ordering::SeqCst) == 0 }).await;
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_understood_as_people_write_it() {
    let lab = Lab::start().await;
    let base = |path: &str| format!("base_url = \"{}/{path}\"", lab.url);
    let (slash, query) = (base("slash/v1/"), base("query/v1?api-version=1"));
    let bench = bench(&lab, &[("slash", &slash, ""), ("query", &query, "")]).await;
    for quirk in ["slash", "query"] {
        assert_eq!(bench.answer_of(quirk).await, "ok", "{quirk}");
    }
    let ollama = format!("kind = \"ollama\"\nbase_url = \"{}\"", lab.url);
    let bench = {
        bench.stop().await;
        super::bench(&lab, &[("v1", &ollama, "")]).await
    };
    assert_eq!(bench.answer_of("v1").await, "ok");
    assert_eq!(lab.asked("v1")[0].path, "/v1/chat/completions", "Ollama's API is at /v1, whether it is written or not");
    bench.stop().await;
}
