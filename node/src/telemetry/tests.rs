//! Telemetry against a real collector, and real lines.

use std::io;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};

use super::*;
use crate::config::{Draft, Home};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut seen = self.0.lock().expect("free");
        for resource in request.into_inner().resource_spans {
            let named = format!("{:?}", resource.resource);
            assert!(named.contains("caxton-under-test"), "{named}");
            seen.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| span.name));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("free").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(set: &[&str]) -> Settings {
    let mut draft = Draft::default();
    set.iter().for_each(|set| draft.set(set));
    let home = Home { home: Some("/home/ada".into()), data: None };
    draft.check(&home).expect("settings").telemetry
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_even_when_the_log_is_quiet() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("telemetry.otlp_endpoint=http://{}", listener.local_addr().expect("an address"));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

    let settings = settings(&[&endpoint, "telemetry.service_name=caxton-under-test", "telemetry.filter=error"]);
    let traces = traces(&settings).expect("an exporter");
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(&settings, false, move || writer.clone(), traces.as_ref()).expect("a subscriber");
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("deployment", workspace = "demo").in_scope(|| tracing::info!("not in the log"));
        tracing::error!(code = 7, "in the log");
    });
    let telemetry = Telemetry { traces };
    tokio::task::spawn_blocking(|| telemetry.stop()).await.expect("stops");
    assert_eq!(*collector.0.lock().expect("free"), ["deployment"]);

    let text = String::from_utf8(lines.0.lock().expect("free").clone()).expect("text");
    let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("ERROR"), Some("in the log")));
    assert_eq!(line["code"], 7);
}

/// The lines that a request with this header writes: one in its own span, and one further below.
fn lines_of_a_request(traceparent: Option<&'static str>, traces: Option<&SdkTracerProvider>) -> Vec<serde_json::Value> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(&settings(&[]), false, move || writer.clone(), traces).expect("a subscriber");
    tracing::subscriber::with_default(subscriber, || {
        let headers = traceparent
            .map(|text| (http::HeaderName::from_static("traceparent"), http::HeaderValue::from_static(text)));
        let request = tracing::info_span!("request", route = "/x", trace_id = tracing::field::Empty);
        propagation::continues(&request, &headers.into_iter().collect());
        request.in_scope(|| {
            tracing::info!("above");
            // What somebody else wrote into a field is no id.
            tracing::info_span!("turn", agent = "\"trace_id\":\"bad\"").in_scope(|| tracing::info!(code = 7, "below"));
        });
    });
    let text = String::from_utf8(lines.0.lock().expect("free").clone()).expect("text");
    let read =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<_> = text.lines().map(read).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((lines[0]["message"].as_str(), lines[1]["code"].as_u64()), (Some("above"), Some(7)));
    lines
}

#[test]
fn every_line_of_a_request_has_the_id_of_its_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let made = SdkTracerProvider::builder().build();
    for traces in [None, Some(&made)] {
        for line in lines_of_a_request(Some(GIVEN), traces) {
            assert_eq!(line["trace_id"], TRACE, "{line}");
        }
    }
    // A trace that begins here has one as well; without traces there is none to name.
    let own = lines_of_a_request(None, Some(&made));
    assert!(own[0]["trace_id"].as_str().is_some_and(|id| id.len() == 32 && id != TRACE), "{own:?}");
    assert_eq!(own[0]["trace_id"], own[1]["trace_id"]);
    for line in lines_of_a_request(None, None).into_iter().chain(lines_of_a_request(Some("nonsense"), None)) {
        assert!(line.get("trace_id").is_none(), "{line}");
    }
}

#[test]
fn metrics_are_rendered_for_prometheus() {
    let handle = metrics();
    ::metrics::histogram!("caxton_test_seconds").record(0.003);
    ::metrics::counter!("caxton_test_total", "route" => "/x").increment(2);
    let text = handle.render();
    assert!(text.contains("caxton_test_total{route=\"/x\"} 2"), "{text}");
    assert!(text.contains("caxton_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
}
