//! What a server says of its functions, held to limits: a stranger wrote it, and models read it.
//!
//! A function that cannot be understood costs that function and no other: it is left out, and a [`Remark`] says so
//! wherever functions are listed.

use crate::remark::Remark;
use crate::schema::Schema;
use crate::tool::{CallError, Definitions, ToolDefinition};
use serde_json::{Value, json};

/// Functions of one server.
const TOOLS_MAX: usize = 128;
/// The longest name that MCP advises; what fits a model's API is made of it where models are asked.
const NAME_BYTES_MAX: usize = 128;
/// Characters of a description; the rest is cut off.
const DESCRIPTION_CHARS_MAX: usize = 8 << 10;
/// Characters of a title.
const TITLE_CHARS_MAX: usize = 200;
/// Remarks about one server; what is more is counted.
const REMARKS_MAX: usize = 64;

/// One function as a server tells of it: its definition, or its name and why there is none.
pub(crate) type FunctionReading = Result<ToolDefinition, Remark>;

/// Definitions that can be used, each with its schema ready to check arguments, and remarks on the others.
pub(crate) struct CheckedDefinitions {
    definitions: Definitions,
    schemas: Vec<Schema>,
    remarks: Vec<Remark>,
}

impl CheckedDefinitions {
    pub(crate) fn definitions(&self) -> Definitions {
        self.definitions.clone()
    }

    /// Adds what is to be said of the server itself.
    pub(crate) fn remark(&mut self, texts: Vec<String>) {
        self.remarks.extend(texts.into_iter().map(|text| Remark { function: None, text }));
    }

    pub(crate) fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The arguments of a call as JSON, if they are what the schema of `server`'s `tool` wants.
    pub(crate) fn arguments(
        &self,
        server: &str,
        tool: &str,
        arguments: &Value,
        bytes_max: u64,
    ) -> Result<String, CallError> {
        let known = || self.definitions.iter().map(|tool| tool.name.clone()).collect();
        let unknown = || CallError::UnknownTool { server: server.to_owned(), tool: tool.to_owned(), known: known() };
        let schema = self.schema(tool).ok_or_else(unknown)?;
        let json = arguments.to_string();
        if json.len() as u64 > bytes_max {
            let problem = format!("they have {} bytes; the limit is {bytes_max}", json.len());
            return Err(CallError::InvalidArguments { problems: vec![problem] });
        }
        match schema.check(arguments) {
            problems if problems.is_empty() => Ok(json),
            problems => Err(CallError::InvalidArguments { problems }),
        }
    }

    /// Whether looking at these arguments takes so little that a thread which serves may do it.
    pub(crate) fn is_light(&self, tool: &str, arguments: &Value) -> bool {
        self.schema(tool).is_none_or(|schema| schema.is_light_for(arguments))
    }

    fn schema(&self, tool: &str) -> Option<&Schema> {
        let index = self.definitions.iter().position(|definition| definition.name == tool)?;
        self.schemas.get(index)
    }
}

/// The function that an entry of MCP's `tools` tells of; `number` names one without a name.
pub(crate) fn told(mut entry: Value, number: usize) -> FunctionReading {
    let name = match entry.get("name") {
        Some(Value::String(name)) => name.clone(),
        Some(_) | None => return Err(odd(format!("number {}", number + 1), "it has no name")),
    };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let (title, description) = (text("title"), text("description").unwrap_or_default());
    let mut take = |key: &str| entry.get_mut(key).map(Value::take).filter(|value| !value.is_null());
    let annotations = take("annotations");
    let output_schema = take("outputSchema").filter(Value::is_object);
    let input_schema = take("inputSchema").unwrap_or_else(|| json!({ "type": "object" }));
    Ok(ToolDefinition { name, title, description, input_schema, output_schema, annotations })
}

fn odd(function: String, why: &str) -> Remark {
    let function = function.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NAME_BYTES_MAX).collect();
    Remark { function: Some(function), text: format!("left out, because {why}") }
}

/// Sorts what can be used of a server's list from what cannot.
pub(crate) fn checked(listed: Vec<FunctionReading>) -> CheckedDefinitions {
    let (mut definitions, mut schemas, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    let told = listed.len();
    let mut beyond = 0_usize;
    for entry in listed {
        if definitions.len() >= TOOLS_MAX {
            beyond += 1;
            continue;
        }
        match entry.and_then(|mut definition| {
            let schema = usable(&mut definition, &definitions)?;
            Ok((definition, schema))
        }) {
            Ok((definition, schema)) => {
                remarks.extend(schema.remarks().iter().map(|rule| Remark {
                    function: Some(definition.name.clone()),
                    text: format!("{rule}: not checked here, it is the function's own check"),
                }));
                definitions.push(definition);
                schemas.push(schema);
            }
            Err(remark) => remarks.push(remark),
        }
    }
    let server = |text: String| Remark { function: None, text };
    let more = remarks.len().saturating_sub(REMARKS_MAX);
    if more > 0 {
        remarks.truncate(REMARKS_MAX);
        remarks.push(server(format!("and {more} more remarks")));
    }
    if beyond > 0 {
        remarks.push(server(format!("it has {told} functions, and {beyond} are left out: {TOOLS_MAX} at most")));
    }
    if told == 0 {
        remarks.push(server("it has no functions".to_owned()));
    }
    CheckedDefinitions { definitions: definitions.into(), schemas, remarks }
}

/// Makes a definition fit to be shown and called, or says why it cannot be used.
fn usable(definition: &mut ToolDefinition, before: &[ToolDefinition]) -> Result<Schema, Remark> {
    let name = definition.name.clone();
    let refuse = |why: &str| odd(name.clone(), why);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(refuse(&format!("that is no name: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")));
    }
    if before.iter().any(|other| other.name == name) {
        return Err(refuse("there are two of this name, and the first one counts"));
    }
    cut(&mut definition.description, DESCRIPTION_CHARS_MAX);
    if let Some(title) = &mut definition.title {
        cut(title, TITLE_CHARS_MAX);
    }
    let schema = Schema::compile(&definition.input_schema)
        .map_err(|why| refuse(&format!("the schema of what it takes cannot be used: {why}")))?;
    let Some(takes) = definition.input_schema.as_object_mut() else {
        return Err(refuse("the schema of what it takes is no object"));
    };
    match takes.get("type") {
        None => _ = takes.insert("type".into(), json!("object")),
        Some(kind) if kind == "object" => {}
        Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind == "object") => {}
        Some(kind) => return Err(refuse(&format!("it takes {kind}, and arguments are an object"))),
    }
    Ok(schema)
}

