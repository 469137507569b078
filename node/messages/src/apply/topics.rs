//! Topics: what is published has a position, and each subscription the position that it has come to.

use caxton_proto::acl::{Address, Pattern, Topic};
use caxton_proto::mailbox::{Outcome, Reason, decode_message};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::Run;
use crate::tables::{count, given, last, stored};

/// A subscription's row.
struct Subscription {
    row: i64,
    subscriber: String,
    pattern: String,
    position: i64,
}

impl Run<'_> {
    /// Keeps a message to be delivered to subscribers; its position among all that the workspace publishes.
    pub(super) fn publish(&self, message: i64, topic: &Topic) -> Result<i64> {
        let position = count(self.db, &self.of_workspace("publications"))?;
        let sql = "INSERT INTO topic_publication (workspace, position, topic, message) VALUES (?1, ?2, ?3, ?4)";
        self.db.prepare_cached(sql)?.execute(params![self.workspace(), position, topic.as_str(), message])?;
        self.hold(message, 1)?;
        self.forget_publications(position.saturating_sub(self.limits.publications_kept))?;
        Ok(position)
    }

    /// What is older than what is kept goes, whether somebody has yet to see it or not: they are told how much they missed.
    fn forget_publications(&self, until: i64) -> Result<()> {
        let sql = "DELETE FROM topic_publication WHERE workspace = ?1 AND position <= ?2 RETURNING message";
        let mut statement = self.db.prepare_cached(sql)?;
        let gone = statement.query_map(params![self.workspace(), until], |row| row.get(0))?;
        let gone: Vec<i64> = gone.collect::<Result<_>>()?;
        gone.into_iter().try_for_each(|message| self.hold(message, -1))
    }

    pub(super) fn subscribe(
        &self,
        subscriber: &Address,
        name: &str,
        pattern: &Pattern,
        after: Option<u64>,
    ) -> Result<Outcome> {
        let newest = last(self.db, &self.of_workspace("publications"))?;
        let position = after.map_or(newest, |after| stored(after).min(newest));
        let sql = "SELECT count(*) FROM topic_subscription WHERE workspace = ?1";
        let found: i64 = self.db.prepare_cached(sql)?.query_row([self.workspace()], |row| row.get(0))?;
        let most = self.limits.subscriptions_max;
        let known =
            "SELECT subscription FROM topic_subscription WHERE workspace = ?1 AND subscriber = ?2 AND name = ?3";
        let values = params![self.workspace(), subscriber.to_string(), name];
        let known: Option<i64> = self.db.prepare_cached(known)?.query_row(values, |row| row.get(0)).optional()?;
        if known.is_none() && found >= most {
            let what = "subscriptions in the workspace".to_owned();
            let (found, most) = (given(found), given(most));
            return Ok(Outcome::Refused(Reason::Limit { what, found, most }));
        }
        let row = match known {
            Some(row) => row,
            None => count(self.db, "subscription")?,
        };
        let sql =
            "INSERT INTO topic_subscription (subscription, workspace, subscriber, name, pattern, position, missed)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0) ON CONFLICT (subscription) DO UPDATE
            SET pattern = excluded.pattern, position = excluded.position, missed = 0";
        let values = params![row, self.workspace(), subscriber.to_string(), name, pattern.as_str(), position];
        self.db.prepare_cached(sql)?.execute(values)?;
        Ok(Outcome::Subscribed { position: given(position) })
    }

    pub(super) fn unsubscribe(&self, subscriber: &Address, name: &str) -> Result<Outcome> {
        let sql =
            "DELETE FROM topic_subscription WHERE workspace = ?1 AND subscriber = ?2 AND name = ?3 RETURNING position";
        let values = params![self.workspace(), subscriber.to_string(), name];
        let gone: Option<i64> = self.db.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
        Ok(gone
            .map_or(Outcome::Refused(Reason::NotFound), |position| Outcome::Subscribed { position: given(position) }))
    }

    /// Brings subscriptions further, by so many publications at most; how many were looked at. One whose subscriber's mailbox
    /// is full stays where it is, and loses nothing that is still kept.
    pub(super) fn pump(&self, most: i64) -> Result<i64> {
        let newest = last(self.db, &self.of_workspace("publications"))?;
        let sql = "SELECT subscription, subscriber, pattern, position FROM topic_subscription
            WHERE workspace = ?1 AND position < ?2 ORDER BY position, subscription";
        let read = |row: &Row<'_>| {
            Ok(Subscription { row: row.get(0)?, subscriber: row.get(1)?, pattern: row.get(2)?, position: row.get(3)? })
        };
        let mut statement = self.db.prepare_cached(sql)?;
        let behind = statement.query_map(params![self.workspace(), newest], read)?;
        let behind: Vec<Subscription> = behind.collect::<Result<_>>()?;
        let mut looked = 0;
        for subscription in behind {
            if looked >= most {
                break;
            }
            looked += self.pump_one(&subscription, most - looked)?;
        }
        Ok(looked)
    }

    fn pump_one(&self, of: &Subscription, most: i64) -> Result<i64> {
        let (Ok(subscriber), Ok(pattern)) = (of.subscriber.parse::<Address>(), of.pattern.parse::<Pattern>()) else {
            return Ok(0);
        };
        let sql = "SELECT p.position, p.topic, p.message, m.body FROM topic_publication p JOIN mailbox_message m
            ON m.message = p.message WHERE p.workspace = ?1 AND p.position > ?2 ORDER BY p.position LIMIT ?3";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.workspace(), of.position, most])?;
        let (mut position, mut missed, mut looked) = (of.position, 0, 0);
        while let Some(row) = rows.next()? {
            let (at, topic, message): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if topic.parse::<Topic>().is_ok_and(|topic| pattern.matches(&topic))
                && let Ok(submission) = decode_message(&row.get::<_, Vec<u8>>(3)?)
            {
                if self.room(&subscriber, &submission)?.is_err() {
                    break;
                }
                self.deliver(message, &submission, &subscriber, None)?;
            }
            // Positions have no gaps but where publications are no longer kept.
            missed += at - position - 1;
            position = at;
            looked += 1;
        }
        let sql = "UPDATE topic_subscription SET position = ?2, missed = missed + ?3 WHERE subscription = ?1";
        self.db.prepare_cached(sql)?.execute(params![of.row, position, missed])?;
        Ok(looked)
    }
}
