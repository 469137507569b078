//! The process that compiles: its limits, its work, and the parent's side of it.

use super::inspect::inspect;
use crate::engine::{self, Space};
use crate::limits::CompileLimits;
use crate::tool::Kind;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The hidden subcommand of the program that calls `compile_child_main`.
pub const COMPILE_COMMAND: &str = "__compile-tool";

/// What the child says first, so that no other program is taken for one.
const GREETING: &str = "caxton-compile-tool 1";
/// How long it may take to say so.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
/// Set for the child, which compiles by no other process.
const CHILD_VARIABLE: &str = "CAXTON_COMPILE_CHILD";

/// Processor time for any module, and for each MiB of it on top.
const CPU_BASE: Duration = Duration::from_secs(10);
const CPU_PER_MIB: Duration = Duration::from_secs(5);
/// The work is background work.
const NICE: i32 = 10;
/// How often the parent looks whether the child is done.
const POLL: Duration = Duration::from_millis(2);
const ERROR_BYTES_MAX: u64 = 8 << 10;
const REFUSED: u8 = 3;
const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;

/// What makes machine code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// A process of this program, which calls [`compile_child_main`] when it is started with these arguments.
    Process {
        /// The program that is started to compile.
        program: PathBuf,
        /// The arguments that make it compile and do nothing else.
        arguments: Vec<OsString>,
    },
    /// This process itself, which only looks at the module first: for tests and for trusted modules.
    Inline,
}

impl Compiler {
    /// The running program, started again with [`COMPILE_COMMAND`], whatever its file is called and even if that was
    /// replaced since. Whether it is a program that compiles, it has to say itself before it gets a module.
    pub fn this_program() -> std::io::Result<Compiler> {
        let link = Path::new("/proc/self/exe");
        let program = if link.exists() { link.to_owned() } else { std::env::current_exe()? };
        Ok(Compiler::Process { program, arguments: vec![COMPILE_COMMAND.into()] })
    }
}

/// What the parent asks of the child, as JSON on its standard input.
#[derive(Serialize, Deserialize)]
struct Order {
    input: PathBuf,
    output: PathBuf,
    component: bool,
    space: Space,
    cpu_s: u64,
    address_space_bytes: u64,
}

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileFailure {
    #[error("{0}")]
    Refused(String),
    #[error("compiling it takes too much: {0}")]
    TooMuch(String),
    #[error("the compiling process did not work: {0}")]
    Broken(String),
}

/// The code of a module, made in this process.
pub(super) fn inline(wasm: &[u8], kind: Kind, space: Space, limits: &CompileLimits) -> Result<Vec<u8>, CompileFailure> {
    inspect(wasm, limits).map_err(CompileFailure::Refused)?;
    compile(wasm, kind == Kind::Component, space).map_err(CompileFailure::Refused)
}

/// A compiler that panics over a module has refused it, and takes nothing else with it.
fn compile(wasm: &[u8], component: bool, space: Space) -> Result<Vec<u8>, String> {
    let compiled = std::panic::catch_unwind(|| translate(wasm, component, space));
    compiled.unwrap_or_else(|_| Err("the compiler crashed over it".into()))
}

fn translate(wasm: &[u8], component: bool, space: Space) -> Result<Vec<u8>, String> {
    let engine = engine::for_compiling(space).map_err(|error| format!("{error:#}"))?;
    if wasmparser::Parser::is_component(wasm) != component {
        let (is, wanted) = if component { ("core module", "component") } else { ("component", "core module") };
        return Err(format!("it is a {is}, and its manifest says that it is a {wanted}"));
    }
    let code = if component { engine.precompile_component(wasm) } else { engine.precompile_module(wasm) };
    code.map_err(|error| format!("{error:#}"))
}

