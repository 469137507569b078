//! What has to be sent back is sent back: reasoning, signatures, blocks of thought; over an approval and a restart too.

use super::*;

pub(super) fn answer(asked: &Question) -> Option<Response> {
    let (tool, arguments) = (asked.tool(), asked.arguments(0));
    let piece = json!({ "index": 0, "id": "c0", "function": { "name": tool, "arguments": arguments } });
    let calls = json!({ "tool_calls": [piece] });
    // The message that called, as it came back.
    let back = asked.of_role("assistant").find(|message| message["tool_calls"].is_array()).cloned();
    Some(match (asked.quirk.as_str(), back) {
        ("reasoning" | "reasoning-gated", Some(back)) if back["reasoning_content"] != "I should look." => {
            refuse(400, "an assistant message lacks reasoning_content")
        }
        ("reasoning" | "reasoning-gated", Some(_)) => say("thought through"),
        ("reasoning" | "reasoning-gated", None) => deltas(
            &[json!({ "reasoning_content": "I should " }), json!({ "reasoning_content": "look." }), calls],
            "tool_calls",
        ),
        ("details", Some(back)) => {
            let expected = json!([
                { "type": "reasoning.text", "index": 0, "text": "I see.", "signature": "sig", "format": "f" },
                { "type": "reasoning.encrypted", "index": 1, "data": "sealed" },
            ]);
            say(if back["reasoning_details"] == expected && back["reasoning"] == "I see." {
                "thought through"
            } else {
                "lost"
            })
        }
        ("details", None) => {
            let text = |text: &str, signature: Value| {
                json!({ "reasoning": text,
                "reasoning_details": [{ "type": "reasoning.text", "index": 0, "text": text, "signature": signature, "format": "f" }] })
            };
            let sealed =
                json!({ "reasoning_details": [{ "type": "reasoning.encrypted", "index": 1, "data": "sealed" }] });
            deltas(&[text("I ", Value::Null), text("see.", json!("sig")), sealed, calls], "tool_calls")
        }
        ("signature", Some(back)) => {
            match back["tool_calls"][0]["extra_content"]["google"]["thought_signature"].as_str() {
                Some("signed") => say("thought through"),
                Some(_) | None => refuse(400, "Function call is missing a thought_signature in functionCall parts."),
            }
        }
        ("signature", None) => {
            let mut calls = calls;
            calls["tool_calls"][0]["extra_content"] = json!({ "google": { "thought_signature": "signed" } });
            deltas(&[calls], "tool_calls")
        }
        ("parts-thought", Some(back)) => {
            let thought = json!({ "type": "thinking", "thinking": [{ "type": "text", "text": "I see." }] });
            say(if back["content"][0] == thought { "thought through" } else { "lost" })
        }
        ("parts-thought", None) => {
            let thought = |text: &str| json!({ "content": [{ "type": "thinking", "thinking": [{ "type": "text", "text": text }] }] });
            deltas(&[thought("I "), thought("see."), calls], "tool_calls")
        }
        ("rejects-thought", Some(back)) if back.get("reasoning").is_some() => {
            refuse(400, "'messages.2': for 'role:assistant' the property 'reasoning' is unsupported")
        }
        ("rejects-thought", Some(_)) => say("without"),
        ("rejects-thought", None) => deltas(&[json!({ "reasoning": "I see." }), calls], "tool_calls"),
        ("longid", Some(back)) => {
            say(if back["tool_calls"][0]["id"] == format!("id__sig__{}", "s".repeat(3_000)) { "kept" } else { "lost" })
        }
        ("longid", None) => {
            let mut calls = calls;
            calls["tool_calls"][0]["id"] = json!(format!("id__sig__{}", "s".repeat(3_000)));
            deltas(&[calls], "tool_calls")
        }
        ("first-dies", None) => deltas(&[json!({ "reasoning_content": "my own" }), calls], "tool_calls"),
        ("first-dies", Some(_)) => refuse(500, "down"),
        ("stands-in", back) => say(if back.is_some_and(|back| back.get("reasoning_content").is_none()) {
            "a stranger's thoughts stay home"
        } else {
            "leaked"
        }),
        ("thinking", _) => thinking(asked),
        _ => return None,
    })
}

