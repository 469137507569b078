//! What a person sees of each mistake in a manifest, and that both forms of an agent's file mean the same.

mod shown;

mod tools;

mod workspaces;

mod written;

use std::fmt::Write as _;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::prompt::{Prompt, Values};
use super::{AgentManifest, ToolManifest, WorkspaceManifest, locate};
use crate::diagnostic::{self, Color, Diagnostic, render_all};
use crate::tree::TreePath;

fn path(text: &str) -> TreePath {
    text.parse().expect("a path")
}

/// Everything that is said of an agent's file.
fn agent(text: &str) -> String {
    render_all(&AgentManifest::read(&path("agents/a.toml"), text).1, Color::Never)
}

fn tool(text: &str) -> String {
    render_all(&ToolManifest::parse(&path("tools/t/tool.toml"), text).err().unwrap_or_default(), Color::Never)
}

fn workspace(text: &str) -> String {
    render_all(&WorkspaceManifest::parse(&path("caxton.toml"), text).err().unwrap_or_default(), Color::Never)
}

/// Only the first line and the label of each problem.
fn short(found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for problem in found {
        let place = problem.place.as_ref().map(|p| (p.line, p.column, p.label.as_str())).unwrap_or_default();
        let _ = writeln!(out, "{}:{} {}: {} ({})", place.0, place.1, problem.code, problem.message, place.2);
    }
    out
}

const SECTIONED: &str = r#"
[agent]
name = "a"
id = "agent-1"
version = "1.2.3"
description = "Looks at data"
documentation = "Long."

[[capability]]
name = "look"

[[capability]]
name = "see"

[prompts]
system = "You are {{parameters.who}}."
user = "{{context}}{{request}}"

[tools]
required = ["csv"]

[parameters]
who = "a clerk"

[limits]
wall_time = "30s"
"#;

const FLAT: &str = r#"
name = "a"
id = "agent-1"
version = "1.2.3"
description = "Looks at data"
documentation = "Long."
capabilities = ["look", "see"]
tools = ["csv"]
system_prompt = "You are {{parameters.who}}."
user_prompt_template = "{{context}}{{request}}"
parameters = { who = "a clerk" }
limits = { wall_time = "30s" }
"#;

#[test]
fn both_forms_mean_the_same() {
    let sectioned = AgentManifest::parse(&path("agents/a/agent.toml"), SECTIONED);
    assert_eq!(sectioned, AgentManifest::parse(&path("agents/a.toml"), FLAT));
    let manifest = sectioned.expect("a manifest");
    assert_eq!(manifest.limits.steps_max, 20);
    let Some(Prompt::Text(system)) = &manifest.prompts.system else { panic!("no text") };
    let values = Values { request: "", context: "", parameters: &manifest.parameters };
    assert_eq!(system.render(&values), "You are a clerk.");
}

