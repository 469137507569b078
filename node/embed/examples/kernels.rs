//! How long each kernel that runs here takes for a sentence, in turn, so that what else the machine does falls on all alike.
//!
//! `cargo run -p caxton-embed --example kernels [ROUNDS]`. The crate is optimised in the dev profile too. Times are of this
//! thread alone (`CLOCK_THREAD_CPUTIME_ID`), in milliseconds.

#![allow(clippy::print_stdout, reason = "an example that prints its figures")]

use caxton_embed::{Embedder, Kernel};
use std::hint::black_box;
use std::time::Duration;

const TEXT: &str = "draw the sales of last year as bars, one for each region, and mark the best month in red; ";

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(400);
    let kernels: Vec<Embedder> =
        Kernel::available().into_iter().filter(|kernel| *kernel != Kernel::Plain).filter_map(Embedder::with).collect();
    let text = TEXT.repeat(20);
    for tokens in [8, 12, 14, 24, 48, 64, 256] {
        let mut times = vec![Vec::new(); kernels.len()];
        for _ in 0..(rounds * 12 / tokens).max(20) {
            for (embedder, times) in kernels.iter().zip(&mut times) {
                let start = thread_time();
                black_box(embedder.embed_start(&text, tokens));
                times.push(thread_time().saturating_sub(start));
            }
        }
        for (embedder, mut times) in kernels.iter().zip(times) {
            times.sort();
            let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
            let kernel = embedder.kernel();
            println!(
                "{tokens:3} tokens, {kernel:?}: least {:.3} p50 {:.3} p95 {:.3} ms of the thread",
                at(0.0),
                at(0.5),
                at(0.95)
            );
        }
    }
}

/// How long this thread has been running. The standard library does not say.
fn thread_time() -> Duration {
    #[repr(C)]
    struct Time {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    const THREAD_CPU: i32 = 3;
    let mut time = Time { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a `timespec` as 64-bit Linux has it.
    unsafe { clock_gettime(THREAD_CPU, &raw mut time) };
    Duration::new(time.seconds.unsigned_abs(), u32::try_from(time.nanoseconds).unwrap_or(0))
}
