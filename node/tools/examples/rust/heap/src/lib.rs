//! The tools' allocator: it begins in memory that an instance has from its start, and grows only when that is used up.
//!
//! Rust's own grows the memory at the first allocation of every call. Growing and taking it back change what the
//! process may touch, twice a call, which stops the process's other threads: it was half of what a short call cost.
#![cfg(target_family = "wasm")]

use core::alloc::Layout;
use core::arch::wasm32::memory_grow;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use talc::base::binning::Binning;
use talc::base::{CHUNK_UNIT, Talc};
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

const ARENA_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 64 << 10;

static mut ARENA: [MaybeUninit<u8>; ARENA_BYTES] = [MaybeUninit::uninit(); ARENA_BYTES];

#[global_allocator]
static HEAP: TalcSyncCell<ArenaThenPages, WasmBinning> = TalcSyncCell::new_wasm(ArenaThenPages::Arena);

/// Where memory comes from next.
#[derive(Debug)]
enum ArenaThenPages {
    /// The arena, which nobody has yet.
    Arena,
    /// New pages, which stand alone.
    Pages,
    /// New pages, which belong to those that end here unless somebody else took some in between.
    After(NonNull<u8>),
}

// SAFETY: nothing in here allocates.
unsafe impl Source for ArenaThenPages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if let ArenaThenPages::Arena = talc.source {
            talc.source = ArenaThenPages::Pages;
            // SAFETY: nobody else has the arena, and it is given away once.
            return unsafe { talc.claim((&raw mut ARENA).cast(), ARENA_BYTES) }.map(drop).ok_or(());
        }
        // What was asked for, and what the allocator puts around it.
        let pages = (layout.size() + layout.align() + 8 * CHUNK_UNIT).div_ceil(PAGE_BYTES);
        let before = memory_grow::<0>(pages);
        if before == usize::MAX {
            return Err(());
        }
        let (base, bytes) = ((before * PAGE_BYTES) as *mut u8, pages * PAGE_BYTES);
        let end = match talc.source {
            // SAFETY: the pages are new, and come right after those that the allocator has.
            ArenaThenPages::After(end) if end.as_ptr() == base => unsafe { talc.extend(end, base.wrapping_add(bytes)) },
            // SAFETY: the pages are new.
            _ => unsafe { talc.claim(base, bytes) }.ok_or(())?,
        };
        talc.source = ArenaThenPages::After(end);
        Ok(())
    }
}
