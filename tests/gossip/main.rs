//! The gossip floor over real datagrams, in a crowd: what a simulation leaves out is the bytes that a view of many takes.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use caxton_gossip::{Fact, Generation, Gossip, Key, Keys, Members, Settings};
use caxton_proto::NodeId;

const PATIENCE: Duration = Duration::from_secs(90);
/// How many members come and die, and how many at a time.
const DEAD: u64 = 500;
const AT_ONCE: u64 = 50;

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

async fn join(node: u64, at: SocketAddr, seed: SocketAddr) -> Gossip {
    let settings = Settings {
        node: NodeId(node),
        generation: Generation(1),
        cluster: "crowd".into(),
        keys: Keys { seal: Key([7; 32]), also_open: Vec::new() },
        listen: at,
        advertise: at,
        seeds: vec![seed.to_string()],
        interval: Duration::from_millis(100),
        forget_after: Duration::from_secs(600),
    };
    let facts = [(Fact::PeerAddress, at.to_string())];
    Gossip::join(settings, &facts).await.expect("joined")
}

async fn until(gossip: &Gossip, what: &str, is: impl Fn(&Members) -> bool) {
    let mut members = gossip.members();
    let seen = tokio::time::timeout(PATIENCE, members.wait_for(|members| is(members))).await;
    assert!(seen.is_ok(), "{what}: {:?}", gossip.members().borrow().keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_dead_members_do_not_hide_the_living() {
    let (a, b, c) = (free_port(), free_port(), free_port());
    let one = join(1, a, b).await;
    let two = join(2, b, a).await;
    until(&one, "two is seen", |members| members.contains_key(&NodeId(2))).await;

    for first in (0..DEAD).step_by(AT_ONCE as usize) {
        let ids: Vec<u64> = (first..first + AT_ONCE).map(|number| 1_000 + number).collect();
        let mut crowd = Vec::new();
        for id in &ids {
            crowd.push(join(*id, free_port(), a).await);
        }
        until(&one, "the crowd is seen", |members| ids.iter().all(|id| members.contains_key(&NodeId(*id)))).await;
        // They fall silent without a word.
    }

    // Whoever comes now gets a view of five hundred that are dead, and has to find the two that are not.
    let three = join(3, c, a).await;
    for (gossip, other) in [(&three, 1), (&three, 2), (&one, 3), (&two, 3)] {
        until(gossip, "the living see each other", |members| members.contains_key(&NodeId(other))).await;
    }
    three.announce(&Fact::Load, "0.5").await;
    until(&two, "a word travels", |members| {
        members.get(&NodeId(3)).is_some_and(|three| three.fact(&Fact::Load) == Some("0.5"))
    })
    .await;
    until(&one, "the dead are gone", |members| members.len() == 3).await;
}
