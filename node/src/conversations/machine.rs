//! The state that the log of conversations makes: a RocksDB of its own, written together with the index of the entry
//! that wrote it, so that no entry is applied twice. It can be rebuilt from the log at any time, and is therefore
//! synced only where the log is about to forget.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use caxton_proto::{AgentName, WorkspaceId};
use caxton_raft::{Entry, Frozen, Machine, MachineError};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::log::{Command, Turn, Waiting};
use crate::llm::Usage;
use crate::llm::budget::Spent;

const APPLIED: &[u8] = b"\0applied";
const TITLE_CHARS_MAX: usize = 80;
const DAY_MS: u64 = 86_400_000;
/// Days whose use is kept.
const DAYS_KEPT: u64 = 400;

/// What is known of a conversation without its turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How it began.
    pub title: String,
    /// Who answered last.
    pub agent: AgentName,
    /// How many turns it has.
    pub turns: u64,
    /// What they took.
    pub usage: Usage,
    /// When it began.
    pub created_ms: u64,
    /// When it was last answered.
    pub updated_ms: u64,
}

/// The state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error("the conversations cannot be read")]
    Database(#[from] rocksdb::Error),
    /// A row is not what it should be.
    #[error("a stored conversation is damaged; restore the data directory from a backup")]
    Damaged(#[from] serde_json::Error),
}

/// The materialised conversations.
pub struct State {
    db: DB,
    dir: PathBuf,
    applied: AtomicU64,
    // Dropped last: tells that the database is closed.
    closed: watch::Sender<()>,
}

impl State {
    /// Opens, or creates, the state in `dir`.
    pub fn open(dir: &Path) -> Result<Arc<State>, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(16 << 20);
        options.set_max_open_files(256);
        options.set_keep_log_file_num(2);
        // The default mode opens a log with a flipped bit without a word, and drops what follows it.
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
        let db = DB::open(&options, dir)?;
        let applied = db.get(APPLIED)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Arc::new(State {
            db,
            dir: dir.to_owned(),
            applied: AtomicU64::new(applied),
            closed: watch::Sender::default(),
        }))
    }

    /// Ends once the last handle is gone and the state is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.closed.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    fn row<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, ReadError> {
        Ok(self.db.get_pinned(key)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    /// A conversation without its turns.
    pub fn summary(&self, workspace: &WorkspaceId, conversation: &str) -> Result<Option<Summary>, ReadError> {
        self.row(&key(&[b"c", workspace.as_str().as_bytes(), conversation.as_bytes()]))
    }

    /// The turns of a conversation, the newest first, until `enough` says so.
    pub fn turns(
        &self,
        workspace: &WorkspaceId,
        conversation: &str,
        mut enough: impl FnMut(&Turn) -> bool,
    ) -> Result<Vec<Turn>, ReadError> {
        let prefix = key(&[b"t", workspace.as_str().as_bytes(), conversation.as_bytes(), b""]);
        let mut from = prefix.clone();
        from.extend_from_slice(&u64::MAX.to_be_bytes());
        let mut turns = Vec::new();
        for row in self.db.iterator(IteratorMode::From(&from, Direction::Reverse)) {
            let (name, value) = row?;
            if !name.starts_with(&prefix) {
                break;
            }
            let turn: Turn = serde_json::from_slice(&value)?;
            let stop = enough(&turn);
            turns.push(turn);
            if stop {
                break;
            }
        }
        Ok(turns)
    }

    /// Conversations, the newest first, from after `cursor`; with the cursor of each.
    pub fn list(
        &self,
        workspace: &WorkspaceId,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String, Summary)>, ReadError> {
        let prefix = key(&[b"u", workspace.as_str().as_bytes(), b""]);
        let mut from = prefix.clone();
        from.extend_from_slice(cursor.unwrap_or_default());
        let mut found = Vec::new();
        for row in self.db.iterator(IteratorMode::From(&from, Direction::Forward)) {
            let (name, _) = row?;
            let Some(rest) = name.strip_prefix(prefix.as_slice()).filter(|_| found.len() < limit) else { break };
            if Some(rest) == cursor {
                continue;
            }
            let conversation = String::from_utf8_lossy(rest.get(8..).unwrap_or_default()).into_owned();
            if let Some(summary) = self.summary(workspace, &conversation)? {
                found.push((rest.to_vec(), conversation, summary));
            }
        }
        Ok(found)
    }

    /// Turns that wait for a person.
    pub fn waiting(&self, workspace: &WorkspaceId) -> Result<Vec<Waiting>, ReadError> {
        let prefix = key(&[b"w", workspace.as_str().as_bytes(), b""]);
        self.below(&prefix).map(|row| Ok(serde_json::from_slice(&row?.1)?)).collect()
    }

    /// A turn that waits, as it was put down.
    pub fn put_down(&self, workspace: &WorkspaceId, turn: &str) -> Result<Option<String>, ReadError> {
        let parts = [workspace.as_str().as_bytes(), turn.as_bytes()];
        let Some(waiting) = self.row::<Waiting>(&key(&[b"w", parts[0], parts[1]]))? else { return Ok(None) };
        let mut text = String::new();
        for row in self.below(&key(&[b"p", parts[0], parts[1], b""])).take(waiting.parts as usize) {
            text.push_str(&String::from_utf8_lossy(&row?.1));
        }
        Ok(Some(text))
    }

    /// What was used on a day (counted from 1970).
    pub fn spent(&self, day: u64) -> Result<Vec<(WorkspaceId, AgentName, Spent)>, ReadError> {
        let mut prefix = b"d\0".to_vec();
        prefix.extend_from_slice(&day.to_be_bytes());
        self.below(&prefix).map(|row| Ok(serde_json::from_slice(&row?.1)?)).collect()
    }

    fn below<'a>(
        &'a self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>> + use<'a> {
        let end = prefix.to_vec();
        let rows = self.db.iterator(IteratorMode::From(prefix, Direction::Forward));
        rows.take_while(move |row| row.as_ref().map_or(true, |(name, _)| name.starts_with(&end)))
    }

    fn apply_one(&self, entry: &Entry) -> Result<(), MachineError> {
        let mut batch = WriteBatch::default();
        let stop = |error: ReadError| MachineError::new("the conversations' state cannot be read", error);
        match Command::decode(&entry.command).map_err(|error| MachineError::new("an entry cannot be applied", error))? {
            Command::Record(turn) => self.record(&mut batch, &turn).map_err(stop)?,
            Command::Part { workspace, turn, part, text } => {
                let at = key(&[b"p", workspace.as_str().as_bytes(), turn.as_bytes(), &part.to_be_bytes()]);
                batch.put(at, text);
            }
            Command::Wait(waiting) => {
                let at = key(&[b"w", waiting.workspace.as_str().as_bytes(), waiting.turn.as_bytes()]);
                batch.put(at, json(&*waiting).map_err(stop)?);
            }
            Command::Forget { workspace, conversation } => {
                self.forget(&mut batch, &workspace, &conversation).map_err(stop)?;
            }
        }
        batch.put(APPLIED, entry.index.to_be_bytes());
        self.db.write(batch).map_err(|error| MachineError::new("the conversations' state cannot be written", error))?;
        self.applied.store(entry.index, Ordering::Release);
        Ok(())
    }

    fn record(&self, batch: &mut WriteBatch, turn: &Turn) -> Result<(), ReadError> {
        let (workspace, conversation) = (turn.workspace.as_str().as_bytes(), turn.conversation.as_bytes());
        let done = key(&[b"i", workspace, turn.turn.as_bytes()]);
        if self.db.get_pinned(&done)?.is_some() {
            return Ok(()); // Proposed again after an answer that was lost.
        }
        batch.put(done, b"");
        self.drop_waiting(batch, workspace, &turn.turn)?;
        let old = self.summary(&turn.workspace, &turn.conversation)?;
        if let Some(old) = &old {
            batch.delete(by_time(workspace, old.updated_ms, conversation));
        }
        let mut new = old.unwrap_or_else(|| Summary {
            title: title_of(turn),
            agent: turn.agent.clone(),
            turns: 0,
            usage: Usage::default(),
            created_ms: turn.time_ms,
            updated_ms: 0,
        });
        batch.put(key(&[b"t", workspace, conversation, &new.turns.to_be_bytes()]), json(turn)?);
        new.turns += 1;
        new.usage += turn.usage;
        new.agent.clone_from(&turn.agent);
        new.updated_ms = turn.time_ms.max(new.updated_ms);
        batch.put(by_time(workspace, new.updated_ms, conversation), b"");
        batch.put(key(&[b"c", workspace, conversation]), json(&new)?);
        self.record_spent(batch, turn)
    }

    fn record_spent(&self, batch: &mut WriteBatch, turn: &Turn) -> Result<(), ReadError> {
        let day = turn.time_ms / DAY_MS;
        for (agent, spent) in &turn.spent {
            let names = key(&[turn.workspace.as_str().as_bytes(), agent.as_str().as_bytes()]);
            let at = [b"d\0".as_slice(), &day.to_be_bytes(), &names].concat();
            let old: Option<(WorkspaceId, AgentName, Spent)> = self.row(&at)?;
            let old = old.map(|row| row.2).unwrap_or_default();
            let (tokens, cost) = (old.tokens.saturating_add(spent.tokens), old.cost.saturating_add(spent.cost));
            batch.put(at, json(&(&turn.workspace, agent, Spent { tokens, cost }))?);
        }
        let ended = [b"d\0".as_slice(), &day.saturating_sub(DAYS_KEPT).to_be_bytes()].concat();
        batch.delete_range(b"d\0".to_vec(), ended);
        Ok(())
    }

    fn drop_waiting(&self, batch: &mut WriteBatch, workspace: &[u8], turn: &str) -> Result<(), ReadError> {
        batch.delete(key(&[b"w", workspace, turn.as_bytes()]));
        for row in self.below(&key(&[b"p", workspace, turn.as_bytes(), b""])) {
            batch.delete(row?.0);
        }
        Ok(())
    }

    fn forget(&self, batch: &mut WriteBatch, workspace: &WorkspaceId, conversation: &str) -> Result<(), ReadError> {
        let (name, conversation_key) = (workspace.as_str().as_bytes(), conversation.as_bytes());
        if let Some(summary) = self.summary(workspace, conversation)? {
            batch.delete(by_time(name, summary.updated_ms, conversation_key));
        }
        batch.delete(key(&[b"c", name, conversation_key]));
        for row in self.below(&key(&[b"t", name, conversation_key, b""])) {
            batch.delete(row?.0);
        }
        Ok(())
    }
}

