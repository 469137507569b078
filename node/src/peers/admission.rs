//! Letting a process take part as a node: once, in one process at a time, and by all who can be reached.
//!
//! Nothing that a process sends counts before it was let in, neither its votes nor its answers; and nothing of the process
//! that counted before does after it. Two copies of a data directory that start at once are told apart by the first node, in
//! the order of ids, of all that can reach each other: whom it lets in first counts.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::NodeId;
use caxton_proto::peer::pb::{Verdict, VouchRequest};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tracing::{info, warn};

use super::lives::{Lineage, Standing};
use super::refusal::Copied;
use super::{DialError, Peers, dial};
use crate::errors::chain;
use crate::tasks;

/// How long a process may take to say that it is alive. For so long a node that was frozen keeps the next one out.
const ALIVE_TIMEOUT: Duration = Duration::from_millis(800);
/// How long another node may take to vouch: longer than it waits itself.
const VOUCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node that starts waits for somebody to let it in, when somebody is there.
const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(5);

/// A node that starts is not let in by any other.
#[derive(Debug, thiserror::Error)]
pub enum NotIntroduced {
    /// It is a copy.
    #[error(transparent)]
    Copied(#[from] Copied),
    /// Nobody whom it could ask is certified by an authority that it knows.
    #[error(
        "{address} is certified by an authority that this node does not know: the cluster's was rotated, and the overlap ended, while this node was away"
    )]
    Authority {
        /// Where one of them is.
        address: String,
    },
}

impl Peers {
    /// Lets a process take part as `node`, if it may: its data directory is the one that the node had, and the process
    /// before has ended.
    pub async fn admit(&self, node: NodeId, lineage: &Lineage) -> Result<(), Copied> {
        match self.lives().standing(node, lineage) {
            Standing::Counts => return Ok(()),
            Standing::Forked => return Err(Copied::Forked),
            Standing::Later { .. } => {}
        }
        let _turn = self.lives().turn().await;
        self.could_follow(node, lineage).await?;
        let own = self.credentials().node();
        let others: Vec<NodeId> = self.book().all().into_keys().filter(|it| *it != own && *it != node).collect();
        let asked = others.iter().map(|other| self.ask(*other, node, lineage, false));
        let mut order = vec![own];
        for (other, said) in others.iter().zip(join_all(asked).await) {
            match said {
                Some(said) => {
                    said?;
                    order.push(*other);
                }
                None => {
                    info!(peer = %other, of = %node, "a node that starts is let in without this one, which cannot be asked")
                }
            }
        }
        order.sort();
        for member in order {
            if member == own {
                self.follow(node, lineage).await?;
            } else if let Some(said) = self.ask(member, node, lineage, true).await {
                said?;
            }
        }
        Ok(())
    }

    /// Answers another node that asks whether `lineage` may be `node`, and with `follow` says that from now on it is.
    pub async fn vouch(&self, node: NodeId, lineage: &Lineage, follow: bool) -> Result<(), Copied> {
        if follow { self.follow(node, lineage).await } else { self.could_follow(node, lineage).await }
    }

    /// Asks the other nodes to let this one in, before it opens its log. When nobody is there, there is nobody to ask.
    pub async fn introduce(&self) -> Result<(), NotIntroduced> {
        let own = self.credentials().node();
        let others = self.book().all().into_keys().filter(|other| *other != own);
        let mut asked: FuturesUnordered<_> =
            others.map(|other| async move { (other, self.ask(other, own, self.lives().own(), false).await) }).collect();
        let first = async {
            let mut unknown = None;
            while let Some((other, said)) = asked.next().await {
                match said {
                    // It has asked all the others that are there.
                    Some(Ok(())) => return Ok(()),
                    Some(Err(copied @ (Copied::Alive | Copied::Forked))) => return Err(copied.into()),
                    Some(Err(Copied::Unwritten)) => {}
                    None => unknown = unknown.or(self.unknown_authority(other).await),
                }
            }
            unknown.map_or(Ok(()), Err)
        };
        let introduced = tokio::time::timeout(INTRODUCE_TIMEOUT, first).await.unwrap_or(Ok(()));
        if matches!(introduced, Err(NotIntroduced::Copied(_))) {
            self.lives().disown();
        }
        introduced
    }

