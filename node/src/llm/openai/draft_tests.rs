//! Which calls come of which pieces.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The calls of a stream whose chunks have these `tool_calls`, as name and arguments.
fn calls_of(chunks: &[Value]) -> Vec<(String, String)> {
    let mut draft = Draft::default();
    for pieces in chunks {
        draft.take(&json!({ "tool_calls": pieces })).expect("few calls");
    }
    let (calls, _) = draft.calls(String::new(), str::to_owned);
    calls.into_iter().map(|call| (call.tool, call.arguments)).collect()
}

fn pair(a: &str, b: &str) -> Vec<(String, String)> {
    vec![("f".to_owned(), a.to_owned()), ("f".to_owned(), b.to_owned())]
}

fn whole(id: Option<&str>, index: Option<u64>, arguments: &str) -> Value {
    let mut piece = json!({ "function": { "name": "f", "arguments": arguments } });
    if let Some(id) = id {
        piece["id"] = json!(id);
    }
    if let Some(index) = index {
        piece["index"] = json!(index);
    }
    piece
}

#[test]
fn whole_calls_are_told_apart_whatever_they_are_numbered_with() {
    let (a, b) = (r#"{"n":0}"#, r#"{"n":1}"#);
    for (ids, indexes) in [
        ([Some("c0"), Some("c1")], [Some(0), Some(1)]),
        ([Some("c0"), Some("c1")], [Some(0), Some(0)]),
        ([Some("c0"), Some("c1")], [None, None]),
        ([None, None], [Some(0), Some(0)]),
        ([None, None], [None, None]),
        ([Some("c0"), Some("c0")], [Some(0), Some(0)]),
        ([Some("c0"), Some("c0")], [None, None]),
        ([Some(""), Some("")], [Some(0), Some(0)]),
    ] {
        let pieces = [whole(ids[0], indexes[0], a), whole(ids[1], indexes[1], b)];
        let apart: Vec<Value> = pieces.iter().map(|piece| json!([piece])).collect();
        assert_eq!(calls_of(&apart), pair(a, b), "{ids:?} {indexes:?}");
        assert_eq!(calls_of(&[json!(pieces)]), pair(a, b), "in one chunk: {ids:?} {indexes:?}");
    }
    let same = [json!([whole(None, None, "{}")]), json!([whole(None, None, "{}")])];
    assert_eq!(calls_of(&same[..1]).len(), 1);
}

#[test]
fn pieces_of_one_call_come_together() {
    let expected = [("f".to_owned(), r#"{"a":1,"b":2}"#.to_owned())];
    let piece = |name: Option<&str>, id: Option<&str>, index: Option<u64>, arguments: &str| {
        let mut piece = whole(id, index, arguments);
        piece["function"]["name"] = json!(name);
        json!([piece])
    };
    for (what, chunks) in [
        (
            "as it should be",
            vec![
                piece(Some("f"), Some("x"), Some(0), ""),
                piece(None, None, Some(0), "{\"a\":1,"),
                piece(None, None, Some(0), "\"b\":2}"),
            ],
        ),
        (
            "name in every piece",
            vec![piece(Some("f"), Some("x"), Some(0), "{\"a\":1,"), piece(Some("f"), None, Some(0), "\"b\":2}")],
        ),
        (
            "name and id in every piece",
            vec![piece(Some("f"), Some("x"), Some(0), "{\"a\":1,"), piece(Some("f"), Some("x"), Some(0), "\"b\":2}")],
        ),
        ("no index", vec![piece(Some("f"), Some("x"), None, "{\"a\":1,"), piece(None, None, None, "\"b\":2}")]),
        (
            "no index, id in every piece",
            vec![piece(Some("f"), Some("x"), None, "{\"a\":1,"), piece(None, Some("x"), None, "\"b\":2}")],
        ),
        (
            "nothing but the name",
            vec![piece(Some("f"), None, None, "{\"a\":1,"), piece(Some("f"), None, None, "\"b\":2}")],
        ),
        (
            "empty pieces behind",
            vec![
                piece(Some("f"), Some("x"), Some(0), r#"{"a":1,"b":2}"#),
                piece(Some("f"), None, Some(0), ""),
                piece(Some(""), Some(""), Some(0), " "),
            ],
        ),
        (
            "whole once more",
            vec![
                piece(Some("f"), Some("x"), Some(0), r#"{"a":1,"b":2}"#),
                piece(Some("f"), Some("x"), Some(0), r#"{"a":1,"b":2}"#),
            ],
        ),
        (
            "an empty object before",
            vec![
                piece(Some("f"), Some("x"), Some(0), "{}"),
                piece(None, None, Some(0), "{\"a\":1,"),
                piece(None, None, Some(0), "\"b\":2}"),
            ],
        ),
        (
            "braces in between",
            vec![piece(Some("f"), Some("x"), Some(0), "{\"a\":1"), piece(Some("f"), Some("x"), Some(0), ",\"b\":2}")],
        ),
    ] {
        let calls = calls_of(&chunks);
        assert_eq!((calls.len(), calls[0].1.trim()), (1, expected[0].1.as_str()), "{what}");
        assert_eq!(calls[0].0, "f", "{what}");
    }
    let named = |name: &str| json!([{ "index": 0, "function": { "name": name } }]);
    let last = json!([{ "index": 0, "function": { "arguments": "{}" } }]);
    for names in [["get_", "weather"], ["get_", "get_weather"], ["get_weather", "get_weather"]] {
        let calls = calls_of(&[named(names[0]), named(names[1]), last.clone()]);
        assert_eq!(calls, [("get_weather".to_owned(), "{}".to_owned())], "{names:?}");
    }
}

#[test]
fn interleaved_calls_with_indexes_stay_apart() {
    let chunks = [
        json!([{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "" } }]),
        json!([{ "index": 1, "id": "b", "function": { "name": "f", "arguments": "{\"n\":" } }]),
        json!([{ "index": 0, "function": { "arguments": "{\"n\":0}" } }]),
        json!([{ "index": 1, "function": { "arguments": "1}" } }]),
    ];
    assert_eq!(calls_of(&chunks), pair(r#"{"n":0}"#, r#"{"n":1}"#));
}

#[test]
fn odd_forms_of_a_call_are_calls() {
    let object = json!([{ "index": 0, "id": 7, "function": { "name": "f", "arguments": { "n": 1 } } }]);
    assert_eq!(calls_of(&[object]), [("f".to_owned(), r#"{"n":1}"#.to_owned())]);
    let mut draft = Draft::default();
    draft.take(&json!({ "function_call": { "name": "f", "arguments": "{\"n\":" } })).expect("one call");
    draft.take(&json!({ "function_call": { "arguments": "1}" } })).expect("one call");
    draft.take(&json!({ "tool_calls": null, "content": null })).expect("nothing");
    let (calls, _) = draft.calls(String::new(), str::to_owned);
    assert_eq!(calls[0].arguments, r#"{"n":1}"#);
    assert_eq!(calls_of(&[json!([{ "index": 0, "function": { "name": "", "arguments": "" } }])]), []);
}

#[test]
fn text_comes_as_text_as_parts_and_as_a_refusal() {
    let mut draft = Draft::default();
    for said in [
        json!({ "content": "a" }),
        json!({ "content": [{ "type": "text", "text": "b" }, "c", { "type": "refusal", "refusal": "d" }] }),
        json!({ "content": null, "refusal": "e" }),
        json!({ "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }),
        json!({ "content": 7 }),
    ] {
        draft.take(&said).expect("no calls");
    }
    assert_eq!(draft.text, "abcde");
}

#[test]
fn what_was_thought_is_put_together_for_the_way_back() {
    let mut draft = Draft::default();
    for said in [
        json!({ "reasoning_content": "I " }),
        json!({ "reasoning_content": "see.", "reasoning_details": [{ "type": "reasoning.text", "index": 0, "text": "I " }] }),
        json!({ "reasoning_details": [{ "type": "reasoning.text", "index": 0, "text": "see.", "signature": "s" }] }),
        json!({ "reasoning_details": [{ "type": "reasoning.encrypted", "index": 1, "data": "e" }] }),
        json!({ "thinking_blocks": [{ "type": "thinking", "thinking": "a" }] }),
        json!({ "thinking_blocks": [{ "type": "thinking", "thinking": "b", "signature": "t" }] }),
        json!({ "thinking_blocks": [{ "type": "thinking", "thinking": "c" }] }),
        json!({ "tool_calls": [{ "index": 0, "id": "x", "function": { "name": "f", "arguments": "{}" },
            "extra_content": { "google": { "thought_signature": "g" } } }] }),
    ] {
        draft.take(&said).expect("one call");
    }
    let (calls, echo) = draft.calls("home".into(), str::to_owned);
    let echo = Echo::read(echo.as_deref(), "home").expect("an echo");
    assert_eq!((calls.len(), calls[0].id.as_str()), (1, "x"));
    assert_eq!(echo.message["reasoning_content"], "I see.");
    assert_eq!(
        echo.message["reasoning_details"],
        json!([{ "type": "reasoning.text", "index": 0, "text": "I see.", "signature": "s" },
            { "type": "reasoning.encrypted", "index": 1, "data": "e" }])
    );
    assert_eq!(
        echo.message["thinking_blocks"],
        json!([{ "type": "thinking", "thinking": "ab", "signature": "t" }, { "type": "thinking", "thinking": "c" }])
    );
    assert_eq!(echo.calls[0].fields["extra_content"]["google"]["thought_signature"], "g");
}

#[test]
fn thoughts_among_parts_keep_their_place() {
    let mut draft = Draft::default();
    let thinks =
        |text: &str| json!({ "content": [{ "type": "thinking", "thinking": [{ "type": "text", "text": text }] }] });
    for said in [thinks("I "), thinks("see."), json!({ "content": "So" }), json!({ "content": " be it" })] {
        draft.take(&said).expect("no calls");
    }
    assert_eq!(draft.text, "So be it");
    let (_, echo) = draft.calls("home".into(), str::to_owned);
    let echo = Echo::read(echo.as_deref(), "home").expect("an echo");
    assert_eq!(
        echo.parts,
        [json!({ "type": "thinking", "thinking": [{ "type": "text", "text": "I see." }] }), json!({ "type": "text" })]
    );
}

#[test]
fn there_are_not_more_calls_than_allowed() {
    let mut draft = Draft::default();
    let piece =
        |index: usize| json!({ "tool_calls": [{ "index": index, "function": { "name": "f", "arguments": "{}" } }] });
    for index in 0..CALLS_MAX {
        draft.take(&piece(index)).expect("allowed");
    }
    assert!(draft.take(&piece(CALLS_MAX)).is_err());
}

proptest! {
    /// However the arguments are cut, and whether names and ids are repeated: the calls are the same.
    #[test]
    fn cuts_make_no_difference(cuts in prop::collection::vec(1usize..20, 0..6), repeat_name: bool, repeat_id: bool, with_index: bool) {
        let arguments = [r#"{"a":"{}","n":[1,2]}"#, r#"{"b":{"c":"}"}}"#];
        let mut chunks = Vec::new();
        for (number, arguments) in arguments.iter().enumerate() {
            let mut at = 0;
            let mut first = true;
            let mut cuts = cuts.iter();
            while at < arguments.len() {
                let end = cuts.next().map_or(arguments.len(), |cut| (at + cut).min(arguments.len()));
                let mut piece = json!({ "function": { "arguments": &arguments[at..end] } });
                if first || repeat_name {
                    piece["function"]["name"] = json!("f");
                }
                if first || repeat_id {
                    piece["id"] = json!(format!("c{number}"));
                }
                if with_index {
                    piece["index"] = json!(number);
                }
                chunks.push(json!([piece]));
                (at, first) = (end, false);
            }
        }
        prop_assert_eq!(calls_of(&chunks), pair(arguments[0], arguments[1]));
    }

    /// Nothing that a provider sends makes a panic.
    #[test]
    fn anything_is_survived(text in "[\\[\\]{}\",:a-z0-9 ]{0,60}", index in 0u64..3) {
        let mut draft = Draft::default();
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        for said in [
            json!({ "content": value, "tool_calls": value, "reasoning_details": value, "extra_content": value }),
            json!({ "tool_calls": [value], "thinking_blocks": [value], "content": [value] }),
            json!({ "tool_calls": [{ "index": index, "id": value, "function": value }] }),
            json!({ "tool_calls": [{ "index": value, "function": { "name": value, "arguments": value } }] }),
        ] {
            draft.take(&said).expect("few calls");
        }
        draft.calls(String::new(), str::to_owned);
    }
}
