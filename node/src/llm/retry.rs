//! When a failed request is made again: a pure schedule, with the chance drawn by the caller.

use std::time::Duration;

/// How often and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Requests in all, the first one among them.
    pub tries_max: u32,
    /// The pause after the first failure, which doubles with each one.
    pub pause_base: Duration,
    /// The longest pause of our own.
    pub pause_max: Duration,
    /// The longest that a provider may ask us to wait before we ask another one instead.
    pub patience: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            tries_max: 3,
            pause_base: Duration::from_millis(400),
            pause_max: Duration::from_secs(8),
            patience: Duration::from_secs(20),
        }
    }
}

impl Schedule {
    /// The pause before the next try after `failed` failures, or none when there is to be no other.
    ///
    /// `chance` is any random number: the pause lies between half and all of its step, so that a thousand callers that
    /// failed together do not come back together. A provider's own wish is honoured to the millisecond, as the least.
    pub fn pause(&self, failed: u32, retry_after: Option<Duration>, chance: u64) -> Option<Duration> {
        if failed >= self.tries_max {
            return None;
        }
        let step = self.pause_base.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.pause_max);
        let half = step / 2;
        let jitter = Duration::from_millis(chance % (half.as_millis() as u64 + 1));
        match retry_after {
            None => Some(half + jitter),
            Some(wish) if wish > self.patience => None,
            Some(wish) => Some(wish + jitter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wish_beyond_our_patience_ends_the_tries() {
        let schedule = Schedule::default();
        assert_eq!(schedule.pause(1, Some(Duration::from_secs(3600)), 0), None);
        assert_eq!(schedule.pause(1, Some(Duration::from_secs(2)), 0), Some(Duration::from_secs(2)));
        assert_eq!(schedule.pause(3, None, 0), None);
    }

    proptest! {
        #[test]
        fn pauses_grow_and_stay_within_their_step(failed in 1u32..40, chance: u64) {
            let schedule = Schedule { tries_max: 100, ..Schedule::default() };
            let pause = schedule.pause(failed, None, chance).expect("another try");
            let step = schedule.pause_base.saturating_mul(1 << (failed - 1).min(16)).min(schedule.pause_max);
            prop_assert!(pause >= step / 2 && pause <= step);
        }
    }
}
