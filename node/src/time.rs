//! Points in time as the log counts them and as people read them, and the one place that asks the system's clock for
//! them.
//!
//! What has to be pure (`State::apply`, plans, policies) takes a time as an argument. clippy refuses to ask
//! the clock anywhere else.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The time as the logs count it: milliseconds since 1970, and 0 where the system's clock stands before that.
pub fn now_ms() -> u64 {
    let since = system_now().duration_since(UNIX_EPOCH).ok();
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time as calendars count it; 1970 where the system's clock stands outside of them.
pub fn now() -> Timestamp {
    Timestamp::try_from(system_now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The time as the file system counts it.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

/// The number of the day that a time is in, counted in UTC from 1970.
pub fn day_of(unix_ms: u64) -> u64 {
    unix_ms / DAY_MS
}

/// A moment for people and programs: RFC 3339 in UTC, always with three digits of the second, so that the texts sort as
/// the moments do. A moment that the calendar does not reach becomes its last one, in the year 9999.
pub fn rfc3339(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", moment.unwrap_or(Timestamp::MAX))
}

/// The same of a signed number of milliseconds, as tables hold it; what is before 1970 becomes the first moment of that year.
pub fn rfc3339_of(unix_ms: i64) -> String {
    rfc3339(u64::try_from(unix_ms).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_one_form_and_never_before_the_one_it_is() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_000_000_000, "2026-11-18T11:06:40.000Z"),
            (1_795_000_000_123, "2026-11-18T11:06:40.123Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
        assert_eq!(rfc3339_of(123), "1970-01-01T00:00:00.123Z");
        assert_eq!(rfc3339_of(-1), "1970-01-01T00:00:00.000Z");
        for beyond in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            assert!(rfc3339(beyond).starts_with("9999-12-30T"), "{beyond}: {}", rfc3339(beyond));
        }
    }

    #[test]
    fn a_day_ends_at_midnight_of_utc() {
        assert_eq!([0, DAY_MS - 1, DAY_MS, u64::MAX].map(day_of), [0, 0, 1, u64::MAX / DAY_MS]);
    }

    #[test]
    fn the_clock_is_past_the_day_this_was_written() {
        assert!(now_ms() > 1_795_000_000_000);
    }
}
