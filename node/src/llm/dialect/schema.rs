//! Schemas of tools' arguments as OpenAI and those who copied its check take them: an object at the top and nothing that
//! chooses between several, `properties` in every object, `items` in every list.
//!
//! What is lost that way the model may get wrong, and is then told by the tool, which still checks against its own schema.

use serde_json::{Map, Value, json};

/// Words that may not stand at the top.
const CHOOSERS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Words below which a schema stands by a name.
const BY_NAME: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Words below which a list of schemas stands.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Words below which one schema stands.
const SINGLE: [&str; 8] = ["items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"];
/// References at the top are followed this often.
const REFERENCES_MAX: usize = 8;

/// The schema as a strict provider takes it.
pub fn strict(schema: &Value) -> Value {
    let mut top = match schema {
        Value::Object(fields) => follow(fields),
        _ => Map::new(),
    };
    top.remove("enum");
    top.remove("const");
    top.remove("not");
    for chooser in CHOOSERS {
        if let Some(Value::Array(branches)) = top.remove(chooser) {
            take_branches(&mut top, chooser, &branches);
        }
    }
    top.insert("type".to_owned(), json!("object"));
    let mut schema = Value::Object(top);
    complete(&mut schema);
    schema
}

/// A schema that is only a reference to one of its own definitions is that definition.
fn follow(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut top = fields.clone();
    for _ in 0..REFERENCES_MAX {
        let Some(Value::String(place)) = top.get("$ref") else { break };
        let pointer = place.strip_prefix('#').map(str::to_owned);
        let target = pointer
            .and_then(|pointer| Value::Object(fields.clone()).pointer(&pointer).and_then(Value::as_object).cloned());
        top.remove("$ref");
        let Some(target) = target else { break };
        for (name, value) in target {
            top.entry(name).or_insert(value);
        }
    }
    top
}

/// Puts what the branches say into the object itself: each property may be there, and has to be if every branch that can
/// be chosen says so.
fn take_branches(top: &mut Map<String, Value>, chooser: &str, branches: &[Value]) {
    let objects: Vec<&Map<String, Value>> = branches.iter().filter_map(Value::as_object).collect();
    let mut properties = match top.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    for branch in &objects {
        for (name, schema) in branch.get("properties").and_then(Value::as_object).into_iter().flatten() {
            match properties.get_mut(name) {
                None => _ = properties.insert(name.clone(), schema.clone()),
                Some(held) if held == schema => {}
                Some(held) => *held = either(held.take(), schema.clone()),
            }
        }
    }
    let required_of = |branch: &Map<String, Value>| -> Vec<String> {
        let names = branch.get("required").and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut required = required_of(top);
    let all: Vec<Vec<String>> = objects.iter().map(|branch| required_of(branch)).collect();
    for name in all.iter().flatten() {
        let always =
            chooser == "allOf" || (all.len() == branches.len() && all.iter().all(|names| names.contains(name)));
        if always && !required.contains(name) {
            required.push(name.clone());
        }
    }
    top.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        top.insert("required".to_owned(), required.into());
    }
}

/// One or the other schema of a property.
fn either(held: Value, more: Value) -> Value {
    match held {
        Value::Object(mut fields) if fields.len() == 1 && fields.get("anyOf").is_some_and(Value::is_array) => {
            if let Some(Value::Array(list)) = fields.get_mut("anyOf")
                && !list.contains(&more)
            {
                list.push(more);
            }
            Value::Object(fields)
        }
        held => json!({ "anyOf": [held, more] }),
    }
}

