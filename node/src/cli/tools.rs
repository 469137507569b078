//! `caxton tools list`, `inspect NAME` and `call NAME`: the tools that are live.

use std::io::Read;
use std::path::{Path, PathBuf};

use caxton_proto::ToolName;
use caxton_tools::{CallResult, Content, ToolDefinition};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::api::paths;
use crate::api::tools::{ToolCallRequest, ToolCalled, ToolDetail, ToolList};
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, Table, count, paint};
use crate::cli::{CliError, Context, steps, text};
use crate::client::Retry;

/// Arguments of `caxton tools`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton tools list
  caxton tools inspect csv-reader
  caxton tools call csv-reader '{\"text\": \"a,b\\n1,2\"}'")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the live tools, and what each may reach.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: TOOL its name, VERSION, KIND what it is made of, MAY REACH what it is granted, DESCRIPTION. JSON has them as name, \
version, kind, grants and description.

Example:
  caxton tools list --json | jq '.tools[].name'"
    )]
    List,
    /// Show a tool's functions, what they take, and its grants and limits.
    #[command(after_help = "Example:\n  caxton tools inspect chart-generator")]
    Inspect {
        /// The tool's name.
        name: ToolName,
    },
    /// Call a function of a tool, without an agent.
    #[command(after_help = "\
Examples:
  caxton tools call csv-reader '{\"text\": \"a,b\\n1,2\"}'
  caxton tools call stats -f group-by @request.json
  caxton tools call chart-generator @chart.json --output chart.svg")]
    Call(Call),
}

#[derive(Debug, clap::Args)]
struct Call {
    /// The tool's name.
    name: ToolName,
    /// A JSON object, or @FILE, or - for standard input.
    #[arg(default_value = "{}")]
    arguments: String,
    /// Which of its functions, where it has several.
    #[arg(short, long)]
    function: Option<String>,
    /// Write the picture or sound that it gives, or else its structured result, to this file.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// Lists, shows or calls.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List => {
            let list: ToolList = context.block_on(async { Ok(client.get(&remote.path(paths::TOOLS)).await?) })?;
            print_list(context, &remote, &list)
        }
        Command::Inspect { name } => {
            let path = remote.path_of(paths::TOOL, name.as_str());
            let tool: ToolDetail = context.block_on(async { Ok(client.get(&path).await?) })?;
            inspect(context, &tool)
        }
        Command::Call(call) => {
            let request = ToolCallRequest {
                function: call.function.clone(),
                arguments: arguments(&call.arguments)?,
                idempotency_key: None,
            };
            let path = remote.path_of(paths::TOOL_CALLS, call.name.as_str());
            // A tool may change something outside, so a lost answer is not asked for again.
            let called: ToolCalled = context.block_on(async {
                Ok(client.post_within(&path, &request, Retry::Never, steps::TURN_TIMEOUT).await?)
            })?;
            print_called(context, &call, &called)
        }
    }
}

fn print_list(context: &Context, remote: &Remote<'_>, list: &ToolList) -> Result<(), CliError> {
    let out = &context.out;
    if list.tools.is_empty() {
        out.line(format_args!("No tool is live in {}.", paint(BOLD, remote.id)))?;
    } else {
        let mut table = Table::new(["TOOL", "VERSION", "KIND", "MAY REACH", "DESCRIPTION"]);
        for tool in &list.tools {
            let kind = if tool.sandboxed { tool.kind.clone() } else { format!("{}, unsandboxed", tool.kind) };
            let reach = if tool.grants.is_empty() { "nothing".to_owned() } else { tool.grants.join(", ") };
            let cells = [tool.name.to_string(), tool.version.clone(), kind, reach, tool.description.clone()];
            table.row(cells.map(|cell| text::one_line(&cell)));
        }
        out.table(table)?;
        for tool in &list.tools {
            for note in &tool.notes {
                out.line(format_args!("{}: {}", paint(BOLD, &tool.name), text::one_line(note)))?;
            }
        }
        out.line(paint(DIM, count(list.tools.len() as u64, "tool")))?;
    }
    out.json(list)
}

