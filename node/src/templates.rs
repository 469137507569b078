//! What `caxton init` begins with: a workspace and ten agents, as files inside the binary.
//!
//! A template is a folder under `node/templates/agents` that can be deployed as it stands; a test checks each of them. What is
//! under `tools` and `programs` are sources to begin with.

use std::borrow::Cow;
use std::fmt;

use caxton_proto::manifest::AgentManifest;
use caxton_proto::tree::TreePath;
use caxton_proto::{AgentName, WorkspaceId};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "templates/"]
struct TemplateFiles;

/// Who answers in a new workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// OpenAI, with a key in the node's environment.
    OpenAi {
        /// The model's name.
        model: String,
    },
    /// Anthropic, with a key in the node's environment.
    Anthropic {
        /// The model's name.
        model: String,
    },
    /// An Ollama where the node finds it.
    Ollama {
        /// The model's name.
        model: String,
    },
    /// The examples of the templates, in a script.
    Demo,
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSource::OpenAi { model } => write!(f, "OpenAI, with the model {model}"),
            ModelSource::Anthropic { model } => write!(f, "Anthropic, with the model {model}"),
            ModelSource::Ollama { model } => write!(f, "Ollama, with the model {model}"),
            ModelSource::Demo => write!(f, "the demo, from the templates' own examples: no model is asked"),
        }
    }
}

impl ModelSource {
    /// The lines below `[providers.main]`.
    fn settings(&self) -> String {
        match self {
            ModelSource::OpenAi { model } => format!(
                "kind = \"openai\"\nmodel = \"{model}\"\napi_key = \"env:OPENAI_API_KEY\"         # a variable of the node, or \
                 \"secret:NAME\""
            ),
            ModelSource::Anthropic { model } => format!(
                "kind = \"anthropic\"\nmodel = \"{model}\"\napi_key = \"env:ANTHROPIC_API_KEY\"      # a variable of the node, or \
                 \"secret:NAME\""
            ),
            ModelSource::Ollama { model } => format!("kind = \"ollama\"\nmodel = \"{model}\""),
            ModelSource::Demo => format!(
                "kind = \"scripted\"                 # answers of the templates' examples\nscript = \"{DEMO_FILE}\""
            ),
        }
    }
}

/// Where the demo's answers are in a workspace.
pub const DEMO_FILE: &str = "prompts/demo.toml";
/// Stands in caxton.toml where the provider's lines belong.
const PROVIDER_MARK: &str = "PROVIDER_SETTINGS";
/// Stands in the workspace's files where its name belongs.
const NAME_MARK: &str = "WORKSPACE_NAME";

/// A file to write, relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFile {
    pub path: String,
    pub text: String,
}

/// One of the agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTemplate {
    pub name: String,
    /// What it is for, in a sentence.
    pub description: String,
}

/// The agents, in the order of their names.
pub fn agents() -> Vec<AgentTemplate> {
    let mut agents: Vec<AgentTemplate> = TemplateFiles::iter()
        .filter_map(|file| {
            let name = file.strip_prefix("agents/")?.strip_suffix("/agent.toml")?.to_owned();
            let path: TreePath = file.parse().ok()?;
            let description = AgentManifest::parse(&path, &text(&file)?).ok()?.description;
            Some(AgentTemplate { name, description })
        })
        .collect();
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    agents
}

/// The files of an agent made from a template, under its new name.
pub fn agent(template: &str, name: &AgentName) -> Vec<TemplateFile> {
    let folder = format!("agents/{template}/");
    let mut files = files(&folder, |path| format!("agents/{name}/{path}"));
    for file in &mut files {
        // The first line with the name is the agent's own.
        let (old, new) = match file.path.rsplit('/').next() {
            Some("agent.toml") => (format!("name = \"{template}\""), format!("name = \"{name}\"")),
            Some("README.md") => (format!("# {template}\n"), format!("# {name}\n")),
            _ => continue,
        };
        file.text = file.text.replacen(&old, &new, 1);
    }
    files
}

/// The files of a new workspace.
pub fn workspace(name: &WorkspaceId, source: &ModelSource) -> Vec<TemplateFile> {
    let mut files = files("workspace/", |path| match path {
        // Under its own name it would be in force here.
        "gitignore" => ".gitignore".to_owned(),
        path => path.to_owned(),
    });
    for file in &mut files {
        file.text = file.text.replace(NAME_MARK, name.as_str()).replace(PROVIDER_MARK, &source.settings());
    }
    if *source == ModelSource::Demo {
        files.push(TemplateFile { path: DEMO_FILE.to_owned(), text: demo() });
        files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    files
}

/// An example of a template: what is asked, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The name of the template that it belongs to.
    pub agent: String,
    /// How the template's prompt begins, by which a script knows whose turn it is.
    pub begins: String,
    /// What is asked.
    pub request: String,
    /// The answer, in Markdown.
    pub answer: String,
}

