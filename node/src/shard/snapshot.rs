//! A shard's state as a stream of rows: what a snapshot of its group holds. The group's snapshot checks the bytes; here they
//! are counted, so that a cut stream is noticed, and restored in one transaction, so that half of one never is.
//!
//! A snapshot names tenants, tables and columns. A table that has got a column since is restored with that column's default;
//! what a snapshot names and this program does not know was written by a newer one, and is refused as a whole. Snapshots of
//! the first format, which named nothing, are read as well: the tenant that they are of says what stood in them.

use std::io::{self, Read, Write};

use caxton_proto::Format;
use caxton_raft::FrozenState;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::db::{Database, SHARD, SHARD_LAYOUT, SHARD_NAME, SHARD_TABLES};
use super::tenant::{ApplyError, Content, Positional, Table, Tenants};

/// The format with names.
const FORMAT: u8 = 2;
/// The format without names: rows with the number of their table, and values in the order of its columns. It is written as long
/// as there are nodes that read no other.
const POSITIONAL_FORMAT: u8 = 1;
/// In the place of a table's number in the format without names: the end.
const POSITIONAL_END: u8 = u8::MAX;
/// The shard's own table in the format without names.
const POSITIONAL_APPLIED: Positional = (0, "applied", &["one", "number"]);
/// What follows: a tenant, with its number, the version of its tables and its name.
const TENANT: u8 = b'T';
/// What follows: a table of that tenant, with its name and its columns.
const TABLE: u8 = b't';
/// What follows: a row of that table, a value for each column.
const ROW: u8 = b'r';
/// What follows: the number of all rows, and nothing else.
const END: u8 = b'e';
/// The longest value that is believed, in bytes: an entry of the log is far shorter.
const VALUE_BYTES_MAX: u32 = 16 << 20;
/// The longest name of a tenant, a table or a column that is believed, in bytes.
const NAME_BYTES_MAX: u32 = 128;
/// The most columns of a table that are believed.
const COLUMNS_MAX: u32 = 1_000;

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    #[error("the snapshot cannot be read")]
    Stream(#[from] io::Error),
    #[error("the snapshot holds {what}, which this program does not know: a newer one wrote it; upgrade this one")]
    Newer { what: String },
    #[error("what follows from a snapshot's rows cannot be made")]
    Derive(#[source] ApplyError),
}

/// The state as it is now: a reader's transaction holds on to it while further entries are applied.
pub(super) fn freeze(database: &Database, tenants: &Tenants, format: Format) -> rusqlite::Result<FrozenState> {
    let reader = database.connection()?;
    reader.execute_batch("BEGIN")?;
    // A transaction sees the state of its first read.
    reader.query_row("SELECT number FROM applied", [], |_| Ok(()))?;
    // This node may not know yet that all members read a newer format. A row of another tenant shows that they do, since
    // nobody proposed one before, and the positional form would leave it out.
    if let Some((tenant, legacy)) = tenants.legacy().filter(|_| format == Format::JSON)
        && !holds_others(&reader, tenants, tenant.number())?
    {
        return Ok(Box::new(move |out| write_positional(&reader, legacy.tables, out)));
    }
    let mut parts: Vec<Part> = parts(tenants).collect();
    for tenant in tenants.iter().filter(|tenant| format < tenant.since()) {
        // Older readers refuse a tenant that they do not know.
        let rows = tenant.tables().iter().filter(|table| table.content == Content::Rows);
        let filled = rows.map(|table| reader.prepare(&format!("SELECT 1 FROM {}", table.name))?.exists([]));
        if !filled.collect::<rusqlite::Result<Vec<bool>>>()?.contains(&true) {
            parts.retain(|part| part.number != tenant.number());
        }
    }
    Ok(Box::new(move |out| write(&reader, &parts, out)))
}

/// Whether any tenant but this one has a row.
fn holds_others(reader: &Connection, tenants: &Tenants, except: u32) -> rusqlite::Result<bool> {
    for part in parts(tenants).filter(|part| part.number != except && part.number != SHARD) {
        for table in part.rows() {
            if reader.prepare(&format!("SELECT 1 FROM {}", table.name))?.exists([])? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The tables of one tenant.
#[derive(Clone, Copy)]
struct Part {
    number: u32,
    layout: u32,
    name: &'static str,
    tables: &'static [Table],
}

impl Part {
    fn rows(&self) -> impl Iterator<Item = &'static Table> {
        self.tables.iter().filter(|table| table.content == Content::Rows)
    }
}

/// The shard's own tables, and those of its tenants.
fn parts(tenants: &Tenants) -> impl Iterator<Item = Part> {
    let own = Part { number: SHARD, layout: SHARD_LAYOUT, name: SHARD_NAME, tables: SHARD_TABLES };
    std::iter::once(own).chain(tenants.iter().map(|tenant| Part {
        number: tenant.number(),
        layout: tenant.layout(),
        name: tenant.name(),
        tables: tenant.tables(),
    }))
}

fn write(reader: &Connection, parts: &[Part], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[FORMAT])?;
    let mut count = 0_u64;
    for part in parts {
        out.write_all(&[TENANT])?;
        out.write_all(&part.number.to_be_bytes())?;
        out.write_all(&part.layout.to_be_bytes())?;
        write_long(part.name.as_bytes(), out)?;
        for table in part.rows() {
            count += write_table(reader, table.name, out)?;
        }
    }
    out.write_all(&[END])?;
    out.write_all(&count.to_be_bytes())
}

/// What was refused is left out: readers of this format have no such thing.
fn write_positional(reader: &Connection, tables: &[Positional], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[POSITIONAL_FORMAT])?;
    let mut count = 0_u64;
    for (number, table, columns) in std::iter::once(&POSITIONAL_APPLIED).chain(tables) {
        let all = format!("SELECT {} FROM {table}", columns.join(", "));
        let mut statement = reader.prepare(&all).map_err(io::Error::other)?;
        let mut rows = statement.query([]).map_err(io::Error::other)?;
        while let Some(row) = rows.next().map_err(io::Error::other)? {
            out.write_all(&[*number])?;
            for column in 0..columns.len() {
                write_value(row.get_ref(column).map_err(io::Error::other)?, out)?;
            }
            count += 1;
        }
    }
    out.write_all(&[POSITIONAL_END])?;
    out.write_all(&count.to_be_bytes())
}

fn write_table(reader: &Connection, table: &str, out: &mut dyn Write) -> io::Result<u64> {
    let mut statement = reader.prepare(&format!("SELECT * FROM {table}")).map_err(io::Error::other)?;
    out.write_all(&[TABLE])?;
    write_long(table.as_bytes(), out)?;
    let columns = statement.column_count();
    out.write_all(&length_of(columns)?.to_be_bytes())?;
    for name in statement.column_names() {
        write_long(name.as_bytes(), out)?;
    }
    let (mut rows, mut count) = (statement.query([]).map_err(io::Error::other)?, 0);
    while let Some(row) = rows.next().map_err(io::Error::other)? {
        out.write_all(&[ROW])?;
        for column in 0..columns {
            write_value(row.get_ref(column).map_err(io::Error::other)?, out)?;
        }
        count += 1;
    }
    Ok(count)
}

fn write_value(value: ValueRef<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut long = |kind: u8, bytes: &[u8]| out.write_all(&[kind]).and_then(|()| write_long(bytes, out));
    match value {
        ValueRef::Integer(number) => long(b'i', &number.to_be_bytes()),
        ValueRef::Text(text) => long(b't', text),
        ValueRef::Blob(blob) => long(b'b', blob),
        ValueRef::Real(number) => long(b'f', &number.to_bits().to_be_bytes()),
        ValueRef::Null => long(b'n', &[]),
    }
}

fn write_long(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&length_of(bytes.len())?.to_be_bytes())?;
    out.write_all(bytes)
}

