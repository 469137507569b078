//! Tools' files.

use super::*;

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
