//! `cargo xtask demo`, `cargo xtask test` and their kin: what a fresh machine needs, then the work itself.
//!
//! It has no dependencies, so that it starts at once, and it changes nothing but what it names first.

#![allow(clippy::print_stdout, reason = "a command line prints")]

mod needs;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const USAGE: &str = "\
usage: cargo xtask COMMAND [ARGS]

  demo        install what the build needs, build caxton, run `caxton demo`, then start the server
  test        install what the build needs, then run every test; without ARGS also three nodes in containers and the
              fault harness's shortest run, where this machine can
  setup       only install what the build needs; with `containers`, also an engine for them, if one can be had
  containers  build caxton, put it into an image, and test three nodes in containers (wants Docker)
  jepsen      build caxton and the fault harness, and run it: `short` unless told (see jepsen/README.md)
  arm         cross-build the sentence model's kernels for 64-bit Arm, and test them with and without its dot product of
              bytes (wants QEMU, and gcc for that target; says what is missing)
  charts      render, validate and test the Helm chart, the alerts and the dashboard (wants Python)
";

/// What tests/containers.sh ends with where containers cannot be had.
const CANNOT: i32 = 77;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("demo") => needs::meet().and_then(|()| demo(&args[1..])),
        Some("test") => needs::meet().and_then(|()| test(&args[1..])),
        Some("setup") => needs::meet().map(|()| {
            if args.get(1).is_some_and(|more| more == "containers")
                && let Err(why) = needs::meet_for_containers()
            {
                say(&format!("no containers: {why}"));
            }
        }),
        Some("containers") => needs::meet().and_then(|()| containers()),
        Some("arm") => arm(),
        Some("charts") => run(Command::new(repository().join("tests/charts.sh")).args(&args[1..])),
        Some("jepsen") => needs::meet().and_then(|()| jepsen(&args[1..])),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(format!("there is no command `{other}`\n\n{USAGE}")),
        None => Err(format!("say what to do\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the binary (with the features that the tests build it with, so that nothing is built twice), runs the demo, and then the server: on a terminal until Ctrl-C.
fn demo(args: &[String]) -> Result<(), String> {
    say("building caxton (the first build compiles RocksDB and the sentence model: plan an hour on two cores)");
    run(cargo().args(["build", "--workspace", "--bin", "caxton"]))?;
    let caxton = target_folder()?.join("debug/caxton");
    say("caxton demo");
    run(Command::new(&caxton).arg("demo").args(args))?;
    if !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        say("not on a terminal, so the server is left to you: caxton serve");
        return Ok(());
    }
    say("caxton serve (Ctrl-C stops it)");
    run(Command::new(&caxton).arg("serve"))
}

/// Builds everything the tests run, and runs them. What is chosen by arguments is only among cargo's tests.
fn test(args: &[String]) -> Result<(), String> {
    say(
        "building and running the tests (the first build compiles RocksDB and the sentence model: plan an hour on two cores)",
    );
    let tests = run(cargo().args(["test", "--workspace", "--tests", "--no-fail-fast"]).args(args));
    if !args.is_empty() {
        return tests;
    }
    // The tests have built the binary; building it by itself would choose other features and build half of it again.
    let caxton = target_folder()?.join("debug/caxton");
    let all = [tests, faults(&caxton), three_containers(&caxton)];
    let failed: Vec<String> = all.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}

/// Real nodes of `caxton` are killed and cut off, and what they acknowledged is checked. What this machine cannot do, the harness
/// says, and that is no failure.
fn faults(caxton: &Path) -> Result<(), String> {
    say("real nodes are killed and cut off");
    let harness = build_harness()?;
    run(Command::new(harness).args(["smoke", "--seconds", "10", "--caxton"]).arg(caxton))
}

/// Three nodes in containers; left out, and said so, where containers cannot be had.
fn three_containers(caxton: &Path) -> Result<(), String> {
    say("three nodes in containers");
    let script = repository().join("tests/containers.sh");
    let status = Command::new(&script).arg(caxton).arg("three").status();
    let status = status.map_err(|error| format!("cannot run {}: {error}", script.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(CANNOT) => {
            say("LEFT OUT: three nodes in containers, which this machine cannot have (see above)");
            Ok(())
        }
        Some(_) | None => Err(format!("three nodes in containers: {} ended with {status}", script.display())),
    }
}

/// Builds the binary and hands it to the script that puts it into containers; the script says what it lacks.
fn containers() -> Result<(), String> {
    say("building caxton");
    run(cargo().args(["build", "--workspace", "--bin", "caxton"]))?;
    run(Command::new(repository().join("tests/containers.sh")).arg(target_folder()?.join("debug/caxton")))
}

/// The kernels for 64-bit Arm on emulated processors; the script says what it lacks.
fn arm() -> Result<(), String> {
    run(untold(Command::new(repository().join("tests/arm.sh"))).arg(target_folder()?.join("arm")))
}

/// Builds the binary and the harness, and runs real nodes under real faults.
fn jepsen(args: &[String]) -> Result<(), String> {
    say("building caxton");
    run(cargo().args(["build", "--workspace", "--bin", "caxton"]))?;
    let harness = build_harness()?;
    let short = ["short".to_owned()];
    let args = if args.is_empty() { &short } else { args };
    run(Command::new(harness).args(args).arg("--caxton").arg(target_folder()?.join("debug/caxton")))
}

/// Builds the fault harness, which is a workspace of its own, and says where it is.
fn build_harness() -> Result<PathBuf, String> {
    say("building the fault harness");
    let (harness, built) = (repository().join("jepsen"), target_folder()?.join("jepsen"));
    run(cargo().current_dir(&harness).args(["build", "--locked", "--target-dir"]).arg(&built))?;
    Ok(built.join("debug/jepsen"))
}

fn cargo() -> Command {
    let mut cargo = untold(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())));
    cargo.current_dir(repository());
    cargo
}

/// Without what the cargo that runs this program says of it: dependencies whose build looks at that would be built once for
/// commands that are typed and once for these.
fn untold(mut command: Command) -> Command {
    let told = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|start| name.starts_with(start))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    command
}

/// Where the sources are that cargo was asked to run: a program that another checkout built into the same target folder
/// serves this one as well.
fn repository() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).join("../..")
}

/// Where cargo puts what it builds: this very program lies in it, at `debug/xtask`.
fn target_folder() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    own.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| format!("{} is not in a target folder", own.display()))
}

fn say(what: &str) {
    println!("\n==> {what}");
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("cannot run {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}")) }
}

/// Whether `program` runs and ends well with `args`.
fn works(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
