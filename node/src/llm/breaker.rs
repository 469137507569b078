//! A circuit breaker: a provider that keeps failing is left alone for a while, then tried with one request.
//!
//! Pure: the caller says what time it is.

use std::time::Duration;

/// So many failures in a row open the circuit.
pub const FAILURES_MAX: u32 = 5;
/// So long it stays open before one request may try again.
pub const REST: Duration = Duration::from_secs(15);

/// What is known of one provider's health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// Milliseconds on the caller's clock; set while open.
    opened_ms: Option<u64>,
}

impl Breaker {
    /// Whether a request may be made now; the time still to rest if not. One that may while the circuit is open is the
    /// probe: until its outcome is told, others keep resting.
    pub fn admit(&mut self, now_ms: u64) -> Result<(), Duration> {
        let Some(opened_ms) = self.opened_ms else { return Ok(()) };
        let rested = Duration::from_millis(now_ms.saturating_sub(opened_ms));
        if rested < REST {
            return Err(REST - rested);
        }
        self.opened_ms = Some(now_ms);
        Ok(())
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    /// A request failed in a way that speaks of the provider and not of the request.
    pub fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.opened_ms = Some(now_ms);
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let rest = REST.as_millis() as u64;
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            breaker.failed(0);
            assert_eq!(breaker.admit(0), Ok(()));
        }
        breaker.failed(0);
        assert_eq!(breaker.admit(1), Err(REST - Duration::from_millis(1)));
        assert_eq!(breaker.admit(rest), Ok(()), "the probe");
        assert!(breaker.admit(rest).is_err(), "only one probe");
        breaker.failed(rest + 5);
        assert!(breaker.admit(rest + 6).is_err(), "a failed probe opens it again");
        assert_eq!(breaker.admit(3 * rest), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn one_success_forgets_the_failures_before_it() {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            breaker.failed(0);
            breaker.failed(0);
            breaker.succeeded();
        }
        assert_eq!(breaker.admit(0), Ok(()));
    }
}