    /// Whether a node that cannot be asked is certified by an authority that this one does not know.
    async fn unknown_authority(&self, other: NodeId) -> Option<NotIntroduced> {
        let dialed = tokio::time::timeout(ALIVE_TIMEOUT, self.dialer.dial(other)).await.ok()?;
        match dialed.err()? {
            DialError::Authority { address } => Some(NotIntroduced::Authority { address }),
            _ => None,
        }
    }

    async fn could_follow(&self, node: NodeId, lineage: &Lineage) -> Result<(), Copied> {
        match self.lives().standing(node, lineage) {
            Standing::Later { before: Some(before) } if self.is_alive(node, before).await => {
                warn!(%node, "a second process of a node wants to take part, and is refused: the first one is alive");
                Err(Copied::Alive)
            }
            Standing::Counts | Standing::Later { .. } => Ok(()),
            Standing::Forked => {
                warn!(%node, "a process with a copy or an older state of a node's data directory is refused");
                Err(Copied::Forked)
            }
        }
    }

    async fn follow(&self, node: NodeId, lineage: &Lineage) -> Result<(), Copied> {
        let (lives, of) = (self.lives().clone(), lineage.clone());
        let followed = tasks::blocking(move || lives.follow(node, &of)).await;
        match followed {
            Ok(Ok(Standing::Forked)) => Err(Copied::Forked),
            Ok(Ok(Standing::Counts | Standing::Later { .. })) => Ok(()),
            Ok(Err(error)) => {
                warn!(%node, error = chain(&error), "a node is not let in");
                Err(Copied::Unwritten)
            }
            // The runtime is shutting down.
            Err(_) => Err(Copied::Unwritten),
        }
    }

    /// Whether the process of the node's life `life` answers where the node was last.
    async fn is_alive(&self, node: NodeId, life: u64) -> bool {
        let dialed = tokio::time::timeout(ALIVE_TIMEOUT, self.dialer.dial(node)).await;
        matches!(dialed, Ok(Ok(channel)) if channel.lineage.life() == Some(life))
    }

    /// Nothing when the other node cannot be asked.
    async fn ask(&self, other: NodeId, node: NodeId, lineage: &Lineage, follow: bool) -> Option<Result<(), Copied>> {
        let asked = async {
            // It may have come back a moment ago.
            self.heard_from(other);
            let channel = self.link(other).channel(&self.dialer).await.ok()?;
            let request = VouchRequest { node: node.0, lives: lineage.lives().to_vec(), follow };
            let reply = dial::client(channel).vouch(request).await.ok()?.into_inner();
            match reply.verdict() {
                Verdict::Good => Some(Ok(())),
                Verdict::Alive => Some(Err(Copied::Alive)),
                Verdict::Forked => Some(Err(Copied::Forked)),
                Verdict::Unspecified => None,
            }
        };
        tokio::time::timeout(VOUCH_TIMEOUT, asked).await.ok().flatten()
    }

    /// The connection to `node`, if the process at its other end is the one that counts.
    pub(super) async fn counted(&self, node: NodeId) -> Result<dial::Channel, Arc<DialError>> {
        let link = self.link(node);
        let channel = Arc::clone(&link).channel(&self.dialer).await?;
        match self.admit(node, &channel.lineage).await {
            Ok(()) => Ok(channel),
            Err(why) => {
                // The node may have gone on in another process since the connection was made.
                self.drop_link(node, &link);
                Err(Arc::new(DialError::Copied { node, why }))
            }
        }
    }
}
