//! Times and sizes as people write them: `"1m30s"`, `"64MiB"`.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serializer;

/// The text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like \"30s\", \"250ms\", \"1m30s\" or \"2h\"")]
pub struct InvalidDuration;

/// The text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a size is written like \"64MiB\", \"512KiB\" or \"1GB\"")]
pub struct InvalidBytes;

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a time: whole numbers with `d`, `h`, `m`, `s` or `ms`, the largest first.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let (mut rest, mut total, mut from) = (text, 0u64, 0);
    while !rest.is_empty() || from == 0 {
        let (number, after) = number(rest).ok_or(InvalidDuration)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let at = TIMES.iter().skip(from).position(|(name, _)| *name == unit).ok_or(InvalidDuration)? + from;
        let part = number.checked_mul(TIMES[at].1).ok_or(InvalidDuration)?;
        total = total.checked_add(part).ok_or(InvalidDuration)?;
        (rest, from) = (after, at + 1);
    }
    Ok(Duration::from_millis(total))
}

/// Writes a time the way [`parse_duration`] reads it; what is below a millisecond is dropped.
pub fn format_duration(time: Duration) -> String {
    let mut rest = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (unit, ms) in TIMES {
        if rest >= ms {
            let _ = write!(out, "{}{unit}", rest / ms);
            rest %= ms;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size: a whole number with `B`, `KB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TB` or `TiB`, in any case.
pub fn parse_bytes(text: &str) -> Result<u64, InvalidBytes> {
    let (number, unit) = number(text).ok_or(InvalidBytes)?;
    let unit = unit.trim_start();
    let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(InvalidBytes)?;
    number.checked_mul(*bytes).ok_or(InvalidBytes)
}

/// Writes a size the way [`parse_bytes`] reads it, in the largest unit that leaves a whole number.
pub fn format_bytes(bytes: u64) -> String {
    let whole = SIZES.iter().take(4).find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// For `#[serde(serialize_with)]`: a time as text.
pub(super) fn serialize_duration<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format_duration(*time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_with_their_units_in_order() {
        let ms = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1m30s"), Ok(90_000));
        assert_eq!(ms("1h1ms"), Ok(3_600_001));
        for bad in
            ["", "30", "s", "1.5s", "-1s", "30s1m", "1s1s", "1 s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(bad), Err(InvalidDuration), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("64 mib"), Ok(64 << 20));
        assert_eq!(parse_bytes("1MB"), Ok(1_000_000));
        for bad in ["", "64", "MiB", "1.5MiB", "64 MiBs", "99999999TiB"] {
            assert_eq!(parse_bytes(bad), Err(InvalidBytes), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ms in 0u64..u64::MAX / 2, bytes: u64) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(time)), Ok(time));
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
    }
}
