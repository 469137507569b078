//! JSON Schema for tool arguments: compiled once, checked before every call.
//!
//! A stranger writes the schema and a model the arguments, so both are bounded: the schema in size, depth and
//! patterns, and a check in steps. A schema that uses what is not understood here is refused when the tool is loaded,
//! because a rule that is silently not checked is worse than none. Drafts 2019-09 and 2020-12, without `$dynamicRef`,
//! `unevaluated*` and references to other documents.

mod check;
mod compile;

use regex::Regex;
use serde_json::Value;

/// Bytes of a schema's text.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Schemas inside schemas.
const DEPTH_MAX: usize = 64;
/// Steps of one check; a step looks at one value with one schema.
const STEPS_MAX: u32 = 1_000_000;
/// Problems that are told at once.
const PROBLEMS_MAX: usize = 8;

/// A schema that is ready to check values.
pub struct Schema {
    nodes: Vec<Node>,
    root: usize,
}

/// One schema object; others are named by their index.
#[derive(Default)]
struct Node {
    /// `false`: nothing fits.
    never: bool,
    types: Option<Vec<Type>>,
    choices: Option<Vec<Value>>,
    constant: Option<Value>,
    required: Vec<String>,
    properties: Vec<(String, usize)>,
    patterns: Vec<(Regex, usize)>,
    additional: Option<usize>,
    names: Option<usize>,
    properties_range: Range,
    dependents: Vec<(String, Vec<String>)>,
    prefix: Vec<usize>,
    items: Option<usize>,
    contains: Option<(usize, Range)>,
    items_range: Range,
    unique: bool,
    length_range: Range,
    pattern: Option<Regex>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
    multiple_of: Option<f64>,
    all_of: Vec<usize>,
    any_of: Vec<usize>,
    one_of: Vec<usize>,
    not: Option<usize>,
    condition: Option<Condition>,
    reference: Option<usize>,
}

struct Condition {
    when: usize,
    then: Option<usize>,
    otherwise: Option<usize>,
}

/// How many there may be.
#[derive(Default, Clone, Copy)]
struct Range {
    least: Option<u64>,
    most: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Schema {
    /// Reads a schema, or says what cannot be used of it.
    pub fn compile(schema: &Value) -> Result<Schema, String> {
        compile::compile(schema)
    }

    /// What is wrong with a value, each with the place it is about; nothing when it fits.
    pub fn check(&self, value: &Value) -> Vec<String> {
        check::check(self, value)
    }
}

#[cfg(test)]
mod tests;
