//! A message's way to its answer, as a person watches it: steps on stderr as they happen, the answer on stdout.

use std::path::{Path, PathBuf};

use crate::api::messages::{Attachment, Content, MessageAnswer, MessageRequest, Route, TurnEvent};
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, GOOD, WARN, paint, size};
use crate::cli::{CliError, Context, text};
use crate::client::{ClientError, Retry};
use crate::llm::sse::Reader;

/// The longest event that is read: an answer with its files.
const EVENT_BYTES_MAX: usize = 128 << 20;
/// A whole turn may take this long; the server has limits of its own.
const TURN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3_600);
/// How much of a call's arguments or result a step shows.
const SHOWN_CHARS: usize = 72;

/// Sends a message and shows every step; gives the answer, or nothing when the turn waits for a person.
pub async fn watch(
    context: &Context,
    remote: &Remote<'_>,
    mut request: MessageRequest,
    show: Show,
) -> Result<Option<MessageAnswer>, CliError> {
    request.stream = true;
    let body = serde_json::to_vec(&request)
        .map_err(|error| CliError::new("internal", "the message cannot be written").source(error))?;
    let post = remote
        .client
        .request(http::Method::POST, &remote.path("/messages"))
        .timeout(TURN_TIMEOUT)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "text/event-stream")
        .body(body);
    // Asked twice, it would be answered twice.
    let mut response = remote.client.send(post, Retry::Never).await?;
    let mut reader = Reader::new(EVENT_BYTES_MAX);
    let mut screen = Screen { context, show, line_open: false };
    while let Some(chunk) = response.chunk().await.map_err(|error| remote.client.failed(error))? {
        reader.feed(&chunk);
        loop {
            let event = reader.next().map_err(|_| CliError::new("bad_answer", "an event of the server is too long"))?;
            let Some(event) = event else { break };
            let Ok(event) = serde_json::from_str::<TurnEvent>(&event.data) else { continue }; // Of a newer server.
            match event {
                TurnEvent::Answered(answer) => {
                    screen.close_line()?;
                    return Ok(Some(*answer));
                }
                TurnEvent::Waiting { conversation, approvals, .. } => {
                    screen.close_line()?;
                    for approval in approvals {
                        let arguments = text::one_line(&approval.arguments.to_string());
                        let call = format!("{} wants to call {} with {arguments}", approval.agent, approval.tool);
                        context.out.line(format_args!("{} {call}", paint(WARN.bold(), "waits for you:")))?;
                        context.out.line(format_args!("  caxton approvals approve {}", approval.id))?;
                        context.out.line(format_args!("  caxton approvals deny {} --reason \"...\"", approval.id))?;
                    }
                    context.out.note(paint(DIM, format!("conversation {conversation}")));
                    return Ok(None);
                }
                TurnEvent::Failed(problem) => {
                    screen.close_line()?;
                    return Err(ClientError::Problem(problem).into());
                }
                step => screen.step(&step)?,
            }
        }
    }
    Err(CliError::new("broken_off", "the server's answer broke off")
        .help("`caxton conversations list` shows whether it was answered"))
}

/// What is shown besides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Every step.
    Steps,
    /// Nothing.
    Answer,
}

struct Screen<'a> {
    context: &'a Context,
    show: Show,
    /// The answer has begun and its line has not ended.
    line_open: bool,
}

