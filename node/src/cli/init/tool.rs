//! `caxton init tool`: the sources of a tool in one of five languages, with the interface that this binary has.
//!
//! The sources are those of `node/tools/examples`, which are built and called by that crate's tests.

use std::fs;

use caxton_proto::ToolName;
use serde_json::json;

use super::{cannot_write, exists, print_steps};
use crate::cli::output::{BOLD, GOOD, paint};
use crate::cli::{CliError, Context};

/// The interface of a tool, as a component has it.
const WIT: &str = include_str!("../../../tools/wit/caxton-tool.wit");
/// Stands in the files where the tool's name belongs.
const NAME_MARK: &str = "TOOL_NAME";

/// Arguments of `caxton init tool`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton init tool greeter --template rust
  caxton init tool checksum --template c")]
pub struct ToolArgs {
    /// The tool's name: lower-case letters, digits and `-`.
    name: ToolName,
    /// The language to begin with.
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    template: Language,
}

/// A language with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    /// A component, built with cargo and wasm-tools.
    Rust,
    /// A component with CPython in it, built with componentize-py.
    Python,
    /// A component with QuickJS in it, built with componentize-qjs.
    #[value(name = "javascript")]
    JavaScript,
    /// A WASI command, built with Go.
    Go,
    /// A WASI command, built with clang and wasi-libc.
    C,
}

/// What a language's template is made of.
struct Template {
    kind: &'static str,
    description: &'static str,
    /// Whether it is built against the interface's file.
    wit: bool,
    files: &'static [(&'static str, &'static str)],
    /// What builds it, in the tool's folder, a line each.
    build: &'static [&'static str],
    /// What has to be installed for it, once.
    needs: &'static str,
    /// A first call.
    call: &'static str,
    /// What is not deployed, beside what builds leave behind.
    ignored: &'static str,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Python => "python",
            Language::JavaScript => "javascript",
            Language::Go => "go",
            Language::C => "c",
        }
    }

    fn template(self) -> Template {
        match self {
            Language::Rust => Template {
                kind: "component",
                description: "Greets someone by name.",
                wit: true,
                files: &[
                    ("Cargo.toml", include_str!("../../../templates/tools/rust/Cargo.toml")),
                    ("src/lib.rs", include_str!("../../../templates/tools/rust/src/lib.rs")),
                ],
                build: &[
                    "cargo build --release --target wasm32-unknown-unknown",
                    "wasm-tools component new target/wasm32-unknown-unknown/release/$(echo TOOL_NAME | tr - _).wasm -o TOOL_NAME.wasm",
                ],
                needs: "rustup target add wasm32-unknown-unknown && cargo install wasm-tools --locked --no-default-features --features component",
                call: "{\"name\":\"Ada\"}",
                ignored: "target/\nCargo.lock\nsrc/\nwit/\n",
            },
            Language::Python => Template {
                kind: "component",
                description: "Does exact arithmetic.",
                wit: true,
                files: &[("app.py", include_str!("../../../tools/examples/python/calculator/app.py"))],
                build: &[
                    "componentize-py -d wit -w plain-tool-server componentize --stub-wasi -p . app -o TOOL_NAME.wasm",
                ],
                needs: "python3 -m venv venv && venv/bin/pip install componentize-py==0.25.1",
                call: "{\"expression\":\"1/3 + 1/6\"}",
                ignored: "venv/\n__pycache__/\napp.py\nwit/\n",
            },
            Language::JavaScript => Template {
                kind: "component",
                description: "Finds what a regular expression describes in a text.",
                wit: true,
                files: &[("tool.js", include_str!("../../../tools/examples/javascript/extract/extract.js"))],
                build: &[
                    "componentize-qjs --wit wit --world plain-tool-server --js tool.js --sync --opt-size --stub-wasi -o TOOL_NAME.wasm",
                ],
                needs: "npm install --global componentize-qjs@0.4.5",
                call: "{\"text\":\"a1 b2\",\"pattern\":\"[0-9]\"}",
                ignored: "node_modules/\ntool.js\nwit/\n",
            },
            Language::Go => Template {
                kind: "command",
                description: "Says what time a moment is in other time zones.",
                wit: false,
                files: &[
                    ("go.mod", include_str!("../../../tools/examples/go/timezone/go.mod")),
                    ("main.go", include_str!("../../../tools/examples/go/timezone/main.go")),
                ],
                build: &["GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags=\"-s -w\" -o TOOL_NAME.wasm ."],
                needs: "Go 1.21 or newer",
                call: "{\"time\":\"2026-11-21T15:04:05Z\",\"zones\":[\"Asia/Tokyo\"]}",
                ignored: "go.mod\n*.go\n",
            },
            Language::C => Template {
                kind: "command",
                description: "Computes the SHA-256 of a text.",
                wit: false,
                files: &[
                    ("checksum.c", include_str!("../../../tools/examples/c/checksum/checksum.c")),
                    ("checksum.h", include_str!("../../../tools/examples/c/checksum/checksum.h")),
                    ("json.c", include_str!("../../../tools/examples/c/checksum/json.c")),
                    ("json.h", include_str!("../../../tools/examples/c/checksum/json.h")),
                    ("main.c", include_str!("../../../tools/examples/c/checksum/main.c")),
                ],
                build: &[
                    "clang --target=wasm32-wasi -std=gnu11 -Os -flto -Wl,--strip-all -Wl,-z,stack-size=65536 *.c -o TOOL_NAME.wasm",
                ],
                needs: "apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32",
                call: "{\"text\":\"abc\"}",
                ignored: "*.c\n*.h\n",
            },
        }
    }
}

