//! HTTP/1.1 connections to one server: as little client as there can be. [`Pool`] for many that wait at once, [`Wire`] for
//! a thread of its own, whose times have no runtime in them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

/// How long a server may take to listen.
const LISTEN_WITHIN: Duration = Duration::from_secs(20);

type Sender = http1::SendRequest<Full<Bytes>>;

/// Connections to one server, each of which carries one request at a time.
#[derive(Clone)]
pub struct Pool {
    connections: Arc<[Mutex<Sender>]>,
    authorization: Arc<str>,
}

impl Pool {
    /// Opens `connections` to a server at `address` (`HOST:PORT`) that may be about to start; `token` is sent along.
    pub async fn open(address: &str, connections: usize, token: &str) -> Result<Pool> {
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(Mutex::new(connect(address).await?));
        }
        Ok(Pool { connections: opened.into(), authorization: format!("Bearer {token}").into() })
    }

    /// Posts `body` over a connection of the pool and returns the body of the answer, which must be a success.
    pub async fn post(&self, connection: usize, path: &str, body: impl Into<Bytes>) -> Result<Bytes> {
        self.send(connection, hyper::Method::POST, path, body.into()).await
    }

    /// Gets `path`; as [`Pool::post`].
    pub async fn get(&self, connection: usize, path: &str) -> Result<Bytes> {
        self.send(connection, hyper::Method::GET, path, Bytes::new()).await
    }

    async fn send(&self, connection: usize, method: hyper::Method, path: &str, body: Bytes) -> Result<Bytes> {
        let request = hyper::Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("authorization", &*self.authorization).header("content-type", "application/json");
        let request = request.body(Full::new(body))?;
        let mut connection = self.connections[connection % self.connections.len()].lock().await;
        connection.ready().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

async fn connect(address: &str) -> Result<Sender> {
    let deadline = Instant::now() + LISTEN_WITHIN;
    let stream = loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error).context("the server does not listen"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One connection that is written and read by the thread that has it.
pub struct Wire {
    reader: BufReader<TcpStream>,
    token: String,
    request: Vec<u8>,
    body: Vec<u8>,
}

impl Wire {
    /// Connects to a server at `address` (`HOST:PORT`) that listens; `token` is sent along.
    pub fn open(address: &str, token: &str) -> Result<Wire> {
        let stream = TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
        stream.set_nodelay(true)?;
        let reader = BufReader::with_capacity(16 << 10, stream);
        Ok(Wire { reader, token: token.to_owned(), request: Vec::new(), body: Vec::new() })
    }

    /// Posts `body` and gives the body of the answer, which must be a success with a length.
    pub fn post(&mut self, path: &str, body: &str) -> Result<&[u8]> {
        self.exchange("POST", path, body)
    }

    /// Gets `path`; as [`Wire::post`].
    pub fn get(&mut self, path: &str) -> Result<&[u8]> {
        self.exchange("GET", path, "")
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> Result<&[u8]> {
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )?;
        self.reader.get_mut().write_all(&self.request)?;
        let (mut line, mut length, mut first) = (String::new(), None, true);
        let mut status = String::new();
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line)? > 0, "{path}: the server closed the connection");
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if std::mem::take(&mut first) {
                text.clone_into(&mut status);
            } else if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let Some(length) = length else { bail!("{path}: an answer without a length") };
        self.body.resize(length, 0);
        self.reader.read_exact(&mut self.body)?;
        ensure!(status.contains(" 200 "), "{path}: {status}: {}", String::from_utf8_lossy(&self.body));
        Ok(&self.body)
    }
}
