//! Every metric of the daemon, with its name, unit and labels.
//!
//! Does: own the registry and the typed handles. Does not: decide when something is counted.
//! Invariant: names are constants, labels are bounded sets (never an exchange id).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

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
    /// Reads that failed a check of integrity.
    pub corruptions: Counter,
    /// Exchanges closed by clients.
    pub exchanges_closed: Counter,
    /// Exchanges collected by the sweeper.
    pub exchanges_collected: Counter,
}
