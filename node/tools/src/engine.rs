//! The wasmtime engine, as it was measured to be fast and safe, and the clock that interrupts guests.
//!
//! Everything in `code_settings` changes the machine code: the process that compiles and the process that runs must
//! agree on it, so both take it from here.

use crate::limits::MEMORY_BYTES_CEILING;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::Duration;
use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often a running guest looks whether it may go on.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the ticker goes to sleep.
const IDLE_TICKS_MAX: u32 = 200;
/// Elements of one table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Core instances, memories and tables of one component: enough for Python's and JavaScript's.
pub(crate) const CORE_INSTANCES_MAX: u32 = 60;
pub(crate) const MEMORIES_MAX: u32 = 4;
pub(crate) const TABLES_MAX: u32 = 8;
const WASM_STACK_BYTES: usize = 512 << 10;
/// Memory that a free slot keeps, so that the next call does not fault it in again, and how many slots may.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;
const WARM_SLOTS_MAX: u32 = 16;

/// How much address space a linear memory reserves; part of what the code relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Space {
    /// 4 GiB each, so that accesses need no check.
    Full,
    /// As much as it uses, where address space is short.
    Small,
}

fn code_settings(space: Space) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(2 * WASM_STACK_BYTES + (1 << 20))
        .wasm_memory64(false)
        // What joins two components inside of one has both their memories; the look at a module refuses its own second.
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8));
    if space == Space::Small {
        config.memory_reservation(0).memory_guard_size(64 << 10);
    }
    config
}

/// An engine that compiles and never runs anything.
pub(crate) fn for_compiling(space: Space) -> wasmtime::Result<Engine> {
    Engine::new(&code_settings(space))
}

/// The engine that runs guests, with room for `slots` at once.
pub(crate) fn for_running(slots: u32) -> wasmtime::Result<(Engine, Space)> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_MAX)
        .total_memories(slots * 2)
        .total_tables(slots * TABLES_MAX)
        .total_stacks(slots)
        .max_memory_size(MEMORY_BYTES_CEILING as usize)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(4)
        .max_core_instance_size(1 << 20)
        .max_component_instance_size(1 << 20)
        .max_unused_warm_slots(slots.min(WARM_SLOTS_MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = code_settings(Space::Full);
    config.memory_init_cow(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    match Engine::new(&config) {
        Ok(engine) => Ok((engine, Space::Full)),
        Err(error) => {
            // The pool reserves 4 GiB of address space a slot, which a container or `ulimit -v` may not allow.
            let error = format!("{error:#}");
            warn!(error, "no address space for the instance pool: tools start more slowly");
            Ok((Engine::new(&code_settings(Space::Small))?, Space::Small))
        }
    }
}

/// Moves the engine's epoch while calls run, and sleeps when none do.
pub(crate) struct Ticker {
    shared: Arc<Ticking>,
    thread: Thread,
}

struct Ticking {
    calls: AtomicU64,
    asleep: AtomicBool,
}

impl Ticker {
    /// Starts the thread, which ends with the engine's last handle.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(Ticking { calls: AtomicU64::new(0), asleep: AtomicBool::new(false) });
        let (ticking, engine) = (Arc::downgrade(&shared), engine.weak());
        let handle = thread::Builder::new().name("tool-ticker".into()).spawn(move || tick(&ticking, &engine))?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// Says that a call begins.
    pub(crate) fn wake(&self) {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Says that a call ended.
    pub(crate) fn rest(&self) {
        self.shared.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

fn tick(ticking: &Weak<Ticking>, engine: &wasmtime::EngineWeak) {
    let mut idle = 0;
    loop {
        let (Some(ticking), Some(engine)) = (ticking.upgrade(), engine.upgrade()) else { return };
        engine.increment_epoch();
        idle = if ticking.calls.load(Ordering::Relaxed) == 0 { idle + 1 } else { 0 };
        if idle < IDLE_TICKS_MAX {
            drop((ticking, engine));
            thread::sleep(TICK);
            continue;
        }
        idle = 0;
        ticking.asleep.store(true, Ordering::SeqCst);
        // A call that began before the store saw `asleep` false, so look once more before sleeping.
        if ticking.calls.load(Ordering::SeqCst) == 0 {
            drop((ticking, engine));
            thread::park();
        } else {
            ticking.asleep.store(false, Ordering::SeqCst);
        }
    }
}
