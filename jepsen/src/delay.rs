//! Holds the packets that come to a host for a while, as a long line would, and keeps copies of what nodes gossip.
//!
//! The kernel hands each packet to this process (NFQUEUE), which gives it back when its time has come: `tc netem`
//! does the same and is not in every kernel. Packets that wait different times overtake each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nfq::{Message, Queue, Verdict};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lock;
use crate::net::{Host, Hosts, run};

/// How many packets can wait at a host.
const WAITING_MAX: u32 = 20_000;
/// How many datagrams are kept.
const KEPT_MAX: usize = 2_000;
/// How often it is looked for packets whose time has come.
const TICK: Duration = Duration::from_millis(1);
/// The number of the queue in a namespace.
const QUEUE: u16 = 7;
const UDP: u8 = 17;

/// Datagrams that nodes sent to each other.
pub type Kept = Arc<Mutex<Vec<Vec<u8>>>>;

/// What is done to the packets that come to a host, until it is dropped.
pub struct Delay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long packets wait.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// At least.
    pub least: Duration,
    /// At most.
    pub most: Duration,
}

impl Delay {
    /// Begins at `host`. Copies of datagrams go to `kept`.
    pub fn start(host: &Host, wait: Wait, kept: Option<Kept>) -> Result<Delay> {
        let Some((_, space)) = &host.space else { bail!("plain loopback cannot be delayed") };
        let space = space.try_clone().context("the namespace")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, open) = mpsc::channel();
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let queue = move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), Some(LinkNameSpaceType::Network))
                .map_err(std::io::Error::from)
                .and_then(|()| queue());
            match queue {
                Ok(queue) => {
                    let _ = opened.send(Ok(()));
                    hold(queue, wait, kept.as_ref(), &ends);
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        let delay = Delay { stop, thread: Some(thread) };
        open.recv().context("the thread in the namespace ended")?.context("cannot open a queue of packets")?;
        // When nobody takes packets out of the queue any more, they pass.
        let rule = ["-A", "INPUT", "-i", "eth0", "-j", "NFQUEUE", "--queue-bypass", "--queue-num"];
        run(host.command("iptables").arg("-w").args(rule).arg(QUEUE.to_string()))?;
        Ok(delay)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why packets cannot be delayed here, if they cannot.
pub fn cannot() -> Option<String> {
    let tried = Hosts::new(1, true).and_then(|hosts| {
        let wait = Wait { least: Duration::ZERO, most: Duration::ZERO };
        Delay::start(&hosts.hosts[0], wait, None).map(drop)
    });
    tried.err().map(|error| format!("this kernel has no queue of packets: {error:#}"))
}

fn queue() -> std::io::Result<Queue> {
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// Gives every packet back when its time has come, and all that is left at the end.
fn hold(mut queue: Queue, wait: Wait, kept: Option<&Kept>, stop: &AtomicBool) {
    let mut random = fastrand::Rng::new();
    let mut held: BTreeMap<(Instant, u64), Message> = BTreeMap::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        while let Ok(message) = queue.recv() {
            if let Some((kept, datagram)) = kept.zip(datagram(message.get_payload())) {
                let mut kept = lock(kept);
                if kept.len() < KEPT_MAX {
                    kept.push(datagram.to_vec());
                }
            }
            let (least, most) = (wait.least.as_micros() as u64, wait.most.as_micros() as u64);
            let due = Instant::now() + Duration::from_micros(random.u64(least..=most));
            count += 1;
            held.insert((due, count), message);
        }
        let now = Instant::now();
        while let Some(first) = held.first_entry().filter(|first| first.key().0 <= now) {
            pass(&mut queue, first.remove());
        }
        std::thread::sleep(TICK);
    }
    held.into_values().for_each(|message| pass(&mut queue, message));
}

fn pass(queue: &mut Queue, mut message: Message) {
    message.set_verdict(Verdict::Accept);
    // The namespace may be gone, and then nobody waits for the packet.
    let _ = queue.verdict(message);
}

/// What is in an IPv4 packet, if that is a datagram.
fn datagram(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if *packet.get(9)? != UDP {
        return None;
    }
    packet.get(header + 8..)
}
