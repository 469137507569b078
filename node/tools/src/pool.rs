//! The threads that guests run on: their own, so that a guest that spins holds up no thread that serves.
//!
//! Both the threads and the queue before them have a limit. A job that does not fit is refused at once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What a guest thread runs.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A thread without work for this long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Wasm has 512 KiB of it; the rest is for the host's own frames.
const STACK_BYTES: usize = 4 << 20;
/// Guests give way to the threads that answer requests.
const NICE: i32 = 5;

/// A handle to the threads.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    threads_max: usize,
    queue_max: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for work, or were started for it and are about to look.
    free: usize,
    closed: bool,
}

/// The queue is full.
#[derive(Debug)]
pub(crate) struct Full {
    /// How many calls run.
    pub running: usize,
    /// How many wait.
    pub waiting: usize,
}

impl Pool {
    /// Threads are started when there is work for them.
    pub(crate) fn new(threads_max: usize, queue_max: usize) -> Pool {
        let shared = Shared { threads_max, queue_max, state: Mutex::default(), wake: Condvar::new() };
        Pool { shared: Arc::new(shared) }
    }

    /// Runs a job on a free thread, or queues it.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Full> {
        let mut state = self.shared.lock();
        let start = state.free <= state.queue.len() && state.threads < self.shared.threads_max;
        if !start && state.queue.len() >= self.shared.queue_max + state.free {
            return Err(Full { running: state.threads - state.free, waiting: state.queue.len() });
        }
        state.queue.push_back(job);
        if start {
            state.threads += 1;
            state.free += 1;
            let shared = self.shared.clone();
            let spawned =
                thread::Builder::new().name("tool".into()).stack_size(STACK_BYTES).spawn(move || shared.work());
            if spawned.is_err() {
                state.threads -= 1;
                state.free -= 1;
                if state.threads == 0 {
                    state.queue.pop_back();
                    return Err(Full { running: 0, waiting: 0 });
                }
            }
        } else {
            drop(state);
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The last handle but for those of the threads themselves.
        let mut state = self.shared.lock();
        if Arc::strong_count(&self.shared) <= state.threads + 1 {
            state.closed = true;
            self.shared.wake.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run without the lock, so a poisoned one still guards a sound state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        // Linux means the calling thread by "this process" here; where it does not, the priority stays as it was.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut state = self.lock();
        // Counted as free from the start, by whoever started it.
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.free -= 1;
                drop(state);
                // A panic in the host ends that call, whose waiter sees its channel closed, and nothing else.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.lock();
                state.free += 1;
                continue;
            }
            if state.closed {
                break;
            }
            let (woken, waited) = self.wake.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        state.free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_full_queue_refuses() {
        let pool = Pool::new(2, 3);
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (done, finished) = mpsc::channel();
        for _ in 0..5 {
            let (gate, done) = (gate.clone(), done.clone());
            pool.submit(Box::new(move || {
                let _ = gate.lock().unwrap().recv();
                done.send(()).unwrap();
            }))
            .unwrap();
        }
        // Two run and three wait, or the threads are only just starting: never more than five in all.
        assert!(pool.submit(Box::new(|| {})).is_err());
        drop(release);
        for _ in 0..5 {
            finished.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }

    #[test]
    fn a_panic_ends_one_job_only() {
        let pool = Pool::new(1, 8);
        let (done, finished) = mpsc::channel();
        pool.submit(Box::new(|| panic!("on purpose"))).unwrap();
        pool.submit(Box::new(move || done.send(()).unwrap())).unwrap();
        finished.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
