//! What a command may hold. The proposer checks before it proposes, and whoever applies a command checks again.

use super::{Action, Await, Command, Reason, SEALED_BYTES_MAX, SetKey, Submission, Verdict};
use crate::acl::{Address, CheckError, TIME_MAX_MS};

/// The most messages of one command.
pub const SUBMISSIONS_MAX: usize = 1_024;
/// The most messages that the receiver of a delivery sends with its outcome.
pub const SETTLED_SUBMISSIONS_MAX: usize = 256;
/// The most deliveries that one command names.
pub const DELIVERIES_MAX: usize = 4_096;
/// The most bytes of a sender's key.
pub const KEY_BYTES_MAX: usize = 256;
/// The most bytes of a subscription's name.
pub const NAME_BYTES_MAX: usize = 128;
/// The most bytes of an agent's name and its schedule's.
pub const SCHEDULE_BYTES_MAX: usize = 256;
/// The most bytes of the words that say when a schedule ticks.
pub const SCHEDULE_WORDS_BYTES_MAX: usize = 1_024;
/// The most bytes of a reason or of what became of a delivery.
pub const NOTE_BYTES_MAX: usize = 1_024;
/// The most bytes of a trace context.
pub const TRACE_BYTES_MAX: usize = 512;
/// The most keys of an agent's state.
pub const STATE_KEYS_MAX: usize = 256;
/// The longest key of an agent's state, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 256;
/// The most bytes of an agent's state, keys and values together.
pub const STATE_BYTES_MAX: usize = 256 << 10;
/// The extension that says for how many milliseconds a message lies in its mailbox before it is given to its receiver.
pub const DELAY: &str = "X-Delay-Ms";
/// The longest such delay, a week.
pub const DELAY_MS_MAX: i64 = 7 * 86_400_000;
/// The most agents that are programs in one workspace.
const PROGRAMS_MAX: usize = 16_384;
/// The most bytes of a turn's id, and of the calls that lead to one of its calls.
const WAY_BYTES_MAX: usize = 4_096;

type Result = std::result::Result<(), Reason>;

fn most(what: &str, found: usize, most: usize) -> Result {
    if found <= most {
        return Ok(());
    }
    Err(Reason::Limit { what: what.to_owned(), found: found as u64, most: most as u64 })
}

fn wrong(field: &str) -> Result {
    Err(Reason::Field { field: field.to_owned() })
}

fn name(what: &str, text: &str, bytes_max: usize) -> Result {
    most(&format!("bytes of its {what}"), text.len(), bytes_max)?;
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => wrong(&format!("{what} is empty or has a control character")),
        false => Ok(()),
    }
}

impl From<CheckError> for Reason {
    fn from(error: CheckError) -> Reason {
        match error {
            CheckError::Limit { what, found, most } => Reason::Limit { what: what.to_owned(), found, most },
            CheckError::Field { field, why } => Reason::Field { field: format!("`{field}` {why}") },
        }
    }
}

impl Submission {
    /// For how long the message lies in its mailbox before it is given to its receiver, in milliseconds: what [`DELAY`] says.
    pub fn delay_ms(&self) -> i64 {
        let named = self.message.extensions.iter().find(|(name, _)| name.eq_ignore_ascii_case(DELAY));
        named.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or_default()
    }

    /// Checks the message and what is around it.
    pub fn check(&self) -> Result {
        self.message.check()?;
        if self.message.sender.is_none() {
            return wrong("sender is absent: a node stamps it");
        }
        if let Some(key) = &self.key {
            name("key", key, KEY_BYTES_MAX)?;
        }
        if let Some(trace) = &self.trace {
            most("bytes of its trace context", trace.len(), TRACE_BYTES_MAX)?;
        }
        let delays = |name: &str| name.eq_ignore_ascii_case(DELAY);
        for (_, value) in self.message.extensions.iter().filter(|(name, _)| delays(name)) {
            if !value.trim().parse::<i64>().is_ok_and(|ms| (0..=DELAY_MS_MAX).contains(&ms)) {
                return wrong("X-Delay-Ms is no number of milliseconds from 0 to a week");
            }
        }
        match self.expires_ms {
            Some(at_ms) if !(0..=TIME_MAX_MS).contains(&at_ms) => wrong("expiry is no time between 1970 and 9999"),
            Some(_) | None => self.signature.as_ref().map_or(Ok(()), |signature| {
                let fits = (0..=TIME_MAX_MS).contains(&signature.signed_ms);
                if fits { Ok(()) } else { wrong("signature is of no time between 1970 and 9999") }
            }),
        }
    }
}

