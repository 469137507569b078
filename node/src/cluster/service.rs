//! What a node answers to its peers. Every call but two asks who is there: the first, in which a peer says it, and the
//! one by which a stranger asks to join.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use caxton_proto::log::cluster::{AdmitNode, AnnounceNode, Command, Credential, NodeFacts, Outcome};
use caxton_proto::log::{self};
use caxton_proto::peer::can_speak;
use caxton_proto::peer::pb::peer_server::Peer;
use caxton_proto::peer::pb::raft_answer;
use caxton_proto::peer::pb::{
    AnnounceReply, AnnounceRequest, Blob, CarryReply, CarryRequest, Facts, FetchRequest, HelloReply, HelloRequest,
    HoldReply, HoldRequest, JoinReply, JoinRequest, RaftAnswer, RaftCall, RaftReply, RaftRequest, Verdict, VouchReply,
    VouchRequest,
};
use caxton_proto::refusal::Refusal;
use caxton_proto::{Digest, Format, NodeId, WorkspaceId};
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{AnswerError, Groups, ProposeError, ReadError};
use futures::Stream;
use subtle::ConstantTimeEq;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::intake::Intake;
use crate::artifacts::Artifacts;
use crate::errors::chain;
use crate::peers::door::{Caller, NotHeard};
use crate::peers::lives::Lineage;
use crate::peers::refusal::{self, passed_on, refuse};
use crate::peers::{Copied, Peers, SKEW_RULE, VERSION, line};
use crate::replicas::{FETCH_BLOBS_MAX, Replicas};
use crate::tasks::Jobs;
use crate::time::now_ms;
use crate::trust::{JoinToken, key_files};

/// How many blobs are read ahead of a peer.
const FETCH_QUEUE: usize = 16;
/// The bytes of what a node shows to be let in.
const SECRET_BYTES: usize = 32;
/// The longest address, URL or version that a node that wants to join may say, in bytes.
const FACT_BYTES_MAX: usize = 300;
/// How long a node that wants to join is kept waiting for the founder to be a member.
const FOUNDER_PATIENCE: Duration = Duration::from_secs(5);

/// Answers peers. A clone is a handle on the same.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    peers: Peers,
    groups: Groups,
    artifacts: Artifacts,
    replicas: Replicas,
    /// What a node with the cluster's shared secret shows, if the cluster has one.
    credential: Option<[u8; 32]>,
    /// There as soon as the log is open; peers' messages are what it opens with.
    log: OnceLock<DeployLog>,
    /// There once the mailboxes are open.
    intake: OnceLock<Arc<dyn Intake>>,
    jobs: Jobs,
}

/// What a service works with.
pub struct Parts {
    /// The data directory.
    pub dir: PathBuf,
    /// The way to the others.
    pub peers: Peers,
    /// The groups of the log.
    pub groups: Groups,
    /// The stored content.
    pub artifacts: Artifacts,
    /// Brings content here.
    pub replicas: Replicas,
    /// What a node with the cluster's shared secret shows, if the cluster has one.
    pub credential: Option<[u8; 32]>,
}

impl Service {
    /// A service of these parts.
    pub fn new(parts: Parts) -> Service {
        let Parts { dir, peers, groups, artifacts, replicas, credential } = parts;
        Service(Arc::new(Inner {
            dir,
            peers,
            groups,
            artifacts,
            replicas,
            credential,
            log: OnceLock::new(),
            intake: OnceLock::new(),
            jobs: Jobs::default(),
        }))
    }

    /// The log is open.
    pub fn opened(&self, log: DeployLog) {
        // Said once, when the node starts.
        _ = self.0.log.set(log);
    }

    /// The mailboxes are open, and take messages of other workspaces in.
    pub fn takes_in(&self, intake: Arc<dyn Intake>) {
        // Said once, when the node starts.
        _ = self.0.intake.set(intake);
    }

    fn log(&self) -> Result<&DeployLog, Status> {
        self.0.log.get().ok_or_else(|| Status::unavailable("the node is starting"))
    }

