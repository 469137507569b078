//! Mailboxes as a tenant of a shard: their tables, and what each command does to them. `caxton_messages` has both.

use std::sync::LazyLock;

use caxton_messages::{Limits, mailbox};
use caxton_proto::shard::Envelope;
use caxton_proto::{Format, WorkspaceId};
use rusqlite::Connection;

use crate::shard::tenant::{Answer, ApplyError, Clearance, Command, Content, Effect, Refusal, Stop, Table, Tenant};

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let table = |(name, sql): &(&'static str, &'static str)| Table { name, sql, content: Content::Rows };
    caxton_messages::TABLES.iter().map(table).collect()
});

/// What a shard's agents send each other, as its tenant number 3.
pub struct MailboxTenant;

impl Tenant for MailboxTenant {
    fn number(&self) -> u32 {
        Envelope::MAILBOX
    }

    fn name(&self) -> &'static str {
        "mailbox"
    }

    fn commands(&self) -> u32 {
        Format::DELETION.number()
    }

    fn since(&self) -> Format {
        Format::DELETION
    }

    fn layout(&self) -> u32 {
        4
    }

    fn tables(&self) -> &'static [Table] {
        &TABLES
    }

    fn check(&self, command: &Command<'_>) -> Result<(), ApplyError> {
        decode(command).map(drop)
    }

    fn apply(&self, command: &Command<'_>, rows: &Connection) -> Result<Answer, ApplyError> {
        let outcome = caxton_messages::apply(rows, &decode(command)?, command.term, &Limits::default())?;
        Ok(Answer { effect: Effect::Applied, body: outcome.encode().into() })
    }

    fn derive(&self, rows: &Connection, layout: u32) -> Result<(), ApplyError> {
        // Those before had no counts of what each sender has in a mailbox.
        if layout < 3 {
            caxton_messages::count_senders(rows)?;
        }
        // Nor how many mailboxes a workspace has.
        if layout < 4 {
            caxton_messages::count_mailboxes(rows)?;
        }
        Ok(())
    }

    fn clear(&self, workspace: &WorkspaceId, rows_max: u32, rows: &Connection) -> Result<Clearance, ApplyError> {
        let is_clear = caxton_messages::clear(rows, workspace, rows_max)?;
        Ok(if is_clear { Clearance::Clear } else { Clearance::More })
    }

    fn count(&self, workspace: &WorkspaceId, rows: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
        let count = |table: &str| {
            let count = format!("SELECT count(*) FROM {table} WHERE workspace = ?1");
            rows.prepare_cached(&count)?.query_row([workspace.as_str()], |row| row.get::<_, i64>(0))
        };
        let counted = [("messages", "mailbox_message"), ("subscriptions", "topic_subscription")];
        counted.into_iter().map(|(name, table)| Ok((name, count(table)?.unsigned_abs()))).collect()
    }
}

fn decode(command: &Command<'_>) -> Result<mailbox::Command, ApplyError> {
    mailbox::Command::decode(command.body).map_err(|error| match error {
        error @ mailbox::DecodeError::Version { .. } => ApplyError::Stop(Stop::Newer(error.into())),
        // Where and how, but not what: a value may be what somebody said.
        error => Refusal::new(format!("it is none of the commands of mailboxes: {error}")).into(),
    })
}

#[cfg(test)]
mod tests {
    use caxton_messages::mailbox::{Action, Outcome};

    use super::*;

    #[test]
    fn every_table_is_strict_and_what_cannot_be_read_is_refused() {
        let rows = Connection::open_in_memory().expect("memory");
        for table in MailboxTenant.tables() {
            rows.execute_batch(table.sql).expect(table.name);
            let strict = "SELECT strict FROM pragma_table_list WHERE name = ?1";
            assert_eq!(rows.query_row(strict, [table.name], |row| row.get(0)), Ok(1), "{}", table.name);
        }
        for bad in [&b"{}"[..], b"", b"\xff\xff", b"\x08\x01"] {
            let command = Command { version: 2, term: 1, body: bad };
            assert!(matches!(MailboxTenant.check(&command), Err(ApplyError::Refused(_))), "{bad:?}");
            assert!(matches!(MailboxTenant.apply(&command, &rows), Err(ApplyError::Refused(_))));
        }
        let workspace = "team".parse().expect("a name");
        let tick = mailbox::Command { workspace, time_ms: 1, mailboxes_max: None, action: Action::Tick { term: 1 } };
        let mut body = tick.encode();
        let answer = MailboxTenant.apply(&Command { version: 2, term: 1, body: &body }, &rows).expect("applied");
        let nothing = Outcome::Ticked { changed: 0, more: false };
        assert_eq!(Outcome::decode(&answer.body).expect("an outcome"), nothing);
        // The version of a newer program stops this one, which must not skip what others apply.
        body[1] = 9;
        let newer = Command { version: 2, term: 1, body: &body };
        assert!(matches!(MailboxTenant.check(&newer), Err(ApplyError::Stop(Stop::Newer(_)))));
    }
}
