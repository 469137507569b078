//! A trace goes on from whoever asks to whoever is asked (W3C Trace Context): `traceparent` and `tracestate`, in both directions.
//!
//! Where no traces are exported there are no spans to name, and a request that is passed on keeps the headers that it came with.

use caxton_tools::TraceContext;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Given<'a>(&'a HeaderMap);

impl Extractor for Given<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

/// Makes a span, which nobody entered yet, part of the trace that a request names, if it names one, and records the trace's
/// id in the span's field `trace_id`, from which log lines take it.
pub fn continues(span: &Span, headers: &HeaderMap) {
    let named = headers.contains_key("traceparent").then(|| TraceContextPropagator::new().extract(&Given(headers)));
    if let Some(named) = &named {
        // Without an exporter there is nothing to continue.
        _ = span.set_parent(named.clone());
    }
    // Where no traces are made, the id is the one that the request came with.
    let contexts = [Some(span.context()), named];
    let mut ids = contexts.iter().flatten().map(|context| context.span().span_context().clone());
    if let Some(context) = ids.find(SpanContext::is_valid) {
        span.record("trace_id", context.trace_id().to_string().as_str());
    }
}

/// Names the current span to whoever gets these headers.
pub fn inject(headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Sent(headers));
}

/// The place of the current span in its trace; nothing where no traces are made.
pub fn here() -> Option<TraceContext> {
    let mut headers = HeaderMap::new();
    inject(&mut headers);
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Some(TraceContext { parent: text("traceparent")?, state: text("tracestate") })
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_goes_on_below_the_span_that_a_request_names() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(GIVEN));
            let request = tracing::info_span!("request");
            continues(&request, &headers);
            let below = request.in_scope(|| tracing::info_span!("chat"));
            let mut sent = HeaderMap::new();
            below.in_scope(|| inject(&mut sent));
            let sent = sent["traceparent"].to_str().expect("text");
            assert!(sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent != GIVEN, "{sent}");
        });
    }

    #[test]
    fn without_an_exporter_a_request_keeps_what_it_came_with() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static(GIVEN));
        inject(&mut headers);
        assert_eq!(headers["traceparent"], GIVEN);
    }
}
