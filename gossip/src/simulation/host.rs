//! The hosts: members, two strangers who would like to be, and somebody who sends again what others sent.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use caxton_proto::NodeId;
use tokio::sync::watch;

use super::wire::{self, ANY, Manner, PORT, Wire};
use super::{World, Wrong, belief};
use crate::change::between;
use crate::generation::Generation;
use crate::gossip::{Gossip, Settings};
use crate::member::{Fact, Members};
use crate::seal::{Ciphers, Key, Keys};
use crate::seed::{draw, once_in};
use crate::trace::note;

pub const MEMBERS: [u64; 4] = [1, 2, 3, 4];
/// Knows everything of the cluster but its key.
pub const OTHER_KEY: u64 = 8;
/// The same, and it seals nothing.
pub const UNSEALED: u64 = 9;
/// Hears everything, and has no key either.
pub const EAVESDROPPER: u64 = 10;

const CLUSTER: &str = "simulated";
/// The node's own default.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often a host says something new.
const WORD_EVERY: Duration = Duration::from_millis(900);
/// Of the datagrams of one member, so many are news to those who have not heard it for a moment.
const LATELY: u64 = 40;

/// A host's name on the network.
pub fn name(node: u64) -> String {
    format!("node-{node}")
}

impl World {
    fn address(&self, node: u64) -> SocketAddr {
        (self.addresses[&node], PORT).into()
    }
}

/// One life of a host that gossips.
pub async fn run(node: u64, world: Rc<World>) -> turmoil::Result {
    let generation = generation(node, &world)?;
    belief::starts(node, generation);
    note(&name(node), &format!("starts as {}", generation.0));
    let keys = Keys { seal: Key([if MEMBERS.contains(&node) { 7 } else { 8 }; 32]), also_open: Vec::new() };
    let ciphers = Ciphers::new(&keys, CLUSTER)?;
    let manner = match node {
        UNSEALED => Manner::Bare(ciphers),
        OTHER_KEY => Manner::Sealed,
        _ if world.wrong == Wrong::Unsealed => Manner::Gullible(ciphers),
        _ => Manner::Sealed,
    };
    let seeds = MEMBERS.into_iter().filter(|other| *other != node).map(|other| world.address(other).to_string());
    let settings = Settings {
        node: NodeId(node),
        generation,
        cluster: CLUSTER.into(),
        keys,
        listen: ANY,
        advertise: world.address(node),
        seeds: seeds.collect(),
        interval: INTERVAL,
        forget_after: Duration::from_secs(600),
    };
    let others = MEMBERS.into_iter().filter(|other| MEMBERS.contains(&node) && *other != node);
    let wire = Wire { manner, others: others.map(|it| world.address(it)).collect(), coder: world.coder.clone() };
    let lives = watch::Sender::default().subscribe();
    talk(node, generation, Gossip::join_over(wire, settings, &[], lives).await?).await
}

fn generation(node: u64, world: &World) -> turmoil::Result<Generation> {
    if world.wrong == Wrong::OneGeneration {
        return Ok(Generation(1));
    }
    let now = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
    // The clock of a machine that starts may be off by a minute.
    let clock = 1_700_000_000_000 + now + draw(0, 120_000);
    Ok(Generation::next(&world.folder.join(name(node)), clock)?)
}

/// Says a word now and then, and takes down what the host sees.
async fn talk(node: u64, generation: Generation, gossip: Gossip) -> turmoil::Result {
    let mut members = gossip.members();
    let mut before = Members::new();
    let mut word = tokio::time::interval(WORD_EVERY);
    loop {
        tokio::select! {
            biased;
            changed = members.changed() => changed?,
            _ = word.tick() => {
                let word = belief::says(node, generation);
                gossip.announce(&Fact::Load, &word).await;
                continue;
            }
        }
        let now = members.borrow_and_update().clone();
        for change in between(&before, &now) {
            belief::sees(node, &change);
        }
        belief::believes(node, &now);
        before = now;
    }
}

/// Sends members what other members sent, changed or not, and noise.
pub async fn eavesdrop(world: Rc<World>) -> turmoil::Result {
    let socket = turmoil::net::UdpSocket::bind(ANY).await?;
    let mut answer = vec![0; 1 << 16];
    loop {
        tokio::time::sleep(Duration::from_millis(draw(5, 100))).await;
        let noise = || (0..draw(1, 400)).map(|_| draw(0, 256) as u8).collect::<Vec<_>>();
        let of = world.address(MEMBERS[draw(0, 4) as usize]);
        let mut datagram = wire::arrived_from(of, |sent| {
            let (count, lately) = (sent.len() as u64, LATELY.min(sent.len() as u64));
            let at = if once_in(2) { count - lately } else { 0 };
            sent[draw(at, count) as usize].clone()
        });
        match (&mut datagram, draw(0, 6)) {
            (Some(datagram), 0) => {
                let at = draw(0, datagram.len() as u64) as usize;
                datagram[at] ^= 1 << draw(0, 8);
            }
            (Some(_), 1) | (None, _) => datagram = Some(noise()),
            (Some(_), _) => (),
        }
        let to = world.address(MEMBERS[draw(0, 4) as usize]);
        socket.send_to(&datagram.unwrap_or_default(), to).await?;
        // Members answer what they take for a member's; it can read none of it.
        while socket.try_recv_from(&mut answer).is_ok() {}
    }
}
