//! Log lines as JSON, each with the id of the trace that it belongs to, so that a collector's traces and the lines are found by
//! each other.
//!
//! The id stands in the span of the request; a line that is written further below, in the span of a turn or of a call, would
//! not have it by itself.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// How the field looks in a span's fields, which are JSON: within a text its quotes would have backslashes.
const FIELD: &str = "\"trace_id\":\"";

/// Lines of JSON in the form of `F`, with `trace_id` as their last name where the event is part of a trace.
pub(super) struct WithTraceId<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for WithTraceId<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(id) = trace_id(context) else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        match line.trim_end().strip_suffix('}') {
            Some(open) => writeln!(writer, "{open},{FIELD}{id}\"}}"),
            None => writer.write_str(&line),
        }
    }
}

/// The id that the nearest span around the event has.
fn trace_id<S, N>(context: &FmtContext<'_, S, N>) -> Option<String>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    context.event_scope()?.find_map(|span| {
        let extensions = span.extensions();
        let (_, rest) = extensions.get::<FormattedFields<N>>()?.fields.split_once(FIELD)?;
        let id: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        (!id.is_empty()).then_some(id)
    })
}