fn cut(text: &mut String, chars_max: usize) {
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(tools: Value) -> CheckedDefinitions {
        let Value::Array(tools) = tools else { panic!("a list") };
        checked(tools.into_iter().enumerate().map(|(number, entry)| told(entry, number)).collect())
    }

    fn names(checked: &CheckedDefinitions) -> Vec<&str> {
        checked.definitions.iter().map(|definition| definition.name.as_str()).collect()
    }

    #[test]
    fn an_odd_function_costs_itself_and_is_named() {
        let fine = json!({ "name": "look", "inputSchema": { "type": "object" } });
        for (odd, remark) in [
            (json!({ "name": "look" }), "function `look`: left out, because there are two of this name"),
            (json!({ "name": "" }), "function ``: left out, because that is no name"),
            (json!({ "name": "../x" }), "function `../x`: left out"),
            (json!({ "name": "two words" }), "function `two words`: left out"),
            (json!({ "name": "x".repeat(129) }), "left out, because that is no name"),
            (json!({ "name": 7 }), "function `number 2`: left out, because it has no name"),
            (json!({ "description": "nameless" }), "function `number 2`: left out"),
            (json!(null), "function `number 2`: left out"),
            (json!({ "name": "a", "inputSchema": { "type": "text" } }), "function `a`: left out, because the schema"),
            (json!({ "name": "a", "inputSchema": { "type": "string" } }), "it takes \"string\""),
            (json!({ "name": "a", "inputSchema": [] }), "no schema"),
            (json!({ "name": "a", "inputSchema": true }), "no object"),
        ] {
            let checked = listed(json!([fine, odd]));
            assert_eq!(names(&checked), ["look"], "{odd}");
            let remarks: Vec<String> = checked.remarks.iter().map(Remark::to_string).collect();
            assert!(remarks.len() == 1 && remarks[0].contains(remark), "{odd}: {remarks:?}");
            assert!(checked.arguments("s", "look", &json!({}), 100).is_ok());
        }
    }

    #[test]
    fn a_function_whose_rule_cannot_be_checked_can_be_called() {
        let mail = json!({ "name": "mail", "inputSchema": { "properties": { "to": { "pattern": "^(?!a)" } } } });
        let checked = listed(json!([mail]));
        assert_eq!(names(&checked), ["mail"]);
        assert_eq!(checked.remarks.len(), 1);
        let remark = checked.remarks[0].to_string();
        assert!(
            remark.starts_with("function `mail`: the pattern `^(?!a)`") && remark.contains("own check"),
            "{remark}"
        );
        assert!(checked.arguments("s", "mail", &json!({ "to": "abc" }), 100).is_ok());
        assert_eq!(checked.definitions[0].input_schema["properties"]["to"]["pattern"], "^(?!a)", "models read it all");
    }

    #[test]
    fn what_a_server_leaves_out_or_writes_oddly_is_taken() {
        let checked = listed(json!([
            { "name": "repo.search", "description": null, "title": 7, "annotations": "odd" },
            { "name": "a", "inputSchema": null, "outputSchema": 7 },
            { "name": "b", "inputSchema": {}, "description": "x".repeat(10_000) },
        ]));
        assert_eq!(names(&checked), ["repo.search", "a", "b"]);
        assert_eq!(checked.remarks, []);
        assert!(checked.definitions.iter().all(|definition| definition.input_schema["type"] == "object"));
        assert_eq!(checked.definitions[2].description.chars().count(), DESCRIPTION_CHARS_MAX + 1);
    }

    #[test]
    fn too_many_and_none_are_said() {
        let many: Vec<Value> = (0..200).map(|n| json!({ "name": format!("f{n}") })).collect();
        let checked = listed(many.into());
        assert_eq!(checked.definitions.len(), TOOLS_MAX);
        assert_eq!(checked.remarks[0].to_string(), "it has 200 functions, and 72 are left out: 128 at most");
        assert_eq!(listed(json!([])).remarks[0].to_string(), "it has no functions");
        let odd: Vec<Value> = (0..200).map(|_| json!({ "name": "" })).collect();
        let checked = listed(odd.into());
        assert_eq!((checked.definitions.len(), checked.remarks.len()), (0, REMARKS_MAX + 1));
    }
}
