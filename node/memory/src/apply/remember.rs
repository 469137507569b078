//! Keeping: the same thing twice is one memory with two sources, and a contradiction ends what was true before.

use caxton_proto::memory::{
    EntityId, Fate, Item, MemoryId, NewEntity, NewMemory, NewRelation, Outcome, Reason, Refusal, RelationId,
    Remembered, Source,
};
use rusqlite::{OptionalExtension, Result, params};

use super::Run;
use super::rows::{self, Memory, MemoryEntity, MemoryRelation, Owner, Rowed, overlap};

/// The most observations of one entity.
pub const OBSERVATIONS_MAX: u64 = 10_000;
/// The kind of an entity of which nobody said what it is.
const THING: &str = "thing";

fn untrusted(sources: &[Source]) -> bool {
    sources.iter().any(|source| source.untrusted)
}

fn item<Id>(id: Id, fate: Fate<Id>) -> Item<Id> {
    Item { id, fate }
}

impl Run<'_> {
    pub(super) fn remember(
        &mut self,
        entities: &[NewEntity],
        memories: &[NewMemory],
        relations: &[NewRelation],
    ) -> Result<Outcome> {
        Ok(Outcome::Remembered(Remembered {
            entities: entities.iter().map(|new| self.keep_entity(new)).collect::<Result<_>>()?,
            memories: memories.iter().map(|new| self.keep_memory(new)).collect::<Result<_>>()?,
            relations: relations.iter().map(|new| self.keep_relation(new)).collect::<Result<_>>()?,
        }))
    }

    fn keep_entity(&mut self, new: &NewEntity) -> Result<Item<EntityId>> {
        let id = new.id();
        let refused = |reason: Reason| Ok(item(id, Fate::Refused(reason.about(id.as_bytes()))));
        if let Err(reason) = new.check() {
            return refused(reason);
        }
        if !self.may(&new.scope) {
            return refused(Reason::NotPermitted);
        }
        let place = self.place_or_new(&new.scope)?;
        let known = rows::entities(self.db, "WHERE e.place = ?1 AND e.name = ?2", params![place, new.name])?;
        let Some(mut known) = known.into_iter().next() else {
            self.new_entity(place, new.clone())?;
            return Ok(item(id, Fate::Stored { closed: Vec::new() }));
        };
        let what = &mut known.value.what;
        let mut changed = rows::add_sources(&mut what.sources, &new.sources);
        if what.kind != new.kind && new.kind != THING {
            what.kind.clone_from(&new.kind);
            changed = true;
        }
        if new.metadata.is_some() && what.metadata != new.metadata {
            what.metadata.clone_from(&new.metadata);
            changed = true;
        }
        let mark = known.value.untrusted || untrusted(&new.sources);
        if changed || mark != known.value.untrusted {
            known.value.untrusted = mark;
            known.value.changed_ms = self.command.time_ms;
            let it = &known.value;
            self.db
                .prepare_cached(
                    "UPDATE memory_entity SET kind = ?2, metadata = ?3, untrusted = ?4, changed_ms = ?5 WHERE row = ?1",
                )?
                .execute(params![known.row, it.what.kind, it.what.metadata, it.untrusted, it.changed_ms])?;
            rows::write_sources(self.db, Owner::Entity, known.row, &it.what.sources)?;
            self.touch_entity(id);
        }
        Ok(item(id, Fate::Known))
    }

    fn new_entity(&mut self, place: i64, what: NewEntity) -> Result<i64> {
        let untrusted = untrusted(&what.sources);
        let entity = MemoryEntity { what, changed_ms: self.command.time_ms, untrusted };
        let row = rows::insert_entity(self.db, place, &entity)?;
        self.touch_entity(entity.what.id());
        Ok(row)
    }

    /// The row of an entity by name; one that nobody has named before is made.
    fn entity_or_new(&mut self, place: i64, name: &str, like: &NewEntity) -> Result<i64> {
        match rows::entity_row(self.db, place, name)? {
            Some(row) => Ok(row),
            None => self.new_entity(place, NewEntity { name: name.to_owned(), ..like.clone() }),
        }
    }

    fn keep_memory(&mut self, new: &NewMemory) -> Result<Item<MemoryId>> {
        let refused = |reason: Reason| Ok(item(new.id, Fate::Refused(reason.about(new.id.as_bytes()))));
        if let Err(reason) = new.check() {
            return refused(reason);
        }
        if !self.may(&new.scope) {
            return refused(Reason::NotPermitted);
        }
        if let Some(known) = rows::by_id(self.db, self.workspace(), &new.id)? {
            let same = known.value.what.scope == new.scope
                && rows::same_text(&known.value.what.text) == rows::same_text(&new.text);
            return if same { Ok(item(new.id, Fate::Known)) } else { refused(Reason::Conflict) };
        }
        let replaced = match &new.replaces {
            None => None,
            Some(id) => match rows::by_id(self.db, self.workspace(), id)? {
                Some(old) if old.value.what.scope == new.scope => Some(old),
                Some(_) | None => return refused(Reason::NotFound),
            },
        };
        let mut closed = Vec::new();
        let mut valid_to_ms = new.valid_to_ms;
        let place = self.place_or_new(&new.scope)?;
        if let Some(known) = self.same(place, new)? {
            if let Some(old) = replaced.filter(|old| old.row != known.row) {
                self.end(old, new.valid_from_ms, &mut closed)?;
            }
            return self.again(known, new);
        }
        let entity = match &new.entity {
            None => None,
            Some(name) => match self.observed(place, name, new)? {
                Ok(row) => Some(row),
                Err(refusal) => return Ok(item(new.id, Fate::Refused(refusal))),
            },
        };
        // Nothing refuses any more: what this one replaces ends.
        if let Some(old) = replaced {
            self.end(old, new.valid_from_ms, &mut closed)?;
        }
        for old in self.contradicted(place, entity, new)? {
            if old.value.what.valid_from_ms <= new.valid_from_ms {
                self.end(old, new.valid_from_ms, &mut closed)?;
            } else {
                // What is kept later may have been true earlier: then the new memory ends where the known one begins.
                let begins = old.value.what.valid_from_ms;
                valid_to_ms = Some(valid_to_ms.map_or(begins, |end| end.min(begins)));
            }
        }
        let what = NewMemory { valid_to_ms, ..new.clone() };
        // What is imported is as old as it was elsewhere.
        let changed_ms = what.created_ms.min(self.command.time_ms);
        let memory = Memory { untrusted: untrusted(&what.sources), changed_ms, what };
        let row = rows::insert_memory(self.db, place, entity, &memory)?;
        rows::insert_text(self.db, row, place, &memory.what.text)?;
        self.touch_memory(new.id);
        Ok(item(new.id, Fate::Stored { closed }))
    }

    /// The memory that says the same of the same, at a time that the new one is about.
    fn same(&self, place: i64, new: &NewMemory) -> Result<Option<Rowed<Memory>>> {
        let span = (new.valid_from_ms, new.valid_to_ms);
        let all = rows::with_text(self.db, place, &new.text)?;
        Ok(all.into_iter().find(|found| {
            let what = &found.value.what;
            what.kind == new.kind
                && what.name == new.name
                && what.entity == new.entity
                && overlap((what.valid_from_ms, what.valid_to_ms), span)
        }))
    }

    /// The same thing remembered once more: one memory, one source more.
    fn again(&mut self, mut known: Rowed<Memory>, new: &NewMemory) -> Result<Item<MemoryId>> {
        let id = known.value.what.id;
        let it = &mut known.value;
        let mut changed = rows::add_sources(&mut it.what.sources, &new.sources);
        let (importance, pinned) = (it.what.importance.max(new.importance), it.what.pinned || new.pinned);
        let mark = it.untrusted || untrusted(&new.sources);
        changed |= (importance, pinned, mark) != (it.what.importance, it.what.pinned, it.untrusted);
        if changed {
            (it.what.importance, it.what.pinned, it.untrusted) = (importance, pinned, mark);
            it.changed_ms = it.changed_ms.max(self.command.time_ms);
            rows::update_memory(self.db, known.row, it)?;
            rows::write_sources(self.db, Owner::Memory, known.row, &it.what.sources)?;
            self.touch_memory(id);
        }
        Ok(item(id, Fate::Known))
    }

    /// What was true until now ends; it is not overwritten.
    fn end(&mut self, mut old: Rowed<Memory>, at_ms: i64, closed: &mut Vec<MemoryId>) -> Result<()> {
        let what = &mut old.value.what;
        let at_ms = at_ms.max(what.valid_from_ms);
        if what.valid_to_ms.is_some_and(|end| end <= at_ms) {
            return Ok(());
        }
        what.valid_to_ms = Some(at_ms);
        closed.push(what.id);
        old.value.changed_ms = self.command.time_ms;
        rows::update_memory(self.db, old.row, &old.value)?;
        self.touch_memory(old.value.what.id);
        Ok(())
    }

    /// Memories of the same kind and name that say something else of the same time.
    fn contradicted(&self, place: i64, entity: Option<i64>, new: &NewMemory) -> Result<Vec<Rowed<Memory>>> {
        let Some(name) = &new.name else { return Ok(Vec::new()) };
        let mut all = rows::memories(
            self.db,
            "WHERE m.place = ?1 AND m.kind = ?2 AND m.name = ?3 AND m.entity IS ?4 ORDER BY m.valid_from_ms, m.id",
            params![place, new.kind, name, entity],
        )?;
        let span = (new.valid_from_ms, new.valid_to_ms);
        all.retain(|old| overlap((old.value.what.valid_from_ms, old.value.what.valid_to_ms), span));
        Ok(all)
    }

    /// The row of the entity that is observed, unless it has too many observations.
    fn observed(&mut self, place: i64, name: &str, new: &NewMemory) -> Result<std::result::Result<i64, Refusal>> {
        let like = NewEntity {
            scope: new.scope.clone(),
            name: String::new(),
            kind: THING.to_owned(),
            metadata: None,
            sources: new.sources.clone(),
            created_ms: new.created_ms,
        };
        let row = self.entity_or_new(place, name, &like)?;
        let found: u64 = self
            .db
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM memory WHERE entity = ?1 LIMIT ?2)")?
            .query_row(params![row, OBSERVATIONS_MAX as i64], |row| row.get::<_, i64>(0))?
            .unsigned_abs();
        if found < OBSERVATIONS_MAX {
            return Ok(Ok(row));
        }
        let what = "observations of one entity".to_owned();
        Ok(Err(Reason::Limit { what, found: found + 1, most: OBSERVATIONS_MAX }.about(new.id.as_bytes())))
    }

    fn keep_relation(&mut self, new: &NewRelation) -> Result<Item<RelationId>> {
        let refused = |reason: Reason| Ok(item(new.id, Fate::Refused(reason.about(new.id.as_bytes()))));
        if let Err(reason) = new.check() {
            return refused(reason);
        }
        if !self.may(&new.scope) {
            return refused(Reason::NotPermitted);
        }
        let place = self.place_or_new(&new.scope)?;
        if let Some(known) = rows::relation_by_id(self.db, self.workspace(), &new.id)? {
            let it = &known.value.what;
            let same = (&it.scope, &it.from, &it.kind, &it.to) == (&new.scope, &new.from, &new.kind, &new.to);
            return if same { Ok(item(new.id, Fate::Known)) } else { refused(Reason::Conflict) };
        }
        let like = NewEntity {
            scope: new.scope.clone(),
            name: String::new(),
            kind: THING.to_owned(),
            metadata: None,
            sources: new.sources.clone(),
            created_ms: new.created_ms,
        };
        let from = self.entity_or_new(place, &new.from, &like)?;
        let to = self.entity_or_new(place, &new.to, &like)?;
        let all = rows::relations(
            self.db,
            "WHERE r.from_row = ?1 AND r.kind = ?2 AND r.to_row = ?3 ORDER BY r.valid_from_ms, r.id",
            params![from, new.kind, to],
        )?;
        let span = (new.valid_from_ms, new.valid_to_ms);
        let known = all.into_iter().find(|it| overlap((it.value.what.valid_from_ms, it.value.what.valid_to_ms), span));
        if let Some(known) = known {
            return self.related_again(known, new);
        }
        let untrusted = untrusted(&new.sources);
        let relation = MemoryRelation { what: new.clone(), changed_ms: self.command.time_ms, untrusted };
        rows::insert_relation(self.db, place, (from, to), &relation)?;
        self.touch_relation(new.id);
        Ok(item(new.id, Fate::Stored { closed: Vec::new() }))
    }

    fn related_again(&mut self, mut known: Rowed<MemoryRelation>, new: &NewRelation) -> Result<Item<RelationId>> {
        let id = known.value.what.id;
        let it = &mut known.value;
        let mut changed = rows::add_sources(&mut it.what.sources, &new.sources);
        if new.metadata.is_some() && it.what.metadata != new.metadata {
            it.what.metadata.clone_from(&new.metadata);
            changed = true;
        }
        let mark = it.untrusted || untrusted(&new.sources);
        if changed || mark != it.untrusted {
            it.untrusted = mark;
            it.changed_ms = self.command.time_ms;
            self.update_relation(&known)?;
            rows::write_sources(self.db, Owner::Relation, known.row, &known.value.what.sources)?;
            self.touch_relation(id);
        }
        Ok(item(id, Fate::Known))
    }

    fn update_relation(&self, known: &Rowed<MemoryRelation>) -> Result<()> {
        let it = &known.value;
        self.db
            .prepare_cached(
                "UPDATE memory_relation SET metadata = ?2, untrusted = ?3, changed_ms = ?4, valid_to_ms = ?5 WHERE row = ?1",
            )?
            .execute(params![known.row, it.what.metadata, it.untrusted, it.changed_ms, it.what.valid_to_ms])?;
        Ok(())
    }

    /// Ends relations, or deletes them. Those that are not there, or not permitted, are passed over.
    pub(super) fn end_relations(&mut self, ids: &[RelationId], valid_to_ms: Option<i64>) -> Result<Outcome> {
        let mut ended = 0;
        for id in ids {
            let found = rows::relation_by_id(self.db, self.workspace(), id)?;
            let Some(mut found) = found.filter(|found| self.may(&found.value.what.scope)) else {
                continue;
            };
            ended += 1;
            match valid_to_ms {
                None => self.drop_relation(found.row, *id)?,
                Some(at_ms) => {
                    let what = &mut found.value.what;
                    what.valid_to_ms = Some(at_ms.max(what.valid_from_ms));
                    found.value.changed_ms = self.command.time_ms;
                    self.update_relation(&found)?;
                    self.touch_relation(*id);
                }
            }
        }
        match (ended, ids) {
            (0, [id, ..]) => Ok(Outcome::Refused(Reason::NotFound.about(id.as_bytes()))),
            _ => Ok(Outcome::Ended { relations: ended }),
        }
    }

    /// What another memory of the place says or is called already, if it is not the memory of `row`.
    pub(super) fn clash(&self, row: i64, place: i64, what: &NewMemory) -> Result<Option<MemoryId>> {
        let same = self.same(place, what)?.filter(|found| found.row != row);
        if let Some(same) = same {
            return Ok(Some(same.value.what.id));
        }
        let entity = self
            .db
            .prepare_cached("SELECT entity FROM memory WHERE row = ?1")?
            .query_row([row], |row| row.get::<_, Option<i64>>(0))
            .optional()?
            .flatten();
        let named = self.contradicted(place, entity, what)?;
        Ok(named.into_iter().find(|found| found.row != row).map(|found| found.value.what.id))
    }
}
