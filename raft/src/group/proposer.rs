//! Group commit, part one: the commands that wait for a place in the log go in together as one entry. (Part two is that
//! groups share fsyncs, in the store.) openraft waits for each append to be on disk before it begins the next, so without
//! this every command would pay for an fsync of its own.
//!
//! One entry is under way at a time: so all that arrives during an fsync shares the next, where with two openraft would only
//! sync two entries of half the size one after the other. Who comes when nothing is under way puts its command in itself,
//! and passes it through no task in between.

use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::NodeId;
use openraft::ServerState;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use super::{Applied, ProposeError};
use crate::type_config::Raft;
use crate::types::{Batch, Replies, chain};

/// How many commands can wait; more wait for a place to wait.
const WAITING_MAX: usize = 4096;
/// How many commands share an entry.
const BATCH_COMMANDS_MAX: usize = 1024;
/// How many bytes of commands share an entry, the last command not counted.
const BATCH_BYTES_MAX: usize = 1 << 20;

type Answer = Result<Applied, ProposeError>;

/// Takes commands and puts them into the log. Its task ends when it is dropped, once the commands that wait are answered.
pub struct Proposer {
    raft: Raft,
    waiting: mpsc::Sender<Proposal>,
    /// Whoever puts something into the log has it meanwhile. Those who want it get it in turn.
    turn: Arc<Semaphore>,
}

struct Proposal {
    command: Bytes,
    answer: oneshot::Sender<Answer>,
}

impl Proposer {
    pub fn start(raft: Raft) -> Proposer {
        let (waiting, proposals) = mpsc::channel(WAITING_MAX);
        let turn = Arc::new(Semaphore::new(1));
        tokio::spawn(run(raft.clone(), proposals, Arc::clone(&turn)));
        Proposer { raft, waiting, turn }
    }

    /// Waits until what is under way is answered. Commands wait as long as the permit lives, and none goes into the log.
    pub async fn hold(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }

    pub async fn propose(&self, command: Bytes) -> Answer {
        if let Ok(_turn) = self.turn.try_acquire() {
            let Replies { first, replies } = write(&self.raft, vec![command]).await?;
            let response = replies.into_iter().next().ok_or(ProposeError::Unavailable)?;
            return Ok(Applied { index: first, response });
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.waiting.send(Proposal { command, answer }).await;
        sent.map_err(|_| ProposeError::Unavailable)?;
        answered.await.unwrap_or(Err(ProposeError::Unavailable))
    }
}

async fn run(raft: Raft, mut proposals: mpsc::Receiver<Proposal>, turn: Arc<Semaphore>) {
    while let Some(first) = proposals.recv().await {
        // Nobody closes it.
        let Ok(_turn) = turn.acquire().await else { break };
        let (commands, waiting): (Vec<_>, Vec<_>) =
            batch(first, &mut proposals).into_iter().map(|it| (it.command, it.answer)).unzip();
        match write(&raft, commands).await {
            Ok(Replies { first, replies }) => {
                for ((index, response), answer) in (first..).zip(replies).zip(waiting) {
                    // Whoever no longer waits does not need the answer.
                    let _ = answer.send(Ok(Applied { index, response }));
                }
            }
            Err(error) => {
                for answer in waiting {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
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

/// Puts commands into the log as one entry and waits until it is applied.
async fn write(raft: &Raft, commands: Vec<Bytes>) -> Result<Replies, ProposeError> {
    let metrics = raft.metrics();
    let (led, vote) = {
        let before = metrics.borrow();
        (before.state == ServerState::Leader, before.vote)
    };
    let written = raft.client_write(Batch(commands)).await;
    // It may have been elected before it took the command up, and deposed since: not without another vote.
    let led = led || metrics.borrow().vote != vote;
    written.map(|written| written.data).map_err(|error| propose_error(error, led))
}

/// `led` says that this node may have led when it proposed: then another node may have the command and bring it back.
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
