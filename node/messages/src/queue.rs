//! Which deliveries come next, and which workspaces have something to do.
//!
//! A message of priority p counts as if it had been sent p times `ageing_ms` earlier, so that nothing waits for ever: what is sent
//! later than eight times that after it never comes before it. Among those that are as urgent, senders take turns.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::{Address, MessageId};
use caxton_proto::mailbox::{Submission, decode_message};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::Limits;
use crate::tables::{given, state, stored};

/// A delivery that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its number within the shard.
    pub delivery: u64,
    /// Which attempt it will be, from 1.
    pub attempt: u32,
    /// How often it failed: an attempt that a node did not bring to an end is gone on with in the next one of the same round.
    pub round: u32,
    /// When it was taken in, in milliseconds since 1970.
    pub sent_ms: i64,
    /// The message that is delivered.
    pub submission: Submission,
}

/// A candidate: what orders it among others.
struct Candidate {
    urgency: i64,
    served: i64,
    rank_ms: i64,
    delivery: i64,
}

/// The deliveries of a mailbox that come next, in their order, `most` of them. One of a sender and a priority waits for the
/// one before it that is under way; one that is tried again holds nothing up.
pub fn next(
    db: &Connection,
    workspace: &WorkspaceId,
    owner: &Address,
    now_ms: i64,
    most: usize,
    limits: &Limits,
) -> Result<Vec<Ready>> {
    let sql = "SELECT mailbox FROM mailbox WHERE workspace = ?1 AND owner = ?2";
    let found = db.prepare_cached(sql)?.query_row(params![workspace.as_str(), owner.to_string()], |row| row.get(0));
    let Some(mailbox) = found.optional()? else { return Ok(Vec::new()) };
    let mut candidates = again(db, mailbox, now_ms, most, limits)?;
    candidates.extend(lanes(db, mailbox, now_ms, limits)?);
    candidates.sort_by_key(|it| (it.urgency, it.served, it.rank_ms, it.delivery));
    candidates.truncate(most);
    candidates.iter().filter_map(|it| ready(db, it.delivery).transpose()).collect()
}

fn rank_ms(sent_ms: i64, priority: u8, limits: &Limits) -> i64 {
    sent_ms.saturating_sub(limits.ageing_ms.saturating_mul(i64::from(priority)))
}

/// What is to be tried again by now.
fn again(db: &Connection, mailbox: i64, now_ms: i64, most: usize, limits: &Limits) -> Result<Vec<Candidate>> {
    let sql =
        "SELECT delivery, sent_ms, priority, coalesce((SELECT max(served) FROM mailbox_lane l WHERE l.mailbox = ?1
            AND l.sender = mailbox_delivery.sender), 0) FROM mailbox_delivery WHERE mailbox = ?1 AND state = 2 AND due_ms <= ?2
        AND (expires_ms IS NULL OR expires_ms > ?2) ORDER BY due_ms, delivery LIMIT ?3";
    let read = |row: &Row<'_>| {
        let rank_ms = rank_ms(row.get(1)?, row.get(2)?, limits);
        let urgency = rank_ms.div_euclid(limits.ageing_ms.max(1));
        Ok(Candidate { urgency, served: row.get(3)?, rank_ms, delivery: row.get(0)? })
    };
    db.prepare_cached(sql)?.query_map(params![mailbox, now_ms, most as i64], read)?.collect()
}

/// The first of each sender and priority, unless one before it is under way and has not failed yet.
fn lanes(db: &Connection, mailbox: i64, now_ms: i64, limits: &Limits) -> Result<Vec<Candidate>> {
    let sql = "SELECT sender, priority, served FROM mailbox_lane WHERE mailbox = ?1 AND waiting > 0";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, u8>(1)?, row.get::<_, i64>(2)?));
    let lanes: Vec<(String, u8, i64)> = statement.query_map([mailbox], read)?.collect::<Result<_>>()?;
    // What a node did not bring to an end goes on in the same round, before what came after it.
    let busy = "SELECT EXISTS (SELECT 1 FROM mailbox_delivery WHERE mailbox = ?1 AND state IN (1, 2) AND sender = ?2
        AND priority = ?3 AND attempts > 0 AND round = 0)";
    let first = "SELECT delivery, sent_ms FROM mailbox_delivery WHERE mailbox = ?1 AND state = 0 AND sender = ?2
        AND priority = ?3 AND (expires_ms IS NULL OR expires_ms > ?4) ORDER BY delivery LIMIT 1";
    let mut found = Vec::new();
    for (sender, priority, served) in lanes {
        if db.prepare_cached(busy)?.query_row(params![mailbox, sender, priority], |row| row.get(0))? {
            continue;
        }
        let values = params![mailbox, sender, priority, now_ms];
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let Some((delivery, sent_ms)) = db.prepare_cached(first)?.query_row(values, read).optional()? else { continue };
        let rank_ms = rank_ms(sent_ms, priority, limits);
        let urgency = rank_ms.div_euclid(limits.ageing_ms.max(1));
        found.push(Candidate { urgency, served, rank_ms, delivery });
    }
    Ok(found)
}

