//! What a person is told of something that is not followed, or not any more.

use crate::app::feeds::FeedError;
use crate::edge::problem::{Code, Problem};

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Problem {
        let detail = error.to_string();
        match error {
            FeedError::None { .. } => Problem::new(Code::NotFound, detail)
                .help("say whether it is one of turns or of messages; `caxton conversations list` shows those of turns"),
            FeedError::Compacted { oldest, .. } => Problem::new(Code::EventsCompacted, detail)
                .with("oldest", oldest)
                .help("read what is kept, and begin without a number"),
            FeedError::Ahead { newest, .. } => Problem::new(Code::InvalidRequest, detail).with("newest", newest).help(
                "the number comes from a conversation that was removed, or this node is behind: begin without one, or try again",
            ),
            FeedError::Stopped => Problem::new(Code::Unavailable, detail)
                .help("connect again, to any node, and go on after the number of the last one seen")
                .retry_after(1),
            FeedError::Owner(_) => {
                Problem::new(Code::InvalidRequest, detail).help("use a token whose subject has no control characters")
            }
            FeedError::Current(error) => error.into(),
            FeedError::Conversations(error) => Problem::internal(&error),
            FeedError::Mailboxes(error) => error.into(),
        }
    }
}
