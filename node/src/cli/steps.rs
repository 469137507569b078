//! A message's way to its answer, as a person watches it: steps on stderr as they happen, the answer on stdout.
//!
//! A stream that breaks off is taken up again, at another server if there is one: the message's key makes it the same turn,
//! and what was printed of the answer already is not printed twice.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api::Problem;
use crate::api::messages::{ApprovalInfo, Attachment, Content, MessageAnswer, MessageRequest, Route, TurnEvent};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, GOOD, WARN, paint, size};
use crate::cli::{CliError, Context, Exit, text};
use crate::client::{ClientError, Retry};
use crate::llm::sse::Reader;

/// The longest event that is read: an answer with its files.
const EVENT_BYTES_MAX: usize = 128 << 20;
/// A whole turn may take this long; the server has limits of its own.
pub const TURN_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long a broken stream is taken up again, without an event in between.
const RECONNECT_WITHIN: Duration = Duration::from_secs(60);
/// The pause before it.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// The header with the request's id.
const REQUEST_ID: &str = "x-request-id";
/// How much of a call's arguments or result a step shows.
const SHOWN_CHARS: usize = 72;

/// How a turn ended that was watched. `data` is the last event as the server wrote it.
pub enum TurnOutcome {
    Answered { answer: Box<MessageAnswer>, data: String },
    Waiting { data: String },
}

/// Sends a message and shows every step; gives the answer, or nothing when the turn waits for a person.
pub async fn watch(
    context: &Context,
    remote: &Remote<'_>,
    request: MessageRequest,
    show: Show,
) -> Result<Option<MessageAnswer>, CliError> {
    Ok(match outcome(context, remote, request, show).await? {
        TurnOutcome::Answered { answer, .. } => Some(*answer),
        TurnOutcome::Waiting { .. } => None,
    })
}

/// Sends a message, shows every step, and says how the turn ended. With `--json` nothing is shown.
pub async fn outcome(
    context: &Context,
    remote: &Remote<'_>,
    mut request: MessageRequest,
    show: Show,
) -> Result<TurnOutcome, CliError> {
    request.stream = true;
    let body = serde_json::to_vec(&request)
        .map_err(|error| CliError::new("internal", "the message cannot be written").source(error))?;
    // Without a key a message that is asked twice is answered twice.
    let retry = if request.idempotency_key.is_some() { Retry::Once } else { Retry::Never };
    let mut screen = Screen {
        context,
        show,
        line_open: false,
        said: PrintedReply::default(),
        began: false,
        was_broken: false,
        turn: None,
    };
    let mut broken: Option<Instant> = None;
    loop {
        let heard = tokio::select! {
            heard = hear(remote, &body, retry, &mut screen, &mut broken) => Some(heard),
            pressed = tokio::signal::ctrl_c() => pressed.is_err().then(|| Err(no_signals())),
        };
        let Some(heard) = heard else { return Err(screen.interrupted()?) };
        let error = match heard? {
            StreamEnd::Answered { answer, data } => {
                screen.rest_of(&answer.text)?;
                screen.close_line()?;
                return Ok(TurnOutcome::Answered { answer, data });
            }
            StreamEnd::Waiting { conversation, approvals, data } => {
                screen.close_line()?;
                wait_for_person(context, &conversation, approvals)?;
                return Ok(TurnOutcome::Waiting { data });
            }
            StreamEnd::Failed(problem) if !(screen.began && is_passing(&problem)) => {
                screen.close_line()?;
                return Err(ClientError::Problem(problem).into());
            }
            StreamEnd::Failed(problem) => ClientError::Problem(problem).into(),
            StreamEnd::BrokenOff(error) => error,
        };
        let since = *broken.get_or_insert_with(Instant::now);
        if retry == Retry::Never || since.elapsed() > RECONNECT_WITHIN {
            screen.close_line()?;
            return Err(error);
        }
        screen.broken_off();
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

/// How one stream of a turn's events ended.
enum StreamEnd {
    Answered {
        answer: Box<MessageAnswer>,
        data: String,
    },
    Waiting {
        conversation: String,
        approvals: Vec<ApprovalInfo>,
        data: String,
    },
    Failed(Box<Problem>),
    /// Before the turn was over; this is what is said if it is not taken up again.
    BrokenOff(CliError),
}

/// Sends the message and shows what comes; `broken` is over once something does.
async fn hear(
    remote: &Remote<'_>,
    body: &[u8],
    retry: Retry,
    screen: &mut Screen<'_>,
    broken: &mut Option<Instant>,
) -> Result<StreamEnd, CliError> {
    let post = remote
        .client
        .request(http::Method::POST, &remote.path(paths::MESSAGES))
        .timeout(TURN_TIMEOUT)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "text/event-stream")
        .body(body.to_vec());
    let mut response = match remote.client.send(post, retry).await {
        Ok(response) => response,
        // The first time there is nothing to take up again.
        Err(error) if broken.is_none() => return Err(error.into()),
        Err(ClientError::Problem(problem)) => return Ok(StreamEnd::Failed(problem)),
        Err(error) => return Ok(StreamEnd::BrokenOff(error.into())),
    };
    let request_id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut reader = Reader::new(EVENT_BYTES_MAX);
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return Ok(StreamEnd::BrokenOff(remote.client.failed(error).into())),
        };
        reader.feed(&chunk);
        loop {
            let event = reader.next().map_err(|_| CliError::new("bad_answer", "an event of the server is too long"))?;
            let Some(event) = event else { break };
            let data = event.data;
            let Ok(event) = serde_json::from_str::<TurnEvent>(&data) else { continue }; // Of a newer server.
            match event {
                TurnEvent::Answered(answer) => return Ok(StreamEnd::Answered { answer, data }),
                TurnEvent::Waiting { conversation, approvals, .. } => {
                    return Ok(StreamEnd::Waiting { conversation, approvals, data });
                }
                TurnEvent::Failed(mut problem) => {
                    // The head of the answer has said it already.
                    if problem.request_id.is_none() {
                        problem.request_id = request_id;
                    }
                    return Ok(StreamEnd::Failed(problem));
                }
                step => {
                    *broken = None;
                    screen.began = true;
                    if let TurnEvent::Routed { conversation, turn, .. } = &step {
                        screen.turn = Some((conversation.clone(), turn.clone()));
                    }
                    screen.step(&step)?;
                }
            }
        }
    }
    Ok(StreamEnd::BrokenOff(
        CliError::new("broken_off", "the server's answer broke off")
            .help("`caxton conversations list` shows whether it was answered"),
    ))
}