fn inspect(context: &Context, tool: &ToolDetail) -> Result<(), CliError> {
    let out = &context.out;
    let summary = &tool.summary;
    out.line(format_args!("{} {}", paint(BOLD, &summary.name), text::one_line(&summary.version)))?;
    if !summary.description.is_empty() {
        out.line(text::one_line(&summary.description))?;
    }
    out.line(paint(DIM, &summary.path))?;
    let place = if summary.sandboxed { "in the sandbox" } else { "unsandboxed" };
    out.line(format_args!("kind: {}, {place}", summary.kind))?;
    let reach = if summary.grants.is_empty() { "nothing".to_owned() } else { summary.grants.join(", ") };
    out.line(format_args!("may reach: {}", text::one_line(&reach)))?;
    if let Some(problem) = &tool.problem {
        out.line(format_args!("\n{}", text::one_line(problem)))?;
    }
    for note in &summary.notes {
        out.line(format_args!("note: {}", text::one_line(note)))?;
    }
    for function in &tool.functions {
        print_function(context, function)?;
    }
    out.json(tool)
}

fn print_function(context: &Context, function: &ToolDefinition) -> Result<(), CliError> {
    let out = &context.out;
    out.line(format_args!("\n{}", paint(BOLD, &function.name)))?;
    out.line(format_args!("  {}", text::one_line(&function.description)))?;
    let schema = &function.input_schema;
    let required: Vec<&str> = match schema.get("required") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let mut line = format!("  {name}: {}", kind_of(property));
        if required.contains(&name.as_str()) {
            line.push_str(", required");
        }
        if let Some(what) = property.get("description").and_then(Value::as_str) {
            line = format!("{line}. {what}");
        }
        out.line(text::one_line(&line))?;
    }
    Ok(())
}

/// A property's type in a word or two.
fn kind_of(property: &Value) -> String {
    let word = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
    match (property.get("type"), property.get("enum")) {
        (_, Some(Value::Array(choices))) => choices.iter().map(word).collect::<Vec<_>>().join(" | "),
        (Some(Value::Array(kinds)), _) => kinds.iter().map(word).collect::<Vec<_>>().join(" or "),
        (Some(kind), _) => word(kind),
        (None, _) => "any".to_owned(),
    }
}

fn print_called(context: &Context, call: &Call, called: &ToolCalled) -> Result<(), CliError> {
    let out = &context.out;
    if called.result.is_error {
        let message = format!("tool `{}`: {}", call.name, text::one_line(&called.result.text()));
        let help = format!("`caxton tools inspect {}` shows what its functions take", call.name);
        return Err(CliError::new("tool_failed", message).help(help));
    }
    let text = called.result.text();
    if !text.is_empty() {
        let plain: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        out.line(plain.trim_end())?;
    }
    match &call.output {
        Some(file) => {
            save(file, &called.result)?;
            out.note(format_args!("written to {}", file.display()));
        }
        None => {
            if let Some(structured) = &called.result.structured {
                out.line(serde_json::to_string_pretty(structured).unwrap_or_default())?;
            }
        }
    }
    let report = &called.report;
    let took = format!("{:.1} ms, {} KiB of memory", report.duration.as_secs_f64() * 1e3, report.memory_bytes >> 10);
    out.note(paint(DIM, took));
    out.json(&json!(called))
}

/// The arguments as they were given: JSON, a file, or standard input.
fn arguments(given: &str) -> Result<Value, CliError> {
    let unreadable = |error: std::io::Error| {
        CliError::usage("the arguments cannot be read").help("give JSON, @FILE, or - for standard input").source(error)
    };
    let json = match (given, given.strip_prefix('@')) {
        ("-", _) => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).map_err(unreadable)?;
            read
        }
        (_, Some(file)) => std::fs::read_to_string(file).map_err(unreadable)?,
        (json, None) => json.to_owned(),
    };
    let value: Value = serde_json::from_str(&json).map_err(|error| {
        CliError::usage("the arguments are not JSON").help("give an object like '{\"text\": \"...\"}'").source(error)
    })?;
    if value.is_object() { Ok(value) } else { Err(CliError::usage("the arguments are JSON, but not an object")) }
}

/// The first picture or sound, or the structured result.
fn save(file: &Path, result: &CallResult) -> Result<(), CliError> {
    let media = result.content.iter().find_map(|content| match content {
        Content::Image { data, .. } | Content::Audio { data, .. } => Some(data.clone()),
        Content::Text { .. } | Content::Embedded { .. } => None,
    });
    let bytes = media
        .or_else(|| result.structured.as_ref().map(|structured| structured.to_string().into_bytes()))
        .unwrap_or_else(|| result.text().into_bytes());
    std::fs::write(file, bytes).map_err(|error| {
        CliError::new("not_written", format!("{} cannot be written", file.display()))
            .help("choose another --output")
            .source(error)
    })
}
