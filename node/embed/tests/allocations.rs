//! How much memory a sentence asks for: what a thread has used once it uses again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use caxton_embed::Embedder;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system's allocator's; counting touches no memory that it gave out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

#[test]
fn a_sentence_allocates_its_vector_and_room_for_a_word() {
    let embedder = Embedder::load();
    let (short, long) = ("restart the ingestion pipeline", "water the plants in the office ".repeat(30));
    drop(embedder.embed(&long));
    for text in [short, &long, short] {
        let count = allocations(|| drop(embedder.embed(text)));
        assert!((1..=2).contains(&count), "{count} allocations for a text of {} bytes", text.len());
    }
}