fn no_signals() -> CliError {
    CliError::new("io", "this process may not listen for Ctrl-C")
}

/// The cluster is between two leaders, or the turn between two nodes.
fn is_passing(problem: &Problem) -> bool {
    problem.status == http::StatusCode::SERVICE_UNAVAILABLE.as_u16()
}

fn wait_for_person(context: &Context, conversation: &str, approvals: Vec<ApprovalInfo>) -> Result<(), CliError> {
    for approval in approvals {
        let arguments = text::one_line(&approval.arguments.to_string());
        let call = format!("{} wants to call {} with {arguments}", approval.agent, approval.tool);
        context.out.line(format_args!("{} {call}", paint(WARN.bold(), "waits for you:")))?;
        context.out.line(format_args!("  caxton approvals approve {}", approval.id))?;
        context.out.line(format_args!("  caxton approvals deny {} --reason \"...\"", approval.id))?;
    }
    context.out.note(paint(DIM, format!("conversation {conversation}")));
    Ok(())
}

/// What is shown besides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Every step as it happens.
    Steps,
    /// The answer and nothing else.
    Answer,
}

struct Screen<'a> {
    context: &'a Context,
    show: Show,
    /// The answer has begun and its line has not ended.
    line_open: bool,
    said: PrintedReply,
    /// There was a step: the turn is under way.
    began: bool,
    /// The stream broke off at least once.
    was_broken: bool,
    /// The conversation and the turn, once the server has said them.
    turn: Option<(String, String)>,
}

/// What was printed of a model's reply.
#[derive(Debug, Default)]
struct PrintedReply {
    /// The reply that is being printed, as far as it is.
    text: String,
    /// How much of it has come again since the stream broke off, in bytes: up to there, nothing is printed.
    again: usize,
}

/// What is to be printed of a piece of text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    /// This, which goes on where the printed text ends.
    More(&'t str),
    /// All of this: it is not what was printed before.
    Anew(String),
}

