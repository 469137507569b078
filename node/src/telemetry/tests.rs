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

#[test]
fn metrics_are_rendered_for_prometheus() {
    let handle = metrics();
    ::metrics::histogram!("caxton_test_seconds").record(0.003);
    ::metrics::counter!("caxton_test_total", "route" => "/x").increment(2);
    let text = handle.render();
    assert!(text.contains("caxton_test_total{route=\"/x\"} 2"), "{text}");
    assert!(text.contains("caxton_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
}
