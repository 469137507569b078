//! Takes out of a schema what is never checked here, and says so: patterns that may take for ever or are too large,
//! references that lead out of the schema or nowhere, drafts that nobody knows.
//!
//! References are made relative to the whole schema, so that those who look at it need no base URIs.

use super::{DEPTH_MAX, SCHEMA_BYTES_MAX};
use boon::Draft;
use regex::RegexBuilder;
use serde_json::{Map, Value};

/// Memory of one compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// All patterns of a schema.
const PATTERNS_MAX: usize = 64;
/// Remarks on one schema; what is more is counted.
const REMARKS_MAX: usize = 8;
/// How much of a pattern or a reference a remark shows, in characters.
const SHOWN_CHARS_MAX: usize = 80;
/// The words that hold one schema.
pub(super) const ONE: [&str; 11] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// The words that hold a list of schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// The words that hold schemas by name.
const NAMED: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];
/// The words that refer to another schema.
pub(super) const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// A schema that can be compiled and walked.
pub(super) struct PreparedSchema {
    pub(super) document: Value,
    pub(super) remarks: Vec<String>,
    /// It says of which draft it is.
    pub(super) names_draft: bool,
}

/// Prepares a schema, or says why it cannot be used at all.
pub(super) fn prepare(schema: &Value) -> Result<PreparedSchema, String> {
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(format!("it has more than {SCHEMA_BYTES_MAX} bytes"));
    }
    if !schema.is_object() && !schema.is_boolean() {
        return Err("it is no schema: a schema is an object".into());
    }
    let mut document = schema.clone();
    let own = document.get("$id").and_then(Value::as_str).map(|id| id.trim_end_matches('#').to_owned());
    let anchors = anchors(schema, 0)?;
    let mut walk = Walk { whole: schema, own, anchors, patterns: 0, remarks: Vec::new(), unsaid: 0 };
    let mut names_draft = false;
    if let Some(name) = document.get("$schema").and_then(Value::as_str) {
        names_draft = Draft::from_url(name).is_some();
        if !names_draft {
            let name = shown(name);
            walk.remark(format!("`$schema` names `{name}`, which is not known here: it is read as draft 2020-12"));
        }
    }
    if let Some(root) = document.as_object_mut() {
        if !names_draft {
            root.remove("$schema");
        }
        root.remove("$id");
    }
    walk.schema(&mut document, "#");
    let Walk { mut remarks, unsaid, .. } = walk;
    if unsaid > 0 {
        remarks.push(format!("{unsaid} more rules are not checked"));
    }
    Ok(PreparedSchema { document, remarks, names_draft })
}

struct Walk<'a> {
    whole: &'a Value,
    /// The name that the schema gives itself.
    own: Option<String>,
    anchors: Vec<&'a str>,
    patterns: usize,
    remarks: Vec<String>,
    unsaid: usize,
}

