//! Binds a store to its node: a mark that both the store and a file beside it hold. A node whose store was lost, or is
//! another's, is refused: without the votes that it gave, it could help to elect a second leader, and without its log it
//! would look like a new one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rocksdb::WriteBatch;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::codec;

/// No group has this number, so the mark's key is nobody else's.
const KEY: [u8; 5] = [0xff, 0xff, 0xff, 0xff, b'm'];

/// Why a store is not this node's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The node had a log, and this is not it.
    #[error(
        "{} is not the log that this node had: it was lost or replaced. A lost log is no new cluster, so the node does not start",
        dir.display()
    )]
    Lost {
        /// The store's folder.
        dir: PathBuf,
    },
    /// The file beside it is damaged.
    #[error("{} is damaged; restore the data directory from a backup", file.display())]
    Mark {
        /// The file whose content is no mark of a store.
        file: PathBuf,
    },
    /// The file beside it cannot be read or written.
    #[error("{} cannot be read or written", file.display())]
    File {
        /// The file that could not be read or written.
        file: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// The store cannot be read or written.
    #[error("the log's mark cannot be read or written")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Store {
    /// Checks that this is the store which the file `mark` names, before anything in it is used. The first start makes
    /// the mark: in the store first, so that a crash in between leaves nothing that looks like a loss.
    pub async fn claim(&self, mark: &Path) -> Result<(), ClaimError> {
        let store = |error: StoreError| ClaimError::Store(error.into());
        let named = read(mark)?;
        let own = self.mark().map_err(store)?;
        match (named, own) {
            (Some(named), Some(own)) if named == own => Ok(()),
            (Some(_), _) => Err(ClaimError::Lost { dir: self.inner.dir.clone() }),
            (None, own) => {
                let own = match own {
                    Some(own) => own,
                    None => {
                        let new = Uuid::new_v4();
                        let mut batch = WriteBatch::default();
                        batch.put(KEY, codec::seal(&KEY, |out| out.extend(new.as_bytes())));
                        self.write(batch).map_err(store)?;
                        self.synced().await.map_err(store)?;
                        new
                    }
                };
                write(mark, own).map_err(|source| ClaimError::File { file: mark.to_owned(), source })
            }
        }
    }

    fn mark(&self) -> Result<Option<Uuid>, StoreError> {
        let Some(value) = self.get(&KEY)? else { return Ok(None) };
        let read = || {
            let fields = codec::unseal(&KEY, &value)?;
            Uuid::from_slice(fields.rest()).map_err(|_| codec::Damage::Shape)
        };
        read().map(Some).map_err(|damage| self.damaged(&KEY, damage))
    }
}

fn text(mark: Uuid) -> String {
    let line = format!("caxton-log {mark}");
    format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()))
}

fn read(file: &Path) -> Result<Option<Uuid>, ClaimError> {
    let found = match fs::read_to_string(file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(ClaimError::Mark { file: file.to_owned() });
        }
        Err(source) => return Err(ClaimError::File { file: file.to_owned(), source }),
    };
    let mark = found.split_whitespace().nth(1).and_then(|mark| mark.parse().ok());
    mark.filter(|mark| text(*mark) == found).map(Some).ok_or(ClaimError::Mark { file: file.to_owned() })
}

fn write(file: &Path, mark: Uuid) -> io::Result<()> {
    let temporary = file.with_extension("tmp");
    let mut out = fs::File::create(&temporary)?;
    out.write_all(text(mark).as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    match file.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_was_lost_or_replaced_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let mark = home.path().join("raft-id");
        let open = |name: &str| Store::open(&home.path().join(name)).unwrap();
        open("one").claim(&mark).await.unwrap();
        open("one").claim(&mark).await.unwrap();
        assert!(matches!(open("two").claim(&mark).await, Err(ClaimError::Lost { .. })), "an empty one");
        open("two").claim(&home.path().join("another")).await.unwrap();
        assert!(matches!(open("two").claim(&mark).await, Err(ClaimError::Lost { .. })), "another's");
        // The file alone is made again: the log is there.
        fs::remove_file(&mark).unwrap();
        open("one").claim(&mark).await.unwrap();
        let good = fs::read(&mark).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&mark, bad).unwrap();
            assert!(open("one").claim(&mark).await.is_err(), "bit {bit}");
        }
    }
}
