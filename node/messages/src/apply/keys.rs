//! The keys with which senders sign: one that counts for each, and those before it for a while.

use caxton_proto::mailbox::{KeyId, Outcome, Reason, SetKey};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::Run;
use crate::tables::{count, given, last};

/// The counter of a workspace's keys.
const KEY_COUNT: &str = "keys";

impl Run<'_> {
    /// Gives a sender a key to sign with. What signed before it verifies what was taken in until its overlap is over.
    pub(super) fn set_key(&self, of: &SetKey) -> Result<Outcome> {
        let (owner, key) = (of.owner.to_string(), KeyId::of(&of.public));
        let sql = "SELECT key, held FROM mailbox_key WHERE workspace = ?1 AND owner = ?2 AND ends_ms IS NULL";
        let read = |row: &Row<'_>| Ok((KeyId::from_bytes(row.get(0)?), row.get::<_, bool>(1)?));
        let found = self.db.prepare_cached(sql)?.query_row(params![self.workspace(), owner], read).optional()?;
        // A token that is stolen takes nobody's own key away.
        if !of.held && matches!(found, Some((current, false)) if current != key) {
            let field = "key of their own is registered already: a deployer rotates it first".to_owned();
            return Ok(Outcome::Refused(Reason::Field { field }));
        }
        let current = found.map(|(current, _)| current);
        let overlap_ms = match (current, of.overlap_ms) {
            (Some(current), _) if current == key => return Ok(Outcome::Keyed(current)),
            (Some(current), None) => return Ok(Outcome::Keyed(current)),
            (Some(_), Some(overlap_ms)) => overlap_ms,
            (None, _) => 0,
        };
        let sql = "SELECT EXISTS (SELECT 1 FROM mailbox_key WHERE workspace = ?1 AND key = ?2)";
        if self.db.prepare_cached(sql)?.query_row(params![self.workspace(), key.as_bytes()], |row| row.get(0))? {
            let field = "key is known already: make another one".to_owned();
            return Ok(Outcome::Refused(Reason::Field { field }));
        }
        if let Some(full) = self.keys_full(&owner)? {
            return Ok(Outcome::Refused(full));
        }
        let sql = "UPDATE mailbox_key SET ends_ms = ?3 WHERE workspace = ?1 AND owner = ?2 AND ends_ms IS NULL";
        let ends_ms = self.now_ms.saturating_add(overlap_ms);
        self.db.prepare_cached(sql)?.execute(params![self.workspace(), owner, ends_ms])?;
        let number = count(self.db, "key")?;
        count(self.db, &self.of_workspace(KEY_COUNT))?;
        let sql = "INSERT INTO mailbox_key (workspace, key, number, owner, public, held, sealed_with, sealed, made_ms)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.db.prepare_cached(sql)?.execute(params![
            self.workspace(),
            key.as_bytes(),
            number,
            owner,
            of.public,
            of.held,
            of.sealed_with,
            of.sealed,
            self.now_ms
        ])?;
        Ok(Outcome::Keyed(key))
    }

    /// Whether no key more can be kept, of a sender or of the workspace. The sender's oldest whose time is over make room.
    fn keys_full(&self, owner: &str) -> Result<Option<Reason>> {
        let counter = self.of_workspace(KEY_COUNT);
        let sql = "SELECT count(*) FROM mailbox_key WHERE workspace = ?1 AND owner = ?2";
        let own: i64 = self.db.prepare_cached(sql)?.query_row(params![self.workspace(), owner], |row| row.get(0))?;
        let over = (own - self.limits.keys_max + 1).max(0);
        let sql = "DELETE FROM mailbox_key WHERE workspace = ?1 AND key IN (SELECT key FROM mailbox_key
            WHERE workspace = ?1 AND owner = ?2 AND ends_ms <= ?3 ORDER BY number LIMIT ?4)";
        let gone = self.db.prepare_cached(sql)?.execute(params![self.workspace(), owner, self.now_ms, over])? as i64;
        let sql = "UPDATE mailbox_counter SET last = last - ?2 WHERE name = ?1";
        self.db.prepare_cached(sql)?.execute(params![counter, gone])?;
        let all = last(self.db, &counter)?;
        let (what, found, most) = match (gone < over, all >= self.limits.workspace_keys_max) {
            (true, _) => ("keys that still count", own - gone, self.limits.keys_max),
            (false, true) => ("keys in the workspace", all, self.limits.workspace_keys_max),
            (false, false) => return Ok(None),
        };
        Ok(Some(Reason::Limit { what: what.to_owned(), found: given(found), most: given(most) }))
    }
}
