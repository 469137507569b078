//! Datagrams that only members can write and read: ChaCha20-Poly1305 (RFC 8439) under chitchat's transport.
//!
//! chitchat authenticates nothing by itself, so a datagram that does not open with one of the cluster's keys never
//! reaches it. A sealed datagram is a random nonce of 12 bytes, the ciphertext, and a tag of 16 bytes; the cluster's id is
//! the associated data, so that two clusters which share a key by mistake still do not mix.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::network::{Codec, DATAGRAM_BYTES_MAX, Datagrams, Network};

/// The most datagrams that wait for chitchat; more are dropped, as the network would.
const WAITING_MAX: usize = 256;
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

/// The ciphers of a node, which can be replaced while it gossips.
#[derive(Clone)]
pub(crate) struct Ciphers {
    current: Arc<RwLock<Arc<Cipher>>>,
    cluster: Arc<str>,
}

impl Ciphers {
    pub fn new(keys: &Keys, cluster: &str) -> Result<Ciphers> {
        let cipher = Arc::new(Cipher::new(keys, cluster)?);
        Ok(Ciphers { current: Arc::new(RwLock::new(cipher)), cluster: cluster.into() })
    }

    /// From now on these keys seal and open.
    pub fn replace(&self, keys: &Keys) -> Result<()> {
        let cipher = Arc::new(Cipher::new(keys, &self.cluster)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = cipher;
        Ok(())
    }

    /// What goes over the network in the place of `plain`.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        self.get().seal(plain)
    }

    /// Nothing where the datagram was not sealed by a member.
    pub fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.get().open(datagram)
    }

    fn get(&self) -> Arc<Cipher> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
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

/// chitchat's transport over sealed datagrams.
pub(crate) struct SealedTransport<N> {
    pub ciphers: Ciphers,
    pub network: N,
}

#[async_trait]
impl<N: Network> Transport for SealedTransport<N> {
    async fn open(&self, listen: SocketAddr) -> Result<Box<dyn Socket>> {
        let udp: Arc<dyn Datagrams> = Arc::from(self.network.bind(listen).await?);
        let (ciphers, codec) = (self.ciphers.clone(), self.network.codec().await?);
        let (arrived, waiting) = mpsc::channel(WAITING_MAX);
        // chitchat drops the `recv` future at every round: opening and decoding live in a task of their own, or a
        // half-done decode would put the codec out of step.
        let reading = read(udp.clone(), ciphers.clone(), self.network.codec().await?, arrived);
        let reader = tokio::spawn(reading).abort_handle();
        Ok(Box::new(SealedSocket { udp, ciphers, codec, waiting, reader }))
    }
}

async fn read(
    udp: Arc<dyn Datagrams>,
    ciphers: Ciphers,
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
        let Some(plain) = ciphers.open(&buffer[..num_bytes_received]) else {
            debug!(%from_addr, bytes = num_bytes_received, "datagram of no member dropped");
            continue;
        };
        match codec.decode(plain).await {
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
    ciphers: Ciphers,
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
        let datagram = self.ciphers.seal(&self.codec.encode(envelope).await?)?;
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