    /// The node at the other end, which has said who it is and still belongs to the cluster.
    async fn caller<T: Sync>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let caller = request.extensions().get::<Caller>();
        self.heard(caller.ok_or_else(|| Status::unauthenticated(NotHeard::Stranger.to_string()))?).await
    }

    async fn heard(&self, caller: &Caller) -> Result<NodeId, Status> {
        if let Some(node) = caller.certified {
            self.belongs(node)?;
        }
        let node = caller.node().await.map_err(|why| match why {
            NotHeard::Stranger | NotHeard::Ungreeted => Status::unauthenticated(why.to_string()),
            NotHeard::Copied(copied) => copied.status(),
        })?;
        self.0.peers.note_heard(node);
        Ok(node)
    }

    /// Refuses a node that was removed. One that this node has not heard of yet may have just been let in elsewhere.
    fn belongs(&self, node: NodeId) -> Result<(), Status> {
        let departed = self.0.log.get().is_some_and(|log| log.read(|state| state.cluster().is_departed(node)));
        if departed {
            return Err(refusal::removed());
        }
        Ok(())
    }

    /// Who leads the deploy log, if it is another node.
    fn leader(&self, log: &DeployLog) -> Option<NodeId> {
        let leader = log.status().borrow().leader;
        leader.filter(|leader| *leader != self.0.peers.credentials().node())
    }

    async fn propose(&self, command: Command) -> Result<Outcome, NotApplied> {
        let log = self.log().map_err(NotApplied::Failed)?;
        match log.propose(&log::Command::Cluster(command)).await {
            Ok(answer) => match answer.outcome {
                log::Outcome::Cluster(outcome) => Ok(outcome),
                _ => Err(NotApplied::Failed(Status::internal("the log answered something else"))),
            },
            Err(deploy_log::ProposeError::Group(ProposeError::NotLeader { leader: Some(leader) })) => {
                Err(NotApplied::Elsewhere(leader))
            }
            Err(deploy_log::ProposeError::Invalid(wrong)) => {
                Err(NotApplied::Failed(Status::invalid_argument(wrong.to_string())))
            }
            Err(error) => Err(NotApplied::Failed(Status::unavailable(chain(&error)))),
        }
    }

    async fn announced(&self, facts: NodeFacts, forwarded: bool) -> Result<(), Status> {
        let command = Command::AnnounceNode(AnnounceNode { facts: facts.clone(), time_ms: now_ms() });
        match self.propose(command).await {
            Ok(Outcome::NodeAnnounced) => Ok(()),
            Ok(_) => Err(Status::permission_denied("this node does not belong to the cluster")),
            Err(NotApplied::Elsewhere(leader)) if !forwarded => {
                let request = AnnounceRequest { facts: Some(message(&facts)), forwarded: true };
                let mut client = self.client(leader).await?;
                let announced = client.announce(request).await.map(drop);
                announced.inspect_err(|status| self.0.peers.hear(status)).map_err(passed_on)
            }
            Err(proposed) => Err(proposed.status()),
        }
    }

    async fn client(
        &self,
        node: NodeId,
    ) -> Result<caxton_proto::peer::pb::peer_client::PeerClient<crate::peers::Channel>, Status> {
        self.0.peers.client(node).await.map_err(|error| Status::unavailable(chain(&error)))
    }

    /// Says what this node says of itself, to the leader. Where this node hears of none, it may be because none knows where
    /// this node is: then to whoever it reaches, who passes it on.
    pub async fn announce_self(&self, facts: NodeFacts) -> Result<(), Status> {
        let Err(why) = self.announced(facts.clone(), false).await else { return Ok(()) };
        for node in self.0.peers.book().all().into_keys().filter(|node| *node != facts.node) {
            let request = AnnounceRequest { facts: Some(message(&facts)), forwarded: false };
            if let Ok(mut client) = self.client(node).await
                && client.announce(request).await.inspect_err(|status| self.0.peers.hear(status)).is_ok()
            {
                return Ok(());
            }
        }
        Err(why)
    }

    /// Waits until the founder is a member. Nobody lets it in: it is one as the first who says where it is, and could not be
    /// any more once somebody else is.
    async fn founded(&self) -> Result<(), Status> {
        let log = self.log()?;
        let mut applied = log.applied();
        while log.read(|state| state.cluster().members().len() == 0) {
            applied.changed().await.map_err(|_| Status::unavailable("the node is stopping"))?;
        }
        Ok(())
    }

    /// Lets a node in. Nothing goes into the log for a stranger whom the state, as it is now, would refuse.
    async fn let_in(&self, facts: NodeFacts, request: JoinRequest) -> Result<JoinReply, Status> {
        let credential = if request.token.is_empty() {
            let known = self.0.credential.as_ref().map(|known| known.as_slice().ct_eq(&request.secret));
            if !known.is_some_and(bool::from) {
                let why = "the cluster's secret is another, or it was founded without one";
                return Err(refuse(Code::PermissionDenied, Refusal::Credential, why));
            }
            Credential::Secret
        } else {
            Credential::Token { id: request.token.clone(), hash: Digest::of(&request.secret) }
        };
        let founded = tokio::time::timeout(FOUNDER_PATIENCE, self.founded()).await;
        founded.map_err(|_| Status::unavailable("the cluster's first node has not said yet where it is"))??;
        let join_key = Some(Digest::of(&request.join_key));
        let admit = AdmitNode { facts: facts.clone(), credential, join_key, time_ms: now_ms() };
        let proposed = match self.log()?.current(|state| state.cluster().refusal(&admit)).await {
            Ok(Some(why)) => Ok(Outcome::JoinRefused(why)),
            Ok(None) => self.propose(Command::AdmitNode(admit)).await,
            Err(ReadError::NotLeader { leader: Some(leader) }) => Err(NotApplied::Elsewhere(leader)),
            Err(error) => Err(NotApplied::Failed(Status::unavailable(chain(&error)))),
        };
        match proposed {
            Ok(Outcome::NodeAdmitted) => {
                info!(node = %facts.node, address = facts.peer_address, "a node joins");
                self.welcome()
            }
            Ok(Outcome::JoinRefused(why)) => {
                warn!(node = %facts.node, address = facts.peer_address, %why, "a node may not join");
                Err(refuse(Code::PermissionDenied, Refusal::Credential, why.to_string()))
            }
            Ok(_) => Err(Status::internal("the log answered something else")),
            Err(NotApplied::Elsewhere(leader)) if !request.forwarded => {
                let mut client = self.client(leader).await?;
                let joined = client.join(JoinRequest { forwarded: true, ..request }).await;
                joined.map(Response::into_inner).inspect_err(|status| self.0.peers.hear(status)).map_err(passed_on)
            }
            Err(proposed) => Err(proposed.status()),
        }
    }

    /// What a node gets that was let in.
    fn welcome(&self) -> Result<JoinReply, Status> {
        let keys = key_files::collect(&self.0.dir);
        let keys = keys.map_err(|error| Status::internal(format!("the cluster's keys cannot be read: {error}")))?;
        let members = self.log()?.read(|state| state.cluster().members().map(|it| message(&it.facts)).collect());
        let cluster = self.0.peers.credentials().cluster().to_string();
        let shards = self.log()?.read(|state| state.cluster().shards().get());
        Ok(JoinReply { cluster, members, keys: keys.into_iter().collect(), shards })
    }
}

