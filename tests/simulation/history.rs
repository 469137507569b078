//! What happened in a run, and the rules that it is held to while it happens: no two leaders in a term, the same command at
//! the same place everywhere, nothing acknowledged that is not there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use caxton_raft::{Entry, FrozenState, Machine, MachineError};

use crate::seed::Run;
use crate::trace::{self, find, note};

/// What a run has seen. A simulation has one thread.
#[derive(Default)]
struct History {
    /// Which node led in which term.
    leaders: BTreeMap<u64, u64>,
    /// The term and the command that were applied at each place, whoever came first.
    applied: BTreeMap<u64, (u64, Bytes)>,
    /// The command that was acknowledged at each place.
    acknowledged: BTreeMap<u64, Bytes>,
}

thread_local! {
    static HISTORY: RefCell<History> = RefCell::default();
}

/// A node says that it leads in a term.
pub fn leads(node: u64, term: u64) {
    let other = HISTORY.with_borrow_mut(|history| *history.leaders.entry(term).or_insert(node));
    if other != node {
        find(format!("nodes {other} and {node} both led in term {term}"));
    }
}

/// A client was told that `command` is in the log at `index`.
pub fn acknowledge(index: u64, command: Bytes) {
    let before = HISTORY.with_borrow_mut(|history| history.acknowledged.insert(index, command.clone()));
    if let Some(before) = before {
        find(format!("{before:?} and {command:?} were both acknowledged at {index}"));
    }
}

/// The last place that was acknowledged up to now.
pub fn last_acknowledged() -> u64 {
    HISTORY.with_borrow(|history| history.acknowledged.last_key_value().map_or(0, |(index, _)| *index))
}

/// Ends the history: the log that every node has at last is held against what was acknowledged.
pub fn end(logs: &[(u64, Vec<Bytes>)]) -> Run {
    let acknowledged = HISTORY.with_borrow(|history| history.acknowledged.clone());
    for (node, log) in logs {
        if log != &logs[0].1 {
            find(format!("nodes {} and {node} have different logs", logs[0].0));
        }
        for (index, command) in &acknowledged {
            let found = log.get(*index as usize - 1);
            if found != Some(command) {
                find(format!("{command:?} was acknowledged at {index}, and node {node} has {found:?} there"));
            }
        }
        let mut once = log.clone();
        once.sort();
        once.dedup();
        if once.len() != log.len() {
            find(format!("node {node} has a command twice"));
        }
    }
    trace::end()
}

/// The machine of one life of a node: keeps the commands in memory.
pub struct Journal {
    node: u64,
    name: String,
    commands: Mutex<Vec<Bytes>>,
}

impl Journal {
    pub fn new(node: u64, name: &str) -> Arc<Journal> {
        Arc::new(Journal { node, name: name.to_owned(), commands: Mutex::default() })
    }

    pub fn commands(&self) -> Vec<Bytes> {
        self.commands.lock().unwrap().clone()
    }

    fn check(&self, entry: &Entry) {
        let mine = (entry.term, entry.command.clone());
        let first = HISTORY.with_borrow_mut(|it| it.applied.entry(entry.index).or_insert(mine.clone()).clone());
        if first != mine {
            find(format!("node {} applied {mine:?} at {}, where another had {first:?}", self.node, entry.index));
        }
    }
}

impl Machine for Journal {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        let mut commands = self.commands.lock().unwrap();
        for entry in entries {
            self.check(entry);
            let command = String::from_utf8_lossy(&entry.command);
            note(&self.name, &format!("applies {} of term {}: {command}", entry.index, entry.term));
            commands.push(entry.command.clone());
        }
        Ok(entries.iter().map(|entry| entry.command.clone()).collect())
    }

    fn freeze(&self) -> Result<FrozenState, MachineError> {
        let commands = self.commands();
        note(&self.name, &format!("makes a snapshot of {}", commands.len()));
        Ok(Box::new(move |out: &mut dyn Write| {
            commands.iter().try_for_each(|it| {
                out.write_all(&(it.len() as u32).to_le_bytes())?;
                out.write_all(it)
            })
        }))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| MachineError::new("cannot read the journal", error))?;
        let (mut rest, mut commands) = (bytes.as_slice(), Vec::new());
        while let Some((len, after)) = rest.split_first_chunk() {
            let (command, after) = after.split_at(u32::from_le_bytes(*len) as usize);
            commands.push(Bytes::copy_from_slice(command));
            rest = after;
        }
        note(&self.name, &format!("takes a snapshot of {}", commands.len()));
        *self.commands.lock().unwrap() = commands;
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.commands.lock().unwrap().len() as u64
    }
}
