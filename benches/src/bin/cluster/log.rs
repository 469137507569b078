//! The replicated log alone: three processes with one group among them, over the connections that nodes have, behind the
//! part of etcd's protocol that puts need. The same client drives them and etcd.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use axum::Router;
use caxton::peers::door::{Caller, Door, Routes};
use caxton::peers::lives::Lineage;
use caxton::peers::{Book, Lives, MESSAGE_BYTES_MAX, Peers, VERSION, line};
use caxton::trust::Credentials;
use caxton::trust::credentials::CertifiedNode;
use caxton_benches::cluster::PATIENCE;
use caxton_benches::etcd::kv_server::KvServer;
use caxton_benches::map::{Front, Map};
use caxton_proto::NodeId;
use caxton_proto::peer::pb::peer_server::{Peer, PeerServer};
use caxton_proto::peer::pb::raft_answer::Outcome;
use caxton_proto::peer::pb::{
    AnnounceReply, AnnounceRequest, Blob, CarryReply, CarryRequest, FetchRequest, HelloReply, HelloRequest, HoldReply,
    HoldRequest, JoinReply, JoinRequest, RaftAnswer, RaftCall, RaftReply, RaftRequest, Verdict, VouchReply,
    VouchRequest,
};
use caxton_raft::{Birth, GroupId, Groups, Store, Timers};
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::etcd::Putter;

const GROUP: GroupId = GroupId(1);
const CLUSTER: Uuid = Uuid::from_u128(0x6361_7874_6f6e);

/// Three processes, which end with this value. The first leads.
pub struct Voters {
    processes: Vec<Child>,
    url: String,
}

impl Drop for Voters {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What one of the processes is told.
#[derive(clap::Args)]
pub struct Serve {
    /// Be one of the three that are measured, by its number from 1.
    #[arg(long, hide = true)]
    pub voter: Option<u64>,
    /// Where the three hear each other.
    #[arg(long, hide = true, value_delimiter = ',')]
    peers: Vec<SocketAddr>,
    /// Where this one takes puts.
    #[arg(long, hide = true)]
    front: Option<SocketAddr>,
}

impl Voters {
    pub async fn start(dir: &Path) -> anyhow::Result<Voters> {
        let free = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
        let (peers, fronts) = ([free()?, free()?, free()?], [free()?, free()?, free()?]);
        let first = dir.join("voter-1");
        // The authority that all three share.
        Credentials::open(first.clone(), CertifiedNode { cluster: CLUSTER, node: NodeId(1) })?;
        let mut voters = Voters { processes: Vec::new(), url: format!("http://{}", fronts[0]) };
        for (number, front) in (1..).zip(&fronts) {
            let own = dir.join(format!("voter-{number}"));
            if number > 1 {
                std::fs::create_dir_all(&own)?;
                for file in ["ca.key", "ca.pem"] {
                    std::fs::copy(first.join(file), own.join(file))?;
                }
            }
            let mut process = Command::new(std::env::current_exe()?);
            process.arg("--dir").arg(own).args(["--voter", &number.to_string(), "--front", front]);
            voters.processes.push(process.args(["--peers", &peers.join(",")]).spawn()?);
        }
        Ok(voters)
    }

    /// Connections to the leader, once it takes puts.
    pub async fn putters(&self, clients: usize) -> anyhow::Result<Vec<Putter>> {
        Putter::connect(&self.url, clients).await
    }
}

/// Is one of the three.
pub async fn serve(dir: &Path, args: Serve) -> anyhow::Result<()> {
    let (Some(number), Some(front)) = (args.voter, args.front) else {
        anyhow::bail!("a voter needs --voter and --front");
    };
    let book = Book::open(dir);
    for (node, address) in (1..).zip(&args.peers) {
        book.note(NodeId(node), &address.to_string());
    }
    let own = NodeId(number);
    let credentials = Credentials::open(dir.to_owned(), CertifiedNode { cluster: CLUSTER, node: own })?;
    let peers = Peers::new(credentials, book, Lives::begin(dir, own)?);
    let groups = Groups::new(Store::open(&dir.join("raft"))?, own, Timers::default(), Arc::new(peers.clone()));
    let service = PeerServer::new(Service { groups: groups.clone(), peers: peers.clone() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let routes = Router::new().route_service("/caxton.peer.v1.Peer/{call}", service);
    let listener = tokio::net::TcpListener::bind(args.peers[number as usize - 1]).await?;
    tokio::spawn(
        Door::new(listener, peers, Routes { peers: routes, strangers: Router::new() })?.run(CancellationToken::new()),
    );
    let birth = if number == 1 { Birth::Founded } else { Birth::Joined };
    let group = groups.open(GROUP, Arc::new(Map::default()), birth).await?;
    if number == 1 {
        group.read_index().await?;
        group.add_learner(NodeId(2)).await?;
        group.add_learner(NodeId(3)).await?;
        let began = Instant::now();
        while let Err(error) = group.set_voters([1, 2, 3].map(NodeId).into()).await {
            ensure!(began.elapsed() < PATIENCE, "the others do not come: {error}");
        }
    }
    Ok(tonic::transport::Server::builder().add_service(KvServer::new(Front(group))).serve(front).await?)
}

/// The part of a node's service that the log needs.
#[derive(Clone)]
struct Service {
    groups: Groups,
    peers: Peers,
}

impl Service {
    async fn heard(&self, caller: &Caller) -> Result<NodeId, Status> {
        caller.node().await.map_err(|why| Status::unauthenticated(why.to_string()))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("not on the peers' port"))
}

fn left_out<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the log alone does without"))
}

#[tonic::async_trait]
impl Peer for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let caller = caller(&request)?;
        // It may say so twice.
        _ = caller.greeted.set(Lineage::of(&request.into_inner().lives));
        let (cluster, node) = (CLUSTER.to_string(), self.peers.credentials().node().0);
        let lives = self.peers.lives().own().lives().to_vec();
        Ok(Response::new(HelloReply { cluster, node, version: VERSION.to_owned(), lives }))
    }

    async fn vouch(&self, _: Request<VouchRequest>) -> Result<Response<VouchReply>, Status> {
        Ok(Response::new(VouchReply { verdict: Verdict::Good.into() }))
    }

    async fn raft(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let from = self.heard(&caller(&request)?).await?;
        let answer = self.groups.answer(from, request.into_inner().message).await;
        let answer = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(RaftReply { answer }))
    }

    type RaftLineStream = Pin<Box<dyn Stream<Item = Result<RaftAnswer, Status>> + Send>>;

    async fn raft_line(&self, request: Request<Streaming<RaftCall>>) -> Result<Response<Self::RaftLineStream>, Status> {
        let caller = caller(&request)?;
        let (service, leaving) = (self.clone(), caller.leaving.clone());
        let answers = line::answers(request.into_inner(), leaving, move |message| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let from = service.heard(&caller).await?;
                let answer = service.groups.answer(from, message).await;
                Ok(answer.map_or_else(|error| Outcome::Unavailable(error.to_string()), Outcome::Answer))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type FetchStream = Pin<Box<dyn Stream<Item = Result<Blob, Status>> + Send>>;

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        left_out()
    }

    async fn hold(&self, _: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        left_out()
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        left_out()
    }

    async fn carry(&self, _: Request<CarryRequest>) -> Result<Response<CarryReply>, Status> {
        left_out()
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        left_out()
    }
}
