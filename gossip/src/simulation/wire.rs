//! The simulated network under the seal, and who listens on it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;

use crate::network::{Codec, Datagrams, Loopback, Network};
use crate::seal::Ciphers;
use crate::seed::once_in;

/// Where every host listens.
pub const PORT: u16 = 7946;
/// What it listens on.
pub const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
/// One datagram in so many is lost.
const LOST_ONE_IN: u64 = 20;

thread_local! {
    /// Every datagram of a member that reached another one, by who sent it. One that reached nobody, or its sender only, would be
    /// news when it is sent again.
    static ARRIVED: RefCell<BTreeMap<SocketAddr, Vec<Vec<u8>>>> = RefCell::default();
}

/// Does something with what arrived from the member at an address, if anything did.
pub fn arrived_from<T>(address: SocketAddr, with: impl FnOnce(&[Vec<u8>]) -> T) -> Option<T> {
    ARRIVED.with_borrow(|arrived| arrived.get(&address).map(|datagrams| with(datagrams)))
}

/// What a host does with what it sends and gets.
#[derive(Clone)]
pub enum Manner {
    /// A member's: it leaves both to the seal.
    Sealed,
    /// Takes its own seal off what it sends.
    Bare(Ciphers),
    /// Vouches for what is not sealed.
    Gullible(Ciphers),
}

/// The network of one host.
pub struct Wire {
    pub manner: Manner,
    /// Of whom it is told which datagrams reached this host: for a member, the other ones.
    pub others: Vec<SocketAddr>,
    pub coder: Coder,
}

#[async_trait]
impl Network for Wire {
    async fn bind(&self, listen: SocketAddr) -> Result<Box<dyn Datagrams>> {
        let socket = turmoil::net::UdpSocket::bind(listen).await?;
        Ok(Box::new(Plug { socket, manner: self.manner.clone(), others: self.others.clone() }))
    }

    async fn codec(&self) -> Result<Box<dyn Codec>> {
        Ok(Box::new(self.coder.clone()))
    }
}

/// The socket of one host.
struct Plug {
    socket: turmoil::net::UdpSocket,
    manner: Manner,
    others: Vec<SocketAddr>,
}

#[async_trait]
impl Datagrams for Plug {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        if once_in(LOST_ONE_IN) {
            return Ok(datagram.len());
        }
        match &self.manner {
            Manner::Sealed | Manner::Gullible(_) => self.socket.send_to(datagram, to).await,
            Manner::Bare(own) => self.socket.send_to(&own.open(datagram).expect("its own seal"), to).await,
        }
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (bytes, from) = self.socket.recv_from(buffer).await?;
        if self.others.contains(&from) {
            let datagram = buffer[..bytes].to_vec();
            ARRIVED.with_borrow_mut(|arrived| arrived.entry(from).or_default().push(datagram));
        }
        match &self.manner {
            Manner::Gullible(members) if members.open(&buffer[..bytes]).is_none() => {
                let sealed = members.seal(&buffer[..bytes]).expect("it is short enough");
                buffer[..sealed.len()].copy_from_slice(&sealed);
                Ok((sealed.len(), from))
            }
            Manner::Sealed | Manner::Bare(_) | Manner::Gullible(_) => Ok((bytes, from)),
        }
    }
}

/// What there is to write or read, and where the outcome goes.
enum Job {
    Encode(ChitchatEnvelope, mpsc::Sender<Result<Vec<u8>>>),
    Decode(Vec<u8>, mpsc::Sender<Result<Option<ChitchatEnvelope>>>),
}

/// The real codec, which needs real sockets, on a thread of its own: a simulation stands still while it works.
#[derive(Clone)]
pub struct Coder(mpsc::Sender<Job>);

impl Coder {
    /// Starts it, and waits until it is there.
    pub fn start() -> Coder {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let mut codec = runtime.block_on(Loopback::open()).expect("two sockets");
            ready.send(()).expect("somebody waits");
            while let Ok(job) = waiting.recv() {
                // Whoever asked waits.
                _ = match job {
                    Job::Encode(envelope, to) => to.send(runtime.block_on(codec.encode(envelope))).is_ok(),
                    Job::Decode(plain, to) => to.send(runtime.block_on(codec.decode(plain))).is_ok(),
                };
            }
        });
        is_ready.recv().expect("it is ready");
        Coder(jobs)
    }

    fn ask<T>(&self, job: impl FnOnce(mpsc::Sender<Result<T>>) -> Job) -> Result<T> {
        let (outcome, come) = mpsc::channel();
        self.0.send(job(outcome)).ok().context("the codec has ended")?;
        come.recv().context("the codec has ended")?
    }
}

#[async_trait]
impl Codec for Coder {
    async fn encode(&mut self, envelope: ChitchatEnvelope) -> Result<Vec<u8>> {
        self.ask(|to| Job::Encode(envelope, to))
    }

    async fn decode(&mut self, plain: Vec<u8>) -> Result<Option<ChitchatEnvelope>> {
        self.ask(|to| Job::Decode(plain, to))
    }
}
