//! What the log says of conversations. How it is written is in `caxton_proto::shard`.
//!
//! What a turn writes carries the term under which it runs, and counts for nothing in another one: a node that lost the
//! shard's lead, and even one that got it back, records nothing of a turn that the next leader took up.

pub use caxton_proto::shard::{
    Abandon, Command, DecodeError, DocumentKind, EncodeError, Forget, Keep, Piece, Suspension, TurnRecord, Written,
};
