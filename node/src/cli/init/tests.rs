//! What `caxton init` leaves behind, what it refuses, and that what it made passes `caxton validate`.

use std::fs;
use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::{Exit, Global, Output, validate};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn context(cwd: &Path) -> Context {
    let global = Global { json: true, ..Global::default() };
    let mut context = Context::new(global.clone(), Output::new(global.json, global.color)).expect("a context");
    context.cwd = cwd.to_owned();
    context
}

/// `caxton init` with these words, in `cwd`.
fn init(cwd: &Path, words: &[&str]) -> Result<(), CliError> {
    let line = Line::try_parse_from([&["init"], words].concat()).expect("words that clap takes");
    run(line.args, &context(cwd))
}

fn check(cwd: &Path) -> Result<(), CliError> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: validate::Args,
    }
    validate::run(Line::try_parse_from(["validate", "--strict"]).expect("words").args, &context(cwd))
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn a_new_workspace_with_agents_is_right_at_once() {
    let place = tempfile::tempdir().expect("a folder");
    init(place.path(), &["My Team", "--template", "translator", "--template", "monitor"]).expect("a workspace");
    let root = place.path().join("My Team");
    assert!(text(root.join("caxton.toml")).contains("name = \"my-team\""));
    assert!(text(root.join("AGENTS.md")).contains("caxton validate"));
    assert_eq!(text(root.join(".gitignore")).matches(".caxton/").count(), 1);
    assert!(root.join(".git").is_dir());
    init(&root, &["agent", "reviewer", "--template", "code-reviewer"]).expect("an agent");
    assert!(text(root.join("agents/reviewer/agent.toml")).contains("name = \"reviewer\""));
    let folders = fs::read_dir(root.join("agents")).expect("agents");
    let mut names: Vec<_> = folders.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["README.md", "monitor", "reviewer", "translator"]);
    check(&root).expect("no mistakes and no warnings");
}

#[test]
fn nothing_is_overwritten() {
    let place = tempfile::tempdir().expect("a folder");
    let root = place.path();
    fs::write(root.join("AGENTS.md"), "mine").expect("a file");
    fs::write(root.join(".gitignore"), "target").expect("a file");
    init(root, &["--name", "here", "--no-git"]).expect("a workspace");
    assert_eq!(text(root.join("AGENTS.md")), "mine");
    assert_eq!(text(root.join(".gitignore")), "target\n.caxton/\n");
    assert!(!root.join(".git").exists());
    let again = init(root, &["--name", "other"]).expect_err("there is one");
    assert_eq!((again.code.as_str(), again.exit), ("exists", Exit::Failed));
    assert!(text(root.join("caxton.toml")).contains("name = \"here\""));

    fs::write(root.join("agents/a.toml"), "mine").expect("a file");
    let taken = init(root, &["agent", "a", "--template", "monitor"]).expect_err("there is one");
    assert_eq!(taken.code, "exists");
    assert_eq!(text(root.join("agents/a.toml")), "mine");
    assert!(!root.join("agents/a").exists());
}

#[test]
fn no_second_repository_is_made_inside_one() {
    let place = tempfile::tempdir().expect("a folder");
    fs::create_dir(place.path().join(".git")).expect("a folder");
    init(place.path(), &["inner"]).expect("a workspace");
    assert!(!place.path().join("inner/.git").exists());
}

#[test]
fn without_a_terminal_the_templates_are_listed() {
    let place = tempfile::tempdir().expect("a folder");
    init(place.path(), &["--name", "here"]).expect("a workspace");
    let error = init(place.path(), &["agent", "a"]).expect_err("nobody chooses");
    assert_eq!(error.exit, Exit::Usage);
    assert_eq!(error.body.unwrap_or_default().lines().count(), 14);
    let outside = tempfile::tempdir().expect("a folder");
    let error = init(outside.path(), &["agent", "a", "--template", "monitor"]).expect_err("no workspace");
    assert_eq!(error.code, "no_workspace");
}

#[test]
fn a_program_begins_with_its_sources_and_lacks_only_its_module() {
    let place = tempfile::tempdir().expect("a folder");
    init(place.path(), &["--name", "here", "--no-git"]).expect("a workspace");
    for language in ["rust", "javascript", "python", "go"] {
        init(place.path(), &["agent", language, "--template", language]).expect("an agent");
        let taken = init(place.path(), &["agent", language, "--template", "monitor"]).expect_err("there is one");
        assert_eq!(taken.code, "exists");
    }
    let folder = place.path().join("agents/go");
    assert!(text(folder.join("README.md")).contains("go build") && folder.join("main.go").is_file());
    let error = check(place.path()).expect_err("they are not built");
    let found = error.facts["diagnostics"].as_array().expect("diagnostics").clone();
    let missing: Vec<_> = found.iter().filter(|it| it["code"] == "missing_file").map(|it| &it["path"]).collect();
    assert_eq!(missing.len(), 4, "{found:?}");
    assert!(found.iter().all(|it| it["severity"] != "error" || it["code"] == "missing_file"), "{found:?}");
    fs::write(folder.join("go.wasm"), b"not a module").expect("a file");
    let error = check(place.path()).expect_err("three are not built");
    let found = error.facts["diagnostics"].as_array().expect("diagnostics").clone();
    assert_eq!(found.iter().filter(|it| it["code"] == "missing_file").count(), 3, "{found:?}");
}

#[test]
fn a_mistake_fails_the_check_with_its_own_exit_code() {
    let place = tempfile::tempdir().expect("a folder");
    init(place.path(), &["--name", "here"]).expect("a workspace");
    fs::write(place.path().join("agents/a.toml"), "name = \"b\"\nnme = 1\n").expect("a file");
    let error = check(place.path()).expect_err("two mistakes");
    assert_eq!(error.exit, Exit::Check);
    assert_eq!(error.facts["diagnostics"].as_array().map(Vec::len), Some(2));
    assert!(error.body.unwrap_or_default().contains("agents/a.toml:2:1"));
}

#[test]
fn a_folders_name_becomes_the_workspaces() {
    let name = |folder: &str| name_of(Path::new(folder)).map(|name| name.to_string()).ok();
    assert_eq!(name("/nowhere/My Team (2)").as_deref(), Some("my-team-2"));
    assert_eq!(name("/nowhere/agents_v2").as_deref(), Some("agents_v2"));
    assert_eq!(name("/nowhere/日本"), None);
    assert_eq!(name("/"), None);
}

#[test]
fn an_answer_is_a_number_or_a_name() {
    let all = all_templates();
    assert_eq!(pick(&all, "1"), all.first());
    assert_eq!(pick(&all, "14"), all.last());
    assert_eq!(pick(&all, "go"), all.last());
    assert_eq!(pick(&all, "monitor").map(|template| template.name.as_str()), Some("monitor"));
    for none in ["0", "15", "-1", "x", ""] {
        assert_eq!(pick(&all, none), None, "{none:?}");
    }
}

#[test]
fn an_unknown_template_lists_all_of_them() {
    let error = known("code-reviwer").expect_err("no such template");
    assert_eq!(error.help.as_deref(), Some("did you mean `code-reviewer`?"));
    assert_eq!(error.body.unwrap_or_default().lines().count(), 14);
}
