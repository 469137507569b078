//! WASI as far as it is granted. What is not granted is there, and empty: no files, no variables, clocks that stand
//! still, random numbers that are always the same, and no network at all.

use crate::grants::Grants;
use std::path::Path;
use std::time::Duration;
use wasmtime_wasi::{Deterministic, FsPerms, HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// Random bytes that one WASI call may ask for.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// 2000-01-01T00:00:00Z, where time stands still.
const STILL_SINCE_EPOCH: Duration = Duration::from_secs(946_684_800);

/// A context that grants nothing.
pub(crate) fn nothing() -> WasiCtxBuilder {
    bounded(&Grants::default())
}

/// A context with what is granted; `scratch` is this call's own directory.
pub(crate) fn granted(grants: &Grants, scratch: Option<&Path>) -> wasmtime::Result<WasiCtxBuilder> {
    let mut builder = bounded(grants);
    for (name, value) in &grants.env {
        builder.env(name, value);
    }
    if let Some(directory) = scratch {
        builder.preopened_dir(directory, "/scratch", FsPerms::ReadWrite)?;
    }
    Ok(builder)
}

fn bounded(grants: &Grants) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    // Blocking the thread stays off: with it, a command that sleeps sleeps where no deadline reaches it.
    builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(RANDOM_BYTES_MAX);
    if !grants.clock {
        builder.wall_clock(Still).monotonic_clock(Still);
    }
    if !grants.random {
        // Hash tables seed themselves with these, so they have to differ from each other, not from call to call.
        let fixed = || Deterministic::new((0..=255).collect());
        builder.secure_random(fixed()).insecure_random(fixed()).insecure_random_seed(0);
    }
    builder
}

struct Still;

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        STILL_SINCE_EPOCH
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        1
    }
}
