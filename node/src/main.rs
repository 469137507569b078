//! The one binary: a command line in front of the library.

use std::process::ExitCode;

/// For RocksDB and SQLite too: a busy node allocates all the time, and glibc's allocator took an eighth of it. Not in a debug
/// build, so that one can be run under libfaketime: the two wait for each other.
#[cfg(not(debug_assertions))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Memory that nobody needs goes back to the system within a second, by a thread of the allocator's own.
// SAFETY: this is the name under which jemalloc looks for its settings, and they end with a zero.
#[cfg(not(debug_assertions))]
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: Option<&'static std::ffi::c_char> =
    Some(unsafe { &*c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr() });

fn main() -> ExitCode {
    // A node starts itself once more to compile a tool, under limits that end with that process.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == caxton::tools::COMPILE_COMMAND) {
        return caxton::tools::compile_child_main();
    }
    caxton::cli::main()
}
