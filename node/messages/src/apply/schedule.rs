//! Schedules: each tick sends its message once, whoever leads, and however often it is proposed.

use caxton_proto::mailbox::{Outcome, Submission};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::Run;

impl Run<'_> {
    /// Sends the message of a tick, unless that tick or a later one is done. Without a message a schedule begins, unless one of
    /// the same words is there.
    pub(super) fn fire(
        &self,
        schedule: &str,
        words: &str,
        tick_ms: i64,
        submission: Option<&Submission>,
    ) -> Result<Outcome> {
        let sql = "SELECT words, reached_ms FROM message_schedule WHERE workspace = ?1 AND name = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        let known = self.db.prepare_cached(sql)?.query_row(params![self.workspace(), schedule], read).optional()?;
        let known = known.filter(|(kept, _)| kept == words).map(|(_, reached_ms)| reached_ms);
        let is_new = match (known, submission) {
            (None, None) => true,
            (Some(reached_ms), Some(_)) => reached_ms < tick_ms,
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_new {
            return Ok(Outcome::Stale);
        }
        let sql = "INSERT INTO message_schedule (workspace, name, words, reached_ms) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (workspace, name) DO UPDATE SET words = excluded.words, reached_ms = excluded.reached_ms";
        self.db.prepare_cached(sql)?.execute(params![self.workspace(), schedule, words, tick_ms])?;
        Ok(Outcome::Sent(submission.map(|one| self.send(one)).transpose()?.into_iter().collect()))
    }

    /// Forgets schedules: one of the same words begins anew.
    pub(super) fn unschedule(&self, schedules: &[String]) -> Result<Outcome> {
        let sql = "DELETE FROM message_schedule WHERE workspace = ?1 AND name = ?2";
        for schedule in schedules {
            self.db.prepare_cached(sql)?.execute(params![self.workspace(), schedule])?;
        }
        Ok(Outcome::Sent(Vec::new()))
    }
}
