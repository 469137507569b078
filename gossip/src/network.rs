//! What lies under the seal: datagrams, and chitchat's way to write an envelope down. A simulation has other datagrams.
//!
//! Nothing here is sealed or checked: what comes from it has to go through `seal`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{Socket, UdpSocket};

/// The largest UDP payload.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Where datagrams travel.
#[async_trait]
pub(crate) trait Network: Send + Sync + 'static {
    /// Listens on a UDP address.
    async fn bind(&self, listen: SocketAddr) -> Result<Box<dyn Datagrams>>;

    /// A codec for one user: what it gives is the answer to what it was asked last.
    async fn codec(&self) -> Result<Box<dyn Codec>>;
}

/// One address of a network.
#[async_trait]
pub(crate) trait Datagrams: Send + Sync {
    /// The address that the socket is bound to, with the port that it was given.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Sends one datagram; says how many bytes went.
    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize>;

    /// Waits for a datagram; says how long it is and where it came from. Nothing is lost when the wait is dropped.
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

/// Turns envelopes into bytes and back.
#[async_trait]
pub(crate) trait Codec: Send + Sync {
    /// The envelope in chitchat's wire format.
    async fn encode(&mut self, envelope: ChitchatEnvelope) -> Result<Vec<u8>>;

    /// Nothing where the bytes are no envelope.
    async fn decode(&mut self, plain: Vec<u8>) -> Result<Option<ChitchatEnvelope>>;
}

/// The network of the operating system.
pub(crate) struct System;

#[async_trait]
impl Network for System {
    async fn bind(&self, listen: SocketAddr) -> Result<Box<dyn Datagrams>> {
        let udp = tokio::net::UdpSocket::bind(listen).await;
        Ok(Box::new(udp.with_context(|| format!("cannot listen for gossip on UDP {listen}"))?))
    }

    async fn codec(&self) -> Result<Box<dyn Codec>> {
        Ok(Box::new(Loopback::open().await?))
    }
}

#[async_trait]
impl Datagrams for tokio::net::UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_to(datagram, to).await
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }
}

/// chitchat keeps its wire format to its own sockets, so a pair of them on loopback writes and reads it; the kernel drops
/// what anyone else sends to a connected socket.
pub(crate) struct Loopback {
    chitchat: UdpSocket,
    side: tokio::net::UdpSocket,
    side_address: SocketAddr,
    buffer: Vec<u8>,
}

impl Loopback {
    pub async fn open() -> Result<Loopback> {
        let chitchat = UdpSocket::open(([127, 0, 0, 1], 0).into()).await?;
        let side = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        side.connect(chitchat.local_addr()?).await?;
        let side_address = side.local_addr()?;
        Ok(Loopback { chitchat, side, side_address, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }
}

#[async_trait]
impl Codec for Loopback {
    async fn encode(&mut self, envelope: ChitchatEnvelope) -> Result<Vec<u8>> {
        self.chitchat.send(self.side_address, envelope).await?;
        let bytes = self.side.recv(&mut self.buffer).await?;
        Ok(self.buffer[..bytes].to_vec())
    }

    async fn decode(&mut self, plain: Vec<u8>) -> Result<Option<ChitchatEnvelope>> {
        self.side.send(&plain).await?;
        // chitchat's socket says nothing of bytes that it cannot read; on loopback an answer takes microseconds.
        loop {
            match tokio::time::timeout(Duration::from_millis(200), self.chitchat.recv()).await {
                Ok(received) => {
                    let received = received?;
                    if received.from_addr == self.side_address {
                        return Ok(Some(received.envelope));
                    }
                }
                Err(_) => return Ok(None),
            }
        }
    }
}
