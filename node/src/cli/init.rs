//! `caxton init`: a new workspace, or an agent from a template. What is there already is never overwritten.

mod provider;

mod program;
mod tool;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caxton_proto::{AgentName, WorkspaceId};
use clap::Subcommand;
use serde_json::json;

use crate::cli::output::{BOLD, DIM, GOOD, paint};
use crate::cli::workspace::{SETTINGS_FILE, Workspace};
use crate::cli::{CliError, Context};
use crate::templates::{self, AgentTemplate, TemplateFile};
use provider::Maker;

/// Arguments of `caxton init`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  caxton init hello                                   a workspace in ./hello
  caxton init --name team-agents                      a workspace right here
  caxton init hello --provider demo                   answers without a model or a key
  caxton init hello --template translator             with an agent to begin with
  caxton init reviewer --template code-reviewer       inside a workspace: add an agent to it
  caxton init agent reviewer --template code-reviewer add an agent to this workspace
  caxton init agent reviewer                          choose from a list
  caxton init agent counter --template go             the sources of an agent that is a program
  caxton init tool greeter --template rust            the sources of a tool")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Where to make the workspace [default: the current directory].
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The workspace's name [default: the folder's].
    #[arg(long, value_name = "NAME")]
    name: Option<WorkspaceId>,
    /// Begin with an agent made from this template; may be given several times.
    #[arg(long = "template", value_name = "TEMPLATE")]
    templates: Vec<String>,
    /// Who answers [default: asked for, else whoever can be found from here].
    #[arg(long, value_enum, value_name = "WHO")]
    provider: Option<Maker>,
    /// Do not make a git repository.
    #[arg(long)]
    no_git: bool,
}

/// What else can be begun.
#[derive(Debug, Subcommand)]
enum What {
    /// Add an agent to the workspace around the current directory.
    Agent(AgentArgs),
    /// Add the sources of a tool to the workspace around the current directory.
    Tool(tool::ToolArgs),
}

/// Arguments of `caxton init agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton init agent reviewer --template code-reviewer
  caxton init agent counter --template go             a program: in rust, javascript, python or go
  caxton init agent reviewer                          choose from a list")]
struct AgentArgs {
    /// The agent's name: lower-case letters, digits and `-`.
    name: AgentName,
    /// The template to begin with, or the language of a program [default: asked for].
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
}

/// Makes a workspace or an agent.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match args.what {
        Some(What::Agent(agent)) => add_agent(agent, context),
        Some(What::Tool(tool)) => tool::add(&tool, context),
        None => make_workspace(args, context),
    }
}

fn make_workspace(args: Args, context: &Context) -> Result<(), CliError> {
    let root = args.dir.as_ref().map_or_else(|| context.cwd.clone(), |dir| context.cwd.join(dir));
    for template in &args.templates {
        known(template)?;
    }
    if let Some(around) = around(&root) {
        return inside(args, &around, context);
    }
    if root.join(SETTINGS_FILE).exists() {
        return Err(CliError::new("exists", format!("{} is a workspace already", root.display()))
            .help("add an agent with `caxton init agent NAME`, or name another folder"));
    }
    let name = match args.name {
        Some(name) => name,
        None => name_of(&root)?,
    };
    let choice = provider::choose(args.provider, context)?;
    let mut files = templates::workspace(&name, &choice.source);
    for template in &args.templates {
        let name: AgentName = template.parse().map_err(|error| CliError::usage("this is no template").source(error))?;
        files.extend(files_of(template, &name));
    }
    if let Some(there) = args.templates.iter().find(|agent| root.join("agents").join(agent).exists()) {
        return Err(exists(&root.join("agents").join(there)));
    }
    let mut written = Vec::new();
    for file in &files {
        if write_new(&root, file)? {
            written.push(file.path.as_str());
        }
    }
    ignore_cache(&root)?;
    let git = !args.no_git && make_repository(&root, context);
    let out = &context.out;
    out.line(format_args!("{} workspace {} in {}", paint(GOOD, "made"), paint(BOLD, &name), root.display()))?;
    for path in &written {
        out.line(format_args!("  {} {path}", paint(GOOD, "+")))?;
    }
    if git {
        out.line(paint(DIM, "  and a git repository around it"))?;
    }
    out.line(format_args!("{} {}", paint(GOOD, "answers"), choice.source))?;
    if let Some(next) = &choice.next {
        out.line(format_args!("  {next}"))?;
    }
    out.line(paint(DIM, "  another one: [providers.main] in caxton.toml; `caxton docs providers` has every maker"))?;
    out.line("\nNext:")?;
    let mut steps = Vec::new();
    if let Some(dir) = &args.dir {
        steps.push((format!("cd {}", quoted(dir)), "go there"));
    }
    if args.templates.is_empty() {
        steps.push(("caxton init agent helper".to_owned(), "add an agent from a template"));
    }
    steps.push(("caxton serve".to_owned(), "start a node, in another terminal"));
    steps.push(("caxton deploy".to_owned(), "put it live"));
    steps.push(("caxton ask \"...\"".to_owned(), "ask"));
    print_steps(context, &steps)?;
    out.json(&json!({ "workspace": name, "root": root, "provider": choice.name, "files": written, "git": git }))
}

