//! The one binary: a command line in front of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    caxton::cli::main()
}
