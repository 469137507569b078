//! Requests and answers over simulated TCP: a length, one byte, and the rest. One connection carries one request at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caxton_proto::NodeId;
use caxton_raft::{Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::TcpStream;

/// Where every node listens.
pub const PORT: u16 = 7000;

/// The first byte of a request.
pub const MESSAGE: u8 = 0;
pub const PROPOSE: u8 = 1;
pub const READ: u8 = 2;
pub const HAND_OVER: u8 = 3;
/// The first byte of an answer.
pub const DONE: u8 = 0;
pub const REFUSED: u8 = 1;

/// A node's name on the network.
pub fn name(node: u64) -> String {
    format!("node-{node}")
}

pub async fn write(stream: &mut TcpStream, first: u8, rest: &[&[u8]]) -> io::Result<()> {
    let rest = rest.concat();
    let frame = [&(rest.len() as u32).to_le_bytes()[..], &[first], &rest].concat();
    stream.write_all(&frame).await
}

pub async fn read(stream: &mut TcpStream) -> io::Result<(u8, Bytes)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let [a, b, c, d, first] = head;
    let mut rest = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
    stream.read_exact(&mut rest).await?;
    Ok((first, rest.into()))
}

/// Connections to the nodes. One that failed, or whose answer was not waited for, is not used again.
#[derive(Default)]
pub struct Lines(Mutex<BTreeMap<u64, Vec<TcpStream>>>);

impl Lines {
    /// Sends one request to a node and waits for its answer.
    pub async fn ask(&self, node: u64, first: u8, rest: &[&[u8]], within: Duration) -> io::Result<(u8, Bytes)> {
        let idle = self.0.lock().unwrap().entry(node).or_default().pop();
        let asked = async {
            let mut stream = match idle {
                Some(stream) => stream,
                None => TcpStream::connect((name(node), PORT)).await?,
            };
            write(&mut stream, first, rest).await?;
            let answer = read(&mut stream).await?;
            io::Result::Ok((stream, answer))
        };
        let (stream, answer) = tokio::time::timeout(within, asked).await??;
        self.0.lock().unwrap().entry(node).or_default().push(stream);
        Ok(answer)
    }
}

/// A node's connections to the others.
pub struct Peers {
    pub node: NodeId,
    pub lines: Lines,
}

#[async_trait]
impl Transport for Peers {
    async fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let from = self.node.0.to_le_bytes();
        match self.lines.ask(to.0, MESSAGE, &[&from, &message], within).await {
            Ok((DONE, answer)) => Ok(answer),
            Ok((_, why)) => Err(TransportError::Refused { why: String::from_utf8_lossy(&why).into_owned() }),
            Err(error) => Err(TransportError::Unreachable { node: to, source: error.into() }),
        }
    }
}