/// Why a command was not applied.
enum NotApplied {
    /// This node leads the log.
    Elsewhere(NodeId),
    Failed(Status),
}

impl NotApplied {
    fn status(self) -> Status {
        match self {
            NotApplied::Elsewhere(_) => Status::unavailable("the log's leader is changing"),
            NotApplied::Failed(status) => status,
        }
    }
}

fn certified<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let caller = request.extensions().get::<Caller>();
    let node = caller.and_then(|caller| caller.certified);
    node.ok_or_else(|| Status::unauthenticated("a node's certificate is needed"))
}

/// What a node hears that calls with a version too far from this one's. It is read where that node runs.
fn too_far(version: &str) -> Status {
    let why = format!("that one runs version {VERSION}, and this one {version}; {SKEW_RULE}");
    refuse(Code::FailedPrecondition, Refusal::Version, why)
}

/// A node's facts as a message.
pub fn message(facts: &NodeFacts) -> Facts {
    Facts {
        node: facts.node.0,
        peer_address: facts.peer_address.clone(),
        client_url: facts.client_url.clone(),
        version: facts.version.clone(),
        holds: facts.holds.clone(),
        format: facts.format.number(),
    }
}

/// Refuses a request to join that no node of ours sends, before anything is done with it.
fn well_formed(request: &JoinRequest) -> Result<(), Status> {
    let refuse = |what: &str| Err(Status::invalid_argument(format!("{what}; this is no request of a node to join")));
    let JoinRequest { facts, token, secret, forwarded: _, join_key } = request;
    if !token.is_empty() && !JoinToken::is_id(token) {
        return refuse("the token's id is none");
    }
    if secret.len() != SECRET_BYTES {
        return refuse("the secret does not have 32 bytes");
    }
    if join_key.len() != SECRET_BYTES {
        return refuse("the key to ask again by does not have 32 bytes");
    }
    let Some(facts) = facts else { return refuse("it says nothing of the node") };
    let long = [&facts.peer_address, &facts.client_url, &facts.version].into_iter().any(|it| it.len() > FACT_BYTES_MAX);
    if long || !facts.holds.is_empty() {
        return refuse("what it says of the node is too long");
    }
    Ok(())
}

