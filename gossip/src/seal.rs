//! Datagrams that only members can write and read: ChaCha20-Poly1305 (RFC 8439) under chitchat's transport.
//!
//! chitchat authenticates nothing by itself, so a datagram that does not open with one of the cluster's keys never
//! reaches it. A sealed datagram is a random nonce of 12 bytes, the ciphertext, and a tag of 16 bytes; the cluster's id is
//! the associated data, so that two clusters which share a key by mistake still do not mix.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

/// The most datagrams that wait for chitchat; more are dropped, as the network would.
const WAITING_MAX: usize = 256;
/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_507;
const TAG_BYTES: usize = 16;

/// A cluster's gossip key: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The key to seal with, and those that still open: while a key is rotated, both.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What goes out is sealed with this one.
    pub seal: Key,
    /// What comes in may be sealed with one of these instead.
    pub also_open: Vec<Key>,
}

/// Seals and opens under one cluster's keys.
struct Cipher {
    seal: LessSafeKey,
    open: Vec<LessSafeKey>,
    cluster: String,
    random: SystemRandom,
}

impl Cipher {
    fn new(keys: &Keys, cluster: &str) -> Result<Cipher> {
        let key = |key: &Key| {
            UnboundKey::new(&CHACHA20_POLY1305, &key.0).map(LessSafeKey::new).ok().context("a key of 32 bytes")
        };
        let open = std::iter::once(&keys.seal).chain(&keys.also_open).map(key).collect::<Result<_>>()?;
        Ok(Cipher { seal: key(&keys.seal)?, open, cluster: cluster.to_owned(), random: SystemRandom::new() })
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok().context("the system gives no random bytes")?;
        let mut body = plain.to_vec();
        let sealed = Nonce::assume_unique_for_key(nonce);
        self.seal
            .seal_in_place_append_tag(sealed, Aad::from(&self.cluster), &mut body)
            .ok()
            .context("the datagram is too large to seal")?;
        Ok([&nonce[..], &body].concat())
    }

    /// Nothing where the datagram was not sealed by a member.
    fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = datagram.split_first_chunk::<NONCE_LEN>()?;
        if body.len() < TAG_BYTES {
            return None;
        }
        self.open.iter().find_map(|key| {
            let mut body = body.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = key.open_in_place(nonce, Aad::from(&self.cluster), &mut body).ok()?.len();
            body.truncate(plain);
            Some(body)
        })
    }
}

/// Where datagrams travel, and how an envelope becomes one: the system's sockets, or those of a simulation.
#[async_trait]
pub(crate) trait Network: Send + Sync + 'static {
    /// Listens.
    async fn bind(&self, listen: SocketAddr) -> Result<Box<dyn Datagrams>>;
    /// What turns envelopes into bytes and back.
    async fn codec(&self) -> Result<Box<dyn Codec>>;
}

/// A socket for datagrams.
#[async_trait]
pub(crate) trait Datagrams: Send + Sync + 'static {
    fn local_addr(&self) -> io::Result<SocketAddr>;
    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize>;
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

/// Turns envelopes into bytes and back.
#[async_trait]
pub(crate) trait Codec: Send + Sync + 'static {
    async fn encode(&mut self, envelope: ChitchatEnvelope) -> Result<Vec<u8>>;
    /// Nothing where the bytes are no envelope.
    async fn decode(&mut self, plain: &[u8]) -> Result<Option<ChitchatEnvelope>>;
}

/// The system's UDP.
pub(crate) struct Udp;