/// The workspace that a folder would be in, which may not be there yet.
fn around(root: &Path) -> Option<Workspace> {
    let above = root.ancestors().skip(1).find(|folder| folder.is_dir())?;
    Workspace::find(&above.canonicalize().ok()?).ok()
}

/// Inside a workspace, a name and a template are an agent of it. A workspace in another one would never be read.
fn inside(args: Args, around: &Workspace, context: &Context) -> Result<(), CliError> {
    let nested = |message: String| {
        CliError::new("nested_workspace", message)
            .help("add an agent with `caxton init agent NAME`, or make the workspace outside of this one")
    };
    let place = around.root.display();
    match (args.dir, args.templates.as_slice(), &args.name) {
        (Some(dir), [template], None) if Workspace::find(&context.cwd).is_ok() => {
            let name = dir.to_str().unwrap_or_default().parse::<AgentName>().map_err(|error| {
                CliError::usage(format!("`{}` cannot be an agent's name", dir.display()))
                    .help(format!("{place} is a workspace already, so this adds an agent to it: choose another name"))
                    .source(error)
            })?;
            add_agent(AgentArgs { name, template: Some(template.clone()) }, context)
        }
        _ => Err(nested(format!("a workspace in another one would not be read: {place} is one already"))),
    }
}

fn add_agent(args: AgentArgs, context: &Context) -> Result<(), CliError> {
    let workspace = context.workspace()?;
    let taken = [format!("agents/{}.toml", args.name), format!("agents/{}", args.name)];
    if let Some(there) = taken.iter().map(|path| workspace.root.join(path)).find(|path| path.exists()) {
        return Err(exists(&there));
    }
    let template = match args.template {
        Some(template) => known(&template)?,
        None => choose(context)?,
    };
    let files = files_of(&template.name, &args.name);
    place_agent(&workspace, &args.name, &files)?;
    let out = &context.out;
    out.line(format_args!(
        "{} agent {} from the template {}",
        paint(GOOD, "made"),
        paint(BOLD, &args.name),
        template.name
    ))?;
    for file in &files {
        out.line(format_args!("  {} {}", paint(GOOD, "+"), file.path))?;
    }
    out.line("\nNext:")?;
    print_steps(context, &next_steps(&template.name, &args.name))?;
    if let Some(program) = program::find(&template.name) {
        out.line(format_args!("\nWhat builds it, once: {}", program.needs()))?;
    }
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    out.json(&json!({ "agent": args.name, "template": template.name, "root": workspace.root, "files": paths }))
}

/// What to do with an agent that was just made.
fn next_steps(template: &str, name: &AgentName) -> Vec<(String, &'static str)> {
    let mut steps = match program::find(template) {
        Some(program) => {
            let build = program.build_lines(name).into_iter().map(|line| (line, "build it"));
            [(format!("cd agents/{name}"), "go there")].into_iter().chain(build).collect()
        }
        None => vec![
            (format!("edit agents/{name}/agent.toml"), "make it yours: its README says how"),
            ("caxton validate".to_owned(), "check it"),
        ],
    };
    steps.push(("caxton deploy".to_owned(), "put it live"));
    steps
}

/// Every template of an agent: those that are language models, then languages that a program is written in.
fn all_templates() -> Vec<AgentTemplate> {
    templates::agents().into_iter().chain(program::all()).collect()
}

/// The files of an agent made from a template, relative to the workspace.
fn files_of(template: &str, name: &AgentName) -> Vec<TemplateFile> {
    match program::find(template) {
        Some(program) => program.files(name),
        None => templates::agent(template, name),
    }
}

/// The template of that name, or a usage error that lists all of them.
fn known(name: &str) -> Result<AgentTemplate, CliError> {
    let all = all_templates();
    if let Some(template) = all.iter().find(|template| template.name == name) {
        return Ok(template.clone());
    }
    let near = caxton_proto::diagnostic::closest(name, all.iter().map(|template| template.name.as_str()));
    let error = CliError::usage(format!("there is no template `{name}`")).body(listing(&all));
    Err(match near {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help("name one of these"),
    })
}

