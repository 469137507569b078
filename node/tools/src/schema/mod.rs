//! JSON Schema for tool arguments: read once, checked before every call, by the `boon` library in drafts 4 to 2020-12.
//!
//! A stranger writes the schema and a model the arguments, so both are bounded: the schema in size, depth and patterns
//! (`prepare`), a check in steps (`steps`), and nothing that a schema names is ever fetched. A rule that cannot be
//! checked here is taken out and said in a remark: it is then the function's own to check.

mod prepare;
mod problems;
mod steps;

use boon::{Compiler, Draft, SchemaIndex, Schemas, UrlLoader};
use serde_json::Value;

/// Bytes of a schema's text.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Schemas inside schemas.
const DEPTH_MAX: usize = 64;
/// Steps of one check; a step looks at one value with one schema.
const STEPS_MAX: u32 = 1_000_000;
/// Steps of a check that may be made on a thread which serves others too.
const LIGHT_STEPS_MAX: u32 = 10_000;
/// Schemas that are applied inside each other in one check: the check recurses, and a thread's stack is finite.
const NESTING_MAX: u32 = 200;
/// Problems that are told at once.
const PROBLEMS_MAX: usize = 8;
/// Under this name the library knows the schema; nobody is asked for it.
const LOCATION: &str = "caxton:///schema.json";

/// A schema that is ready to check values.
pub struct Schema {
    /// The schema without what cannot be checked.
    document: Value,
    compiled: Schemas,
    root: SchemaIndex,
    remarks: Vec<String>,
}

/// Loads nothing: what a schema names elsewhere stays where it is.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err(format!("`{url}` is not part of the schema, and nothing is fetched").into())
    }
}

impl Schema {
    /// Reads a schema, or says why nothing of it can be used.
    pub fn compile(schema: &Value) -> Result<Schema, String> {
        let prepared = prepare::prepare(schema)?;
        // A schema that names no draft is of the newest, unless only an older one explains it: tuples as lists of
        // `items` (draft 7), `exclusiveMinimum` as a boolean (draft 4).
        let drafts: &[Draft] = if prepared.names_draft { &[Draft::V2020_12] } else { &DRAFTS };
        let mut first = None;
        for draft in drafts {
            match compile_as(*draft, &prepared.document) {
                Ok((compiled, root)) => {
                    return Ok(Schema { document: prepared.document, compiled, root, remarks: prepared.remarks });
                }
                Err(why) => _ = first.get_or_insert(why),
            }
        }
        Err(first.unwrap_or_default())
    }

    /// What of it is not checked, each with its place.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Whether checking this value takes so little that any thread may do it.
    pub fn is_light_for(&self, value: &Value) -> bool {
        steps::count(&self.document, value, LIGHT_STEPS_MAX).is_ok()
    }

    /// What is wrong with a value, each with the place it is about; nothing when it fits.
    pub fn check(&self, value: &Value) -> Vec<String> {
        // The library goes wherever the schema leads it, so where that is is looked at first.
        if let Err(too_much) = steps::count(&self.document, value, STEPS_MAX) {
            return vec![too_much.to_string()];
        }
        match self.compiled.validate(value, self.root) {
            Ok(()) => Vec::new(),
            Err(error) => problems::told(&error, PROBLEMS_MAX),
        }
    }
}

/// What a schema without a name of its draft may be of, in the order in which they are tried.
const DRAFTS: [Draft; 3] = [Draft::V2020_12, Draft::V7, Draft::V4];

fn compile_as(draft: Draft, document: &Value) -> Result<(Schemas, SchemaIndex), String> {
    let mut compiler = Compiler::new();
    compiler.use_loader(Box::new(Nothing));
    compiler.set_default_draft(draft);
    let mut compiled = Schemas::new();
    compiler.add_resource(LOCATION, document.clone()).map_err(|error| problems::of_schema(&error))?;
    let root = compiler.compile(LOCATION, &mut compiled).map_err(|error| problems::of_schema(&error))?;
    Ok((compiled, root))
}

#[cfg(test)]
mod tests;
