//! The catalog of metrics: name, unit, labels, stability and help of each.
//!
//! Does: define the metrics of the daemon (those of base directories are in `store::metrics`). Does
//! not: hold values (`metrics`, `http`, `pools` and so on). Invariant: a registered metric is in
//! [`CATALOG`] and has a row in `docs/metrics.md`; a test compares all three.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only increases; its name ends in `_total`.
    Counter,
    /// Increases and decreases.
    Gauge,
    Histogram,
    /// Labels that describe the process; its name ends in `_info`.
    Info,
}

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// A plain number.
    Count,
    Bytes,
    Seconds,
}

/// Stability of a metric's name and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Renamed only with a new major version.
    Stable,
    /// May change with any version.
    Internal,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Name without the suffixes of unit and kind.
    pub name: &'static str,
    pub kind: Kind,
    pub measure: Measure,
    /// Labels; the values of each are a bounded set.
    pub labels: &'static [&'static str],
    pub stability: Stability,
    /// Help text, without a full stop.
    pub help: &'static str,
}

impl Definition {
    /// The name in a scrape, with the suffixes.
    pub fn full_name(&self) -> String {
        let unit = self
            .unit()
            .map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{unit}{suffix}", self.name)
    }

    /// The unit in the registry's type.
    pub fn unit(&self) -> Option<&'static Unit> {
        match self.measure {
            Measure::Count => None,
            Measure::Bytes => Some(&Unit::Bytes),
            Measure::Seconds => Some(&Unit::Seconds),
        }
    }

    /// Registers a metric under this definition.
    pub fn register(&self, registry: &mut Registry, metric: impl Metric) {
        match self.unit() {
            Some(unit) => registry.register_with_unit(self.name, self.help, unit.clone(), metric),
            None => registry.register(self.name, self.help, metric),
        }
    }

    /// Starts the output of a counter or gauge.
    ///
    /// # Errors
    /// Those of the output.
    pub fn encode<'a>(
        &'a self,
        encoder: &'a mut DescriptorEncoder<'_>,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            _ => MetricType::Gauge,
        };
        encoder.encode_descriptor(self.name, self.help, self.unit(), kind)
    }

    /// Its row in `docs/metrics.md`.
    pub fn row(&self) -> String {
        let labels = self.labels.join(", ");
        format!(
            "| `{}` | {:?} | {labels} | {:?} | {} |",
            self.full_name(),
            self.kind,
            self.stability,
            self.help
        )
        .replace("  ", " ")
    }
}

/// Defines metrics as constants, and `CATALOG` of them.
macro_rules! catalog {
    ($($ident:ident: $kind:ident $measure:ident $stability:ident
        $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $ident: Definition = Definition {
                name: $name,
                kind: Kind::$kind,
                measure: Measure::$measure,
                labels: &[$($label),*],
                stability: Stability::$stability,
                help: $help,
            };
        )*
        /// Every metric of this file, in the order of `docs/metrics.md`.
        pub const CATALOG: &[Definition] = &[$($ident),*];
    };
}
pub(crate) use catalog;

