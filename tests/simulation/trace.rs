//! What a run says of itself: every event with the simulated time, and what must not be.

use std::cell::RefCell;

use crate::seed::Run;

thread_local! {
    /// A simulation has one thread.
    static RUN: RefCell<Run> = RefCell::default();
}

/// Takes an event down, with the simulated time.
pub fn note(who: &str, what: &str) {
    note_at(turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64, who, what);
}

/// Takes an event of the time `at`, in milliseconds, down.
pub fn note_at(at: u64, who: &str, what: &str) {
    RUN.with_borrow_mut(|run| run.trace += &format!("{at:>6} {who:<8} {what}\n"));
}

/// Takes down what must not be.
pub fn find(what: String) {
    note("checker", &what);
    RUN.with_borrow_mut(|run| run.findings.push(what));
}

/// All that was taken down.
pub fn end() -> Run {
    RUN.take()
}
