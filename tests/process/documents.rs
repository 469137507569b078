//! What newcomers' commands print and how they end: templates with the demo's answers, standard input, approvals and files,
//! lists of states, JSON documents with the names that docs/commands.md has.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::run::{Node, Place, Ran, Workspace, caxton};

fn in_folder(home: &Path, folder: &Path, args: &[&str]) -> Ran {
    Ran::of(caxton(home).current_dir(folder).args(args).output().expect("the binary runs"))
}

/// The requests and the answers of the templates' examples.
fn example(template: &str) -> (String, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/agents").join(template).join("examples");
    let file = fs::read_dir(folder).expect("examples").next().expect("one").expect("an entry").path();
    let text = fs::read_to_string(file).expect("an example");
    let (_, request) = text.split_once("**Request:**").expect("a request");
    let (_, answer) = text.split_once("**Answer**").expect("an answer");
    let first = answer.lines().map(|line| line.trim_start_matches(['>', ' '])).find(|line| !line.is_empty());
    (request.lines().next().expect("a line").trim().to_owned(), first.expect("a line").to_owned())
}

/// All that a template's example asks, with what is pasted below its first line.
fn whole_request(template: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/agents").join(template).join("examples");
    let file = fs::read_dir(folder).expect("examples").next().expect("one").expect("an entry").path();
    let text = fs::read_to_string(file).expect("an example");
    let (_, request) = text.split_once("**Request:**").expect("a request");
    request.split("\n**").next().expect("a part").trim().to_owned()
}

