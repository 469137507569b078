//! `[[schedule]]`: when an agent is sent a message, and which.
//!
//! When a schedule ticks depends on its own words and on nothing else: `every` counts from 1970, and `cron` is read by the clock
//! of a time zone. So every node that leads comes to the same ticks.

use std::fmt;
use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions, parse_crontab_with};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{PROMPT_BYTES_MAX, WORD_BYTES_MAX};
use crate::acl::{Address, Priority};
use crate::diagnostic::code;
use crate::manifest::read::{Section, Value};
use crate::manifest::units;

/// The most schedules of one agent.
pub const SCHEDULES_MAX: usize = 32;
/// The longest name of a schedule, in bytes.
pub const SCHEDULE_NAME_BYTES_MAX: usize = 63;
/// The longest message of a schedule, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// The shortest and the longest time between two ticks of `every`.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

/// When an agent is sent a message, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Its name, one of a kind in the agent's file: its place in the file unless given.
    pub name: String,
    /// When it ticks.
    #[serde(flatten)]
    pub when: When,
    /// What the agent is told.
    pub message: String,
    /// Who receives what the agent answers: nobody unless given.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_address")]
    pub reply_to: Option<Address>,
    /// How urgent the message is.
    #[serde(serialize_with = "serialize_priority")]
    pub priority: Priority,
}

fn serialize_address<S: Serializer>(address: &Option<Address>, serializer: S) -> Result<S::Ok, S::Error> {
    address.as_ref().map(ToString::to_string).serialize(serializer)
}

fn serialize_priority<S: Serializer>(priority: &Priority, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(priority.number())
}

/// When a schedule ticks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", untagged)]
pub enum When {
    /// At the minutes that five fields stand for, by the clock of a time zone.
    Cron {
        /// The five fields: minute, hour, day of the month, month, day of the week.
        cron: String,
        /// The time zone, as in Europe/Rome.
        timezone: String,
    },
    /// At every multiple of a time since 1970.
    Every {
        /// The time from one tick to the next.
        #[serde(serialize_with = "units::serialize_duration")]
        every: Duration,
    },
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Cron { cron, timezone } => write!(f, "cron {cron} {timezone}"),
            When::Every { every } => write!(f, "every {}", units::format_duration(*every)),
        }
    }
}

/// Text that says no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWhen {
    /// It has not five fields.
    #[error("it has {found} fields, and minute, hour, day of the month, month and day of the week are five")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A field or the time zone cannot be read.
    #[error("{why}")]
    Field {
        /// What is wrong, in a line.
        why: String,
    },
    /// It never comes.
    #[error("no day of the next four years is one of these")]
    Never,
}

/// The ticks of a schedule.
#[derive(Debug, Clone)]
pub enum Ticks {
    /// Those of five fields.
    Cron(Box<Crontab>),
    /// Those so many milliseconds apart.
    Every(i64),
}

impl When {
    /// Its ticks, ready to be asked for.
    pub fn ticks(&self) -> Result<Ticks, InvalidWhen> {
        match self {
            When::Every { every } => Ok(Ticks::Every(i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1))),
            When::Cron { cron, timezone } => crontab(cron, timezone).map(|cron| Ticks::Cron(Box::new(cron))),
        }
    }
}

fn crontab(cron: &str, timezone: &str) -> Result<Crontab, InvalidWhen> {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(InvalidWhen::Fields { found: fields.len() });
    }
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    let wrong = |error: cronexpr::Error| {
        // The library draws the place below the expression, in lines of its own: the last one says what is wrong.
        let text = error.to_string();
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        InvalidWhen::Field { why: line.trim_matches(|c: char| c == '^' || c == '-' || c.is_whitespace()).to_owned() }
    };
    let zone = |why: String| InvalidWhen::Field { why };
    if jiff::tz::TimeZone::get(timezone).is_err() {
        return Err(zone(format!("there is no time zone {timezone:?}; write one such as Europe/Rome or UTC")));
    }
    parse_crontab_with(&format!("{} {timezone}", fields.join(" ")), options).map_err(wrong)
}

/// Spans that are searched for the newest tick, in milliseconds, the shortest first: where a short one has none, a longer one
/// has few.
const SEARCHED_MS: [i64; 5] = [120_000, 3_600_000, 86_400_000, 32 * 86_400_000, 400 * 86_400_000];