impl Machine for State {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        for entry in entries {
            self.apply_one(entry)?;
        }
        Ok(vec![Bytes::new(); entries.len()])
    }

    fn freeze(&self) -> Result<Frozen, MachineError> {
        let stop = |error: rocksdb::Error| MachineError::new("the conversations' state cannot be frozen", error);
        self.db.flush_wal(true).map_err(stop)?;
        let dir = self.dir.with_extension(format!("frozen-{}", self.applied()));
        remove_dir(&dir).map_err(|error| MachineError::new("an old frozen state cannot be removed", error))?;
        Checkpoint::new(&self.db).and_then(|point| point.create_checkpoint(&dir)).map_err(stop)?;
        Ok(Box::new(move |out| {
            let written = write_frozen(&dir, out);
            remove_dir(&dir)?;
            written
        }))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let stop = |error: rocksdb::Error| MachineError::new("the conversations' state cannot be written", error);
        let broken = |error: io::Error| MachineError::new("a snapshot of the conversations cannot be read", error);
        let mut batch = WriteBatch::default();
        batch.delete_range(Vec::new(), vec![0xff; 16]);
        self.db.write(std::mem::take(&mut batch)).map_err(stop)?;
        while let Some((name, value)) = read_pair(from).map_err(broken)? {
            batch.put(name, value);
            if batch.size_in_bytes() > 4 << 20 {
                self.db.write(std::mem::take(&mut batch)).map_err(stop)?;
            }
        }
        self.db.write(batch).map_err(stop)?;
        self.db.flush_wal(true).map_err(stop)?;
        let applied = self.db.get(APPLIED).map_err(stop)?.and_then(|bytes| bytes.try_into().ok());
        self.applied.store(applied.map_or(0, u64::from_be_bytes), Ordering::Release);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

/// Parts with a zero between them; names have no zero in them.
fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&0)
}

