//! Entries that every replica refused: a row each, an answer to whoever proposed one, and an alarm. They change nothing else,
//! and the shard goes on.

use bytes::Bytes;
use rusqlite::Connection;
use tracing::error;

use super::tenant::{Answer, Effect, Refusal};

/// The newest so many are kept.
const REFUSED_MAX: i64 = 1_000;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub index: u64,
    /// The number of the tenant whose command it was; 0 where that cannot be read.
    pub tenant: u32,
    /// Why it was refused.
    pub reason: String,
}

/// Writes an entry down as refused.
pub(super) fn record(rows: &Connection, index: u64, tenant: u32, refusal: &Refusal) -> rusqlite::Result<()> {
    rows.prepare_cached("INSERT OR REPLACE INTO refused VALUES (?1, ?2, ?3)")?.execute(rusqlite::params![
        index.cast_signed(),
        tenant,
        refusal.reason()
    ])?;
    let newest = "DELETE FROM refused WHERE number NOT IN (SELECT number FROM refused ORDER BY number DESC LIMIT ?1)";
    rows.prepare_cached(newest)?.execute([REFUSED_MAX])?;
    Ok(())
}

/// Those that are kept, the oldest first.
pub(super) fn all(rows: &Connection) -> rusqlite::Result<Vec<Refused>> {
    let mut statement = rows.prepare_cached("SELECT number, tenant, reason FROM refused ORDER BY number")?;
    let refused = statement.query_map([], |row| {
        Ok(Refused { index: row.get::<_, i64>(0)?.cast_unsigned(), tenant: row.get(1)?, reason: row.get(2)? })
    })?;
    refused.collect()
}

/// Tells whoever watches the node.
pub(super) fn alarm(shard: u32, index: u64, tenant: &'static str, refusal: &Refusal) {
    metrics::counter!("caxton_shard_refused_entries_total", "tenant" => tenant).increment(1);
    error!(
        shard,
        index,
        tenant,
        reason = refusal.reason(),
        "an entry of the shard's log was refused by every replica and changed nothing; please report it as a defect"
    );
}

/// What the machine answers for an entry: how it reads for whoever proposed it. The first byte says which, and it is empty for
/// an entry that was applied and has no more to say.
pub(super) fn encode(reply: &Result<Answer, Refusal>) -> Bytes {
    let (kind, body) = match reply {
        Ok(Answer { effect: Effect::Applied, body }) if body.is_empty() => return Bytes::new(),
        Ok(Answer { effect: Effect::Applied, body }) => (b'a', body.as_ref()),
        Ok(Answer { effect: Effect::Repeated, body }) => (b'r', body.as_ref()),
        Ok(Answer { effect: Effect::Fenced, body }) => (b'f', body.as_ref()),
        Err(refusal) => (b'x', refusal.reason().as_bytes()),
    };
    Bytes::from([&[kind][..], body].concat())
}

/// Reads such an answer.
pub(super) fn decode(reply: &Bytes) -> Result<Answer, Refusal> {
    let body = reply.slice(reply.len().min(1)..);
    let effect = match reply.first() {
        None | Some(b'a') => Effect::Applied,
        Some(b'r') => Effect::Repeated,
        Some(b'f') => Effect::Fenced,
        Some(_) => return Err(Refusal::new(String::from_utf8_lossy(&body))),
    };
    Ok(Answer { effect, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_entry_reads_back() {
        for effect in [Effect::Applied, Effect::Repeated, Effect::Fenced] {
            for body in [b"".as_slice(), b"more"] {
                let reply = Ok(Answer { effect, body: Bytes::from_static(body) });
                assert_eq!(decode(&encode(&reply)), reply);
            }
        }
        let refused = Err(Refusal::new("why"));
        assert_eq!(decode(&encode(&refused)), refused);
    }
}
