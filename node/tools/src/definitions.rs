//! What a server says of its tools, held to limits: a stranger wrote it, and models read it.

use crate::schema::Schema;
use crate::tool::ToolDefinition;

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

    pub(crate) fn schema(&self, tool: &str) -> Option<&Schema> {
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
