//! `caxton demo`: a node, a workspace, a question and its answer in one command, with no key and no network.
//!
//! Everything in it is the real thing: a node of its own on a free port, a deployment through the API, routing by the
//! sentence model, WebAssembly in the sandbox. Only the language model is a script, unless another one is named.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api::messages::MessageRequest;
use crate::cli::live::{self, Remote};
use crate::cli::output::{BOLD, DIM, GOOD, paint};
use crate::cli::steps::{self, Show};
use crate::cli::{CliError, Context, conversations, deploy};
use crate::config::{Draft, Home, environment};
use crate::node::Node;

/// The example workspace.
const FILES: [(&str, &[u8]); 13] = [
    ("README.md", include_bytes!("../../examples/csv-to-chart/README.md")),
    ("caxton.toml", include_bytes!("../../examples/csv-to-chart/caxton.toml")),
    ("sales.csv", include_bytes!("../../examples/csv-to-chart/sales.csv")),
    ("agents/data-analyzer.toml", include_bytes!("../../examples/csv-to-chart/agents/data-analyzer.toml")),
    ("agents/data-fetcher.toml", include_bytes!("../../examples/csv-to-chart/agents/data-fetcher.toml")),
    ("prompts/script.toml", include_bytes!("../../examples/csv-to-chart/prompts/script.toml")),
    ("tools/chart-generator/tool.toml", include_bytes!("../../examples/csv-to-chart/tools/chart-generator/tool.toml")),
    (
        "tools/chart-generator/chart-generator.wasm",
        include_bytes!("../../examples/csv-to-chart/tools/chart-generator/chart-generator.wasm"),
    ),
    ("tools/csv-reader/tool.toml", include_bytes!("../../examples/csv-to-chart/tools/csv-reader/tool.toml")),
    (
        "tools/csv-reader/csv-reader.wasm",
        include_bytes!("../../examples/csv-to-chart/tools/csv-reader/csv-reader.wasm"),
    ),
    ("tools/stats/tool.toml", include_bytes!("../../examples/csv-to-chart/tools/stats/tool.toml")),
    ("tools/stats/stats.wasm", include_bytes!("../../examples/csv-to-chart/tools/stats/stats.wasm")),
    (".gitignore", b".caxton/\n"),
];
/// The example workspace of the second part, in which three agents negotiate.
const CONTRACT_NET: [(&str, &[u8]); 9] = [
    ("README.md", include_bytes!("../../examples/contract-net/README.md")),
    ("caxton.toml", include_bytes!("../../examples/contract-net/caxton.toml")),
    ("agents/organizer.toml", include_bytes!("../../examples/contract-net/agents/organizer.toml")),
    ("agents/bicycle.toml", include_bytes!("../../examples/contract-net/agents/bicycle.toml")),
    ("agents/van.toml", include_bytes!("../../examples/contract-net/agents/van.toml")),
    ("prompts/organizer.toml", include_bytes!("../../examples/contract-net/prompts/organizer.toml")),
    ("prompts/bicycle.toml", include_bytes!("../../examples/contract-net/prompts/bicycle.toml")),
    ("prompts/van.toml", include_bytes!("../../examples/contract-net/prompts/van.toml")),
    (".gitignore", b".caxton/\n"),
];
/// What the agents of the second part are asked.
const CONTRACT: &str = "Have this parcel carried across town";
/// What is asked first.
const QUESTION: &str = "Draw a chart of sales by quarter";
/// What is asked afterwards in another conversation, without the file: the answer rests on what was kept of the first.
const ASKED_LATER: &str = "Which quarter sold the most?";
/// The file that goes with it.
const ATTACHED: &str = "sales.csv";
/// How long the node may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Arguments of `caxton demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton demo
  caxton demo --provider openai --model gpt-4.1-mini      with OPENAI_API_KEY set
  caxton demo --provider ollama --model qwen3")]
pub struct Args {
    /// Where the workspace and the chart are left [default: a new folder for temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Ask a real model: openai, anthropic, openrouter or ollama.
    #[arg(long, value_name = "NAME", requires = "model")]
    provider: Option<String>,
    /// That provider's model.
    #[arg(long, value_name = "MODEL", requires = "provider")]
    model: Option<String>,
}