impl PrintedReply {
    /// A piece of a reply came.
    fn hear<'t>(&mut self, piece: &'t str) -> Piece<'t> {
        let before = &self.text[self.again..];
        if let Some(rest) = piece.strip_prefix(before) {
            self.text.push_str(rest);
            self.again = self.text.len();
            return Piece::More(rest);
        }
        if before.starts_with(piece) {
            self.again += piece.len();
            return Piece::More("");
        }
        // Another reply than the one that broke off.
        self.text.truncate(self.again);
        self.text.push_str(piece);
        self.again = self.text.len();
        Piece::Anew(self.text.clone())
    }

    /// The stream broke off: the reply may come again from its beginning.
    fn broken_off(&mut self) {
        self.again = 0;
    }

    /// A reply is over or withdrawn; the next one begins.
    fn over(&mut self) {
        *self = PrintedReply::default();
    }
}

impl Screen<'_> {
    /// A person pressed Ctrl-C: the turn is the server's, and goes on.
    fn interrupted(&mut self) -> Result<CliError, CliError> {
        self.close_line()?;
        let error = CliError::new("interrupted", "you are not watching any more, and the turn goes on");
        let error = error.exit(Exit::Interrupted);
        Ok(match &self.turn {
            Some((conversation, turn)) => error
                .fact("conversation", conversation)
                .fact("turn", turn)
                .help(format!("stop it with `caxton stop --turn {turn}`, or read its answer later with `caxton conversations show {conversation}`")),
            None => error.help("`caxton conversations list` shows whether it was begun; `caxton stop --turn ID` stops it"),
        })
    }

    fn close_line(&mut self) -> Result<(), CliError> {
        if std::mem::take(&mut self.line_open) {
            self.context.out.text("\n")?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), CliError> {
        match self.said.hear(text) {
            Piece::More("") => Ok(()),
            Piece::More(rest) => {
                let rest = printable(rest);
                self.line_open = !rest.ends_with('\n');
                self.context.out.text(rest)
            }
            Piece::Anew(whole) => {
                self.note(0, paint(WARN, "the model begins anew").to_string())?;
                let whole = printable(&whole);
                self.line_open = !whole.ends_with('\n');
                self.context.out.text(whole)
            }
        }
    }

    /// What is not printed yet of an answer, where its stream broke off.
    fn rest_of(&mut self, answer: &str) -> Result<(), CliError> {
        if self.said.again < self.said.text.len() || (self.said.text.is_empty() && self.was_broken) {
            self.said.broken_off();
            return self.text(answer);
        }
        Ok(())
    }

    /// The stream ended before the turn did.
    fn broken_off(&mut self) {
        if !std::mem::replace(&mut self.was_broken, true) && self.show == Show::Steps {
            // The answer's line goes on where it ended: only the other stream begins a new one.
            if self.line_open {
                self.context.out.note("");
            }
            self.context.out.note(format_args!("  {}", paint(WARN, "the connection broke off; asking again")));
        }
        self.said.broken_off();
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
                    Route::Conversation => "who has the conversation".to_owned(),
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
            TurnEvent::Text { depth: 0, text, .. } => self.text(text),
            TurnEvent::TextWithdrawn { depth, .. } => {
                if *depth == 0 {
                    self.said.over();
                }
                self.note(*depth, paint(WARN, "the model begins anew").to_string())
            }
            TurnEvent::ModelAnswered { depth, provider, model, usage, calls, duration_ms, .. } => {
                if *depth == 0 && *calls > 0 {
                    self.said.over();
                }
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
    fn what_was_printed_before_a_break_is_not_printed_again() {
        let mut said = PrintedReply::default();
        assert_eq!((said.hear("The ans"), said.hear("wer")), (Piece::More("The ans"), Piece::More("wer")));
        said.broken_off();
        assert_eq!((said.hear("The "), said.hear("answ")), (Piece::More(""), Piece::More("")));
        assert_eq!((said.hear("er is 4"), said.hear("2.")), (Piece::More(" is 4"), Piece::More("2.")));
        said.broken_off();
        assert_eq!(
            (said.hear("The answer"), said.hear(" was 41.")),
            (Piece::More(""), Piece::Anew("The answer was 41.".into()))
        );
        assert_eq!(said.hear(" No."), Piece::More(" No."));
        said.over();
        assert_eq!(said.hear("The"), Piece::More("The"));
    }

    #[test]
    fn what_a_model_says_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n\tc\u{7}"), "a[2Jb\n\tc");
    }
}
