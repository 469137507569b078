//! Deleting, from every table: what somebody asks for, and what is beyond the rules of retention.

use caxton_proto::memory::{
    EntityId, Forget, Gone, MemoryId, Outcome, Reason, RelationId, Removed, Retain, Rule, Scope,
};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Result, params, params_from_iter};

use super::Run;
use super::rows::{self, Owner};
use crate::tables;

/// The most rows that one command deletes or takes a source from, so that it does not hold the log up.
const ROWS_MAX: u64 = 10_000;
/// The most memories that a removal names.
const GONE_MAX: usize = 1_000;

/// A memory that is to be deleted.
struct Doomed {
    row: i64,
    id: MemoryId,
    kind: String,
    bytes: u64,
}

/// The rows that a removal has deleted so far.
fn rows_of(removed: &Removed) -> u64 {
    removed.memories + removed.entities + removed.relations
}

impl Run<'_> {
    pub(super) fn forget(&mut self, forget: &Forget) -> Result<Outcome> {
        let mut removed = Removed::default();
        match forget {
            Forget::Memories(ids) => {
                for id in ids {
                    let found = rows::by_id(self.db, self.workspace(), id)?;
                    let Some(found) = found.filter(|found| self.may(&found.value.what.scope)) else { continue };
                    self.delete_where(
                        &found.value.what.scope,
                        "row = ?1",
                        [Value::from(found.row)],
                        None,
                        &mut removed,
                    )?;
                }
                if let (0, [id, ..]) = (removed.memories, ids.as_slice()) {
                    return Ok(Outcome::Refused(Reason::NotFound.about(id.as_bytes())));
                }
            }
            Forget::Entities(ids) => {
                for id in ids {
                    self.forget_entity(id, &mut removed)?;
                }
                if let (0, false, [id, ..]) = (removed.entities, removed.more, ids.as_slice()) {
                    return Ok(Outcome::Refused(Reason::NotFound.about(id.as_bytes())));
                }
            }
            Forget::Scope(scope) if !self.may(scope) => return Ok(Outcome::Refused(Reason::NotPermitted.alone())),
            Forget::Scope(scope) => {
                if let Some(place) = tables::place(self.db, self.workspace(), scope)? {
                    self.forget_place(place, scope, &mut removed)?;
                }
                self.forget_sources(scope, &mut removed)?;
            }
            Forget::Everything => {
                for (place, scope) in tables::places(self.db, self.workspace())? {
                    if self.may(&scope) && !removed.more {
                        self.forget_place(place, &scope, &mut removed)?;
                    }
                }
            }
        }
        Ok(Outcome::Removed(removed))
    }

    fn forget_place(&mut self, place: i64, scope: &Scope, removed: &mut Removed) -> Result<()> {
        self.delete_where(scope, "place = ?1", [Value::from(place)], None, removed)?;
        let ids: Vec<EntityId> = self
            .db
            .prepare_cached("SELECT id FROM memory_entity WHERE place = ?1 ORDER BY name LIMIT ?2")?
            .query_map(params![place, ROWS_MAX as i64], |row| row.get(0).map(EntityId::from_bytes))?
            .collect::<Result<_>>()?;
        for id in ids {
            if removed.more {
                return Ok(());
            }
            self.forget_entity(&id, removed)?;
            removed.more |= rows_of(removed) >= ROWS_MAX;
        }
        // Its name goes too; its number is never given to another scope.
        self.db
            .prepare_cached(
                "DELETE FROM memory_place WHERE place = ?1 AND NOT EXISTS (SELECT 1 FROM memory WHERE place = ?1)
                 AND NOT EXISTS (SELECT 1 FROM memory_entity WHERE place = ?1)",
            )?
            .execute([place])?;
        Ok(())
    }

    /// An entity with its observations and its relations.
    fn forget_entity(&mut self, id: &EntityId, removed: &mut Removed) -> Result<()> {
        let found = rows::entity_by_id(self.db, self.workspace(), id)?;
        let Some(found) = found.filter(|found| self.may(&found.value.what.scope)) else {
            return Ok(());
        };
        self.delete_where(&found.value.what.scope, "entity = ?1", [Value::from(found.row)], None, removed)?;
        let relations: Vec<(i64, RelationId)> = self
            .db
            .prepare_cached(
                "SELECT row, id FROM memory_relation WHERE from_row = ?1 OR to_row = ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![found.row, ROWS_MAX as i64], |row| {
                Ok((row.get(0)?, RelationId::from_bytes(row.get(1)?)))
            })?
            .collect::<Result<_>>()?;
        for (row, id) in relations {
            self.drop_relation(row, id)?;
            removed.relations += 1;
        }
        removed.more |= rows_of(removed) >= ROWS_MAX;
        if removed.more {
            return Ok(());
        }
        self.delete_sources(Owner::Entity, found.row)?;
        self.db.prepare_cached("DELETE FROM memory_entity WHERE row = ?1")?.execute([found.row])?;
        self.touch_entity(*id);
        removed.entities += 1;
        Ok(())
    }

    pub(super) fn drop_relation(&mut self, row: i64, id: RelationId) -> Result<()> {
        self.delete_sources(Owner::Relation, row)?;
        self.db.prepare_cached("DELETE FROM memory_relation WHERE row = ?1")?.execute([row])?;
        self.touch_relation(id);
        Ok(())
    }

    fn delete_sources(&self, owner: Owner, row: i64) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM memory_source WHERE owner = ?1 AND row = ?2")?
            .execute(params![owner as i64, row])?;
        Ok(())
    }

    /// Takes the sources away that name a conversation or a subject that is forgotten, wherever they are. What came from
    /// nowhere else goes with them.
    fn forget_sources(&mut self, scope: &Scope, removed: &mut Removed) -> Result<()> {
        let origin = match scope {
            Scope::Conversation(_) => 1,
            Scope::Subject(_) => 3,
            Scope::Agent(_) | Scope::Workspace | Scope::Global => return Ok(()),
        };
        let mut taken = 0;
        for (owner, table) in
            [(Owner::Memory, "memory"), (Owner::Relation, "memory_relation"), (Owner::Entity, "memory_entity")]
        {
            let rows: Vec<i64> = self
                .db
                .prepare_cached(&format!(
                    "SELECT DISTINCT s.row FROM memory_source s JOIN {table} t ON t.row = s.row
                     JOIN memory_place p USING (place)
                     WHERE s.name = ?1 AND s.origin = ?2 AND s.origin IN (1, 3) AND s.owner = ?3 AND p.workspace = ?4
                     ORDER BY s.row LIMIT ?5"
                ))?
                .query_map(
                    params![scope.name(), origin, owner as i64, self.workspace().as_str(), ROWS_MAX as i64 + 1],
                    |row| row.get(0),
                )?
                .collect::<Result<_>>()?;
            for row in rows {
                removed.more |= rows_of(removed) + taken >= ROWS_MAX;
                if removed.more {
                    return Ok(());
                }
                taken += 1;
                self.db
                    .prepare_cached(
                        "DELETE FROM memory_source WHERE owner = ?1 AND row = ?2 AND name = ?3 AND origin = ?4",
                    )?
                    .execute(params![owner as i64, row, scope.name(), origin])?;
                self.forget_or_touch(owner, row, removed)?;
            }
        }
        Ok(())
    }

    /// What lost a source: it goes if it has no other, and an entity only if nothing is said of it.
    fn forget_or_touch(&mut self, owner: Owner, row: i64, removed: &mut Removed) -> Result<()> {
        let has = |sql: &str, params: &[i64]| self.db.prepare_cached(sql)?.exists(params_from_iter(params));
        let sourced = has("SELECT 1 FROM memory_source WHERE owner = ?1 AND row = ?2", &[owner as i64, row])?;
        match owner {
            Owner::Memory => {
                let Some(found) = rows::memories(self.db, "WHERE m.row = ?1", [row])?.into_iter().next() else {
                    return Ok(());
                };
                if sourced {
                    self.touch_memory(found.value.what.id);
                } else {
                    let scope = found.value.what.scope;
                    self.delete_where(&scope, "row = ?1", [Value::from(row)], None, removed)?;
                }
            }
            Owner::Relation if !sourced => {
                let id = self.db.query_row("SELECT id FROM memory_relation WHERE row = ?1", [row], |it| it.get(0))?;
                self.drop_relation(row, RelationId::from_bytes(id))?;
                removed.relations += 1;
            }
            Owner::Entity if !sourced => {
                let said = has(
                    "SELECT 1 WHERE EXISTS (SELECT 1 FROM memory WHERE entity = ?1)
                     OR EXISTS (SELECT 1 FROM memory_relation WHERE from_row = ?1 OR to_row = ?1)",
                    &[row],
                )?;
                if !said {
                    let id = self.db.query_row("SELECT id FROM memory_entity WHERE row = ?1", [row], |it| it.get(0))?;
                    self.forget_entity(&EntityId::from_bytes(id), removed)?;
                }
            }
            Owner::Relation | Owner::Entity => {}
        }
        Ok(())
    }

    /// Deletes the memories of a scope that meet a condition, oldest change first.
    fn delete_where(
        &mut self,
        scope: &Scope,
        condition: &str,
        values: impl IntoIterator<Item = Value>,
        rule: Option<u32>,
        removed: &mut Removed,
    ) -> Result<()> {
        let left = ROWS_MAX.saturating_sub(rows_of(removed));
        let doomed: Vec<Doomed> = self
            .db
            .prepare_cached(&format!(
                "SELECT row, id, kind, octet_length(text) + coalesce(octet_length(metadata), 0) FROM memory
                 WHERE {condition} ORDER BY changed_ms, id LIMIT {}",
                left + 1
            ))?
            .query_map(params_from_iter(values), |row| {
                let bytes = row.get::<_, i64>(3)?.unsigned_abs();
                Ok(Doomed { row: row.get(0)?, id: MemoryId::from_bytes(row.get(1)?), kind: row.get(2)?, bytes })
            })?
            .collect::<Result<_>>()?;
        removed.more |= doomed.len() as u64 > left;
        for doomed in doomed.into_iter().take(left as usize) {
            self.delete_sources(Owner::Memory, doomed.row)?;
            self.db.prepare_cached("DELETE FROM memory_edit WHERE memory = ?1")?.execute([doomed.row])?;
            rows::delete_text(self.db, doomed.row)?;
            self.db.prepare_cached("DELETE FROM memory WHERE row = ?1")?.execute([doomed.row])?;
            self.touch_memory(doomed.id);
            removed.memories += 1;
            removed.bytes += doomed.bytes;
            if removed.gone.len() < GONE_MAX {
                let Doomed { id, kind, bytes, .. } = doomed;
                removed.gone.push(Gone { id, scope: scope.clone(), kind, bytes, rule });
            }
        }
        Ok(())
    }

    pub(super) fn retain(&mut self, retain: &Retain) -> Result<Outcome> {
        let mut removed = Removed::default();
        for (place, scope) in tables::places(self.db, self.workspace())? {
            for (number, rule) in retain.rules.iter().enumerate() {
                let applies = rule.scope.is_none_or(|kind| kind == scope.kind()) && self.may(&scope);
                if applies && !removed.more {
                    self.keep_to(rule, number as u32, place, &scope, &mut removed)?;
                }
            }
        }
        Ok(Outcome::Removed(removed))
    }

    fn keep_to(&mut self, rule: &Rule, number: u32, place: i64, scope: &Scope, removed: &mut Removed) -> Result<()> {
        // `?2` is absent where the rule is for every kind.
        let these = "place = ?1 AND (?2 IS NULL OR kind = ?2) AND pinned = 0";
        let base = || vec![Value::from(place), rule.kind.clone().map_or(Value::Null, Value::from)];
        if let Some(age) = rule.age_ms_max {
            let before = self.command.time_ms.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
            let values = base().into_iter().chain([Value::from(before)]);
            self.delete_where(scope, &format!("{these} AND changed_ms < ?3"), values, Some(number), removed)?;
        }
        let newest = |sql: &str, most: u64| {
            let values = base().into_iter().chain([Value::from(i64::try_from(most).unwrap_or(i64::MAX))]);
            let mut statement = self.db.prepare_cached(sql)?;
            statement
                .query_row(params_from_iter(values), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?)))
                .optional()
        };
        // The newest memory that is one too many; all that are as old or older go. Pinned ones are not counted.
        let by_count = match rule.count_max {
            Some(most) => newest(
                &format!(
                    "SELECT changed_ms, id FROM memory WHERE {these} ORDER BY changed_ms DESC, id DESC LIMIT 1 OFFSET ?3"
                ),
                most,
            )?,
            None => None,
        };
        let by_bytes = match rule.bytes_max {
            Some(most) => newest(
                &format!(
                    "SELECT changed_ms, id FROM (SELECT changed_ms, id, sum(octet_length(text) + coalesce(octet_length(metadata), 0))
                     OVER (ORDER BY changed_ms DESC, id DESC) AS bytes FROM memory WHERE {these}) WHERE bytes > ?3
                     ORDER BY changed_ms DESC, id DESC LIMIT 1"
                ),
                most,
            )?,
            None => None,
        };
        for (changed_ms, id) in [by_count, by_bytes].into_iter().flatten() {
            let values = base().into_iter().chain([Value::from(changed_ms), Value::from(id.to_vec())]);
            self.delete_where(
                scope,
                &format!("{these} AND (changed_ms, id) <= (?3, ?4)"),
                values,
                Some(number),
                removed,
            )?;
        }
        Ok(())
    }
}