/// The files of a tool, relative to its folder.
fn files(name: &ToolName, template: &Template) -> Vec<(String, String)> {
    let named = |text: &str| text.replace(NAME_MARK, name.as_str());
    let mut files: Vec<(String, String)> =
        template.files.iter().map(|(path, text)| ((*path).to_owned(), named(text))).collect();
    if template.wit {
        files.push(("wit/caxton-tool.wit".to_owned(), WIT.to_owned()));
    }
    let manifest = format!(
        "[tool]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"{}\"\nkind = \"{}\"\nmodule = \"{name}.wasm\"\n\n\
         # Nothing is reached that is not named here and allowed in caxton.toml.\n# [grants]\n# http = [\"api.example.com\"]\n",
        template.description, template.kind
    );
    files.push(("tool.toml".to_owned(), manifest));
    let build: String = template.build.iter().map(|line| format!("    {}\n", named(line))).collect();
    let readme = format!(
        "# {name}\n\n{}\n\nInstall once:\n\n    {}\n\nBuild it, here:\n\n{build}\nPut it live and call it:\n\n    caxton deploy\n    \
         caxton tools call {name} '{}'\n\nAn agent reaches it when its file names it: `[tools] required = [\"{name}\"]`. What a tool \
         may do: `caxton docs tools`.\n",
        template.description, template.needs, template.call
    );
    files.push(("README.md".to_owned(), readme));
    // Only the module and its manifest are deployed.
    files.push((".caxtonignore".to_owned(), template.ignored.to_owned()));
    files
}

/// Adds the sources of a tool to the workspace.
pub(super) fn add(args: &ToolArgs, context: &Context) -> Result<(), CliError> {
    let workspace = context.workspace()?;
    let folder = workspace.root.join("tools").join(args.name.as_str());
    if folder.exists() {
        return Err(exists(&folder));
    }
    let template = args.template.template();
    let files = files(&args.name, &template);
    let place = || {
        let tools = workspace.root.join("tools");
        fs::create_dir_all(&tools)?;
        let draft = tempfile::Builder::new().prefix(".caxton-").tempdir_in(&tools)?;
        let root = draft.path().join(args.name.as_str());
        for (path, text) in &files {
            let path = root.join(path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, text)?;
        }
        fs::rename(root, &folder)
    };
    place().map_err(cannot_write(&folder))?;
    let out = &context.out;
    out.line(format_args!("{} tool {} in {}", paint(GOOD, "made"), paint(BOLD, &args.name), args.template.name()))?;
    for (path, _) in &files {
        out.line(format_args!("  {} tools/{}/{path}", paint(GOOD, "+"), args.name))?;
    }
    out.line("\nNext:")?;
    let mut steps = vec![(format!("cd tools/{}", args.name), "go there")];
    let named = |line: &&str| (line.replace(NAME_MARK, args.name.as_str()), "build it");
    steps.extend(template.build.iter().map(named));
    steps.push(("caxton deploy".to_owned(), "put it live"));
    print_steps(context, &steps)?;
    out.line(format_args!("\nWhat builds it, once: {}", template.needs))?;
    let paths: Vec<String> = files.iter().map(|(path, _)| format!("tools/{}/{path}", args.name)).collect();
    out.json(&json!({ "tool": args.name, "template": args.template.name(), "root": workspace.root, "files": paths }))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_language_has_a_manifest_that_is_right_and_the_interface_where_it_needs_it() {
        let name: ToolName = "my-tool".parse().expect("a name");
        for language in Language::value_variants() {
            let template = language.template();
            let files = files(&name, &template);
            let text = |wanted: &str| files.iter().find(|(path, _)| path == wanted).map(|(_, text)| text.as_str());
            let manifest = caxton_proto::manifest::ToolManifest::parse(
                &"tools/my-tool/tool.toml".parse().expect("a path"),
                text("tool.toml").expect("a manifest"),
            );
            let manifest = manifest.unwrap_or_else(|found| panic!("{language:?}: {found:?}"));
            assert_eq!(manifest.kind.module().map(|path| path.as_str()), Some("tools/my-tool/my-tool.wasm"));
            assert_eq!(text("wit/caxton-tool.wit").is_some(), template.kind == "component", "{language:?}");
            assert!(text("README.md").is_some_and(|readme| readme.contains("my-tool.wasm")), "{language:?}");
            assert!(files.iter().all(|(_, text)| !text.contains(NAME_MARK)), "{language:?}");
            assert!(serde_json::from_str::<serde_json::Value>(template.call).is_ok(), "{language:?}");
        }
    }
}
