//! From a schema's JSON to nodes.

use super::{Condition, DEPTH_MAX, Node, Range, SCHEMA_BYTES_MAX, Schema, Type};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Memory of one compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// All patterns of a schema.
const PATTERNS_MAX: usize = 64;

/// Words that say something about a schema and restrict nothing, or whose restriction is advice (`format`).
const REMARKS: [&str; 21] = [
    "$schema",
    "$id",
    "$comment",
    "$anchor",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "minContains",
    "maxContains",
    "nullable",
];

pub(super) fn compile(schema: &Value) -> Result<Schema, String> {
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(format!("it has more than {SCHEMA_BYTES_MAX} bytes"));
    }
    let mut compiler = Compiler { document: schema, nodes: Vec::new(), known: HashMap::new(), patterns: 0 };
    let root = compiler.node(schema, "#", 0)?;
    Ok(Schema { nodes: compiler.nodes, root })
}

struct Compiler<'a> {
    document: &'a Value,
    nodes: Vec<Node>,
    /// References that were followed, so that a recursive schema ends.
    known: HashMap<String, usize>,
    patterns: usize,
}

impl Compiler<'_> {
    fn node(&mut self, schema: &Value, at: &str, depth: usize) -> Result<usize, String> {
        let index = self.nodes.len();
        self.nodes.push(Node::default());
        self.fill(index, schema, at, depth)?;
        Ok(index)
    }

    fn fill(&mut self, index: usize, schema: &Value, at: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested more than {DEPTH_MAX} deep"));
        }
        let object = match schema {
            Value::Bool(anything) => {
                self.nodes[index].never = !anything;
                return Ok(());
            }
            Value::Object(object) => object,
            _ => return Err(format!("{at} is neither an object nor a boolean")),
        };
        let mut node = Node::default();
        for (word, value) in object {
            let at = format!("{at}/{word}");
            self.word(&mut node, word, value, object, &at, depth + 1)?;
        }
        self.nodes[index] = node;
        Ok(())
    }

    fn word(
        &mut self,
        node: &mut Node,
        word: &str,
        value: &Value,
        object: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        match word {
            "type" => node.types = Some(types(value, at)?),
            "enum" => node.choices = Some(array(value, at)?.clone()),
            "const" => node.constant = Some(value.clone()),
            "required" => node.required = strings(value, at)?,
            "minimum" => node.minimum = Some(number(value, at)?),
            "maximum" => node.maximum = Some(number(value, at)?),
            "exclusiveMinimum" => node.above = Some(number(value, at)?),
            "exclusiveMaximum" => node.below = Some(number(value, at)?),
            "multipleOf" => node.multiple_of = Some(number(value, at)?).filter(|m| *m > 0.0),
            "minLength" => node.length_range.least = Some(count(value, at)?),
            "maxLength" => node.length_range.most = Some(count(value, at)?),
            "minItems" => node.items_range.least = Some(count(value, at)?),
            "maxItems" => node.items_range.most = Some(count(value, at)?),
            "minProperties" => node.properties_range.least = Some(count(value, at)?),
            "maxProperties" => node.properties_range.most = Some(count(value, at)?),
            "uniqueItems" => node.unique = value.as_bool().ok_or_else(|| format!("{at} is not a boolean"))?,
            "pattern" => node.pattern = Some(self.pattern(value.as_str().unwrap_or_default(), at)?),
            "properties" => node.properties = self.named(value, at, depth)?,
            "patternProperties" => {
                for (pattern, index) in self.named(value, at, depth)? {
                    node.patterns.push((self.pattern(&pattern, at)?, index));
                }
            }
            "additionalProperties" => node.additional = Some(self.node(value, at, depth)?),
            "propertyNames" => node.names = Some(self.node(value, at, depth)?),
            "dependentRequired" => {
                for (name, needed) in map(value, at)? {
                    node.dependents.push((name.clone(), strings(needed, at)?));
                }
            }
            "items" => node.items = Some(self.node(value, at, depth)?),
            "prefixItems" => node.prefix = self.list(value, at, depth)?,
            "contains" => {
                let range = |word: &str| object.get(word).map(|value| count(value, at)).transpose();
                let least = range("minContains")?.or(Some(1));
                node.contains = Some((self.node(value, at, depth)?, Range { least, most: range("maxContains")? }));
            }
            "allOf" => node.all_of = self.list(value, at, depth)?,
            "anyOf" => node.any_of = self.list(value, at, depth)?,
            "oneOf" => node.one_of = self.list(value, at, depth)?,
            "not" => node.not = Some(self.node(value, at, depth)?),
            "if" => {
                let when = self.node(value, at, depth)?;
                let branch = |compiler: &mut Self, word: &str| {
                    object.get(word).map(|schema| compiler.node(schema, at, depth)).transpose()
                };
                let (then, otherwise) = (branch(self, "then")?, branch(self, "else")?);
                node.condition = Some(Condition { when, then, otherwise });
            }
            "then" | "else" => {}
            "$ref" => node.reference = Some(self.reference(value.as_str().unwrap_or_default(), at, depth)?),
            remark if REMARKS.contains(&remark) || remark.starts_with("x-") => {}
            other => return Err(format!("{at}: the keyword `{other}` is not understood")),
        }
        Ok(())
    }

    fn named(&mut self, value: &Value, at: &str, depth: usize) -> Result<Vec<(String, usize)>, String> {
        let schemas = map(value, at)?;
        schemas
            .iter()
            .map(|(name, schema)| Ok((name.clone(), self.node(schema, &format!("{at}/{name}"), depth)?)))
            .collect()
    }

    fn list(&mut self, value: &Value, at: &str, depth: usize) -> Result<Vec<usize>, String> {
        let schemas = array(value, at)?;
        if schemas.is_empty() {
            return Err(format!("{at} is empty"));
        }
        schemas.iter().map(|schema| self.node(schema, at, depth)).collect()
    }

    fn reference(&mut self, text: &str, at: &str, depth: usize) -> Result<usize, String> {
        if let Some(known) = self.known.get(text) {
            return Ok(*known);
        }
        let pointer =
            text.strip_prefix('#').ok_or_else(|| format!("{at}: only references into the schema are followed"))?;
        let document = self.document;
        let target = document.pointer(pointer).ok_or_else(|| format!("{at}: there is nothing at `{text}`"))?;
        let index = self.nodes.len();
        self.nodes.push(Node::default());
        self.known.insert(text.to_string(), index);
        self.fill(index, target, text, depth)?;
        Ok(index)
    }

    /// A pattern in time that grows with the text only: no backtracking, so no catastrophe.
    fn pattern(&mut self, text: &str, at: &str) -> Result<Regex, String> {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            return Err(format!("it has more than {PATTERNS_MAX} patterns"));
        }
        RegexBuilder::new(text)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .nest_limit(DEPTH_MAX as u32)
            .build()
            .map_err(|_| format!("{at}: `{text}` is no pattern, or too large a one"))
    }
}

fn types(value: &Value, at: &str) -> Result<Vec<Type>, String> {
    let one = |value: &Value| match value.as_str() {
        Some("null") => Ok(Type::Null),
        Some("boolean") => Ok(Type::Boolean),
        Some("integer") => Ok(Type::Integer),
        Some("number") => Ok(Type::Number),
        Some("string") => Ok(Type::String),
        Some("array") => Ok(Type::Array),
        Some("object") => Ok(Type::Object),
        _ => Err(format!("{at}: {value} is no type")),
    };
    match value {
        Value::Array(types) => types.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}

fn array<'a>(value: &'a Value, at: &str) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{at} is not a list"))
}

fn map<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{at} is not an object"))
}

fn strings(value: &Value, at: &str) -> Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_string).ok_or_else(|| format!("{at} has a {value}"));
    array(value, at)?.iter().map(text).collect()
}

fn number(value: &Value, at: &str) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("{at} is not a number"))
}

fn count(value: &Value, at: &str) -> Result<u64, String> {
    let whole = value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64));
    whole.ok_or_else(|| format!("{at} is not a count"))
}
