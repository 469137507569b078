//! How deliveries and messages look on a terminal.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::mailbox::{Delivery, DeliveryPage, MessageEvent, SendResponse};
use crate::cli::output::{BAD, BOLD, DIM, GOOD, Table, WARN, count, paint};
use crate::cli::{CliError, Context, text};

/// Bytes of a text in a table.
const TEXT_SHOWN: usize = 80;

/// A field of a message as one line.
fn field(message: &Value, name: &str) -> String {
    match &message[name] {
        Value::Null => String::new(),
        Value::String(said) => text::one_line(said),
        Value::Array(all) if all.iter().all(Value::is_string) => {
            let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
            text::one_line(&all.join(", "))
        }
        other => text::one_line(&other.to_string()),
    }
}

/// The beginning of what a message says.
fn says(message: &Value) -> String {
    let said = match &message["content_artifact"] {
        Value::Null => field(message, "content"),
        artifact => format!("(artifact {})", field(artifact, "digest")),
    };
    crate::text::preview(&said, TEXT_SHOWN)
}

/// A delivery in a few words.
pub fn in_one_line(one: &Delivery) -> String {
    let (does, sender) = (field(&one.message, "performative"), field(&one.message, "sender"));
    let (state, owner) = (text::one_line(&one.state), text::one_line(&one.owner));
    format!("{} ({does} from {sender} for {owner}, {state})", one.delivery)
}

/// A page of deliveries.
pub fn list(context: &Context, page: &DeliveryPage) -> Result<(), CliError> {
    let out = &context.out;
    if page.deliveries.is_empty() {
        out.line("Nothing lies there. Try: caxton messages send AGENT \"...\"")?;
    } else {
        let mut table = Table::new(["DELIVERY", "MAILBOX", "FROM", "DOES", "STATE", "TRIED", "WHEN", "SAYS"]);
        for one in &page.deliveries {
            let failed = one.reason.as_deref().filter(|_| one.state == "dead" || one.state == "retry");
            let said = failed
                .map_or_else(|| says(&one.message), |reason| crate::text::preview(&text::one_line(reason), TEXT_SHOWN));
            table.row([
                one.delivery.to_string(),
                text::one_line(&one.owner),
                field(&one.message, "sender"),
                field(&one.message, "performative"),
                text::one_line(&one.state),
                one.attempts.to_string(),
                when(&one.due),
                said,
            ]);
        }
        out.table(table)?;
    }
    if let Some(next) = page.next {
        out.note(paint(DIM, format!("there are more: --after {next}")));
    }
    out.json(page)
}

/// A time that is over, or how long until it comes.
fn when(rfc3339: &str) -> String {
    let Ok(time) = rfc3339.parse::<Timestamp>() else { return text::one_line(rfc3339) };
    match u64::try_from(time.as_second() - crate::time::now().as_second()) {
        Ok(seconds @ 1..) => format!("in {}", text::span(seconds)),
        Ok(_) | Err(_) => text::age(rfc3339),
    }
}

/// One delivery with its message.
pub fn delivery(context: &Context, one: &Delivery) -> Result<(), CliError> {
    let out = &context.out;
    let style = match one.state.as_str() {
        "dead" => BAD,
        "retry" => WARN,
        _ => GOOD,
    };
    let facts = format!("in the mailbox of {}, {}", text::one_line(&one.owner), count(one.attempts.into(), "attempt"));
    out.line(format_args!("{}  {}  {facts}", paint(BOLD, one.delivery), paint(style, text::one_line(&one.state))))?;
    if let Some(reason) = &one.reason {
        out.line(format_args!("{} {}", paint(BAD, "failed:"), text::one_line(reason)))?;
    }
    out.line(format_args!("{} {}", paint(DIM, "when:"), text::time(&one.due)))?;
    out.line(format_args!("{} {}", paint(DIM, "priority:"), one.priority))?;
    out.line(format_args!("{} {}", paint(DIM, "id:"), text::one_line(&one.id)))?;
    let fields = one.message.as_object().into_iter().flatten().filter(|(name, _)| *name != "content");
    for (name, _) in fields {
        let value = field(&one.message, name);
        out.line(format_args!("{} {value}", paint(DIM, format!("{}:", text::one_line(name)))))?;
    }
    match &one.message["content"] {
        Value::Null => {}
        Value::String(said) => out.line(format_args!("\n{}", crate::cli::steps::printable(said.trim_end())))?,
        json => out.line(format_args!("\n{}", crate::cli::steps::printable(&format!("{json:#}"))))?,
    }
    out.json(one)
}

/// A message that was taken in.
pub fn sent(context: &Context, sent: &SendResponse) -> Result<(), CliError> {
    let out = &context.out;
    let id = text::one_line(&sent.id);
    if sent.duplicate {
        out.line(format_args!("{} {id}", paint(WARN, "known before:")))?;
    } else {
        let lies = match sent.position {
            Some(position) => format!("at position {position}"),
            None if sent.deliveries == 1 => "in 1 mailbox".to_owned(),
            None => format!("in {} mailboxes", sent.deliveries),
        };
        let conversation = text::one_line(sent.conversation.as_deref().unwrap_or("-"));
        out.line(format_args!("{} {id}  {lies}, conversation {conversation}", paint(GOOD, "sent")))?;
    }
    for note in &sent.notes {
        out.warn(text::one_line(note));
    }
    out.json(sent)
}

/// A message as it is sent, in one line, or with `--json` as a document in one line.
pub fn event(context: &Context, event: &MessageEvent) -> Result<(), CliError> {
    if context.out.is_json() {
        return context.out.raw(format_args!("{}\n", serde_json::to_string(event).unwrap_or_default()));
    }
    context.out.line(line(event))
}

fn line(event: &MessageEvent) -> String {
    let time = event.time.parse::<Timestamp>();
    let time = time.map_or_else(|_| text::one_line(&event.time), |time| time.strftime("%H:%M:%S%.3f").to_string());
    let talk = format!("{} -> {}", text::one_line(&event.sender), text::one_line(&event.receivers.join(", ")));
    let does = paint(BOLD, text::one_line(&event.performative));
    let said = event.text.as_deref().map(|said| format!(" {}", text::one_line(said))).unwrap_or_default();
    let facts = format!("({} #{})", text::one_line(&event.conversation), event.number);
    format!("{} {talk:<24} {does}{said} {}", paint(DIM, time), paint(DIM, facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_a_line_and_cannot_move_the_cursor() {
        let event = MessageEvent {
            position: 7,
            conversation: "c1".into(),
            number: 3,
            time: "2026-11-21T08:00:01.250Z".into(),
            performative: "inform".into(),
            sender: "ping".into(),
            receivers: vec!["pong".into(), "subject:ann".into()],
            id: "00".into(),
            text: Some("hello\u{1b}[2J\nworld".into()),
        };
        let text = anstream::adapter::strip_str(&line(&event)).to_string();
        assert_eq!(text, "08:00:01.250 ping -> pong, subject:ann inform hello[2J (c1 #3)");
    }

    #[test]
    fn a_message_of_any_kind_has_a_beginning() {
        let said = |json| says(&serde_json::from_str(json).expect("JSON"));
        assert_eq!(said(r#"{"content": "two\nlines"}"#), "two");
        assert_eq!(said(r#"{"content": {"a": 1}}"#), r#"{"a":1}"#);
        assert_eq!(said(r#"{"content_artifact": {"digest": "ab", "bytes": 1}}"#), "(artifact ab)");
        assert_eq!(said("{}"), "");
        assert_eq!(field(&serde_json::json!({ "receiver": ["a", "b"] }), "receiver"), "a, b");
    }
}