/// Runs the whole thing.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let began = Instant::now();
    let folder = folder(args.dir.as_deref())?;
    let workspace = folder.join("csv-to-chart");
    write_workspace(&workspace, &FILES, args.provider.as_deref().zip(args.model.as_deref()))?;
    let contract = folder.join("contract-net");
    write_workspace(&contract, &CONTRACT_NET, None)?;
    let data_dir = folder.join("data");
    let result = with_node(&data_dir, |url| {
        let there = context.within(&workspace, url, &data_dir);
        let mut told = show(&there, &folder, began)?;
        told["contract"] = negotiate(&context.within(&contract, url, &data_dir))?;
        next(&there)?;
        context.out.json(&told)
    });
    // The node is gone, and its token with it; the workspace and the chart stay.
    std::fs::remove_dir_all(&data_dir).ok();
    result
}

/// The first part: agents that ask each other.
fn show(context: &Context, folder: &Path, began: Instant) -> Result<serde_json::Value, CliError> {
    let out = &context.out;
    let title = |text: &str| out.note(format_args!("\n{}", paint(BOLD, text)));
    out.note(format_args!("{} a node in {}", paint(GOOD, "started"), folder.join("data").display()));
    title("$ caxton deploy");
    deploy::run(deploy::Args::agreed("the demo"), context)?;
    title(&format!("$ caxton ask \"{QUESTION}\" --file {ATTACHED}"));

    let client = context.client()?;
    let id = context.workspace_id()?;
    let remote = Remote { client: &client, id: &id };
    let attachment = steps::read_file(&context.cwd.join(ATTACHED))?;
    let request =
        MessageRequest { text: QUESTION.to_owned(), attachments: vec![attachment], ..MessageRequest::default() };
    let answer = context.block_on(steps::watch(context, &remote, request, Show::Steps))?;
    let answer = answer.ok_or_else(|| CliError::new("waiting", "the demo's agents wait for an approval"))?;
    let saved = steps::save_files(&answer.attachments, folder)?;
    for path in &saved {
        out.line(format_args!("{} {}", paint(GOOD, "chart:"), paint(BOLD, path.display())))?;
    }
    out.note(paint(DIM, format!("{} steps, answered {} after the command was typed", answer.steps, live::took(began))));

    title(&format!("$ caxton ask \"{ASKED_LATER}\""));
    let request = MessageRequest { text: ASKED_LATER.to_owned(), ..MessageRequest::default() };
    let later = context.block_on(steps::watch(context, &remote, request, Show::Steps))?;
    out.note(paint(DIM, "a conversation of its own: it rests on the memory that it names (`caxton memory show ID`)"));
    Ok(serde_json::json!({ "answer": answer, "later": later, "saved": saved, "workspace": context.cwd }))
}

/// The second part: three agents, a call for proposals, and an award.
fn negotiate(context: &Context) -> Result<serde_json::Value, CliError> {
    let out = &context.out;
    let title = |text: &str| out.note(format_args!("\n{}", paint(BOLD, text)));
    out.note(format_args!(
        "\n{}",
        paint(DIM, "A second workspace, in which one agent calls for proposals and two others bid:")
    ));
    title("$ caxton deploy");
    deploy::run(deploy::Args::agreed("the demo"), context)?;
    title(&format!("$ caxton ask --agent organizer \"{CONTRACT}\""));
    let client = context.client()?;
    let id = context.workspace_id()?;
    let remote = Remote { client: &client, id: &id };
    let agent = "organizer".parse().ok();
    let request = MessageRequest { text: CONTRACT.to_owned(), agent, ..MessageRequest::default() };
    let answer = context.block_on(steps::watch(context, &remote, request, Show::Steps))?;
    let answer = answer.ok_or_else(|| CliError::new("waiting", "the demo's agents wait for somebody"))?;
    let named = answer.text.rsplit_once("(conversation ").map(|(_, rest)| rest.trim_end_matches(')'));
    let conversation = named.ok_or_else(|| CliError::new("demo", "the demo's agents came to no award"))?;
    title(&format!("$ caxton conversations show {conversation} --sequence"));
    let picture = context.block_on(conversations::sequence(&remote, conversation))?;
    out.text(&picture)?;
    Ok(serde_json::json!({ "answer": answer, "conversation": conversation, "picture": picture }))
}

