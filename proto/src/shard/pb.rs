//! The messages of `caxton.shard.v1` as prost makes them.

#![allow(missing_docs, unused_qualifications, clippy::all, reason = "prost writes it")]

include!(concat!(env!("OUT_DIR"), "/caxton.shard.v1.rs"));