/// Asks which template, where a person is there to answer.
fn choose(context: &Context) -> Result<AgentTemplate, CliError> {
    let all = all_templates();
    if !context.out.can_ask() {
        return Err(CliError::usage("no template is named")
            .body(listing(&all))
            .help("name one of these with --template")
            .fact("templates", all.iter().map(|template| template.name.as_str()).collect::<Vec<_>>()));
    }
    context.out.note(numbered(&all));
    loop {
        context.out.note("Which one? Type its number or its name, or nothing to stop:");
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(|error| CliError::new("io", "the terminal cannot be read").source(error))?;
        match pick(&all, answer.trim()) {
            _ if answer.trim().is_empty() => {
                return Err(CliError::usage("no template was chosen").help("name one with --template"));
            }
            Some(template) => return Ok(template.clone()),
            None => context.out.note(format_args!("`{}` is none of them.", answer.trim())),
        }
    }
}

/// The template that an answer means: its number in the list, or its name.
fn pick<'t>(all: &'t [AgentTemplate], answer: &str) -> Option<&'t AgentTemplate> {
    let by_number = answer.parse::<usize>().ok().and_then(|number| all.get(number.checked_sub(1)?));
    by_number.or_else(|| all.iter().find(|template| template.name == answer))
}

fn numbered(all: &[AgentTemplate]) -> String {
    let line = |(at, template): (usize, &AgentTemplate)| {
        format!("  {:>2}  {:<20}  {}", at + 1, template.name, template.description)
    };
    all.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn listing(all: &[AgentTemplate]) -> String {
    let line = |template: &AgentTemplate| format!("  {:<20}  {}", template.name, template.description);
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A workspace's name from its folder's: `My Team` becomes `my-team`.
fn name_of(root: &Path) -> Result<WorkspaceId, CliError> {
    let folder = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let words: Vec<&str> =
        folder.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    words.join("-").trim_matches('_').parse().map_err(|error| {
        CliError::usage("the folder's name cannot be the workspace's").help("pass --name NAME").source(error)
    })
}

fn exists(path: &Path) -> CliError {
    CliError::new("exists", format!("{} is there already", path.display()))
        .help("choose another name, or move it away: nothing is overwritten")
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let message = format!("{} cannot be written", path.display());
    |error| CliError::new("io", message).help("make the folder writable").source(error)
}

/// Writes a file unless it is there; says whether it did.
fn write_new(root: &Path, file: &TemplateFile) -> Result<bool, CliError> {
    let path = root.join(&file.path);
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::File::create_new(&path)?.write_all(file.text.as_bytes())
    };
    match write() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(cannot_write(&path)(error)),
    }
}

/// Puts the cache's line into a .gitignore that was there before.
fn ignore_cache(root: &Path) -> Result<(), CliError> {
    let path = root.join(".gitignore");
    let text = fs::read_to_string(&path).map_err(cannot_write(&path))?;
    if text.lines().any(|line| matches!(line.trim(), ".caxton" | ".caxton/" | "/.caxton" | "/.caxton/")) {
        return Ok(());
    }
    let line = if text.is_empty() || text.ends_with('\n') { ".caxton/\n" } else { "\n.caxton/\n" };
    let append = || fs::File::options().append(true).open(&path)?.write_all(line.as_bytes());
    append().map_err(cannot_write(&path))
}

/// Makes a git repository unless the folder is in one; says whether it did. A workspace does without git.
fn make_repository(root: &Path, context: &Context) -> bool {
    let inside = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if inside.ancestors().any(|folder| folder.join(".git").exists()) {
        return false;
    }
    let git = Command::new("git")
        .args(["init", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let made = git.is_ok_and(|status| status.success());
    if !made {
        context.out.warn("there is no git repository, and `git init` did not make one; history is kept by the server");
    }
    made
}

/// Puts an agent's folder in its place in one move, so that half an agent is never seen.
fn place_agent(workspace: &Workspace, name: &AgentName, files: &[TemplateFile]) -> Result<(), CliError> {
    let agents = workspace.root.join("agents");
    let place = || {
        fs::create_dir_all(&agents)?;
        let draft = tempfile::Builder::new().prefix(".caxton-").tempdir_in(&agents)?;
        for file in files {
            let path = draft.path().join(file.path.strip_prefix("agents/").unwrap_or(&file.path));
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, &file.text)?;
        }
        fs::rename(draft.path().join(name.as_str()), agents.join(name.as_str()))
    };
    place().map_err(cannot_write(&agents))
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn print_steps(context: &Context, steps: &[(String, &str)]) -> Result<(), CliError> {
    let width = steps.iter().map(|(step, _)| step.chars().count()).max().unwrap_or(0);
    for (step, why) in steps {
        let pad = " ".repeat(width - step.chars().count());
        context.out.line(format_args!("  {}{pad}  {}", paint(BOLD, step), paint(DIM, why)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
