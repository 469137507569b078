//! Mistakes that people make in files, one a row: each is said before anything runs, with file, line and what to do.

use std::collections::BTreeMap;

use bytes::Bytes;
use caxton_proto::Digest;
use caxton_proto::diagnostic::{Diagnostic, Severity};
use caxton_proto::tree::{File, Tree, TreePath};

use super::{CheckError, Workspace, advice, check};

/// Begins most agents; what follows is from line 5 on.
const A: &str = "[agent]\nname = \"a\"\n[capabilities]\npatterns = [\"look at data\"]\n";
/// Begins most settings; what follows is from line 8 on.
const W: &str =
    "[workspace]\nname = \"w\"\n[llm]\nprovider = \"main\"\n[providers.main]\nkind = \"ollama\"\nmodel = \"m\"\n";
/// Begins most tools; what follows is from line 5 on.
const T: &str = "[tool]\nname = \"t\"\nkind = \"core\"\nmodule = \"t.wasm\"\n";
/// Settings with a scripted provider.
const S: &str = "[workspace]\nname = \"w\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";

/// A mistake: the file, how it begins, what follows, the line where the mistake is (0: of the whole file), its code, and a
/// part of what is said to do.
type Row = (&'static str, &'static str, &'static str, u32, &'static str, &'static str);

const AGENT: &str = "agents/a.toml";
const FILE: &str = "caxton.toml";
const TOOL: &str = "tools/t/tool.toml";
const SCRIPT: &str = "prompts/s.toml";

const ROWS: &[Row] = &[
    // Not TOML.
    (AGENT, "", "[agent]\nname = \"a\n", 2, "syntax", "put text in double quotes"),
    (AGENT, "", "[agent]\nname: a\n", 2, "syntax", "a line is `key = value`"),
    (AGENT, "", "[agent]\nname = \"a\"\nname = \"a\"\n", 3, "syntax", "merge the two"),
    (AGENT, "", "[agent\nname = \"a\"\n", 1, "syntax", "`[table]`"),
    (FILE, "", "[workspace]\nname = w\n", 2, "syntax", "double quotes"),
    // Names.
    (
        AGENT,
        "",
        "[agent]\nname = \"b\"\n[capabilities]\npatterns = [\"x\"]\n",
        2,
        "name_mismatch",
        "write name = \"a\"",
    ),
    (
        AGENT,
        "",
        "[agent]\nid = \"b\"\nname = \"x\"\n[capabilities]\npatterns = [\"x\"]\n",
        3,
        "name_mismatch",
        "the agent's id is `b` and its name is `x`",
    ),
    (
        AGENT,
        "",
        "[agent]\nid = \"b\"\nname = \"x\"\n[capabilities]\npatterns = [\"x\"]\n",
        3,
        "name_mismatch",
        "move the file to agents/b.toml",
    ),
    // Lists of tables: what is said leads to the end at once, and not to the next mistake.
    (AGENT, "", "schedule = \"daily\"\nname = \"a\"\ncapabilities = [\"x\"]\n", 1, "wrong_type", "write [[schedule]]"),
    (
        AGENT,
        "",
        "schedule = [\"daily\"]\nname = \"a\"\ncapabilities = [\"x\"]\n",
        1,
        "wrong_type",
        "write [[schedule]]",
    ),
    (AGENT, "", "name = \"a\"\ncapability = \"x\"\n", 2, "wrong_type", "write [[capability]]"),
    (FILE, W, "[retention]\nmemory = \"30d\"\n", 9, "wrong_type", "write [[retention.memory]]"),
    (AGENT, "", "name = \"\"\ncapabilities = [\"x\"]\n", 1, "bad_value", "write something here"),
    (AGENT, "", "name = 7\ncapabilities = [\"x\"]\n", 1, "wrong_type", "this is an integer"),
    (
        AGENT,
        "",
        "[agent]\nversion = \"1.0.0\"\n[capabilities]\npatterns = [\"x\"]\n",
        1,
        "missing_key",
        "name the agent as its file",
    ),
    (
        "agents/Data Analyst.toml",
        "",
        "name = \"Data Analyst\"\ncapabilities = [\"x\"]\n",
        1,
        "name_mismatch",
        "agents/data-analyst.toml",
    ),
    (FILE, "", "[workspace]\nname = \"My Team\"\n", 2, "bad_value", "lower-case"),
    (FILE, "", "[llm]\nmodel = \"m\"\n", 0, "missing_key", "begin with [workspace]"),
    (FILE, "", "[workspace]\ndescription = \"x\"\n", 1, "missing_key", "name it"),
    (FILE, "", "name = \"w\"\n[workspace]\nname = \"w\"\n", 1, "unknown_key", "[workspace]"),
    (
        TOOL,
        "",
        "[tool]\nname = \"u\"\nkind = \"core\"\nmodule = \"t.wasm\"\n",
        2,
        "name_mismatch",
        "write name = \"t\"",
    ),
    (TOOL, "", "[tool]\nkind = \"core\"\nmodule = \"t.wasm\"\n", 1, "missing_key", "as its folder is named"),
    (FILE, W, "[providers.Main]\nkind = \"ollama\"\nmodel = \"m\"\n", 8, "bad_value", "lower-case"),
    // Keys that nothing reads.
    (
        AGENT,
        "",
        "[agent]\nname = \"a\"\ndescripton = \"x\"\n[capabilities]\npatterns = [\"x\"]\n",
        3,
        "unknown_key",
        "`description`",
    ),
    (AGENT, A, "[prompt]\nsystem = \"x\"\n", 5, "unknown_key", "prompts"),
    (AGENT, A, "[prompts]\nsytem = \"x\"\n", 6, "unknown_key", "`system`"),
    (AGENT, A, "[llm]\nmodle = \"m\"\n", 6, "unknown_key", "`model`"),
    (AGENT, A, "[llm]\ntimeout = \"1s\"\n", 6, "unknown_key", "`wall_time` in [limits]"),
    (AGENT, A, "[limits]\nmax_steps = 3\n", 6, "unknown_key", "steps_max"),
    (AGENT, A, "[tools]\nrequire = [\"t\"]\n", 6, "unknown_key", "`required`"),
    (AGENT, A, "[memory]\nmodel = \"m\"\n", 6, "unknown_key", "[llm]"),
    (
        AGENT,
        "system_prompt = \"x\"\n",
        "[agent]\nname = \"a\"\n[capabilities]\npatterns = [\"x\"]\n",
        1,
        "unknown_key",
        "`system` in [prompts]",
    ),
    (
        AGENT,
        "model = \"m\"\n",
        "[agent]\nname = \"a\"\n[capabilities]\npatterns = [\"x\"]\n",
        1,
        "unknown_key",
        "[llm]",
    ),
    (AGENT, A, "[capability]\nname = \"x\"\n", 5, "wrong_type", "[[capability]]"),
    (FILE, W, "[provider]\n", 8, "unknown_key", "[providers.NAME]"),
    (
        FILE,
        W,
        "[providers.x]\nkind = \"openai\"\nurl = \"https://a.test/v1\"\nmodel = \"m\"\n",
        10,
        "unknown_key",
        "`base_url`",
    ),
    (FILE, W, "[providers.x]\nkind = \"openai\"\nkey = \"env:K\"\nmodel = \"m\"\n", 10, "unknown_key", "`api_key`"),
    (FILE, W, "[grant]\nclock = true\n", 8, "unknown_key", "`grants`"),
    (FILE, W, "[budgets]\ntokens_per_day = 1\n", 8, "unknown_key", "`budget`"),
    (TOOL, T, "[limits]\nmemory = \"1MiB\"\n", 6, "unknown_key", "memory_bytes"),
    (TOOL, T, "timeout = \"1s\"\n", 5, "unknown_key", "`wall_time` in [limits]"),
    (TOOL, T, "secrets = [\"K\"]\n", 5, "unknown_key", "`env` in [grants]"),
    // Values of another type.
    (AGENT, "", "name = \"a\"\ncapabilities = \"x\"\n", 2, "wrong_type", "put it in brackets"),
    (AGENT, A, "[memory]\nenabled = \"yes\"\n", 6, "wrong_type", "without quotes"),
    (AGENT, A, "[llm]\ntemperature = \"0.5\"\n", 6, "wrong_type", "without quotes"),
    (AGENT, A, "[llm]\nmax_tokens = 1.5\n", 6, "wrong_type", "this is a float"),
    (AGENT, A, "[limits]\nwall_time = 30\n", 6, "wrong_type", "\"30s\""),
    (AGENT, A, "[tools]\nrequired = \"t\"\n", 6, "wrong_type", "put it in brackets"),
    (AGENT, A, "[prompts]\nsystem = [\"x\"]\n", 6, "wrong_type", "this is an array"),
    (AGENT, A, "[parameters]\nx = { y = 1 }\n", 6, "wrong_type", "this is a table"),
    (FILE, W, "[grants]\nhttp = \"a.test\"\n", 9, "wrong_type", "put it in brackets"),
    (FILE, W, "[grants]\nclock = 1\n", 9, "wrong_type", "this is an integer"),
    (TOOL, T, "idempotent = \"true\"\n", 5, "wrong_type", "without quotes"),
    // Values that mean nothing, or too much.
    (
        AGENT,
        "",
        "[agent]\nname = \"a\"\nversion = \"1.0\"\n[capabilities]\npatterns = [\"x\"]\n",
        3,
        "bad_value",
        "\"1.0.0\"",
    ),
    (
        AGENT,
        "",
        "[agent]\nname = \"a\"\nversion = \"v2.1.0\"\n[capabilities]\npatterns = [\"x\"]\n",
        3,
        "bad_value",
        "\"2.1.0\"",
    ),
    (AGENT, "", "name = \"a\"\ncapabilities = [\"Data Analysis\"]\n", 2, "bad_value", "\"data-analysis\""),
    (AGENT, A, "[memory]\nscope = \"team\"\n", 6, "bad_value", "one of"),
    (AGENT, A, "[memory]\nmin_similarity = 1.5\n", 6, "out_of_range", "between 0 and 1"),
    (AGENT, A, "[memory]\nsearch_limit = 0\n", 6, "out_of_range", "between 1 and 100"),
    (AGENT, A, "[llm]\ntemperature = 3\n", 6, "out_of_range", "between 0 and 2"),
    (AGENT, A, "[limits]\nwall_time = \"30 parsecs\"\n", 6, "bad_value", "30"),
    (AGENT, A, "[limits]\nsteps_max = 0\n", 6, "out_of_range", "between 1 and 1000"),
    (AGENT, A, "[budget]\nusd_per_day = -1\n", 6, "out_of_range", "between 0"),
    (AGENT, A, "[parameters]\n\"a b\" = 1\n", 6, "bad_value", "use letters"),
    (FILE, W, "[providers.x]\nkind = \"opneai\"\n", 9, "bad_value", "\"openai\""),
    (FILE, W, "[providers.x]\nbase_url = \"https://a.test/v1\"\n", 8, "missing_key", "say what it speaks"),
    (
        FILE,
        W,
        "[providers.x]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"a.test/v1\"\n",
        11,
        "bad_value",
        "http:// or https://",
    ),
    (
        FILE,
        W,
        "[providers.x]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"https://a.test/v1/chat/completions\"\n",
        11,
        "bad_value",
        "write base_url = \"https://a.test/v1\"",
    ),
    (
        FILE,
        W,
        "[providers.x]\nkind = \"anthropic\"\nmodel = \"m\"\nbase_url = \"https://a.test/v1/messages/\"\n",
        11,
        "bad_value",
        "write base_url = \"https://a.test\"",
    ),
    (FILE, W, "[providers.x]\nkind = \"openai\"\nmodel = \"m\"\ntimeout = 30\n", 11, "wrong_type", "\"30s\""),
    (FILE, W, "[retention]\nrevisions_kept = 0\n", 9, "out_of_range", "between 1"),
    (FILE, W, "[server]\nurl = \"localhost:7411\"\n", 9, "bad_value", "http:// or https://"),
    (FILE, W, "[grants]\nsecrets = [\"MY KEY\"]\n", 9, "bad_value", "letters, digits"),
    (TOOL, "", "[tool]\nname = \"t\"\nkind = \"wasm\"\nmodule = \"t.wasm\"\n", 3, "bad_value", "one of"),
    (TOOL, "", "[tool]\nname = \"t\"\nmodule = \"t.wasm\"\n", 1, "missing_key", "say what runs"),
    (TOOL, "", "[tool]\nname = \"t\"\nkind = \"core\"\n", 1, "missing_key", "name the file beside this one"),
    (TOOL, "", "[tool]\nname = \"t\"\nkind = \"mcp-http\"\n", 1, "missing_key", "say where the server is"),
    (TOOL, "", "[tool]\nname = \"t\"\nkind = \"mcp-stdio\"\n", 1, "missing_key", "name the program"),
    (TOOL, T, "[limits]\nmemory_bytes = \"8GiB\"\n", 6, "out_of_range", "between"),
    // What is not there.
    (AGENT, A, "[tools]\nrequired = [\"tt\"]\n", 6, "unknown_tool", "\"t\""),
    (AGENT, A, "[tools]\nrequired = [\"chart\"]\n", 6, "unknown_tool", "tools/chart/tool.toml"),
    (AGENT, A, "[approval]\ntools = [\"t\"]\n", 6, "unknown_tool", "its tools are"),
    (AGENT, A, "[llm]\nprovider = \"mian\"\n", 6, "unknown_provider", "\"main\""),
    (AGENT, A, "[llm]\nfallback = [\"spare\"]\n", 6, "unknown_provider", "[providers.spare]"),
    (AGENT, A, "[llm]\nprovider = \"tool:gone\"\n", 6, "unknown_tool", "tools/gone/tool.toml"),
    (
        AGENT,
        A,
        "[prompts]\nsystem = { file = \"prompts/gone.md\" }\n",
        6,
        "missing_file",
        "starts at the workspace's top",
    ),
    (AGENT, A, "[prompts]\nsystem = { file = \"../x.md\" }\n", 6, "bad_value", "lead out of the workspace"),
    (AGENT, A, "[prompts]\nsystem = { path = \"x.md\" }\n", 6, "missing_key", "name the prompt's file"),
    (AGENT, A, "[llm]\nfallback = [\"main\"]\n", 6, "fallback_cycle", "name another provider"),
    (
        FILE,
        W,
        "[providers.x]\nkind = \"ollama\"\nmodel = \"m\"\nfallback = [\"x\"]\n",
        11,
        "fallback_cycle",
        "take one of them out",
    ),
    (FILE, "", S, 5, "missing_file", "scripts are deployed from"),
    (
        FILE,
        "",
        "[workspace]\nname = \"w\"\n[providers.s]\nkind = \"scripted\"\n",
        3,
        "missing_key",
        "name the file with its answers",
    ),
    (TOOL, "", "[tool]\nname = \"t\"\nkind = \"core\"\nmodule = \"tt.wasm\"\n", 4, "missing_file", "t.wasm"),
    (TOOL, T, "[grants]\nhttp = [\"api.test\"]\n", 6, "grant_not_allowed", "http = [\"api.test\"]"),
    (TOOL, T, "[grants]\nenv = { K = \"secret:K\" }\n", 6, "grant_not_allowed", "secrets = [\"K\"]"),
    // Twice.
    (AGENT, "", "name = \"a\"\ncapabilities = [\"x\", \"x\"]\n", 2, "duplicate", "again here"),
    (AGENT, A, "[tools]\nrequired = [\"t\", \"t\"]\n", 6, "duplicate", "again here"),
    // Prompts.
    (AGENT, A, "[prompts]\nsystem = \"You are {{parameters.who}}\"\n", 6, "bad_prompt", "declare it"),
    (AGENT, A, "[prompts]\nuser = \"{{reqest}}\"\n", 6, "bad_prompt", "{{request}}"),
    (AGENT, A, "[prompts]\nuser = \"{{request\"\n", 6, "bad_prompt", "close it"),
    (AGENT, A, "[prompts]\nuser = \"{{user.name}}\"\n", 6, "bad_prompt", "{{NAME}}"),
    (
        AGENT,
        A,
        "[prompts]\nsystem = \"prompts/system.md\"\n",
        6,
        "bad_prompt",
        "write { file = \"prompts/system.md\" }",
    ),
    (
        AGENT,
        "",
        "name = \"a\"\ncapabilities = [\"x\"]\nsystem_prompt = \"./system.txt\"\n",
        3,
        "bad_prompt",
        "{ file = \"./system.txt\" }",
    ),
    (AGENT, A, "[prompts]\nsystem = \"\"\n", 6, "bad_value", "leave it out"),
    // Keys and passwords.
    (
        FILE,
        W,
        "[providers.x]\nkind = \"openai\"\nmodel = \"m\"\napi_key = \"hunter2\"\n",
        11,
        "secret_in_file",
        "caxton secrets set",
    ),
    (
        FILE,
        W,
        "[providers.x]\nkind = \"openai\"\nmodel = \"m\"\napi_key = \"env:MY KEY\"\n",
        11,
        "bad_value",
        "letters, digits",
    ),
    (
        AGENT,
        A,
        "[prompts]\nsystem = \"Use sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2m3N4\"\n",
        6,
        "secret_in_file",
        "make a new one",
    ),
    (
        TOOL,
        "",
        "[tool]\nname = \"t\"\nkind = \"mcp-http\"\nurl = \"https://a.test\"\nbearer = \"abc\"\n",
        5,
        "secret_in_file",
        "secret:NAME",
    ),
    (
        TOOL,
        "",
        "[tool]\nname = \"t\"\nkind = \"mcp-http\"\nurl = \"https://a.test\"\nheaders = { Authorization = \"Bearer abc\" }\n",
        5,
        "secret_in_file",
        "secret:NAME",
    ),
    // In files that nothing names, too: they are deployed all the same.
    ("prompts/p.md", "", "Hello.\nUse sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2m3N4\n", 2, "secret_in_file", "make a new one"),
    (
        "tools/t/notes/x.txt",
        "",
        "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8\n",
        1,
        "secret_in_file",
        "caxton secrets set",
    ),
    ("agents/README.md", "", "-----BEGIN PRIVATE KEY-----\nabc\n", 1, "secret_in_file", "take it out"),
    // Scripts.
    (SCRIPT, "", "[[rule]]\nwhen.reqest = \"a\"\nsay = \"x\"\n", 2, "unknown_key", "`request`"),
    (SCRIPT, "", "[[rule]]\nsay = \"{{reqest}}\"\n", 2, "bad_prompt", "`request`"),
    (SCRIPT, "", "[[rule]]\nsay = \"{{request\"\n", 2, "bad_prompt", "{{request}}"),
    (SCRIPT, "", "[[rule]]\nwhen.request = \"a\"\n", 1, "missing_key", "give it `say`"),
    (SCRIPT, "", "[[rule]]\nsay = 1\n", 2, "wrong_type", "docs/agents.md"),
    (SCRIPT, "", "", 1, "out_of_range", "[[rule]]"),
    // What only shows at the first message.
    (FILE, "", "[workspace]\nname = \"w\"\n", 1, "no_model", "[providers.main]"),
    (FILE, "", "[workspace]\nname = \"w\"\n[providers.x]\nkind = \"openai\"\n", 3, "no_model", "write model"),
    (
        FILE,
        "",
        "[workspace]\nname = \"w\"\n[providers.x]\nkind = \"ollama\"\nmodel = \"m\"\n[providers.y]\nkind = \"ollama\"\nmodel = \"m\"\n",
        3,
        "no_default_provider",
        "provider = \"x\" under [llm]",
    ),
    (AGENT, "", "name = \"a\"\n", 0, "no_capabilities", "[[capability]]"),
    (AGENT, A, "[memory]\n", 0, "", ""),
    // Keys that TOML put elsewhere.
    (
        AGENT,
        "",
        "name = \"a\"\ncapabilities = [\"x\"]\n[memory]\nsystem_prompt = \"S\"\n",
        4,
        "misplaced_key",
        "above the first [table]",
    ),
    // Files in the wrong place.
    ("agents/b/agnet.toml", "", "name = \"b\"\n", 0, "unexpected_file", "rename this file to agent.toml"),
    ("agents/b.tml", "", "name = \"b\"\n", 0, "unexpected_file", "agents/NAME.toml"),
    ("tools/u.toml", "", T, 0, "unexpected_file", "tools/NAME/tool.toml"),
    ("tools/u/README.md", "", "x", 0, "unexpected_file", "tools/u/tool.toml"),
];

fn files(path: &str, text: &str) -> BTreeMap<TreePath, Vec<u8>> {
    let settings = if path == SCRIPT { S } else { W };
    let base = [(FILE, settings), (AGENT, A), (TOOL, T), ("tools/t/t.wasm", "\0asm")];
    let given = base.into_iter().chain([(path, text)]);
    given.map(|(path, text)| (path.parse().expect("a path"), text.as_bytes().to_vec())).collect()
}

fn found(files: &BTreeMap<TreePath, Vec<u8>>) -> Vec<Diagnostic> {
    let file = |bytes: &[u8]| File { digest: Digest::of(bytes), bytes: bytes.len() as u64, chunks: None };
    let tree: Tree = files.iter().map(|(path, bytes)| (path.clone(), file(bytes))).collect();
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(files[path].clone()));
    let input = Workspace { tree: &tree, read: &read, before: None, prove: None, prove_agent: None };
    match check(input) {
        Ok(checked) => {
            let advice = advice(&input, &checked);
            checked.warnings.into_iter().chain(advice).collect()
        }
        Err(CheckError::Problems(problems)) => problems,
        Err(CheckError::Read { path, .. }) => panic!("{path} was not read"),
    }
}