/// Gives every object below its `properties` and every list its `items`. Bounded by the depth of what JSON is read.
fn complete(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let is = |fields: &Map<String, Value>, kind: &str| match fields.get("type") {
        Some(Value::String(own)) => own == kind,
        Some(Value::Array(own)) => own.iter().any(|own| own == kind),
        _ => false,
    };
    if is(fields, "object") && !fields.get("properties").is_some_and(Value::is_object) {
        fields.insert("properties".to_owned(), json!({}));
    }
    if is(fields, "array") && !fields.contains_key("items") && !fields.contains_key("prefixItems") {
        fields.insert("items".to_owned(), json!({}));
    }
    for word in BY_NAME {
        if let Some(Value::Object(schemas)) = fields.get_mut(word) {
            schemas.values_mut().for_each(complete);
        }
    }
    for word in LISTS {
        if let Some(Value::Array(schemas)) = fields.get_mut(word) {
            schemas.iter_mut().for_each(complete);
        }
    }
    for word in SINGLE {
        if let Some(schema) = fields.get_mut(word) {
            complete(schema);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_schema_stays_as_it_is() {
        let plain = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] });
        assert_eq!(strict(&plain), plain);
    }

    #[test]
    fn every_object_gets_properties_and_every_list_items() {
        let schema = json!({ "type": "object", "properties": { "a": { "type": "object" }, "b": { "type": ["array", "null"] },
            "c": { "type": "array", "items": { "type": "object" } } }, "$defs": { "d": { "anyOf": [{ "type": "object" }] } } });
        assert_eq!(
            strict(&schema),
            json!({ "type": "object", "properties": { "a": { "type": "object", "properties": {} },
                "b": { "type": ["array", "null"], "items": {} },
                "c": { "type": "array", "items": { "type": "object", "properties": {} } } },
                "$defs": { "d": { "anyOf": [{ "type": "object", "properties": {} }] } } })
        );
        for nothing in [json!({}), json!(true), Value::Null, json!({ "type": "object" }), json!({ "enum": [{}] })] {
            assert_eq!(strict(&nothing), json!({ "type": "object", "properties": {} }), "{nothing}");
        }
    }

    #[test]
    fn a_choice_at_the_top_becomes_one_object_with_all_that_can_be_there() {
        let by = |name: &str, kind: &str| json!({ "properties": { name: { "type": kind }, "x": { "type": kind } }, "required": [name, "x"] });
        let schema = json!({ "description": "d", "oneOf": [by("id", "integer"), by("name", "string")] });
        assert_eq!(
            strict(&schema),
            json!({ "type": "object", "description": "d", "required": ["x"], "properties": {
                "id": { "type": "integer" }, "name": { "type": "string" },
                "x": { "anyOf": [{ "type": "integer" }, { "type": "string" }] } } })
        );
        let all = json!({ "type": "object", "properties": { "a": {} }, "allOf": [by("id", "integer"), { "required": ["a"] }] });
        let strict = strict(&all);
        assert_eq!(strict["required"], json!(["id", "x", "a"]));
        assert_eq!(strict["properties"].as_object().map(Map::len), Some(3));
    }

    #[test]
    fn a_reference_at_the_top_is_followed_and_one_to_itself_ends() {
        let schema = json!({ "$ref": "#/$defs/A", "$defs": { "A": { "type": "object", "required": ["a"], "properties": { "a": {} } } } });
        assert_eq!(strict(&schema)["required"], json!(["a"]));
        strict(&json!({ "$ref": "#" }));
        strict(&json!({ "$ref": "https://elsewhere.example" }));
    }

    fn any_schema() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!({ "type": "string" })),
            Just(json!({ "type": "object" })),
            Just(json!({ "type": "array" })),
            Just(json!(true)),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let word = prop_oneof![Just("anyOf"), Just("oneOf"), Just("allOf"), Just("enum")];
            prop_oneof![
                (word, prop::collection::vec(inner.clone(), 0..3)).prop_map(|(word, list)| json!({ word: list })),
                prop::collection::btree_map("[ab]", inner.clone(), 0..3)
                    .prop_map(|fields| json!({ "type": "object", "properties": fields, "required": ["a"] })),
                inner.prop_map(|schema| json!({ "type": "array", "items": schema, "not": {} })),
            ]
        })
    }

    fn objects_have_properties(schema: &Value) -> bool {
        match schema {
            Value::Object(fields) => {
                let own = fields.get("type") != Some(&json!("object")) || fields.contains_key("properties");
                own && fields.iter().all(|(word, value)| word == "enum" || objects_have_properties(value))
            }
            Value::Array(list) => list.iter().all(objects_have_properties),
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn whatever_a_tool_says_a_strict_check_takes(schema in any_schema()) {
            let strict = strict(&schema);
            prop_assert_eq!(&strict["type"], "object");
            for word in ["anyOf", "oneOf", "allOf", "enum", "not"] {
                prop_assert!(strict.get(word).is_none(), "{} in {}", word, strict);
            }
            prop_assert!(objects_have_properties(&strict), "{}", strict);
            prop_assert_eq!(super::strict(&strict), strict.clone(), "once is enough");
        }
    }
}