/// The deliveries whose turns were put down, `most` of them after one's number, with whose they are.
pub fn parked(db: &Connection, after: u64, most: usize) -> Result<Vec<(WorkspaceId, Address, Ready)>> {
    let sql = "SELECT d.delivery, d.workspace, b.owner FROM mailbox_delivery d JOIN mailbox b ON b.mailbox = d.mailbox
        WHERE d.state = 4 AND d.delivery > ?1 ORDER BY d.delivery LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    let rows = statement.query_map(params![stored(after), most as i64], read)?;
    let mut all = Vec::new();
    for (delivery, workspace, owner) in rows.collect::<Result<Vec<_>>>()? {
        let (Ok(workspace), Ok(owner), Some(it)) = (workspace.parse(), owner.parse(), ready(db, delivery)?) else {
            continue;
        };
        // It is under way in the attempt that it is counted for.
        all.push((workspace, owner, Ready { attempt: it.attempt.saturating_sub(1), ..it }));
    }
    Ok(all)
}

fn ready(db: &Connection, delivery: i64) -> Result<Option<Ready>> {
    let sql =
        "SELECT d.attempts, m.body, d.round, m.sent_ms FROM mailbox_delivery d JOIN mailbox_message m ON m.message = d.message
        WHERE d.delivery = ?1";
    let read = |row: &Row<'_>| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, u32>(2)?, row.get::<_, i64>(3)?))
    };
    let found = db.prepare_cached(sql)?.query_row([delivery], read).optional()?;
    // What cannot be decoded was not written by `apply`.
    Ok(found.and_then(|(attempts, body, round, sent_ms)| {
        let submission = decode_message(&body).ok()?;
        Some(Ready { delivery: given(delivery), attempt: attempts.saturating_add(1), round, sent_ms, submission })
    }))
}

const WAITING: &str =
    "SELECT mailbox, workspace, owner FROM mailbox WHERE mailbox > ?2 AND mailbox <= ?3 AND held > dead
    AND instr(owner, ':') = 0 AND (
    EXISTS (SELECT 1 FROM mailbox_lane l WHERE l.mailbox = mailbox.mailbox)
    OR EXISTS (SELECT 1 FROM mailbox_delivery d WHERE d.mailbox = mailbox.mailbox AND d.state = 2 AND d.due_ms <= ?1))
    ORDER BY mailbox LIMIT ?4";

/// The mailboxes of agents in which something can be started, with their numbers: `most` of them, in the order of their numbers
/// from the first after `after` on, and round to that.
pub fn waiting(db: &Connection, now_ms: i64, after: u64, most: usize) -> Result<Vec<(u64, WorkspaceId, Address)>> {
    let mut statement = db.prepare_cached(WAITING)?;
    let mut all = Vec::new();
    for (above, last) in [(stored(after), i64::MAX), (i64::MIN, stored(after))] {
        let most = most.saturating_sub(all.len()) as i64;
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
        let rows = statement.query_map(params![now_ms, above, last, most], read)?;
        all.extend(rows.collect::<Result<Vec<_>>>()?);
    }
    let read =
        |(mailbox, of, owner): (i64, String, String)| Some((given(mailbox), of.parse().ok()?, owner.parse().ok()?));
    Ok(all.into_iter().filter_map(read).collect())
}

/// Whether something was started before this term, and has no outcome: a tick has to release it.
pub fn is_started_before(db: &Connection, term: u64) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM mailbox_delivery WHERE state = 1 AND term < ?1 LIMIT 1")?.exists([stored(term)])
}