/// The example of every template, in the order of their names.
pub fn examples() -> Vec<Example> {
    let example = |template: AgentTemplate| {
        let folder = format!("agents/{}/examples/", template.name);
        let file = TemplateFiles::iter().find(|file| file.starts_with(&folder))?;
        let prompt = text(&format!("agents/{}/prompts/system.md", template.name))?;
        // Up to the first full stop or placeholder, within one line.
        let begins = prompt.split(['.', '{', '\n']).next()?.to_owned();
        let (head, answer) = text(&file)?.split_once("**Answer**").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        let (_, request) = head.split_once("**Request:**")?;
        let request = request.lines().next()?.trim().to_owned();
        let quoted =
            answer.lines().map(|line| line.strip_prefix("> ").or_else(|| line.strip_prefix('>')).unwrap_or(line));
        let answer = quoted.collect::<Vec<_>>().join("\n").trim().to_owned();
        Some(Example { agent: template.name, begins, request, answer })
    };
    agents().into_iter().filter_map(example).collect()
}

/// The script of the demo's provider: a rule for each template, and one for everybody else.
fn demo() -> String {
    let mut script = "# The answers of the demo's provider: no model is asked, and every agent made from a template answers with the\n\
                      # example that it came with. For real answers, change [providers.main] in caxton.toml.\n"
        .to_owned();
    for Example { agent, begins, request, answer } in examples() {
        script.push_str(&format!(
            "\n# {agent}\n[[rule]]\nwhen.system = {}\nsay = {}\n",
            quoted(&begins),
            quoted(&format!(
                "{answer}\n\n(No model was asked: this is the example of the template {agent}, for \"{request}\". \
                 Name a model in caxton.toml for answers to what you ask.)"
            ))
        ));
    }
    script.push_str(&format!(
        "\n[[rule]]\nsay = {}\n",
        quoted(
            "You said: {{request}}\n\n(No model was asked: this is the demo's provider. Name a model under [providers.main] in \
             caxton.toml, deploy again, and this agent answers by itself.)"
        )
    ));
    script
}

/// A text as TOML writes it; of several lines where it has several.
fn quoted(text: &str) -> String {
    if text.contains('\n') && !text.contains("'''") {
        return format!("'''\n{text}'''");
    }
    toml::Value::String(text.to_owned()).to_string()
}

fn files(folder: &str, place: impl Fn(&str) -> String) -> Vec<TemplateFile> {
    let mut files: Vec<TemplateFile> = TemplateFiles::iter()
        .filter_map(|file| {
            let path = place(file.strip_prefix(folder)?);
            Some(TemplateFile { path, text: text(&file)? })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn text(file: &str) -> Option<String> {
    match TemplateFiles::get(file)?.data {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use caxton_embed::Embedder;

    use super::*;
    use crate::capability::{Index, MESSAGE_TOKENS_MAX, Offer, Requirements, Vectors};

    /// All that a template's example asks, with the lines that are pasted below the first.
    fn whole_request(template: &str) -> String {
        let folder = format!("agents/{template}/examples/");
        let file = TemplateFiles::iter().find(|file| file.starts_with(&folder)).expect("an example");
        let text = text(&file).expect("UTF-8");
        let (_, request) = text.split_once("**Request:**").expect("a request");
        request.split("\n**").next().expect("a part").trim().to_owned()
    }

    fn offers(template: &str) -> Vec<Offer> {
        let path = format!("agents/{template}/agent.toml");
        let manifest = AgentManifest::parse(&path.parse().expect("a path"), &text(&path).expect("a file"));
        Offer::of_agent(&manifest.expect("an agent")).collect()
    }

    #[test]
    fn each_template_is_found_by_what_its_example_asks_alone_and_among_all() {
        let all: Vec<Offer> = agents().iter().flat_map(|template| offers(&template.name)).collect();
        assert_eq!(agents().len(), 10);
        let all = Index::build(all, &Vectors::default());
        let mut lost = Vec::new();
        for AgentTemplate { name, .. } in agents() {
            let request = whole_request(&name);
            let reading = Embedder::shared().read_start(&request, MESSAGE_TOKENS_MAX);
            let alone = Index::build(offers(&name), &Vectors::default());
            for (where_, index) in [("alone", &alone), ("among ten", &all)] {
                let ranking = index.rank(&reading, &request, &Requirements::default());
                let picked = ranking.pick(|_| Some(0)).map(|candidate| candidate.agent.as_str());
                if picked != Some(name.as_str()) {
                    let nearest = ranking.candidates.first().map(|it| (it.agent.to_string(), it.score, it.threshold));
                    lost.push(format!("{name}, {where_}: {picked:?}, and nearest is {nearest:?}"));
                }
            }
        }
        assert!(lost.is_empty(), "{lost:#?}");
    }
}
