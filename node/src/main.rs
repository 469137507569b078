//! The one binary: a command line in front of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A node starts itself once more to compile a tool, under limits that end with that process.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == caxton::tools::COMPILE_COMMAND) {
        return caxton::tools::compile_child_main();
    }
    caxton::cli::main()
}
