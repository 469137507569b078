//! A tenant for tests: it notes texts under numbers, and can be made to do all that a tenant must not do.

use caxton_proto::{Format, WorkspaceId};
use rusqlite::Connection;

use super::WrittenFormat;
use super::tenant::{Answer, ApplyError, Clearance, Command, Content, Effect, Legacy, Refusal, Table, Tenant, Tenants};

/// The number of the tenant.
pub const NOTES: u32 = 9;

const FIRST: &[Table] = &[
    Table {
        name: "note",
        sql: "CREATE TABLE note (number INTEGER NOT NULL, text TEXT NOT NULL) STRICT;
              CREATE UNIQUE INDEX note_by_number ON note (number);",
        content: Content::Rows,
    },
    Table {
        name: "words",
        sql: "CREATE TABLE words (number INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;",
        content: Content::Derived,
    },
    ODD,
];

const SECOND: &[Table] = &[
    Table {
        name: "note",
        sql: "CREATE TABLE note (number INTEGER NOT NULL, color TEXT NOT NULL DEFAULT 'plain', text TEXT NOT NULL) STRICT;",
        content: Content::Rows,
    },
    FIRST[1],
    ODD,
];

const ODD: Table = Table {
    name: "odd",
    sql: "CREATE TABLE odd (real REAL, \"nothing\" TEXT, any BLOB) STRICT;",
    content: Content::Rows,
};

struct Notes {
    layout: u32,
}

/// All nodes read the newest format.
pub fn newest() -> WrittenFormat {
    WrittenFormat::new(|| Format::NEWEST)
}

/// The tenant alone, with its tables of this version: 1, or 2, which has a column more.
pub fn notes(layout: u32) -> Tenants {
    Tenants::new([Box::new(Notes { layout }) as Box<dyn Tenant>]).expect("alone")
}

/// The tenant, with the first version of its tables, beside another one.
pub fn notes_beside(other: impl Tenant + 'static) -> Tenants {
    Tenants::new([Box::new(other) as Box<dyn Tenant>, Box::new(Notes { layout: 1 })]).expect("two numbers")
}

/// The text of a note is its body, cut at the first space: `NUMBER TEXT`.
fn read<'a>(command: &Command<'a>) -> Result<(i64, &'a str), ApplyError> {
    let text = std::str::from_utf8(command.body).map_err(|_| Refusal::new("no text"))?;
    let (number, text) = text.split_once(' ').ok_or_else(|| Refusal::new("no number"))?;
    Ok((number.parse().map_err(|_| Refusal::new("no number"))?, text))
}

impl Tenant for Notes {
    fn number(&self) -> u32 {
        NOTES
    }

    fn name(&self) -> &'static str {
        "notes"
    }

    fn commands(&self) -> u32 {
        self.layout
    }

    fn layout(&self) -> u32 {
        self.layout
    }

    fn tables(&self) -> &'static [Table] {
        if self.layout == 1 { FIRST } else { SECOND }
    }

    fn check(&self, command: &Command<'_>) -> Result<(), ApplyError> {
        read(command).map(drop)
    }

    fn apply(&self, command: &Command<'_>, rows: &Connection) -> Result<Answer, ApplyError> {
        let (number, text) = read(command)?;
        // Written first, so that there is something to be taken back.
        rows.execute("INSERT INTO words VALUES (?1, ?2)", [number, text.split(' ').count() as i64])?;
        rows.execute("INSERT INTO note (number, text) VALUES (?1, ?2)", rusqlite::params![number, text])?;
        match text {
            "broken" => {
                rows.execute_batch("SELECT * FROM nowhere").map(|()| Effect::Applied.into()).map_err(Into::into)
            }
            "refused" => Err(Refusal::new("nobody wants it").into()),
            "odd" => {
                rows.execute("INSERT INTO odd VALUES (0.1, NULL, x'00ff')", [])?;
                Ok(Effect::Applied.into())
            }
            _ => Ok(Answer { effect: Effect::Applied, body: text.to_owned().into() }),
        }
    }

    fn derive(&self, rows: &Connection, layout: u32) -> Result<(), ApplyError> {
        assert!(layout <= self.layout);
        let mut notes = rows.prepare("SELECT number, text FROM note")?;
        let mut notes = notes.query([])?;
        while let Some(note) = notes.next()? {
            let (number, text): (i64, String) = (note.get(0)?, note.get(1)?);
            rows.execute("INSERT INTO words VALUES (?1, ?2)", [number, text.split(' ').count() as i64])?;
        }
        Ok(())
    }

    fn clear(&self, _: &WorkspaceId, _: u32, _: &Connection) -> Result<Clearance, ApplyError> {
        // Its notes are nobody's.
        Ok(Clearance::Clear)
    }

    fn count(&self, _: &WorkspaceId, _: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
        Ok(Vec::new())
    }

    fn legacy(&self) -> Option<&'static Legacy> {
        None
    }
}
