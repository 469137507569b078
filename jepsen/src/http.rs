//! One HTTP/1.0 request over a connection of its own: what a client knows when it ends is exactly what it was told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::net::Host;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A request.
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The bearer token.
    pub token: &'a str,
    /// The body's media type.
    pub media: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; null when it is no JSON.
    pub body: Value,
}

/// There is no answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// Whether any of the request was sent: if not, it cannot have had an effect.
    pub sent: bool,
    /// Why not.
    pub why: String,
}

impl NoAnswer {
    fn after(sent: bool, why: impl std::fmt::Display) -> NoAnswer {
        NoAnswer { sent, why: why.to_string() }
    }
}

/// Asks, and waits for the answer until `wait` is over.
pub fn ask(host: &Host, request: &Request, wait: Duration) -> Result<Answer, NoAnswer> {
    let deadline = Instant::now() + wait;
    let stream = open(host, request, wait)?;
    let mut reader = BufReader::new(Limited { stream, deadline }.take(ANSWER_BYTES_MAX));
    let (status, length) = head(&mut reader)?;
    let mut body = Vec::new();
    reader.read_to_end(&mut body).map_err(|error| NoAnswer::after(true, error))?;
    if length.is_some_and(|length| length != body.len()) {
        return Err(NoAnswer::after(true, "the answer ended early"));
    }
    Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

/// Sends the request and goes away `patience` later, whatever comes: a client whose connection broke.
pub fn abandon(host: &Host, request: &Request, patience: Duration) -> Result<(), NoAnswer> {
    let stream = open(host, request, Duration::from_secs(5))?;
    std::thread::sleep(patience);
    drop(stream);
    Ok(())
}

/// An open stream of server-sent events.
pub struct Events {
    reader: BufReader<Limited>,
}

/// One event: its id and its data.
pub struct SentEvent {
    /// The id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The data.
    pub data: Value,
}

impl Events {
    /// Opens the stream.
    pub fn open(host: &Host, path: &str, token: &str, after: Option<u64>, wait: Duration) -> Result<Events, NoAnswer> {
        let path = match after {
            Some(after) => format!("{path}?after={after}"),
            None => path.to_owned(),
        };
        let request = Request { method: "GET", path: &path, token, media: "", body: &[] };
        let stream = open(host, &request, wait)?;
        let mut reader = BufReader::new(Limited { stream, deadline: Instant::now() + wait });
        let (status, _) = head(&mut reader)?;
        if status != 200 {
            let mut text = String::new();
            let _ = reader.read_to_string(&mut text);
            return Err(NoAnswer::after(true, format!("status {status}: {text}")));
        }
        Ok(Events { reader })
    }

    /// The next event, or nothing when none came by `deadline` or the stream ended.
    pub fn next(&mut self, deadline: Instant) -> Option<SentEvent> {
        self.reader.get_mut().deadline = deadline;
        let mut event = SentEvent { id: 0, name: String::new(), data: Value::Null };
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.reader.read_until(b'\n', &mut line).ok()? == 0 || !line.ends_with(b"\n") {
                return None;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() && !event.name.is_empty() {
                return Some(event);
            }
            match text.split_once(':') {
                Some(("id", id)) => event.id = id.trim().parse().ok()?,
                Some(("event", name)) => event.name = name.trim().to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).ok()?,
                // A comment that keeps the connection open.
                Some(_) | None => {}
            }
        }
    }
}

fn open(host: &Host, request: &Request, wait: Duration) -> Result<TcpStream, NoAnswer> {
    let mut stream = host.dial(wait.min(Duration::from_secs(3))).map_err(|error| NoAnswer::after(false, error))?;
    let Request { method, path, token, media, body } = request;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: caxton\r\nAuthorization: Bearer {token}\r\nContent-Type: {media}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let wire = [head.as_bytes(), body].concat();
    stream
        .set_write_timeout(Some(wait))
        .and_then(|()| stream.write_all(&wire))
        .map_err(|error| NoAnswer::after(true, error))?;
    Ok(stream)
}

/// The status, and how long the body says it is.
fn head(reader: &mut impl BufRead) -> Result<(u16, Option<usize>), NoAnswer> {
    let mut line = String::new();
    let mut read = |line: &mut String| {
        line.clear();
        match reader.read_line(line) {
            Ok(0) => Err(NoAnswer::after(true, "the connection ended before the answer")),
            Ok(_) => Ok(()),
            Err(error) => Err(NoAnswer::after(true, error)),
        }
    };
    read(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| NoAnswer::after(true, format!("this is no answer: {line:?}")))?;
    let mut length = None;
    loop {
        read(&mut line)?;
        if line.trim().is_empty() {
            return Ok((status, length));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
}

/// A stream that is read until a moment, and not until each read has waited.
struct Limited {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"));
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}