fn length_of(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

/// Replaces everything by what the stream says, and says which entry is the last in it.
pub(super) fn restore(writer: &mut Connection, tenants: &Tenants, from: &mut dyn Read) -> Result<u64, RestoreError> {
    let format = read_byte(from)?;
    let all = writer.transaction()?;
    for table in parts(tenants).flat_map(|part| part.tables) {
        all.execute(&format!("DELETE FROM {}", table.name), [])?;
    }
    let layouts = match format {
        POSITIONAL_FORMAT => restore_positional(&all, tenants, from)?,
        FORMAT => restore_named(&all, tenants, from)?,
        _ => return Err(RestoreError::Newer { what: format!("rows in format {format}") }),
    };
    for tenant in tenants.iter() {
        let layout = layouts.iter().find(|(number, _)| *number == tenant.number()).map_or(0, |(_, layout)| *layout);
        tenant.derive(&all, layout).map_err(RestoreError::Derive)?;
    }
    let applied: i64 = all.query_row("SELECT number FROM applied", [], |row| row.get(0))?;
    all.commit()?;
    Ok(applied.cast_unsigned())
}

/// Restores tables by name; says which version the tables of each tenant had.
fn restore_named(all: &Connection, tenants: &Tenants, from: &mut dyn Read) -> Result<Vec<(u32, u32)>, RestoreError> {
    let known: Vec<Part> = parts(tenants).collect();
    let (mut layouts, mut count) = (Vec::new(), 0_u64);
    let mut part: Option<Part> = None;
    let mut kind = read_byte(from)?;
    loop {
        match kind {
            TENANT => {
                let (found, layout) = read_tenant(&known, from)?;
                layouts.push((found.number, layout));
                part = Some(found);
                kind = read_byte(from)?;
            }
            TABLE => {
                let part = part.ok_or_else(|| invalid("a table belongs to nobody"))?;
                let rows;
                (rows, kind) = restore_table(all, part, from)?;
                count += rows;
            }
            END => break,
            _ => return Err(invalid("it says something unknown").into()),
        }
    }
    check_count(count, from)?;
    Ok(layouts)
}

fn read_tenant(known: &[Part], from: &mut dyn Read) -> Result<(Part, u32), RestoreError> {
    let (number, layout, name) = (read_number(from)?, read_number(from)?, read_name(from)?);
    match known.iter().find(|part| part.number == number) {
        Some(part) if layout <= part.layout => Ok((*part, layout)),
        Some(_) => Err(RestoreError::Newer { what: format!("version {layout} of the tables of `{name}`") }),
        None => Err(RestoreError::Newer { what: format!("rows of `{name}` (tenant {number})") }),
    }
}

/// Restores one table; says how many rows it has, and what follows.
fn restore_table(all: &Connection, part: Part, from: &mut dyn Read) -> Result<(u64, u8), RestoreError> {
    let name = read_name(from)?;
    let unknown = || RestoreError::Newer { what: format!("the table `{name}` of `{}`", part.name) };
    let table = part.rows().find(|table| table.name == name).ok_or_else(unknown)?.name;
    let count = read_number(from)?;
    if count > COLUMNS_MAX {
        return Err(invalid("a table has too many columns").into());
    }
    let columns = (0..count).map(|_| read_name(from)).collect::<io::Result<Vec<String>>>()?;
    let statement = all.prepare(&format!("SELECT * FROM {table} LIMIT 0"))?;
    let has: Vec<&str> = statement.column_names().collect();
    if let Some(unknown) = columns.iter().find(|column| !has.contains(&column.as_str())) {
        return Err(RestoreError::Newer { what: format!("the column `{unknown}` of the table `{table}`") });
    }
    let mut insert = all.prepare(&insertion(table, columns.iter().map(String::as_str)))?;
    let mut rows = 0;
    loop {
        let kind = read_byte(from)?;
        if kind != ROW {
            return Ok((rows, kind));
        }
        let values = columns.iter().map(|_| read_value(from)).collect::<io::Result<Vec<Value>>>()?;
        insert.execute(params_from_iter(values))?;
        rows += 1;
    }
}

/// Restores tables by the numbers and the order of columns that they had in the first format.
fn restore_positional(
    all: &Connection,
    tenants: &Tenants,
    from: &mut dyn Read,
) -> Result<Vec<(u32, u32)>, RestoreError> {
    let legacy = tenants.legacy().map_or(&[][..], |(_, legacy)| legacy.tables);
    let mut count = 0_u64;
    loop {
        let number = read_byte(from)?;
        if number == POSITIONAL_END {
            break;
        }
        let table = std::iter::once(&POSITIONAL_APPLIED).chain(legacy).find(|table| table.0 == number);
        let (_, name, columns) = table.ok_or_else(|| invalid("a table is unknown"))?;
        let values = columns.iter().map(|_| read_value(from)).collect::<io::Result<Vec<Value>>>()?;
        all.prepare_cached(&insertion(name, columns.iter().copied()))?.execute(params_from_iter(values))?;
        count += 1;
    }
    check_count(count, from)?;
    Ok(Vec::new())
}

fn insertion<'a>(table: &str, columns: impl Iterator<Item = &'a str>) -> String {
    // Quoted: a column may have the name of a word of SQL.
    let columns: Vec<String> = columns.map(|column| format!("\"{column}\"")).collect();
    let places = vec!["?"; columns.len()].join(", ");
    format!("INSERT INTO {table} ({}) VALUES ({places})", columns.join(", "))
}