impl Command {
    /// Checks all but the messages, each of which is checked by itself.
    pub fn check(&self) -> Result {
        if !(0..=TIME_MAX_MS).contains(&self.time_ms) {
            return wrong("time is none between 1970 and 9999");
        }
        match &self.action {
            Action::Send(all) => most("messages", all.len(), SUBMISSIONS_MAX),
            Action::Start(all) | Action::Redrive(all) | Action::Drop(all) => {
                most("deliveries", all.len(), DELIVERIES_MAX)
            }
            Action::Settle { verdict, submissions, state, .. } => {
                let (Verdict::Done(note) | Verdict::Retry(note) | Verdict::Dead(note)) = verdict;
                most("bytes of its outcome", note.len(), NOTE_BYTES_MAX)?;
                most("messages", submissions.len(), SETTLED_SUBMISSIONS_MAX)?;
                // Twice as many: what goes away is named as well.
                most("keys of its state", state.len(), 2 * STATE_KEYS_MAX)?;
                let longest = state.keys().map(String::len).max().unwrap_or_default();
                most("bytes of a key of its state", longest, STATE_KEY_BYTES_MAX)?;
                most("bytes of its state", state.values().flatten().map(String::len).sum(), STATE_BYTES_MAX)
            }
            Action::Await(wait) => wait.check(),
            Action::Resume { owner, turn, way, .. } => {
                receives(owner)?;
                most("bytes of its turn", turn.len().max(way.len()), WAY_BYTES_MAX)
            }
            Action::Roster { programs, .. } => most("programs", programs.len(), PROGRAMS_MAX),
            Action::Park { .. } | Action::Tick { .. } | Action::Receive { .. } => Ok(()),
            Action::SetKey(key) => key.check(),
            Action::Subscribe { subscriber, name: of, .. } => {
                receives(subscriber)?;
                name("name", of, NAME_BYTES_MAX)
            }
            Action::Fire { schedule, words, tick_ms, .. } => {
                name("schedule", schedule, SCHEDULE_BYTES_MAX)?;
                name("words", words, SCHEDULE_WORDS_BYTES_MAX)?;
                match (0..=TIME_MAX_MS).contains(tick_ms) {
                    true => Ok(()),
                    false => wrong("tick is none between 1970 and 9999"),
                }
            }
            Action::Unschedule(all) => {
                most("schedules", all.len(), DELIVERIES_MAX)?;
                all.iter().try_for_each(|schedule| name("schedule", schedule, SCHEDULE_BYTES_MAX))
            }
            Action::Unsubscribe { subscriber, name: of } => {
                receives(subscriber)?;
                name("name", of, NAME_BYTES_MAX)
            }
        }
    }
}

impl SetKey {
    fn check(&self) -> Result {
        match &self.owner {
            Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_) => {}
            Address::Capability(_) | Address::Topic(_) | Address::Broadcast | Address::Platform => {
                return wrong("owner is nobody who signs");
            }
        }
        most("bytes of its sealed key", self.sealed.len().max(self.sealed_with.len()), SEALED_BYTES_MAX)?;
        match self.overlap_ms {
            Some(ms) if !(0..=TIME_MAX_MS).contains(&ms) => wrong("overlap is no time"),
            Some(_) | None => Ok(()),
        }
    }
}

impl Await {
    fn check(&self) -> Result {
        receives(&self.owner)?;
        most("bytes of its turn", self.turn.len().max(self.way.len()), WAY_BYTES_MAX)?;
        name("conversation", &self.conversation, crate::acl::TOKEN_BYTES_MAX)?;
        most("agents that it waits for", self.awaited.len(), crate::acl::RECEIVERS_MAX)?;
        most("messages", self.submissions.len(), SETTLED_SUBMISSIONS_MAX)?;
        match (0..=TIME_MAX_MS).contains(&self.until_ms) {
            true => Ok(()),
            false => wrong("deadline is no time between 1970 and 9999"),
        }
    }
}

/// Only agents and people have mailboxes.
fn receives(subscriber: &Address) -> Result {
    match subscriber {
        Address::Agent(_) | Address::Subject(_) => Ok(()),
        Address::Elsewhere { .. }
        | Address::Capability(_)
        | Address::Topic(_)
        | Address::Broadcast
        | Address::Platform => wrong("subscriber is neither an agent nor a person"),
    }
}
