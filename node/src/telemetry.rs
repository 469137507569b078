//! Logs to stderr, traces to a collector, metrics to whoever scrapes `/metrics`.
//!
//! Never prompts, tool inputs or tokens in any of them.

pub mod labels;

mod lines;

pub mod propagation;

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogFormat, Telemetry as Settings};
use lines::WithTraceId;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The collector's address is of no use.
    #[error("traces cannot be sent to {endpoint}; check `telemetry.otlp_endpoint`")]
    Exporter {
        endpoint: String,
        /// What is wrong.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The filter is none.
    #[error("`telemetry.filter` is no filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Something else in this process writes the log already.
    #[error("the log was set up before")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// What has to be flushed before the process ends.
#[must_use = "spans that are not flushed are lost"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logs and traces for the whole process. Must run inside a tokio runtime when traces are exported.
    pub fn start(settings: &Settings) -> Result<Telemetry, TelemetryError> {
        let pretty = match settings.log_format {
            LogFormat::Auto => std::io::stderr().is_terminal(),
            LogFormat::Pretty => true,
            LogFormat::Json => false,
        };
        let traces = traces(settings)?;
        let subscriber = subscriber(settings, pretty, std::io::stderr, traces.as_ref())?;
        tracing::subscriber::set_global_default(subscriber).map_err(TelemetryError::Twice)?;
        Ok(Telemetry { traces })
    }

    /// Sends what is left. Blocks for at most `telemetry.otlp_timeout`.
    pub fn stop(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// The exporter of traces, when there is a collector.
fn traces(settings: &Settings) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    if settings.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let endpoint = settings.otlp_endpoint.clone();
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(&endpoint).with_timeout(settings.otlp_timeout).build();
    let exporter = exporter.map_err(|source| TelemetryError::Exporter { endpoint, source })?;
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
}

/// What replicates the log has words of its own for everything, many a second while a peer is away, and what matters of it
/// the node says itself: its lines are written only where the filter names it.
fn with_own_words(filter: &str) -> String {
    if filter.contains("openraft") { filter.to_owned() } else { format!("{filter},openraft=off") }
}

/// Where log lines and spans go.
fn subscriber<W>(
    settings: &Settings,
    pretty: bool,
    writer: W,
    traces: Option<&SdkTracerProvider>,
) -> Result<impl Subscriber + Send + Sync + use<W>, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = || EnvFilter::try_new(with_own_words(&settings.filter)).map_err(TelemetryError::Filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if pretty {
        let ansi = std::io::stderr().is_terminal();
        lines.with_ansi(ansi).with_target(false).compact().with_filter(filter()?).boxed()
    } else {
        let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
        lines.map_event_format(WithTraceId).with_filter(filter()?).boxed()
    };
    // Spans are exported whatever the log's filter says: a quiet log must not blind the collector. The exporter's own
    // spans stay out, or each export would cause the next.
    let spans = traces.map(|traces| {
        let own = EnvFilter::new("info,h2=off,hyper=off,tonic=off,tower=off,opentelemetry=off,opentelemetry_sdk=off");
        tracing_opentelemetry::layer().with_tracer(traces.tracer("caxton")).with_filter(own)
    });
    Ok(tracing_subscriber::registry().with(lines).with(spans))
}

/// Seconds, for how long requests and deployments take.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The process's metrics. There is one recorder per process, because the macros of `metrics` know only one.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another recorder of metrics is there already; /metrics stays empty");
            }
            describe();
            handle
        })
        .clone()
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("caxton_http_requests_total", "Requests answered, by route, method and status.");
    describe_histogram!(
        "caxton_http_request_seconds",
        Unit::Seconds,
        "Time from a request's head to its answer's head."
    );
    describe_gauge!("caxton_http_connections", "Open connections.");
    describe_gauge!("caxton_event_streams", "Open event streams.");
    describe_gauge!("caxton_log_applied_index", "The deploy log's index that this node has applied.");
    describe_gauge!("caxton_log_term", "The deploy log's term.");
    describe_gauge!("caxton_log_is_leader", "1 when this node leads the deploy log.");
    describe_counter!(
        "caxton_shard_refused_entries_total",
        "Entries of a shard's log that no replica could apply, by tenant. Each is a defect."
    );
    describe_gauge!("caxton_mailbox_messages", "Messages in mailboxes, dead letters apart, by workspace.");
    describe_gauge!("caxton_mailbox_bytes", Unit::Bytes, "What lies in mailboxes, by workspace.");
    describe_gauge!(
        "caxton_mailbox_oldest_seconds",
        Unit::Seconds,
        "How long the oldest message has waited for its first attempt, by workspace."
    );
    describe_gauge!("caxton_mailbox_dead_letters", "Dead letters, by workspace and by the kind of their reason.");
    describe_counter!("caxton_mailbox_redeliveries_total", "Deliveries that failed and are tried again.");
    describe_counter!("caxton_mailbox_dead_letters_total", "Deliveries that became dead letters as they were settled.");
    describe_counter!("caxton_schedule_ticks_total", "Ticks of schedules, by outcome: sent, or refused.");
    describe_gauge!("caxton_workspaces", "Workspaces in the deploy log.");
    describe_counter!("caxton_deployments_total", "Deployments that were accepted, over all workspaces.");
    describe_gauge!("caxton_agents", "Agents that this node serves.");
    describe_gauge!("caxton_tokens", "Tokens that the log holds, those that were revoked or expired included.");
    describe_gauge!("caxton_disk_free_bytes", Unit::Bytes, "What is free on the disk of the data directory.");
    describe_gauge!("caxton_uptime_seconds", Unit::Seconds, "Time since the node started.");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Resident memory.");
    describe_gauge!("process_open_fds", "Open file descriptors.");
    describe_gauge!("process_threads", "Threads.");
}

#[cfg(test)]
mod tests;