impl Ticks {
    /// The first tick after a time, in milliseconds since 1970; nothing where none comes within four years.
    pub fn after(&self, at_ms: i64) -> Option<i64> {
        match self {
            Ticks::Every(every_ms) => at_ms.div_euclid(*every_ms).checked_add(1)?.checked_mul(*every_ms),
            Ticks::Cron(cron) => {
                let at = Timestamp::from_millisecond(at_ms).ok()?;
                // Beyond what calendars are made for, the library's sums end the process.
                if at.as_second() > 250_000_000_000 || at.as_second() < -60_000_000_000 {
                    return None;
                }
                let next = cron.find_next(MakeTimestamp(at)).ok()?;
                Some(next.timestamp().as_millisecond()).filter(|next| *next > at_ms)
            }
        }
    }

    /// The newest tick that is after one time and not after another.
    pub fn newest(&self, after_ms: i64, until_ms: i64) -> Option<i64> {
        if let Ticks::Every(every_ms) = self {
            let newest = until_ms.div_euclid(*every_ms).checked_mul(*every_ms)?;
            return Some(newest).filter(|newest| *newest > after_ms);
        }
        let last = |from_ms: i64| {
            let ticks = std::iter::successors(self.after(from_ms), |tick| self.after(*tick));
            ticks.take_while(|tick| *tick <= until_ms).last()
        };
        let spans = SEARCHED_MS.iter().map(|span_ms| until_ms.saturating_sub(*span_ms).max(after_ms));
        spans.chain([after_ms]).find_map(last)
    }
}

/// `[[schedule]]`, of each agent's file.
pub(super) fn read(root: &mut Section<'_, '_>) -> Vec<Schedule> {
    let Some(value) = root.get("schedule") else { return Vec::new() };
    let mut all: Vec<Schedule> = Vec::new();
    for (at, item) in value.list_of(SCHEDULES_MAX).into_iter().enumerate() {
        let Some(schedule) = read_one(&item, at + 1) else { continue };
        match all.iter().any(|other| other.name == schedule.name) {
            true => item.problem(
                code::DUPLICATE,
                format!("the schedule `{}` is there twice", schedule.name),
                "give it another name",
            ),
            false => all.push(schedule),
        }
    }
    all
}

fn read_one(value: &Value<'_, '_>, number: usize) -> Option<Schedule> {
    let mut section = value.clone().section("[[schedule]]".into())?;
    let name = section.get("name").map_or_else(|| Some(number.to_string()), |name| read_name(&name));
    let when = read_when(value, &mut section);
    let message = section.require("message", "say what the agent is told: message = \"Write the daily report.\"");
    let message = message.and_then(|message| message.some_text(MESSAGE_BYTES_MAX.min(PROMPT_BYTES_MAX)));
    let reply_to = section.get("reply_to").map(|to| read_reply_to(&to));
    let priority = section.get("priority").map(|priority| priority.integer(0..=7).and_then(Priority::new));
    section.finish(&[("interval", "write it as `every`"), ("schedule", "write it as `cron`")]);
    Some(Schedule {
        name: name?,
        when: when?,
        message: message?.to_owned(),
        reply_to: reply_to.map_or(Some(None), |to| to.map(Some))?,
        priority: priority.unwrap_or(Some(Priority::default()))?,
    })
}

fn read_name(value: &Value<'_, '_>) -> Option<String> {
    let text = value.some_text(SCHEDULE_NAME_BYTES_MAX)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !plain {
        value.problem(code::BAD_VALUE, "`name` cannot be a schedule's name", "use letters, digits, `-` and `_`");
    }
    plain.then(|| text.to_owned())
}

fn read_when(value: &Value<'_, '_>, section: &mut Section<'_, '_>) -> Option<When> {
    let (cron, every, timezone) = (section.get("cron"), section.get("every"), section.get("timezone"));
    match (cron, every) {
        (Some(_), Some(every)) => {
            every.problem(code::BAD_VALUE, "a schedule has `cron` or `every`, and this has both", "take one out");
            None
        }
        (None, None) => {
            let message = "a schedule says neither `cron` nor `every`";
            value.problem(code::MISSING_KEY, message, "add every = \"5m\", or cron = \"0 9 * * 1-5\"");
            None
        }
        (None, Some(every)) => {
            if let Some(timezone) = timezone {
                timezone.problem(code::BAD_VALUE, "`every` has no time zone", "take it out, or use `cron`");
                return None;
            }
            every.duration(EVERY).map(|every| When::Every { every })
        }
        (Some(cron), None) => {
            let zone = timezone.as_ref().map_or(Some("UTC"), |zone| zone.some_text(WORD_BYTES_MAX))?;
            let when = When::Cron { cron: words(cron.some_text(WORD_BYTES_MAX)?), timezone: zone.to_owned() };
            let ticks = when.ticks().and_then(|ticks| match ticks.after(0) {
                Some(_) => Ok(()),
                None => Err(InvalidWhen::Never),
            });
            match ticks {
                Ok(()) => Some(when),
                Err(error) => {
                    let at = if jiff::tz::TimeZone::get(zone).is_err() { timezone.as_ref() } else { None };
                    let at = at.unwrap_or(&cron);
                    at.problem(code::BAD_VALUE, format!("`{}` has a bad value", at.key()), error.to_string());
                    None
                }
            }
        }
    }
}