/// What to do afterwards.
fn next(context: &Context) -> Result<(), CliError> {
    let out = &context.out;
    out.note(format_args!("\n{}", paint(BOLD, "Next")));
    let workspace = context.cwd.display();
    out.line("  caxton serve                                  in one terminal: a node that stays")?;
    out.line(format_args!("  cd {workspace} && caxton deploy"))?;
    out.line(format_args!("  caxton ask \"{QUESTION}\" --file {ATTACHED}"))?;
    for (variable, provider, model) in
        [("OPENAI_API_KEY", "openai", "gpt-4.1-mini"), ("ANTHROPIC_API_KEY", "anthropic", "claude-sonnet-4-5")]
    {
        if environment::variable(variable).is_some() {
            out.line(format_args!(
                "  caxton demo --provider {provider} --model {model}    {variable} is set: a real model"
            ))?;
        }
    }
    Ok(())
}

/// Runs a node beside `work`, and stops it whatever came of it.
fn with_node(data_dir: &Path, work: impl FnOnce(&str) -> Result<(), CliError>) -> Result<(), CliError> {
    let failed = |what: &str| CliError::new("demo", format!("the demo's node {what}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| failed("cannot have threads").source(error))?;
    let mut draft = Draft::default();
    draft.flag("--data-dir", "data.dir", data_dir.display().to_string());
    draft.flag("--bind", "http.bind", "127.0.0.1:0".to_owned());
    let config = draft.check(&Home::here()).map_err(|problems| failed("has bad settings").source(problems))?;
    let node = runtime.block_on(Node::start(config)).map_err(|error| {
        failed("did not start").help("choose a folder that can be written with --dir DIR").source(error)
    })?;
    let result = if runtime.block_on(node.ready(READY_TIMEOUT)) {
        work(node.url())
    } else {
        Err(failed("was not ready in time").help("the machine may be busy: try again"))
    };
    runtime.block_on(node.stop());
    result
}

fn folder(wanted: Option<&Path>) -> Result<PathBuf, CliError> {
    let cannot = |error: std::io::Error| {
        CliError::new("io", "the demo's folder cannot be made").help("choose another one with --dir DIR").source(error)
    };
    match wanted {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(cannot)?;
            let folder = folder.canonicalize().map_err(cannot)?;
            let taken = ["csv-to-chart", "contract-net", "data"].iter().any(|name| folder.join(name).exists());
            match taken {
                true => Err(CliError::new("io", format!("{} is in use", folder.display())).help("choose a new folder")),
                false => Ok(folder),
            }
        }
        None => Ok(tempfile::Builder::new().prefix("caxton-demo-").tempdir().map_err(cannot)?.keep()),
    }
}

fn write_workspace(folder: &Path, files: &[(&str, &[u8])], model: Option<(&str, &str)>) -> Result<(), CliError> {
    let cannot = |error: std::io::Error| {
        CliError::new("io", format!("{} cannot be written", folder.display()))
            .help("choose another folder with --dir DIR")
            .source(error)
    };
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(cannot)?;
        let content = match (*name, model) {
            ("caxton.toml", Some((provider, model))) => with_model(content, provider, model)?,
            _ => content.to_vec(),
        };
        std::fs::write(&path, content).map_err(cannot)?;
    }
    Ok(())
}

/// The workspace's file with another model.
fn with_model(file: &[u8], provider: &str, model: &str) -> Result<Vec<u8>, CliError> {
    let text = String::from_utf8_lossy(file);
    let mut document: toml_edit::DocumentMut = text
        .parse()
        .map_err(|error| CliError::new("internal", "the example's caxton.toml is not TOML").source(error))?;
    document["llm"]["provider"] = toml_edit::value(provider);
    document["llm"]["model"] = toml_edit::value(model);
    Ok(document.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_example_is_in_the_program() {
        every_file_is_there("csv-to-chart", &FILES);
        every_file_is_there("contract-net", &CONTRACT_NET);
    }

    fn every_file_is_there(name: &str, files: &[(&str, &[u8])]) {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let mut there: Vec<String> = ignore::WalkBuilder::new(&example)
            .build()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
            .filter_map(|entry| Some(entry.path().strip_prefix(&example).ok()?.to_string_lossy().into_owned()))
            .collect();
        let mut embedded: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        embedded.retain(|name| name != ".gitignore");
        there.sort();
        embedded.sort();
        assert_eq!(there, embedded);
    }

    #[test]
    fn another_model_takes_the_scripts_place() {
        let example = FILES.iter().find(|(name, _)| *name == "caxton.toml").expect("there").1;
        let text = String::from_utf8(with_model(example, "openai", "gpt").expect("TOML")).expect("text");
        assert!(text.contains("provider = \"openai\"\nmodel = \"gpt\""), "{text}");
    }
}
