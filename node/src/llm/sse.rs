//! Reads `text/event-stream` from bytes in any pieces; nothing here trusts the sender.

/// One event.
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
#[derive(Debug)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Bytes before this are read.
    at: usize,
    /// Bytes before this hold no line feed.
    searched: usize,
    event: Event,
    bytes_max: usize,
}

impl Reader {
    /// A reader that holds at most `bytes_max` of an unfinished event.
    pub fn new(bytes_max: usize) -> Reader {
        Reader { bytes: Vec::new(), at: 0, searched: 0, event: Event::default(), bytes_max }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.searched -= self.at;
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    #[allow(clippy::should_implement_trait, reason = "an event can fail to be one, which ends the stream")]
    /// The next whole event, if there is one.
    pub fn next(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if event != Event::default() {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.event.name = value.to_owned(),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                _ => {} // Comments, ids and retry hints are of no use to a single reply.
            }
            if self.event.data.len() > self.bytes_max {
                return Err(TooLong);
            }
        }
        if self.bytes.len() - self.at > self.bytes_max { Err(TooLong) } else { Ok(None) }
    }

    fn line(&mut self) -> Option<String> {
        let from = self.searched.max(self.at);
        let Some(feed) = self.bytes[from..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = from + feed;
        let line = &self.bytes[self.at..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = String::from_utf8_lossy(line).into_owned();
        self.at = end + 1;
        self.searched = self.at;
        Some(line)
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

    const STREAM: &str = ": hello\r\nevent: delta\r\ndata: {\"a\":\r\ndata: \"é\"}\r\n\r\n\ndata:[DONE]\n\nevent: cut";

    #[test]
    fn events_are_read_as_the_specification_has_them() {
        let events = read(&[STREAM.as_bytes()]);
        assert_eq!(events[0], Event { name: "delta".into(), data: "{\"a\":\n\"é\"}".into() });
        assert_eq!(events[1], Event { name: String::new(), data: "[DONE]".into() });
        assert_eq!(events.len(), 2, "an unfinished event is none");
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = Reader::new(100);
        reader.feed(&[b'x'; 101]);
        assert_eq!(reader.next(), Err(TooLong));
        let mut reader = Reader::new(100);
        reader.feed("data: 0123456789\n".repeat(11).as_bytes());
        assert_eq!(reader.next(), Err(TooLong));
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
