//! How much one call may use, and how much all of them together may.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The largest memory that any tool may be given: what 32 bits address.
pub const MEMORY_BYTES_CEILING: u64 = 4 << 30;
/// The longest that any call may take.
pub const WALL_CEILING: Duration = Duration::from_secs(600);

/// What one call of a tool may use. Reaching one is an error that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Linear memory, all memories of the instance together.
    pub memory_bytes: u64,
    /// From the start of the call to its end, host calls included.
    #[serde(rename = "wall_ms", with = "millis")]
    pub wall: Duration,
    /// Processor time of one call; in milliseconds where it is written down.
    #[serde(rename = "cpu_ms", with = "millis")]
    pub cpu: Duration,
    /// Bytes of the arguments, as JSON.
    pub input_bytes: u64,
    /// Bytes of the result.
    pub output_bytes: u64,
    /// Calls at once; one more waits.
    pub concurrent_calls: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 64 << 20,
            wall: Duration::from_secs(30),
            cpu: Duration::from_secs(5),
            input_bytes: 4 << 20,
            output_bytes: 1 << 20,
            concurrent_calls: 16,
        }
    }
}

impl Limits {
    /// The same limits, none above what any tool may have.
    pub fn capped(mut self) -> Limits {
        self.memory_bytes = self.memory_bytes.clamp(64 << 10, MEMORY_BYTES_CEILING);
        self.wall = self.wall.min(WALL_CEILING);
        self.cpu = self.cpu.min(self.wall);
        self.input_bytes = self.input_bytes.min(64 << 20);
        self.output_bytes = self.output_bytes.min(64 << 20);
        self.concurrent_calls = self.concurrent_calls.clamp(1, 1_024);
        self
    }
}

/// What making machine code of a module may cost. A module that would cost more is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileLimits {
    /// The module's or component's size.
    pub module_bytes: u64,
    /// Functions, all nested modules together.
    pub functions: u32,
    /// Locals and parameters of one function.
    pub function_locals: u32,
    /// Bytes of one function's body.
    pub function_bytes: u32,
    /// Blocks inside blocks.
    pub nesting: u32,
    /// Modules and components inside a component.
    pub nested_modules: u32,
    /// Processor time of the compiling process, on all its threads together.
    pub cpu: Duration,
    /// From its start to its end.
    pub wall: Duration,
    /// Its address space.
    pub address_space_bytes: u64,
    /// Processes that compile at the same time.
    pub processes: usize,
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits {
            module_bytes: 32 << 20,
            functions: 100_000,
            function_locals: 20_000,
            function_bytes: 2 << 20,
            nesting: 1_000,
            nested_modules: 256,
            cpu: Duration::from_secs(60),
            wall: Duration::from_secs(120),
            address_space_bytes: 4 << 30,
            processes: 2,
        }
    }
}

/// A duration in JSON as whole milliseconds.
pub(crate) mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// A duration in JSON as whole microseconds.
pub(crate) mod micros {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}