const STARTED: &str = "SELECT DISTINCT workspace FROM mailbox_delivery WHERE state = 1 AND term < ?1";
const EXPIRES: &str = "SELECT DISTINCT workspace FROM mailbox_delivery
    WHERE expires_ms IS NOT NULL AND state IN (0, 2) AND expires_ms <= ?1";
/// Pauses of a leader whose clock was ahead.
const PAUSES: &str = "SELECT DISTINCT workspace FROM mailbox_delivery WHERE state = 2 AND attempts > 0 AND due_ms > ?1";
const LAPSES: &str =
    "SELECT DISTINCT workspace FROM agent_conversation WHERE deadline_ms IS NOT NULL AND deadline_ms <= ?1";
const WAITS: &str = "SELECT workspace FROM agent_wait WHERE missing > 0 AND until_ms <= ?1";
/// Subscriptions that are behind. One that is held back is so all the time, and is looked at again at its time.
const BEHIND: &str = "SELECT workspace FROM (SELECT substr(name, 14) AS workspace, last FROM mailbox_counter
        WHERE name > 'publications/' AND name < 'publications0') published
    WHERE EXISTS (SELECT 1 FROM topic_subscription s WHERE s.workspace = published.workspace
        AND s.position < published.last AND (s.held_until_ms <= ?1 OR s.held_until_ms > ?2))";
const OLD: &str = "SELECT workspace FROM (SELECT substr(name, 15) AS workspace FROM mailbox_counter
        WHERE name > 'conversations/' AND name < 'conversations0') known
    WHERE EXISTS (SELECT 1 FROM agent_conversation c WHERE c.workspace = known.workspace AND c.open = 0
        AND c.changed_ms < ?1)
    OR EXISTS (SELECT 1 FROM agent_conversation c WHERE c.workspace = known.workspace AND c.open = 1
        AND c.deadline_ms IS NULL AND c.changed_ms < ?1)
    OR EXISTS (SELECT 1 FROM mailbox_message m WHERE m.workspace = known.workspace AND m.gone_ms IS NOT NULL
        AND m.gone_ms < ?2)";

/// The workspaces in which a tick of this term has something to do now, but for what is only old ([`old`]). Each part is found by
/// an index that begins with what it is found by, so that what waits, or is over, costs nothing however much it is.
pub fn due(db: &Connection, now_ms: i64, term: u64, limits: &Limits) -> Result<Vec<WorkspaceId>> {
    let pause_ms = now_ms.saturating_add(limits.retry_ms_max);
    let mut all = workspaces(db, STARTED, [stored(term)])?;
    for (sql, at_ms) in [(EXPIRES, now_ms), (PAUSES, pause_ms), (LAPSES, now_ms), (WAITS, now_ms)] {
        all.extend(workspaces(db, sql, [at_ms])?);
    }
    all.extend(workspaces(db, BEHIND, [now_ms, now_ms.saturating_add(limits.held_ms)])?);
    all.sort();
    all.dedup();
    Ok(all)
}

/// The workspaces in which a tick has something to forget: conversations that have been over for long, and keys of messages that
/// are gone. It looks into each workspace that has sent a message, and is for now and then.
pub fn old(db: &Connection, now_ms: i64, limits: &Limits) -> Result<Vec<WorkspaceId>> {
    let conversations_ms = now_ms.saturating_sub(limits.conversation_ms);
    workspaces(db, OLD, [conversations_ms, now_ms.saturating_sub(limits.key_ms)])
}

fn workspaces<const N: usize>(db: &Connection, sql: &str, values: [i64; N]) -> Result<Vec<WorkspaceId>> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(0))?;
    let all: Vec<String> = rows.collect::<Result<_>>()?;
    Ok(all.into_iter().filter_map(|workspace| workspace.parse().ok()).collect())
}

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its first attempt.
    Ready,
    /// It was given to its receiver.
    Started,
    /// It waits for another attempt.
    Retry,
    /// It is a dead letter.
    Dead,
    /// A turn waits: the one that it began, or one for which it is kept.
    Waiting,
}