#[test]
fn every_mistake_is_said_with_its_file_its_line_and_what_to_do() {
    let mistakes = ROWS.iter().filter(|row| !row.4.is_empty());
    assert!(mistakes.count() >= 84, "a list of mistakes that people make has many");
    let mut wrong = Vec::new();
    for (path, begin, rest, line, code, says) in ROWS {
        let text = format!("{begin}{rest}");
        let problems = found(&files(path, &text));
        if code.is_empty() {
            if !problems.is_empty() {
                wrong.push(format!("{path}: {rest:?} is fine, and there is {problems:?}"));
            }
            continue;
        }
        let here = |problem: &&Diagnostic| {
            problem.path == *path
                && problem.code == *code
                && problem.place.as_ref().map_or(0, |place| place.line) == *line
        };
        let told = |problem: &&Diagnostic| {
            let label = problem.place.as_ref().map_or("", |place| place.label.as_str());
            [problem.message.as_str(), problem.help.as_deref().unwrap_or(""), label]
                .iter()
                .any(|text| text.contains(says))
        };
        let shown: Vec<String> =
            problems.iter().map(|problem| problem.render(caxton_proto::diagnostic::Color::Never)).collect();
        match problems.iter().find(here) {
            None => wrong.push(format!("{path}:{line} {code} is not found for {rest:?}:\n{}", shown.join("\n"))),
            Some(problem) if !told(&problem) => {
                wrong.push(format!("{path}:{line} {code} does not say {says:?}:\n{}", shown.join("\n")));
            }
            Some(problem) => {
                let label = problem.place.as_ref().is_some_and(|place| !place.label.is_empty());
                if problem.help.is_none() && !label {
                    wrong.push(format!("{path}:{line} {code} does not say what to do"));
                }
            }
        }
        // One mistake is one problem: what follows from it would only hide it.
        if problems.iter().filter(|problem| problem.severity == Severity::Error).count() > 2 {
            wrong.push(format!("{path}: {rest:?} is said too often:\n{}", shown.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n\n{}", wrong.len(), ROWS.len(), wrong.join("\n\n"));
}
