//! THE DEPLOY WALK, from a request to the revision that this node serves.
//!
//! Nothing is proposed that cannot run, and nothing is stored under a digest that it does not have. The log alone
//! decides who comes first: what is looked up before is there to refuse early, and may be wrong.

pub mod assemble;

pub mod verify;

pub mod check;

pub mod pins;

/// How large what is deployed may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many files a workspace may have.
    pub files_max: u64,
    /// How large one of them may be.
    pub file_bytes_max: u64,
    /// How large all of them may be together.
    pub workspace_bytes_max: u64,
}