/// A delivery as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number within the shard.
    pub delivery: u64,
    /// Whose mailbox it is in.
    pub owner: Address,
    /// The message's id.
    pub id: MessageId,
    /// Where it is.
    pub stage: Stage,
    /// How often it was started.
    pub attempts: u32,
    /// When it is tried again or was sent, in milliseconds since 1970.
    pub due_ms: i64,
    /// Why it failed last.
    pub reason: Option<String>,
    /// The message that is delivered.
    pub submission: Submission,
}

/// What a list is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only of this mailbox.
    pub owner: Option<Address>,
    /// Only dead letters, or only what is none.
    pub dead: Option<bool>,
    /// Only this one.
    pub delivery: Option<u64>,
    /// Only those with a greater number.
    pub after: u64,
    /// The most of them.
    pub most: usize,
}

/// The numbers of the deliveries of a workspace, in their order.
pub fn numbers(db: &Connection, workspace: &WorkspaceId, what: &Listing) -> Result<Vec<u64>> {
    let sql = "SELECT d.delivery FROM mailbox_delivery d JOIN mailbox b ON b.mailbox = d.mailbox
        WHERE d.workspace = ?1 AND d.delivery > ?2 AND (?3 IS NULL OR b.owner = ?3) AND (?4 IS NULL OR (d.state = 3) = ?4)
        AND (?5 IS NULL OR d.delivery = ?5) ORDER BY d.delivery LIMIT ?6";
    let owner = what.owner.as_ref().map(Address::to_string);
    let mut statement = db.prepare_cached(sql)?;
    let values =
        params![workspace.as_str(), stored(what.after), owner, what.dead, what.delivery.map(stored), what.most as i64];
    statement.query_map(values, |row| row.get(0).map(given))?.collect()
}

/// The deliveries of a workspace in the order of their numbers.
pub fn list(db: &Connection, workspace: &WorkspaceId, what: &Listing) -> Result<Vec<Listed>> {
    let sql = "SELECT d.delivery, b.owner, d.state, d.attempts, d.due_ms, d.reason, m.body FROM mailbox_delivery d
        JOIN mailbox b ON b.mailbox = d.mailbox JOIN mailbox_message m ON m.message = d.message
        WHERE d.workspace = ?1 AND d.delivery > ?2 AND (?3 IS NULL OR b.owner = ?3) AND (?4 IS NULL OR (d.state = 3) = ?4)
        AND (?5 IS NULL OR d.delivery = ?5) ORDER BY d.delivery LIMIT ?6";
    let owner = what.owner.as_ref().map(Address::to_string);
    let mut statement = db.prepare_cached(sql)?;
    let values =
        params![workspace.as_str(), stored(what.after), owner, what.dead, what.delivery.map(stored), what.most as i64];
    let rows = statement.query_map(values, |row| {
        let stage = match row.get::<_, i64>(2)? {
            state::READY => Stage::Ready,
            state::STARTED => Stage::Started,
            state::RETRY => Stage::Retry,
            state::PARKED | state::AWAITED => Stage::Waiting,
            _ => Stage::Dead,
        };
        let (owner, body) = (row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(6)?);
        let (Ok(owner), Ok(submission)) = (owner.parse(), decode_message(&body)) else { return Ok(None) };
        Ok(Some(Listed {
            delivery: given(row.get(0)?),
            owner,
            id: submission.id,
            stage,
            attempts: row.get(3)?,
            due_ms: row.get(4)?,
            reason: row.get(5)?,
            submission,
        }))
    })?;
    rows.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::TABLES;

    /// What a round of dispatch asks, each time, however much there is.
    #[test]
    fn nothing_goes_through_a_whole_table_to_find_what_is_due() {
        let db = Connection::open_in_memory().expect("memory");
        TABLES.iter().for_each(|(name, sql)| db.execute_batch(sql).expect(name));
        let scans = |sql: &str| -> Vec<String> {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
            let values = vec![1; statement.parameter_count()];
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
            let plan: Vec<String> = rows.expect(sql).collect::<Result<_>>().expect(sql);
            plan.into_iter().filter(|step| step.starts_with("SCAN")).collect()
        };
        for sql in [STARTED, EXPIRES, PAUSES, LAPSES, WAITS, BEHIND, OLD, WAITING] {
            assert!(scans(sql).is_empty(), "{sql}: {:?}", scans(sql));
        }
        assert!(!scans("SELECT workspace FROM mailbox_delivery WHERE expires_ms <= ?1").is_empty(), "the control");
    }
}
