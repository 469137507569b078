//! The commands that change mailboxes, conversations between agents and topics, and what became of them.
//!
//! The proposer stamps ids, times and senders into a command, because applying one reads no clock and draws no number.
//! Times are milliseconds since 1970. The bytes stay on disk for years: change them only by adding fields to the .proto file,
//! and keep the golden files of every version that was ever written.

mod check;
mod filter;
mod signed;
mod wire;

use std::collections::BTreeMap;

pub use check::{
    DELAY, DELAY_MS_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX, SETTLED_SUBMISSIONS_MAX, STATE_BYTES_MAX,
    STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, SUBMISSIONS_MAX, TRACE_BYTES_MAX,
};
pub use filter::{CONDITION_BYTES_MAX, CONDITIONS_MAX, Condition, Filter, InvalidFilter};
pub use signed::{InvalidKeyId, KEY_BYTES, KeyId, SEALED_BYTES_MAX, SIGNATURE_BYTES, Signature, signed_id};
pub use wire::{decode_message, encode_message};

pub use crate::acl::wire::DecodeError;
use crate::acl::{Address, Message, MessageId, Pattern, Priority};
use crate::{AgentName, WorkspaceId};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Whose mailboxes it changes.
    pub workspace: WorkspaceId,
    /// When it was proposed.
    pub time_ms: i64,
    /// The most mailboxes of the workspace, as the proposer's settings say; any number where it says none.
    pub mailboxes_max: Option<u64>,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take messages in: each is accepted or refused by itself.
    Send(Vec<Submission>),
    /// Note that deliveries are given to their receivers now: each that is ready is one attempt further.
    Start(Vec<u64>),
    /// Say what became of a delivery, and take in what its receiver sends, in one.
    Settle {
        /// The delivery's number.
        delivery: u64,
        /// The attempt that this is about; another one changes nothing.
        attempt: u32,
        /// What became of it.
        verdict: Verdict,
        /// What its receiver sends.
        submissions: Vec<Submission>,
        /// The keys of its receiver's state that are changed; nothing for those that are deleted.
        state: BTreeMap<String, Option<String>>,
    },
    /// Note that the turn of a delivery was put down: it is settled once that turn has ended, and holds nothing up.
    Park {
        /// The delivery's number.
        delivery: u64,
        /// The attempt that this is about; another one changes nothing.
        attempt: u32,
    },
    /// Send messages of a turn that waits for their answers. What comes in their conversation is kept for the turn, and given to
    /// nobody else. The same turn and way once more change nothing.
    Await(Await),
    /// End a turn's wait.
    Resume {
        /// The agent that waits.
        owner: Address,
        /// The turn that waits.
        turn: String,
        /// The calls that lead to the one that waits, each on a line.
        way: String,
        /// The turn has the answers; else they are delivered as any other message.
        taken: bool,
    },
    /// Note which agents of the workspace are programs. Those that are new are told that they are deployed. An older revision
    /// than the one that is known changes nothing.
    Roster {
        /// The revision of the workspace.
        revision: u64,
        /// The agents that are programs.
        programs: Vec<AgentName>,
    },
    /// Give a sender a key to sign with.
    SetKey(SetKey),
    /// Take a message in that another workspace sent, once.
    Receive {
        /// The workspace that it comes from.
        source: WorkspaceId,
        /// The message, as it is here. Its id is the same however often it is brought.
        submission: Box<Submission>,
    },
    /// Do what is due by now: expiry, deadlines, what an older term had started, and what is published to whom.
    Tick {
        /// The term of whoever proposes: what was started under an older one is started no longer.
        term: u64,
    },
    /// Give dead letters another try, from the first attempt on.
    Redrive(Vec<u64>),
    /// Delete dead letters, or deliveries that wait.
    Drop(Vec<u64>),
    /// Subscribe to topics, or go to another position.
    Subscribe {
        /// Who receives what is published.
        subscriber: Address,
        /// The subscription's name; one of this name is replaced.
        name: String,
        /// Which topics are meant.
        pattern: Pattern,
        /// Which of the messages there are meant.
        filter: Filter,
        /// The position after which it begins. Where it is absent, one that is there goes on from its own, and a new one has
        /// what is published from now on.
        after: Option<u64>,
    },
    /// Send what a schedule sends at a tick, unless that tick or a later one is done. Without a message it only begins: a
    /// schedule of these words that is there is left as it is.
    Fire {
        /// The schedule: its agent's name and its own, with a slash between.
        schedule: String,
        /// When it ticks, in words: what is known of a schedule of other words does not count.
        words: String,
        /// The tick, or when it begins, in milliseconds since 1970.
        tick_ms: i64,
        /// The message; none where the schedule only begins.
        submission: Option<Box<Submission>>,
    },
    /// Forget schedules, which begin anew if they come back.
    Unschedule(Vec<String>),
    /// End a subscription.
    Unsubscribe {
        /// Whose subscription it is.
        subscriber: Address,
        /// The subscription's name.
        name: String,
    },
}

/// A turn that waits for answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Await {
    /// The agent that waits.
    pub owner: Address,
    /// The turn that waits.
    pub turn: String,
    /// The calls that lead to the one that waits, each on a line.
    pub way: String,
    /// The conversation in which the answers come.
    pub conversation: String,
    /// Who is to answer: the wait ends when all have.
    pub awaited: Vec<Address>,
    /// When the wait ends at the latest, in milliseconds since 1970.
    pub until_ms: i64,
    /// What is sent; nothing where one of it is refused.
    pub submissions: Vec<Submission>,
}

