//! A tool that logs without end fills neither the log nor the memory, and forges no line.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use caxton_tools::{CallContext, Grants, Kind, Limits, Settings};
use common::*;
use serde_json::json;
use std::fmt;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps every line that this thread logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("caxton")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_tool_that_logs_without_end_is_cut_short_and_still_answers() {
    let bench = Bench::new(Settings::default());
    let tool = bench.load(Kind::Command, &chatterbox(), Limits::default(), Grants::default()).unwrap();
    let lines = Lines::default();
    let called =
        tracing::subscriber::with_default(lines.clone(), || tool.call_here("t", json!({}), CallContext::default()));
    assert!(called.result.is_ok(), "{called:?}");
    let lines = lines.0.lock().unwrap();
    let from_the_tool: Vec<_> = lines.iter().filter(|line| line.contains("a line")).collect();
    assert_eq!(from_the_tool.len(), 100, "{lines:?}");
    // What would colour the operator's terminal, or begin a line of its own, is not in them.
    assert!(from_the_tool.iter().all(|line| !line.contains(char::is_control)), "{from_the_tool:?}");
    assert!(lines.iter().any(|line| line.contains("logs too much")), "{lines:?}");
    assert!(lines.len() < 110, "{lines:?}");
}
