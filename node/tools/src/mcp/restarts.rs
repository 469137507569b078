//! When a process that ended, or that did not start, is started again: at once the first time, then after pauses that grow.

use std::time::{Duration, Instant};

/// The first pause and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Who lived this long is taken for healthy.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The ends of one server's processes.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    in_a_row: u32,
    not_before: Option<Instant>,
    last: String,
}

impl Restarts {
    /// Notes that one ended after so long, and why.
    pub(super) fn ended(&mut self, now: Instant, lived: Duration, why: String) {
        if lived >= HEALTHY_AFTER {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = why;
        // The first one is started again at once.
        let pauses = self.in_a_row.saturating_sub(2).min(16);
        let pause = (PAUSE_MIN * (1 << pauses)).min(PAUSE_MAX);
        self.not_before = (self.in_a_row > 1).then(|| now + pause);
    }

    /// Why none may be started yet.
    pub(super) fn refusal(&self, now: Instant) -> Option<String> {
        let left = self.not_before?.saturating_duration_since(now);
        let (times, last) = (self.in_a_row, &self.last);
        (!left.is_zero()).then(|| {
            format!("it ended {times} times in a row and is started again in {:.1} s: {last}", left.as_secs_f64())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_a_long_life() {
        let (mut restarts, now) = (Restarts::default(), Instant::now());
        assert_eq!(restarts.refusal(now), None);
        restarts.ended(now, Duration::ZERO, "first".into());
        assert_eq!(restarts.refusal(now), None, "the first one is started again at once");
        restarts.ended(now, Duration::ZERO, "second".into());
        let refusal = restarts.refusal(now).unwrap();
        assert!(refusal.contains("2 times") && refusal.contains("0.2 s") && refusal.ends_with("second"), "{refusal}");
        assert_eq!(restarts.refusal(now + PAUSE_MIN), None);
        for _ in 0..100 {
            restarts.ended(now, Duration::ZERO, "again".into());
        }
        assert!(restarts.refusal(now + PAUSE_MAX - Duration::from_millis(1)).is_some());
        assert_eq!(restarts.refusal(now + PAUSE_MAX), None, "no pause is longer");
        restarts.ended(now, HEALTHY_AFTER, "after a long life".into());
        assert_eq!(restarts.refusal(now), None);
    }
}
