//! Which values fit which schemas, what of a schema is not checked, and that no schema takes for ever.

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
        (json!({ "$ref": "#it", "$defs": { "a": { "$anchor": "it", "type": "string" } } }), json!(1), false),
        (
            json!({ "$id": "https://x.org/s", "$ref": "https://x.org/s#/$defs/a", "$defs": { "a": { "type": "null" } } }),
            json!(1),
            false,
        ),
        (json!({ "$ref": "#/$defs/a%20b", "$defs": { "a b": { "type": "null" } } }), json!(1), false),
        (json!({ "properties": { "a": {} }, "unevaluatedProperties": false }), json!({ "b": 1 }), false),
        (json!({ "allOf": [{ "properties": { "a": {} } }], "unevaluatedProperties": false }), json!({ "a": 1 }), true),
        // Draft 7 by its name, and by what only draft 7 and draft 4 mean.
        (
            json!({ "$schema": "http://json-schema.org/draft-07/schema#",
                 "items": [{ "type": "string" }, { "type": "number" }], "additionalItems": false }),
            json!(["a", 1]),
            true,
        ),
        (
            json!({ "$schema": "http://json-schema.org/draft-07/schema#",
                 "items": [{ "type": "string" }, { "type": "number" }], "additionalItems": false }),
            json!(["a", "b"]),
            false,
        ),
        (json!({ "items": [{ "type": "string" }, { "type": "number" }] }), json!(["a", "b"]), false),
        (json!({ "minimum": 1, "exclusiveMinimum": true }), json!(1), false),
        (
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{ "type": "null" }] }),
            json!([1]),
            false,
        ),
        (
            json!({ "definitions": { "a": { "type": "null" } }, "properties": { "x": { "$ref": "#/definitions/a" } } }),
            json!({ "x": 1 }),
            false,
        ),
        // A property may have the name of a word.
        (
            json!({ "properties": { "pattern": { "type": "string" }, "$ref": { "type": "string" } } }),
            json!({ "pattern": 1 }),
            false,
        ),
        (json!({ "format": "email" }), json!("no mail"), true),
        (json!({ "pattern": "^\\d+$" }), json!("٣"), false),
        (json!({ "pattern": "^[\\w-]+\\/[^\\]]$" }), json!("a-b/c"), true),
    ];
    for (schema, value, fits) in table {
        assert_eq!(problems(schema.clone(), value.clone()).is_empty(), fits, "{schema} {value}");
    }
}

#[test]
fn problems_name_their_place() {
    let schema = json!({ "type": "object", "required": ["text"], "additionalProperties": false, "properties": {
        "text": { "type": "string" }, "rows": { "items": { "type": "integer" } }, "kind": { "enum": ["a", "b"] },
        "size": { "anyOf": [{ "type": "string" }, { "minimum": 5 }] } } });
    let of = |value: Value| problems(schema.clone(), value);
    assert_eq!(of(json!({})), ["the arguments lack `text`"]);
    assert_eq!(of(json!([])), ["the arguments are an array, not an object"]);
    assert_eq!(of(json!({ "text": 1 })), ["`text` is a number, not a string"]);
    let mut two = of(json!({ "text": "", "rows": [1, "x"], "more": 1 }));
    two.sort();
    assert_eq!(two, ["`more` is not expected", "`rows.1` is a string, not an integer"]);
    assert_eq!(of(json!({ "text": "", "kind": "c" })), ["`kind` has to be one of \"a\", \"b\""]);
    let fits_none =
        "`size` fits none of what it may be: `size` is a number, not a string, or `size` has to be 5 or more";
    assert_eq!(of(json!({ "text": "", "size": 4 })), [fits_none]);
    let many: Vec<String> = (0..20).map(|_| "x".to_owned()).collect();
    assert_eq!(of(json!({ "text": "", "rows": many })).len(), 8, "there are only so many problems at once");
}