#[async_trait]
impl Network for Udp {
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

/// chitchat's own wire format.
///
/// chitchat keeps its wire format to its own sockets, so a pair of them on loopback does it; the kernel drops what
/// anyone else sends to a connected socket.
struct Loopback {
    chitchat: UdpSocket,
    side: tokio::net::UdpSocket,
    side_address: SocketAddr,
    buffer: Vec<u8>,
}

impl Loopback {
    async fn open() -> Result<Loopback> {
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

    async fn decode(&mut self, plain: &[u8]) -> Result<Option<ChitchatEnvelope>> {
        self.side.send(plain).await?;
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

/// chitchat's transport over sealed datagrams.
pub(crate) struct Sealed<N> {
    pub keys: Keys,
    pub cluster: String,
    pub network: N,
}

#[async_trait]
impl<N: Network> Transport for Sealed<N> {
    async fn open(&self, listen: SocketAddr) -> Result<Box<dyn Socket>> {
        let udp: Arc<dyn Datagrams> = self.network.bind(listen).await?.into();
        let cipher = Arc::new(Cipher::new(&self.keys, &self.cluster)?);
        let (arrived, waiting) = mpsc::channel(WAITING_MAX);
        // chitchat drops the `recv` future at every round: opening and decoding live in a task of their own, or a
        // half-done decode would put the codec out of step.
        let decode = self.network.codec().await?;
        let reader = tokio::spawn(read(udp.clone(), cipher.clone(), decode, arrived)).abort_handle();
        Ok(Box::new(SealedSocket { udp, cipher, codec: self.network.codec().await?, waiting, reader }))
    }
}

async fn read(
    udp: Arc<dyn Datagrams>,
    cipher: Arc<Cipher>,
    mut codec: Box<dyn Codec>,
    arrived: mpsc::Sender<RecvOutcome>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (num_bytes_received, from_addr) = match udp.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A peer that is gone answers with "port unreachable"; the socket is as good as before.
            Err(error) => {
                debug!(%error, "gossip socket");
                continue;
            }
        };
        let Some(plain) = cipher.open(&buffer[..num_bytes_received]) else {
            debug!(%from_addr, bytes = num_bytes_received, "datagram of no member dropped");
            continue;
        };
        match codec.decode(&plain).await {
            Ok(Some(envelope)) => {
                if arrived.try_send(RecvOutcome { from_addr, envelope, num_bytes_received }).is_err()
                    && arrived.is_closed()
                {
                    return;
                }
            }
            Ok(None) => warn!(%from_addr, "a member sent what this version cannot read"),
            Err(error) => warn!(%error, "gossip codec"),
        }
    }
}

struct SealedSocket {
    udp: Arc<dyn Datagrams>,
    cipher: Arc<Cipher>,
    codec: Box<dyn Codec>,
    waiting: mpsc::Receiver<RecvOutcome>,
    reader: AbortHandle,
}

impl Drop for SealedSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.udp.local_addr()?)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> Result<SendOutcome> {
        let datagram = self.cipher.seal(&self.codec.encode(envelope).await?)?;
        match self.udp.send_to(&datagram, to).await {
            Ok(num_bytes_sent) => Ok(SendOutcome { num_bytes_sent }),
            // One peer out of reach does not break the transport for the others.
            Err(error) => {
                debug!(%to, %error, "gossip not sent");
                Ok(SendOutcome { num_bytes_sent: 0 })
            }
        }
    }

    async fn recv(&mut self) -> Result<RecvOutcome> {
        self.waiting.recv().await.context("the gossip reader has ended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(seal: u8, also_open: &[u8], cluster: &str) -> Cipher {
        let key = |byte: u8| Key([byte; 32]);
        let keys = Keys { seal: key(seal), also_open: also_open.iter().map(|byte| key(*byte)).collect() };
        Cipher::new(&keys, cluster).expect("keys")
    }

    #[test]
    fn only_a_member_of_the_same_cluster_opens_a_datagram() {
        let sealed = cipher(1, &[], "a").seal(b"hello").expect("sealed");
        assert_eq!(cipher(1, &[], "a").open(&sealed).as_deref(), Some(&b"hello"[..]));
        assert_eq!(cipher(2, &[1], "a").open(&sealed).as_deref(), Some(&b"hello"[..]), "a key in rotation opens");
        assert_eq!(cipher(2, &[], "a").open(&sealed), None, "another key");
        assert_eq!(cipher(1, &[], "b").open(&sealed), None, "another cluster");
    }

    #[test]
    fn a_forged_cut_or_flipped_datagram_does_not_open() {
        let member = cipher(1, &[], "a");
        let sealed = member.seal(b"hello").expect("sealed");
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(member.open(&flipped), None, "bit flipped in byte {at}");
            assert_eq!(member.open(&sealed[..at]), None, "cut to {at} bytes");
        }
    }
}
