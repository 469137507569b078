//! The same content on other nodes: a deployment is proposed once a majority of the voters has all that it is made of,
//! and a node that lacks something of what is live fetches it.
//!
//! Content is known by its digest, and what comes from a peer is checked against it like everything else. One way for
//! both: a node goes down the tree of what it is asked to hold, stops where it has the same, and fetches the rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::chunk::ChunkList;
use caxton_proto::peer::pb::{FetchRequest, HoldRequest};
use caxton_proto::tree::{Descent, InvalidNode, Tree};
use caxton_proto::{Digest, NodeId, WorkspaceId};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::artifacts::{Artifacts, GetError, PutError};
use crate::catalog::Catalogs;
use crate::errors::chain;
use crate::peers::Peers;
use crate::tasks::{self, Jobs};

/// How many blobs are asked for at once.
const BATCH_BLOBS: usize = 256;
/// How many blobs may be asked for at once.
pub const FETCH_BLOBS_MAX: usize = 1_024;
/// Blobs are written to the disk when this many bytes have come.
const WRITE_BYTES: usize = 8 << 20;
/// How long a majority may take to have a deployment's content.
const HOLD_TIMEOUT: Duration = Duration::from_secs(25);

/// Content could not be made complete on this node.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// The store failed.
    #[error(transparent)]
    Get(#[from] GetError),
    /// What came could not be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A node of the tree is not one.
    #[error(transparent)]
    Node(#[from] InvalidNode),
    /// A chunk list is not one.
    #[error("{0} is not a list of chunks")]
    List(Digest),
    /// No other node has it, or none can be reached.
    #[error("{missing} of its artifacts are on no node that can be reached, {first} for one")]
    Nowhere {
        missing: usize,
        /// One of them.
        first: Digest,
    },
    /// The work was broken off.
    #[error("the work was broken off")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Too few voters have a deployment's content.
#[derive(Debug, thiserror::Error)]
#[error("{have} of {voters} voters have the content, and {need} are needed")]
pub struct SpreadError {
    /// How many have it.
    pub have: usize,
    /// How many there are.
    pub voters: usize,
    /// How many are needed.
    pub need: usize,
}

/// Brings content to nodes. A clone is a handle on the same.
#[derive(Clone)]
pub struct Replicas {
    artifacts: Artifacts,
    catalogs: Catalogs,
    peers: Peers,
    jobs: Jobs,
}

impl Replicas {
    /// Brings content to and from `artifacts`; what `catalogs` serve is complete.
    pub fn new(artifacts: Artifacts, catalogs: Catalogs, peers: Peers) -> Replicas {
        Replicas { artifacts, catalogs, peers, jobs: Jobs::default() }
    }

    /// Waits until a majority of `voters` has the tree `root` and all that it is made of; this node has it.
    pub async fn spread(
        &self,
        workspace: &WorkspaceId,
        root: Digest,
        voters: &BTreeSet<NodeId>,
    ) -> Result<(), SpreadError> {
        let own = self.peers.credentials().node();
        let need = voters.len() / 2 + 1;
        let mut have = usize::from(voters.contains(&own));
        let (held, mut holders) = mpsc::channel(voters.len().max(1));
        if have < need {
            for node in voters.iter().copied().filter(|node| *node != own) {
                let (peers, held) = (self.peers.clone(), held.clone());
                let request = HoldRequest { workspace: workspace.to_string(), root: root.as_bytes().to_vec().into() };
                // Goes on when a majority is there: the others should have it as well.
                self.jobs.spawn("replicate", async move {
                    let holds = tokio::time::timeout(HOLD_TIMEOUT, hold(&peers, node, request)).await;
                    let holds = holds.unwrap_or_else(|_| Err(format!("it took longer than {HOLD_TIMEOUT:?}")));
                    if let Err(why) = &holds {
                        warn!(peer = %node, why, "a node does not have a deployment's content yet");
                    }
                    // Nobody waits any more when a majority is there.
                    _ = held.send(holds.is_ok()).await;
                });
            }
        }
        drop(held);
        while have < need {
            match holders.recv().await {
                Some(true) => have += 1,
                Some(false) => {}
                None => return Err(SpreadError { have, voters: voters.len(), need }),
            }
        }
        Ok(())
    }

    /// Makes the tree `root` and all that it is made of complete on this node, with what `sources` have; says how many
    /// blobs were fetched.
    pub async fn ensure(&self, workspace: &WorkspaceId, root: Digest, sources: &[NodeId]) -> Result<u64, EnsureError> {
        let own = self.catalogs.get(workspace);
        if own.as_ref().is_some_and(|own| own.root == root) {
            return Ok(0);
        }
        let own = own.map(|own| Arc::clone(&own.tree)).unwrap_or_default();
        let mut fetched = 0;
        let tree = self.tree(workspace, root, &own, sources, &mut fetched).await?;
        let new = tree.files().iter().filter(|(path, file)| own.files().get(*path) != Some(*file));
        let (mut whole, mut lists) = (Vec::new(), Vec::new());
        for (_, file) in new {
            match file.chunks {
                None => whole.push(file.digest),
                Some(list) => lists.push(list),
            }
        }
        whole.extend_from_slice(&lists);
        fetched += self.complete(workspace, whole, sources).await?;
        let mut chunks = Vec::new();
        for (digest, list) in lists.iter().zip(self.read(workspace, lists.clone()).await?) {
            let list = list.ok_or(EnsureError::Nowhere { missing: 1, first: *digest })?;
            let list = ChunkList::decode(&list).map_err(|_| EnsureError::List(*digest))?;
            chunks.extend(list.0.iter().map(|chunk| chunk.digest));
        }
        fetched += self.complete(workspace, chunks, sources).await?;
        if fetched > 0 {
            debug!(%workspace, %root, fetched, "content fetched from peers");
        }
        Ok(fetched)
    }

    /// Makes the tree `root` complete on this node with what any other node has. With nobody else there, what is here has
    /// to do, and what is missing is told by whoever reads it.
    pub async fn fetch_all(&self, workspace: &WorkspaceId, root: Digest) -> Result<u64, EnsureError> {
        let own = self.peers.credentials().node();
        let others: Vec<NodeId> = self.peers.book().all().into_keys().filter(|node| *node != own).collect();
        if others.is_empty() { Ok(0) } else { self.ensure(workspace, root, &others).await }
    }

    async fn tree(
        &self,
        workspace: &WorkspaceId,
        root: Digest,
        own: &Tree,
        sources: &[NodeId],
        fetched: &mut u64,
    ) -> Result<Tree, EnsureError> {
        let mut descent = Descent::new(root, own);
        while !descent.wanted().is_empty() {
            let wanted = descent.wanted().to_vec();
            *fetched += self.complete(workspace, wanted.clone(), sources).await?;
            let nodes = self.read(workspace, wanted).await?;
            let nodes: Vec<Vec<u8>> = nodes.into_iter().map(|node| node.unwrap_or_default().into()).collect();
            descent.supply(&nodes)?;
        }
        Ok(descent.finish())
    }

    /// The blobs that are there, in the order of `digests`.
    async fn read(&self, workspace: &WorkspaceId, digests: Vec<Digest>) -> Result<Vec<Option<Bytes>>, EnsureError> {
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        let read = tasks::blocking(move || {
            digests.iter().map(|digest| artifacts.get(&workspace, digest)).collect::<Result<_, _>>()
        });
        Ok(read.await??)
    }

    /// Fetches those of `digests` that are not here; says how many.
    async fn complete(
        &self,
        workspace: &WorkspaceId,
        digests: Vec<Digest>,
        sources: &[NodeId],
    ) -> Result<u64, EnsureError> {
        if digests.is_empty() {
            return Ok(0);
        }
        let mut missing = self.missing(workspace, digests.clone()).await?;
        let count = missing.len() as u64;
        for source in sources {
            if missing.is_empty() {
                break;
            }
            for batch in missing.chunks(BATCH_BLOBS) {
                if let Err(why) = self.fetch(workspace, batch, *source).await? {
                    debug!(peer = %source, why, "a peer did not send artifacts");
                    break;
                }
            }
            missing = self.missing(workspace, missing).await?;
        }
        match missing.first() {
            None => Ok(count),
            Some(first) => Err(EnsureError::Nowhere { missing: missing.len(), first: *first }),
        }
    }

    async fn missing(&self, workspace: &WorkspaceId, digests: Vec<Digest>) -> Result<Vec<Digest>, EnsureError> {
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        Ok(tasks::blocking(move || artifacts.missing(&workspace, &digests)).await??)
    }

    /// Fetches from one peer. The outer error is this node's, the inner one the peer's.
    async fn fetch(
        &self,
        workspace: &WorkspaceId,
        digests: &[Digest],
        from: NodeId,
    ) -> Result<Result<(), String>, EnsureError> {
        let mut client = match self.peers.client(from).await {
            Ok(client) => client,
            Err(error) => return Ok(Err(chain(&error))),
        };
        let names = digests.iter().map(|digest| digest.as_bytes().to_vec().into()).collect();
        let request = FetchRequest { workspace: workspace.to_string(), digests: names };
        let mut blobs = match client.fetch(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status.message().to_owned())),
        };
        let (mut come, mut bytes) = (Vec::new(), 0);
        let ended = loop {
            match blobs.message().await {
                Ok(None) => break Ok(()),
                Err(status) => break Err(status.message().to_owned()),
                Ok(Some(blob)) => {
                    // What nobody asked for is not stored.
                    let named = Digest::try_from(&blob.digest[..]).ok().filter(|digest| digests.contains(digest));
                    let Some(digest) = named else { break Err("it sent what nobody asked for".to_owned()) };
                    bytes += blob.content.len();
                    come.push((digest, blob.content));
                }
            }
            if bytes >= WRITE_BYTES {
                bytes = 0;
                self.put(workspace, std::mem::take(&mut come)).await?;
            }
        };
        self.put(workspace, come).await?;
        Ok(ended)
    }

    async fn put(&self, workspace: &WorkspaceId, blobs: Vec<(Digest, Bytes)>) -> Result<(), EnsureError> {
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        Ok(tasks::blocking(move || artifacts.put(&workspace, blobs)).await??)
    }
}

async fn hold(peers: &Peers, node: NodeId, request: HoldRequest) -> Result<(), String> {
    let mut client = peers.client(node).await.map_err(|error| chain(&error))?;
    client.hold(request).await.map_err(|status| status.message().to_owned())?;
    Ok(())
}