/// A key with which a sender signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKey {
    /// Who signs with it.
    pub owner: Address,
    /// The public key.
    pub public: [u8; KEY_BYTES],
    /// The nodes sign with it; else its owner does, and no node could.
    pub held: bool,
    /// The data key that `sealed` was sealed with.
    pub sealed_with: String,
    /// The seed of a key that is held, the public key of any other, sealed, so that whoever changes rows makes no key.
    pub sealed: Vec<u8>,
    /// For how many milliseconds those before it go on. Without it, it counts only where its owner has none.
    pub overlap_ms: Option<i64>,
}

/// A message with what its transport needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Its id, which the node draws.
    pub id: MessageId,
    /// The message, with the sender that the node stamped.
    pub message: Message,
    /// How urgent it is.
    pub priority: Priority,
    /// The sender's key: another message of the same sender with it is the same message, as long as that is kept.
    pub key: Option<String>,
    /// From when on nobody wants it any more.
    pub expires_ms: Option<i64>,
    /// The W3C trace context in which it was sent.
    pub trace: Option<String>,
    /// What its sender signed, where the workspace asks for it.
    pub signature: Option<Signature>,
}

impl Submission {
    /// A message of the usual priority, which never expires.
    pub fn new(id: MessageId, message: Message) -> Submission {
        let priority = Priority::default();
        Submission { id, message, priority, key: None, expires_ms: None, trace: None, signature: None }
    }
}

/// What became of a delivery in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has dealt with it; the text says how, in a few words.
    Done(String),
    /// It failed for this reason, and is tried again unless that was its last attempt.
    Retry(String),
    /// It can never succeed, for this reason: it is a dead letter.
    Dead(String),
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What became of each message, in the order of the command.
    Sent(Vec<Receipt>),
    /// The deliveries that were ready, and are started.
    Started(Vec<u64>),
    /// The delivery has its outcome.
    Settled {
        /// What that is.
        settlement: Settlement,
        /// What became of the messages that its receiver sends.
        receipts: Vec<Receipt>,
    },
    /// The delivery is not under way in this attempt: it was settled before, or another node has it.
    Stale,
    /// What was due is done.
    Ticked {
        /// How many things changed.
        changed: u64,
        /// There is more to do than one command does.
        more: bool,
    },
    /// The deliveries that were tried again or dropped.
    Moved(Vec<u64>),
    /// The subscription stands, at this position.
    Subscribed {
        /// The last position that it has seen.
        position: u64,
    },
    /// Its owner signs with this key now.
    Keyed(KeyId),
    /// The command changed nothing.
    Refused(Reason),
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is done, and gone.
    Done,
    /// It is tried again.
    Retry {
        /// At this time, in milliseconds since 1970.
        at_ms: i64,
    },
    /// It is a dead letter.
    Dead {
        /// Why it is one.
        reason: String,
    },
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id.
    pub id: MessageId,
    /// What became of it.
    pub fate: Fate,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is kept until each receiver has dealt with it.
    Accepted {
        /// The conversation that it belongs to.
        conversation: String,
        /// Its number among the events of that.
        event: u64,
        /// In how many mailboxes it lies.
        deliveries: u32,
        /// Its position among all that was published, where it went to a topic.
        position: Option<u64>,
    },
    /// The sender's key stands for this message already.
    Duplicate(MessageId),
    /// It is not kept, and nothing was changed.
    Refused(Reason),
}

/// Why a message or a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A mailbox has no room. Nothing was dropped: the sender has to wait.
    #[error(
        "the mailbox of {receiver} is full; send it again in {retry_after_ms} ms{}",
        dead_hint(*dead)
    )]
    Full {
        /// Whose mailbox it is.
        receiver: Address,
        /// When there may be room, in milliseconds from now.
        retry_after_ms: u64,
        /// How many of the messages in it are dead letters, which a person has to retry or drop.
        dead: u64,
    },
    /// The conversation's protocol does not allow it now.
    #[error("not understood: {why}")]
    NotUnderstood {
        /// What the protocol allows.
        why: String,
    },
    /// There is too much of something.
    #[error("it has {found} {what}, and {most} is the most{}", limit_hint(what))]
    Limit {
        /// What there is too much of.
        what: String,
        /// How much there is.
        found: u64,
        /// How much there may be.
        most: u64,
    },
    /// A field is absent or has a value that it cannot have.
    #[error("its {field}")]
    Field {
        /// Which one, and what is wrong with it.
        field: String,
    },
    /// There is no such thing.
    #[error("there is none")]
    NotFound,
    /// Agents would wait for each other.
    #[error("{} would wait for each other, each for the next and the last for the first", agents.join(", "))]
    Circle {
        /// Who would, in the order in which each waits for the next.
        agents: Vec<String>,
    },
    /// It had expired before it came.
    #[error("it expired before it was taken in; send it with a later time or none")]
    Expired,
}

/// What there is too much of where a workspace has no room for another mailbox.
pub const MAILBOXES: &str = "mailboxes in the workspace with something in them";

fn limit_hint(what: &str) -> &'static str {
    if what == MAILBOXES {
        "; settle or drop what lies in others, or have the operator raise limits.workspace_mailboxes_max"
    } else {
        ""
    }
}

fn dead_hint(dead: u64) -> String {
    match dead {
        0 => String::new(),
        dead => format!("; {dead} dead letters take up room in it: retry or drop them"),
    }
}

#[cfg(test)]
mod tests;
