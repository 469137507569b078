//! Agents' files as the product's first descriptions have them: names for people, lists, placeholders that a caller fills,
//! and keys of the top that were written last.

use insta::assert_snapshot;

use super::{path, short};
use crate::acl::Performative;
use crate::manifest::AgentManifest;
use crate::manifest::agent::MemoryScope;
use crate::manifest::prompt::{Parameter, Parameters, Prompt, Values};

const SECTIONED: &str = r#"
[agent]
id = "data-analyzer"
name = "Data Analysis Agent"
version = "1.0.0"
description = "Analyzes data and makes charts"

[capabilities]
patterns = ["analyze data"]

[prompts]
system = "You analyze {{parameters.supported_formats}} files of at most {{parameters.max_file_size}}."
user = "{{request}}\nRequirements: {{requirements}}\nFormat: {{ format }}"

[memory]
scope = "agent-only"
min_similarity = 0.6

[parameters]
max_file_size = "10MB"
supported_formats = ["csv", "json"]
format = "table"
"#;

const FLAT: &str = r#"
name = "DataAnalyzer"
version = "1.0.0"
capabilities = ["data-analysis"]

[memory]
enabled = true
scope = "global"

[parameters]
depth = 3
system_prompt = "You look {{depth}} deep."
user_prompt_template = "{{request}}"
documentation = "Ask it anything."
"#;

fn text(prompt: Option<&Prompt>) -> &crate::manifest::prompt::Template {
    match prompt {
        Some(Prompt::Text(template)) => template,
        other => panic!("no text: {other:?}"),
    }
}

#[test]
fn any_name_is_one_for_people_and_the_files_is_the_one_to_call_it_by() {
    let (manifest, found) = AgentManifest::read(&path("agents/data-analyzer/agent.toml"), SECTIONED);
    assert_eq!(found, []);
    let manifest = manifest.expect("a manifest");
    assert_eq!(manifest.name.as_str(), "data-analyzer");
    assert_eq!(manifest.display_name.as_deref(), Some("Data Analysis Agent"));
    assert_eq!(manifest.id.as_deref(), Some("data-analyzer"));
    assert_eq!(manifest.capabilities[0].name.as_str(), "data-analyzer");
    assert_eq!((manifest.memory.scope, manifest.memory.min_similarity), (MemoryScope::Agent, 0.6));
    let plain =
        AgentManifest::parse(&path("agents/a.toml"), "name = \"a\"\ncapabilities = [\"x\"]\n").expect("a manifest");
    assert_eq!(plain.display_name, None);
}

#[test]
fn a_list_is_put_in_with_commas_and_a_caller_fills_what_it_likes() {
    let manifest = AgentManifest::parse(&path("agents/data-analyzer.toml"), SECTIONED).expect("a manifest");
    let render = |prompt, given: &Parameters| {
        let mut parameters = manifest.parameters.clone();
        parameters.extend(given.clone());
        text(prompt).render(&Values { request: "R", context: "", parameters: &parameters })
    };
    let nothing = Parameters::new();
    let system = "You analyze csv, json files of at most 10MB.";
    assert_eq!(render(manifest.prompts.system.as_ref(), &nothing), system);
    assert_eq!(render(manifest.prompts.user.as_ref(), &nothing), "R\nRequirements: \nFormat: table");
    let given = Parameters::from([
        ("requirements".to_owned(), Parameter::Text("short {{request}}".to_owned())),
        ("format".to_owned(), Parameter::List(vec![Parameter::Integer(1), Parameter::Boolean(true)])),
    ]);
    let filled = "R\nRequirements: short {{request}}\nFormat: 1, true";
    assert_eq!(render(manifest.prompts.user.as_ref(), &given), filled);
}

