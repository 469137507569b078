//! What a person sees of each mistake in a manifest, and that both forms of an agent's file mean the same.

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
        "search_limit": 5,
        "min_similarity": 0.3
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
list = [1]
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
    34:9 bad_value: `scope` has to be one of `agent`, `conversation` and `workspace` (not one of them)
    35:11 wrong_type: `enabled` has to be true or false (this is a string)
    38:13 out_of_range: `steps_max` has to be between 1 and 1000 (out of range)
    39:13 wrong_type: `wall_time` has to be a time with its unit (this is an integer)
    40:14 out_of_range: `tokens_max` has to be between 1 and 1000000000 (out of range)
    43:10 unknown_tool: `cvs` is not one of this agent's tools (did you mean `csv`?)
    47:8 wrong_type: the default of parameter `list` has to be text, a number or a boolean (this is an array)
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
    let text = "name = \"a\"\ncapabilities = [\"x\"]\nsystem_prompt = \"a\\tb {{c}}\"\n";
    assert_snapshot!(agent(text), @r#"
    error[bad_prompt]: there is no placeholder `c`
     --> agents/a.toml:3:17
      |
    3 | system_prompt = "a\tb {{c}}"
      |                 ^^^^^^^^^^^^ nothing fills this
      |
      = help: there are {{request}}, {{context}} and {{parameters.NAME}}; write `{{{{` for two braces that are text

    1 error in 1 file
    "#);
}

