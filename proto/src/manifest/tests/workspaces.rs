//! Workspaces' files.

use super::*;
use crate::memory::{Rule, ScopeKind};

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
    11:8 bad_value: `kind` has to be one of `anthropic`, `ollama`, `openai`, `scripted` and `wasm` (did you mean "openai"?)
    12:1 missing_key: `script` is missing from [providers.two] (in here)
    17:26 out_of_range: `input` has to be between 0 and 1000000 (out of range)
    19:15 wrong_type: `usd_per_day` has to be a number (this is a string)
    21:18 out_of_range: `revisions_kept` has to be between 1 and 10000 (out of range)
    22:2 unknown_key: there is no key `secrets` at the top of this file (unknown)
    "#);
}

#[test]
fn a_dialect_is_read_and_its_mistakes_are_said() {
    let text = r#"
[workspace]
name = "w"
[providers.one]
kind = "ollama"
[providers.one.dialect]
tokens_field = "max_completion_tokens"
system = "user"
tools = false
key_header = "api-key"
"#;
    let manifest = WorkspaceManifest::parse(&path("caxton.toml"), text).expect("a manifest");
    let provider = manifest.providers.values().next().expect("one");
    assert_eq!(
        serde_json::to_string(provider).expect("json"),
        r#"{"kind":"ollama","base_url":null,"api_key":null,"model":null,"timeout":"1m","fallback":[],"prices":{},"dialect":{"tokens_field":"max_completion_tokens","tools":false,"system":"user","key_header":"api-key"}}"#
    );
    let text = r#"
[workspace]
name = "w"
[providers.one]
kind = "openai"
[providers.one.dialect]
system = "two"
max_tokens = 5
temprature = false
[providers.two]
kind = "anthropic"
[providers.two.dialect]
stream_usage = false
key_header = "x:y"
[providers.three]
kind = "scripted"
script = "prompts/s.toml"
dialect = { tools = false }
"#;
    let found = WorkspaceManifest::parse(&path("caxton.toml"), text).expect_err("errors");
    assert_snapshot!(short(&found), @r#"
    7:10 bad_value: `system` has to be one of `many`, `one` and `user` (not one of them)
    8:1 unknown_key: there is no key `max_tokens` in [dialect] (this belongs elsewhere: under [llm] in an agent's file)
    9:1 unknown_key: there is no key `temprature` in [dialect] (did you mean `temperature`?)
    13:1 unknown_key: there is no key `stream_usage` in [dialect] (unknown)
    14:14 bad_value: `key_header` has to be the name of a header (letters, digits and `-`)
    18:1 unknown_key: there is no key `dialect` in [providers.three] (unknown)
    "#);
}

#[test]
fn retention_names_ages_counts_and_bytes_and_nothing_else() {
    let head = "[workspace]\nname = \"w\"\n[retention]\n";
    let good = "conversations_age = \"90d\"\nconversations_max = 500\n\
        [[retention.memory]]\nscope = \"conversation\"\nage = \"30d\"\n\
        [[retention.memory]]\nkind = \"note\"\ncount = 10\nbytes = \"1MiB\"\n";
    let manifest = WorkspaceManifest::parse(&path("caxton.toml"), &format!("{head}{good}")).expect("a manifest");
    let kept = manifest.retention;
    assert_eq!((kept.conversations_age_ms_max, kept.conversations_max), (Some(90 * 86_400_000), Some(500)));
    let note = Rule { kind: Some("note".to_owned()), count_max: Some(10), bytes_max: Some(1 << 20), ..Rule::default() };
    let old = Rule { scope: Some(ScopeKind::Conversation), age_ms_max: Some(30 * 86_400_000), ..Rule::default() };
    assert_eq!(kept.memory, [old, note]);
    let bad = "conversations_age = \"1s\"\nconversations_max = 0\n\
        [[retention.memory]]\nscope = \"people\"\ncount = 1\n[[retention.memory]]\nkind = \"note\"\n";
    let found = WorkspaceManifest::parse(&path("caxton.toml"), &format!("{head}{bad}")).expect_err("errors");
    let codes: Vec<_> = found.iter().map(|problem| &*problem.code).collect();
    assert_eq!(codes, ["out_of_range", "out_of_range", "bad_value", "missing_key"]);
}

#[test]
fn a_workspace_says_whether_its_messages_are_signed_and_where_they_go() {
    let read = |text: &str| {
        let text = format!("[workspace]\nname = \"team\"\n{text}");
        WorkspaceManifest::parse(&path("caxton.toml"), &text).map(|manifest| manifest.messages)
    };
    let silent = read("").expect("a manifest");
    assert!(!silent.signed && silent.sends_to.is_empty() && silent.receives_from.is_empty());
    let said =
        read("[messages]\nsigned = true\nsends_to = [\"b\", \"c\"]\nreceives_from = [\"b\"]\n").expect("a manifest");
    let names: Vec<&str> = said.sends_to.iter().map(|name| name.as_str()).collect();
    assert_eq!((said.signed, names, said.receives_from.len()), (true, vec!["b", "c"], 1));
    for bad in
        ["signed = \"yes\"", "sends_to = [\"*\"]", "sends_to = [\"team-*\"]", "receives_from = \"b\"", "accepts = []"]
    {
        let found = read(&format!("[messages]\n{bad}\n"));
        assert!(found.is_err(), "{bad}: exact names and known keys only, {found:?}");
    }
}

#[test]
fn a_memory_backend_is_read_and_what_it_lacks_is_said_with_its_line() {
    let read = |memory: &str| {
        let text = format!("[workspace]\nname = \"team\"\n[memory]\n{memory}");
        WorkspaceManifest::parse(&path("caxton.toml"), &text)
    };
    let qdrant = "backend = \"qdrant\"\nurl = \"https://q.example.com:6333\"\napi_key = \"secret:QDRANT\"\nfallback = \"embedded\"\ntimeout = \"2s\"";
    let found = read(qdrant).expect("right").memory_backend.expect("one");
    assert_eq!((found.kind.name().as_str(), found.falls_back, found.timeout.as_secs()), ("qdrant", true, 2));
    assert_eq!(found.kind.key().map(ToString::to_string).as_deref(), Some("secret:QDRANT"));
    let neo4j = "backend = \"neo4j\"\nurl = \"http://n.example.com:7474\"\npassword = \"secret:NEO4J\"";
    let found = read(neo4j).expect("right").memory_backend.expect("one");
    assert_eq!((found.kind.name().as_str(), found.falls_back, found.timeout.as_secs()), ("neo4j", false, 5));
    let found = read("backend = \"tool:finder\"").expect("right").memory_backend.expect("one");
    assert_eq!((found.kind.name().as_str(), found.kind.key()), ("tool:finder", None));
    assert_eq!(read("backend = \"embedded\"").expect("right").memory_backend, None);
    for (bad, line, says) in [
        ("backend = \"mongo\"\nurl = \"x\"", 4, "there is no memory backend \"mongo\""),
        ("backend = \"qdrant\"", 3, "`url` is missing from [memory]"),
        ("backend = \"qdrant\"\nurl = \"q.example.com\"", 5, "`url` has a bad value"),
        (
            "backend = \"qdrant\"\nurl = \"https://q\"\napi_key = \"hunter2\"",
            6,
            "`api_key` has to say where the key is",
        ),
        ("backend = \"qdrant\"\nurl = \"https://q\"\ncollection = \"a/b\"", 6, "`collection` has a bad name"),
        ("backend = \"neo4j\"\nurl = \"https://n\"", 3, "`password` is missing from [memory]"),
        ("backend = \"neo4j\"\nurl = \"bolt://n\"\npassword = \"secret:N\"", 5, "`url` is an address of Bolt"),
        ("backend = \"tool:A B\"", 4, "`backend` names no tool"),
        ("backend = \"tool:a\"\nurl = \"https://q\"", 5, "there is no key `url` in [memory]"),
        ("backend = \"embedded\"\nfallback = \"embedded\"", 5, "there is no key `fallback` in [memory]"),
        ("backend = \"tool:a\"\nfallback = \"none\"", 5, "`fallback`"),
        ("backend = \"tool:a\"\ntimeout = \"1h\"", 5, "`timeout`"),
    ] {
        let found = read(bad).expect_err(bad);
        let first = found.first().expect("a problem");
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert!(first.message.contains(says), "{bad}: {first:?}");
        assert_eq!(first.place.as_ref().map(|place| place.line), Some(line), "{bad}: {first:?}");
        assert!(!format!("{first:?}").contains("hunter2"), "what stands in the file by mistake is not shown");
    }
}
