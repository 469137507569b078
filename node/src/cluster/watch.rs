//! What a node does because of what the log says of the nodes: it keeps the book of their addresses, says where it is
//! itself when the log has it elsewhere, and stops when it was removed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use caxton_proto::NodeId;
use caxton_proto::log::cluster::{NodeFacts, Retirement};
use caxton_raft::Role;
use caxton_raft::deploy_log::DeployLog;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::service::Service;
use super::{Departure, format};
use crate::files::audit;
use crate::peers::{Copied, Peers};
use crate::tasks;
use crate::time::{now_ms, rfc3339};

/// The pause after an announcement that nobody took.
const RETRY: Duration = Duration::from_millis(500);

/// How often a node that is being taken out asks whether it is out: whoever leads the log next need not bring it that.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long a node that was taken out answers on, unless somebody was told: whoever asked for it asks again within that.
const LINGER: Duration = Duration::from_secs(3);

/// This node was removed from the cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "this node was removed from the cluster; a node that was removed comes back as a new one, with an empty data directory"
)]
pub struct Removed;

/// Why a node stops by itself.
#[derive(Debug, thiserror::Error)]
pub enum Dismissal {
    /// It was removed.
    #[error(transparent)]
    Removed(#[from] Removed),
    /// It is not the process that counts.
    #[error("{0}; {COPY_HELP}")]
    Copied(Copied),
}

/// What to do when two processes have one identity.
pub const COPY_HELP: &str = "the other one goes on as the node: never start this data directory again. For one node more, start with an empty data directory and a join token; if the wrong copy goes on, stop that one, take the node out with `caxton cluster remove`, and join with an empty data directory";

/// Follows what the log says of the nodes.
pub struct Watch {
    pub log: DeployLog,
    /// The way to the others.
    pub peers: Peers,
    /// Says to the leader where this node is.
    pub service: Service,
    /// What this node says of itself.
    pub own: NodeFacts,
    /// The rotated keys that it has, which it says too.
    pub holds: watch::Receiver<Vec<u64>>,
    /// Told when this node was taken out as somebody asked, and so ends well.
    pub departure: Departure,
    /// The data directory, which no node starts on again then.
    pub dir: PathBuf,
}

impl Watch {
    /// Follows the log until it is stopped, or until a node says that this process is a copy of it, or that this node was
    /// removed while it was away. When it was taken out before its eyes, it says so to `departure`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Dismissal> {
        let (mut applied, mut removed) = (self.log.applied(), self.peers.removed());
        let (mut copied, mut holds) = (self.peers.copied(), self.holds.clone());
        // Who asked for this node to be taken out, once somebody has.
        let (mut known, mut retires) = (BTreeMap::new(), None::<String>);
        let (mut status, mut announcements) = (self.log.status(), format::Announcements::default());
        // It goes on while the log does: what it says is among what the log then says.
        let mut announcing: Option<BoxFuture<'static, bool>> = None;
        loop {
            applied.borrow_and_update();
            let (term, leads) = {
                let status = status.borrow_and_update();
                (status.term, status.role == Role::Leader)
            };
            self.own.holds.clone_from(&holds.borrow_and_update());
            let (rows, departed, said, retiring, raisable) = self.log.read(|state| {
                let cluster = state.cluster();
                let own = |it: &&Retirement| it.node == self.own.node;
                let retiring = cluster.retirement().filter(own).map(|it| it.actor.clone());
                let others = cluster
                    .members()
                    .map(|member| &member.facts)
                    .filter(|facts| facts.node != self.own.node && !facts.peer_address.is_empty());
                let rows: BTreeMap<NodeId, String> =
                    others.map(|facts| (facts.node, facts.peer_address.clone())).collect();
                let member = cluster.member(self.own.node);
                let said = member
                    .is_some_and(|member| announcements.suffice(&member.facts, &self.own, cluster.format(), term));
                let raisable = if leads { cluster.raisable() } else { None };
                // A node that was let in and has read nothing yet has others in its book.
                let known = (cluster.members().len() > 0).then_some(rows);
                (known, cluster.is_departed(self.own.node), said, retiring, raisable)
            });
            if retiring.is_some() && retires.is_none() {
                info!("this node is being taken out of the cluster; it ends when no group counts it any more");
            }
            retires = retiring.or(retires);
            if departed {
                return self.dismissed(retires, stop).await;
            }
            if let Some(rows) = rows.filter(|rows| *rows != known) {
                self.note(&known, &rows).await;
                known = rows;
            }
            if !said && announcing.is_none() {
                announcing = Some(Box::pin(announce(self.service.clone(), self.own.clone())));
            }
            let announced = async {
                match &mut announcing {
                    Some(announcing) => announcing.await,
                    None => std::future::pending().await,
                }
            };
            let raise = async {
                let Some((format, members)) = raisable else { return std::future::pending().await };
                format::raise(&self.log, format, members).await;
                tokio::time::sleep(RETRY).await;
            };
            let ask = async {
                tokio::time::sleep(ASK_EVERY).await;
                // Whoever does not count this node any more refuses to answer it, and that is heard.
                for node in self.peers.book().all().into_keys().filter(|node| *node != self.own.node) {
                    _ = self.log.group().answers(node).await;
                }
            };
            let was_removed = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = ask, if retires.is_some() => false,
                told = removed.wait_for(|removed| *removed) => told.is_ok(),
                told = copied.wait_for(Option::is_some) => {
                    let Some(why) = told.ok().and_then(|told| *told) else { return Ok(()) };
                    self.peers.lives().disown();
                    return Err(Dismissal::Copied(why));
                }
                changed = applied.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Ok(()),
                },
                // Its other end lives as long as the node.
                Ok(()) = holds.changed() => false,
                changed = status.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Ok(()),
                },
                taken = announced => {
                    if taken {
                        announcements.made(term);
                    }
                    announcing = None;
                    false
                }
                () = raise => false,
            };
            if was_removed {
                return self.dismissed(retires, stop).await;
            }
        }
    }

    /// The node does not belong to the cluster any more.
    async fn dismissed(&self, retires: Option<String>, stop: CancellationToken) -> Result<(), Dismissal> {
        let Some(actor) = retires else { return Err(Removed.into()) };
        let time = rfc3339(now_ms());
        let (cluster, node) = (self.peers.credentials().cluster().to_string(), self.own.node.to_string());
        let detail = "no group of the cluster counted it any more".to_owned();
        let what = audit::LEFT.to_owned();
        let entry = audit::Entry { time, what, actor, cluster_before: cluster.clone(), cluster, node, detail };
        let dir = self.dir.clone();
        let written = tasks::blocking(move || audit::append(&dir, &entry))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if let Err(error) = written {
            // The others know it, and refuse the node if it starts again.
            warn!(%error, "that this node has left could not be written into its data directory");
        }
        self.departure.out.cancel();
        // Who asked for it may be between two requests, and would find nobody.
        let told = stop.run_until_cancelled(self.departure.told.cancelled());
        _ = tokio::time::timeout(LINGER, told).await;
        self.departure.left.cancel();
        stop.cancelled().await;
        Ok(())
    }

    async fn note(&self, before: &BTreeMap<NodeId, String>, rows: &BTreeMap<NodeId, String>) {
        for gone in before.keys().filter(|node| !rows.contains_key(node)) {
            self.peers.forget(*gone);
        }
        let (book, all) = (self.peers.book().clone(), rows.clone());
        // A failure to write is told where it happens.
        _ = tasks::blocking(move || book.replace(all)).await;
        for node in rows.keys() {
            self.peers.heard_from(*node);
        }
    }
}

/// Says where this node is; true when the log has it. Followed by a pause.
async fn announce(service: Service, own: NodeFacts) -> bool {
    let address = own.peer_address.clone();
    let taken = match service.announce_self(own).await {
        Ok(()) => {
            info!(address, "announced");
            true
        }
        Err(status) => {
            debug!(why = status.message(), "nobody took the announcement yet");
            false
        }
    };
    tokio::time::sleep(RETRY).await;
    taken
}
