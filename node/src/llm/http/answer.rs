//! A good answer of a provider, read piece by piece: a stream of events, or one document where none streams.
//!
//! What it is its first bytes say, and not its headers: there are servers that stream under `application/json`, and
//! those that send a document under `text/event-stream`.

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use super::super::Error;
use super::super::limits::{ERROR_CHARS_MAX, EVENT_BYTES_MAX, STREAM_BYTES_MAX};
use super::super::sse::{Event, Reader};
use super::{Endpoint, refusal};

/// A piece of an answer.
#[derive(Debug)]
pub(in super::super) enum Piece {
    /// One event of a stream.
    Event(Event),
    /// The whole answer.
    Whole(Value),
}

/// A good answer, read piece by piece.
#[derive(Debug)]
pub(in super::super) struct Answer<'a> {
    endpoint: &'a Endpoint,
    url: String,
    response: Response,
    form: Form,
    bytes: usize,
    ended: bool,
}

/// What the answer has turned out to be.
#[derive(Debug)]
enum Form {
    /// Nothing has come but blanks.
    Unknown(Vec<u8>),
    Stream(Reader),
    Document(Vec<u8>),
}

impl<'a> Answer<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, url: String, response: Response) -> Answer<'a> {
        Answer { endpoint, url, response, form: Form::Unknown(Vec::new()), bytes: 0, ended: false }
    }

    /// The next piece, or none at the answer's end.
    pub async fn piece(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Form::Stream(reader) = &mut self.form
                && let Some(event) = reader.next().map_err(|_| self.endpoint.too_large(EVENT_BYTES_MAX))?
            {
                return Ok(Some(Piece::Event(event)));
            }
            if self.ended {
                return Ok(None);
            }
            match self.chunk().await? {
                Some(chunk) => self.feed(&chunk)?,
                None => {
                    self.ended = true;
                    if let Some(piece) = self.last()? {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), Error> {
        match &mut self.form {
            Form::Stream(reader) => reader.feed(chunk),
            Form::Document(body) => {
                body.extend_from_slice(chunk);
                if body.len() > EVENT_BYTES_MAX {
                    return Err(self.endpoint.too_large(EVENT_BYTES_MAX));
                }
            }
            Form::Unknown(held) => {
                held.extend_from_slice(chunk);
                let text = held.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(held);
                let Some(first) = text.iter().find(|byte| !byte.is_ascii_whitespace()).copied() else { return Ok(()) };
                let held = std::mem::take(held);
                self.form = match first {
                    b'{' | b'[' | b'<' => Form::Document(held),
                    _ => {
                        let mut reader = Reader::new(EVENT_BYTES_MAX);
                        reader.feed(&held);
                        Form::Stream(reader)
                    }
                };
            }
        }
        Ok(())
    }

    /// What there is when no more will come.
    fn last(&mut self) -> Result<Option<Piece>, Error> {
        match &mut self.form {
            // The last event counts without the blank line behind it, if it is whole: servers leave it out.
            Form::Stream(reader) => {
                reader.end();
                let event = reader.next().map_err(|_| self.endpoint.too_large(EVENT_BYTES_MAX))?;
                Ok(event.map(Piece::Event))
            }
            Form::Unknown(_) => Err(self.endpoint.nonsense("nothing at all, under a status of success")),
            Form::Document(body) => {
                let body = std::mem::take(body);
                let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
                if text.trim_ascii_start().first() == Some(&b'<') {
                    return Err(self.web_page(text));
                }
                let whole = serde_json::from_slice(text);
                let whole =
                    whole.map_err(|error| self.endpoint.nonsense(format!("a document that is not JSON ({error})")))?;
                Ok(Some(Piece::Whole(whole)))
            }
        }
    }

    fn web_page(&self, body: &[u8]) -> Error {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let problem = format!("{} ({:?})", kind.unwrap_or("a page"), refusal::title(body));
        Error::WrongAddress { provider: self.endpoint.provider.clone(), url: self.url.clone(), problem }
    }

    /// An event that is no JSON, as an error.
    pub fn not_json(&self, event: &Event, error: &serde_json::Error) -> Error {
        if self.ended {
            return self.broken_off();
        }
        if event.name == "error" {
            let message = crate::text::head(&event.data, ERROR_CHARS_MAX).to_owned();
            return self.endpoint.error_of(502, message, None);
        }
        let start: String = event.data.chars().take(60).collect();
        self.endpoint.nonsense(format!("an event that is not JSON ({error}): {start:?}"))
    }

    /// That the stream ended before its protocol said so.
    pub fn broken_off(&self) -> Error {
        Error::BrokenOff { provider: self.endpoint.provider.clone(), bytes: self.bytes }
    }

    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        let chunk = match tokio::time::timeout(self.endpoint.silence, self.response.chunk()).await {
            Err(_) => return Err(self.endpoint.silent()),
            Ok(Err(_)) => return Err(self.broken_off()),
            Ok(Ok(chunk)) => chunk,
        };
        self.bytes += chunk.as_ref().map_or(0, bytes::Bytes::len);
        if self.bytes > STREAM_BYTES_MAX { Err(self.endpoint.too_large(STREAM_BYTES_MAX)) } else { Ok(chunk) }
    }
}
