//! What grows and is followed while it does: conversations and mailboxes, each thing in them with a number that grows.
//!
//! A subscription reads this node's replica of the workspace's shard from its cursor on and then waits for the shard's log, so
//! that it holds no queue that could overflow, misses nothing and goes on when another node comes to lead. A reader that is
//! slow falls behind, and one that falls behind what is kept is told so.

use std::time::Duration;

use caxton_messages::acl::{Address, InvalidAddress};
use caxton_messages::{Conversation, Event, Listed, Listing, conversation, list};
use caxton_proto::WorkspaceId;
use caxton_proto::shard::TurnRecord;
use caxton_raft::ReadError as GroupError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authz::{Converse, Permit, ReadConversations};
use crate::conversations::{ReadError, State};
use crate::invoke::{Freshness, Invoker};
use crate::mailbox::{MailboxError, Mailboxes};

/// Things that are read in one go, so that no table is held for long, and a reader that stalls holds few: each may have 256 KiB.
const BATCH: usize = 16;
/// Turns that are read in one go: each has all that was said in it.
const TURNS_BATCH: usize = 4;
/// Events of a conversation of messages that are kept, and read to see whose it is.
const EVENTS_READ: usize = 1_000;
/// How long a node that is behind may take to reach the number after which a subscription goes on.
const REACH_WAIT: Duration = Duration::from_secs(5);
/// How long is waited for more before the tables are read again, so that a busy shard costs few reads.
const GATHER: Duration = Duration::from_millis(5);

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// The turns of a conversation with agents.
    Turns { conversation: String },
    /// The messages of a conversation between agents and people.
    Messages { conversation: String },
    /// What lies in a mailbox and what comes to it.
    Mailbox {
        /// Whose mailbox; that of whoever asks where it is not said.
        owner: Option<Address>,
    },
}

/// Something that came.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// A turn of a conversation is over.
    Turn {
        /// Its number in the conversation, from 1.
        number: u64,
        /// What was said in it.
        record: Box<TurnRecord>,
    },
    /// A message of a conversation was taken in.
    Message(Event),
    /// A message lies in a mailbox.
    Delivery(Box<Listed>),
}

impl FeedEvent {
    /// Its number, which grows within what is followed.
    pub fn number(&self) -> u64 {
        match self {
            FeedEvent::Turn { number, .. } => *number,
            FeedEvent::Message(event) => event.number,
            FeedEvent::Delivery(listed) => listed.delivery,
        }
    }
}

