//! Messages as lines of a process's standard input and output.
//!
//! Programs print more than messages there: banners, progress, logs. What is no message is passed over, and kept for
//! errors; a program that writes nothing else, or without end, is given up.

use std::io;
use std::sync::Arc;

use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, ErrorData, RequestId, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tracing::debug;

use super::words::Words;

/// Bytes that are no messages, between two messages.
const NOISE_BYTES_MAX: usize = 16 << 20;
/// How much of a line is kept that is too long to be read, for the number of the request that it answers.
const HEAD_BYTES: usize = 4 << 10;

/// The way to a process.
pub(super) struct Lines<R, W> {
    read: BufReader<R>,
    line: Vec<u8>,
    /// Bytes of the line that were not kept, because it is too long.
    dropped: usize,
    line_bytes_max: usize,
    noise_bytes: usize,
    write: Arc<Mutex<Option<W>>>,
    words: Arc<Words>,
}

impl<R: AsyncRead + Unpin, W> Lines<R, W> {
    pub(super) fn new(read: R, write: W, line_bytes_max: usize, words: Arc<Words>) -> Lines<R, W> {
        let write = Arc::new(Mutex::new(Some(write)));
        Lines { read: BufReader::new(read), line: Vec::new(), dropped: 0, line_bytes_max, noise_bytes: 0, write, words }
    }

    /// Reads to the end of a line; false at the end of all of them. May be dropped and called again: what was read of a
    /// line stays.
    async fn whole_line(&mut self) -> io::Result<bool> {
        loop {
            let available = self.read.fill_buf().await?;
            if available.is_empty() {
                return Ok(false);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let take = end.map_or(available.len(), |end| end + 1);
            if self.dropped == 0 && self.line.len() + take <= self.line_bytes_max {
                self.line.extend_from_slice(&available[..take]);
            } else {
                self.line.truncate(HEAD_BYTES);
                self.dropped += take;
            }
            self.read.consume(take);
            // Not even passing over something goes on for ever.
            if self.dropped > NOISE_BYTES_MAX.max(2 * self.line_bytes_max) {
                return Err(io::Error::other("it writes a line without end"));
            }
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// The message of the line that was read, or nothing when it is none.
    fn message(&mut self) -> Option<ServerJsonRpcMessage> {
        let dropped = std::mem::take(&mut self.dropped);
        let line = std::mem::take(&mut self.line);
        if dropped > 0 {
            // Whoever waits for it hears that it came, and not that it never did.
            let limit = self.line_bytes_max;
            let error = ErrorData::internal_error(format!("its message is larger than {limit} bytes"), None);
            return answered(&line).map(|id| ServerJsonRpcMessage::error(error, Some(id)));
        }
        let text = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line).trim_ascii();
        if text.is_empty() {
            return None;
        }
        match serde_json::from_slice::<ServerJsonRpcMessage>(text) {
            Ok(message) => Some(message),
            Err(error) => {
                debug!(%error, "a line that is no message");
                self.words.keep(text);
                self.noise_bytes += text.len();
                None
            }
        }
    }
}

/// The request that a line answers, as far as its beginning says.
fn answered(head: &[u8]) -> Option<RequestId> {
    let head = String::from_utf8_lossy(head);
    let (_, after) = head.split_once("\"id\"")?;
    let digits = after.trim_start().strip_prefix(':')?.trim_start();
    let number: String = digits.chars().take_while(char::is_ascii_digit).collect();
    serde_json::from_value(Value::from(number.parse::<i64>().ok()?)).ok()
}

impl<R, W> Transport<RoleClient> for Lines<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Error = io::Error;

    fn send(&mut self, message: ClientJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let write = self.write.clone();
        async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            let mut write = write.lock().await;
            let write = write.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            write.write_all(&line).await?;
            write.flush().await
        }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            match self.whole_line().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.words.keep(error.to_string().as_bytes());
                    return None;
                }
            }
            if let Some(message) = self.message() {
                self.noise_bytes = 0;
                return Some(message);
            }
            if self.noise_bytes > NOISE_BYTES_MAX {
                self.words.keep(b"(given up: it writes to its standard output, and nothing of it is a message)");
                return None;
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        drop(self.write.lock().await.take());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(output: &[u8], line_bytes_max: usize) -> (Vec<Value>, Option<String>) {
        let words = Arc::new(Words::new(std::iter::empty()));
        let mut lines = Lines::new(output, tokio::io::sink(), line_bytes_max, words.clone());
        let mut messages = Vec::new();
        while let Some(message) = lines.receive().await {
            messages.push(serde_json::to_value(&message).unwrap());
        }
        (messages, words.told())
    }

    #[tokio::test]
    async fn messages_are_found_among_what_else_is_printed() {
        let output = b"Server v1 starting...\n\n{\"level\":\"info\"}\n42\n\"ready\"\n[]\n\xff\xfe\n\
            \xEF\xBB\xBF{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"x\":1}}\r\n{\"jsonrpc\":\"2.0\",\
            \"method\":\"notifications/tools/list_changed\"}\n{\"half\": ";
        let (messages, told) = read(output, 1 << 20).await;
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!((&messages[0]["id"], &messages[0]["result"]["x"]), (&Value::from(1), &Value::from(1)));
        assert!(told.unwrap().contains("{\"level\":\"info\"} | 42"));
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_answered_as_that() {
        let long = "x".repeat(100_000);
        let output = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\": 7,\"result\":{{\"text\":\"{long}\"}}}}\n{long}\n\
             {{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{{}}}}\n"
        );
        let (messages, _) = read(output.as_bytes(), 50_000).await;
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!(messages[0]["id"], 7);
        assert!(messages[0]["error"]["message"].as_str().unwrap().contains("larger than 50000 bytes"));
        assert_eq!(messages[1]["id"], 8);
    }

    #[tokio::test]
    async fn noise_without_end_ends() {
        let words = Arc::new(Words::new(std::iter::empty()));
        let mut lines = Lines::new(tokio::io::repeat(b'x'), tokio::io::sink(), 1 << 10, words.clone());
        assert!(lines.receive().await.is_none());
        assert!(words.told().unwrap().contains("without end"));
        let chatter = "a line that is no message\n".repeat(1 << 20);
        let mut lines = Lines::new(chatter.as_bytes(), tokio::io::sink(), 1 << 10, words.clone());
        assert!(lines.receive().await.is_none());
        assert!(words.told().unwrap().contains("given up"));
    }
}
