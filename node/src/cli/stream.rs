//! A server's event stream, read event by event: `caxton logs` and `caxton messages tail` follow what happens by it.

use std::time::Duration;

use crate::cli::live::Remote;
use crate::cli::{CliError, Context};
use crate::client::{ClientError, Retry};
use crate::llm::sse::{Event, Reader};

/// The longest event that is read.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// A stream goes on until somebody ends it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How often a stream that broke off is opened again without an event between.
const REOPENED_MAX: u32 = 30;
/// The pause before it is.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Hands every event of a stream to `each`, until it ends; says why it did, as far as the server or the connection tells.
pub async fn read(
    remote: &Remote<'_>,
    path: &str,
    mut each: impl FnMut(&Event) -> Result<(), CliError>,
) -> Result<Option<ClientError>, CliError> {
    let request = remote.client.request(http::Method::GET, path).timeout(STREAM_TIMEOUT);
    let request = request.header(http::header::ACCEPT, "text/event-stream");
    let mut response = match remote.client.send(request, Retry::Once).await {
        Ok(response) => response,
        Err(error) => return Ok(Some(error)),
    };
    let mut reader = Reader::new(EVENT_BYTES_MAX);
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(remote.client.failed(error))),
        };
        reader.feed(&chunk);
        loop {
            let event = reader.next().map_err(|_| CliError::new("bad_answer", "an event of the server is too long"))?;
            let Some(event) = event else { break };
            if event.name == "closed" {
                let problem = serde_json::from_str(&event.data).ok();
                return Ok(problem.map(|problem| ClientError::Problem(Box::new(problem))));
            }
            each(&event)?;
        }
    }
}

/// Why a stream ended, as a failure of the command.
pub fn ended(why: Option<ClientError>) -> CliError {
    why.map_or_else(
        || {
            CliError::new("broken_off", "the server's stream broke off")
                .help("look whether it runs with `caxton health`")
        },
        CliError::from,
    )
}

/// Follows a stream whose events have positions: one that breaks off is opened again after the last position that was seen, so
/// that nothing is left out and nothing told twice. `each` gives the position of the event.
pub async fn follow(
    context: &Context,
    remote: &Remote<'_>,
    mut after: Option<u64>,
    path: impl Fn(Option<u64>) -> String,
    mut each: impl FnMut(&Event) -> Result<Option<u64>, CliError>,
) -> Result<(), CliError> {
    let mut left = REOPENED_MAX;
    loop {
        let mut seen = None;
        let from = path(after);
        let why = read(remote, &from, |event| {
            seen = each(event)?.or(seen);
            Ok(())
        });
        let why = why.await?;
        let passes = why.as_ref().is_none_or(|error| matches!(error.code(), None | Some("unavailable")));
        // Before anything was seen there is nothing to go on after: what is wrong is said at once.
        (after, left) = match seen {
            Some(_) => (seen, REOPENED_MAX),
            None => (after, left.saturating_sub(1)),
        };
        if !passes || after.is_none() || left == 0 {
            return Err(ended(why));
        }
        if seen.is_some() {
            context.out.note("the stream broke off; it goes on where it was");
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}
