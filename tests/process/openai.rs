//! The OpenAI-compatible API, held against OpenAI's own Python client, which pip fetches into a folder that is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Node, Place};

/// The client that this was written against.
const WANTED: &str = "openai==3.52.0";

/// A Python with the client; nothing where it cannot be had.
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("CAXTON_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/caxton")))?;
    let venv = cache.join("openai-venv");
    let python = venv.join("bin/python");
    if fs::read_to_string(venv.join("wanted")).is_ok_and(|had| had == WANTED) && runs(&python, &["-c", "import openai"])
    {
        return Some(python);
    }
    let _ = fs::remove_dir_all(&venv);
    fs::create_dir_all(&cache).ok()?;
    let made = runs(Path::new("python3"), &["-m", "venv", venv.to_str()?])
        && runs(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", WANTED]);
    fs::write(venv.join("wanted"), WANTED).ok()?;
    made.then_some(python)
}

fn runs(program: &Path, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that was not run says why")]
fn openais_own_client_is_content() {
    let Some(python) = python() else {
        eprintln!("NOT RUN: {WANTED} cannot be had: it takes python3 with venv, and a package index");
        return;
    };
    let place = Place::new();
    let workspace = place.empty_workspace("work");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/csv-to-chart");
    let copied = Command::new("cp").arg("-r").arg(example.join(".")).arg(&workspace.root).status();
    assert!(copied.expect("cp runs").success());
    let settings = fs::read_to_string(example.join("caxton.toml")).expect("settings").replace("csv-to-chart", "demo");
    let settings = format!("{settings}\n[providers.weather]\nkind = \"scripted\"\nscript = \"prompts/weather.toml\"\n");
    workspace.write("caxton.toml", settings);
    workspace.write(
        "prompts/weather.toml",
        "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"get_weather\"\narguments = { city = \"Oslo\" }\n\
         [[rule]]\nwhen.after = \"get_weather\"\nsay = \"In Oslo it is {{get_weather/degrees}} degrees.\"\n",
    );
    workspace.write(
        "agents/talker.toml",
        "[agent]\nname = \"talker\"\ndescription = \"Talks about the weather\"\n\n\
         [capabilities]\npatterns = [\"talk about the weather\"]\n\n[llm]\nprovider = \"weather\"\n",
    );
    let node = Node::start(&place.data());
    workspace.deploy().ok();
    let token = fs::read_to_string(place.data().join("admin-token")).expect("a token");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/process/openai_client.py");
    let ran = Command::new(python).arg(script).arg(&node.url).arg(token.trim()).output().expect("python runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(node.terminate().success());
}