/// The words of a text with one blank between.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read_reply_to(value: &Value<'_, '_>) -> Option<Address> {
    let address: Address = value.parse(super::LINE_BYTES_MAX)?;
    match address {
        Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_) | Address::Topic(_) => Some(address),
        Address::Capability(_) | Address::Broadcast | Address::Platform => {
            let label = "name an agent, subject:NAME or topic:A/B";
            value.problem(code::BAD_VALUE, "`reply_to` has to be one receiver", label);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_millisecond()
    }

    fn cron(fields: &str, timezone: &str) -> Ticks {
        let when = When::Cron { cron: fields.to_owned(), timezone: timezone.to_owned() };
        when.ticks().unwrap_or_else(|error| panic!("{fields}: {error}"))
    }

    #[test]
    fn a_schedule_ticks_when_its_words_say() {
        let every = When::Every { every: Duration::from_secs(300) }.ticks().expect("ticks");
        assert_eq!(every.after(ms("2026-11-29T10:02:00Z")), Some(ms("2026-11-29T10:05:00Z")));
        assert_eq!(every.after(ms("2026-11-29T10:05:00Z")), Some(ms("2026-11-29T10:10:00Z")));
        let weekdays = cron("0 9 * * MON-FRI", "Europe/Rome");
        // A Friday; in winter Rome is one hour ahead.
        assert_eq!(weekdays.after(ms("2026-11-27T08:00:00Z")), Some(ms("2026-11-30T08:00:00Z")));
        // On the morning on which clocks go forward it is two.
        assert_eq!(
            cron("0 9 * * *", "Europe/Rome").after(ms("2026-03-28T09:00:00Z")),
            Some(ms("2026-03-29T07:00:00Z"))
        );
        assert_eq!(cron("0 0 29 2 *", "UTC").after(ms("2025-01-01T00:00:00Z")), Some(ms("2028-02-29T00:00:00Z")));
        assert_eq!(cron("* * * * *", "UTC").after(i64::MAX), None);
        assert_eq!(every.after(i64::MAX), None);
    }

    #[test]
    fn the_newest_of_the_ticks_that_were_missed_is_found_however_long_ago() {
        let now = ms("2026-11-29T10:02:30Z");
        for (ticks, after, newest) in [
            (cron("* * * * *", "UTC"), "1999-01-01T00:00:00Z", Some("2026-11-29T10:02:00Z")),
            (cron("*/5 * * * *", "UTC"), "2026-11-29T10:00:00Z", None),
            (cron("*/5 * * * *", "UTC"), "2026-11-29T09:59:59Z", Some("2026-11-29T10:00:00Z")),
            (cron("0 0 1 * *", "UTC"), "2026-01-01T00:00:00Z", Some("2026-11-01T00:00:00Z")),
            (cron("0 0 29 2 *", "UTC"), "2020-01-01T00:00:00Z", Some("2024-02-29T00:00:00Z")),
            (Ticks::Every(60_000), "1970-01-01T00:00:00Z", Some("2026-11-29T10:02:00Z")),
            (Ticks::Every(60_000), "2026-11-29T10:02:00Z", None),
        ] {
            assert_eq!(ticks.newest(ms(after), now), newest.map(ms), "{ticks:?} after {after}");
        }
    }

    /// The schedules of a file, or the line, the code and the words of each problem.
    fn read_file(schedules: &str) -> Result<Vec<Schedule>, Vec<String>> {
        let text = format!("name = \"a\"\ncapabilities = [\"x\"]\n{schedules}");
        let path = "agents/a.toml".parse().expect("a path");
        let (manifest, found) = crate::manifest::AgentManifest::read(&path, &text);
        let told = |it: &crate::diagnostic::Diagnostic| {
            let (line, label) = it.place.as_ref().map(|it| (it.line, it.label.as_str())).unwrap_or_default();
            format!("{line} {}: {} ({label})", it.code, it.message)
        };
        manifest.map(|it| it.schedules).ok_or_else(|| found.iter().map(told).collect())
    }

    #[test]
    fn schedules_are_read_and_what_is_wrong_is_said_with_its_line() {
        let both = "[[schedule]]\nevery = \"5m\"\nmessage = \"look\"\n[[schedule]]\nname = \"daily\"\n\
            cron = \"0  9 * * 1-5\"\ntimezone = \"Europe/Rome\"\nmessage = \"report\"\nreply_to = \"topic:reports/day\"\npriority = 6\n";
        let read = read_file(both).expect("schedules");
        let words: Vec<_> = read.iter().map(|it| (it.name.as_str(), it.when.to_string())).collect();
        assert_eq!(words, [("1", "every 5m".to_owned()), ("daily", "cron 0 9 * * 1-5 Europe/Rome".to_owned())]);
        assert_eq!((read[1].priority.number(), read[0].reply_to.is_none()), (6, true));
        let shown = serde_json::to_value(&read[1]).expect("JSON");
        assert_eq!((&shown["timezone"], &shown["reply_to"]), (&"Europe/Rome".into(), &"topic:reports/day".into()));
        for (lines, told) in [
            ("every = \"5m\"", "missing_key"),
            ("message = \"m\"", "add every = \"5m\", or cron"),
            ("message = \"m\"\nevery = \"5m\"\ncron = \"* * * * *\"", "5 bad_value: a schedule has `cron` or `every`"),
            ("message = \"m\"\nevery = \"10ms\"", "5 out_of_range"),
            ("message = \"m\"\nevery = \"5m\"\ntimezone = \"UTC\"", "6 bad_value: `every` has no time zone"),
            ("message = \"m\"\ncron = \"* * * *\"", "5 bad_value: `cron` has a bad value (it has 4 fields"),
            ("message = \"m\"\ncron = \"61 * * * *\"", "5 bad_value: `cron` has a bad value ("),
            ("message = \"m\"\ncron = \"* * * * * UTC\"", "it has 6 fields"),
            ("message = \"m\"\ncron = \"0 0 31 2 *\"", "no day of the next four years"),
            (
                "message = \"m\"\ncron = \"* * * * *\"\ntimezone = \"Mars\"",
                "6 bad_value: `timezone` has a bad value (there is no",
            ),
            (
                "message = \"m\"\nevery = \"5m\"\nreply_to = \"broadcast:\"",
                "6 bad_value: `reply_to` has to be one receiver",
            ),
            ("message = \"m\"\nevery = \"5m\"\nname = \"a/b\"", "use letters, digits"),
            ("message = \"m\"\nevery = \"5m\"\npriority = 9", "6 out_of_range"),
            ("message = \"m\"\ninterval = \"5m\"", "interval"),
        ] {
            let found = read_file(&format!("[[schedule]]\n{lines}\n")).expect_err(lines);
            assert!(found.iter().any(|line| line.contains(told)), "{lines}: {found:#?}");
        }
        let twice = "[[schedule]]\nname = \"d\"\nevery = \"5m\"\nmessage = \"m\"\n";
        let found = read_file(&twice.repeat(2)).expect_err("twice");
        assert!(found[0].contains("duplicate: the schedule `d` is there twice"), "{found:?}");
        let single = read_file("[schedule]\nevery = \"5m\"\nmessage = \"m\"\n").expect_err("one bracket");
        assert!(single[0].contains("wrong_type"), "{single:?}");
    }

    proptest! {
        #[test]
        fn ticks_grow_and_the_newest_is_the_last_of_them(
            every in 1_i64..100_000, minute in 0..60, step in 1..30, from in 0_i64..4_000_000_000_000, span in 0_i64..20_000_000,
        ) {
            for ticks in [Ticks::Every(every), cron(&format!("{minute} * * * *"), "Europe/Rome"), cron(&format!("*/{step} 3-5 * * *"), "UTC")] {
                let first = ticks.after(from).expect("a tick");
                prop_assert!(first > from);
                prop_assert_eq!(ticks.after(first - 1), Some(first), "nothing between");
                let all = std::iter::successors(Some(first), |tick| ticks.after(*tick));
                let last = all.take_while(|tick| *tick <= from + span).last();
                prop_assert_eq!(ticks.newest(from, from + span), last);
            }
        }
    }
}