/// The newest sorts first.
fn by_time(workspace: &[u8], updated_ms: u64, conversation: &[u8]) -> Vec<u8> {
    let mut at = key(&[b"u", workspace, b""]);
    at.extend_from_slice(&(u64::MAX - updated_ms).to_be_bytes());
    at.extend_from_slice(conversation);
    at
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, ReadError> {
    Ok(serde_json::to_vec(value)?)
}

fn title_of(turn: &Turn) -> String {
    let first = turn.messages.iter().find(|message| matches!(message, crate::llm::Message::User { .. }));
    let text = first.map(crate::llm::Message::text).unwrap_or_default();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(TITLE_CHARS_MAX).collect()
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Pairs of lengths and bytes; a length of `u32::MAX` is the end, so that a cut file is noticed.
fn write_frozen(dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    let db = DB::open_for_read_only(&Options::default(), dir, false).map_err(io::Error::other)?;
    for row in db.iterator(IteratorMode::Start) {
        let (name, value) = row.map_err(io::Error::other)?;
        for bytes in [&name, &value] {
            out.write_all(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes())?;
            out.write_all(bytes)?;
        }
    }
    out.write_all(&u32::MAX.to_be_bytes())
}

/// The longest row that is believed.
const ROW_BYTES_MAX: u32 = 16 << 20;

fn read_pair(from: &mut dyn Read) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut read_one = |end_allowed: bool| -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        match u32::from_be_bytes(length) {
            u32::MAX if end_allowed => Ok(None),
            length if length > ROW_BYTES_MAX => Err(io::Error::new(io::ErrorKind::InvalidData, "a row is too long")),
            length => {
                let mut bytes = vec![0; length as usize];
                from.read_exact(&mut bytes)?;
                Ok(Some(bytes))
            }
        }
    };
    let Some(name) = read_one(true)? else { return Ok(None) };
    Ok(read_one(false)?.map(|value| (name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Message;
    use caxton_proto::Revision;

    fn turn(conversation: &str, id: &str, time_ms: u64) -> Command {
        Command::Record(Box::new(Turn {
            workspace: "team".parse().expect("a name"),
            conversation: conversation.into(),
            turn: id.into(),
            agent: "worker".parse().expect("a name"),
            subject: "admin".into(),
            time_ms,
            messages: vec![Message::user(format!("\n  hello {id}\nmore")), Message::assistant("hi")],
            attachments: vec![],
            usage: Usage { input: 1, output: 2 },
            spent: vec![("worker".parse().expect("a name"), Spent { tokens: 3, cost: 4 })],
            duration_ms: 1,
            revision: Revision(1),
            failure: None,
        }))
    }

    fn apply(state: &State, index: u64, command: &Command) {
        let entry = Entry { index, term: 1, command: command.encode().expect("JSON") };
        state.apply(&[entry]).expect("applied");
    }

    fn ids(state: &State) -> Vec<String> {
        let listed = state.list(&"team".parse().expect("a name"), None, 100).expect("a list");
        listed.into_iter().map(|(_, id, _)| id).collect()
    }

    #[test]
    fn conversations_are_listed_newest_first_and_survive_reopening_and_snapshots() {
        let dir = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        let workspace: WorkspaceId = "team".parse().expect("a name");
        let state = State::open(&dir.path().join("db")).expect("open");
        apply(&state, 1, &turn("a", "t1", 100));
        apply(&state, 2, &turn("b", "t2", 200));
        apply(&state, 3, &turn("a", "t3", 300));
        apply(&state, 4, &turn("a", "t3", 300));
        assert_eq!(ids(&state), ["a", "b"]);
        let summary = state.summary(&workspace, "a").expect("read").expect("there");
        assert_eq!((summary.turns, summary.usage.total(), summary.title.as_str()), (2, 6, "hello t1"));
        assert_eq!(state.spent(0).expect("read")[0].2, Spent { tokens: 9, cost: 12 }, "the repeated turn counts once");

        let copy = State::open(&other.path().join("db")).expect("open");
        apply(&copy, 1, &turn("stale", "t9", 1));
        let mut bytes = Vec::new();
        state.freeze().expect("frozen")(&mut bytes).expect("written");
        copy.restore(&mut bytes.as_slice()).expect("restored");
        assert_eq!((ids(&copy), copy.applied()), (ids(&state), 4));
        assert!(copy.restore(&mut &bytes[..bytes.len() - 3]).is_err(), "a cut snapshot is noticed");

        drop(state);
        let state = State::open(&dir.path().join("db")).expect("open");
        assert_eq!(state.applied(), 4);
        let turns = state.turns(&workspace, "a", |_| false).expect("read");
        assert_eq!(turns.iter().map(|turn| turn.turn.as_str()).collect::<Vec<_>>(), ["t3", "t1"]);
        apply(&state, 5, &Command::Forget { workspace: workspace.clone(), conversation: "a".into() });
        assert_eq!(ids(&state), ["b"]);
        assert!(state.turns(&workspace, "a", |_| false).expect("read").is_empty());
    }

    #[test]
    fn a_turn_that_waits_is_put_together_from_its_pieces_and_goes_when_it_is_recorded() {
        let dir = tempfile::tempdir().expect("a folder");
        let workspace: WorkspaceId = "team".parse().expect("a name");
        let state = State::open(&dir.path().join("db")).expect("open");
        let part = |part, text: &str| Command::Part {
            workspace: workspace.clone(),
            turn: "t1".into(),
            part,
            text: text.into(),
        };
        apply(&state, 1, &part(0, "one "));
        apply(&state, 2, &part(1, "two"));
        let waiting = Waiting { workspace: workspace.clone(), turn: "t1".into(), parts: 2, approvals: vec![] };
        assert_eq!(state.put_down(&workspace, "t1").expect("read"), None, "not before it is whole");
        apply(&state, 3, &Command::Wait(Box::new(waiting)));
        assert_eq!(state.put_down(&workspace, "t1").expect("read").as_deref(), Some("one two"));
        assert_eq!(state.waiting(&workspace).expect("read").len(), 1);
        apply(&state, 4, &turn("a", "t1", 5));
        assert_eq!(state.put_down(&workspace, "t1").expect("read"), None);
        assert!(state.waiting(&workspace).expect("read").is_empty());
    }
}
