//! `caxton init agent NAME --template LANGUAGE`: the sources of an agent that is a program, with the interface that this
//! binary has.
//!
//! The sources in JavaScript, Python and Go are those of `node/tools/examples`, which are built and called by that crate's
//! tests; `tests/process` types what the README says.

use caxton_proto::AgentName;

use crate::templates::{AgentTemplate, TemplateFile};

/// The interface of an agent, as a component has it.
const WIT: &str = include_str!("../../../tools/wit/agent/caxton-agent.wit");
/// Stands in the files where the agent's name belongs.
const NAME_MARK: &str = "AGENT_NAME";

/// A language that an agent can be begun in, and what it begins with.
pub(super) struct ProgramTemplate {
    /// The language, by which the template is chosen.
    language: &'static str,
    kind: &'static str,
    description: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// What builds it, in the agent's folder, a line each.
    build: &'static [&'static str],
    /// What has to be installed for it, once.
    needs: &'static str,
    /// First messages to it, as words after `caxton messages send NAME`.
    talk: &'static [&'static str],
    /// What is not deployed, beside what builds leave behind.
    ignored: &'static str,
}

const TEMPLATES: [ProgramTemplate; 4] = [
    ProgramTemplate {
        language: "rust",
        kind: "component",
        description: "Greets whoever sends it a request, and remembers how often it did.",
        files: &[
            ("Cargo.toml", include_str!("../../../templates/programs/rust/Cargo.toml")),
            ("src/lib.rs", include_str!("../../../templates/programs/rust/src/lib.rs")),
        ],
        build: &[
            "cargo build --release --target wasm32-unknown-unknown",
            "wasm-tools component new target/wasm32-unknown-unknown/release/$(echo AGENT_NAME | tr - _).wasm -o AGENT_NAME.wasm",
        ],
        needs: "rustup target add wasm32-unknown-unknown && cargo install wasm-tools --locked --no-default-features --features component",
        talk: &["hello"],
        ignored: "target/\nCargo.lock\nCargo.toml\nsrc/\nwit/\n",
    },
    ProgramTemplate {
        language: "javascript",
        kind: "component",
        description: "Sells desks and chairs, and haggles over the price.",
        files: &[("agent.js", include_str!("../../../tools/examples/javascript/negotiator/negotiator.js"))],
        build: &["componentize-qjs --wit wit --world agent --js agent.js --sync --opt-size -o AGENT_NAME.wasm"],
        needs: "npm install --global componentize-qjs@0.4.5",
        talk: &["'{\"item\": \"desk\"}' --content-json -p cfp --protocol fipa-contract-net"],
        ignored: "node_modules/\nagent.js\nwit/\n",
    },
    ProgramTemplate {
        language: "python",
        kind: "component",
        description: "Passes messages on to the agent or the capability that fits, and the answers back.",
        files: &[("app.py", include_str!("../../../tools/examples/python/router/app.py"))],
        build: &["componentize-py -d wit -w agent componentize -p . app -o AGENT_NAME.wasm"],
        needs: "python3 -m venv ~/componentize && ~/componentize/bin/pip install componentize-py==0.25.1 && export PATH=\"$PATH:$HOME/componentize/bin\"",
        talk: &["\"How many messages were sent?\" -p query-ref"],
        ignored: "__pycache__/\napp.py\nwit/\n",
    },
    ProgramTemplate {
        language: "go",
        kind: "command",
        description: "Counts the messages of each sender, and tells the counts to whoever asks.",
        files: &[
            ("go.mod", include_str!("../../../tools/examples/go/counter/go.mod")),
            ("main.go", include_str!("../../../tools/examples/go/counter/main.go")),
        ],
        build: &["GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags=\"-s -w\" -o AGENT_NAME.wasm ."],
        needs: "Go 1.21 or newer, from https://go.dev/dl",
        talk: &["hello", "\"How many messages?\" -p query-ref"],
        ignored: "go.mod\n*.go\n",
    },
];

/// The languages, as templates of agents.
pub(super) fn all() -> impl Iterator<Item = AgentTemplate> {
    TEMPLATES.iter().map(|template| AgentTemplate {
        name: template.language.to_owned(),
        description: format!("a program: {}", template.description),
    })
}

