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

use serde::{Deserialize, Serialize};

/// How much address space a linear memory reserves; part of what the code relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Space {
    /// 4 GiB each, so that accesses need no check.
    Full,
    /// As much as it uses, where address space is short.
    Small,
}
