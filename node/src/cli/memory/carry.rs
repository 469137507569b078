//! Export and import: lines out of a server and into one, in parts, so that what is sent again is kept once.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde_json::Value;

use crate::api::memory::{ImportResponse, MemoryBackendInfo, MemoryStats};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, GOOD, paint};
use crate::cli::{CliError, Context, text};
use crate::client::Retry;

/// Bytes of lines that are sent at once.
const PART_BYTES: usize = 512 << 10;
/// How often it is asked how far a backend is.
const ASKED_EVERY: Duration = Duration::from_millis(200);
/// The largest file that is taken in: all of it is read before the first line is sent.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Writes an export to standard output as it comes.
pub fn export(context: &Context, remote: &Remote<'_>, query: &[(&str, String)]) -> Result<(), CliError> {
    let client = remote.client;
    let request = client.request(Method::GET, &paths::with_query(remote.path(paths::MEMORY_EXPORT), query));
    context.block_on(async {
        let response = client.send(request, Retry::Once).await?;
        let mut pieces = response.bytes_stream();
        let mut out = std::io::stdout().lock();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| client.failed(error))?;
            out.write_all(&piece).and_then(|()| out.flush()).map_err(|error| {
                CliError::new("io", "the export cannot be written").help("it is cut: run it again").source(error)
            })?;
        }
        Ok(())
    })
}

/// Has the memory backend emptied and filled anew, and waits until it is.
pub fn sync(context: &Context, remote: &Remote<'_>, no_wait: bool) -> Result<(), CliError> {
    let client = remote.client;
    let path = remote.path(paths::MEMORY_SYNC);
    let mut state: MemoryBackendInfo =
        context.block_on(async { Ok(client.post(&path, &Value::Null, Retry::Once).await?) })?;
    if !no_wait {
        let mut progress = context.out.progress("filling the memory backend", None);
        let filled = async {
            let stats = remote.path(paths::MEMORY_STATS);
            // What was asked for is done once it follows again; what is wrong by then is not waited for.
            loop {
                tokio::time::sleep(ASKED_EVERY).await;
                let found: MemoryStats = client.get(&stats).await?;
                let Some(now) = found.backend else { return Ok(None) };
                match now.state.as_str() {
                    "following" | "failing" => return Ok(Some(now)),
                    _ => {}
                }
            }
        };
        let filled: Result<Option<MemoryBackendInfo>, CliError> = context.block_on(progress.during(filled));
        drop(progress);
        state = filled?.unwrap_or(state);
    }
    if state.state == "failing" {
        let why = state.last_error.as_deref().unwrap_or("nobody says why");
        return Err(CliError::new("unavailable", format!("the memory backend is not filled: {}", text::one_line(why)))
            .help("it is tried again behind this; `caxton memory stats` says how far it is"));
    }
    let word = if no_wait { "being filled:" } else { "filled:" };
    context.out.line(format_args!("{} {}", paint(GOOD, word), text::one_line(&state.name)))?;
    context.out.json(&state)
}

/// Sends the lines of a file in parts.
pub fn import(context: &Context, remote: &Remote<'_>, file: &Path, scope: Option<String>) -> Result<(), CliError> {
    let content = read(file)?;
    let lines = lines_of(&content);
    let label = file.file_name().map_or_else(|| "import".to_owned(), |name| name.to_string_lossy().into_owned());
    let label = if label == "-" { "import".to_owned() } else { label };
    let query: Vec<(&str, String)> =
        scope.map(|scope| ("scope", scope)).into_iter().chain([("label", label)]).collect();
    let total = lines.iter().map(|line| line.len() as u64 + 1).sum();
    let mut progress = context.out.progress("importing", Some(total));
    let mut sum = ImportResponse::default();
    let mut first = 0;
    while first < lines.len() {
        let (mut part, mut last) = (String::new(), first);
        while last < lines.len() && (part.is_empty() || part.len() + lines[last].len() < PART_BYTES) {
            part.push_str(&lines[last]);
            part.push('\n');
            last += 1;
        }
        let bytes = part.len() as u64;
        let client = remote.client;
        let path = paths::with_query(remote.path(paths::MEMORY_IMPORT), &query);
        let request = client.request(Method::POST, &path).body(part);
        // What was taken in before changes nothing, so that a part may be sent again.
        let done: ImportResponse = context.block_on(async { Ok(client.json(request, Retry::Once).await?) })?;
        progress.advance(bytes);
        add(&mut sum, done, first as u64);
        first = last;
    }
    drop(progress);
    say(context, &sum)
}

