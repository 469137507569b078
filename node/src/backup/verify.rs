//! Checks an archive by itself, every byte of it, before anything is done with it.
//!
//! Three checks that cover each other: each file has the digest that SHA256SUMS says, all bytes before SHA256SUMS have
//! theirs (names, lengths and the filling between files), and after it there is nothing but zeros of the right length.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use caxton_proto::{Digest, WorkspaceId};
use caxton_raft::{GroupId, deploy_log};

use super::digesting::Digesting;
use super::key::{KeyError, RecoveryKey};
use super::{
    AUTHENTICATED, FORMAT, GroupHeader, HEADER_FILE, Header, KEYS_FILE, SUMS_FILE, UNAUTHENTICATED_FORMAT, WHOLE,
    group_file,
};
use crate::errors::chain;

/// The longest header or file of keys that is believed, in bytes.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// The longest list of digests that is believed, in bytes.
const SUMS_BYTES_MAX: u64 = 1 << 30;
/// The largest artifact that is believed, in bytes.
pub(super) const BLOB_BYTES_MAX: u64 = 64 << 20;
/// What tar counts in.
const BLOCK: u64 = 512;

/// Why an archive is not used.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("{} is not a backup of Caxton's", .path.display())]
    NotABackup { path: PathBuf },
    /// A newer program wrote it.
    #[error("{} has version {found} of the format, and this program reads {FORMAT}", .path.display())]
    Version { path: PathBuf, found: u32 },
    /// It ends too early.
    #[error("{} is cut off: {what}", .path.display())]
    Cut {
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A part of it is not what was written.
    #[error("{} is damaged: {part} {what}", .path.display())]
    Damaged {
        path: PathBuf,
        part: String,
        /// What is wrong with it.
        what: String,
    },
}

impl VerifyError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            VerifyError::Read { .. } => "name an archive that `caxton backup` wrote",
            VerifyError::NotABackup { .. } => "name an archive that `caxton backup` wrote, as it wrote it",
            VerifyError::Version { .. } => "use a newer caxton",
            VerifyError::Cut { .. } | VerifyError::Damaged { .. } => {
                "nothing was done with it: take another copy of it, or an older backup"
            }
        }
    }
}

/// An archive that is whole.
#[derive(Debug, Clone)]
pub struct Verification {
    /// What it is of.
    pub header: Header,
    /// The header's bytes, to which the keys are bound.
    pub header_bytes: Vec<u8>,
    /// The cluster's keys, sealed.
    pub sealed: Vec<u8>,
    /// What authenticates the archive; nothing where an older program wrote it.
    pub proof: Option<Proof>,
    /// How many artifacts it has.
    pub artifacts: u64,
    /// How many workspaces have a deployment.
    pub workspaces: u64,
    /// How many bytes the archive has.
    pub bytes: u64,
    /// The digest of each of its files but of the list of them, by name.
    pub(super) digests: BTreeMap<String, [u8; 32]>,
}

/// What authenticates an archive under its recovery key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The digest of the list of digests, which stands for every byte.
    pub sums: Digest,
    /// What the list says of it, in hexadecimal digits.
    pub proof: String,
}

impl Verification {
    /// Whether the archive is what was written under this key. One of an older program says nothing, which is `false`.
    pub fn is_authentic(&self, key: &RecoveryKey) -> Result<bool, KeyError> {
        match &self.proof {
            Some(Proof { sums, proof }) => key.check(sums, proof).map(|()| true),
            None => Ok(false),
        }
    }
}

/// What a file of an archive is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Header,
    Group(GroupId),
    Artifact(WorkspaceId, Digest),
    Keys,
    Sums,
}

impl Part {
    pub(super) fn of(name: &str) -> Option<Part> {
        match name {
            HEADER_FILE => return Some(Part::Header),
            KEYS_FILE => return Some(Part::Keys),
            SUMS_FILE => return Some(Part::Sums),
            _ => {}
        }
        if let Some(number) = name.strip_prefix("groups/").and_then(|name| name.strip_suffix(".snapshot")) {
            let group = number.parse().ok()?;
            return (group_file(group) == name).then_some(Part::Group(GroupId(group)));
        }
        let (workspace, digest) = name.strip_prefix("artifacts/")?.split_once('/')?;
        let digest: [u8; 32] = hex::decode(digest).ok()?.try_into().ok()?;
        Some(Part::Artifact(workspace.parse().ok()?, Digest::from_bytes(digest)))
    }
}