#[test]
fn a_manifest_is_json_that_people_can_read() {
    let text = r#"
        [agent]
        name = "a"
        [capabilities]
        patterns = ["look at data"]
        [prompts]
        system = { file = "./prompts/system.md" }
        [llm]
        temperature = 1
        fallback = ["other/org/model:7b", "third"]
        [memory]
        scope = "workspace"
        [budget]
        usd_per_day = 2.50
    "#;
    let manifest = AgentManifest::parse(&path("agents/a/agent.toml"), text).expect("a manifest");
    let json = serde_json::to_string_pretty(&manifest).expect("json");
    assert_snapshot!(json, @r#"
    {
      "name": "a",
      "version": "0.1.0",
      "description": "",
      "capabilities": [
        {
          "name": "a",
          "version": "0.1.0",
          "description": "",
          "patterns": [
            "look at data"
          ],
          "examples": []
        }
      ],
      "prompts": {
        "system": {
          "file": "agents/a/prompts/system.md"
        },
        "user": null
      },
      "tools": {
        "required": [],
        "optional": []
      },
      "llm": {
        "provider": null,
        "model": null,
        "temperature": 1.0,
        "max_tokens": null,
        "fallback": [
          {
            "provider": "other",
            "model": "org/model:7b"
          },
          {
            "provider": "third",
            "model": null
          }
        ]
      },
      "memory": {
        "enabled": true,
        "scope": "workspace",
        "auto_store": false,
        "extract": false,
        "extract_tokens_per_day": 100000,
        "search_limit": 5,
        "min_similarity": 0.3,
        "tokens_max": 1500
      },
      "limits": {
        "steps_max": 20,
        "tokens_max": 200000,
        "wall_time": "2m",
        "delegation_depth_max": 5
      },
      "budget": {
        "usd_per_day": 2.5
      },
      "approval": {
        "tools": []
      },
      "parameters": {}
    }
    "#);
}

#[test]
fn a_misspelt_key_is_shown_where_it_is_with_what_was_meant() {
    let text = "[agent]\nname = \"a\"\ndescripton = \"x\"\n\n[capabilites]\npatterns = []\n";
    assert_snapshot!(agent(text), @r#"
    error[unknown_key]: there is no key `descripton` in [agent]
     --> agents/a.toml:3:1
      |
    3 | descripton = "x"
      | ^^^^^^^^^^ did you mean `description`?

    error[unknown_key]: there is no key `capabilites` at the top of this file
     --> agents/a.toml:5:2
      |
    5 | [capabilites]
      |  ^^^^^^^^^^^ did you mean `capabilities`?

    2 errors in 1 file
    "#);
}

#[test]
fn every_problem_of_a_file_is_said_at_once() {
    let text = r#"
[agent]
name = "b"
version = "1.0"
model = "gpt"

[[capability]]
name = "Data Analysis"
examples = "one"

[[capability]]
name = "look"
version = "x"

[[capability]]
name = "look"

[prompts]
system = """
You are {{parametres.who}}.
  Answer {{request} now: {{parameters.wo}}
"""
user = ""

[tools]
required = ["csv", "csv", 3]

[llm]
temperature = 2.5
max_tokens = "many"
fallback = ["A", "x", "x"]

[memory]
scope = "team"
enabled = "yes"

[limits]
steps_max = 0
wall_time = 30
tokens_max = -1

[approval]
tools = ["cvs"]

[parameters]
who = "x"
list = [[1]]
"bad name" = 1
"#;
    let (manifest, found) = AgentManifest::read(&path("agents/a.toml"), text);
    assert_eq!(manifest, None);
    assert_snapshot!(short(&found), @r#"
    3:8 name_mismatch: the agent is named `b`, and its file is named for `a` (expected "a")
    4:11 bad_value: `version` has to be a semantic version, like 1.2.0 (did you mean "1.0.0"?)
    5:1 unknown_key: there is no key `model` in [agent] (this belongs elsewhere: [llm])
    8:8 bad_value: `Data Analysis` is not a capability's name (did you mean "data-analysis"?)
    9:12 wrong_type: `examples` has to be a list (this is a string)
    13:11 bad_value: `version` has to be a semantic version, like 1.2.0 (unexpected character 'x' while parsing major version number)
    15:1 duplicate: the capability `look` is there twice (again here)
    20:9 bad_prompt: there is no placeholder `parametres.who` (did you mean `{{parameters.who}}`?)
    21:10 bad_prompt: the placeholder is not closed (opened here and never closed)
    21:26 bad_prompt: the agent has no parameter `wo` (did you mean `who`?)
    23:8 bad_value: `user` is empty (write something here, or leave it out)
    26:20 duplicate: the tool `csv` is named twice (again here)
    26:27 wrong_type: `required` has to be text (this is an integer)
    29:15 out_of_range: `temperature` has to be between 0 and 2 (out of range)
    30:14 wrong_type: `max_tokens` has to be a whole number (this is a string)
    31:13 bad_value: an entry of `fallback` is "provider" or "provider/model" (the provider name `A` has 'A' in it; use lower-case letters, digits and `-`, and start with a letter or digit)
    31:23 duplicate: `x` is there twice (again here)
    34:9 bad_value: `scope` has to be one of `agent-only`, `agent`, `conversation`, `global`, `subject` and `workspace` (not one of them)
    35:11 wrong_type: `enabled` has to be true or false (this is a string)
    38:13 out_of_range: `steps_max` has to be between 1 and 1000 (out of range)
    39:13 wrong_type: `wall_time` has to be a time with its unit (this is an integer)
    40:14 out_of_range: `tokens_max` has to be between 1 and 1000000000 (out of range)
    43:10 unknown_tool: `cvs` is not one of this agent's tools (did you mean `csv`?)
    47:8 wrong_type: the default of parameter `list` has to be text, a number, a boolean or a list of these (this is an array)
    48:1 bad_value: `bad name` cannot be a parameter's name (use letters, digits, `_` and `-`)
    "#);
}

#[test]
fn what_is_missing_is_asked_for() {
    assert_snapshot!(agent("[agent]\nversion = \"1.0.0\"\n"), @r#"
    error[missing_key]: `name` is missing from [agent]
     --> agents/a.toml:1:1
      |
    1 | [agent]
      | ^^^^^^^ in here
      |
      = help: name the agent as its file is named: name = "data-analyzer"

    1 error in 1 file
    "#);
}

#[test]
fn an_empty_file_is_told_what_an_agent_needs() {
    assert_snapshot!(agent(""), @r#"
    error[missing_key]: `name` is missing from the top of this file
     --> agents/a.toml
      |
      = help: name the agent as its file is named: name = "data-analyzer"

    1 error in 1 file
    "#);
}

#[test]
fn a_key_of_the_other_form_is_sent_where_it_belongs() {
    let text = "system_prompt = \"x\"\nmodel = \"y\"\n[agent]\nname = \"a\"\n[capabilities]\npatterns = [\"x\"]\n";
    assert_snapshot!(agent(text), @r#"
    error[unknown_key]: there is no key `system_prompt` at the top of this file
     --> agents/a.toml:1:1
      |
    1 | system_prompt = "x"
      | ^^^^^^^^^^^^^ this belongs elsewhere: write it as `system` in [prompts]

    error[unknown_key]: there is no key `model` at the top of this file
     --> agents/a.toml:2:1
      |
    2 | model = "y"
      | ^^^^^ this belongs elsewhere: [llm]

    2 errors in 1 file
    "#);
}

#[test]
fn a_broken_file_is_one_problem_for_each_broken_line() {
    let text = "[agent]\nname = \"a\nversion = 1.0.0\n[capabilities\n";
    assert_snapshot!(agent(text), @r#"
    error[syntax]: this is not valid TOML
     --> agents/a.toml:2:10
      |
    2 | name = "a
      |          ^ invalid basic string, expected `"`
      |
      = help: put text in double quotes, and text of several lines in three of them (""")

    error[syntax]: this is not valid TOML
     --> agents/a.toml:3:14
      |
    3 | version = 1.0.0
      |              ^^ invalid float, expected nothing
      |
      = help: a line is `key = value`, `[table]` or `[[list-of-tables]]`; text is in double quotes

    error[syntax]: this is not valid TOML
     --> agents/a.toml:4:14
      |
    4 | [capabilities
      |              ^ unclosed table, expected `]`
      |
      = help: a line is `key = value`, `[table]` or `[[list-of-tables]]`; text is in double quotes

    3 errors in 1 file
    "#);
}

#[test]
fn a_name_has_to_be_the_files_own() {
    let text = "name = \"other\"\ncapabilities = [\"x\"]\n";
    assert_snapshot!(agent(text), @r#"
    error[name_mismatch]: the agent is named `other`, and its file is named for `a`
     --> agents/a.toml:1:8
      |
    1 | name = "other"
      |        ^^^^^^^ expected "a"
      |
      = help: write name = "a", or move the file to agents/other.toml

    1 error in 1 file
    "#);
}

#[test]
fn a_prompt_cannot_come_from_outside() {
    let text = "name = \"a\"\ncapabilities = [\"x\"]\nsystem_prompt = { file = \"../../etc/passwd\" }\n";
    assert_snapshot!(agent(text), @r#"
    error[bad_value]: `file` is not a path in this workspace
     --> agents/a.toml:3:26
      |
    3 | system_prompt = { file = "../../etc/passwd" }
      |                          ^^^^^^^^^^^^^^^^^^ the path "../../etc/passwd" could lead out of the workspace; write it relative to caxton.toml, without `.` or `..`

    1 error in 1 file
    "#);
}

#[test]
fn a_placeholder_in_a_text_with_escapes_marks_the_whole_text() {
    let text = "name = \"a\"\ncapabilities = [\"x\"]\nsystem_prompt = \"a\\tb {{c d}}\"\n";
    assert_snapshot!(agent(text), @r#"
    error[bad_prompt]: there is no placeholder `c d`
     --> agents/a.toml:3:17
      |
    3 | system_prompt = "a\tb {{c d}}"
      |                 ^^^^^^^^^^^^^^ nothing fills this
      |
      = help: there are {{request}}, {{context}}, {{parameters.NAME}}, and {{NAME}} for what comes with a message; write `{{{{` for two braces that are text

    1 error in 1 file
    "#);
}

/// Pieces that make most texts nearly a manifest, so that the readers get far.
const PIECES: &str = "(\\[agent\\]\n|\\[\\[capability\\]\\]\n|\\[prompts\\]\n|\\[tools\\]\n|\\[llm\\]\n|\\[tool\\]\n\
    |\\[workspace\\]\n|\\[providers\\.x\\]\n|\\[grants\\]\n|\\[limits\\]\n|\\[parameters\\]\n|name|version|kind|module\
    |system|fallback|patterns|examples|http|env|prices|wall_time|temperature| = |\"\"\"|\"|\\{\\{|\\}\\}|\\[|\\]|\\{|\\}\
    |,|1|-1|nan|inf|0xff|1e999|99999999999999999999|true|\"a\"|\"1s\"|\"secret:\"|\"https://\"|\n|\t|\\PC)";

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(pieces in proptest::collection::vec(PIECES, 0..60)) {
        let text = pieces.concat();
        for problems in [
            AgentManifest::read(&path("agents/a.toml"), &text).1,
            ToolManifest::parse(&path("tools/t/tool.toml"), &text).err().unwrap_or_default(),
            WorkspaceManifest::parse(&path("caxton.toml"), &text).err().unwrap_or_default(),
        ] {
            render_all(&problems, Color::Always);
        }
        locate(&text, &["tools", "required"], Some("a"));
    }

    #[test]
    fn a_file_is_refused_exactly_when_there_is_an_error(pieces in proptest::collection::vec(PIECES, 0..30)) {
        let text = format!("name = \"a\"\n{}", pieces.concat());
        let (manifest, found) = AgentManifest::read(&path("agents/a.toml"), &text);
        let errors = found.iter().any(|problem| problem.severity == diagnostic::Severity::Error);
        prop_assert_eq!(manifest.is_none(), errors);
    }
}
