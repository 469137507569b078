//! A shard's state as a stream of rows: what a snapshot of its group holds. The group's snapshot checks the bytes; here
//! they are counted, so that a cut stream is noticed, and restored in one transaction, so that half of one never is.

use std::io::{self, Read, Write};

use caxton_raft::Frozen;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::db::Database;

/// The version that this program writes.
const FORMAT: u8 = 1;
/// The longest value that is believed, in bytes: an entry of the log is far shorter.
const VALUE_BYTES_MAX: usize = 16 << 20;
/// In the place of a table's number: the end.
const END: u8 = u8::MAX;

/// The tables with their columns, in the order of the snapshot. A table's number and its columns are on disk for ever.
const TABLES: [(&str, usize); 6] =
    [("applied", 2), ("conversation", 9), ("turn", 5), ("waiting", 3), ("piece", 6), ("day", 5)];

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The database.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    /// The stream.
    #[error("the snapshot cannot be read")]
    Stream(#[from] io::Error),
}

/// The state as it is now: a reader's transaction holds on to it while further entries are applied.
pub fn freeze(database: &Database) -> rusqlite::Result<Frozen> {
    let reader = database.connection()?;
    reader.execute_batch("BEGIN")?;
    // A transaction sees the state of its first read.
    reader.query_row("SELECT number FROM applied", [], |_| Ok(()))?;
    Ok(Box::new(move |out| write(&reader, out)))
}

fn write(reader: &Connection, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[FORMAT])?;
    let mut count = 0_u64;
    for (table, (name, columns)) in (0_u8..).zip(TABLES) {
        let mut statement = reader.prepare(&format!("SELECT * FROM {name}")).map_err(io::Error::other)?;
        let mut rows = statement.query([]).map_err(io::Error::other)?;
        while let Some(row) = rows.next().map_err(io::Error::other)? {
            out.write_all(&[table])?;
            for column in 0..columns {
                write_value(row.get_ref(column).map_err(io::Error::other)?, out)?;
            }
            count += 1;
        }
    }
    out.write_all(&[END])?;
    out.write_all(&count.to_be_bytes())
}

fn write_value(value: ValueRef<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut long = |kind: u8, bytes: &[u8]| {
        out.write_all(&[kind])?;
        out.write_all(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes())?;
        out.write_all(bytes)
    };
    match value {
        ValueRef::Integer(number) => long(b'i', &number.to_be_bytes()),
        ValueRef::Text(text) => long(b't', text),
        ValueRef::Blob(blob) => long(b'b', blob),
        ValueRef::Null | ValueRef::Real(_) => Err(io::Error::other("a value of a kind that no table has")),
    }
}

/// Replaces everything by what the stream says, and says which entry is the last in it.
pub fn restore(writer: &mut Connection, from: &mut dyn Read) -> Result<u64, RestoreError> {
    let mut format = [0];
    from.read_exact(&mut format)?;
    if format != [FORMAT] {
        return Err(invalid("it has another format").into());
    }
    let all = writer.transaction()?;
    for (name, _) in TABLES {
        all.execute(&format!("DELETE FROM {name}"), [])?;
    }
    let mut count = 0_u64;
    loop {
        let mut table = [0];
        from.read_exact(&mut table)?;
        if table == [END] {
            break;
        }
        let (name, columns) = *TABLES.get(usize::from(table[0])).ok_or_else(|| invalid("a table is unknown"))?;
        let places = vec!["?"; columns].join(", ");
        let values = (0..columns).map(|_| read_value(from)).collect::<io::Result<Vec<Value>>>()?;
        all.prepare_cached(&format!("INSERT INTO {name} VALUES ({places})"))?.execute(params_from_iter(values))?;
        count += 1;
    }
    let mut expected = [0; 8];
    from.read_exact(&mut expected)?;
    if u64::from_be_bytes(expected) != count {
        return Err(invalid("rows are missing").into());
    }
    let applied: i64 = all.query_row("SELECT number FROM applied", [], |row| row.get(0))?;
    all.commit()?;
    Ok(applied.cast_unsigned())
}

fn read_value(from: &mut dyn Read) -> io::Result<Value> {
    let (mut kind, mut length) = ([0], [0; 4]);
    from.read_exact(&mut kind)?;
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > VALUE_BYTES_MAX {
        return Err(invalid("a value is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    match kind[0] {
        b'i' => Ok(Value::Integer(i64::from_be_bytes(bytes.try_into().map_err(|_| invalid("a number is cut"))?))),
        b't' => Ok(Value::Text(String::from_utf8(bytes).map_err(|_| invalid("a text is not UTF-8"))?)),
        b'b' => Ok(Value::Blob(bytes)),
        _ => Err(invalid("a value has an unknown kind")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
