//! A client that follows what is said, in a thread of its own: what it heard, and when.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::place::PATIENCE;

/// A message that was heard of.
#[derive(Debug)]
pub struct Heard {
    /// When, by a clock that never goes back.
    pub at: Instant,
    /// When, by the clock on the wall.
    pub wall: SystemTime,
    data: String,
}

impl Heard {
    /// The message as the event tells it.
    pub fn event(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.data)?)
    }
}

/// Follows `path` of a node, which is waited for, until `is_over` says so of what was heard by then.
pub fn hear(address: &str, token: &str, path: &str, is_over: impl Fn(&[Heard]) -> bool) -> Result<Vec<Heard>> {
    let began = Instant::now();
    loop {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().context("no answer")??;
        if !status.contains(" 200 ") {
            ensure!(began.elapsed() < PATIENCE, "{path}: {status}");
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let mut heard = Vec::new();
        for line in lines {
            if let Some(data) = line?.strip_prefix("data:") {
                heard.push(Heard { at: Instant::now(), wall: SystemTime::now(), data: data.trim().to_owned() });
                if is_over(&heard) {
                    return Ok(heard);
                }
            }
        }
        bail!("the stream ended after {} messages", heard.len());
    }
}

/// What the time of an event is within a day, in milliseconds.
pub fn ms_of_day(event: &Value) -> Result<f64> {
    let text = event["time"].as_str().context("a time")?;
    let parts = text.split_once('T').context("a time")?.1.trim_end_matches('Z').split(':');
    parts.map(str::parse::<f64>).try_fold(0.0, |sum, part| Ok(sum * 60.0 + part? * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_milliseconds_of_its_day() {
        let of = |text: &str| ms_of_day(&serde_json::json!({ "time": text })).expect("a time");
        assert_eq!(of("2026-11-18T00:00:00.001Z").round(), 1.0);
        assert_eq!(of("2026-11-18T11:06:40.123Z").round(), 40_000_123.0);
    }
}
