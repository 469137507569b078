//! What only a person at a terminal meets: questions. `script` of util-linux makes the terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::run::Place;

/// Runs a command of the binary on a terminal on which `typed` is typed, and gives the whole screen.
fn on_a_terminal(place: &Place, command: &str, typed: &str) -> Option<String> {
    let home = place.empty_workspace("work").root;
    let line = format!("{} {command}", env!("CARGO_BIN_EXE_caxton"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(&home).env("HOME", &home);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    // The terminal keeps what is typed before it is asked for.
    child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("typed");
    let done = child.wait_with_output().expect("it ends");
    let screen = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{screen}");
    Some(screen)
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that was not run says why")]
fn a_person_is_asked_for_a_template_until_the_answer_is_one() {
    let place = Place::new();
    let Some(screen) = on_a_terminal(&place, "init agent envoy", "99\nnobody\ntranslator\n") else {
        eprintln!("NOT RUN: there is no `script` (util-linux) to make a terminal with");
        return;
    };
    for part in ["  10  translator", "`99` is none of them", "`nobody` is none of them", "from the template"] {
        assert!(screen.contains(part), "`{part}` is not on the screen: {screen}");
    }
    assert!(screen.contains("\u{1b}["), "a terminal gets colours: {screen}");
    assert!(place.dir.path().join("work/agents/envoy/agent.toml").is_file());
}

#[test]
fn nothing_is_made_when_nothing_is_typed() {
    let place = Place::new();
    if let Some(screen) = on_a_terminal(&place, "init agent envoy || true", "\n") {
        assert!(screen.contains("Which one?"), "{screen}");
        assert!(!place.dir.path().join("work/agents/envoy").exists());
    }
}

#[test]
fn a_person_is_asked_who_answers_in_a_new_workspace() {
    let place = Place::new();
    let Some(screen) = on_a_terminal(&place, "init ../asked --no-git", "9\nopenai\n") else { return };
    for part in ["Who answers in this workspace?", "`9` is none of them", "  4  demo", "OPENAI_API_KEY"] {
        assert!(screen.contains(part), "`{part}` is not on the screen: {screen}");
    }
    let settings = std::fs::read_to_string(place.dir.path().join("asked/caxton.toml")).expect("settings");
    assert!(settings.contains("kind = \"openai\""), "{settings}");
}

#[test]
fn a_first_start_on_a_terminal_is_five_lines() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_caxton");
    let data = place.data().display().to_string();
    let typescript = place.dir.path().join("typescript");
    // Until its last line is there, it is looked for; then the node is stopped as a person stops it.
    let line = format!(
        "{program} serve --bind 127.0.0.1:0 --data-dir {data} & node=$!; \
         for n in $(seq 1200); do grep -q Ctrl-C {} && break; sleep 0.1; done; kill -INT $node; wait $node",
        typescript.display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &line]).arg(&typescript).env("HOME", place.dir.path());
    let Ok(done) = script.stdin(Stdio::null()).output() else { return };
    let screen = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{screen}");
    let lines: Vec<&str> = screen.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 5, "{screen}");
    assert!(lines[0].contains("serves at") && lines[4].contains("Ctrl-C"), "{screen}");
}

#[test]
fn every_list_fits_a_narrow_terminal() {
    let place = Place::new();
    let home = place.dir.path();
    let node = crate::run::Node::start(&place.data());
    let mut made = crate::run::caxton(home);
    made.current_dir(home).args(["init", "listed", "--provider", "demo", "--template", "translator"]);
    crate::run::Ran::of(made.output().expect("the binary runs")).ok();
    let workspace = crate::run::Workspace { root: home.join("listed"), data: place.data() };
    workspace.run(&["deploy", "--yes"]).ok();
    workspace
        .run(&["send", "translator", "How do you say good morning in the language of the next town?", "--quiet"])
        .ok();
    workspace
        .run(&["memory", "add", "Ann drinks tea with milk, and in the afternoon coffee, and never anything else"])
        .ok();
    for width in [80, 40] {
        for command in [
            "workspaces list",
            "conversations list",
            "agents list",
            "log",
            "usage",
            "memory list",
            "memory stats",
            "cluster members",
            "errors",
            "errors turn_failed",
            "version",
            "route \"Translate this letter\" --explain",
        ] {
            // What is said beside the lists is not meant to be cut.
            let line = format!(
                "stty cols {width}; cd {}; {} {command} --data-dir {} 2> /dev/null",
                workspace.root.display(),
                env!("CARGO_BIN_EXE_caxton"),
                place.data().display()
            );
            let line = if command.starts_with("errors") { line.replace(" --data-dir", " # --data-dir") } else { line };
            let mut script = Command::new("script");
            script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("HOME", home);
            let Ok(done) = script.stdin(Stdio::null()).output() else { return };
            let screen = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(done.status.success() && !screen.trim().is_empty(), "{command}: {screen}");
            let plain = anstream::adapter::strip_str(&screen).to_string();
            let long: Vec<&str> = plain.lines().filter(|line| line.trim_end().chars().count() > width).collect();
            assert!(long.is_empty(), "{command}, {width}: {long:#?}");
            // No head and no time is cut.
            assert!(
                !plain.contains("minut...") && !plain.contains("TIME (...") && !plain.contains("BEGAN..."),
                "{plain}"
            );
        }
    }
    assert!(node.terminate().success());
}