/// Checks all of an archive.
pub fn verify(path: &Path) -> Result<Verification, VerifyError> {
    let read = |source| VerifyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let bytes = file.metadata().map_err(read)?.len();
    let mut reading = Reading { path, found: Contents::default(), sums: None };
    let mut tar = tar::Archive::new(BufReader::new(&file));
    for entry in tar.entries().map_err(read)? {
        let entry = entry.map_err(|error| reading.broken(error))?;
        reading.take(entry)?;
    }
    let Some((at, length, sums)) = reading.sums.take() else {
        return Err(match reading.found.header {
            None => VerifyError::NotABackup { path: path.to_owned() },
            Some(_) => reading.cut("its list of digests is not there"),
        });
    };
    let (sums, proof) = reading.proof(&sums)?;
    let whole = reading.compare(sums)?;
    reading.frame(&file, at, length, bytes, whole)?;
    reading.finish(bytes, proof)
}

#[derive(Default)]
struct Contents {
    header: Option<(Header, Vec<u8>)>,
    sealed: Option<Vec<u8>>,
    groups: Vec<GroupHeader>,
    artifacts: u64,
    workspaces: u64,
    digests: BTreeMap<String, [u8; 32]>,
}

struct Reading<'a> {
    path: &'a Path,
    found: Contents,
    /// Where the list of digests begins, how long it is, and the list.
    sums: Option<(u64, u64, String)>,
}

