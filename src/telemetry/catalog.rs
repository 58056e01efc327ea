//! The catalog of metrics: names, units, labels, stability. `docs/metrics.md` shows it.
//!
//! Does: be the one place where a metric's name and help stand. Does not: hold values (`metrics`,
//! `http`, `process`, `pools`). Invariant: a metric that is registered is in [`CATALOG`], with a
//! row in the page; a test compares all three.

use prometheus_client::registry::{Metric, Registry, Unit};

/// Kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, count and sum.
    Histogram,
    /// Labels that describe the process; its name ends in `_info`.
    Info,
}

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// How far a name may be relied upon.
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
    /// Kind.
    pub kind: Kind,
    /// Unit.
    pub measure: Measure,
    /// Labels; each a bounded set.
    pub labels: &'static [&'static str],
    /// How far it may be relied upon.
    pub stability: Stability,
    /// What it says, without a full stop.
    pub help: &'static str,
}

impl Definition {
    /// The name as scraped.
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

    /// The unit for the registry.
    pub fn unit(&self) -> Option<Unit> {
        match self.measure {
            Measure::Count => None,
            Measure::Bytes => Some(Unit::Bytes),
            Measure::Seconds => Some(Unit::Seconds),
        }
    }

    /// Puts a metric of this definition into a registry.
    pub fn register(&self, registry: &mut Registry, metric: impl Metric) {
        match self.unit() {
            Some(unit) => registry.register_with_unit(self.name, self.help, unit, metric),
            None => registry.register(self.name, self.help, metric),
        }
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
        /// Every metric that the daemon itself defines, in the order of the page.
        pub const CATALOG: &[Definition] = &[$($ident),*];
    };
}

catalog! {
    BUILD: Info Count Stable "stopover_build" ["version"]
        "Version of the daemon; the value is always 1";
    BATCHES: Counter Count Stable "stopover_batches" [] "Batches accepted";
    BATCHES_REPEATED: Counter Count Stable "stopover_batches_repeated" []
        "Batches that had been accepted before and were answered as repeats";
    PAGES_WRITTEN: Counter Count Stable "stopover_pages_written" [] "Pages accepted";
    BYTES_WRITTEN: Counter Bytes Stable "stopover_pages_written" [] "Page bytes accepted";
    SEGMENTS_WRITTEN: Counter Count Stable "stopover_segments_written" [] "Segments uploaded";
    SEGMENT_BYTES_WRITTEN: Counter Bytes Stable "stopover_segments_written" []
        "Bytes of segments uploaded, footers included";
    SINKS_FINISHED: Counter Count Stable "stopover_sinks_finished" []
        "Sinks finished: their attempts are committed";
    SINKS_ABORTED: Counter Count Stable "stopover_sinks_aborted" [] "Sinks aborted";
    SINKS_FAILED: Counter Count Stable "stopover_sinks_failed" []
        "Sinks whose data could not be written; Trino runs their tasks again";
    SINKS_OPEN: Gauge Count Stable "stopover_sinks_open" [] "Sinks open now";
    EXCHANGES_OPEN: Gauge Count Stable "stopover_exchanges_open" []
        "Exchanges that this daemon writes now";
    UPLOADS_IN_FLIGHT: Gauge Count Stable "stopover_uploads_in_flight" [] "Uploads under way";
    READS: Counter Count Stable "stopover_reads" [] "Reads begun";
    PAGES_READ: Counter Count Stable "stopover_pages_read" [] "Pages served";
    BYTES_READ: Counter Bytes Stable "stopover_pages_read" [] "Page bytes served";
    CACHE_HIT_BYTES: Counter Bytes Stable "stopover_read_from_memory" []
        "Bytes for reads that lay in memory: written by this daemon or fetched before";
    CACHE_MISS_BYTES: Counter Bytes Stable "stopover_read_fetched" []
        "Bytes for reads that were fetched from a base directory";
    CORRUPTIONS: Counter Count Stable "stopover_corruptions" []
        "Checks of integrity that failed while reading or planning; anything but 0 deserves a look";
    EXCHANGES_CLOSED: Counter Count Stable "stopover_exchanges_closed" []
        "Exchanges closed by clients";
    EXCHANGES_COLLECTED: Counter Count Stable "stopover_exchanges_collected" []
        "Exchanges whose lease had run out, collected by the sweeper";
    HTTP_REQUESTS: Counter Count Stable "stopover_http_requests" ["route", "method", "status"]
        "Requests answered, by route pattern, method and class of status, 2xx to 5xx or left";
    HTTP_DURATION: Histogram Seconds Stable "stopover_http_request_duration" ["route", "method"]
        "From the head of a request to the last byte of its answer, with waiting for memory";
    HTTP_IN_FLIGHT: Gauge Count Stable "stopover_http_requests_in_flight" []
        "Requests whose answer is not complete";
    CREDENTIAL_RELOADS: Counter Count Stable "stopover_credentials_reloads" ["what", "outcome"]
        "Changed files of tokens or certificates, read again; outcome: ok, refused";
    CREDENTIALS_STALE: Gauge Count Stable "stopover_credentials_stale" ["what"]
        "1 while a changed file of tokens or certificates cannot be used: the old one is in force";
    HANDSHAKES_FAILED: Counter Count Stable "stopover_tls_handshakes_failed" []
        "TLS handshakes that failed or took longer than limits.header_timeout";
    MEMORY_CAPACITY: Gauge Bytes Stable "stopover_memory_capacity" ["pool"]
        "Bytes that a pool of the memory budget may grant";
    MEMORY_USED: Gauge Bytes Stable "stopover_memory_used" ["pool"] "Bytes granted now";
    MEMORY_WAITING: Gauge Bytes Stable "stopover_memory_waiting" ["pool"]
        "Bytes that callers wait for now; above 0 for long means the budget is the bottleneck";
    MEMORY_WAITING_QUERIES: Gauge Count Stable "stopover_memory_waiting_queries" ["pool"]
        "Queries that wait for memory now";
    MEMORY_LIMITED_QUERIES: Gauge Count Stable "stopover_memory_limited_queries" ["pool"]
        "Queries that wait because they are at their own limit of memory";
    REQUESTS_WAITING: Gauge Count Stable "stopover_requests_waiting" ["kind"]
        "Requests that wait for a slot of limits.max_concurrent_reads or of their query";
    PROCESS_CPU: Counter Seconds Stable "process_cpu" []
        "User and system CPU time spent";
    PROCESS_RESIDENT: Gauge Bytes Stable "process_resident_memory" [] "Resident memory";
    PROCESS_FDS: Gauge Count Stable "process_open_fds" [] "Open file descriptors";
    PROCESS_START: Gauge Seconds Stable "process_start_time" []
        "Start of the process, in seconds since 1970";
}
