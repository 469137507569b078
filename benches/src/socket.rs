//! One connection of WebSocket that sends frames of text and waits for their answers: as little client as there can be.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The longest frame that is read, in bytes.
const FRAME_BYTES_MAX: u64 = 1 << 20;
/// A frame of text that is whole.
const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
/// In the second byte of a frame: its bytes are masked, as those of clients are. The mask is nothing, so that they stay.
const MASKED: u8 = 0x80;

/// A connection that was taken.
pub struct Socket {
    stream: BufReader<TcpStream>,
    frame: Vec<u8>,
}

impl Socket {
    /// Connects to `path` of the server at `address` (`HOST:PORT`); `token` is sent along, and the first frame is waited for.
    pub async fn open(address: &str, path: &str, token: &str) -> Result<Socket> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("no server at {address}"))?;
        stream.set_nodelay(true)?;
        let mut socket = Socket { stream: BufReader::with_capacity(16 << 10, stream), frame: Vec::new() };
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        socket.stream.get_mut().write_all(head.as_bytes()).await?;
        let mut line = String::new();
        socket.stream.read_line(&mut line).await?;
        ensure!(line.contains(" 101 "), "{path}: {line}");
        while !line.trim_end().is_empty() {
            line.clear();
            ensure!(socket.stream.read_line(&mut line).await? > 0, "{path}: the server closed the connection");
        }
        let first = socket.next().await?;
        ensure!(first.windows(15).any(|part| part == b"\"authenticated\""), "{}", String::from_utf8_lossy(first));
        Ok(socket)
    }

    /// Sends a frame of text, and gives the next one that comes.
    pub async fn exchange(&mut self, text: &str) -> Result<&[u8]> {
        self.frame.clear();
        self.frame.push(TEXT);
        match u16::try_from(text.len()) {
            Ok(short @ ..126) => self.frame.push(MASKED | short.to_be_bytes()[1]),
            Ok(long) => {
                self.frame.push(MASKED | 126);
                self.frame.extend(long.to_be_bytes());
            }
            Err(_) => bail!("a frame of {} bytes is not sent", text.len()),
        }
        self.frame.extend([0; 4]);
        self.frame.extend(text.as_bytes());
        self.stream.get_mut().write_all(&self.frame).await?;
        self.next().await
    }

    /// The next frame of text.
    async fn next(&mut self) -> Result<&[u8]> {
        loop {
            let kind = self.stream.read_u8().await?;
            let bytes = match u64::from(self.stream.read_u8().await?) {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                short => short,
            };
            ensure!(bytes <= FRAME_BYTES_MAX, "a frame of {bytes} bytes");
            self.frame.resize(usize::try_from(bytes)?, 0);
            self.stream.read_exact(&mut self.frame).await?;
            match kind {
                TEXT => return Ok(&self.frame),
                // The node takes two that nobody answered for a client that is gone; nothing here lasts as long.
                PING => {}
                _ => bail!("the server closed the connection: {}", String::from_utf8_lossy(&self.frame)),
            }
        }
    }
}
