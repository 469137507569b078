//! The memory that all instances of a node may have together.
//!
//! Each call has a limit of its own; so many calls at once may still be more than the machine has.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where it cannot be told how much memory there is.
const FALLBACK_BYTES: u64 = 2 << 30;

/// The memory of all instances together.
pub(crate) struct Budget {
    bytes_max: u64,
    used: AtomicU64,
}

impl Budget {
    /// So many bytes; 0 for half of what the machine or the container has.
    pub(crate) fn new(bytes_max: u64) -> Arc<Budget> {
        let bytes_max = if bytes_max == 0 { machine_bytes() / 2 } else { bytes_max };
        Arc::new(Budget { bytes_max, used: AtomicU64::new(0) })
    }

    /// The part of one instance, empty at first.
    pub(crate) fn reserve(self: &Arc<Budget>) -> MemoryReservation {
        MemoryReservation { budget: self.clone(), bytes: 0 }
    }

    /// Whether so little is left that instances are better not kept for later calls.
    pub(crate) fn is_short(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.bytes_max / 4 * 3
    }
}

/// One instance's part, which goes back when it is dropped.
pub(crate) struct MemoryReservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl MemoryReservation {
    /// Takes more of it; false, and nothing taken, when there is not so much left.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.budget.bytes_max);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// What is told when there is none left.
    pub(crate) fn refusal(&self) -> String {
        format!(
            "the tools of this node have all the {} bytes of memory that they may have together",
            self.budget.bytes_max
        )
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory of the machine, or of the container that this process is in.
fn machine_bytes() -> u64 {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = container.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    total.into_iter().chain(limits).min().unwrap_or(FALLBACK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(100);
        let mut one = budget.reserve();
        assert!(one.grow(60) && !budget.is_short());
        let mut two = budget.reserve();
        assert!(!two.grow(41), "both together have no more");
        assert!(two.grow(40) && budget.is_short());
        assert!(!one.grow(u64::MAX));
        drop(one);
        assert!(two.grow(60) && !two.grow(1));
        drop(two);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert!(Budget::new(0).bytes_max > 1 << 20, "half of this machine");
    }
}
