//! The API held against other people's own clients, which pip and npm fetch into a folder that is kept: OpenAI's for Python and
//! JavaScript, and Anthropic's for Python. What cannot be had is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::run::{Node, Place};

/// The clients that this was written against.
const PYTHON: [&str; 2] = ["openai==3.52.0", "anthropic==2.14.0"];
const JAVASCRIPT: [&str; 1] = ["openai@7.59.0"];

/// One test at a time sets up the folder.
static SETTING_UP: Mutex<()> = Mutex::new(());

/// A folder that holds exactly what is `wanted`, which `make` makes; nothing where that cannot be had.
fn kept(name: &str, wanted: &[&str], make: impl FnOnce(&Path) -> Option<()>) -> Option<PathBuf> {
    let _alone = SETTING_UP.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = std::env::var_os("CAXTON_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/caxton")))?;
    let (folder, wanted) = (cache.join(name), wanted.join(" "));
    if fs::read_to_string(folder.join("wanted")).is_ok_and(|had| had == wanted) {
        return Some(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).ok()?;
    make(&folder)?;
    fs::write(folder.join("wanted"), wanted).ok()?;
    Some(folder)
}

fn runs(command: &mut Command) -> Option<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success()).then_some(())
}

/// A Python with these packages.
pub fn python(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let folder = kept(name, packages, |folder| {
        runs(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        runs(Command::new(folder.join("bin/python")).args(pip).args(packages))
    })?;
    Some(folder.join("bin/python"))
}

/// A folder with these packages of npm.
pub fn node_modules(name: &str, packages: &[&str]) -> Option<PathBuf> {
    kept(name, packages, |folder| {
        let install = ["install", "--no-audit", "--no-fund", "--silent", "--prefix"];
        runs(Command::new("npm").args(install).arg(folder).args(packages))
    })
}

#[expect(clippy::print_stderr, reason = "a test that was not run says why")]
pub fn left_out(what: &str, takes: &str) {
    eprintln!("NOT RUN: {what} cannot be had: it takes {takes}, and a package index");
}

/// A node that serves the example, an agent with a tool of its sender's, and one that never has an answer.
pub fn node(place: &Place) -> (Node, String) {
    let workspace = place.empty_workspace("work");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/csv-to-chart");
    let copied = Command::new("cp").arg("-r").arg(example.join(".")).arg(&workspace.root).status();
    assert!(copied.expect("cp runs").success());
    let settings = fs::read_to_string(example.join("caxton.toml")).expect("settings").replace("csv-to-chart", "demo");
    let provider =
        |name: &str| format!("\n[providers.{name}]\nkind = \"scripted\"\nscript = \"prompts/{name}.toml\"\n");
    workspace.write("caxton.toml", format!("{settings}{}{}", provider("weather"), provider("mute")));
    workspace.write(
        "prompts/weather.toml",
        "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"get_weather\"\narguments = { city = \"Oslo\" }\n\
         [[rule]]\nwhen.after = \"get_weather\"\nsay = \"In Oslo it is {{get_weather/degrees}} degrees.\"\n",
    );
    workspace.write("prompts/mute.toml", "[[rule]]\nwhen.request = \"a word that nobody says\"\nsay = \"x\"\n");
    for (name, about, provider) in [("talker", "talk about the weather", "weather"), ("mute", "keep silent", "mute")] {
        let agent = format!(
            "[agent]\nname = \"{name}\"\ndescription = \"{about}\"\n\n[capabilities]\npatterns = [\"{about}\"]\n\n\
             [llm]\nprovider = \"{provider}\"\n"
        );
        workspace.write(&format!("agents/{name}.toml"), agent);
    }
    let node = Node::start(&place.data());
    workspace.deploy().ok();
    let token = fs::read_to_string(place.data().join("admin-token")).expect("a token");
    (node, token.trim().to_owned())
}

/// Runs a script against a node, with the node's address and a token as its arguments.
fn content(mut program: Command, script: &Path) {
    let place = Place::new();
    let (node, token) = node(&place);
    let ran = program.arg(script).arg(&node.url).arg(token).output().expect("the program runs");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(node.terminate().success());
}

/// A script beside this file.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/process/clients").join(name)
}

#[test]
fn openais_own_python_client_is_content() {
    let Some(python) = python("clients-venv", &PYTHON) else {
        return left_out("OpenAI's client for Python", "python3 with venv");
    };
    content(Command::new(python), &script("openai_client.py"));
}

#[test]
fn anthropics_own_python_client_is_content() {
    let Some(python) = python("clients-venv", &PYTHON) else {
        return left_out("Anthropic's client for Python", "python3 with venv");
    };
    content(Command::new(python), &script("anthropic_client.py"));
}

#[test]
fn openais_own_javascript_client_is_content() {
    let Some(folder) = node_modules("clients-npm", &JAVASCRIPT) else {
        return left_out("OpenAI's client for JavaScript", "node and npm");
    };
    // A module finds the packages beside itself.
    let copy = folder.join("openai_client.mjs");
    fs::copy(script("openai_client.mjs"), &copy).expect("copied");
    content(Command::new("node"), &copy);
}
