//! Topics: what is published has a position, and each subscription the position that it has come to.

use std::borrow::Cow;

use caxton_proto::acl::{Address, Pattern, Topic};
use caxton_proto::mailbox::{Filter, Outcome, Reason, decode_message};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::Run;
use super::deliver::EncodedMessage;
use crate::tables::{count, given, last, stored};

/// A subscription's row.
struct Subscription {
    row: i64,
    subscriber: String,
    pattern: String,
    position: i64,
    filter: String,
}

/// What somebody wants of what is published.
pub(super) struct Interest<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) filter: &'a Filter,
    /// The position after which it begins.
    pub(super) after: Option<u64>,
}

/// Bytes of a message that a filter looks into for the price of one more publication.
const FILTERED_BYTES: usize = 4 << 10;

impl Run<'_> {
    /// Keeps a message, which is held for it already, to be delivered to subscribers; its position among all that the workspace publishes.
    pub(super) fn publish(&self, message: i64, topic: &Topic) -> Result<i64> {
        let position = count(self.db, &self.of_workspace("publications"))?;
        let sql = "INSERT INTO topic_publication (workspace, position, topic, message) VALUES (?1, ?2, ?3, ?4)";
        self.db.prepare_cached(sql)?.execute(params![self.workspace(), position, topic.as_str(), message])?;
        self.forget_publications(position.saturating_sub(self.limits.publications_kept))?;
        Ok(position)
    }

    /// What is older than what is kept goes, whether somebody has yet to see it or not: they are told how much they missed.
    fn forget_publications(&self, until: i64) -> Result<()> {
        let sql = "SELECT message FROM topic_publication WHERE workspace = ?1 AND position <= ?2";
        let mut statement = self.db.prepare_cached(sql)?;
        let gone = statement.query_map(params![self.workspace(), until], |row| row.get(0))?;
        let gone: Vec<i64> = gone.collect::<Result<_>>()?;
        if !gone.is_empty() {
            let sql = "DELETE FROM topic_publication WHERE workspace = ?1 AND position <= ?2";
            self.db.prepare_cached(sql)?.execute(params![self.workspace(), until])?;
        }
        gone.into_iter().try_for_each(|message| self.let_go(message))
    }

    /// A subscription of the name goes on from where it is unless a position is named, so that whoever subscribes once more
    /// after a pause misses nothing.
    pub(super) fn subscribe(&self, subscriber: &Address, name: &str, to: Interest<'_>) -> Result<Outcome> {
        let newest = last(self.db, &self.of_workspace("publications"))?;
        let sql = "SELECT count(*) FROM topic_subscription WHERE workspace = ?1";
        let found: i64 = self.db.prepare_cached(sql)?.query_row([self.workspace()], |row| row.get(0))?;
        let most = self.limits.subscriptions_max;
        let known = "SELECT subscription, position, missed FROM topic_subscription WHERE workspace = ?1 AND subscriber = ?2 AND name = ?3";
        let values = params![self.workspace(), subscriber.to_string(), name];
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let known = self.db.prepare_cached(known)?.query_row(values, read).optional()?;
        if known.is_none() && found >= most {
            let what = "subscriptions in the workspace".to_owned();
            let (found, most) = (given(found), given(most));
            return Ok(Outcome::Refused(Reason::Limit { what, found, most }));
        }
        let row = match known {
            Some((row, ..)) => row,
            None => count(self.db, "subscription")?,
        };
        let (position, missed) = match (to.after, known) {
            (Some(after), _) => (stored(after).min(newest), 0),
            (None, Some((_, position, missed))) => (position, missed),
            (None, None) => (newest, 0),
        };
        let filter: Vec<String> = to.filter.conditions().iter().map(ToString::to_string).collect();
        let sql =
            "INSERT INTO topic_subscription (subscription, workspace, subscriber, name, pattern, position, missed, filter)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (subscription) DO UPDATE SET pattern = excluded.pattern,
            position = excluded.position, missed = excluded.missed, filter = excluded.filter, held_until_ms = 0";
        self.db.prepare_cached(sql)?.execute(params![
            row,
            self.workspace(),
            subscriber.to_string(),
            name,
            to.pattern.as_str(),
            position,
            missed,
            filter.join("\n")
        ])?;
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
    /// is full stays where it is, loses nothing that is still kept, and is passed over for a while.
    pub(super) fn pump(&self, most: i64) -> Result<i64> {
        let newest = last(self.db, &self.of_workspace("publications"))?;
        let sql = "SELECT subscription, subscriber, pattern, position, filter FROM topic_subscription
            WHERE workspace = ?1 AND position < ?2 AND (held_until_ms <= ?3 OR held_until_ms > ?4)
            ORDER BY position, subscription";
        // A leader whose clock was ahead may have said when.
        let latest_ms = self.now_ms.saturating_add(self.limits.held_ms);
        let read = |row: &Row<'_>| {
            let (subscriber, pattern, position) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Subscription { row: row.get(0)?, subscriber, pattern, position, filter: row.get(4)? })
        };
        let mut statement = self.db.prepare_cached(sql)?;
        let behind = statement.query_map(params![self.workspace(), newest, self.now_ms, latest_ms], read)?;
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
        let Ok(filter) = Filter::of(of.filter.lines()) else { return Ok(0) };
        let sql = "SELECT p.position, p.topic, p.message, m.body FROM topic_publication p JOIN mailbox_message m
            ON m.message = p.message WHERE p.workspace = ?1 AND p.position > ?2 ORDER BY p.position LIMIT ?3";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.workspace(), of.position, most])?;
        let (mut position, mut missed, mut looked, mut held_until_ms) = (of.position, 0, 0, 0);
        while looked < most
            && let Some(row) = rows.next()?
        {
            let (at, topic, message): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let body: &[u8] = row.get_ref(3)?.as_blob()?;
            let meant = topic.parse::<Topic>().is_ok_and(|topic| pattern.matches(&topic));
            if meant && !filter.is_empty() {
                looked += (body.len() / FILTERED_BYTES) as i64;
            }
            if meant
                && let Ok(submission) = decode_message(body)
                && filter.matches(&submission.message)
            {
                let is_made = self.boxes(std::slice::from_ref(&subscriber))?.is_ok();
                let encoded = EncodedMessage { submission: &submission, body: Cow::Borrowed(body) };
                if !is_made || self.room(&subscriber, &encoded)?.is_err() {
                    held_until_ms = self.now_ms.saturating_add(self.limits.held_ms);
                    break;
                }
                self.hold(message)?;
                self.deliver(message, &encoded, &subscriber, None)?;
            }
            // Positions have no gaps but where publications are no longer kept.
            missed += at - position - 1;
            position = at;
            looked += 1;
        }
        let sql = "UPDATE topic_subscription SET position = ?2, missed = missed + ?3, held_until_ms = ?4
            WHERE subscription = ?1";
        self.db.prepare_cached(sql)?.execute(params![of.row, position, missed, held_until_ms])?;
        Ok(looked.min(most))
    }
}