/// Anthropic's form.
fn thinking(asked: &Question) -> Response {
    let event = |data: Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default());
    let usage = json!({ "input_tokens": 9, "output_tokens": 1 });
    let mut events = vec![event(json!({ "type": "message_start", "message": { "model": "a", "usage": usage } }))];
    let begin = |index: usize, block: Value| {
        event(json!({ "type": "content_block_start", "index": index, "content_block": block }))
    };
    let piece =
        |index: usize, delta: Value| event(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    let stop = match asked.messages().len() {
        1 => {
            events.push(begin(0, json!({ "type": "thinking", "thinking": "", "signature": "" })));
            events.push(piece(0, json!({ "type": "thinking_delta", "thinking": "I see." })));
            events.push(piece(0, json!({ "type": "signature_delta", "signature": "signed" })));
            events.push(begin(1, json!({ "type": "redacted_thinking", "data": "sealed" })));
            events.push(begin(
                2,
                json!({ "type": "tool_use", "id": "toolu_1", "name": "list_capabilities", "input": {} }),
            ));
            events.push(piece(2, json!({ "type": "input_json_delta", "partial_json": "{\"about\":\"x\"}" })));
            "tool_use"
        }
        _ => {
            let expected = json!([
                { "type": "thinking", "thinking": "I see.", "signature": "signed" },
                { "type": "redacted_thinking", "data": "sealed" },
                { "type": "tool_use", "id": "toolu_1", "name": "list_capabilities", "input": { "about": "x" } },
            ]);
            let answered = asked.messages()[2]["content"][0]["tool_use_id"] == "toolu_1";
            let text = if asked.messages()[1]["content"] == expected && answered { "thought through" } else { "lost" };
            events.push(begin(0, json!({ "type": "text", "text": "" })));
            events.push(piece(0, json!({ "type": "text_delta", "text": text })));
            "end_turn"
        }
    };
    events.push(event(
        json!({ "type": "message_delta", "delta": { "stop_reason": stop }, "usage": { "output_tokens": 7 } }),
    ));
    events.push(event(json!({ "type": "message_stop" })));
    raw(events.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_thought_comes_back_with_the_call() {
    let lab = Lab::start().await;
    let quirks = ["reasoning", "details", "signature", "parts-thought"];
    let mut all = quirks.map(|quirk| (quirk, "", "")).to_vec();
    all.push(("thinking", "kind = \"anthropic\"", ""));
    let bench = bench(&lab, &all).await;
    for (quirk, ..) in all {
        assert_eq!(bench.answer_of(quirk).await, "thought through", "{quirk}");
        assert_eq!(lab.asked(quirk).len(), 2, "{quirk} refuses nothing");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_thought_outlives_an_approval_and_a_restart() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("reasoning-gated", "", GATED_TOOL)]).await;
    let (status, waiting) = bench.ask_quirk("reasoning-gated").await;
    assert_eq!(status, 202, "{waiting}");
    let bench = Bench::on(bench.stop().await, &[]).await;
    let [id] = bench.approvals().await.try_into().expect("one waits");
    let (status, body) = bench.approve(&id).await;
    assert_eq!((status, body["text"].as_str()), (200, Some("thought through")), "{body}");
    // It is no part of what was said.
    let path = format!("/conversations/{}", body["conversation"].as_str().expect("an id"));
    let (_, shown) = read(bench.request(Method::GET, &at(&path))).await;
    assert!(!shown.to_string().contains("I should look."), "{shown}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_take_its_thoughts_back_is_spared_them() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("rejects-thought", "", ""), ("longid", "", "")]).await;
    assert_eq!(bench.answer_of("rejects-thought").await, "without");
    assert_eq!(lab.asked("rejects-thought").len(), 3, "one refusal teaches it");
    assert_eq!(bench.answer_of("rejects-thought").await, "without");
    assert_eq!(lab.asked("rejects-thought").len(), 5, "and is remembered");
    assert_eq!(bench.answer_of("longid").await, "kept");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_provider_does_not_hear_what_the_first_one_thought() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("first-dies", "fallback = [\"stands-in\"]", ""), ("stands-in", "", "")]).await;
    assert_eq!(bench.answer_of("first-dies").await, "a stranger's thoughts stay home");
    bench.stop().await;
}
