//! The state of agents that are programs, and which of them a workspace has.

use std::collections::BTreeMap;

use caxton_proto::AgentName;
use caxton_proto::acl::{Address, Performative};
use caxton_proto::mailbox::{Outcome, Reason, STATE_BYTES_MAX, STATE_KEYS_MAX};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::{About, Run};
use crate::tables::{count, given, stored};

impl Run<'_> {
    /// Changes keys of the state of a mailbox's owner, all of them or, with the reason, none.
    pub(super) fn change_state(
        &self,
        mailbox: i64,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Option<Reason>> {
        if changes.is_empty() {
            return Ok(None);
        }
        let sql = "SELECT owner FROM mailbox WHERE mailbox = ?1";
        let agent: String = self.db.prepare_cached(sql)?.query_row([mailbox], |row| row.get(0))?;
        let (mut keys, mut bytes) = (0, 0);
        for (key, value) in crate::state(self.db, self.workspace, &agent)? {
            let kept = match changes.get(&key) {
                Some(_) => continue,
                None => value,
            };
            (keys, bytes) = (keys + 1, bytes + key.len() + kept.len());
        }
        for (key, value) in changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            (keys, bytes) = (keys + 1, bytes + key.len() + value.len());
        }
        let most = |what: &str, found: usize, most: usize| {
            let (what, found, most) = (what.to_owned(), found as u64, most as u64);
            (found > most).then_some(Reason::Limit { what, found, most })
        };
        let over = most("keys of its state", keys, STATE_KEYS_MAX);
        if let Some(reason) = over.or_else(|| most("bytes of its state", bytes, STATE_BYTES_MAX)) {
            return Ok(Some(reason));
        }
        for (key, value) in changes {
            match value {
                Some(value) => {
                    let sql = "INSERT INTO agent_state (workspace, agent, key, value) VALUES (?1, ?2, ?3, ?4)
                        ON CONFLICT (workspace, agent, key) DO UPDATE SET value = excluded.value";
                    self.db.prepare_cached(sql)?.execute(params![self.workspace(), agent, key, value])?
                }
                None => {
                    let sql = "DELETE FROM agent_state WHERE workspace = ?1 AND agent = ?2 AND key = ?3";
                    self.db.prepare_cached(sql)?.execute(params![self.workspace(), agent, key])?
                }
            };
        }
        Ok(None)
    }

    /// Notes which agents are programs. One that was not there before is told that it is deployed.
    pub(super) fn roster(&self, revision: u64, programs: &[AgentName]) -> Result<Outcome> {
        let sql = "SELECT revision FROM agent_roster WHERE workspace = ?1";
        let known: Option<i64> =
            self.db.prepare_cached(sql)?.query_row([self.workspace()], |row| row.get(0)).optional()?;
        if known.is_some_and(|known| known >= stored(revision)) {
            return Ok(Outcome::Stale);
        }
        let sql = "INSERT INTO agent_roster (workspace, revision) VALUES (?1, ?2)
            ON CONFLICT (workspace) DO UPDATE SET revision = excluded.revision";
        self.db.prepare_cached(sql)?.execute(params![self.workspace(), stored(revision)])?;
        let sql = "SELECT agent FROM agent_program WHERE workspace = ?1 ORDER BY agent";
        let mut statement = self.db.prepare_cached(sql)?;
        let before = statement.query_map([self.workspace()], |row: &Row<'_>| row.get(0))?;
        let before: Vec<String> = before.collect::<Result<_>>()?;
        let mut changed = 0;
        for gone in before.iter().filter(|agent| !programs.iter().any(|it| it.as_str() == *agent)) {
            let sql = "DELETE FROM agent_program WHERE workspace = ?1 AND agent = ?2";
            self.db.prepare_cached(sql)?.execute(params![self.workspace(), gone])?;
            changed += 1;
        }
        for agent in programs.iter().filter(|agent| !before.iter().any(|it| it == agent.as_str())) {
            let sql = "INSERT OR IGNORE INTO agent_program (workspace, agent) VALUES (?1, ?2)";
            self.db.prepare_cached(sql)?.execute(params![self.workspace(), agent.as_str()])?;
            let number = count(self.db, "deployed")?.to_le_bytes();
            let conversation = format!("deployed-{agent}-{revision}");
            let about = About { key: &number, conversation: &conversation, protocol: None, in_reply_to: None };
            let content = format!("{{\"event\":\"deployed\",\"revision\":{revision}}}");
            self.tell(&Address::Agent(agent.clone()), Performative::Inform, &about, content)?;
            changed += 1;
        }
        Ok(Outcome::Ticked { changed: given(changed), more: false })
    }
}
