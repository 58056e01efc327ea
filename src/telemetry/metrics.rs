//! The daemon's own counters and gauges, as typed handles.
//!
//! Does: hold the values and put them into a registry. Does not: name them (`catalog`) or decide
//! when something is counted. Invariant: labels are bounded sets (never an exchange id).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::catalog;

/// Handles to all metrics; clone the `Arc` that holds them.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Batches accepted.
    pub batches: Counter,
    /// Batches that were repeats.
    pub batches_repeated: Counter,
    /// Pages accepted.
    pub pages_written: Counter,
    /// Page bytes accepted.
    pub bytes_written: Counter,
    /// Segments uploaded.
    pub segments_written: Counter,
    /// Bytes of segments uploaded.
    pub segment_bytes_written: Counter,
    /// Sinks finished.
    pub sinks_finished: Counter,
    /// Sinks aborted.
    pub sinks_aborted: Counter,
    /// Sinks whose data could not be written.
    pub sinks_failed: Counter,
    /// Sinks open now.
    pub sinks_open: Gauge,
    /// Exchanges this daemon writes now.
    pub exchanges_open: Gauge,
    /// Uploads under way.
    pub uploads_in_flight: Gauge,
    /// Reads begun.
    pub reads: Counter,
    /// Pages served.
    pub pages_read: Counter,
    /// Page bytes served.
    pub bytes_read: Counter,
    /// Read bytes that came from memory: written here or fetched before.
    pub cache_hit_bytes: Counter,
    /// Read bytes that were fetched from a base directory.
    pub cache_miss_bytes: Counter,
    /// Checks of integrity that failed while reading or planning.
    pub corruptions: Counter,
    /// Exchanges closed by clients.
    pub exchanges_closed: Counter,
    /// Exchanges collected by the sweeper.
    pub exchanges_collected: Counter,
}

impl Metrics {
    /// Puts all of them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            (&catalog::BATCHES, &self.batches),
            (&catalog::BATCHES_REPEATED, &self.batches_repeated),
            (&catalog::PAGES_WRITTEN, &self.pages_written),
            (&catalog::BYTES_WRITTEN, &self.bytes_written),
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
            (&catalog::CORRUPTIONS, &self.corruptions),
            (&catalog::EXCHANGES_CLOSED, &self.exchanges_closed),
            (&catalog::EXCHANGES_COLLECTED, &self.exchanges_collected),
        ];
        for (definition, counter) in counters {
            definition.register(registry, counter.clone());
        }
        let gauges = [
            (&catalog::SINKS_OPEN, &self.sinks_open),
            (&catalog::EXCHANGES_OPEN, &self.exchanges_open),
            (&catalog::UPLOADS_IN_FLIGHT, &self.uploads_in_flight),
        ];
        for (definition, gauge) in gauges {
            definition.register(registry, gauge.clone());
        }
    }
}
