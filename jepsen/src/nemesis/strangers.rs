//! A stranger at every node's port for nodes, who has no certificate and no manners: connections without a byte, half a
//! handshake, bytes that are nothing, HTTP. More of them than a node may keep open, for as long as it is there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::Cluster;

/// How many connections it keeps open to one node.
const CONNECTIONS: usize = 1_300;
/// How long a connection may take to be made.
const CONNECT_WAIT: Duration = Duration::from_millis(200);
/// The pause after a round in which all that can be open is.
const PAUSE: Duration = Duration::from_millis(20);
/// How a TLS handshake begins: a record of 512 bytes, of which no more comes.
const HALF_A_HELLO: [u8; 9] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc];

/// The stranger, until it is dropped.
pub struct Strangers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Strangers {
    /// One at every member's port, which comes from a neighbour's address.
    pub fn come(cluster: &Arc<Cluster>, seed: u64) -> Strangers {
        let stop = Arc::new(AtomicBool::new(false));
        let members = cluster.members();
        let threads = members.iter().enumerate().map(|(place, index)| {
            let (cluster, stop) = (Arc::clone(cluster), Arc::clone(&stop));
            let (to, from) = (*index, members[(place + 1) % members.len()]);
            let random = fastrand::Rng::with_seed(seed ^ to as u64);
            std::thread::spawn(move || pester(&cluster, from, to, random, &stop))
        });
        Strangers { threads: threads.collect(), stop }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has nothing to clean up.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Keeps connections to one node open, and makes those anew that it closes.
fn pester(cluster: &Cluster, from: usize, to: usize, mut random: fastrand::Rng, stop: &AtomicBool) {
    let Ok(address) = cluster.host(to).peer_address().parse() else { return };
    // The namespace may be gone already when the run ends.
    let _ = cluster.host(from).inside(|| {
        let mut open: Vec<TcpStream> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            open.retain(is_open);
            while open.len() < CONNECTIONS && !stop.load(Ordering::Relaxed) {
                // Nobody listens while the node is down.
                let Ok(stream) = TcpStream::connect_timeout(&address, CONNECT_WAIT) else { break };
                open.extend(begin(stream, &mut random));
            }
            std::thread::sleep(PAUSE);
        }
    });
}

/// What it says first, if it says anything.
fn begin(mut stream: TcpStream, random: &mut fastrand::Rng) -> Option<TcpStream> {
    stream.set_nonblocking(true).ok()?;
    let said = match random.u8(0..4) {
        0 => Ok(()),
        1 => stream.write_all(&HALF_A_HELLO),
        2 => stream.write_all(b"POST /caxton.peer.v1.Peer/Join HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n"),
        _ => {
            let bytes: Vec<u8> = (0..random.usize(1..2_000)).map(|_| random.u8(..)).collect();
            stream.write_all(&bytes)
        }
    };
    said.ok().map(|()| stream)
}

/// Whether the node has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    let mut piece = [0; 512];
    match (&*stream).read(&mut piece) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
