//! What a server says of its tools, held to limits: a stranger wrote it, and models read it.

use crate::schema::Schema;
use crate::tool::{CallError, ToolDefinition};
use serde_json::Value;

/// Tools of one server.
const TOOLS_MAX: usize = 128;
/// Names have to fit the function names of every language model's API.
const NAME_BYTES_MAX: usize = 64;
const DESCRIPTION_BYTES_MAX: usize = 8 << 10;

/// Definitions that can be used, each with its schema ready to check arguments.
pub(crate) struct Checked {
    definitions: Vec<ToolDefinition>,
    schemas: Vec<Schema>,
}

impl Checked {
    pub(crate) fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
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

    fn schema(&self, tool: &str) -> Option<&Schema> {
        let index = self.definitions.iter().position(|definition| definition.name == tool)?;
        self.schemas.get(index)
    }
}

/// Checks a server's list, or says what is wrong with it.
pub(crate) fn checked(definitions: Vec<ToolDefinition>) -> Result<Checked, String> {
    if definitions.is_empty() {
        return Err("it has none".into());
    }
    if definitions.len() > TOOLS_MAX {
        return Err(format!("it has {}; {TOOLS_MAX} at most", definitions.len()));
    }
    let mut schemas = Vec::with_capacity(definitions.len());
    for (index, tool) in definitions.iter().enumerate() {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if tool.name.is_empty() || tool.name.len() > NAME_BYTES_MAX || !tool.name.chars().all(fits) {
            let name: String = tool.name.chars().take(NAME_BYTES_MAX).collect();
            return Err(format!("`{name}` is no name: 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`"));
        }
        if definitions[..index].iter().any(|other| other.name == tool.name) {
            return Err(format!("it has two tools called `{}`", tool.name));
        }
        let texts = tool.description.len() + tool.title.as_ref().map_or(0, String::len);
        if texts > DESCRIPTION_BYTES_MAX {
            return Err(format!("the description of `{}` has more than {DESCRIPTION_BYTES_MAX} bytes", tool.name));
        }
        let schema = Schema::compile(&tool.input_schema);
        schemas.push(schema.map_err(|why| format!("the input schema of `{}`: {why}", tool.name))?);
        if let Some(output) = &tool.output_schema {
            Schema::compile(output).map_err(|why| format!("the output schema of `{}`: {why}", tool.name))?;
        }
    }
    Ok(Checked { definitions, schemas })
}