#[test]
fn a_problem_never_repeats_a_value() {
    let long = "secret".repeat(1_000);
    for schema in [json!({ "type": "integer" }), json!({ "enum": ["a"] }), json!({ "pattern": "^a$" }), json!(false)] {
        let told = problems(schema, json!(long)).join(" ");
        assert!(!told.contains("secret") && told.len() < 400, "{told}");
    }
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
    let by_name = json!({ "$ref": "#a", "$defs": { "b": { "$anchor": "a", "allOf": [{ "$ref": "#a" }] } } });
    // Each level of the value doubles what is looked at.
    let below = json!({ "allOf": [{ "additionalProperties": { "$ref": "#" } },
                                  { "additionalProperties": { "$ref": "#" } }] });
    let mut deep_value = json!(1);
    for _ in 0..60 {
        deep_value = json!({ "a": deep_value });
    }
    let started = Instant::now();
    for (schema, value) in
        [(doubling, json!({})), (itself, json!({})), (by_name, json!({})), (below, deep_value.clone())]
    {
        let schema = Schema::compile(&schema).unwrap();
        assert!(!schema.is_light_for(&value));
        let told = schema.check(&value);
        assert!(told.len() == 1 && (told[0].contains("steps") || told[0].contains("nested")), "{told:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({ "not": deep });
    }
    assert!(Schema::compile(&deep).is_err());
    assert!(Schema::compile(&json!({ "description": "x".repeat(300 << 10) })).is_err());
    // What backtracks for ages elsewhere is linear here.
    let slow = Schema::compile(&json!({ "pattern": "^(a+)+$" })).unwrap();
    assert!(!slow.check(&json!(format!("{}b", "a".repeat(100_000)))).is_empty());
    let unique = Schema::compile(&json!({ "uniqueItems": true })).unwrap();
    let many: Vec<Value> = (0..100_000).map(|n| json!({ "n": n })).collect();
    assert!(unique.check(&Value::from(many)).is_empty());
}

#[test]
fn a_check_as_deep_as_it_may_be_fits_a_small_stack() {
    let tree = json!({ "allOf": [{ "properties": { "a": { "$ref": "#" } } }] });
    let schema = Schema::compile(&tree).unwrap();
    let mut value = json!({});
    for _ in 0..(NESTING_MAX / 3 - 1) {
        value = json!({ "a": value });
    }
    let check = move || {
        assert_eq!(schema.check(&value), Vec::<String>::new());
        let told = schema.check(&json!({ "a": { "a": { "a": value } } }));
        assert!(told[0].contains("nested too deeply"), "{told:?}");
    };
    // Threads that serve have two megabytes.
    std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap().join().unwrap();
}

#[test]
fn what_cannot_be_checked_is_said_and_the_rest_is_checked() {
    let mail =
        "^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$";
    let huge = "(((a{100}){100}){100}){100}";
    for (odd, remark) in [
        (json!({ "pattern": mail }), "the pattern `^(?!"),
        (json!({ "pattern": huge }), "the pattern `(((a{100}"),
        (json!({ "pattern": "[" }), "the pattern `[` at #/properties/odd"),
        (json!({ "multipleOf": 0.01 }), "`multipleOf` 0.01 at #/properties/odd"),
        (json!({ "$ref": "https://example.com/schema.json" }), "never fetched"),
        (json!({ "$ref": "file:///etc/passwd" }), "never fetched"),
        (json!({ "$ref": "other.json#/a" }), "never fetched"),
        (json!({ "$ref": "#/$defs/nowhere" }), "leads nowhere"),
        (json!({ "$ref": "#nowhere" }), "leads nowhere"),
        (json!({ "$ref": "#/properties/fine/type" }), "leads nowhere"),
        (json!({ "patternProperties": { "(?=a)": { "type": "null" } }, "additionalProperties": false }), "`(?=a)`"),
        (json!({ "$id": "https://example.com/inner", "$ref": "#/$defs/here", "$defs": { "here": {} } }), "nowhere"),
    ] {
        let schema = json!({ "properties": { "odd": odd, "fine": { "type": "string" } } });
        let schema = Schema::compile(&schema).unwrap_or_else(|why| panic!("{odd}: {why}"));
        assert!(schema.remarks().len() == 1 && schema.remarks()[0].contains(remark), "{odd}: {:?}", schema.remarks());
        assert_eq!(schema.check(&json!({ "odd": { "abc": 1 } })), Vec::<String>::new(), "{odd}");
        assert_eq!(schema.check(&json!({ "fine": 1 })), ["`fine` is a number, not a string"], "{odd}");
    }
    let unknown = Schema::compile(&json!({ "$schema": "https://example.com/mine", "type": "string" })).unwrap();
    assert!(unknown.remarks()[0].contains("not known"), "{:?}", unknown.remarks());
    assert_eq!(unknown.check(&json!(1)).len(), 1);
    let many: serde_json::Map<String, Value> =
        (0..100).map(|n| (format!("p{n}"), json!({ "pattern": format!("^{n}$") }))).collect();
    let many = Schema::compile(&json!({ "properties": many })).unwrap();
    assert!(many.remarks().len() <= 9 && many.remarks()[8].contains("more rules"), "{:?}", many.remarks());
}

#[test]
fn a_schema_that_is_none_is_refused() {
    for (schema, why) in [
        (json!({ "type": "text" }), "`type`"),
        (json!({ "required": "a" }), "`required` is a string, not an array"),
        (json!({ "properties": { "a": { "minLength": -1 } } }), "`properties.a.minLength`"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#", "properties": [] }), "`properties`"),
        (json!([]), "no schema"),
        (json!("object"), "no schema"),
    ] {
        let told = Schema::compile(&schema).err().unwrap_or_else(|| panic!("{schema} is none"));
        assert!(told.contains(why), "{schema}: {told}");
    }
    // What no draft knows restricts nothing.
    assert!(Schema::compile(&json!({ "x-order": 1, "requierd": ["a"], "nullable": true })).is_ok());
}