fn facts_of(facts: Option<Facts>) -> Result<NodeFacts, Status> {
    let Facts { node, peer_address, client_url, version, holds, format } =
        facts.ok_or_else(|| Status::invalid_argument("the node says nothing of itself"))?;
    if node == 0 || peer_address.is_empty() {
        return Err(Status::invalid_argument("a node has an id and an address"));
    }
    if !can_speak(VERSION, &version) {
        return Err(too_far(&version));
    }
    Ok(NodeFacts { node: NodeId(node), peer_address, client_url, version, holds, format: Format::of(format) })
}

#[async_trait]
impl Peer for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let node = certified(&request)?;
        let greeted = request.extensions().get::<Caller>().map(|caller| Arc::clone(&caller.greeted));
        let hello = request.into_inner();
        let own = self.0.peers.credentials();
        let cluster = own.cluster().to_string();
        if hello.node != node.0 {
            warn!(certified = %node, claimed = %NodeId(hello.node), "a node claims to be another");
            return Err(Status::permission_denied("the certificate is another node's"));
        }
        if hello.cluster != cluster || hello.to != own.node().0 {
            return Err(Status::permission_denied("another node was meant"));
        }
        if !can_speak(VERSION, &hello.version) {
            warn!(peer = %node, version = hello.version, "a node's version is too far from this one's");
            return Err(too_far(&hello.version));
        }
        self.belongs(node)?;
        if let Some(greeted) = greeted {
            // It may say so twice.
            _ = greeted.set(Lineage::of(&hello.lives));
        }
        self.0.peers.heard_from(node);
        let lives = self.0.peers.lives().own().lives().to_vec();
        Ok(Response::new(HelloReply { cluster, node: own.node().0, version: VERSION.to_owned(), lives }))
    }

    async fn vouch(&self, request: Request<VouchRequest>) -> Result<Response<VouchReply>, Status> {
        let from = certified(&request)?;
        // Who asks need not have been let in: two nodes that start at once vouch for each other.
        self.belongs(from)?;
        let VouchRequest { node, lives, follow } = request.into_inner();
        let (node, lineage) = (NodeId(node), Lineage::of(&lives));
        let peers = &self.0.peers;
        let said =
            if from == node { peers.admit(node, &lineage).await } else { peers.vouch(node, &lineage, follow).await };
        let verdict = match said {
            Ok(()) => Verdict::Good,
            Err(Copied::Alive) => Verdict::Alive,
            Err(Copied::Forked) => Verdict::Forked,
            Err(why @ Copied::Unwritten) => return Err(why.status()),
        };
        Ok(Response::new(VouchReply { verdict: verdict.into() }))
    }

    async fn raft(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let from = self.caller(&request).await?;
        let RaftRequest { message } = request.into_inner();
        match self.0.groups.answer(from, message).await {
            Ok(answer) => Ok(Response::new(RaftReply { answer })),
            // It is being opened, or has no room: the leader tries again after a pause.
            Err(error @ (AnswerError::UnknownGroup { .. } | AnswerError::Full)) => {
                Err(Status::unavailable(error.to_string()))
            }
            Err(error) => Err(Status::failed_precondition(chain(&error))),
        }
    }

    type RaftLineStream = Pin<Box<dyn Stream<Item = Result<RaftAnswer, Status>> + Send>>;

    async fn raft_line(&self, request: Request<Streaming<RaftCall>>) -> Result<Response<Self::RaftLineStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated(NotHeard::Stranger.to_string()))?;
        self.heard(&caller).await?;
        let (service, leaving) = (self.clone(), caller.leaving.clone());
        let answers = line::answers(request.into_inner(), leaving, move |message| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                // The node may have been removed since, or have gone on in another process.
                let from = service.heard(&caller).await?;
                Ok(match service.0.groups.answer(from, message).await {
                    Ok(answer) => raft_answer::Outcome::Answer(answer),
                    Err(error @ (AnswerError::UnknownGroup { .. } | AnswerError::Full)) => {
                        raft_answer::Outcome::Unavailable(error.to_string())
                    }
                    Err(error) => raft_answer::Outcome::Refused(chain(&error)),
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn carry(&self, request: Request<CarryRequest>) -> Result<Response<CarryReply>, Status> {
        self.caller(&request).await?;
        let intake = self.0.intake.get().ok_or_else(|| Status::unavailable("the node is starting"))?;
        let CarryRequest { source, workspace, submission } = request.into_inner();
        let taken = intake.take(workspace_of(&source)?, workspace_of(&workspace)?, &submission).await;
        Ok(Response::new(taken.reply()))
    }

    type FetchStream = Pin<Box<dyn Stream<Item = Result<Blob, Status>> + Send>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.caller(&request).await?;
        let FetchRequest { workspace, digests } = request.into_inner();
        let workspace = workspace_of(&workspace)?;
        if digests.len() > FETCH_BLOBS_MAX {
            return Err(Status::invalid_argument(format!("{FETCH_BLOBS_MAX} blobs are the most at once")));
        }
        let digests: Vec<Digest> = digests.iter().map(|digest| digest_of(digest)).collect::<Result<_, _>>()?;
        let artifacts = self.0.artifacts.clone();
        let (blobs, sent) = tokio::sync::mpsc::channel(FETCH_QUEUE);
        self.0.jobs.spawn_blocking("send-blobs", move || {
            for digest in digests {
                let blob = match artifacts.get(&workspace, &digest) {
                    // Another node may have it, or have it whole.
                    Ok(None) => continue,
                    Err(error) => {
                        warn!(%workspace, %digest, error = chain(&error), "an artifact was not sent to a peer");
                        continue;
                    }
                    Ok(Some(content)) => Blob { digest: digest.as_bytes().to_vec().into(), content },
                };
                if blobs.blocking_send(Ok(blob)).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let from = self.caller(&request).await?;
        let HoldRequest { workspace, root } = request.into_inner();
        let (workspace, root) = (workspace_of(&workspace)?, digest_of(&root)?);
        let fetched = self.0.replicas.ensure(&workspace, root, &[from]).await;
        let fetched = fetched.map_err(|error| Status::unavailable(chain(&error)))?;
        Ok(Response::new(HoldReply { fetched }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        let from = self.caller(&request).await?;
        let AnnounceRequest { facts, forwarded } = request.into_inner();
        let facts = facts_of(facts)?;
        if facts.node != from && !forwarded {
            return Err(Status::permission_denied("a node speaks for itself"));
        }
        self.announced(facts, forwarded).await?;
        Ok(Response::new(AnnounceReply {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        if let Some(caller) = request.extensions().get::<Caller>() {
            caller.asks_to_join();
        }
        // Whoever says that it passes on what another asked has to be a node of the cluster.
        if request.get_ref().forwarded {
            self.caller(&request).await?;
        }
        let mut request = request.into_inner();
        well_formed(&request)?;
        let facts = facts_of(request.facts.take())?;
        let log = self.log()?;
        request.facts = Some(message(&facts));
        // Spares the log a command that it would refuse in the end.
        if let (Some(leader), false) = (self.leader(log), request.forwarded) {
            let mut client = self.client(leader).await?;
            let reply = client.join(JoinRequest { forwarded: true, ..request }).await;
            let reply = reply.inspect_err(|status| self.0.peers.hear(status)).map_err(passed_on)?;
            return Ok(Response::new(reply.into_inner()));
        }
        self.let_in(facts, request).await.map(Response::new)
    }
}

fn workspace_of(name: &str) -> Result<WorkspaceId, Status> {
    name.parse().map_err(|error: caxton_proto::InvalidId| Status::invalid_argument(error.to_string()))
}

fn digest_of(bytes: &[u8]) -> Result<Digest, Status> {
    Digest::try_from(bytes).map_err(|_| Status::invalid_argument("a digest has 32 bytes"))
}