/// The code of a module, made by a process of its own; `folder` is private to this program.
pub(super) fn process(
    (program, arguments): (&Path, &[OsString]),
    wasm: &[u8],
    kind: Kind,
    space: Space,
    limits: &CompileLimits,
    folder: &Path,
) -> Result<Vec<u8>, CompileFailure> {
    let broken = |error: std::io::Error| CompileFailure::Broken(error.to_string());
    let work = tempfile::Builder::new().prefix("compile-").tempdir_in(folder).map_err(broken)?;
    let (input, output) = (work.path().join("in.wasm"), work.path().join("out.cwasm"));
    fs::write(&input, wasm).map_err(broken)?;
    let mebibytes = u32::try_from(wasm.len() >> 20).unwrap_or(u32::MAX);
    let cpu = (CPU_BASE + CPU_PER_MIB * mebibytes).min(limits.cpu);
    let order = Order {
        input,
        output: output.clone(),
        component: kind == Kind::Component,
        space,
        cpu_s: cpu.as_secs().max(1),
        address_space_bytes: limits.address_space_bytes,
    };
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        return Err(CompileFailure::Broken("this process was started to compile and starts no other".into()));
    }
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env(CHILD_VARIABLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(broken)?;
    if !greets(&mut child) {
        let _ = child.kill();
        let _ = child.wait();
        let what =
            format!("{} is no program that compiles tools, and nothing is compiled without one", program.display());
        return Err(CompileFailure::Broken(what));
    }
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended already says so by its status.
        let _ = serde_json::to_writer(&mut stdin, &order);
    }
    let deadline = Instant::now() + limits.wall;
    let status = loop {
        match child.try_wait().map_err(broken)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(CompileFailure::TooMuch(format!("more than {:?}", limits.wall)));
            }
            None => thread::sleep(POLL),
        }
    };
    if status.success() {
        return fs::read(&output).map_err(broken);
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(ERROR_BYTES_MAX).read_to_string(&mut said);
    }
    Err(failed(status, said.trim(), cpu))
}

/// Whether a child says that it is one, soon.
fn greets(child: &mut Child) -> bool {
    let Some(output) = child.stdout.take() else { return false };
    let (said, heard) = mpsc::channel();
    // Ends with the child, which is killed when it says nothing.
    let reader = thread::Builder::new().name("compile-greeting".into()).spawn(move || {
        for line in BufReader::new(output.take(ERROR_BYTES_MAX)).lines().map_while(Result::ok) {
            if line.trim_end().ends_with(GREETING) && said.send(()).is_err() {
                return;
            }
        }
    });
    reader.is_ok() && heard.recv_timeout(GREETING_TIME_MAX).is_ok()
}

fn failed(status: ExitStatus, said: &str, cpu: Duration) -> CompileFailure {
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(REFUSED) => CompileFailure::Refused(said.to_string()),
        (_, Some(SIGXCPU | SIGKILL)) => CompileFailure::TooMuch(format!("more than {cpu:?} of processor time")),
        _ if said.contains("memory allocation") => CompileFailure::TooMuch("more memory than it may have".into()),
        _ => CompileFailure::Broken(format!("{status}: {}", said.lines().last().unwrap_or_default())),
    }
}

/// The child: reads its order, puts limits on itself, and compiles. The program's `main` calls this before anything
/// else when its first argument is [`COMPILE_COMMAND`].
pub fn compile_child_main() -> ExitCode {
    let said = match work() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(said) => said,
    };
    let _ = std::io::stderr().write_all(said.as_bytes());
    ExitCode::from(REFUSED)
}

fn work() -> Result<(), String> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{GREETING}").and_then(|()| output.flush()).map_err(|error| error.to_string())?;
    drop(output);
    let order: Order = serde_json::from_reader(std::io::stdin().lock()).map_err(|error| error.to_string())?;
    let limit = |resource, amount: u64| {
        let rlimit = Rlimit { current: Some(amount), maximum: Some(amount) };
        setrlimit(resource, rlimit).map_err(|error| format!("no limit on {resource:?}: {error}"))
    };
    limit(Resource::Cpu, order.cpu_s)?;
    limit(Resource::As, order.address_space_bytes)?;
    limit(Resource::Core, 0)?;
    let _ = rustix::process::setpriority_process(None, NICE);
    let wasm = fs::read(&order.input).map_err(|error| error.to_string())?;
    inspect(&wasm, &CompileLimits::default())?;
    let code = compile(&wasm, order.component, order.space)?;
    fs::write(&order.output, code).map_err(|error| error.to_string())
}
