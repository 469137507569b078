//! Reads `text/event-stream` from bytes in any pieces; nothing here trusts the sender.
//!
//! What the format means, the crate `sse-stream` knows. It is handed one line at a time, because it gives up the rest of
//! what it was handed over a line that it does not like, and the format wants such lines passed over.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use sse_stream::{ByteStreamBody, SseStream};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty for the default one.
    pub name: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// The sender's event is longer than the reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// A reader that is fed bytes and gives events.
pub struct Reader {
    lines: Lines,
    events: SseStream<ByteStreamBody<Lines, Bytes>>,
    bytes_max: usize,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader that holds at most `bytes_max` of an unfinished event.
    pub fn new(bytes_max: usize) -> Reader {
        let lines = Lines::default();
        Reader { events: SseStream::from_bytes_stream(lines.clone()), lines, bytes_max }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// No more bytes come: what there is of an event is one.
    pub fn end(&mut self) {
        self.lines.push(b"\n\n");
    }

    #[allow(clippy::should_implement_trait, reason = "an event can fail to be one, which ends the stream")]
    /// The next whole event that has data or a name, if there is one.
    pub fn next(&mut self) -> Result<Option<Event>, TooLong> {
        loop {
            match self.events.next().now_or_never() {
                // The lines that there are have been read, and no event is whole.
                None | Some(None) => {
                    return if self.lines.unread() > self.bytes_max { Err(TooLong) } else { Ok(None) };
                }
                Some(Some(Ok(event))) => {
                    let bytes = self.lines.begin_event();
                    let event = Event { name: event.event.unwrap_or_default(), data: event.data.unwrap_or_default() };
                    if bytes > self.bytes_max {
                        return Err(TooLong);
                    }
                    if event != Event::default() {
                        return Ok(Some(event));
                    }
                }
                // What cannot be read may not be missed in silence: this is no JSON either.
                Some(Some(Err(sse_stream::Error::Utf8Parse(_)))) => {
                    return Ok(Some(Event { name: String::new(), data: char::REPLACEMENT_CHARACTER.to_string() }));
                }
                // A line that is none, or has no place where it stands.
                Some(Some(Err(_))) => {}
            }
        }
    }
}

/// Lines on their way to the parser.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Bytes>,
    /// Bytes that the parser was handed since the last event was whole.
    handed: usize,
    /// Bytes that wait to be handed on.
    waiting: usize,
}

impl Lines {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        let mut waiting = self.waiting();
        for line in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            waiting.waiting += line.len();
            waiting.lines.push_back(Bytes::copy_from_slice(line));
        }
    }

    /// Bytes since the last event was whole, those that the parser has not seen among them.
    fn unread(&self) -> usize {
        let waiting = self.waiting();
        waiting.handed + waiting.waiting
    }

    /// An event was whole; the bytes that it took.
    fn begin_event(&self) -> usize {
        std::mem::take(&mut self.waiting().handed)
    }
}

impl Stream for Lines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut waiting = self.waiting();
        match waiting.lines.pop_front() {
            Some(line) => {
                waiting.waiting -= line.len();
                waiting.handed += line.len();
                Poll::Ready(Some(Ok(line)))
            }
            // Whoever polls does so again after the next bytes.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<Event> {
        let mut reader = Reader::new(1 << 16);
        let mut events = Vec::new();
        for piece in pieces {
            reader.feed(piece);
            while let Some(event) = reader.next().expect("short") {
                events.push(event);
            }
        }
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    const STREAM: &str = ": hello\r\nevent: delta\r\ndata: {\"a\":\r\ndata: \"é\"}\r\n\r\n\ndata:[DONE]\n\nevent: cut";

    #[test]
    fn events_are_read_as_the_specification_has_them() {
        let events = read(&[STREAM.as_bytes()]);
        assert_eq!(events, [event("delta", "{\"a\":\n\"é\"}"), event("", "[DONE]")], "an unfinished event is none");
    }

    #[test]
    fn what_the_format_allows_is_taken_and_what_it_does_not_is_passed_over() {
        for (stream, expected) in [
            ("\u{feff}data: a\n\n", vec![event("", "a")]),
            ("data: a\r\rdata:b\r\r", vec![event("", "a"), event("", "b")]),
            ("data: a\r\n\r\ndata:  b\r\n\r\n", vec![event("", "a"), event("", " b")]),
            (": only a comment\n\n:\n\ndata: a\n\n", vec![event("", "a")]),
            ("id: 7\nretry: 10\n\ndata: a\n\n", vec![event("", "a")]),
            ("retry: soon\ndata: a\n\n", vec![event("", "a")]),
            ("data: a\nunknown: x\nno colon\n\n", vec![event("", "a")]),
            ("id: 1\nid: 2\nevent: e\nevent: f\ndata: a\n\n", vec![event("e", "a")]),
            ("event: ping\n\ndata: a\n\n", vec![event("ping", ""), event("", "a")]),
        ] {
            assert_eq!(read(&[stream.as_bytes()]), expected, "{stream:?}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), expected, "{stream:?} byte by byte");
        }
    }

    #[test]
    fn the_last_event_counts_without_a_blank_line_behind_it() {
        let mut reader = Reader::new(100);
        reader.feed(b"data: a");
        assert_eq!(reader.next(), Ok(None));
        reader.end();
        assert_eq!(reader.next(), Ok(Some(event("", "a"))));
        assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn an_endless_event_is_refused_and_a_long_stream_of_short_ones_is_not() {
        let mut reader = Reader::new(100);
        reader.feed(&[b'x'; 101]);
        assert_eq!(reader.next(), Err(TooLong));
        let mut reader = Reader::new(100);
        reader.feed("data: 0123456789\n".repeat(11).as_bytes());
        assert_eq!(reader.next(), Err(TooLong));
        let mut reader = Reader::new(100);
        for _ in 0..100 {
            reader.feed("data: 0123456789\n\n".repeat(10).as_bytes());
            for _ in 0..10 {
                assert_eq!(reader.next(), Ok(Some(event("", "0123456789"))));
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0usize..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut at = 0;
            for cut in cuts {
                pieces.push(&STREAM.as_bytes()[at..cut]);
                at = cut;
            }
            pieces.push(&STREAM.as_bytes()[at..]);
            prop_assert_eq!(read(&pieces), read(&[STREAM.as_bytes()]));
        }

        #[test]
        fn bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(64);
            reader.feed(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
