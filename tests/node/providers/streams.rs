//! Streams: how calls are numbered, how events are written, how replies end.

use super::*;

pub(super) fn answer(asked: &Question) -> Option<Response> {
    let (tool, results) = (asked.tool(), asked.results());
    let whole = |id: Value, index: Value, number: usize| {
        let mut piece =
            json!({ "type": "function", "function": { "name": tool, "arguments": asked.arguments(number) } });
        if !id.is_null() {
            piece["id"] = id;
        }
        if !index.is_null() {
            piece["index"] = index;
        }
        piece
    };
    let two = |ids: [Value; 2], indexes: [Value; 2]| {
        let [a, b] = [0, 1].map(|at| whole(ids[at].clone(), indexes[at].clone(), at));
        if results > 0 { say(&format!("{results} results")) } else { call(&[a, b]) }
    };
    let three_steps = |id: Value| match results {
        0..3 => call(&[whole(id, json!(0), results)]),
        _ => say(&format!("done after {results}")),
    };
    let null = || [Value::Null, Value::Null];
    Some(match asked.quirk.as_str() {
        "sameindex" => two([json!("c0"), json!("c1")], [json!(0), json!(0)]),
        "noindex" => two([json!("c0"), json!("c1")], null()),
        "nothing" => two(null(), null()),
        "sameid" => two([json!("c"), json!("c")], [json!(0), json!(1)]),
        "onechunk" if results > 0 => say(&format!("{results} results")),
        "onechunk" => {
            let both =
                json!({ "tool_calls": [whole(Value::Null, Value::Null, 0), whole(Value::Null, Value::Null, 1)] });
            deltas(&[both], "tool_calls")
        }
        "names" if results > 0 => say(&format!("{results} results")),
        "names" => {
            let arguments = asked.arguments(0);
            let (a, b) = arguments.split_at(5);
            let piece = |arguments: &str| json!({ "index": 0, "id": "c0", "function": { "name": tool, "arguments": arguments } });
            call(&[piece(""), piece(a), piece(b)])
        }
        "noids" => three_steps(Value::Null),
        "fixedid" => three_steps(json!("call_0")),
        "emptyids" => three_steps(json!("")),
        "cutcall" => match asked.number {
            0 => {
                let piece =
                    json!({ "index": 0, "id": "c0", "function": { "name": tool, "arguments": "{\"text\":\"a,b" } });
                deltas(&[json!({ "tool_calls": [piece] })], "length")
            }
            // It looks whole, and was cut off all the same.
            1 => deltas(&[json!({ "tool_calls": [whole(json!("c1"), json!(0), 1)] })], "length"),
            _ => say(asked.messages().last().and_then(|last| last["content"].as_str()).unwrap_or_default()),
        },
        "list" | "broken" | "deep" if results > 0 => {
            say(asked.messages().last().and_then(|last| last["content"].as_str()).unwrap_or_default())
        }
        "list" => call(&[json!({ "index": 0, "id": "c", "function": { "name": tool, "arguments": "[1, 2]" } })]),
        "broken" => {
            call(&[json!({ "index": 0, "id": "c", "function": { "name": tool, "arguments": "{\"text\": a,b}" } })])
        }
        "deep" => {
            let deep = format!("{{\"text\":{}1{}}}", "[".repeat(124), "]".repeat(124));
            call(&[json!({ "index": 0, "id": "c", "function": { "name": tool, "arguments": deep } })])
        }
        "many" => {
            let pieces: Vec<Value> =
                (0..500).map(|number| whole(json!(format!("c{number}")), json!(number), number)).collect();
            call(&pieces)
        }
        "longname" if results > 0 => say("told"),
        "longname" => {
            call(&[json!({ "index": 0, "id": "c", "function": { "name": "n".repeat(100_000), "arguments": "{}" } })])
        }
        "odd" => {
            let said = chunk(&json!({ "content": "o" }), None);
            let more = json!({ "choices": [{ "delta": { "content": "dd" } }] });
            raw(format!(
                "\u{feff}: hello\r\n\r\nretry: 5\nevent: ping\n\n{said}: still here\r\rid: 4\rdata:{more}\r\runknown: x\n\n{}{}",
                chunk(&json!({}), Some("stop")),
                done()
            ))
        }
        "nodone" => raw([chunk(&json!({ "content": "no end" }), None), chunk(&json!({}), Some("stop"))].concat()),
        "nofinish" => raw([chunk(&json!({ "content": "no reason" }), None), "data: [DONE]\n\n".to_owned()].concat()),
        "onlyusage" => {
            raw([chunk(&json!({ "content": "counted" }), None), done().replace("data: [DONE]\n\n", "")].concat())
        }
        "noblank" => raw([
            chunk(&json!({ "content": "last line" }), None),
            chunk(&json!({}), Some("stop")).trim_end().to_owned(),
        ]
        .concat()),
        "plain" => {
            let message = json!({ "role": "assistant", "content": "not streamed" });
            axum::Json(json!({ "model": "m", "choices": [{ "message": message, "finish_reason": "stop" }] }))
                .into_response()
        }
        "mislabelled" => {
            let body = [chunk(&json!({ "content": "a stream" }), Some("stop")), done()].concat();
            ([("content-type", "application/json")], body).into_response()
        }
        "parts" => deltas(
            &[
                json!({ "content": [{ "type": "text", "text": "in " }] }),
                json!({ "content": [{ "type": "text", "text": "parts" }] }),
            ],
            "stop",
        ),
        "refusal" => deltas(&[json!({ "content": null, "refusal": "I will not." })], "stop"),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_are_two_however_they_are_numbered() {
    let lab = Lab::start().await;
    let quirks = ["sameindex", "noindex", "nothing", "sameid", "onechunk"];
    let bench = bench(&lab, &quirks.map(|quirk| (quirk, "", ""))).await;
    for quirk in quirks {
        assert_eq!(bench.answer_of(quirk).await, "2 results", "{quirk}");
        // Each result goes to a call, and no two calls have one id.
        let asked = lab.asked(quirk);
        let last = asked.last().expect("asked");
        let calls =
            last.of_role("assistant").flat_map(|message| message["tool_calls"].as_array().into_iter().flatten());
        let ids: Vec<&Value> = calls.map(|call| &call["id"]).collect();
        let answered: Vec<&Value> = last.of_role("tool").map(|result| &result["tool_call_id"]).collect();
        assert_eq!(ids, answered, "{quirk}");
        assert_ne!(ids[0], ids[1], "{quirk}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_every_piece_is_one_name() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("names", "", "")]).await;
    assert_eq!(bench.answer_of("names").await, "1 results");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_ids_have_ids_of_their_own_over_the_turn() {
    let lab = Lab::start().await;
    let quirks = ["noids", "emptyids"];
    let bench = bench(&lab, &quirks.map(|quirk| (quirk, "", ""))).await;
    for quirk in quirks {
        assert_eq!(bench.answer_of(quirk).await, "done after 3", "{quirk}");
        let asked = lab.asked(quirk);
        let ids = asked.last().expect("asked").of_role("tool").map(|result| result["tool_call_id"].to_string());
        let ids: std::collections::BTreeSet<String> = ids.collect();
        assert_eq!(ids.len(), 3, "{quirk}: {ids:?}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_fits_one_call_also_where_ids_repeat() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("fixedid", "", GATED_TOOL)]).await;
    let (status, waiting) = bench.ask_quirk("fixedid").await;
    assert_eq!(status, 202, "{waiting}");
    let mut seen = Vec::new();
    for step in 0..3 {
        let [id] = bench.approvals().await.try_into().expect("one waits");
        assert!(!seen.contains(&id), "the approval of another call");
        let (status, body) = bench.approve(&id).await;
        assert_eq!(status, if step < 2 { 202 } else { 200 }, "{body}");
        let (status, _) = bench.approve(&id).await;
        assert_eq!(status, 404, "it is used up");
        seen.push(id);
        if step == 2 {
            assert_eq!(body["text"], "done after 3");
        }
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_cut_off_is_not_made_and_the_model_is_told() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("cutcall", "", GATED_TOOL)]).await;
    let said = bench.answer_of("cutcall").await;
    assert!(said.contains("cut off") && said.contains("none of its calls was made"), "{said}");
    assert_eq!((lab.asked("cutcall").len(), bench.approvals().await.len()), (3, 0));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_cannot_be_used_go_back_to_the_model() {
    let lab = Lab::start().await;
    let quirks = ["list", "broken", "deep"];
    let bench = bench(&lab, &quirks.map(|quirk| (quirk, "", GATED_TOOL))).await;
    for (quirk, told) in [("list", "not a JSON object"), ("broken", "not JSON"), ("deep", "64 is the most")] {
        let said = bench.answer_of(quirk).await;
        assert!(said.contains(told), "{quirk}: {said}");
    }
    // The node goes on, and reads what it stored.
    let bench = Bench::on(bench.stop().await, &[]).await;
    assert!(bench.answer_of("deep").await.contains("64 is the most"));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_has_limits() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("many", "", ""), ("longname", "", "")]).await;
    let failure = bench.failure_of("many").await;
    assert!(failure.contains("more than 128 calls"), "{failure}");
    assert_eq!(bench.answer_of("longname").await, "told");
    let asked = lab.asked("longname");
    let sent = asked.last().expect("asked").body.to_string();
    assert!(sent.len() < 20_000, "the name came back with {} bytes", sent.len());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_in_whichever_form_it_comes() {
    let lab = Lab::start().await;
    let expected = [
        ("odd", "odd"),
        ("nodone", "no end"),
        ("nofinish", "no reason"),
        ("onlyusage", "counted"),
        ("noblank", "last line"),
        ("plain", "not streamed"),
        ("mislabelled", "a stream"),
        ("parts", "in parts"),
        ("refusal", "I will not."),
    ];
    let bench = bench(&lab, &expected.map(|(quirk, _)| (quirk, "", ""))).await;
    for (quirk, text) in expected {
        assert_eq!(bench.answer_of(quirk).await, text, "{quirk}");
        assert_eq!(lab.asked(quirk).len(), 1, "{quirk} is asked once");
    }
    bench.stop().await;
}
