//! From WebAssembly to machine code, in a bounded way, and kept.
//!
//! Compiling is the one thing that a sandbox does not contain by itself: a few kilobytes can keep a compiler busy for
//! minutes. So a module is looked at first, then compiled by a process of its own under limits of the system, which
//! ends with that process whatever the module is like. Machine code is trusted, so what is kept is authenticated with
//! a key of this installation, and nothing else is ever run.

mod cache;
mod child;
mod inspect;

pub use cache::{Cache, CompileError};
pub use child::{COMPILE_COMMAND, Compiler, compile_child_main};
