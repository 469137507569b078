//! What a file's content hashed to, as long as nothing about the file changed: a second scan reads no content.
//!
//! A file whose times are as young as the scan is never remembered: it could change again within the grain of the
//! file system's clock and look the same (git calls such an entry "racily clean").

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caxton_proto::Digest;
use caxton_proto::tree::{File, TreePath};

/// The cache's file in the cache folder.
const FILE: &str = "stat";
const TAG: &[u8] = b"caxton-stat-1\n";
/// How old a file has to be to be remembered: five times the grain of a kernel that ticks at 100 Hz.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// What changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub bytes: u64,
    /// Which file it is.
    pub inode: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub modified: i64,
    /// When anything about it changed, in nanoseconds since 1970. Unlike `modified`, nobody can set it.
    pub changed: i64,
}

/// Remembers what files hashed to.
#[derive(Debug, Default)]
pub struct StatCache {
    rows: HashMap<TreePath, (Stat, File)>,
}

impl StatCache {
    /// The cache of `folder`; empty when there is none, or when it is damaged.
    pub fn load(folder: &Path) -> StatCache {
        let rows = std::fs::read(folder.join(FILE)).ok().and_then(|bytes| decode(&bytes));
        StatCache { rows: rows.unwrap_or_default() }
    }

    /// Writes the cache, all or nothing.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        super::write_atomically(&folder.join(FILE), &encode(&self.rows))
    }

    /// How many files it knows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// What the file's content is, if nothing about the file changed.
    pub fn get(&self, path: &TreePath, stat: &Stat) -> Option<File> {
        self.rows.get(path).filter(|(known, _)| known == stat).map(|(_, file)| *file)
    }

    /// Remembers a file, if it is old enough at `now`; says whether anything changed.
    pub fn put(&mut self, path: TreePath, stat: Stat, file: File, now: SystemTime) -> bool {
        let settled = now.checked_sub(SETTLED_AFTER).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
        let settled = settled.and_then(|then| i64::try_from(then.as_nanos()).ok()).unwrap_or(0);
        if stat.changed.max(stat.modified) < settled && file.bytes == stat.bytes {
            self.rows.insert(path, (stat, file)) != Some((stat, file))
        } else {
            self.rows.remove(&path).is_some()
        }
    }

    /// Forgets the files that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(&TreePath) -> bool) {
        self.rows.retain(|path, _| keep(path));
    }
}

fn encode(rows: &HashMap<TreePath, (Stat, File)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(TAG.len() + rows.len() * 160);
    out.extend_from_slice(TAG);
    for (path, (stat, file)) in rows {
        out.extend_from_slice(&(path.as_str().len() as u16).to_be_bytes());
        out.extend_from_slice(path.as_str().as_bytes());
        out.extend_from_slice(&stat.inode.to_be_bytes());
        out.extend_from_slice(&stat.modified.to_be_bytes());
        out.extend_from_slice(&stat.changed.to_be_bytes());
        out.extend_from_slice(&file.bytes.to_be_bytes());
        out.extend_from_slice(file.digest.as_bytes());
        out.push(u8::from(file.chunks.is_some()));
        file.chunks.iter().for_each(|list| out.extend_from_slice(list.as_bytes()));
    }
    let digest = Digest::of(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<HashMap<TreePath, (Stat, File)>> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    let mut rest = body.strip_prefix(TAG)?;
    let mut rows = HashMap::with_capacity(rest.len() / 120);
    while !rest.is_empty() {
        let length = u16::from_be_bytes(take(&mut rest)?);
        let path = std::str::from_utf8(rest.split_off(..usize::from(length))?).ok()?.parse().ok()?;
        let inode = u64::from_be_bytes(take(&mut rest)?);
        let modified = i64::from_be_bytes(take(&mut rest)?);
        let changed = i64::from_be_bytes(take(&mut rest)?);
        let bytes = u64::from_be_bytes(take(&mut rest)?);
        let digest = Digest::from_bytes(take(&mut rest)?);
        let [cut] = take(&mut rest)?;
        let chunks = if cut == 1 { Some(Digest::from_bytes(take(&mut rest)?)) } else { None };
        rows.insert(path, (Stat { bytes, inode, modified, changed }, File { digest, bytes, chunks }));
    }
    Some(rows)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(time: i64) -> Stat {
        Stat { bytes: 3, inode: 7, modified: time, changed: time }
    }

    fn put(cache: &mut StatCache, name: &str, stat: Stat, chunks: Option<Digest>) {
        let file = File { digest: Digest::of(name.as_bytes()), bytes: 3, chunks };
        cache.put(name.parse().expect("a path"), stat, file, SystemTime::now());
    }

    #[test]
    fn a_cache_reads_back_and_damage_empties_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut cache = StatCache::default();
        put(&mut cache, "agents/a.toml", stat(1), None);
        put(&mut cache, "tools/t/t.wasm", stat(2), Some(Digest::of(b"list")));
        cache.save(dir.path()).expect("saved");
        let read = StatCache::load(dir.path());
        assert_eq!(read.rows, cache.rows);
        let path = "tools/t/t.wasm".parse().expect("a path");
        assert!(read.get(&path, &stat(2)).is_some() && read.get(&path, &stat(3)).is_none());

        let file = dir.path().join(FILE);
        let mut bytes = std::fs::read(&file).expect("the file");
        bytes[40] ^= 1;
        std::fs::write(&file, &bytes).expect("written");
        assert_eq!(StatCache::load(dir.path()).len(), 0);
    }

    #[test]
    fn a_file_as_young_as_the_scan_is_not_remembered() {
        let mut cache = StatCache::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i64;
        put(&mut cache, "agents/a.toml", stat(now), None);
        assert_eq!(cache.len(), 0);
    }
}
