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
