//! A simulated node: a store, a group and a server for its peers and for clients. It remembers nothing but its disk.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::NodeId;
use caxton_raft::{Birth, Group, GroupId, Groups, Machine, Role, Timers};
use turmoil::net::{TcpListener, TcpStream};

use crate::disk::Platter;
use crate::history::{self, Journal};
use crate::lines::{self, Lines, Peers, name};
use crate::trace::{find, note};

/// The nodes. The first founds the group and brings the others in.
pub const NODES: [u64; 3] = [1, 2, 3];
const GROUP: GroupId = GroupId(1);
const RETRY: Duration = Duration::from_millis(100);

thread_local! {
    /// What each node that runs has applied.
    static JOURNALS: RefCell<BTreeMap<u64, Arc<Journal>>> = RefCell::default();
}

/// What each node has applied.
pub fn logs() -> Vec<(u64, Vec<Bytes>)> {
    JOURNALS.with_borrow(|journals| journals.iter().map(|(node, journal)| (*node, journal.commands())).collect())
}

/// One life of a node.
pub async fn run(node: u64, platter: Arc<Platter>) -> turmoil::Result {
    note(&name(node), "starts");
    let store = platter.open()?;
    let timers = Timers { snapshot_entries: 120, kept_entries: 20, ..Timers::default() };
    let peers = Peers { node: NodeId(node), lines: Lines::default() };
    let groups = Groups::new(store, NodeId(node), timers, Arc::new(peers));
    let listener = TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, lines::PORT)).await?;
    let open = Arc::new(OnceLock::new());
    tokio::spawn(listen(listener, groups.clone(), Arc::clone(&open)));
    let journal = Journal::new(node, &name(node));
    JOURNALS.with_borrow_mut(|journals| journals.insert(node, Arc::clone(&journal)));
    let birth = if node == NODES[0] { Birth::Founded } else { Birth::Joined };
    let group = groups.open(GROUP, journal as Arc<dyn Machine>, birth).await?;
    tokio::spawn(watch(node, group.clone()));
    if node == NODES[0] {
        tokio::spawn(bring_in(group.clone()));
    }
    let _ = open.set(group);
    std::future::pending().await
}

/// Follows what the node is in its group.
async fn watch(node: u64, group: Group) {
    let mut status = group.status();
    loop {
        let now = status.borrow_and_update().clone();
        note(&name(node), &format!("is {:?} in term {}", now.role, now.term));
        match now.role {
            Role::Leader => history::leads(node, now.term),
            Role::Stopped => find(format!("the group of node {node} has stopped: {:?}", now.fatal)),
            Role::Learner | Role::Follower | Role::Candidate => (),
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Makes all nodes voters, whoever leads meanwhile.
async fn bring_in(group: Group) {
    let all: BTreeSet<NodeId> = NODES.map(NodeId).into();
    let mut members = group.members();
    while members.borrow_and_update().voters != all {
        for node in NODES.into_iter().skip(1) {
            // What failed is tried again, and what is done already fails or does no harm.
            let _ = group.add_learner(NodeId(node)).await;
        }
        let _ = group.set_voters(all.clone()).await;
        tokio::time::sleep(RETRY).await;
    }
    note("checker", "all nodes vote");
}

async fn listen(listener: TcpListener, groups: Groups, open: Arc<OnceLock<Group>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, groups.clone(), Arc::clone(&open)));
    }
}

/// Answers what comes over one connection until it breaks.
async fn serve(mut stream: TcpStream, groups: Groups, open: Arc<OnceLock<Group>>) {
    while let Ok((first, rest)) = lines::read(&mut stream).await {
        let (done, answer) = match answer(first, rest, &groups, open.get()).await {
            Ok(answer) => (lines::DONE, answer),
            Err(why) => (lines::REFUSED, why.into()),
        };
        if lines::write(&mut stream, done, &[&answer]).await.is_err() {
            return;
        }
    }
}

async fn answer(first: u8, rest: Bytes, groups: &Groups, group: Option<&Group>) -> Result<Bytes, String> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let group = || group.ok_or_else(|| "this node is about to start".to_owned());
    let bytes = |number: u64| Bytes::copy_from_slice(&number.to_le_bytes());
    match first {
        lines::MESSAGE => {
            let from = NodeId(number(&rest[..8]));
            groups.answer(from, rest.slice(8..)).await.map_err(|error| error.to_string())
        }
        lines::PROPOSE => group()?.propose(rest).await.map(|it| bytes(it.index)).map_err(|error| error.to_string()),
        lines::READ => group()?.read_index().await.map(bytes).map_err(|error| error.to_string()),
        lines::HAND_OVER => {
            let to = NodeId(number(&rest));
            group()?.hand_over(to).await.map(|()| Bytes::new()).map_err(|error| error.to_string())
        }
        _ => Err("an unknown request".to_owned()),
    }
}