/// Why something is not followed, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// There is none of that name, or it is not for the reader.
    #[error("there is no conversation `{id}` in workspace `{workspace}`")]
    None {
        workspace: WorkspaceId,
        /// The id that was asked for.
        id: String,
    },
    /// What came after the number is not kept any more.
    #[error("what came after number {after} is not kept any more; the oldest that is has number {oldest}")]
    Compacted {
        /// The number of the last one seen.
        after: u64,
        /// The number of the oldest that is kept.
        oldest: u64,
    },
    /// There is nothing with that number.
    #[error("there is no number {after} yet: the newest is {newest}")]
    Ahead {
        /// The number of the last one that is said to be seen.
        after: u64,
        /// The number of the newest.
        newest: u64,
    },
    /// The node stops.
    #[error("the node is stopping")]
    Stopped,
    /// Whoever asks has no name that a mailbox can have.
    #[error("the name of the token cannot own a mailbox")]
    Owner(#[from] InvalidAddress),
    /// Whether this node is up to date is not known.
    #[error(transparent)]
    Current(#[from] GroupError),
    /// The conversations could not be read.
    #[error(transparent)]
    Conversations(#[from] ReadError),
    /// The mailboxes could not be read.
    #[error(transparent)]
    Mailboxes(#[from] MailboxError),
}

/// What can be followed in all workspaces.
pub struct Feeds {
    invoker: Invoker,
    mailboxes: Mailboxes,
}

impl Feeds {
    /// What is in the shards of these.
    pub fn new(invoker: Invoker, mailboxes: Mailboxes) -> Feeds {
        Feeds { invoker, mailboxes }
    }

    /// Follows something from after a number on, or from the oldest that is kept. With [`Freshness::Current`] this node has to
    /// be up to date, and what is not there is refused; otherwise it is waited for.
    pub async fn open(
        &self,
        permit: &Permit<Converse>,
        feed: Feed,
        after: Option<u64>,
        freshness: Freshness,
    ) -> Result<Subscription, FeedError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let own: Address = permit.subject().parse().map(Address::Subject)?;
        let reads_all = permit.also(ReadConversations).is_ok();
        let feed = match feed {
            // Whoever may not read the mailboxes of others reads their own, as when they list them.
            Feed::Mailbox { owner } => {
                Feed::Mailbox { owner: Some(owner.filter(|_| reads_all).unwrap_or_else(|| own.clone())) }
            }
            feed @ (Feed::Turns { .. } | Feed::Messages { .. }) => feed,
        };
        let subscription = Subscription {
            applied: self.mailboxes.of(permit.workspace()).shard().group().applied(),
            invoker: self.invoker.clone(),
            mailboxes: self.mailboxes.clone(),
            workspace: permit.workspace().clone(),
            reader: Reader { own, subject: permit.subject().to_owned(), reads_all },
            feed,
            cursor: after.unwrap_or_default(),
            has_cursor: after.is_some(),
        };
        subscription.reached(freshness).await
    }
}

#[derive(Debug, Clone)]
struct Reader {
    own: Address,
    subject: String,
    /// Also what is not their own.
    reads_all: bool,
}

impl Reader {
    fn is_in(&self, event: &Event) -> bool {
        let own = self.own.to_string();
        self.reads_all || event.sender == own || event.receivers.contains(&own)
    }

    /// Whether the whole conversation is theirs to read.
    fn takes_part(&self, conversation: &Conversation) -> bool {
        let own = self.own.to_string();
        let is_party = || conversation.participants.iter().any(|(participant, _)| *participant == own);
        self.reads_all || conversation.initiator == own || is_party()
    }

    fn sees(&self, conversation: &Conversation) -> bool {
        self.takes_part(conversation) || conversation.events.iter().any(|event| self.is_in(event))
    }
}

/// Something that is followed.
pub struct Subscription {
    invoker: Invoker,
    mailboxes: Mailboxes,
    workspace: WorkspaceId,
    reader: Reader,
    feed: Feed,
    /// Everything up to here was given, or is not for the reader.
    cursor: u64,
    /// What comes next has to come right after the cursor.
    has_cursor: bool,
    /// Changes with every entry of the shard's log.
    applied: watch::Receiver<u64>,
}

impl Subscription {
    /// What came since, in its order: at least one thing, once there is one. Nothing is lost when it is dropped while it waits.
    pub async fn next(&mut self) -> Result<Vec<FeedEvent>, FeedError> {
        loop {
            // Marked as seen before it is read, so that what comes in between wakes the wait.
            self.applied.borrow_and_update();
            loop {
                let before = self.cursor;
                let (events, cursor) = self.take().await?;
                (self.cursor, self.has_cursor) = (cursor, self.has_cursor || cursor > before);
                if !events.is_empty() {
                    return Ok(events);
                }
                // What was passed over is not for the reader, and there may be more behind it.
                if cursor == before {
                    break;
                }
            }
            self.applied.changed().await.map_err(|_| FeedError::Stopped)?;
            tokio::time::sleep(GATHER).await;
        }
    }

    /// The same, once this node has reached the number after which it goes on, and what is not there was refused.
    async fn reached(mut self, freshness: Freshness) -> Result<Subscription, FeedError> {
        let until = Instant::now() + REACH_WAIT;
        loop {
            self.applied.borrow_and_update();
            let newest = match self.newest().await? {
                Some(newest) => newest,
                None if freshness == Freshness::Current => return Err(self.none()),
                None => 0,
            };
            if self.cursor <= newest {
                return Ok(self);
            }
            let behind = || FeedError::Ahead { after: self.cursor, newest };
            if freshness == Freshness::Current {
                return Err(behind());
            }
            match tokio::time::timeout_at(until, self.applied.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(FeedError::Stopped),
                Err(_) => return Err(behind()),
            }
        }
    }

    fn none(&self) -> FeedError {
        let id = match &self.feed {
            Feed::Turns { conversation } | Feed::Messages { conversation } => conversation.clone(),
            Feed::Mailbox { owner } => owner.as_ref().map(Address::to_string).unwrap_or_default(),
        };
        FeedError::None { workspace: self.workspace.clone(), id }
    }

    /// The newest number; nothing where there is nothing that the reader sees.
    async fn newest(&self) -> Result<Option<u64>, FeedError> {
        match &self.feed {
            Feed::Turns { conversation } => {
                let (workspace, id) = (self.workspace.clone(), conversation.clone());
                let reader = self.reader.clone();
                let newest = move |state: &State| {
                    let Some(summary) = state.summary(&workspace, &id)? else { return Ok(None) };
                    // Whose a conversation is says its newest turn: nobody else can go on with it.
                    let last = state.turns(&workspace, &id, |_| true)?;
                    let is_own = last.first().is_some_and(|turn| turn.subject == reader.subject);
                    Ok((reader.reads_all || is_own).then_some(summary.turns))
                };
                Ok(self.invoker.conversations().read(&self.workspace, newest).await?)
            }
            Feed::Messages { conversation } => {
                let found = self.exchange(conversation, 0, EVENTS_READ).await?;
                let found = found.filter(|found| self.reader.sees(found));
                Ok(found.map(|found| found.events.last().map_or(0, |event| event.number)))
            }
            // Deliveries are numbered across mailboxes, and any number may be the last one seen.
            Feed::Mailbox { .. } => Ok(Some(u64::MAX)),
        }
    }

    async fn exchange(&self, id: &str, after: u64, most: usize) -> Result<Option<Conversation>, FeedError> {
        let (workspace, id) = (self.workspace.clone(), id.to_owned());
        let read = move |rows: &_| conversation(rows, &workspace, &id, after, most);
        Ok(self.mailboxes.of(&self.workspace).read(read).await?)
    }

    /// What came after the cursor, and where the cursor stands behind it.
    async fn take(&self) -> Result<(Vec<FeedEvent>, u64), FeedError> {
        match &self.feed {
            Feed::Turns { conversation } => self.take_turns(conversation).await,
            Feed::Messages { conversation } => self.take_messages(conversation).await,
            Feed::Mailbox { owner } => {
                let after = self.cursor;
                let what = Listing { owner: owner.clone(), dead: None, delivery: None, after, most: BATCH };
                let workspace = self.workspace.clone();
                let read = move |rows: &_| list(rows, &workspace, &what);
                let found = self.mailboxes.of(&self.workspace).read(read).await?;
                let cursor = found.last().map_or(after, |last| last.delivery);
                Ok((found.into_iter().map(|listed| FeedEvent::Delivery(Box::new(listed))).collect(), cursor))
            }
        }
    }

    async fn take_turns(&self, id: &str) -> Result<(Vec<FeedEvent>, u64), FeedError> {
        let (workspace, wanted, after) = (self.workspace.clone(), id.to_owned(), self.cursor);
        let read = move |state: &State| {
            let turns = state.summary(&workspace, &wanted)?.map(|summary| summary.turns);
            Ok((turns, state.turns_after(&workspace, &wanted, after, TURNS_BATCH)?))
        };
        let (turns, found) = self.invoker.conversations().read(&self.workspace, read).await?;
        // It was removed, and perhaps begun anew.
        if self.has_cursor && after > 0 && turns.is_none_or(|turns| turns < after) {
            return Err(self.none());
        }
        let cursor = found.last().map_or(after, |(number, _)| *number);
        let own = |record: &TurnRecord| self.reader.reads_all || record.subject == self.reader.subject;
        let found = found.into_iter().filter(|(_, record)| own(record));
        Ok((found.map(|(number, record)| FeedEvent::Turn { number, record: Box::new(record) }).collect(), cursor))
    }

    async fn take_messages(&self, id: &str) -> Result<(Vec<FeedEvent>, u64), FeedError> {
        let after = self.cursor;
        let Some(found) = self.exchange(id, after, BATCH).await? else {
            return if self.has_cursor && after > 0 { Err(self.none()) } else { Ok((Vec::new(), after)) };
        };
        if let Some(oldest) = found.events.first().map(|event| event.number)
            && self.has_cursor
            && oldest > after + 1
        {
            return Err(FeedError::Compacted { after, oldest });
        }
        let cursor = found.events.last().map_or(after, |event| event.number);
        // Who bids in a contract net does not hear of the other bids.
        let events = found.events.into_iter().filter(|event| self.reader.is_in(event));
        Ok((events.map(FeedEvent::Message).collect(), cursor))
    }
}
