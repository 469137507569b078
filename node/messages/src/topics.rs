//! Topics as they are read: what is published, who subscribed, and publications from a position on.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::{Address, Pattern, Topic};
use caxton_proto::mailbox::{Filter, Submission, decode_message};
use rusqlite::{Connection, Result, Row, params};

use crate::tables::{given, last, stored};

/// The most publications that one replay looks at; the next one goes on from where it came to.
const LOOKED_AT_MAX: usize = 1_000;

/// A subscription, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its number within the shard, which grows with each that is made.
    pub number: u64,
    /// Who receives what is published.
    pub subscriber: Address,
    /// Its name, one of a kind for its subscriber.
    pub name: String,
    /// Which topics are meant.
    pub pattern: Pattern,
    /// Which messages are meant.
    pub filter: Filter,
    /// The last position that it has seen.
    pub position: u64,
    /// How many publications it had yet to see when they were no longer kept.
    pub missed: u64,
}

/// The subscriptions of a workspace after the one of a number, `most` of them, in the order in which they were made: those of
/// one subscriber, or everybody's.
pub fn subscriptions(
    db: &Connection,
    workspace: &WorkspaceId,
    subscriber: Option<&Address>,
    after: u64,
    most: usize,
) -> Result<Vec<Subscription>> {
    let sql = "SELECT subscription, subscriber, name, pattern, filter, position, missed FROM topic_subscription
        WHERE workspace = ?1 AND (?2 IS NULL OR subscriber = ?2) AND subscription > ?3 ORDER BY subscription LIMIT ?4";
    let read = |row: &Row<'_>| {
        let (subscriber, pattern, filter) =
            (row.get::<_, String>(1)?, row.get::<_, String>(3)?, row.get::<_, String>(4)?);
        // What cannot be read was not written by `apply`.
        let (Ok(subscriber), Ok(pattern), Ok(filter)) =
            (subscriber.parse(), pattern.parse(), Filter::of(filter.lines()))
        else {
            return Ok(None);
        };
        let (number, name) = (given(row.get(0)?), row.get(2)?);
        let (position, missed) = (given(row.get(5)?), given(row.get(6)?));
        Ok(Some(Subscription { number, subscriber, name, pattern, filter, position, missed }))
    };
    let mut statement = db.prepare_cached(sql)?;
    let values = params![workspace.as_str(), subscriber.map(Address::to_string), stored(after), most as i64];
    statement.query_map(values, read)?.filter_map(Result::transpose).collect()
}

/// A topic with what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// The topic as it was published on.
    pub topic: Topic,
    /// How many publications of it are kept.
    pub publications: u64,
    /// The position of the oldest of them.
    pub first: u64,
    /// The position of the newest of them.
    pub last: u64,
}

/// The topics of which publications are kept, after the one of a name, `most` of them, by their names.
pub fn topics(db: &Connection, workspace: &WorkspaceId, after: &str, most: usize) -> Result<Vec<TopicSummary>> {
    let sql = "SELECT topic, count(*), min(position), max(position) FROM topic_publication
        WHERE workspace = ?1 AND topic > ?2 GROUP BY topic ORDER BY topic LIMIT ?3";
    let read = |row: &Row<'_>| {
        let Ok(topic) = row.get::<_, String>(0)?.parse() else { return Ok(None) };
        let (publications, first, last) = (given(row.get(1)?), given(row.get(2)?), given(row.get(3)?));
        Ok(Some(TopicSummary { topic, publications, first, last }))
    };
    let mut statement = db.prepare_cached(sql)?;
    statement.query_map(params![workspace.as_str(), after, most as i64], read)?.filter_map(Result::transpose).collect()
}

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its position among all that the workspace publishes.
    pub position: u64,
    /// Where it was published.
    pub topic: Topic,
    /// When it was taken in, in milliseconds since 1970.
    pub at_ms: i64,
    /// What was published, as its sender sent it.
    pub submission: Submission,
}

/// Publications from a position on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Those that were wanted, in the order of their positions.
    pub publications: Vec<Publication>,
    /// All up to this position were looked at: the next replay goes on after it.
    pub reached: u64,
    /// There are more after it.
    pub more: bool,
    /// How many after the wanted position are no longer kept.
    pub missed: u64,
}

/// The publications after a position that a pattern and a filter take, `most` of them.
pub fn replay(
    db: &Connection,
    workspace: &WorkspaceId,
    (pattern, filter): (&Pattern, &Filter),
    after: u64,
    most: usize,
) -> Result<Replay> {
    let newest = given(last(db, &format!("publications/{workspace}"))?);
    let after = after.min(newest);
    let mut replay = Replay { publications: Vec::new(), reached: after, more: false, missed: 0 };
    let sql = "SELECT p.position, p.topic, m.sent_ms, m.body FROM topic_publication p JOIN mailbox_message m
        ON m.message = p.message WHERE p.workspace = ?1 AND p.position > ?2 ORDER BY p.position LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![workspace.as_str(), stored(after), LOOKED_AT_MAX as i64])?;
    while replay.publications.len() < most
        && let Some(row) = rows.next()?
    {
        let position = given(row.get(0)?);
        replay.missed += position.saturating_sub(replay.reached + 1);
        replay.reached = position;
        let Ok(topic) = row.get::<_, String>(1)?.parse::<Topic>() else { continue };
        if !pattern.matches(&topic) {
            continue;
        }
        let Ok(submission) = decode_message(row.get_ref(3)?.as_blob()?) else { continue };
        if filter.matches(&submission.message) {
            replay.publications.push(Publication { position, topic, at_ms: row.get(2)?, submission });
        }
    }
    let any = replay.reached > after;
    replay.more = any && replay.reached < newest;
    if !any && most > 0 {
        replay.reached = newest;
    }
    Ok(replay)
}
