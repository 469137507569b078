//! Every problem that a check finds, as a person sees it; what is not read again; and that the templates pass.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::diagnostic::{Color, Diagnostic, render_all};
use caxton_proto::manifest::ToolManifest;
use caxton_proto::tree::{File, Tree, TreePath};
use caxton_proto::{AgentName, Digest, WorkspaceId};
use insta::assert_snapshot;

use super::{Before, CheckError, CheckedWorkspace, Workspace, check};
use crate::templates;
use crate::tools::Unfit;

type Files = BTreeMap<TreePath, Vec<u8>>;

fn files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Files {
    let file = |(path, text): (&str, &str)| (path.parse().expect("a path"), text.as_bytes().to_vec());
    files.into_iter().map(file).collect()
}

fn tree(files: &Files) -> Tree {
    let file = |bytes: &[u8]| File { digest: Digest::of(bytes), bytes: bytes.len() as u64, chunks: None };
    files.iter().map(|(path, bytes)| (path.clone(), file(bytes))).collect()
}

fn checked(files: &Files) -> Result<CheckedWorkspace, Vec<Diagnostic>> {
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(files[path].clone()));
    check(Workspace { tree: &tree(files), read: &read, before: None, prove: None, prove_agent: None }).map_err(
        |error| match error {
            CheckError::Problems(problems) => problems,
            CheckError::Read { path, .. } => panic!("{path} was not read"),
        },
    )
}

fn problems(files: &Files) -> Vec<Diagnostic> {
    match checked(files) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems,
    }
}

fn shown<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    render_all(&problems(&files(given)), Color::Never)
}

/// A line for each problem.
fn short<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    lines(&problems(&files(given)))
}

fn lines(found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for problem in found {
        let (line, label) = problem.place.as_ref().map(|p| (p.line, p.label.as_str())).unwrap_or_default();
        let Diagnostic { path, code, message, .. } = problem;
        let _ = writeln!(out, "{path}:{line} {code}: {message} ({label})");
    }
    out
}

const AGENT: &str = "[agent]\nname = \"a\"\n[capabilities]\npatterns = [\"x\"]\n";

#[test]
fn an_empty_workspace_is_fine() {
    assert!(checked(&Files::new()).expect("no problems").warnings.is_empty());
}