impl Screen<'_> {
    fn close_line(&mut self) -> Result<(), CliError> {
        if std::mem::take(&mut self.line_open) {
            self.context.out.text("\n")?;
        }
        Ok(())
    }

    fn note(&mut self, depth: u32, line: String) -> Result<(), CliError> {
        self.close_line()?;
        if self.show == Show::Steps {
            self.context.out.note(format_args!("{}{line}", "  ".repeat(depth as usize + 1)));
        }
        Ok(())
    }

    fn step(&mut self, event: &TurnEvent) -> Result<(), CliError> {
        match event {
            TurnEvent::Routed { agent, route, .. } => {
                let why = match route {
                    Route::Address => "by name".to_owned(),
                    Route::Capability { capability, score } => {
                        format!("by what it can do: {} ({score:.2})", text::one_line(capability))
                    }
                };
                if self.show == Show::Steps {
                    self.context.out.note(format_args!(
                        "{} {}  {}",
                        paint(GOOD, "->"),
                        paint(BOLD, agent),
                        paint(DIM, why)
                    ));
                }
                Ok(())
            }
            TurnEvent::Text { depth: 0, text, .. } => {
                let text = printable(text);
                self.line_open = !text.ends_with('\n');
                self.context.out.text(text)
            }
            TurnEvent::TextWithdrawn { depth, .. } => {
                self.note(*depth, paint(WARN, "the model begins anew").to_string())
            }
            TurnEvent::ModelAnswered { depth, provider, model, usage, calls, duration_ms, .. } => {
                let asks = match calls {
                    0 => "answers".to_owned(),
                    1 => "asks for 1 call".to_owned(),
                    calls => format!("asks for {calls} calls"),
                };
                let facts = format!("{} tokens, {duration_ms} ms", usage.total());
                let who = if model.is_empty() || model.contains('/') { provider } else { model };
                self.note(
                    *depth,
                    format!(
                        "{} {} {}",
                        paint(DIM, "model"),
                        text::one_line(&format!("{who} {asks}")),
                        paint(DIM, facts)
                    ),
                )
            }
            TurnEvent::ToolCalled { .. } if self.show == Show::Steps => Ok(()), // Shown with its result.
            TurnEvent::ToolReturned { depth, tool, failed, result, duration_ms, .. } => {
                let mark = if *failed { paint(BAD, "tool ") } else { paint(DIM, "tool ") };
                let result = short(result);
                let time = paint(DIM, format!("{duration_ms} ms"));
                self.note(
                    *depth,
                    format!("{mark} {}  {time}  {}", paint(BOLD, text::one_line(tool)), paint(DIM, result)),
                )
            }
            TurnEvent::Delegated { depth, to, capability, score, request, .. } => {
                let why = format!("by what it can do: {} ({score:.2})", text::one_line(capability));
                let line = format!("{} {}  {}", paint(GOOD, "->"), paint(BOLD, to), paint(DIM, why));
                self.note(*depth, line)?;
                self.note(depth + 1, paint(DIM, format!("\"{}\"", short(request))).to_string())
            }
            TurnEvent::DelegateReturned { depth, from, failed, duration_ms, .. } => {
                let (mark, word) = if *failed { (paint(BAD, "<-"), "failed") } else { (paint(GOOD, "<-"), "answered") };
                self.note(*depth, format!("{mark} {from} {word}  {}", paint(DIM, format!("{duration_ms} ms"))))
            }
            TurnEvent::Attached { name, media_type, bytes } => {
                let facts = format!("{}, {}", text::one_line(media_type), size(*bytes as u64));
                self.note(
                    1,
                    format!("{} {}  {}", paint(GOOD, "+"), paint(BOLD, text::one_line(name)), paint(DIM, facts)),
                )
            }
            TurnEvent::Text { .. }
            | TurnEvent::ToolCalled { .. }
            | TurnEvent::ModelAsked { .. }
            | TurnEvent::Waiting { .. }
            | TurnEvent::Answered(_)
            | TurnEvent::Failed(_) => Ok(()),
        }
    }
}

/// What came from a model or a tool, without what would move the cursor or change colours.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

fn short(text: &str) -> String {
    let line = text::one_line(text);
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", line[..end].trim_end()),
        None => line,
    }
}

/// Reads a file to send along.
pub fn read_file(path: &Path) -> Result<Attachment, CliError> {
    let cannot = |error: std::io::Error| {
        CliError::new("io", format!("{} cannot be read", path.display())).help("check the path").source(error)
    };
    let bytes = std::fs::read(path).map_err(cannot)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let media_type = media_type_of(&name).to_owned();
    let content = match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text),
        Err(error) => Content::Base64(crate::agent::attachments::to_base64(error.as_bytes())),
    };
    Ok(Attachment { name, media_type, content })
}

/// Writes an answer's files into `folder` beside what is there, and gives their paths.
pub fn save_files(files: &[Attachment], folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut saved = Vec::new();
    for file in files {
        let bytes = match &file.content {
            Content::Text(text) => text.as_bytes().to_vec(),
            Content::Base64(text) => crate::agent::attachments::from_base64(text).ok_or_else(|| {
                CliError::new("bad_answer", format!("the file {} is not base64", text::one_line(&file.name)))
            })?,
        };
        saved.push(save_file(folder, &file.name, &bytes)?);
    }
    Ok(saved)
}

/// A name from a server is one name in this folder, and never an existing file with other content.
fn save_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, CliError> {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().filter(|c| fine(*c)).collect();
    let name = name.trim_start_matches('.');
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, "out"));
    for number in 1..1_000 {
        let name = if number == 1 { format!("{stem}.{end}") } else { format!("{stem}-{number}.{end}") };
        let path = folder.join(name);
        let cannot = |error: std::io::Error| {
            CliError::new("io", format!("{} cannot be written", path.display()))
                .help("choose another folder with --save DIR")
                .source(error)
        };
        match std::fs::File::create_new(&path) {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, bytes).map_err(cannot)?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if std::fs::read(&path).is_ok_and(|there| there == bytes) {
                    return Ok(path);
                }
            }
            Err(error) => return Err(cannot(error)),
        }
    }
    Err(CliError::new("io", format!("{} has too many files of this name", folder.display()))
        .help("choose another folder with --save DIR"))
}

fn media_type_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
        Some("csv") => "text/csv",
        Some("tsv") => "text/tab-separated-values",
        Some("json") => "application/json",
        Some("md") => "text/markdown",
        Some("html" | "htm") => "text/html",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("pdf") => "application/pdf",
        _ => "text/plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_never_replace_others_or_leave_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let save = |name: &str, content: &str| save_file(folder.path(), name, content.as_bytes()).expect("saved");
        assert_eq!(save("chart.svg", "a"), folder.path().join("chart.svg"));
        assert_eq!(save("chart.svg", "a"), folder.path().join("chart.svg"), "the same content is the same file");
        assert_eq!(save("chart.svg", "b"), folder.path().join("chart-2.svg"));
        assert_eq!(save("../../x", "c"), folder.path().join("x.out"));
    }

    #[test]
    fn what_a_model_says_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n\tc\u{7}"), "a[2Jb\n\tc");
    }
}