/// Asks whoever can do it, through a pipe.
fn ask_piped(workspace: &Workspace, request: &str) -> Ran {
    let mut command = caxton(&workspace.root);
    command.current_dir(&workspace.root).env("CAXTON_DATA_DIR", &workspace.data).args(["ask", "-", "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut asking = command.spawn().expect("the binary runs");
    asking.stdin.take().expect("a pipe").write_all(request.as_bytes()).expect("written");
    Ran::of(asking.wait_with_output().expect("it ends"))
}

#[test]
fn the_ten_templates_are_deployed_and_answer_without_a_model() {
    let place = Place::new();
    let home = place.dir.path();
    let templates = [
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
    let mut words = vec!["init", "ten", "--provider", "demo"];
    templates.iter().for_each(|template| words.extend(["--template", template]));
    let made = in_folder(home, home, &words).ok();
    assert!(made.contains("from the templates' own examples"), "{made}");
    let workspace = Workspace { root: home.join("ten"), data: place.data() };
    let node = Node::start(&place.data());
    let deployed = workspace.run(&["deploy", "--yes"]);
    assert!(deployed.code == Some(0) && !deployed.stderr.contains("warning"), "{deployed:#?}");
    for template in templates {
        let (request, answer) = example(template);
        let said = workspace.run(&["send", template, &request, "--quiet"]).ok();
        assert!(said.starts_with(&answer) && said.contains("No model was asked"), "{template}: {said}");
    }
    // By what its example asks, among the ten and alone, which is what a newcomer tries first.
    for template in templates {
        let request = whole_request(template);
        let asked = ask_piped(&workspace, &request);
        assert_eq!(asked.code, Some(0), "{template}: {}", asked.shown());
        assert_eq!(asked.json()["agent"], template);
        in_folder(home, home, &["init", template, "--provider", "demo", "--template", template]).ok();
        let alone = Workspace { root: home.join(template), data: place.data() };
        alone.run(&["deploy", "--yes"]).ok();
        let asked = ask_piped(&alone, &request);
        assert_eq!(asked.code, Some(0), "{template} alone: {}", asked.shown());
    }
    // By what it can do, as a first question is asked; and an agent of one's own.
    let asked = workspace.run(&["ask", "Please review this pull request", "--json"]).json();
    assert_eq!(asked["agent"], "code-reviewer", "{asked}");
    workspace.write("agents/own.toml", "name = \"own\"\ncapabilities = [\"x\"]\n");
    workspace.run(&["deploy", "--yes"]).ok();
    assert!(workspace.run(&["send", "own", "hello", "--quiet"]).ok().starts_with("You said: hello\n"));
    assert!(node.terminate().success());
}

#[test]
fn every_provider_that_init_writes_is_right_and_says_what_is_missing() {
    let place = Place::new();
    let home = place.dir.path();
    for (who, says) in [
        ("openai", "OPENAI_API_KEY"),
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("ollama", "ollama pull"),
        ("demo", "no model is asked"),
    ] {
        let made = in_folder(home, home, &["init", who, "--provider", who, "--template", "translator"]).ok();
        assert!(made.contains(says) && made.contains("caxton docs providers"), "{who}: {made}");
        let root = home.join(who);
        in_folder(home, &root, &["validate", "--strict"]).ok();
        // The examples of caxton.toml, as they are when somebody takes the marks of comments away.
        let settings = fs::read_to_string(root.join("caxton.toml")).expect("settings");
        let mut opened = String::new();
        for line in settings.lines() {
            let code = line.strip_prefix("# ").filter(|rest| {
                rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
            });
            opened.push_str(code.unwrap_or(line));
            opened.push('\n');
        }
        assert!(
            opened.contains("\n[providers.local]\n")
                && opened.contains("\n[grants]\n")
                && opened.contains("\n[budget]\n")
        );
        fs::write(root.join("caxton.toml"), opened).expect("written");
        in_folder(home, &root, &["validate", "--strict"]).ok();
    }
    // Without a word, and with nothing to be found, the demo answers.
    let chosen = in_folder(home, home, &["init", "nothing", "--json"]).json();
    assert_eq!(chosen["provider"], "demo");
    let mut with_key = caxton(home);
    with_key.current_dir(home).env("ANTHROPIC_API_KEY", "x").args(["init", "key", "--json"]);
    assert_eq!(Ran::of(with_key.output().expect("it runs")).json()["provider"], "anthropic");
    let wrong = in_folder(home, home, &["init", "x", "--provider", "opneai"]);
    assert_eq!(wrong.code, Some(2));
}

#[test]
fn what_cannot_work_is_said_before_and_after_a_deployment() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.empty_workspace("work");
    let nobody = workspace.run(&["validate"]);
    assert!(nobody.stdout.contains("warning[no_agents]"), "{nobody:#?}");
    workspace.write("agents/greeter.toml", crate::run::agent("greeter", "1.0.0"));
    workspace.write("caxton.toml", "[workspace]\nname = \"demo\"\n");
    for words in [vec!["validate"], vec!["deploy", "--yes"], vec!["status"]] {
        let ran = workspace.run(&words);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert!(ran.shown().contains("no agent can answer: no model is named"), "{words:?}: {ran:#?}");
    }
    assert_eq!(workspace.run(&["validate", "--strict"]).code, Some(3));
    workspace.write(
        "caxton.toml",
        "[workspace]\nname = \"demo\"\n[llm]\nprovider = \"a\"\n[providers.a]\nkind = \"openai\"\nmodel = \"m\"\n\
         api_key = \"secret:MY_KEY\"\n[providers.b]\nkind = \"anthropic\"\nmodel = \"m\"\napi_key = \"env:ANTHROPIC_API_KEY\"\n",
    );
    let deployed = workspace.run(&["deploy", "--yes"]);
    for part in ["needs the secret MY_KEY", "caxton secrets set MY_KEY", "ANTHROPIC_API_KEY is not set"] {
        assert!(deployed.stderr.contains(part), "`{part}`: {deployed:#?}");
    }
    let status = workspace.run(&["status", "--json"]).json();
    assert_eq!(status["lacking"].as_array().map(Vec::len), Some(2), "{status}");
    fs::create_dir_all(workspace.root.join("Agents")).expect("a folder");
    workspace.write("Agents/x.toml", "name = \"x\"\n");
    workspace.write("greeter.toml", crate::run::agent("greeter", "1.0.0"));
    let strays = workspace.run(&["validate"]).ok();
    for part in ["rename it to agents/", "move it to agents/greeter.toml"] {
        assert!(strays.contains(part), "`{part}`: {strays}");
    }
}

const ASKS_FIRST: &str = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"chart-generator\"\n\
    arguments = { kind = \"bar\", title = \"t\", labels = [\"a\", \"b\"], values = [1, 2], x_label = \"x\", y_label = \"y\" }\n\
    [[rule]]\nsay = \"done\"\n";

/// A workspace with an agent whose tool makes a file and waits for a person first.
fn approving(place: &Place) -> Workspace {
    let workspace = place.empty_workspace("work");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/csv-to-chart");
    for file in ["tools/chart-generator/tool.toml", "tools/chart-generator/chart-generator.wasm"] {
        workspace.write(file, fs::read(example.join(file)).expect("the example's file"));
    }
    workspace.write(
        "caxton.toml",
        "[workspace]\nname = \"demo\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n",
    );
    workspace.write("prompts/s.toml", ASKS_FIRST);
    workspace.write(
        "agents/drawer.toml",
        "name = \"drawer\"\ncapabilities = [\"draw\"]\ntools = [\"chart-generator\"]\n[approval]\ntools = [\"chart-generator\"]\n",
    );
    workspace.write("agents/broken.toml", "name = \"broken\"\ncapabilities = [\"b\"]\n[limits]\nsteps_max = 1\n[tools]\nrequired = [\"chart-generator\"]\n");
    workspace
}

#[test]
fn a_turn_that_waits_ends_with_8_and_its_files_are_there_afterwards() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = approving(&place);
    workspace.deploy().ok();
    let waits = workspace.run(&["send", "drawer", "draw it"]);
    assert_eq!(waits.code, Some(8), "{waits:#?}");
    assert!(waits.stdout.contains("caxton approvals approve"), "{waits:#?}");
    let list = workspace.run(&["conversations", "list", "--json"]).json();
    assert_eq!(list["conversations"][0]["state"], "waits", "{list}");
    let conversation = list["conversations"][0]["id"].as_str();
    let approvals = workspace.run(&["approvals", "list", "--json"]).json();
    let id = approvals["approvals"][0]["id"].as_str().expect("an approval").to_owned();
    let of_approval = approvals["approvals"][0]["conversation"].as_str().expect("a conversation");
    assert_eq!(conversation, Some(of_approval));
    let approved = workspace.run(&["approvals", "approve", &id]);
    assert_eq!(approved.code, Some(0), "{approved:#?}");
    assert!(approved.stderr.contains(&format!("1 file: caxton conversations save {of_approval}")), "{approved:#?}");
    let saved = workspace.run(&["conversations", "save", of_approval, "--dir", "out"]).ok();
    assert!(saved.contains("out/chart-generator.svg"), "{saved}");
    let svg = fs::read_to_string(workspace.root.join("out/chart-generator.svg")).expect("the chart");
    assert!(svg.starts_with("<svg"), "{svg}");
    // Once more is the same file.
    workspace.run(&["conversations", "save", of_approval, "--dir", "out"]).ok();
    assert_eq!(fs::read_dir(workspace.root.join("out")).expect("a folder").count(), 1);

    let waiting = workspace.run(&["send", "drawer", "draw it", "--json"]);
    assert_eq!(waiting.code, Some(8), "{waiting:#?}");
    assert!(serde_json::from_str::<Value>(&waiting.stdout).expect("a document")["approvals"].is_array());
    assert_ne!(workspace.run(&["send", "broken", "draw it"]).code, Some(0));
    let states = workspace.run(&["conversations", "list"]).ok();
    let has = |state: &str, agent: &str| states.lines().any(|line| line.contains(state) && line.contains(agent));
    assert!(has("answered", "drawer") && has("failed", "broken"), "{states}");
}

#[test]
fn a_message_comes_through_a_pipe() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.empty_workspace("work");
    workspace.write(
        "caxton.toml",
        "[workspace]\nname = \"demo\"\n[providers.e]\nkind = \"scripted\"\nscript = \"prompts/e.toml\"\n",
    );
    workspace.write("prompts/e.toml", "[[rule]]\nsay = \"{{request}}\"\n");
    workspace.write("agents/a.toml", "name = \"a\"\ncapabilities = [\"x\"]\n");
    workspace.deploy().ok();
    let piped = |text: &[u8]| {
        let mut command = caxton(&workspace.root);
        command.current_dir(&workspace.root).env("CAXTON_DATA_DIR", &workspace.data);
        command
            .args(["ask", "-", "--agent", "a", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        // What is too long is not read to its end.
        let _ = child.stdin.take().expect("a pipe").write_all(text);
        Ran::of(child.wait_with_output().expect("it ends"))
    };
    assert_eq!(piped(b"line one\nline two\n").ok(), "line one\nline two\n");
    assert_eq!(piped(&[b'x'; (256 << 10) + 1]).code, Some(2));
    assert_eq!(piped(b"\xff\xfe").code, Some(1));
    assert_ne!(piped(b"").code, Some(0), "an empty message is refused");
}

#[test]
fn workspaces_are_listed_and_pulled_into_an_empty_folder() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let none = workspace.run(&["workspaces", "list"]).ok();
    assert!(none.contains("no workspace yet"), "{none}");
    workspace.deploy().ok();
    let list = workspace.run(&["workspaces", "list"]).ok();
    assert!(list.contains("WORKSPACE") && list.contains("demo") && list.contains("r1"), "{list}");
    let empty = Workspace { root: place.dir.path().join("empty"), data: place.data() };
    fs::create_dir(&empty.root).expect("a folder");
    let unnamed = empty.run(&["pull"]);
    assert!(unnamed.code == Some(1) && unnamed.stderr.contains("caxton pull --workspace NAME"), "{unnamed:#?}");
    empty.run(&["pull", "--workspace", "demo"]).ok();
    assert_eq!(empty.root_digest(), workspace.root_digest());
    assert_eq!(empty.run(&["status", "--json"]).json()["local"], serde_json::json!([]));
    // A name with a slip in it is no success, and leaves nothing behind that the right name would stumble over.
    let slip = Workspace { root: place.dir.path().join("slip"), data: place.data() };
    fs::create_dir(&slip.root).expect("a folder");
    let refused = slip.run(&["pull", "--workspace", "dmeo", "--json"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let said: Value = serde_json::from_str(&refused.stdout).expect("a document");
    assert_eq!(said["error"]["code"], "not_found", "{said}");
    assert_eq!(fs::read_dir(&slip.root).expect("a folder").count(), 0, "something was made");
    slip.run(&["pull", "--workspace", "demo"]).ok();
    assert_eq!(slip.root_digest(), workspace.root_digest());
    let full = Workspace { root: place.dir.path().join("full"), data: place.data() };
    full.write("notes.txt", "mine");
    let refused = full.run(&["pull", "--workspace", "demo"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("empty folder"), "{refused:#?}");
}

#[test]
fn wrong_usage_is_a_document_where_one_is_wanted_and_a_full_disk_is_a_sentence() {
    let place = Place::new();
    let home = place.dir.path();
    // What the environment says was not typed.
    let mut bare = caxton(home);
    bare.current_dir(home).env("CAXTON_DATA_DIR", place.data()).arg("ask");
    let ran = Ran::of(bare.output().expect("the binary runs"));
    assert!(ran.code == Some(2) && ran.stderr.contains("Usage: caxton ask"), "{ran:#?}");
    assert!(!ran.stderr.contains("--data-dir"), "{ran:#?}");
    for words in [vec!["deploy", "--jsn", "--json"], vec!["--json", "nothing"], vec!["agents", "show", "--json"]] {
        let ran = in_folder(home, home, &words);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
        assert_eq!(
            (document["error"]["code"].as_str(), document["error"]["exit"].as_u64()),
            (Some("usage"), Some(2)),
            "{document}"
        );
        assert!(document["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
    }
    for words in [["--help"], ["docs"], ["errors"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = caxton(home);
        let ran = Ran::of(command.args(words).stdout(full).stderr(Stdio::piped()).output().expect("it runs"));
        assert_eq!(ran.code, Some(1), "{words:?}: {ran:#?}");
        assert!(
            ran.stderr.contains("the output cannot be written") && ran.stderr.contains("No space left"),
            "{words:?}: {ran:#?}"
        );
    }
    // A folder that cannot be written to.
    let workspace = place.workspace("work");
    let _node = Node::start(&place.data());
    fs::write(workspace.root.join(".caxton"), "in the way").expect("a file");
    let ran = workspace.run(&["deploy", "--yes"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("cannot be written"), "{ran:#?}");
    workspace.run(&["validate"]).ok();
    workspace.run(&["status"]).ok();
}

#[test]
fn the_state_of_one_server_is_not_shown_for_another() {
    let place = Place::new();
    let node = Node::start(&place.data());
    let workspace = place.workspace("work");
    workspace.deploy().ok();
    assert!(node.terminate().success());
    let own = workspace.run(&["status"]);
    assert!(own.code == Some(0) && own.stdout.contains("(offline)"), "{own:#?}");
    let other = workspace.run(&["status", "--server", "http://127.0.0.1:1"]);
    assert!(other.code == Some(6) && !other.stdout.contains("r1 is live"), "{other:#?}");
}

#[test]
fn the_manual_and_the_codes_are_in_the_binary() {
    let place = Place::new();
    let home = place.dir.path();
    let run = |words: &[&str]| in_folder(home, home, words);
    let pages = run(&["docs", "--json"]).json();
    for page in pages["pages"].as_array().expect("pages") {
        let name = page["page"].as_str().expect("a name");
        let text = run(&["docs", name]).ok();
        assert!(text.starts_with("# ") && text.len() > 500, "{name}: {text}");
    }
    let wrong = run(&["docs", "agnets"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("caxton docs agents"), "{wrong:#?}");
    let one = run(&["errors", "no_capable_agent"]).ok();
    assert!(one.contains("HTTP 404") && one.contains("caxton route"), "{one}");
    assert!(run(&["errors", "error[unknown_key]"]).ok().contains("nothing reads this key"));
    assert!(run(&["errors", "8"]).ok().contains("waits for a person"));
    let near = run(&["errors", "unknown_kye"]);
    assert!(near.code == Some(2) && near.stderr.contains("caxton errors unknown_key"), "{near:#?}");
    assert!(run(&["errors", "--json"]).json()["errors"].as_array().is_some_and(|all| all.len() > 80));
}

#[test]
fn a_tool_begins_in_any_of_five_languages() {
    let place = Place::new();
    let workspace = place.workspace("work");
    for language in ["rust", "python", "javascript", "go", "c"] {
        let made = workspace.run(&["init", "tool", language, "--template", language]).ok();
        assert!(made.contains(&format!("tools/{language}/tool.toml")), "{made}");
        let wit = workspace.root.join(format!("tools/{language}/wit/caxton-tool.wit"));
        assert_eq!(wit.is_file(), matches!(language, "rust" | "python" | "javascript"), "{language}");
    }
    let unbuilt = workspace.run(&["validate", "--json"]);
    assert_eq!(unbuilt.code, Some(3), "{unbuilt:#?}");
    let problems: Value = serde_json::from_str(&unbuilt.stdout).expect("a document");
    let problems = problems["error"]["diagnostics"].as_array().expect("diagnostics").clone();
    assert!(problems.iter().all(|problem| problem["code"] == "missing_file"), "{problems:?}");
    assert_eq!(problems.len(), 5, "{problems:?}");
    assert_eq!(workspace.run(&["init", "tool", "c", "--template", "c"]).code, Some(1), "nothing is overwritten");
}

/// The names that docs/commands.md gives for the documents of commands.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md")).expect("the page");
    let (mut all, mut command) = (Vec::new(), String::new());
    for line in page.lines() {
        if let Some(name) = line.trim_start_matches('#').strip_prefix(" caxton ").filter(|_| line.starts_with('#')) {
            command = name.to_owned();
        } else if let Some(names) = line.strip_prefix("JSON: ").filter(|names| names.starts_with('`')) {
            let names = names.trim_end_matches('.').split(", ").map(|name| name.trim_matches('`').to_owned());
            all.push((command.clone(), names.collect()));
        }
    }
    all
}

#[test]
fn documents_have_the_names_that_the_page_of_commands_has() {
    let place = Place::new();
    let home = place.dir.path();
    let _node = Node::start(&place.data());
    in_folder(home, home, &["init", "demo", "--provider", "demo", "--template", "translator"]).ok();
    let workspace = Workspace { root: home.join("demo"), data: place.data() };
    workspace.run(&["deploy", "--yes"]).ok();
    let asked = workspace.run(&["send", "translator", "hello", "--json"]).json();
    let conversation = asked["conversation"].as_str().expect("a conversation").to_owned();
    let documented = documented();
    assert!(documented.len() >= 60, "{documented:?}");
    let mut seen = 0;
    for (command, names) in documented {
        let document = match command.as_str() {
            "init" => in_folder(home, home, &["init", "other", "--json"]).json(),
            "init agent" => workspace.run(&["init", "agent", "a", "--template", "monitor", "--json"]).json(),
            "init tool" => {
                let made = workspace.run(&["init", "tool", "t", "--template", "c", "--json"]).json();
                fs::remove_dir_all(workspace.root.join("tools/t")).expect("removed");
                made
            }
            "ask" | "send" => asked.clone(),
            "deploy" => {
                workspace.write("agents/more.toml", "name = \"more\"\ncapabilities = [\"x\"]\n");
                workspace.deploy().json()
            }
            "workspaces delete" => {
                workspace.run(&["deploy", "--yes", "--workspace", "gone"]).ok();
                workspace.run(&["workspaces", "delete", "gone", "--yes", "--json"]).json()
            }
            "conversations save" | "conversations show" => {
                let words: Vec<&str> = command.split(' ').chain([conversation.as_str(), "--json"]).collect();
                workspace.run(&words).json()
            }
            "agents show" => workspace.run(&["agents", "show", "translator", "--json"]).json(),
            "route" => workspace.run(&["route", "Translate this letter", "--json"]).json(),
            "memory search" => workspace.run(&["memory", "search", "tea", "--json"]).json(),
            "memory add" => workspace.run(&["memory", "add", "Ann likes tea", "--json"]).json(),
            command if ALONE.contains(&command) => {
                let words: Vec<&str> = command.split(' ').chain(["--json"]).collect();
                workspace.run(&words).json()
            }
            // What the others print is compared with the description of the API where the page is made.
            _ => continue,
        };
        let found: BTreeSet<String> = document.as_object().expect("an object").keys().cloned().collect();
        let unsaid: Vec<&String> = names.difference(&found).filter(|name| !LEFT_OUT.contains(&name.as_str())).collect();
        assert!(
            found.is_subset(&names) && unsaid.is_empty(),
            "caxton {command} --json: {found:?}, and {names:?} is said"
        );
        seen += 1;
    }
    assert!(seen >= 38, "{seen}");
}

/// Commands that need no arguments.
const ALONE: [&str; 25] = [
    "validate",
    "status",
    "log",
    "agents list",
    "logs",
    "conversations list",
    "messages list",
    "messages topics",
    "schedules list",
    "approvals list",
    "usage",
    "workspaces list",
    "server status",
    "docs",
    "errors",
    "version",
    "pull",
    "tools list",
    "memory list",
    "memory stats",
    "health",
    "token list",
    "secrets list",
    "cluster members",
    "cluster status",
];

/// Names that are not there where there is nothing to say.
const LEFT_OUT: [&str; 6] = ["keys", "peer_address", "attachments_omitted", "display_name", "next", "notes"];

/// The commands of an example's README, as a shell would take them apart.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let lines = readme.lines().filter_map(|line| line.strip_prefix("caxton "));
    let words = |line: &str| {
        let quoted = line.split('"').enumerate().flat_map(|(part, text)| match part % 2 {
            0 => text.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![text.to_owned()],
        });
        quoted.collect()
    };
    lines.map(words).collect()
}

#[test]
fn the_examples_do_what_their_pages_say() {
    let place = Place::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let node = Node::start(&place.data());
    let mut seen = 0;
    for folder in fs::read_dir(&examples).expect("the examples").map(|entry| entry.expect("an entry").path()) {
        if !folder.join("caxton.toml").is_file() {
            continue;
        }
        let name = folder.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let root = place.dir.path().join(&name);
        copy(&folder, &root);
        let workspace = Workspace { root, data: place.data() };
        workspace.run(&["validate", "--strict"]).ok();
        let typed = commands(&fs::read_to_string(folder.join("README.md")).expect("a README"));
        assert!(!typed.is_empty(), "{name}: no command");
        for mut words in typed {
            // Nobody is there to say yes.
            if words == ["deploy"] {
                words.push("--yes".to_owned());
            }
            let ran = workspace.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(ran.code, Some(0), "{name}: {words:?}: {ran:#?}");
            assert!(!ran.stdout.contains("That did not work"), "{name}: {words:?}: {ran:#?}");
        }
        seen += 1;
    }
    assert!(seen >= 2, "{seen} examples");
    // What one person says, another conversation finds, with the id of the memory.
    let notes = Workspace { root: place.dir.path().join("team-notes"), data: place.data() };
    let found = notes.run(&["ask", "--agent", "notes", "What do we know about the door code?", "--quiet"]).ok();
    let kept = notes.run(&["memory", "list", "--json"]).json();
    let id = kept["memories"][0]["id"].as_str().expect("an id").to_owned();
    assert!(found.contains("changes every first Monday") && found.contains(&format!("[memory:{id}]")), "{found}");
    assert!(node.terminate().success());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}
