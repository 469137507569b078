//! What went wrong with messages between agents, as a problem.

use caxton_messages::mailbox::Reason;

use crate::app::mailboxes::{MailboxesError, SignatureError};
use crate::edge::problem::{Code, Problem};
use crate::mailbox::MailboxError;

impl From<MailboxError> for Problem {
    fn from(error: MailboxError) -> Problem {
        let detail = error.to_string();
        match error {
            MailboxError::Propose(source) => {
                tracing::error!(reason = %crate::llm::reasons(&source), "a message could not be recorded");
                Problem::new(Code::Unavailable, detail)
                    .help("send it again with the same key: nothing is taken in twice")
                    .retry_after(1)
            }
            MailboxError::TooLong { .. } => {
                Problem::new(Code::BodyTooLarge, detail).help("upload large content as an artifact and send its digest")
            }
            MailboxError::Deleted => Problem::new(Code::NotFound, detail)
                .help("deploy it again; what it had before has to be gone by then, which takes a moment"),
            MailboxError::OlderMembers => {
                Problem::new(Code::Unavailable, detail).help("`caxton cluster status` shows the version of each node")
            }
            MailboxError::Unsettled => {
                Problem::new(Code::Unavailable, detail).help("nothing was sent: try again in a moment").retry_after(1)
            }
            MailboxError::Signing { .. } => Problem::new(Code::Unavailable, detail)
                .help("`caxton messages keys list` shows the keys; the node needs the data key that sealed them")
                .retry_after(5),
            MailboxError::OwnKey { .. } => Problem::new(Code::InvalidRequest, detail)
                .help("sign it: `caxton messages send --sign-with KEYFILE`, or docs/messages.md#signatures"),
            error @ (MailboxError::Read(_)
            | MailboxError::Refused(_)
            | MailboxError::Unreadable(_)
            | MailboxError::Outcome(_)) => Problem::internal(&error),
        }
    }
}

impl From<MailboxesError> for Problem {
    fn from(error: MailboxesError) -> Problem {
        let detail = error.to_string();
        match error {
            MailboxesError::Mailbox(error) => error.into(),
            MailboxesError::Invoke(error) => error.into(),
            MailboxesError::Current(error) => error.into(),
            MailboxesError::Refused(reason) => refused(&reason, detail),
            MailboxesError::Sender(_) => {
                Problem::new(Code::InvalidRequest, detail).help("use a token whose subject has no control characters")
            }
            MailboxesError::Nobody { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton agents` shows what the agents offer")
            }
            MailboxesError::NoDelivery { .. } => Problem::new(Code::NotFound, detail)
                .help("`caxton messages list` shows what there is; what is under way cannot be changed"),
            MailboxesError::NoConversation { .. } => Problem::new(Code::NotFound, detail)
                .help("`caxton messages tail --from 0` shows which there are; one that is over is kept for seven days"),
            MailboxesError::NoSubscription { .. } => Problem::new(Code::NotFound, detail)
                .help("`caxton messages topics --subscriptions` shows those there are"),
            MailboxesError::Signature(SignatureError::NoMessage { .. }) => {
                Problem::new(Code::NotFound, detail).help("`caxton messages list` shows what is kept")
            }
            MailboxesError::Signature(_) => Problem::new(Code::InvalidRequest, detail)
                .help("docs/messages.md#signatures shows what is signed; `caxton messages keys list` shows the keys"),
            MailboxesError::Denied(denied) => denied.into(),
            MailboxesError::Stale => {
                Problem::new(Code::Unavailable, detail).help("send it again in a moment").retry_after(1)
            }
        }
    }
}

fn refused(reason: &Reason, detail: String) -> Problem {
    match reason {
        Reason::Full { retry_after_ms, .. } => Problem::new(Code::TooManyRequests, detail)
            .help("nothing was dropped: send it again later")
            .retry_after(u32::try_from(retry_after_ms.div_ceil(1_000)).unwrap_or(u32::MAX)),
        Reason::Circle { .. } => {
            Problem::new(Code::Conflict, detail).help("one of them has to go on without an answer")
        }
        Reason::NotUnderstood { .. } => {
            Problem::new(Code::Conflict, detail).help("docs/messages.md shows what each protocol allows")
        }
        Reason::Limit { .. } | Reason::Field { .. } | Reason::Expired => {
            Problem::new(Code::InvalidRequest, detail).help("docs/messages.md says what a message may have")
        }
        Reason::NotFound => Problem::new(Code::NotFound, detail).help("list the mailbox to see what there is"),
    }
}
