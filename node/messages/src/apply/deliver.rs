//! Mailboxes: what lies in them, and how much room there is.

use std::borrow::Cow;

use caxton_proto::acl::Address;
use caxton_proto::mailbox::{MAILBOXES, Reason, Submission, decode_message, encode_message};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::Run;
use crate::tables::{count, given, last, state, stored};

/// The answer to a sender where nothing has left the mailbox yet, in milliseconds.
const RETRY_AFTER_MS: i64 = 5_000;
/// The longest that a sender is told to wait, in milliseconds.
const RETRY_AFTER_MS_MAX: i64 = 60_000;

/// The counter of a workspace's mailboxes.
const MAILBOX_COUNT: &str = "mailboxes";

/// A delivery's row, as far as commands need it.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) delivery: i64,
    pub(super) mailbox: i64,
    pub(super) message: i64,
    sender: String,
    priority: u8,
    bytes: i64,
    pub(super) state: i64,
    pub(super) attempts: u32,
    pub(super) due_ms: i64,
    pub(super) expires_ms: Option<i64>,
}

const COLUMNS: &str = "delivery, mailbox, message, sender, priority, bytes, state, attempts, due_ms, expires_ms";

impl Delivery {
    fn read(row: &Row<'_>) -> Result<Delivery> {
        Ok(Delivery {
            delivery: row.get(0)?,
            mailbox: row.get(1)?,
            message: row.get(2)?,
            sender: row.get(3)?,
            priority: row.get(4)?,
            bytes: row.get(5)?,
            state: row.get(6)?,
            attempts: row.get(7)?,
            due_ms: row.get(8)?,
            expires_ms: row.get(9)?,
        })
    }
}

/// A message with the form in which it is kept, which is made once however many mailboxes it goes to.
pub(super) struct EncodedMessage<'a> {
    pub(super) submission: &'a Submission,
    pub(super) body: Cow<'a, [u8]>,
}

impl<'a> EncodedMessage<'a> {
    pub(super) fn of(submission: &'a Submission) -> EncodedMessage<'a> {
        EncodedMessage { submission, body: Cow::Owned(encode_message(submission)) }
    }

    /// What it takes up in a mailbox.
    fn bytes(&self) -> i64 {
        stored(self.body.len() as u64)
    }
}

/// Counts anew what each sender has in each mailbox, after a snapshot was restored that had no such counts.
pub fn count_senders(db: &Connection) -> Result<()> {
    let sql = "INSERT INTO mailbox_sender (mailbox, sender, held, bytes)
        SELECT mailbox, sender, count(*), sum(bytes) FROM mailbox_delivery WHERE state <> ?1 GROUP BY mailbox, sender";
    db.execute("DELETE FROM mailbox_sender", [])?;
    db.execute(sql, [state::DEAD]).map(drop)
}

/// Counts anew how many mailboxes each workspace has, after a snapshot was restored that had no such counts.
pub fn count_mailboxes(db: &Connection) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO mailbox_counter (name, last)
        SELECT ?1 || '/' || workspace, count(*) FROM mailbox GROUP BY workspace";
    db.execute(sql, [MAILBOX_COUNT]).map(drop)
}