#[test]
fn keys_of_the_top_below_a_table_mean_what_was_meant() {
    let (manifest, found) = AgentManifest::read(&path("agents/data-analyzer.toml"), FLAT);
    assert_snapshot!(short(&found), @r"
    12:1 misplaced_key: `system_prompt` stands below [parameters], and is read as if it stood at the top of this file (move this up)
    13:1 misplaced_key: `user_prompt_template` stands below [parameters], and is read as if it stood at the top of this file (move this up)
    14:1 misplaced_key: `documentation` stands below [parameters], and is read as if it stood at the top of this file (move this up)
    ");
    let manifest = manifest.expect("a manifest");
    assert_eq!(text(manifest.prompts.system.as_ref()).as_str(), "You look {{depth}} deep.");
    assert_eq!(text(manifest.prompts.user.as_ref()).as_str(), "{{request}}");
    assert_eq!(manifest.documentation, "Ask it anything.");
    assert_eq!(manifest.parameters.keys().collect::<Vec<_>>(), ["depth"]);
    assert_eq!(manifest.memory.scope, MemoryScope::Global);
    assert_eq!(manifest.display_name.as_deref(), Some("DataAnalyzer"));

    let below = "name = \"a\"\n[memory]\nscope = \"agent\"\nversion = \"2.0.0\"\ncapabilities = [\"x\"]\ntools = [\"t\"]\n\
                 [[capability]]\nname = \"y\"\nsystem_prompt = \"S\"\n";
    let (manifest, found) = AgentManifest::read(&path("agents/a.toml"), below);
    assert_eq!(found.iter().filter(|problem| problem.code == "misplaced_key").count(), 4, "{found:?}");
    let manifest = manifest.expect("a manifest");
    assert_eq!(
        (manifest.version.to_string().as_str(), manifest.capabilities.len(), manifest.tools.required.len()),
        ("2.0.0", 2, 1)
    );
    assert_eq!(text(manifest.prompts.system.as_ref()).as_str(), "S");
}

#[test]
fn a_key_that_is_also_at_the_top_or_has_its_own_table_is_not_moved() {
    let twice = "name = \"a\"\ncapabilities = [\"x\"]\nsystem_prompt = \"S\"\n[memory]\nsystem_prompt = \"T\"\n";
    let sectioned = "[agent]\nname = \"a\"\n[capabilities]\npatterns = [\"x\"]\n[memory]\nsystem_prompt = \"T\"\n";
    for file in [twice, sectioned] {
        let (manifest, found) = AgentManifest::read(&path("agents/a.toml"), file);
        assert_eq!(manifest, None);
        assert!(short(&found).contains("unknown_key: there is no key `system_prompt` in [memory]"), "{found:?}");
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_said() {
    let read = |file: &str, name: &str| {
        let text = format!("{name}\ncapabilities = [\"x\"]\n");
        let (manifest, found) = AgentManifest::read(&path(file), &text);
        format!("{}\n{}", manifest.map_or_else(|| "refused".to_owned(), |it| it.name.to_string()), short(&found))
    };
    assert_snapshot!(read("agents/analyst.toml", "name = \"Data Analysis Agent\""), @r"
    analyst
    1:8 name_mismatch: the agent is called `analyst`, as its file is named, and not `data-analysis-agent` (the name for people)
    ");
    assert_snapshot!(read("agents/analyst.toml", "name = \"Die Analystin\"\nid = \"data\""), @r"
    analyst
    1:8 name_mismatch: the agent is called `analyst`, as its file is named, and not `data` (the name for people)
    ");
    assert_snapshot!(read("agents/DataAnalyzer.toml", "name = \"DataAnalyzer\""), @r"
    refused
    1:8 name_mismatch: `DataAnalyzer` cannot be an agent's name (this stays as the name for people)
    ");
    assert_snapshot!(read("agents/a.toml", "name = \"b\"\nid = \"a\""), @"a");
    assert_snapshot!(read("agents/a.toml", "name = \"数据\""), @"a");
    assert_snapshot!(read("agents/a.toml", "name = \" \""), @r"
    refused
    1:8 bad_value: `name` is empty (write something here, or leave it out)
    ");
}

#[test]
fn what_an_agent_takes_of_its_mailbox_is_read_and_a_wrong_word_is_said_where_it_stands() {
    let file = |table: &str| {
        AgentManifest::read(&path("agents/a.toml"), &format!("name = \"a\"\ncapabilities = [\"x\"]\n{table}"))
    };
    let (manifest, _) = file("[messages]\naccepts = [\"request\", \"cfp\", \"cfp\"]\nconcurrency = 8\npriority = 7\n");
    let messages = manifest.expect("a manifest").messages;
    assert_eq!(messages.accepts, Some(vec![Performative::Request, Performative::Cfp]));
    assert_eq!((messages.enabled, messages.concurrency, messages.priority), (true, 8, 7));
    assert!(messages.takes(Performative::Cfp) && !messages.takes(Performative::Inform));
    let none = file("").0.expect("a manifest").messages;
    assert!(!none.enabled && none.takes(Performative::Inform));
    let (manifest, found) = file("[messages]\naccepts = [\"request\",\n  \"cpf\"]\nconcurrency = 0\npriority = 8\n");
    assert_eq!(manifest, None);
    let said = short(&found);
    let expected = [
        "5:3 bad_value: `accepts` has to be one of",
        "(did you mean \"cfp\"?)",
        "6:15 out_of_range: `concurrency` has to be between 1 and 64",
        "7:12 out_of_range: `priority` has to be between 0 and 7",
    ];
    expected.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}"));
}
