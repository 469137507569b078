//! Why a backend could not be fed or searched.

use std::time::Duration;

use crate::memory::MemoryError;

/// Why a backend could not be fed or searched. `Display` ends in what to do where a person can do something.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Nobody answers there.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why, without the address.
        #[source]
        source: reqwest::Error,
    },
    /// It took longer than the workspace's file allows.
    #[error("{address} has not answered within {} ms; `timeout` under [memory] gives it longer", timeout.as_millis())]
    Silent {
        /// Where it was asked.
        address: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It says no.
    #[error("{address} answers {status}: {said}")]
    Refused {
        /// Where it was asked.
        address: String,
        /// The status of its answer.
        status: u16,
        /// What it says, cut.
        said: String,
    },
    /// What it answers cannot be its answer.
    #[error("{address} does not answer as it should: {problem}")]
    Nonsense {
        /// Where it was asked.
        address: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// It cannot be asked as the workspace's file has it.
    #[error("{0}")]
    Setup(String),
    /// The tool failed.
    #[error("the tool `{tool}` failed in `{function}`: {problem}")]
    Tool {
        /// The tool that stands behind it.
        tool: String,
        /// The function that was called.
        function: &'static str,
        /// What it says, cut.
        problem: String,
    },
    /// It has the memories of somebody else under this workspace's name.
    #[error(
        "it holds this workspace's name for {found}, and this is {own}; name another collection or database in caxton.toml, or \
         take it over with `caxton memory sync`"
    )]
    Foreign {
        /// The cluster and the shard that it was fed from.
        found: String,
        /// Those that would feed it now.
        own: String,
    },
    /// It cannot do what was asked for.
    #[error("{0}")]
    Unable(&'static str),
    /// It does not have everything yet.
    #[error("it is being filled, with {done} of {total} memories so far")]
    Filling {
        /// How many it has.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// Another node feeds it now, or the workspace's file names another one.
    #[error("this node leads the shard no longer, or the workspace names another backend")]
    NotLeader,
    /// What is remembered cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