fn check_count(count: u64, from: &mut dyn Read) -> io::Result<()> {
    let mut expected = [0; 8];
    from.read_exact(&mut expected)?;
    if u64::from_be_bytes(expected) == count { Ok(()) } else { Err(invalid("rows are missing")) }
}

fn read_byte(from: &mut dyn Read) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_number(from: &mut dyn Read) -> io::Result<u32> {
    let mut number = [0; 4];
    from.read_exact(&mut number)?;
    Ok(u32::from_be_bytes(number))
}

fn read_long(from: &mut dyn Read, bytes_max: u32) -> io::Result<Vec<u8>> {
    let length = read_number(from)?;
    if length > bytes_max {
        return Err(invalid("a value or a name is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_name(from: &mut dyn Read) -> io::Result<String> {
    String::from_utf8(read_long(from, NAME_BYTES_MAX)?).map_err(|_| invalid("a name is not UTF-8"))
}

fn read_value(from: &mut dyn Read) -> io::Result<Value> {
    let (kind, bytes) = (read_byte(from)?, read_long(from, VALUE_BYTES_MAX)?);
    let eight = || <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| invalid("a number is cut"));
    match kind {
        b'i' => Ok(Value::Integer(i64::from_be_bytes(eight()?))),
        b'f' => Ok(Value::Real(f64::from_bits(u64::from_be_bytes(eight()?)))),
        b't' => Ok(Value::Text(String::from_utf8(bytes).map_err(|_| invalid("a text is not UTF-8"))?)),
        b'b' => Ok(Value::Blob(bytes)),
        b'n' => Ok(Value::Null),
        _ => Err(invalid("a value has an unknown kind")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
