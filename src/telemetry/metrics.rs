//! The daemon's counters and gauges.
//!
//! Does: hold and register them. Does not: name or describe them (`catalog`), or decide when
//! something is counted. Invariant: no label holds an exchange id.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::catalog;
use super::series::create_series;

/// The metrics; each is described in `catalog`.
#[derive(Debug, Default)]
pub struct Metrics {
    pub batches: Counter,
    pub batches_repeated: Counter,
    pub pages_written: Counter,
    pub bytes_written: Counter,
    pub foreign_bytes_written: Counter,
    pub foreign_refused: Counter,
    pub segments_written: Counter,
    pub segment_bytes_written: Counter,
    pub sinks_finished: Counter,
    pub sinks_aborted: Counter,
    pub sinks_failed: Counter,
    pub sinks_open: Gauge,
    pub exchanges_with_sinks: Gauge,
    /// By age, which `ingest` defines.
    pub exchanges_by_age: Family<[(&'static str, &'static str); 1], Gauge>,
    pub accepts_exchanges: Gauge,
    pub uploads_in_flight: Gauge,
    pub reads: Counter,
    pub pages_read: Counter,
    pub bytes_read: Counter,
    pub cache_hit_bytes: Counter,
    pub cache_miss_bytes: Counter,
    pub integrity_failures: Counter,
    pub exchanges_closed: Counter,
    pub exchanges_collected: Counter,
    pub renewals_refused: Counter,
    pub sweeper: Gauge,
    pub digests_refused: Counter,
    pub spans_exported: Counter,
    spans_dropped: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Why a span was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// More spans ended than were exported.
    QueueFull,
    /// The collector did not accept its batch, or did not answer.
    ExportFailed,
    /// The collector accepted others of its batch.
    Rejected,
}

impl DropReason {
    const ALL: [Self; 3] = [Self::QueueFull, Self::ExportFailed, Self::Rejected];

    fn label(self) -> [(&'static str, &'static str); 1] {
        let reason = match self {
            Self::QueueFull => "queue_full",
            Self::ExportFailed => "export_failed",
            Self::Rejected => "rejected",
        };
        [("reason", reason)]
    }
}

impl Metrics {
    /// Counts spans that were not exported.
    pub fn count_dropped_spans(&self, reason: DropReason, count: u64) {
        let dropped = self.spans_dropped.get_or_create(&reason.label());
        dropped.inc_by(count);
    }

    /// How many spans were not exported for this reason.
    pub fn dropped_spans(&self, reason: DropReason) -> u64 {
        self.spans_dropped.get_or_create(&reason.label()).get()
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            (&catalog::BATCHES, &self.batches),
            (&catalog::BATCHES_REPEATED, &self.batches_repeated),
            (&catalog::PAGES_WRITTEN, &self.pages_written),
            (&catalog::BYTES_WRITTEN, &self.bytes_written),
            (&catalog::FOREIGN_BYTES_WRITTEN, &self.foreign_bytes_written),
            (&catalog::FOREIGN_REFUSED, &self.foreign_refused),
            (&catalog::SEGMENTS_WRITTEN, &self.segments_written),
            (&catalog::SEGMENT_BYTES_WRITTEN, &self.segment_bytes_written),
            (&catalog::SINKS_FINISHED, &self.sinks_finished),
            (&catalog::SINKS_ABORTED, &self.sinks_aborted),
            (&catalog::SINKS_FAILED, &self.sinks_failed),
            (&catalog::READS, &self.reads),
            (&catalog::PAGES_READ, &self.pages_read),
            (&catalog::BYTES_READ, &self.bytes_read),
            (&catalog::CACHE_HIT_BYTES, &self.cache_hit_bytes),
            (&catalog::CACHE_MISS_BYTES, &self.cache_miss_bytes),
            (&catalog::INTEGRITY_FAILURES, &self.integrity_failures),
            (&catalog::EXCHANGES_CLOSED, &self.exchanges_closed),
            (&catalog::EXCHANGES_COLLECTED, &self.exchanges_collected),
            (&catalog::RENEWALS_REFUSED, &self.renewals_refused),
            (&catalog::DIGESTS_REFUSED, &self.digests_refused),
            (&catalog::SPANS_EXPORTED, &self.spans_exported),
        ];
        for (definition, counter) in counters {
            definition.register(registry, counter.clone());
        }
        create_series(&self.spans_dropped, DropReason::ALL.map(DropReason::label));
        catalog::SPANS_DROPPED.register(registry, self.spans_dropped.clone());
        catalog::EXCHANGES_BY_AGE.register(registry, self.exchanges_by_age.clone());
        let gauges = [
            (&catalog::SINKS_OPEN, &self.sinks_open),
            (&catalog::EXCHANGES_WITH_SINKS, &self.exchanges_with_sinks),
            (&catalog::ACCEPTS_EXCHANGES, &self.accepts_exchanges),
            (&catalog::UPLOADS_IN_FLIGHT, &self.uploads_in_flight),
            (&catalog::SWEEPER, &self.sweeper),
        ];
        for (definition, gauge) in gauges {
            definition.register(registry, gauge.clone());
        }
    }
}
