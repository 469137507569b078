//! Which values fit which schemas, and which schemas are refused.

use super::*;
use serde_json::json;
use std::time::{Duration, Instant};

fn problems(schema: Value, value: Value) -> Vec<String> {
    Schema::compile(&schema).unwrap().check(&value)
}

#[test]
fn values_fit_or_do_not() {
    let table = [
        (json!({}), json!(1), true),
        (json!(true), json!(1), true),
        (json!(false), json!(1), false),
        (json!({ "type": "integer" }), json!(2.0), true),
        (json!({ "type": "integer" }), json!(2.5), false),
        (json!({ "type": ["string", "null"] }), json!(null), true),
        (json!({ "enum": ["a", 1] }), json!(1.0), true),
        (json!({ "enum": ["a", 1] }), json!("b"), false),
        (json!({ "const": { "a": [1] } }), json!({ "a": [1.0] }), true),
        (json!({ "minimum": 1, "exclusiveMaximum": 3 }), json!(1), true),
        (json!({ "minimum": 1, "exclusiveMaximum": 3 }), json!(3), false),
        (json!({ "multipleOf": 0.1 }), json!(0.3), true),
        (json!({ "multipleOf": 2 }), json!(3), false),
        (json!({ "minLength": 2, "maxLength": 3 }), json!("äö"), true),
        (json!({ "maxLength": 3 }), json!("abcd"), false),
        (json!({ "pattern": "^a+$" }), json!("aaa"), true),
        (json!({ "pattern": "^a+$" }), json!("ab"), false),
        (json!({ "items": { "type": "string" }, "maxItems": 2 }), json!(["a", "b"]), true),
        (json!({ "items": { "type": "string" } }), json!(["a", 1]), false),
        (json!({ "prefixItems": [{ "type": "string" }], "items": false }), json!(["a"]), true),
        (json!({ "prefixItems": [{ "type": "string" }], "items": false }), json!(["a", 1]), false),
        (json!({ "uniqueItems": true }), json!([1, 2, 1.0]), false),
        (json!({ "contains": { "type": "string" } }), json!([1, "a"]), true),
        (json!({ "contains": { "type": "string" } }), json!([1]), false),
        (json!({ "contains": { "type": "string" }, "minContains": 0 }), json!([1]), true),
        (
            json!({ "properties": { "a": { "type": "string" } }, "additionalProperties": false }),
            json!({ "a": "x" }),
            true,
        ),
        (json!({ "properties": { "a": {} }, "additionalProperties": false }), json!({ "b": 1 }), false),
        (
            json!({ "patternProperties": { "^x": { "type": "number" } }, "additionalProperties": false }),
            json!({ "xy": 1 }),
            true,
        ),
        (json!({ "patternProperties": { "^x": { "type": "number" } } }), json!({ "xy": "1" }), false),
        (json!({ "propertyNames": { "maxLength": 1 } }), json!({ "ab": 1 }), false),
        (json!({ "dependentRequired": { "a": ["b"] } }), json!({ "a": 1 }), false),
        (json!({ "anyOf": [{ "type": "string" }, { "minimum": 5 }] }), json!(6), true),
        (json!({ "anyOf": [{ "type": "string" }, { "minimum": 5 }] }), json!(4), false),
        (json!({ "oneOf": [{ "type": "number" }, { "minimum": 5 }] }), json!(6), false),
        (json!({ "oneOf": [{ "type": "number" }, { "type": "string" }] }), json!(6), true),
        (json!({ "not": { "type": "string" } }), json!("a"), false),
        (
            json!({ "if": { "type": "string" }, "then": { "minLength": 2 }, "else": { "minimum": 2 } }),
            json!("a"),
            false,
        ),
        (json!({ "if": { "type": "string" }, "then": { "minLength": 2 }, "else": { "minimum": 2 } }), json!(3), true),
        (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "string" } } }), json!(1), false),
    ];
    for (schema, value, fits) in table {
        assert_eq!(problems(schema.clone(), value.clone()).is_empty(), fits, "{schema} {value}");
    }
}

#[test]
fn problems_name_their_place() {
    let schema = json!({ "type": "object", "required": ["text"], "additionalProperties": false,
        "properties": { "text": { "type": "string" }, "rows": { "items": { "type": "integer" } } } });
    assert_eq!(problems(schema.clone(), json!({})), ["the arguments lack `text`"]);
    assert_eq!(problems(schema.clone(), json!({ "text": 1 })), ["`text` is a number, not a string"]);
    assert_eq!(
        problems(schema.clone(), json!({ "text": "", "rows": [1, "x"], "more": 1 })),
        ["`more` is not expected", "`rows.1` is a string, not an integer"]
    );
}

#[test]
fn a_recursive_schema_follows_the_value() {
    let tree = json!({ "type": "object", "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } });
    assert!(problems(tree.clone(), json!({ "left": { "left": {}, "right": {} } })).is_empty());
    assert!(!problems(tree, json!({ "left": { "left": 1 } })).is_empty());
}

#[test]
fn bombs_are_refused_or_end() {
    // Each level checks the next one twice: two to the sixtieth steps, if they were all made.
    let mut definitions = serde_json::Map::new();
    for n in 0..60 {
        let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
        definitions.insert(format!("d{n}"), json!({ "allOf": [next, next] }));
    }
    definitions.insert("d60".into(), json!({}));
    let doubling = json!({ "$ref": "#/$defs/d0", "$defs": definitions });
    let itself = json!({ "$ref": "#" });
    let started = Instant::now();
    for schema in [doubling, itself] {
        if let Ok(schema) = Schema::compile(&schema) {
            assert_eq!(schema.check(&json!({})).len(), 1);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({ "not": deep });
    }
    assert!(Schema::compile(&deep).is_err());
    assert!(Schema::compile(&json!({ "description": "x".repeat(300 << 10) })).is_err());
    assert!(Schema::compile(&json!({ "pattern": "(((a{100}){100}){100}){100}" })).is_err());
    // What backtracks for ages elsewhere is linear here.
    let slow = Schema::compile(&json!({ "pattern": "^(a+)+$" })).unwrap();
    assert!(!slow.check(&json!(format!("{}b", "a".repeat(100_000)))).is_empty());
}

#[test]
fn what_is_not_understood_is_refused() {
    for schema in [
        json!({ "$dynamicRef": "#x" }),
        json!({ "unevaluatedProperties": false }),
        json!({ "$ref": "https://example.com/schema.json" }),
        json!({ "$ref": "#/$defs/nowhere" }),
        json!({ "type": "text" }),
        json!({ "requierd": ["a"] }),
        json!([]),
    ] {
        assert!(Schema::compile(&schema).is_err(), "{schema}");
    }
}