impl Reading<'_> {
    fn cut(&self, what: &str) -> VerifyError {
        VerifyError::Cut { path: self.path.to_owned(), what: what.to_owned() }
    }

    fn damaged(&self, part: &str, what: impl Into<String>) -> VerifyError {
        VerifyError::Damaged { path: self.path.to_owned(), part: part.to_owned(), what: what.into() }
    }

    /// What a failure between two files means.
    fn broken(&self, error: io::Error) -> VerifyError {
        if self.found.header.is_none() {
            return VerifyError::NotABackup { path: self.path.to_owned() };
        }
        let last = self.found.digests.keys().next_back().cloned().unwrap_or_default();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut("it ends within a file"),
            _ => {
                self.damaged("the head of a file", format!("does not read back (the last good one is {last}): {error}"))
            }
        }
    }

    fn take(&mut self, mut entry: tar::Entry<'_, BufReader<&File>>) -> Result<(), VerifyError> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        let part = Part::of(&name).filter(|_| entry.header().entry_type().is_file());
        let first = self.found.header.is_none();
        let part = match part {
            Some(part) if (part == Part::Header) == first => part,
            _ if first => return Err(VerifyError::NotABackup { path: self.path.to_owned() }),
            _ => return Err(self.damaged(&format!("{name:?}"), "is no file of a backup, or stands in a wrong place")),
        };
        if self.sums.is_some() || self.found.digests.contains_key(&name) {
            return Err(self.damaged(&name, "is there twice, or after the list of digests"));
        }
        let most = match &part {
            Part::Header | Part::Keys => SMALL_BYTES_MAX,
            Part::Artifact(..) => BLOB_BYTES_MAX,
            Part::Sums => SUMS_BYTES_MAX,
            Part::Group(_) => u64::MAX,
        };
        if size > most {
            return Err(self.damaged(&name, format!("has {size} bytes, and {most} is the most")));
        }
        let at = entry.raw_header_position();
        let mut reader = Digesting::new(&mut entry);
        let read = self.read(&part, &name, size, &mut reader);
        // What is left, so that the digest is of all of it.
        let rest = io::copy(&mut reader, &mut io::sink());
        let (bytes, digest) = reader.finish();
        if rest.is_err() || bytes != size {
            return Err(self.cut(&format!("{name} ends too early")));
        }
        let text = read?;
        match part {
            Part::Sums => self.sums = Some((at, size, text.unwrap_or_default())),
            Part::Artifact(_, named) if *named.as_bytes() != digest => {
                return Err(self.damaged(&name, "does not have the digest that it is named by"));
            }
            Part::Header | Part::Keys | Part::Group(_) | Part::Artifact(..) => {
                _ = self.found.digests.insert(name, digest);
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        part: &Part,
        name: &str,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<Option<String>, VerifyError> {
        let damaged = |error: &dyn std::fmt::Display| self.damaged(name, format!("does not read back: {error}"));
        match part {
            Part::Header => {
                let bytes = all(reader, size).map_err(|error| damaged(&error))?;
                let header: Header = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
                if header.format != FORMAT && header.format != UNAUTHENTICATED_FORMAT {
                    return Err(VerifyError::Version { path: self.path.to_owned(), found: header.format });
                }
                self.found.header = Some((header, bytes));
            }
            Part::Keys => self.found.sealed = Some(all(reader, size).map_err(|error| damaged(&error))?),
            Part::Sums => {
                let bytes = all(reader, size).map_err(|error| damaged(&error))?;
                return String::from_utf8(bytes).map(Some).map_err(|error| damaged(&error));
            }
            Part::Group(group) => {
                let mut workspaces = 0;
                let state = |group: GroupId, state: &mut dyn Read| {
                    if group == deploy_log::GROUP {
                        let read = deploy_log::read_snapshot(state)?;
                        workspaces = read.workspaces().len() as u64;
                    }
                    Ok(())
                };
                let found = caxton_raft::archive::check(reader, state).map_err(|error| damaged(&chain(&error)))?;
                if found.0 != *group {
                    return Err(self.damaged(name, "is of another group"));
                }
                self.found.workspaces += workspaces;
                self.found.groups.push(GroupHeader { group: group.0, commands: found.1 });
            }
            Part::Artifact(..) => self.found.artifacts += 1,
        }
        Ok(None)
    }

    /// Takes what authenticates the digests off their list. Only an older program wrote none.
    fn proof<'s>(&self, sums: &'s str) -> Result<(&'s str, Option<Proof>), VerifyError> {
        let is_old = self.found.header.as_ref().is_some_and(|(header, _)| header.format == UNAUTHENTICATED_FORMAT);
        let found = sums.strip_prefix(AUTHENTICATED).and_then(|rest| rest.split_once('\n'));
        match found {
            Some((proof, sums)) if !is_old => {
                Ok((sums, Some(Proof { sums: Digest::of(sums.as_bytes()), proof: proof.to_owned() })))
            }
            None if is_old => Ok((sums, None)),
            Some(_) | None => Err(self.damaged(SUMS_FILE, "does not begin with what authenticates it")),
        }
    }

    /// Compares the digests, and gives the one of all bytes before them.
    fn compare(&self, sums: &str) -> Result<String, VerifyError> {
        let mut lines = sums.lines();
        let whole = lines.next().and_then(|line| line.strip_prefix(WHOLE));
        let whole = whole.ok_or_else(|| self.damaged(SUMS_FILE, "does not begin as it should"))?;
        let mut listed = 0;
        for line in lines {
            let (digest, name) =
                line.split_once("  ").ok_or_else(|| self.damaged(SUMS_FILE, "has a line that is none"))?;
            match self.found.digests.get(name) {
                Some(found) if hex::encode(found) == digest => listed += 1,
                Some(_) => return Err(self.damaged(name, "does not have the digest that SHA256SUMS says")),
                None => return Err(self.damaged(name, "is listed in SHA256SUMS and not there")),
            }
        }
        if listed != self.found.digests.len() {
            return Err(self.damaged(SUMS_FILE, "does not list every file once"));
        }
        Ok(whole.to_owned())
    }

    /// Checks what is between the files, and after them.
    fn frame(&self, mut file: &File, at: u64, length: u64, bytes: u64, whole: String) -> Result<(), VerifyError> {
        let read = |source| VerifyError::Read { path: self.path.to_owned(), source };
        file.seek(SeekFrom::Start(0)).map_err(read)?;
        let mut before = Digesting::new(BufReader::new(file).take(at));
        io::copy(&mut before, &mut io::sink()).map_err(read)?;
        if hex::encode(before.finish().1) != whole {
            return Err(self.damaged("what stands between its files", "is not what was written"));
        }
        let end = at + BLOCK + length;
        let expected = end.next_multiple_of(BLOCK) + 2 * BLOCK;
        if bytes < expected {
            return Err(self.cut("its end is not there"));
        }
        file.seek(SeekFrom::Start(end)).map_err(read)?;
        let mut rest = Vec::new();
        file.take(expected - end + 1).read_to_end(&mut rest).map_err(read)?;
        if bytes > expected || rest.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("its end", "is not what was written"));
        }
        Ok(())
    }

    fn finish(self, bytes: u64, proof: Option<Proof>) -> Result<Verification, VerifyError> {
        let missing =
            |name: &str| VerifyError::Cut { path: self.path.to_owned(), what: format!("{name} is not there") };
        let Contents { header, sealed, mut groups, artifacts, workspaces, digests } = self.found;
        let (header, header_bytes) = header.ok_or_else(|| missing(HEADER_FILE))?;
        let sealed = sealed.ok_or_else(|| missing(KEYS_FILE))?;
        groups.sort_by_key(|group| group.group);
        if groups != header.groups || groups.first().is_none_or(|group| group.group != deploy_log::GROUP.0) {
            return Err(VerifyError::Damaged {
                path: self.path.to_owned(),
                part: HEADER_FILE.to_owned(),
                what: "names other groups than there are".to_owned(),
            });
        }
        Ok(Verification { header, header_bytes, sealed, proof, artifacts, workspaces, bytes, digests })
    }
}

fn all(reader: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size as usize);
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