impl Walk<'_> {
    fn remark(&mut self, text: String) {
        if self.remarks.len() < REMARKS_MAX { self.remarks.push(text) } else { self.unsaid += 1 }
    }

    /// The depth was looked at by `anchors`, which walks the same way.
    fn schema(&mut self, schema: &mut Value, at: &str) {
        let Some(object) = schema.as_object_mut() else { return };
        if at != "#" {
            // Inside, a name of its own would move what references start from.
            if object.get("$id").and_then(Value::as_str).is_some_and(|id| !id.starts_with('#')) {
                object.remove("$id");
            }
            object.remove("$schema");
        }
        self.references(object, at);
        self.own_pattern(object, at);
        self.multiple(object, at);
        self.property_patterns(object, at);
        for (word, value) in object.iter_mut() {
            let word = word.as_str();
            match value {
                Value::Object(_) if ONE.contains(&word) => self.schema(value, &format!("{at}/{word}")),
                Value::Array(list) if LISTS.contains(&word) => {
                    for (number, value) in list.iter_mut().enumerate() {
                        self.schema(value, &format!("{at}/{word}/{number}"));
                    }
                }
                Value::Object(named) if NAMED.contains(&word) => {
                    for (name, value) in named.iter_mut() {
                        self.schema(value, &format!("{at}/{word}/{name}"));
                    }
                }
                _ => {}
            }
        }
    }

    fn references(&mut self, object: &mut Map<String, Value>, at: &str) {
        for word in REFERENCES {
            let Some(text) = object.get(word).and_then(Value::as_str).map(str::to_owned) else { continue };
            let local = match self.own.as_deref().and_then(|own| text.strip_prefix(own)) {
                Some("") => "#".to_owned(),
                Some(rest) if rest.starts_with('#') => rest.to_owned(),
                Some(_) | None => text.clone(),
            };
            if target(self.whole, &self.anchors, &local) {
                object.insert(word.to_owned(), Value::String(local));
            } else {
                object.remove(word);
                let what =
                    if local.starts_with('#') { "leads nowhere" } else { "leads elsewhere and is never fetched" };
                self.remark(format!("the reference `{}` at {at} {what}", shown(&text)));
            }
        }
    }

    fn own_pattern(&mut self, object: &mut Map<String, Value>, at: &str) {
        let Some(pattern) = object.get("pattern").and_then(Value::as_str).map(str::to_owned) else { return };
        if !self.can_be_checked(&pattern) {
            object.remove("pattern");
            self.remark(format!("the pattern `{}` at {at}", shown(&pattern)));
        }
    }

    /// Whether 12.34 is a multiple of 0.01 cannot be told of binary numbers.
    fn multiple(&mut self, object: &mut Map<String, Value>, at: &str) {
        let Some(step) = object.get("multipleOf").and_then(Value::as_f64) else { return };
        if step.fract() != 0.0 {
            object.remove("multipleOf");
            self.remark(format!("`multipleOf` {step} at {at}"));
        }
    }

    fn property_patterns(&mut self, object: &mut Map<String, Value>, at: &str) {
        let Some(Value::Object(patterns)) = object.get_mut("patternProperties") else { return };
        let names: Vec<String> = patterns.keys().cloned().collect();
        let odd: Vec<String> = names.into_iter().filter(|name| !self.can_be_checked(name)).collect();
        if odd.is_empty() {
            return;
        }
        for name in &odd {
            patterns.remove(name);
            self.remark(format!("the pattern `{}` at {at}/patternProperties", shown(name)));
        }
        // Which properties are left over cannot be said any more.
        for word in ["additionalProperties", "unevaluatedProperties"] {
            object.remove(word);
        }
    }

    /// Whether a pattern is one that takes time which grows with the text only, and little memory.
    fn can_be_checked(&mut self, pattern: &str) -> bool {
        self.patterns += 1;
        let small = |unicode: bool| {
            RegexBuilder::new(pattern)
                .unicode(unicode)
                .size_limit(PATTERN_BYTES_MAX)
                .nest_limit(DEPTH_MAX as u32)
                .build()
                .is_ok()
        };
        // `\d` and `\w` are ASCII in JSON Schema, and much smaller than Rust's.
        self.patterns <= PATTERNS_MAX && (small(true) || small(false))
    }
}

/// Whether a reference leads to a schema of this document.
fn target(whole: &Value, anchors: &[&str], reference: &str) -> bool {
    let Some(fragment) = reference.strip_prefix('#') else { return false };
    match fragment {
        "" => true,
        pointer if pointer.starts_with('/') => resolve(whole, pointer).is_some_and(is_schema),
        anchor => anchors.contains(&anchor),
    }
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

/// The value at a pointer, whose parts may be written as in a URI.
pub(super) fn resolve<'a>(whole: &'a Value, pointer: &str) -> Option<&'a Value> {
    whole.pointer(pointer).or_else(|| {
        let decoded = percent_decoded(pointer)?;
        whole.pointer(&decoded)
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The name that a schema gives itself for references, in any draft.
pub(super) fn anchor_of(object: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let named = ["$anchor", "$dynamicAnchor"].into_iter().filter_map(|word| object.get(word)?.as_str());
    named.chain(["$id", "id"].into_iter().filter_map(|word| object.get(word)?.as_str()?.strip_prefix('#')))
}

/// All names for references; an error when schemas are nested too deeply.
fn anchors(schema: &Value, depth: usize) -> Result<Vec<&str>, String> {
    if depth > DEPTH_MAX {
        return Err(format!("its schemas are nested more than {DEPTH_MAX} deep"));
    }
    let Some(object) = schema.as_object() else { return Ok(Vec::new()) };
    let mut found: Vec<&str> = anchor_of(object).collect();
    for schema in parts(object) {
        found.extend(anchors(schema, depth + 1)?);
    }
    Ok(found)
}

/// The schemas right inside of one.
pub(super) fn parts(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    object.iter().flat_map(|(word, value)| -> Box<dyn Iterator<Item = &Value>> {
        let word = word.as_str();
        match value {
            Value::Object(_) if ONE.contains(&word) => Box::new(std::iter::once(value)),
            Value::Array(list) if LISTS.contains(&word) => Box::new(list.iter()),
            Value::Object(named) if NAMED.contains(&word) => Box::new(named.values()),
            _ => Box::new(std::iter::empty()),
        }
    })
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
