//! The raft floor against a real disk: restarts, snapshots, damage, kill -9 and failing fsyncs; and the deploy log's state
//! under random commands and the bytes of old versions.
#![allow(clippy::unwrap_used)]

mod support;

mod restart;

mod snapshots;

mod damage;

mod crash;

mod state;

mod golden;
