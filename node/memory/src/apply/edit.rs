//! Editing, with a history of what a memory was before, and taking edits back.

use caxton_proto::memory::{Edit, MemoryId, NewMemory, Outcome, Reason, Row};
use rusqlite::{OptionalExtension, Result, params};

use super::Run;
use super::rows::{self, Memory, Rowed};

/// The most edits of one memory that can be taken back.
const EDITS_MAX: i64 = 32;

impl Run<'_> {
    pub(super) fn edit(&mut self, edit: &Edit) -> Result<Outcome> {
        let Some(found) = self.editable(&edit.memory)? else {
            return Ok(Outcome::Refused(Reason::NotFound.about(edit.memory.as_bytes())));
        };
        let what = changed(&found.value.what, edit);
        if let Err(reason) = self.fits(&found, &what)? {
            return Ok(Outcome::Refused(reason));
        }
        let number = self.note(&found)?;
        self.write(found, what, self.command.time_ms)?;
        Ok(Outcome::Edited { memory: edit.memory, number })
    }

    pub(super) fn undo(&mut self, memory: &MemoryId) -> Result<Outcome> {
        let Some(found) = self.editable(memory)? else {
            return Ok(Outcome::Refused(Reason::NotFound.about(memory.as_bytes())));
        };
        let last = self
            .db
            .prepare_cached("SELECT number, before FROM memory_edit WHERE memory = ?1 ORDER BY number DESC LIMIT 1")?
            .query_row([found.row], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let before = last.and_then(|(number, before)| Some((number, Row::decode(&before).ok()?)));
        let Some((number, Row { memory: before, changed_ms, .. })) = before else {
            return Ok(Outcome::Refused(Reason::NoEdit.about(memory.as_bytes())));
        };
        // Its sources are those that it has now: an edit does not change them.
        let what = NewMemory { sources: found.value.what.sources.clone(), ..before };
        if let Err(reason) = self.fits(&found, &what)? {
            return Ok(Outcome::Refused(reason));
        }
        self.db
            .prepare_cached("DELETE FROM memory_edit WHERE memory = ?1 AND number = ?2")?
            .execute(params![found.row, number])?;
        self.write(found, what, changed_ms)?;
        Ok(Outcome::Edited { memory: *memory, number: number.unsigned_abs() })
    }

    fn editable(&self, id: &MemoryId) -> Result<Option<Rowed<Memory>>> {
        let found = rows::by_id(self.db, self.workspace(), id)?;
        Ok(found.filter(|found| self.may(&found.value.what.scope)))
    }

    /// Whether a memory may become this: its fields are right, and no other says the same.
    fn fits(
        &self,
        found: &Rowed<Memory>,
        what: &NewMemory,
    ) -> Result<std::result::Result<(), caxton_proto::memory::Refusal>> {
        if let Err(reason) = check(what) {
            return Ok(Err(reason.about(what.id.as_bytes())));
        }
        let clash = self.clash(found.row, found.place, what)?;
        Ok(clash.map_or(Ok(()), |other| Err(Reason::Conflict.about(other.as_bytes()))))
    }

    /// Notes what a memory is, before it is changed; the oldest notes go. Gives the edit's number.
    fn note(&self, found: &Rowed<Memory>) -> Result<u64> {
        let number = self
            .db
            .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM memory_edit WHERE memory = ?1")?
            .query_row([found.row], |row| row.get::<_, i64>(0))?;
        let before = Row {
            workspace: self.workspace().clone(),
            memory: NewMemory { sources: Vec::new(), ..found.value.what.clone() },
            changed_ms: found.value.changed_ms,
            untrusted: found.value.untrusted,
        };
        self.db.prepare_cached("INSERT INTO memory_edit VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            found.row,
            number,
            self.command.actor,
            self.command.time_ms,
            before.encode()
        ])?;
        self.db
            .prepare_cached("DELETE FROM memory_edit WHERE memory = ?1 AND number <= ?2")?
            .execute(params![found.row, number - EDITS_MAX])?;
        Ok(number.unsigned_abs())
    }

    fn write(&mut self, found: Rowed<Memory>, what: NewMemory, changed_ms: i64) -> Result<()> {
        let memory = Memory { what, changed_ms, untrusted: found.value.untrusted };
        rows::update_memory(self.db, found.row, &memory)?;
        if memory.what.text != found.value.what.text {
            rows::delete_text(self.db, found.row)?;
            rows::insert_text(self.db, found.row, found.place, &memory.what.text)?;
        }
        self.touch_memory(memory.what.id);
        Ok(())
    }
}

/// A memory whose sources were all forgotten may still be edited.
fn check(what: &NewMemory) -> std::result::Result<(), Reason> {
    match what.check() {
        Err(Reason::Field { field }) if field == "sources" => Ok(()),
        other => other,
    }
}

fn changed(what: &NewMemory, edit: &Edit) -> NewMemory {
    let mut new = what.clone();
    if let Some(text) = &edit.text {
        new.text.clone_from(text);
    }
    if let Some(kind) = &edit.kind {
        new.kind.clone_from(kind);
    }
    if let Some(name) = &edit.name {
        new.name = Some(name.clone()).filter(|name| !name.is_empty());
    }
    if let Some(metadata) = &edit.metadata {
        new.metadata = Some(metadata.clone()).filter(|metadata| !metadata.is_empty());
    }
    new.importance = edit.importance.unwrap_or(what.importance);
    new.pinned = edit.pinned.unwrap_or(what.pinned);
    new.valid_from_ms = edit.valid_from_ms.unwrap_or(what.valid_from_ms);
    new.valid_to_ms = edit.valid_to_ms.unwrap_or(what.valid_to_ms);
    new
}
