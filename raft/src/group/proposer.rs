//! Group commit, part one: the commands that wait for a place in the log go in together as one entry. (Part two is that
//! groups share fsyncs, in the store.) openraft waits for each append to be on disk before it begins the next, so without
//! this every command would pay for an fsync of its own.

use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::NodeId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Applied, ProposeError};
use crate::types::{Batch, Raft, Replies, chain};

/// How many commands can wait; more wait for a place to wait.
const WAITING_MAX: usize = 4096;
/// How many commands share an entry.
const BATCH_COMMANDS_MAX: usize = 1024;
/// How many bytes of commands share an entry, the last command not counted.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How many entries are under way at once. With one, all that arrives during an fsync shares the next; with two, openraft
/// would only sync two entries of half the size one after the other.
const IN_FLIGHT_MAX: usize = 1;

type Answer = Result<Applied, ProposeError>;

/// Takes commands and puts them into the log. Its task ends when it is dropped, once the commands under way are answered.
pub struct Proposer {
    waiting: mpsc::Sender<Proposal>,
    held: watch::Sender<bool>,
    idle: watch::Receiver<bool>,
}

/// While it lives, commands wait and none goes into the log.
pub struct Hold<'a>(&'a Proposer);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.held.send_replace(false);
    }
}

struct Proposal {
    command: Bytes,
    answer: oneshot::Sender<Answer>,
}

impl Proposer {
    pub fn start(raft: Raft) -> Proposer {
        let (waiting, proposals) = mpsc::channel(WAITING_MAX);
        let (held, hold) = watch::channel(false);
        let (told, idle) = watch::channel(false);
        tokio::spawn(run(raft, proposals, hold, told));
        Proposer { waiting, held, idle }
    }

    /// Lets commands wait until the hold is dropped, and waits until those under way are answered. One at a time.
    pub async fn hold(&self) -> Hold<'_> {
        self.held.send_replace(true);
        let hold = Hold(self);
        // Its task ends with the group, and then nothing is under way either.
        _ = self.idle.clone().wait_for(|idle| *idle).await;
        hold
    }

    pub async fn propose(&self, command: Bytes) -> Answer {
        let (answer, answered) = oneshot::channel();
        let sent = self.waiting.send(Proposal { command, answer }).await;
        sent.map_err(|_| ProposeError::Unavailable)?;
        answered.await.unwrap_or(Err(ProposeError::Unavailable))
    }
}

async fn run(
    raft: Raft,
    mut proposals: mpsc::Receiver<Proposal>,
    mut hold: watch::Receiver<bool>,
    idle: watch::Sender<bool>,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let held = *hold.borrow_and_update();
        let now = held && under_way.is_empty();
        idle.send_if_modified(|idle| std::mem::replace(idle, now) != now);
        tokio::select! {
            Some(()) = under_way.next() => (),
            changed = hold.changed() => if changed.is_err() {
                break;
            },
            proposal = proposals.recv(), if under_way.len() < IN_FLIGHT_MAX && !held => match proposal {
                Some(first) => under_way.push(write(raft.clone(), batch(first, &mut proposals))),
                None => break,
            },
        }
    }
    while under_way.next().await.is_some() {}
}

/// The first proposal and those that wait behind it, as far as they fit.
fn batch(first: Proposal, proposals: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = first.command.len();
    let mut batch = vec![first];
    while batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = proposals.try_recv() else { break };
        bytes += next.command.len();
        batch.push(next);
    }
    batch
}

async fn write(raft: Raft, batch: Vec<Proposal>) {
    let (commands, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|it| (it.command, it.answer)).unzip();
    let led = raft.metrics().borrow().state == ServerState::Leader;
    match raft.client_write(Batch(commands)).await {
        Ok(written) => {
            let Replies { first, replies } = written.data;
            for ((index, response), answer) in (first..).zip(replies).zip(waiting) {
                // Whoever no longer waits does not need the answer.
                let _ = answer.send(Ok(Applied { index, response }));
            }
        }
        Err(error) => {
            let error = propose_error(error, led);
            for answer in waiting {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// `led` says that this node led when it proposed: then another node may have the command and bring it back.
fn propose_error(error: RaftError<u64, ClientWriteError<u64, openraft::BasicNode>>, led: bool) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) if led => ProposeError::Unavailable,
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        // No command changes who the voters are.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => ProposeError::Unavailable,
        RaftError::Fatal(fatal) => ProposeError::Fatal { why: Arc::from(chain(&fatal)) },
    }
}
