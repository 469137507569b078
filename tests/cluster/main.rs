//! Nodes that form a cluster: real processes over their public command line and API, and real nodes in this process where
//! a test has to hold a certificate that nobody should have.

mod between;
mod copies;
mod formats;
mod join;
mod life;
mod majority;
mod operate;
mod pods;
mod rotate;
mod secret;
mod shards;
mod shrink;
mod strangers;
mod support;
mod versions;
mod ways_in;

#[path = "../node/bench.rs"]
#[expect(dead_code, reason = "the bench of one node has more than these tests need")]
mod bench;
#[path = "../process/run.rs"]
#[expect(dead_code, reason = "the harness of one process has more than these tests need")]
mod run;