fn add(sum: &mut ImportResponse, done: ImportResponse, before: u64) {
    sum.stored += done.stored;
    sum.known += done.known;
    sum.refused += done.refused;
    sum.mistakes.extend(done.mistakes.into_iter().map(|mut mistake| {
        mistake.line += before;
        mistake
    }));
    for (field, times) in done.unknown_fields {
        *sum.unknown_fields.entry(field).or_default() += times;
    }
}

fn say(context: &Context, sum: &ImportResponse) -> Result<(), CliError> {
    let out = &context.out;
    out.line(format_args!("{} {} new, {} known before", paint(GOOD, "imported:"), sum.stored, sum.known))?;
    for (field, times) in &sum.unknown_fields {
        out.warn(format_args!(
            "the field `{}` has no place here and was left out ({times} times)",
            text::one_line(field)
        ));
    }
    for mistake in &sum.mistakes {
        out.line(format_args!(
            "{} line {}: {}",
            paint(BAD, "refused"),
            mistake.line,
            text::one_line(&mistake.problem)
        ))?;
    }
    out.json(sum)?;
    match sum.refused {
        0 => Ok(()),
        refused => Err(CliError::new("invalid_request", format!("{refused} things were not imported"))
            .help("mend these lines and import the file again: nothing is kept twice")),
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let cannot = |error: std::io::Error| {
        CliError::new("io", format!("{} cannot be read", file.display())).help("name another file").source(error)
    };
    if file == Path::new("-") {
        let mut content = String::new();
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut content).map_err(cannot)?;
        within(file, content.len() as u64)?;
        return Ok(content);
    }
    within(file, std::fs::metadata(file).map_err(cannot)?.len())?;
    std::fs::read_to_string(file).map_err(cannot)
}

fn within(file: &Path, bytes: u64) -> Result<(), CliError> {
    if bytes > FILE_BYTES_MAX {
        return Err(CliError::new(
            "too_large",
            format!("{} has {bytes} bytes, and {FILE_BYTES_MAX} is the most", file.display()),
        )
        .help("split it at a line"));
    }
    Ok(())
}

/// The documents of a file, one a line: a file that is one JSON document is taken apart.
fn lines_of(content: &str) -> Vec<String> {
    let content = content.trim_start_matches('\u{feff}');
    let list = match serde_json::from_str::<Value>(content) {
        Ok(Value::Array(list)) => Some(list),
        Ok(Value::Object(fields)) if content.trim().lines().count() > 1 => {
            let list = ["results", "items", "memories"].iter().find_map(|name| fields.get(*name)?.as_array().cloned());
            Some(list.unwrap_or_else(|| vec![Value::Object(fields)]))
        }
        Ok(_) | Err(_) => None,
    };
    match list {
        Some(list) => list.iter().map(ToString::to_string).collect(),
        None => content.lines().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_apart_into_lines_whichever_form_it_has() {
        assert_eq!(lines_of("{\"a\":1}\n{\"a\":2}\n"), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(lines_of("\u{feff}[\n {\"a\": 1},\n {\"a\": 2}\n]"), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(lines_of("{\n \"results\": [{\"a\": 1}]\n}"), ["{\"a\":1}"]);
        assert_eq!(lines_of("{\n \"a\": 1\n}"), ["{\"a\":1}"]);
        assert_eq!(lines_of("not JSON\n"), ["not JSON"], "the server says what is wrong with it");
    }
}
