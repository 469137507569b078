//! What a node measures of the mailboxes in a shard that it leads: how full they are, how long messages wait, and dead letters.
//!
//! Workspaces are told apart as long as there are few: beyond that they are one.

use std::collections::BTreeMap;
use std::time::Duration;

use caxton_messages::{DEAD_KINDS, Depth, depths};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::ShardMailboxes;
use crate::errors::chain;
use crate::telemetry::labels;

/// How often the mailboxes are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// How long it is waited for to lead the shard before nothing is measured.
const LEAD_WAIT: Duration = Duration::from_millis(100);

/// Gauges by what they say of which workspaces.
type Gauges = BTreeMap<(&'static str, String, &'static str), f64>;

impl ShardMailboxes {
    /// Measures the mailboxes as long as this node leads their shard, until it is stopped.
    pub async fn measure(self, stop: CancellationToken) {
        let mut shown = Gauges::new();
        loop {
            let mut now = Gauges::new();
            if self.shard().lead(LEAD_WAIT).await.is_ok() {
                let now_ms = i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX);
                match self.read(move |rows| depths(rows, now_ms)).await {
                    Ok(found) => now = gauges(&found),
                    Err(error) => debug!(reason = %chain(&error), "mailboxes were not measured"),
                }
            }
            let shard = self.shard().id().0.to_string();
            // What is there no more is shown as nothing, and not as it was last.
            for key in shown.keys().filter(|key| !now.contains_key(*key)) {
                show(key, &shard, 0.0);
            }
            now.iter().for_each(|(key, value)| show(key, &shard, *value));
            shown = now;
            if stop.run_until_cancelled(tokio::time::sleep(MEASURE_EVERY)).await.is_none() {
                return;
            }
        }
    }
}

fn gauges(found: &[Depth]) -> Gauges {
    let mut gauges = Gauges::new();
    for of in found {
        let workspace = labels::bounded("mailbox_workspace", &of.workspace);
        let mut add = |name, kind, value: f64| *gauges.entry((name, workspace.clone(), kind)).or_default() += value;
        add("caxton_mailbox_messages", "", of.waiting as f64);
        add("caxton_mailbox_bytes", "", of.bytes as f64);
        for (kind, dead) in DEAD_KINDS.into_iter().zip(of.dead) {
            add("caxton_mailbox_dead_letters", kind, dead as f64);
        }
        // Of several workspaces, the one that waits longest.
        let oldest = gauges.entry(("caxton_mailbox_oldest_seconds", workspace.clone(), "")).or_default();
        *oldest = oldest.max(of.oldest_ms as f64 / 1e3);
    }
    gauges
}

fn show((name, workspace, kind): &(&'static str, String, &'static str), shard: &str, value: f64) {
    let (workspace, shard) = (workspace.clone(), shard.to_owned());
    match *kind {
        "" => metrics::gauge!(*name, "workspace" => workspace, "shard" => shard).set(value),
        kind => metrics::gauge!(*name, "workspace" => workspace, "shard" => shard, "reason" => kind).set(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_beyond_the_most_are_taken_together() {
        let depth = |at: usize| Depth {
            workspace: format!("w{at}"),
            waiting: 2,
            bytes: 10,
            oldest_ms: at as u64 * 1_000,
            dead: [1, 0, 2],
        };
        let most = labels::VALUES_MAX;
        let gauges = gauges(&(0..most + 3).map(depth).collect::<Vec<_>>());
        let of = |name, workspace: &str, kind| gauges.get(&(name, workspace.to_owned(), kind)).copied();
        assert_eq!(of("caxton_mailbox_messages", "w0", ""), Some(2.0));
        assert_eq!(of("caxton_mailbox_messages", labels::OTHER, ""), Some(6.0));
        assert_eq!(of("caxton_mailbox_dead_letters", labels::OTHER, "refused"), Some(6.0));
        assert_eq!(of("caxton_mailbox_oldest_seconds", labels::OTHER, ""), Some(most as f64 + 2.0));
        assert_eq!(gauges.keys().filter(|(name, ..)| *name == "caxton_mailbox_messages").count(), most + 1);
    }
}
