//! An error with its causes in one line, as logs and refusals carry it.

pub use caxton_proto::errors::chain;
