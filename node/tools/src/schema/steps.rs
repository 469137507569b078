//! How much work a check would be, found out before it is made.
//!
//! This goes the way that a check goes, takes every branch of it, and gives up at a limit. A schema of a few lines can
//! ask for two to the sixtieth steps, or refer to itself for ever.

use super::NESTING_MAX;
use super::prepare::{REFERENCES, anchor_of, parts, resolve};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Bytes of text that a pattern reads in one step.
const TEXT_BYTES_PER_STEP: usize = 64;

/// Why a check is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    /// It would take too long.
    #[error("checking them takes more than {0} steps: give fewer or smaller values")]
    Steps(u32),
    /// It would go too deep.
    #[error("they are nested too deeply to be checked (more than {0} schemas inside each other)")]
    Nesting(u32),
}

/// Says whether checking `value` takes at most so many steps.
pub(super) fn count(document: &Value, value: &Value, steps_max: u32) -> Result<(), TooMuch> {
    let mut counter = Counter { document, anchors: HashMap::new(), steps: 0, steps_max };
    counter.name(document);
    counter.schema(document, value, 0)
}

struct Counter<'a> {
    document: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    steps: u32,
    steps_max: u32,
}

impl<'a> Counter<'a> {
    fn name(&mut self, schema: &'a Value) {
        let Some(object) = schema.as_object() else { return };
        for anchor in anchor_of(object) {
            self.anchors.entry(anchor).or_insert(schema);
        }
        for schema in parts(object) {
            self.name(schema);
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.steps = self.steps.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        if self.steps > self.steps_max { Err(TooMuch::Steps(self.steps_max)) } else { Ok(()) }
    }

    fn schema(&mut self, schema: &'a Value, value: &Value, nesting: u32) -> Result<(), TooMuch> {
        self.spend(1)?;
        if nesting > NESTING_MAX {
            return Err(TooMuch::Nesting(NESTING_MAX));
        }
        let Some(object) = schema.as_object() else { return Ok(()) };
        self.in_place(object, value, nesting + 1)?;
        match value {
            Value::Object(values) => self.properties(object, values, nesting + 1),
            Value::Array(values) => self.items(object, values, nesting + 1),
            Value::String(text) if object.contains_key("pattern") => self.spend(text.len() / TEXT_BYTES_PER_STEP),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    /// The words that look at the same value once more.
    fn in_place(&mut self, object: &'a Map<String, Value>, value: &Value, nesting: u32) -> Result<(), TooMuch> {
        for word in ["allOf", "anyOf", "oneOf"] {
            for schema in object.get(word).and_then(Value::as_array).into_iter().flatten() {
                self.schema(schema, value, nesting)?;
            }
        }
        for word in ["not", "if", "then", "else"] {
            if let Some(schema) = object.get(word) {
                self.schema(schema, value, nesting)?;
            }
        }
        for word in ["dependentSchemas", "dependencies"] {
            for schema in object.get(word).and_then(Value::as_object).into_iter().flat_map(Map::values) {
                self.schema(schema, value, nesting)?;
            }
        }
        for word in REFERENCES {
            let Some(fragment) = object.get(word).and_then(Value::as_str).and_then(|text| text.strip_prefix('#'))
            else {
                continue;
            };
            let target = match fragment {
                "" => Some(self.document),
                pointer if pointer.starts_with('/') => resolve(self.document, pointer),
                anchor => self.anchors.get(anchor).copied(),
            };
            if let Some(target) = target {
                self.schema(target, value, nesting)?;
            }
        }
        let choices = object.get("enum").and_then(Value::as_array).map_or(0, Vec::len);
        self.spend(choices)
    }

    fn properties(
        &mut self,
        object: &'a Map<String, Value>,
        values: &Map<String, Value>,
        nesting: u32,
    ) -> Result<(), TooMuch> {
        let named = |word: &str| object.get(word).and_then(Value::as_object);
        let properties = named("properties");
        let patterns = named("patternProperties");
        for (name, value) in values {
            self.spend(1)?;
            let known = properties.and_then(|known| known.get(name));
            if let Some(schema) = known {
                self.schema(schema, value, nesting)?;
            }
            for schema in patterns.into_iter().flat_map(Map::values) {
                self.spend(1 + name.len() / TEXT_BYTES_PER_STEP)?;
                self.schema(schema, value, nesting)?;
            }
            if let Some(schema) = object.get("propertyNames") {
                self.schema(schema, &Value::String(name.clone()), nesting)?;
            }
            for word in ["additionalProperties", "unevaluatedProperties"] {
                if let Some(schema) = object.get(word).filter(|_| known.is_none()) {
                    self.schema(schema, value, nesting)?;
                }
            }
        }
        Ok(())
    }

    fn items(&mut self, object: &'a Map<String, Value>, values: &[Value], nesting: u32) -> Result<(), TooMuch> {
        let list = |word: &str| object.get(word).and_then(Value::as_array);
        let first = list("prefixItems").or(list("items")).map_or(&[][..], Vec::as_slice);
        for (schema, value) in first.iter().zip(values) {
            self.schema(schema, value, nesting)?;
        }
        for word in ["items", "additionalItems", "unevaluatedItems", "contains"] {
            let Some(schema) = object.get(word).filter(|schema| !schema.is_array()) else { continue };
            for value in values {
                self.schema(schema, value, nesting)?;
            }
        }
        match object.get("uniqueItems") {
            Some(Value::Bool(true)) => self.spend(values.iter().map(size).sum()),
            Some(_) | None => Ok(()),
        }
    }
}

/// How many values are in a value; arguments are nested at most as deep as their reader allows.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(size).sum::<usize>(),
        Value::Object(values) => 1 + values.values().map(size).sum::<usize>(),
        Value::String(text) => 1 + text.len() / TEXT_BYTES_PER_STEP,
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}