/// The template of this language.
pub(super) fn find(language: &str) -> Option<&'static ProgramTemplate> {
    TEMPLATES.iter().find(|template| template.language == language)
}

impl ProgramTemplate {
    /// The agent's files, relative to the workspace.
    pub(super) fn files(&self, name: &AgentName) -> Vec<TemplateFile> {
        let named = |text: &str| text.replace(NAME_MARK, name.as_str());
        let mut files: Vec<(&str, String)> = self.files.iter().map(|(path, text)| (*path, named(text))).collect();
        if self.kind == "component" {
            files.push(("wit/caxton-agent.wit", WIT.to_owned()));
        }
        let manifest = format!(
            "[agent]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"{}\"\nkind = \"{}\"\nmodule = \"./{name}.wasm\"\n\n\
             # By what others find it, and what it may use: `caxton docs agents`.\n# [[capability]]\n# name = \"{name}\"\n\
             # description = \"{}\"\n# [tools]\n# required = [\"...\"]\n",
            self.description, self.kind, self.description
        );
        files.push(("agent.toml", manifest));
        files.push(("README.md", self.readme(name)));
        // Only the module and its manifest are deployed.
        files.push((".caxtonignore", self.ignored.to_owned()));
        let path = |path: &str| format!("agents/{name}/{path}");
        files.into_iter().map(|(at, text)| TemplateFile { path: path(at), text }).collect()
    }

    fn readme(&self, name: &AgentName) -> String {
        let lines = |lines: Vec<String>| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
        let talk = self.talk.iter().map(|words| format!("caxton messages send {name} {words}"));
        let live = ["caxton deploy".to_owned()].into_iter().chain(talk).chain(["caxton messages list".to_owned()]);
        format!(
            "# {name}\n\n{}\n\nInstall once:\n\n    {}\n\nBuild it, here:\n\n{}\nPut it live, send it a message, and see what \
             comes back:\n\n{}\nWhat a program is given, and what it may use: `caxton docs wasm-agents`.\n",
            self.description,
            self.needs,
            lines(self.build_lines(name)),
            lines(live.collect())
        )
    }

    /// What builds it, in the agent's folder, a line each.
    pub(super) fn build_lines(&self, name: &AgentName) -> Vec<String> {
        self.build.iter().map(|line| line.replace(NAME_MARK, name.as_str())).collect()
    }

    /// What has to be installed for it, once.
    pub(super) fn needs(&self) -> &'static str {
        self.needs
    }
}

#[cfg(test)]
mod tests {
    use caxton_proto::manifest::AgentManifest;

    use super::*;

    #[test]
    fn every_language_has_a_manifest_that_is_right_and_the_interface_where_it_needs_it() {
        let name: AgentName = "my-agent".parse().expect("a name");
        for template in &TEMPLATES {
            let files = template.files(&name);
            let text = |path: &str| {
                let path = format!("agents/my-agent/{path}");
                files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
            };
            let manifest = AgentManifest::parse(
                &"agents/my-agent/agent.toml".parse().expect("a path"),
                text("agent.toml").expect("a manifest"),
            );
            let manifest = manifest.unwrap_or_else(|found| panic!("{}: {found:?}", template.language));
            let module = manifest.module.expect("a module");
            assert_eq!(module.path.as_str(), "agents/my-agent/my-agent.wasm");
            assert_eq!(text("wit/caxton-agent.wit").is_some(), template.kind == "component", "{}", template.language);
            assert!(files.iter().all(|file| !file.text.contains(NAME_MARK)), "{}", template.language);
            let readme = text("README.md").expect("a README");
            assert!(
                readme.contains("-o my-agent.wasm") && readme.contains("caxton messages send my-agent"),
                "{readme}"
            );
        }
    }

    #[test]
    fn no_language_has_the_name_of_another_template() {
        let others = crate::templates::agents();
        for language in all() {
            assert!(others.iter().all(|other| other.name != language.name), "{}", language.name);
        }
    }
}