#[test]
fn a_tool_that_is_not_there_is_shown_where_it_is_named() {
    let agent = format!(
        "{AGENT}[tools]\nrequired = [\"csv-reeder\", \"ask_capability\"]\noptional = [\"stats\", \"csv_reader\"]\n"
    );
    let tool = "[tool]\nname = \"csv-reader\"\nkind = \"core\"\nmodule = \"t.wasm\"\n";
    assert_snapshot!(shown([
        ("agents/a.toml", agent.as_str()),
        ("tools/csv-reader/tool.toml", tool),
        ("tools/csv-reader/t.wasm", "x"),
    ]), @r#"
    error[unknown_tool]: there is no tool `csv-reeder` in this workspace
     --> agents/a.toml:6:13
      |
    6 | required = ["csv-reeder", "ask_capability"]
      |             ^^^^^^^^^^^^ did you mean "csv-reader"?
      |
      = help: add it as tools/csv-reeder/tool.toml, or list it under `optional` in [tools]

    warning[unknown_tool]: there is no tool `csv_reader` in this workspace
     --> agents/a.toml:7:22
      |
    7 | optional = ["stats", "csv_reader"]
      |                      ^^^^^^^^^^^^ did you mean "csv-reader"?

    1 error and 1 warning in 1 file
    "#);
    // The flat form has its list elsewhere.
    let flat = "name = \"a\"\ncapabilities = [\"x\"]\ntools = [\"gone\"]\n";
    assert_snapshot!(short([("agents/a.toml", flat)]), @"agents/a.toml:3 unknown_tool: there is no tool `gone` in this workspace (unknown)");
}

#[test]
fn a_tool_gets_only_what_the_workspace_allows() {
    let workspace = "[workspace]\nname = \"w\"\n[grants]\nhttp = [\"*.example.com\"]\nclock = true\n";
    let tool = "[tool]\nname = \"t\"\nkind = \"component\"\nmodule = \"gone.wasm\"\n[grants]\nclock = true\n\
                scratch = true\nhttp = [\"api.example.com\", \"evil.test\"]\nenv = { K = \"secret:KEY\" }\nreuse = true\n";
    let remote = "[tool]\nname = \"r\"\nkind = \"mcp-http\"\nurl = \"https://mcp.test/\"\nbearer = \"secret:KEY\"\n";
    let process = "[tool]\nname = \"p\"\nkind = \"mcp-stdio\"\ncommand = \"npx\"\n";
    assert_snapshot!(short([
        ("caxton.toml", workspace),
        ("tools/t/tool.toml", tool),
        ("tools/t/gune.wasm", "x"),
        ("tools/r/tool.toml", remote),
        ("tools/p/tool.toml", process),
    ]), @r#"
    tools/p/tool.toml:3 grant_not_allowed: the tool `p` wants to run as a process, and the workspace does not allow it (not allowed)
    tools/r/tool.toml:4 grant_not_allowed: the tool `r` wants to talk to https://mcp.test/, and the workspace does not allow it (not allowed)
    tools/r/tool.toml:4 grant_not_allowed: the tool `r` wants to read the secret KEY, and the workspace does not allow it (not allowed)
    tools/t/tool.toml:4 missing_file: the module of tool `t` is missing: tools/t/gone.wasm (did you mean "gune.wasm"?)
    tools/t/tool.toml:7 grant_not_allowed: the tool `t` wants to have a scratch folder, and the workspace does not allow it (not allowed)
    tools/t/tool.toml:8 grant_not_allowed: the tool `t` wants to talk to evil.test, and the workspace does not allow it (not allowed)
    tools/t/tool.toml:9 grant_not_allowed: the tool `t` wants to read the secret KEY, and the workspace does not allow it (not allowed)
    tools/t/tool.toml:10 grant_not_allowed: the tool `t` wants to keep its instance between calls, and the workspace does not allow it (not allowed)
    "#);
}

#[test]
fn a_grant_that_is_not_allowed_says_which_line_would_allow_it() {
    let tool =
        "[tool]\nname = \"t\"\nkind = \"component\"\nmodule = \"t.wasm\"\n[grants]\nhttp = [\"api.example.com\"]\n";
    assert_snapshot!(shown([("tools/t/tool.toml", tool), ("tools/t/t.wasm", "x")]), @r#"
    error[grant_not_allowed]: the tool `t` wants to talk to api.example.com, and the workspace does not allow it
     --> tools/t/tool.toml:6:9
      |
    6 | http = ["api.example.com"]
      |         ^^^^^^^^^^^^^^^^^ not allowed
      |
      = help: allow it in caxton.toml, under [grants]: http = ["api.example.com"]

    1 error in 1 file
    "#);
}

#[test]
fn a_broken_caxton_toml_is_not_blamed_on_others() {
    let tool = "[tool]\nname = \"t\"\nkind = \"core\"\nmodule = \"t.wasm\"\n[grants]\nclock = true\n";
    let agent = format!("{AGENT}[llm]\nprovider = \"main\"\n");
    assert_snapshot!(short([
        ("caxton.toml", "[workspace\n"),
        ("tools/t/tool.toml", tool),
        ("tools/t/t.wasm", "x"),
        ("agents/a.toml", agent.as_str()),
    ]), @"caxton.toml:1 syntax: this is not valid TOML (unclosed table, expected `]`)");
}

#[test]
fn prompts_are_found_and_their_placeholders_checked() {
    let prompts = "[prompts]\nsystem = { file = \"prompts/s.md\" }\nuser = { file = \"./prompts/user.md\" }\n";
    let parameters = "[parameters]\ntone = \"dry\"\n";
    let agent = format!("{AGENT}{prompts}{parameters}");
    assert_snapshot!(short([
        ("agents/a/agent.toml", agent.as_str()),
        ("agents/a/prompts/s.md", "x"),
        ("agents/a/prompts/user.md", "one\n{{request}} {{parameters.tune}}\n{{conext}}\n"),
    ]), @r#"
    agents/a/agent.toml:6 missing_file: the prompt's file is missing: prompts/s.md (did you mean "./prompts/s.md"?)
    agents/a/prompts/user.md:2 bad_prompt: the agent has no parameter `tune` (did you mean `tone`?)
    agents/a/prompts/user.md:3 bad_prompt: there is no placeholder `conext` (did you mean `{{context}}`?)
    "#);
}

#[test]
fn names_and_ids_belong_to_one_agent() {
    let with_id = |name: &str| format!("[agent]\nname = \"{name}\"\nid = \"7\"\n[capabilities]\npatterns = [\"x\"]\n");
    let flat = "name = \"c\"\nid = \"7\"\ncapabilities = [\"x\"]\n";
    assert_snapshot!(short([
        ("agents/a.toml", with_id("a").as_str()),
        ("agents/a/agent.toml", AGENT),
        ("agents/b/agent.toml", with_id("b").as_str()),
        ("agents/c.toml", flat),
    ]), @"
    agents/a/agent.toml:0 duplicate: the agent `a` has two files, this one and agents/a.toml ()
    agents/b/agent.toml:3 duplicate: the id `7` belongs to another agent already (also in agents/a.toml)
    agents/c.toml:2 duplicate: the id `7` belongs to another agent already (also in agents/a.toml)
    ");
}

#[test]
fn providers_are_known_and_their_fallbacks_end() {
    let workspace = r#"
[workspace]
name = "w"
[llm]
provider = "man"
[providers.main]
kind = "openai"
fallback = ["spare/big"]
[providers.spare]
kind = "anthropic"
fallback = ["last"]
[providers.last]
kind = "wasm"
tool = "chat"
fallback = ["main"]
[providers.demo]
kind = "scripted"
script = "prompts/demo.toml"
fallback = ["gone"]
"#;
    let agent = format!("{AGENT}[llm]\nprovider = \"main\"\nfallback = [\"main\", \"spare\", \"spore/x\"]\n");
    assert_snapshot!(short([("caxton.toml", workspace), ("agents/a.toml", agent.as_str())]), @r#"
    agents/a.toml:7 fallback_cycle: the agent `a` falls back on what has just failed (this is asked first)
    agents/a.toml:7 unknown_provider: the workspace has no language model provider `spore` (did you mean "spare"?)
    caxton.toml:5 unknown_provider: the workspace has no language model provider `man` (did you mean "main"?)
    caxton.toml:14 unknown_tool: a language model is the tool `chat`, which is not there (there is no such tool)
    caxton.toml:15 fallback_cycle: providers fall back on each other in a circle: last -> main -> spare -> last (the circle begins here)
    caxton.toml:18 missing_file: the script of provider `demo` is missing: prompts/demo.toml (there is no such file)
    caxton.toml:19 unknown_provider: the workspace has no language model provider `gone` (not in caxton.toml)
    "#);
}

#[test]
fn a_file_that_nothing_reads_is_a_warning() {
    assert_snapshot!(short([
        ("agents/a.tml", "x"),
        ("agents/b/agnet.toml", "x"),
        ("agents/c.toml", "name = \"c\"\ncapabilities = [\"x\"]\n"),
        ("agents/c/prompts/x.md", "belongs to c.toml"),
        ("agents/README.md", "fine"),
        ("tools/t.toml", "x"),
        ("tools/u/README.md", "x"),
        ("prompts/x/y.md", "fine"),
        ("agent/a.toml", "x"),
    ]), @"
    agent/a.toml:0 unexpected_file: nothing reads this file ()
    agents/a.tml:0 unexpected_file: nothing reads this file ()
    agents/b/agnet.toml:0 unexpected_file: nothing reads agents/b/, since it has no agent.toml ()
    tools/t.toml:0 unexpected_file: nothing reads this file ()
    tools/u/README.md:0 unexpected_file: nothing reads tools/u/, since it has no tool.toml ()
    ");
}

#[test]
fn files_that_are_not_text_or_too_large_are_named() {
    let mut given = files([("agents/a.toml", ""), ("agents/b.toml", "")]);
    given.insert("agents/a.toml".parse().expect("a path"), b"name = \"a\"\n# \xff\n".to_vec());
    given.insert("agents/b.toml".parse().expect("a path"), vec![b'#'; 300 << 10]);
    let found: Vec<_> =
        problems(&given).iter().map(|problem| format!("{}: {}", problem.code, problem.message)).collect();
    assert_eq!(
        found,
        [
            "not_utf8: the file is not UTF-8 text (byte 13, in line 2)",
            "too_large: the file has 307200 bytes, and 262144 is the most",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_no_mistake_of_its_author() {
    let given = files([("agents/a.toml", AGENT)]);
    let read = |_: &TreePath, _: &File| Err("the disk is gone".into());
    let error = check(Workspace { tree: &tree(&given), read: &read, before: None, prove: None, prove_agent: None })
        .expect_err("unreadable");
    assert!(matches!(error, CheckError::Read { path, .. } if path.as_str() == "agents/a.toml"));
}

#[test]
fn more_problems_than_anyone_reads_are_cut_off() {
    let many: Vec<(String, &str)> = (0..1_100).map(|n| (format!("agents/a{n}.toml"), "nme = 1\n")).collect();
    let found = problems(&files(many.iter().map(|(path, text)| (path.as_str(), *text))));
    assert_eq!(found.len(), super::PROBLEMS_MAX + 1);
    let last = found.last().expect("a last one");
    // Each file has two errors: an unknown key, and no name.
    assert_eq!(last.message, "there are 1200 more problems than the 1000 shown");
}

/// A workspace of many agents, each with a prompt of its own.
fn many(agents: usize) -> Files {
    let mut given = Files::new();
    for n in 0..agents {
        let text = format!(
            "[agent]\nname = \"a{n}\"\nversion = \"1.0.0\"\ndescription = \"Number {n}\"\n\n[[capability]]\nname = \"c{n}\"\n\
             examples = [\"do {n}\", \"make {n}\", \"what is {n}?\", \"tell me about {n}\", \"show {n}\"]\n\n\
             [prompts]\nsystem = {{ file = \"./prompts/s.md\" }}\nuser = \"{{{{request}}}}\"\n\n[limits]\nsteps_max = 5\n"
        );
        given.insert(format!("agents/a{n}/agent.toml").parse().expect("a path"), text.into_bytes());
        given.insert(format!("agents/a{n}/prompts/s.md").parse().expect("a path"), b"You are {{context}}.".to_vec());
    }
    given
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let mut given = many(100);
    let first = checked(&given).expect("no problems");
    let before = tree(&given);
    let changed: TreePath = "agents/a7/prompts/s.md".parse().expect("a path");
    given.insert(changed.clone(), b"New {{request}}".to_vec());
    let known = |path: &TreePath, digest: &Digest| {
        let agent = first.agents.values().find(|agent| agent.path == *path && agent.digest == *digest)?;
        Some(agent.manifest.clone())
    };
    let read = RefCell::new(Vec::new());
    let log = |path: &TreePath, _: &File| {
        read.borrow_mut().push(path.clone());
        Ok(Bytes::from(given[path].clone()))
    };
    let input = Workspace {
        tree: &tree(&given),
        read: &log,
        before: Some(Before { tree: &before, agent: &known }),
        prove: None,
        prove_agent: None,
    };
    let second = check(input).expect("no problems");
    assert_eq!(*read.borrow(), [changed]);
    let name: AgentName = "a3".parse().expect("a name");
    assert!(Arc::ptr_eq(&first.agents[&name].manifest, &second.agents[&name].manifest));
}

#[test]
fn a_removed_tool_is_missed_by_agents_that_did_not_change() {
    let agent = format!("{AGENT}[tools]\nrequired = [\"t\"]\n");
    let tool = "[tool]\nname = \"t\"\nkind = \"core\"\nmodule = \"t.wasm\"\n";
    let mut given = files([("agents/a.toml", agent.as_str()), ("tools/t/tool.toml", tool), ("tools/t/t.wasm", "x")]);
    let first = checked(&given).expect("no problems");
    let before = tree(&given);
    given.retain(|path, _| !path.as_str().starts_with("tools/"));
    let known = |_: &TreePath, _: &Digest| first.agents.values().next().map(|agent| agent.manifest.clone());
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(given[path].clone()));
    let input = Workspace {
        tree: &tree(&given),
        read: &read,
        before: Some(Before { tree: &before, agent: &known }),
        prove: None,
        prove_agent: None,
    };
    let Err(CheckError::Problems(found)) = check(input) else { panic!("the tool is gone") };
    assert_eq!(found[0].code, "unknown_tool");
    assert_eq!(found[0].place.as_ref().map(|place| place.line), Some(6));
}

#[test]
fn only_tools_that_are_new_or_changed_are_tried_and_a_broken_one_is_named() {
    let tool = |name: &str| format!("[tool]\nname = \"{name}\"\nkind = \"core\"\nmodule = \"t.wasm\"\n");
    let (old, new) = (tool("old"), tool("new"));
    let mut given = files([("tools/old/tool.toml", old.as_str()), ("tools/old/t.wasm", "x")]);
    let before = tree(&given);
    given.extend(files([("tools/new/tool.toml", new.as_str()), ("tools/new/t.wasm", "y")]));
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(given[path].clone()));
    let tried = RefCell::new(Vec::new());
    let prove = |manifest: &ToolManifest, wasm: Option<Bytes>| {
        tried.borrow_mut().push((manifest.name.to_string(), wasm.expect("a module")));
        Err(Unfit::Broken("it does not compile".to_owned()))
    };
    let before = Before { tree: &before, agent: &|_, _| None };
    let input =
        Workspace { tree: &tree(&given), read: &read, before: Some(before), prove: Some(&prove), prove_agent: None };
    let Err(CheckError::Problems(found)) = check(input) else { panic!("a broken tool passed") };
    assert_eq!(*tried.borrow(), [("new".to_owned(), Bytes::from("y"))]);
    let broken: Vec<_> = found.iter().filter(|problem| problem.code == "tool_broken").collect();
    assert_eq!(broken.len(), 1, "{found:?}");
    assert_eq!(broken[0].message, "it does not compile");
    assert_eq!(broken[0].place.as_ref().map(|place| place.line), Some(4));
}

/// What a node finds that gives each tool these functions.
fn tried(given: &Files, before: Option<&Tree>, outcome: Result<&[&str], Unfit>) -> Vec<Diagnostic> {
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(given[path].clone()));
    let prove = |_: &ToolManifest, _: Option<Bytes>| match &outcome {
        Ok(functions) => Ok(functions.iter().map(|name| (*name).to_owned()).collect()),
        Err(unfit) => Err(unfit.clone()),
    };
    let before = before.map(|tree| Before { tree, agent: &|_, _| None });
    match check(Workspace { tree: &tree(given), read: &read, before, prove: Some(&prove), prove_agent: None }) {
        Ok(checked) => checked.warnings,
        Err(CheckError::Problems(problems)) => problems,
        Err(CheckError::Read { path, .. }) => panic!("{path} was not read"),
    }
}

#[test]
fn a_tool_that_is_a_memory_backend_has_to_be_there_and_to_have_its_functions() {
    let tool = "[tool]\nname = \"m\"\nkind = \"core\"\nmodule = \"m.wasm\"\n";
    let of = |backend: &str| {
        let settings = format!("[workspace]\nname = \"demo\"\n[memory]\nbackend = \"{backend}\"\n");
        files([
            ("caxton.toml", settings.as_str()),
            ("agents/a.toml", AGENT),
            ("tools/m/tool.toml", tool),
            ("tools/m/m.wasm", "x"),
        ])
    };
    let says = |backend: &str, functions: &[&str]| {
        let found = lines(&tried(&of(backend), None, Ok(functions)));
        found.lines().filter(|line| line.starts_with("caxton.toml")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(says("tool:m", &["upsert", "delete", "search", "list"]), [""; 0]);
    assert_eq!(
        says("tool:m", &["upsert", "search"]),
        [
            "caxton.toml:4 no_backend_function: the tool `m` has no function `delete`, so it cannot be a memory backend (this \
          needs a `delete`)"
        ]
    );
    assert_eq!(
        says("tool:n", &[]),
        ["caxton.toml:4 unknown_tool: a memory backend is the tool `n`, which is not there (did you mean \"m\"?)"]
    );
}

#[test]
fn a_tool_that_is_asked_as_a_model_has_to_be_there_and_to_answer_chat() {
    let tool = "[tool]\nname = \"m\"\nkind = \"core\"\nmodule = \"m.wasm\"\n";
    let agent = format!("{AGENT}[llm]\nprovider = \"tool:m\"\nfallback = [\"tool:n/small\", \"tool:M\"]\n");
    let mut given = files([("agents/a.toml", agent.as_str()), ("tools/m/tool.toml", tool), ("tools/m/m.wasm", "x")]);
    assert_eq!(
        lines(&tried(&given, None, Ok(&["chat"]))),
        "agents/a.toml:7 bad_value: an entry of `fallback` is \"provider\" or \"provider/model\" (the tool name `M` has \
         'M' in it; use lower-case letters, digits and `-`, and start with a letter or digit)\n"
    );
    let agent = agent.replace(", \"tool:M\"", "");
    given.extend(files([("agents/a.toml", agent.as_str())]));
    assert_eq!(
        lines(&tried(&given, None, Ok(&["chat"]))),
        "agents/a.toml:7 unknown_tool: a language model is the tool `n`, which is not there (did you mean \"m\"?)\n"
    );
    let agent = agent.replace("fallback = [\"tool:n/small\"]", "fallback = [\"tool:m\"]");
    given.extend(files([("agents/a.toml", agent.as_str())]));
    assert_eq!(
        lines(&tried(&given, None, Ok(&["chat"]))),
        "agents/a.toml:7 fallback_cycle: the agent `a` falls back on what has just failed (this is asked first)\n"
    );
    let agent = agent.replace("fallback = [\"tool:m\"]", "");
    given.extend(files([("agents/a.toml", agent.as_str())]));
    assert_eq!(tried(&given, None, Ok(&["other", "chat"])), []);
    assert_eq!(
        lines(&tried(&given, None, Ok(&["other"]))),
        "agents/a.toml:6 no_chat: the tool `m` has no function `chat`, so it cannot be a language model (this needs a `chat`)\n"
    );
    // Named by a new file, a tool that was there before is asked what it has.
    let mut before = given.clone();
    before.retain(|path, _| path.as_str().starts_with("tools/"));
    assert_eq!(tried(&given, Some(&tree(&before)), Ok(&["other"])).len(), 1);
    assert_eq!(tried(&given, Some(&tree(&given)), Ok(&["other"])), [], "nothing changed");
}

#[test]
fn a_process_is_refused_where_the_operator_has_not_switched_them_on() {
    let tool = "[tool]\nname = \"t\"\nkind = \"mcp-stdio\"\ncommand = \"server\"\n";
    let settings = "[workspace]\nname = \"w\"\n[grants]\nprocesses = true\n";
    let given = files([("caxton.toml", settings), ("tools/t/tool.toml", tool)]);
    let found = tried(&given, Some(&tree(&given)), Err(Unfit::ProcessesOff));
    assert_eq!(
        lines(&found),
        "tools/t/tool.toml:3 processes_off: the tool `t` is a process of the node, and the node's operator has not \
         switched those on (switched off on this node)\n"
    );
    assert!(found[0].help.as_ref().is_some_and(|help| help.contains("--set tools.processes=true")), "{found:?}");
    assert_eq!(tried(&given, None, Ok(&[])), []);
    assert_eq!(problems(&given), [], "a person's own machine cannot know");
}

/// A new workspace with every template in it under its own name.
fn everything() -> Files {
    let name: WorkspaceId = "hello".parse().expect("a name");
    let mut all = templates::workspace(&name, &templates::ModelSource::Demo);
    for template in templates::agents() {
        all.extend(templates::agent(&template.name, &template.name.parse().expect("a name")));
    }
    all.retain(|file| !matches!(file.path.as_str(), ".gitignore" | "AGENTS.md"));
    files(all.iter().map(|file| (file.path.as_str(), file.text.as_str())))
}

#[test]
fn the_ten_templates_can_be_deployed_together_and_without_a_warning() {
    let checked = checked(&everything()).unwrap_or_else(|found| panic!("{}", render_all(&found, Color::Never)));
    assert_eq!(render_all(&checked.warnings, Color::Never), "no problems\n");
    assert_eq!(checked.workspace.name.as_ref().map(|name| name.as_str()), Some("hello"));
    let names: Vec<&str> = checked.agents.keys().map(|name| name.as_str()).collect();
    let expected = [
        "code-reviewer",
        "customer-support",
        "data-analyzer",
        "data-fetcher",
        "document-summarizer",
        "monitor",
        "research-assistant",
        "scheduler",
        "task-coordinator",
        "translator",
    ];
    assert_eq!(names, expected);
}

#[test]
fn every_template_is_a_good_example() {
    let given = everything();
    let checked = checked(&given).unwrap_or_default();
    let mut capabilities: BTreeMap<String, String> = BTreeMap::new();
    for (name, agent) in &checked.agents {
        let manifest = &agent.manifest;
        assert!(manifest.prompts.system.is_some() && !manifest.description.is_empty(), "{name}");
        assert!(manifest.version.major >= 1 && manifest.capabilities.len() >= 2, "{name}");
        for capability in &manifest.capabilities {
            let examples = capability.examples.len();
            assert!((5..=10).contains(&examples), "{name}: {} has {examples} examples", capability.name);
            assert!(!capability.description.is_empty() && !capability.patterns.is_empty(), "{name}");
            let other = capabilities.insert(capability.name.to_string(), name.to_string());
            assert_eq!(other, None, "two templates offer {}", capability.name);
        }
        let has = |part: &str| given.keys().any(|path| path.as_str().starts_with(&format!("agents/{name}/{part}")));
        assert!(has("README.md") && has("prompts/") && has("examples/"), "{name}");
    }
}

#[test]
fn a_template_takes_a_new_name() {
    let name: AgentName = "my-reviewer".parse().expect("a name");
    let made = templates::agent("code-reviewer", &name);
    let given = files(made.iter().map(|file| (file.path.as_str(), file.text.as_str())));
    let checked = checked(&given).unwrap_or_else(|found| panic!("{}", render_all(&found, Color::Never)));
    assert_eq!(checked.agents.keys().collect::<Vec<_>>(), [&name]);
    let readme: TreePath = "agents/my-reviewer/README.md".parse().expect("a path");
    assert!(given[&readme].starts_with(b"# my-reviewer\n"));
}