impl Run<'_> {
    pub(super) fn delivery(&self, number: i64) -> Result<Option<Delivery>> {
        let sql = format!("SELECT {COLUMNS} FROM mailbox_delivery WHERE delivery = ?1 AND workspace = ?2");
        self.db.prepare_cached(&sql)?.query_row(params![number, self.workspace()], Delivery::read).optional()
    }

    /// Deliveries of the workspace for which a condition with one value holds, in the order of their numbers: found by the index
    /// of what the condition asks, for which the `+` is there, and not by going through all of them in that order.
    pub(super) fn deliveries(&self, condition: &str, value: i64, most: i64) -> Result<Vec<Delivery>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM mailbox_delivery WHERE workspace = ?1 AND {condition} ORDER BY +delivery LIMIT ?3"
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        statement.query_map(params![self.workspace(), value, most], Delivery::read)?.collect()
    }

    /// Whether there is, or may be, a mailbox for each of these receivers. Where there are as many as may be, those with nothing
    /// in them go first.
    pub(super) fn boxes(&self, receivers: &[Address]) -> Result<std::result::Result<(), Reason>> {
        let mut missing = self.without_box(receivers)?;
        if missing == 0 {
            return Ok(Ok(()));
        }
        let counter = self.of_workspace(MAILBOX_COUNT);
        if last(self.db, &counter)?.saturating_add(missing) > self.mailboxes_max {
            self.remove_empty(&counter)?;
            missing = self.without_box(receivers)?;
        }
        let found = last(self.db, &counter)?.saturating_add(missing);
        Ok(if found <= self.mailboxes_max {
            Ok(())
        } else {
            let (found, most) = (given(found), given(self.mailboxes_max));
            Err(Reason::Limit { what: MAILBOXES.to_owned(), found, most })
        })
    }

    /// How many of these receivers have no mailbox and would need one.
    fn without_box(&self, receivers: &[Address]) -> Result<i64> {
        let sql = "SELECT EXISTS (SELECT 1 FROM mailbox WHERE workspace = ?1 AND owner = ?2)";
        let mut missing = 0;
        for receiver in receivers.iter().filter(|to| !matches!(to, Address::Topic(_))) {
            let values = params![self.workspace(), receiver.to_string()];
            let there: bool = self.db.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
            missing += i64::from(!there);
        }
        Ok(missing)
    }

    /// Takes mailboxes away that hold nothing: they come again when something is sent.
    fn remove_empty(&self, counter: &str) -> Result<()> {
        let sql = "DELETE FROM mailbox WHERE mailbox IN (SELECT mailbox FROM mailbox WHERE workspace = ?1 AND held = 0
            ORDER BY mailbox LIMIT ?2)";
        let gone = self.db.prepare_cached(sql)?.execute(params![self.workspace(), self.limits.tick_max])?;
        let sql = "UPDATE mailbox_counter SET last = last - ?2 WHERE name = ?1";
        self.db.prepare_cached(sql)?.execute(params![counter, gone as i64]).map(drop)
    }

    /// Whether a receiver's mailbox has room for a message.
    pub(super) fn room(&self, receiver: &Address, of: &EncodedMessage<'_>) -> Result<std::result::Result<(), Reason>> {
        let sql = "SELECT mailbox, held, dead, bytes, interval_ms FROM mailbox WHERE workspace = ?1 AND owner = ?2";
        let values = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        let found = self.db.prepare_cached(sql)?.query_row(params![self.workspace(), receiver.to_string()], values);
        let (mailbox, held, dead, bytes, interval_ms): (i64, i64, i64, i64, i64) =
            found.optional()?.unwrap_or_default();
        let sender = of.submission.message.sender.as_ref().map(Address::to_string).unwrap_or_default();
        let (own, own_bytes) = self.of_sender(mailbox, &sender)?;
        let (limits, bytes_of_it) = (self.limits, of.bytes());
        let fits = held < limits.mailbox_messages_max
            && bytes.saturating_add(bytes_of_it) <= limits.mailbox_bytes_max
            && own < (limits.mailbox_messages_max / 2).max(1)
            && own_bytes.saturating_add(bytes_of_it) <= limits.mailbox_bytes_max / 2;
        if fits {
            return Ok(Ok(()));
        }
        let wait_ms = if interval_ms == 0 { RETRY_AFTER_MS } else { interval_ms.min(RETRY_AFTER_MS_MAX) };
        let (retry_after_ms, dead) = (given(wait_ms), given(dead));
        Ok(Err(Reason::Full { receiver: receiver.clone(), retry_after_ms, dead }))
    }

    /// How many messages of a sender a mailbox holds, dead letters not among them, and their bytes.
    fn of_sender(&self, mailbox: i64, sender: &str) -> Result<(i64, i64)> {
        let sql = "SELECT held, bytes FROM mailbox_sender WHERE mailbox = ?1 AND sender = ?2";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        Ok(self.db.prepare_cached(sql)?.query_row(params![mailbox, sender], read).optional()?.unwrap_or_default())
    }

    /// A sender has so many messages more in a mailbox, or fewer, with so many bytes.
    fn count_of_sender(&self, mailbox: i64, sender: &str, by: i64, bytes: i64) -> Result<()> {
        // The last of a sender's takes its row with it.
        if by < 0 {
            let sql = "DELETE FROM mailbox_sender WHERE mailbox = ?1 AND sender = ?2 AND held + ?3 <= 0";
            if self.db.prepare_cached(sql)?.execute(params![mailbox, sender, by])? > 0 {
                return Ok(());
            }
        }
        let sql = "INSERT INTO mailbox_sender (mailbox, sender, held, bytes) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (mailbox, sender) DO UPDATE SET held = held + ?3, bytes = bytes + ?4";
        self.db.prepare_cached(sql)?.execute(params![mailbox, sender, by, by * bytes]).map(drop)
    }

    /// Whether a mailbox that is full keeps one more of what agents sent to it in vain: a tenth of what it holds at most.
    pub(super) fn keeps_refused(&self, owner: &Address, of: &EncodedMessage<'_>) -> Result<bool> {
        let sql = "SELECT held, bytes FROM mailbox WHERE workspace = ?1 AND owner = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let values = params![self.workspace(), owner.to_string()];
        let found = self.db.prepare_cached(sql)?.query_row(values, read).optional()?;
        if found.is_none() && self.boxes(std::slice::from_ref(owner))?.is_err() {
            return Ok(false);
        }
        let (held, bytes) = found.unwrap_or_default();
        let (messages_max, bytes_max) = (self.limits.mailbox_messages_max, self.limits.mailbox_bytes_max);
        Ok(held < messages_max.saturating_add((messages_max / 10).max(1))
            && bytes.saturating_add(of.bytes()) <= bytes_max.saturating_add(bytes_max / 10))
    }

    /// The number of a mailbox, which is made where there is none.
    fn mailbox(&self, owner: &Address) -> Result<i64> {
        let owner = owner.to_string();
        let sql = "SELECT mailbox FROM mailbox WHERE workspace = ?1 AND owner = ?2";
        let found = self.db.prepare_cached(sql)?.query_row(params![self.workspace(), owner], |row| row.get(0));
        if let Some(mailbox) = found.optional()? {
            return Ok(mailbox);
        }
        let mailbox = count(self.db, "mailbox")?;
        count(self.db, &self.of_workspace(MAILBOX_COUNT))?;
        let sql = "INSERT INTO mailbox (mailbox, workspace, owner, held, dead, bytes, served, settled_ms, interval_ms)
            VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0, 0)";
        self.db.prepare_cached(sql)?.execute(params![mailbox, self.workspace(), owner])?;
        Ok(mailbox)
    }

    /// Lays a message into a mailbox, for which it is held already; with a reason, as a dead letter.
    pub(super) fn deliver(
        &self,
        message: i64,
        encoded: &EncodedMessage<'_>,
        to: &Address,
        dead: Option<&str>,
    ) -> Result<()> {
        let of = encoded.submission;
        let mailbox = self.mailbox(to)?;
        let delivery = count(self.db, "delivery")?;
        let sender = of.message.sender.as_ref().map(Address::to_string).unwrap_or_default();
        let sql =
            "INSERT INTO mailbox_delivery (delivery, workspace, mailbox, message, sender, priority, sent_ms, bytes,
            state, attempts, round, due_ms, expires_ms, term, reason, wait)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 0, ?12, ?10, 0, ?11, ?13)";
        let (priority, bytes) = (of.priority.number(), encoded.bytes());
        let wait = if dead.is_some() { None } else { self.awaited_by(to, of)? };
        let delay_ms = of.delay_ms();
        let at = match (dead, wait) {
            (Some(_), _) => state::DEAD,
            (None, Some(_)) => state::AWAITED,
            (None, None) if delay_ms > 0 => state::RETRY,
            (None, None) => state::READY,
        };
        self.db.prepare_cached(sql)?.execute(params![
            delivery,
            self.workspace(),
            mailbox,
            message,
            sender,
            priority,
            self.now_ms,
            bytes,
            at,
            of.expires_ms,
            dead,
            self.now_ms.saturating_add(delay_ms),
            wait
        ])?;
        let sql = "UPDATE mailbox SET held = held + 1, dead = dead + ?2, bytes = bytes + ?3 WHERE mailbox = ?1";
        self.db.prepare_cached(sql)?.execute(params![mailbox, i64::from(dead.is_some()), bytes])?;
        if at != state::DEAD {
            self.count_of_sender(mailbox, &sender, 1, bytes)?;
        }
        if at == state::READY { self.enter_lane(mailbox, &sender, priority) } else { Ok(()) }
    }

    /// One more waits in a lane. A sender that was not there begins behind those that were served least.
    fn enter_lane(&self, mailbox: i64, sender: &str, priority: u8) -> Result<()> {
        let sql = "INSERT INTO mailbox_lane (mailbox, sender, priority, waiting, served) VALUES (?1, ?2, ?3, 1,
            coalesce((SELECT max(served) FROM mailbox_lane WHERE mailbox = ?1 AND sender = ?2),
                     (SELECT served FROM mailbox WHERE mailbox = ?1)))
            ON CONFLICT (mailbox, sender, priority) DO UPDATE SET waiting = waiting + 1";
        self.db.prepare_cached(sql)?.execute(params![mailbox, sender, priority]).map(drop)
    }

    fn leave_lane(&self, of: &Delivery) -> Result<()> {
        let lane = params![of.mailbox, of.sender, of.priority];
        let sql = "DELETE FROM mailbox_lane WHERE mailbox = ?1 AND sender = ?2 AND priority = ?3 AND waiting <= 1";
        if self.db.prepare_cached(sql)?.execute(lane)? > 0 {
            return Ok(());
        }
        let sql = "UPDATE mailbox_lane SET waiting = waiting - 1 WHERE mailbox = ?1 AND sender = ?2 AND priority = ?3";
        self.db.prepare_cached(sql)?.execute(lane).map(drop)
    }

    /// The sender of a delivery was served: others come first now.
    pub(super) fn served(&self, of: &Delivery) -> Result<()> {
        let sql = "SELECT served + 1 FROM mailbox WHERE mailbox = ?1";
        let served: i64 = self.db.prepare_cached(sql)?.query_row([of.mailbox], |row| row.get(0))?;
        let sql = "UPDATE mailbox SET served = ?2 WHERE mailbox = ?1";
        self.db.prepare_cached(sql)?.execute([of.mailbox, served])?;
        let sql = "UPDATE mailbox_lane SET served = ?3 WHERE mailbox = ?1 AND sender = ?2";
        self.db.prepare_cached(sql)?.execute(params![of.mailbox, of.sender, served]).map(drop)
    }

    /// What came of the attempts so far does not count for the next one, which is another round.
    pub(super) fn next_round(&self, of: &Delivery) -> Result<()> {
        let sql = "UPDATE mailbox_delivery SET round = round + 1 WHERE delivery = ?1";
        self.db.prepare_cached(sql)?.execute([of.delivery]).map(drop)
    }

    /// Changes where a delivery is, with all that is counted of it.
    pub(super) fn change(&self, of: &Delivery, to: &Change<'_>) -> Result<()> {
        if of.state == state::READY {
            self.leave_lane(of)?;
        }
        if to.state == state::READY {
            self.enter_lane(of.mailbox, &of.sender, of.priority)?;
        }
        let dead = i64::from(to.state == state::DEAD) - i64::from(of.state == state::DEAD);
        if dead != 0 {
            let sql = "UPDATE mailbox SET dead = dead + ?2 WHERE mailbox = ?1";
            self.db.prepare_cached(sql)?.execute(params![of.mailbox, dead])?;
            self.count_of_sender(of.mailbox, &of.sender, -dead, of.bytes)?;
        }
        let sql = "UPDATE mailbox_delivery SET state = ?2, attempts = ?3, due_ms = ?4, expires_ms = ?5, term = ?6, reason = ?7
            WHERE delivery = ?1";
        let term = if to.state == state::STARTED { stored(self.term) } else { 0 };
        self.db
            .prepare_cached(sql)?
            .execute(params![of.delivery, to.state, to.attempts, to.due_ms, to.expires_ms, term, to.reason])
            .map(drop)
    }

    /// Takes a delivery out of its mailbox.
    pub(super) fn remove(&self, of: &Delivery) -> Result<()> {
        if of.state == state::READY {
            self.leave_lane(of)?;
        }
        if of.state != state::DEAD {
            self.count_of_sender(of.mailbox, &of.sender, -1, of.bytes)?;
        }
        self.db.prepare_cached("DELETE FROM mailbox_delivery WHERE delivery = ?1")?.execute([of.delivery])?;
        // How long it takes until something leaves, smoothed, is what a sender is told where there is no room.
        let sql = "UPDATE mailbox SET held = held - 1, dead = dead - ?2, bytes = bytes - ?3, settled_ms = ?4,
            interval_ms = CASE settled_ms WHEN 0 THEN 0 ELSE (interval_ms * 3 + max(?4 - settled_ms, 1) + 3) / 4 END
            WHERE mailbox = ?1";
        let dead = i64::from(of.state == state::DEAD);
        self.db.prepare_cached(sql)?.execute(params![of.mailbox, dead, of.bytes, self.now_ms])?;
        self.let_go(of.message)
    }

    /// A delivery that is a dead letter from now on, for a reason, which its sender is told where it waits for an answer.
    pub(super) fn bury(&self, of: &Delivery, reason: &str) -> Result<()> {
        let (attempts, due_ms, expires_ms) = (of.attempts, of.due_ms, of.expires_ms);
        self.change(of, &Change { state: state::DEAD, attempts, due_ms, expires_ms, reason: Some(reason) })?;
        self.tell_sender(of, reason)
    }

    /// Tells the sender of a delivery why no answer will come, where it waits for one.
    pub(super) fn tell_sender(&self, of: &Delivery, reason: &str) -> Result<()> {
        let sql = "SELECT m.body, b.owner FROM mailbox_message m, mailbox b WHERE m.message = ?1 AND b.mailbox = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?));
        let found = self.db.prepare_cached(sql)?.query_row([of.message, of.mailbox], read).optional()?;
        match found.and_then(|(body, owner)| Some((decode_message(&body).ok()?, owner.parse::<Address>().ok()?))) {
            Some((submission, owner)) => self.tell_of_failure(&submission, &owner, reason),
            None => Ok(()),
        }
    }
}

/// Where a delivery is after a change.
pub(super) struct Change<'a> {
    pub(super) state: i64,
    pub(super) attempts: u32,
    pub(super) due_ms: i64,
    pub(super) expires_ms: Option<i64>,
    pub(super) reason: Option<&'a str>,
}