#[test]
fn a_tool_of_each_kind_is_read() {
    let read = |text: &str| {
        let manifest = ToolManifest::parse(&path("tools/t/tool.toml"), text).expect(text);
        serde_json::to_value(manifest).expect("json")
    };
    let component = read(
        r#"
        [tool]
        name = "t"
        kind = "component"
        module = "t.wasm"
        idempotent = true
        [grants]
        http = ["api.example.com", "*.example.org:8443"]
        scratch = true
        env = { KEY = "secret:API_KEY", MODE = "fast" }
        [limits]
        memory_bytes = "16MiB"
        wall_time = "5s"
        "#,
    );
    assert_snapshot!(component, @r#"{"description":"","grants":{"clock":false,"env":{"KEY":"secret:API_KEY","MODE":"fast"},"http":["api.example.com","*.example.org:8443"],"random":false,"reuse":false,"scratch":true},"idempotent":true,"kind":"component","limits":{"concurrency":16,"cpu":"5s","memory_bytes":16777216,"output_bytes":1048576,"wall_time":"5s"},"module":"tools/t/t.wasm","name":"t","version":"0.1.0"}"#);
    let remote = read(
        r#"
        [tool]
        name = "t"
        kind = "mcp-http"
        url = "https://mcp.example.com/mcp"
        bearer = "secret:TOKEN"
        headers = { X-Team = "a" }
        "#,
    );
    assert_eq!(remote["kind"], "mcp-http");
    assert_eq!(remote["bearer"], "TOKEN");
    let process = read("[tool]\nname = \"t\"\nkind = \"mcp-stdio\"\ncommand = \"npx\"\nargs = [\"-y\", \"x\"]\n");
    assert_eq!(process["args"][1], "x");
}

#[test]
fn every_problem_of_a_tool_is_said_at_once() {
    let text = r#"
timeout = "5s"
[tool]
name = "other"
kind = "componnent"
memory = "1MiB"
[grants]
http = ["https://api.example.com/v1", "a b"]
env = { "1X" = "secret:", B = "secret:a b" }
scrach = true
[limits]
memory_bytes = "1B"
cpu = "1 s"
concurrency = 5000
"#;
    let found = ToolManifest::parse(&path("tools/t/tool.toml"), text).expect_err("errors");
    assert_snapshot!(short(&found), @r#"
    2:1 unknown_key: there is no key `timeout` at the top of this file (this belongs elsewhere: `wall_time` in [limits])
    4:8 name_mismatch: the tool is named `other`, and its folder is named for `t` (expected "t")
    5:8 bad_value: `kind` has to be one of `command`, `component`, `core`, `mcp-http` and `mcp-stdio` (did you mean "component"?)
    6:1 unknown_key: there is no key `memory` in [tool] (this belongs elsewhere: `memory_bytes` in [limits])
    8:9 bad_value: `http` has a bad value (write only the host: "api.example.com")
    8:39 bad_value: `http` has a bad value (a host is written like "api.example.com", "*.example.com" or "api.example.com:8443")
    9:9 bad_value: `1X` is not the name of an environment value (use letters, digits and `_`)
    9:16 bad_value: `1X` has a bad value (a secret's name has 1 to 128 letters, digits and `_`, and does not start with a digit)
    9:31 bad_value: `B` has a bad value (a secret's name has 1 to 128 letters, digits and `_`, and does not start with a digit)
    10:1 unknown_key: there is no key `scrach` in [grants] (did you mean `scratch`?)
    12:16 out_of_range: `memory_bytes` has to be between "64KiB" and "4GiB" (out of range)
    13:7 bad_value: `cpu` has a bad value (a time is written like "30s", "250ms", "1m30s" or "2h")
    14:15 out_of_range: `concurrency` has to be between 1 and 1024 (out of range)
    "#);
}

#[test]
fn a_module_stays_in_its_folder() {
    assert_snapshot!(tool("[tool]\nname = \"t\"\nkind = \"core\"\nmodule = \"../u/u.wasm\"\n"), @r#"
    error[bad_value]: `module` is not a file in this tool's folder
     --> tools/t/tool.toml:4:10
      |
    4 | module = "../u/u.wasm"
      |          ^^^^^^^^^^^^^ the path "tools/t/../u/u.wasm" could lead out of the workspace; write it relative to caxton.toml, without `.` or `..`

    1 error in 1 file
    "#);
}

#[test]
fn a_secret_in_a_file_is_refused_and_not_shown() {
    let shown = workspace(
        "[workspace]\nname = \"w\"\n[providers.main]\nkind = \"openai\"\napi_key = \"sk-very-secret\" # no\n",
    );
    assert!(!shown.contains("sk-very-secret"), "{shown}");
    assert_snapshot!(shown, @r#"
    error[secret_in_file]: `api_key` has to say where the key is, not what it is
     --> caxton.toml:5:11
      |
    5 | api_key = **************** # no
      |           ^^^^^^^^^^^^^^^^ name where the key is, "secret:NAME" or "env:NAME"
      |
      = help: files are deployed, kept and shown: put the value into a secret with "caxton secrets set NAME"

    1 error in 1 file
    "#);
    let header = "[tool]\nname = \"t\"\nkind = \"mcp-http\"\nurl = \"https://a\"\nbearer = \"hunter2\"\n\
                  headers = { Authorization = \"Basic hunter2\" }\n";
    assert!(!tool(header).contains("hunter2"), "{}", tool(header));
    assert_eq!(tool(header).matches("error[secret_in_file]").count(), 2);
}

#[test]
fn a_whole_workspace_file_is_read() {
    let text = r#"
        [workspace]
        name = "team"
        description = "Ours"
        [server]
        url = "https://caxton.example.com"
        [grants]
        http = ["*.example.com"]
        scratch = true
        secrets = ["API_KEY"]
        [llm]
        provider = "main"
        model = "small"
        [providers.main]
        kind = "openai"
        base_url = "http://127.0.0.1:11434/v1"
        timeout = "2m"
        fallback = ["spare"]
        [providers.main.prices]
        small = { input = 0.15, output = 0.6 }
        [providers.spare]
        kind = "anthropic"
        api_key = "env:ANTHROPIC_API_KEY"
        [budget]
        tokens_per_day = 1_000_000
        [retention]
        revisions_kept = 10
    "#;
    let manifest = WorkspaceManifest::parse(&path("caxton.toml"), text).expect("a manifest");
    assert_eq!(manifest.default_provider().map(|name| name.to_string()).as_deref(), Some("main"));
    assert_snapshot!(serde_json::to_string_pretty(&manifest).expect("json"), @r#"
    {
      "name": "team",
      "description": "Ours",
      "server": "https://caxton.example.com",
      "grants": {
        "http": [
          "*.example.com"
        ],
        "scratch": true,
        "clock": false,
        "random": false,
        "reuse": false,
        "secrets": [
          "API_KEY"
        ],
        "processes": false
      },
      "llm": {
        "provider": "main",
        "model": "small"
      },
      "providers": {
        "main": {
          "kind": "openai",
          "base_url": "http://127.0.0.1:11434/v1",
          "api_key": null,
          "model": null,
          "timeout": "2m",
          "fallback": [
            {
              "provider": "spare",
              "model": null
            }
          ],
          "prices": {
            "small": {
              "input": 0.15,
              "output": 0.6
            }
          }
        },
        "spare": {
          "kind": "anthropic",
          "base_url": null,
          "api_key": "env:ANTHROPIC_API_KEY",
          "model": null,
          "timeout": "1m",
          "fallback": [],
          "prices": {}
        }
      },
      "budget": {
        "tokens_per_day": 1000000
      },
      "retention": {
        "revisions_kept": 10
      }
    }
    "#);
}

#[test]
fn every_problem_of_a_workspace_is_said_at_once() {
    let text = r#"
name = "w"
[workspace]
descripton = "x"
[server]
url = "example.com"
[grants]
http = "example.com"
secrets = ["a-b"]
[providers.Main]
kind = "open-ai"
[providers.two]
kind = "scripted"
[providers.three]
kind = "wasm"
tool = "x"
prices = { m = { input = -1, output = 1 } }
[budget]
usd_per_day = "5"
[retention]
revisions_kept = 0
[secrets]
a = "b"
"#;
    let found = WorkspaceManifest::parse(&path("caxton.toml"), text).expect_err("errors");
    assert_snapshot!(short(&found), @r#"
    2:1 unknown_key: there is no key `name` at the top of this file (this belongs elsewhere: [workspace])
    3:1 missing_key: `name` is missing from [workspace] (in here)
    4:1 unknown_key: there is no key `descripton` in [workspace] (did you mean `description`?)
    6:7 bad_value: `url` has a bad value (an address starts with http:// or https://)
    8:8 wrong_type: `http` has to be a list (this is a string)
    9:12 bad_value: `secrets` has a bad value (a secret's name has 1 to 128 letters, digits and `_`, and does not start with a digit)
    10:12 bad_value: a provider has a bad name (the provider name `Main` has 'M' in it; use lower-case letters, digits and `-`, and start with a letter or digit)
    11:8 bad_value: `kind` has to be one of `anthropic`, `openai`, `scripted` and `wasm` (did you mean "openai"?)
    12:1 missing_key: `script` is missing from [providers.two] (in here)
    17:26 out_of_range: `input` has to be between 0 and 1000000 (out of range)
    19:15 wrong_type: `usd_per_day` has to be a number (this is a string)
    21:18 out_of_range: `revisions_kept` has to be between 1 and 10000 (out of range)
    22:2 unknown_key: there is no key `secrets` at the top of this file (unknown)
    "#);
}

#[test]
fn a_key_and_an_item_of_its_list_are_found_again() {
    let at = |keys: &[&str], item| locate(FLAT, keys, item).map(|span| &FLAT[span]);
    assert_eq!(at(&["tools"], Some("csv")), Some("\"csv\""));
    assert_eq!(at(&["tools"], Some("gone")), Some("tools"));
    assert_eq!(at(&["limits", "wall_time"], None), Some("\"30s\""));
    assert_eq!(at(&["limits", "nothing"], None), None);
    assert_eq!(locate("= broken", &["a"], None), None);
}

#[test]
fn problems_are_sorted_and_counted() {
    let error = |path: &str| Diagnostic::error("x", path, "m");
    let mut found = vec![error("b"), Diagnostic::warning("x", "a", "m"), error("a")];
    diagnostic::sort(&mut found);
    let paths: Vec<_> = found.iter().map(|d| (d.path.as_str(), d.severity)).collect();
    assert_eq!(paths, [("a", found[0].severity), ("a", found[1].severity), ("b", found[2].severity)]);
    assert!(found[0].severity < found[1].severity);
    assert_eq!(diagnostic::count(&found), "2 errors and 1 warning in 2 files");
    assert_eq!(diagnostic::count(&[]), "no problems");
}

#[test]
fn a_terminal_is_safe_from_what_a_file_holds() {
    let long = format!("name = \"a\"\ncapabilities = [\"x\"]\n\"\\u001b[2Jbad\" = \"{}\"\n", "y".repeat(500));
    let shown = agent(&long);
    assert!(!shown.contains('\x1b'), "{shown:?}");
    assert!(shown.lines().all(|line| line.chars().count() < 260), "{shown}");
    let colored = AgentManifest::read(&path("agents/a.toml"), &long).1[0].render(Color::Always);
    assert!(colored.starts_with("\x1b[1;31merror[unknown_key]\x1b[0m"), "{colored:?}");
}

#[test]
fn a_mark_stands_below_what_it_marks_also_after_tabs_and_wide_letters() {
    assert_snapshot!(agent("name = \"a\"\ncapabilities = [\"日本\",\t1, \"x\"]\n"), @r#"
    error[bad_value]: `日本` is not a capability's name
     --> agents/a.toml:2:17
      |
    2 | capabilities = ["日本",    1, "x"]
      |                 ^^^^^^ the capability name `日本` has '日' in it; use lower-case letters, digits and `-`, and start with a letter or digit

    error[wrong_type]: `capabilities` has to be text
     --> agents/a.toml:2:23
      |
    2 | capabilities = ["日本",    1, "x"]
      |                            ^ this is an integer

    2 errors in 1 file
    "#);
}

#[test]
fn a_diagnostic_crosses_the_wire() {
    let found = AgentManifest::read(&path("agents/a.toml"), "nam = 1\n").1;
    let text = serde_json::to_string(&found).expect("json");
    assert_eq!(serde_json::from_str::<Vec<Diagnostic>>(&text).expect("diagnostics"), found);
    let newer = r#"{"severity":"error","code":"from_the_future","message":"m","path":"p","more":1}"#;
    assert!(serde_json::from_str::<Diagnostic>(newer).is_ok());
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