catalog! {
    BUILD: Info Count Stable "stopover_build" ["version", "run"]
        "Version of the daemon and id of its run; the value is always 1";
    BATCHES: Counter Count Stable "stopover_batches" [] "Batches accepted";
    BATCHES_REPEATED: Counter Count Stable "stopover_batches_repeated" []
        "Batches that had been accepted before and were answered as duplicates";
    PAGES_WRITTEN: Counter Count Stable "stopover_pages_written" [] "Pages accepted";
    BYTES_WRITTEN: Counter Bytes Stable "stopover_pages_written" [] "Page bytes accepted";
    FOREIGN_BYTES_WRITTEN: Counter Bytes Stable "stopover_foreign_pages_written" []
        "Page bytes accepted of foreign sinks: small outputs of other nodes";
    FOREIGN_REFUSED: Counter Count Stable "stopover_foreign_batches_refused" []
        "Batches of foreign sinks refused for lack of memory; they go to their own daemons";
    SEGMENTS_WRITTEN: Counter Count Stable "stopover_segments_written" [] "Segments uploaded";
    SEGMENT_BYTES_WRITTEN: Counter Bytes Stable "stopover_segments_written" []
        "Bytes of segments uploaded, footers included";
    SINKS_FINISHED: Counter Count Stable "stopover_sinks_finished" []
        "Sinks finished: their attempts are committed";
    SINKS_ABORTED: Counter Count Stable "stopover_sinks_aborted" [] "Sinks aborted";
    SINKS_FAILED: Counter Count Stable "stopover_sinks_failed" []
        "Sinks whose pages could not be stored; Trino retries their tasks";
    SINKS_OPEN: Gauge Count Stable "stopover_sinks_open" [] "Open sinks";
    EXCHANGES_WITH_SINKS: Gauge Count Stable "stopover_exchanges_with_sinks" []
        "Exchanges that this daemon has had sinks of and has not found closed yet";
    EXCHANGES_BY_AGE: Gauge Count Stable "stopover_exchanges_by_age" ["age"]
        "The same by the time since their first sink here; age: below 1m, 10m, 1h or 1d, or older";
    ACCEPTS_EXCHANGES: Gauge Count Stable "stopover_accepts_exchanges" []
        "1 if new exchanges can be opened, 0 while the start or a base directory prevents it";
    UPLOADS_IN_FLIGHT: Gauge Count Stable "stopover_uploads_in_flight" [] "Uploads in progress";
    READS: Counter Count Stable "stopover_reads" [] "Reads started";
    PAGES_READ: Counter Count Stable "stopover_pages_read" [] "Pages served";
    BYTES_READ: Counter Bytes Stable "stopover_pages_read" [] "Page bytes served";
    CACHE_HIT_BYTES: Counter Bytes Stable "stopover_read_from_memory" []
        "Bytes served to reads from memory";
    CACHE_MISS_BYTES: Counter Bytes Stable "stopover_read_fetched" []
        "Bytes fetched from a base directory for reads";
    INTEGRITY_FAILURES: Counter Count Stable "stopover_integrity_failures" []
        "Integrity checks that failed while reading or planning; alert on anything but 0";
    EXCHANGES_CLOSED: Counter Count Stable "stopover_exchanges_closed" []
        "Exchanges closed by clients";
    EXCHANGES_COLLECTED: Counter Count Stable "stopover_exchanges_collected" []
        "Exchanges collected because their lease had expired";
    RENEWALS_REFUSED: Counter Count Stable "stopover_renewals_refused" []
        "Renewals of exchanges that were not open any more; after a collection: of a live query";
    SWEEPER: Gauge Count Stable "stopover_sweeper" []
        "1 at the daemon that sweeps for the fleet; without one nothing is collected";
    DIGESTS_REFUSED: Counter Count Stable "stopover_digests_refused" []
        "Digests of the sweeper that were damaged, too large, or not written by Stopover";
    SPANS_EXPORTED: Counter Count Stable "stopover_spans_exported" []
        "Spans exported to the collector of tracing.collector";
    SPANS_DROPPED: Counter Count Stable "stopover_spans_dropped" ["reason"]
        "Spans not exported; reason: queue_full, export_failed, rejected";
    LOG_LINES_LOST: Counter Count Stable "stopover_log_lines_lost" []
        "Lines of the log that were lost because its reader was too slow";
    HTTP_REQUESTS: Counter Count Stable "stopover_http_requests" ["route", "method", "status"]
        "Requests answered, by route pattern, method and status class (1xx to 5xx, or client_gone)";
    HTTP_DURATION: Histogram Seconds Stable "stopover_http_request_duration" ["route", "method"]
        "Time from the head of a request to the last byte of its response, memory waits included";
    HTTP_IN_FLIGHT: Gauge Count Stable "stopover_http_requests_in_flight" []
        "Requests whose response is not complete";
    CREDENTIAL_RELOADS: Counter Count Stable "stopover_credentials_reloads"
        ["credential", "outcome"]
        "Reloads of changed token or certificate files; outcome: ok, refused";
    CREDENTIALS_STALE: Gauge Count Stable "stopover_credentials_stale" ["credential"]
        "1 while a changed token or certificate file is invalid and the previous one is used";
    CREDENTIALS_NOT_BEFORE: Gauge Seconds Stable "stopover_credentials_not_before" ["credential"]
        "Since when a credential is valid, in seconds since 1970; tls: the certificate chain";
    CREDENTIALS_NOT_AFTER: Gauge Seconds Stable "stopover_credentials_not_after" ["credential"]
        "When a credential expires, in seconds since 1970; tls: the first certificate of the chain";
    HANDSHAKES_FAILED: Counter Count Stable "stopover_tls_handshakes_failed" []
        "TLS handshakes that failed or took longer than limits.header_timeout";
    MEMORY_CAPACITY: Gauge Bytes Stable "stopover_memory_capacity" ["pool"]
        "Capacity of a memory pool";
    MEMORY_USED: Gauge Bytes Stable "stopover_memory_used" ["pool"]
        "Bytes reserved in a memory pool";
    MEMORY_WAITING: Gauge Bytes Stable "stopover_memory_waiting" ["pool"]
        "Bytes of waiting reservations; above 0 for long means that the budget is the bottleneck";
    MEMORY_WAITING_QUERIES: Gauge Count Stable "stopover_memory_waiting_queries" ["pool"]
        "Queries with a waiting reservation";
    MEMORY_LIMITED_QUERIES: Gauge Count Stable "stopover_memory_limited_queries" ["pool"]
        "Queries with a reservation that waits because of the query's own limit";
    SLOT_WAITERS: Gauge Count Stable "stopover_slot_waiters" ["direction"]
        "Requests that wait for a slot: limits.max_concurrent_reads or the limits of their query";
    CLOCK: Gauge Seconds Stable "stopover_clock" []
        "The daemon's wall clock at the scrape, in seconds since 1970";
    PROCESS_CPU: Counter Seconds Stable "process_cpu" []
        "User and system CPU time spent";
    PROCESS_RESIDENT: Gauge Bytes Stable "process_resident_memory" [] "Resident memory";
    PROCESS_FDS: Gauge Count Stable "process_open_fds" [] "Open file descriptors";
    PROCESS_START: Gauge Seconds Stable "process_start_time" []
        "Start of the process, in seconds since 1970";
}
