//! One seed for everything that is random in a process: the schedule draws from it, and so does whoever asks the system.
//!
//! openraft, chitchat, tokio's `select!`, turmoil and every hash map seed themselves from the system. Here the system's
//! two ways to give random bytes, `getrandom` and the bare call, answer from the seed on the thread that a simulation runs on,
//! and as ever on all others. tokio counts its runtimes in a process as well, so a run that is to be repeated
//! has a process of its own: [`Run::of`].

use std::cell::Cell;
use std::ffi::{c_long, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Names the seed of a run, and what is wrong on purpose in it: `7` or `7:lies`.
pub const SEED_VARIABLE: &str = "CAXTON_SIMULATION";
/// Names the file that a run's trace is written to.
pub const TRACE_VARIABLE: &str = "CAXTON_SIMULATION_TRACE";

thread_local! {
    /// What the system's random bytes come from here.
    static SYSTEM: Cell<Option<u64>> = const { Cell::new(None) };
    /// What the simulation itself draws from.
    static DRAWS: Cell<u64> = const { Cell::new(0) };
}

/// The next number of the sequence that `state` is at (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number from `from` up to `to`, without `to`.
pub fn draw(from: u64, to: u64) -> u64 {
    let mut state = DRAWS.get();
    let drawn = next(&mut state);
    DRAWS.set(state);
    from + drawn % (to - from).max(1)
}

/// Whether something happens that happens once in `times`.
pub fn once_in(times: u64) -> bool {
    draw(0, times) == 0
}

/// Does `run` on a thread whose randomness is all of `seed`.
pub fn on_a_seeded_thread<T: Send>(seed: u64, run: impl FnOnce() -> T + Send) -> T {
    let seeded = || {
        SYSTEM.set(Some(!seed));
        DRAWS.set(seed);
        run()
    };
    let done = std::thread::scope(|scope| scope.spawn(seeded).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A folder of this process: two that run one seed draw the same names.
pub fn folder_in(place: impl AsRef<Path>) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(&format!("caxton-simulation-{}-", std::process::id())).tempdir_in(place)
}

/// Fills `bytes` from the seed; not where no simulation runs.
fn fill(bytes: *mut u8, len: usize) -> bool {
    // A thread that ends may ask when its own state is gone.
    let Some(mut state) = SYSTEM.try_with(Cell::get).ok().flatten() else { return false };
    for at in 0..len {
        // SAFETY: whoever asks for random bytes owns `len` of them at `bytes`.
        unsafe { bytes.add(at).write(next(&mut state) as u8) };
    }
    SYSTEM.set(Some(state));
    true
}

/// Stands in for libc's function of this name in the whole test binary.
///
/// # Safety
/// As for `getrandom(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(bytes: *mut c_void, len: usize, flags: c_uint) -> isize {
    if fill(bytes.cast(), len) {
        return len as isize;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { real_syscall(libc::SYS_getrandom, [bytes as c_long, len as c_long, flags.into(), 0, 0, 0]) as isize }
}

/// Stands in for libc's function of this name in the whole test binary. Those of its arguments that a caller did not give are
/// registers that the kernel does not read either.
///
/// # Safety
/// As for `syscall(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom && fill(a as *mut u8, b as usize) {
        return b;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { real_syscall(number, [a, b, c, d, e, f]) }
}

/// libc's own `syscall`.
///
/// # Safety
/// As for `syscall(2)`.
unsafe fn real_syscall(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut real = REAL.load(Ordering::Relaxed);
    if real.is_null() {
        // SAFETY: the name is a string that ends with a zero.
        real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        assert!(!real.is_null(), "libc has no function `syscall`");
        REAL.store(real, Ordering::Relaxed);
    }
    // SAFETY: this is what libc has under that name; its further arguments travel as those of a function with a fixed
    // number do, on every system that Linux runs this on.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(real)(number, a, b, c, d, e, f) }
}

/// A run of a simulation.
#[derive(Debug, Default)]
pub struct Run {
    /// Every event, with the simulated time.
    pub trace: String,
    /// What is wrong.
    pub findings: Vec<String>,
}

/// A line of a trace that starts so is a finding.
const FINDING: &str = "finding: ";

impl Run {
    /// Runs the test `test` of this binary in a process of its own.
    pub fn of(test: &str, seed: &str) -> Run {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("trace");
        let mut child = Command::new(std::env::current_exe().expect("this binary"));
        child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        let done = child.env(SEED_VARIABLE, seed).env(TRACE_VARIABLE, &file).output().expect("it runs");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            panic!("the run of seed {seed} left no trace ({error}): {}\n{said}", done.status)
        });
        let findings = text.lines().filter_map(|line| line.strip_prefix(FINDING)).map(str::to_owned).collect();
        let trace = text.lines().filter(|line| !line.starts_with(FINDING)).collect::<Vec<_>>().join("\n");
        Run { trace, findings }
    }

    /// Writes it down for whoever started this process, or says what is wrong.
    pub fn tell(&self) {
        match std::env::var_os(TRACE_VARIABLE) {
            Some(file) => {
                let findings: String = self.findings.iter().map(|it| format!("{FINDING}{it}\n")).collect();
                std::fs::write(Path::new(&file), format!("{}\n{findings}", self.trace)).expect("the trace is written");
            }
            None => assert!(self.findings.is_empty(), "{:#?}", self.findings),
        }
    }
}

/// The seed of this process, and what is wrong on purpose.
pub fn chosen() -> (u64, String) {
    let chosen = std::env::var(SEED_VARIABLE).unwrap_or_else(|_| "1".to_owned());
    let (seed, wrong) = chosen.split_once(':').unwrap_or((&chosen, ""));
    (seed.parse().expect("a seed is a number"), wrong.to_owned())
}

/// Where two traces part, for whoever has to find out why.
pub fn first_difference(one: &str, other: &str) -> String {
    let mut lines = one.lines().zip(other.lines()).enumerate();
    match lines.find(|(_, (one, other))| one != other) {
        Some((number, (one, other))) => format!("line {}:\n{one}\n{other}", number + 1),
        None => format!("one has {} lines and the other {}", one.lines().count(), other.lines().count()),
    }
}
