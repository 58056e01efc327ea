//! The data of the status page.

use std::time::Duration;

/// All data of the page.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Version of the daemon.
    pub version: &'static str,
    /// Time since it started to serve.
    pub uptime: Duration,
    /// Whether it is stopping.
    pub draining: bool,
    /// Base directories.
    pub bases: Vec<BaseView>,
    /// Memory pools.
    pub pools: Vec<PoolView>,
    /// Queries that hold or wait for memory, the largest first; bounded.
    pub queries: Vec<QueryView>,
    /// Its counters.
    pub counters: Counters,
}

/// A base directory.
#[derive(Debug, Clone, Default)]
pub struct BaseView {
    /// Its name.
    pub name: String,
    /// Its URI, without credentials.
    pub uri: String,
    /// Whether new segments go there.
    pub healthy: bool,
    /// Why not.
    pub error: Option<String>,
}

/// A memory pool, in bytes.
#[derive(Debug, Clone, Default)]
pub struct PoolView {
    /// Its purpose.
    pub name: &'static str,
    /// Granted now.
    pub used: u64,
    /// Requested by callers that wait.
    pub waiting: u64,
    /// The most it may grant.
    pub capacity: u64,
}

/// The memory of one query, in bytes.
#[derive(Debug, Clone, Default)]
pub struct QueryView {
    /// Its name.
    pub name: String,
    /// Held for writing, hot segments included.
    pub writing: u64,
    /// Waiting to write.
    pub writing_waited: u64,
    /// Held for reading, cached chunks included.
    pub reading: u64,
    /// Waiting to read.
    pub reading_waited: u64,
}

/// Gauges, and counters since the start; documented in `telemetry::catalog`.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub exchanges_open: u64,
    pub sinks_open: u64,
    pub uploads_in_flight: u64,
    pub sinks_finished: u64,
    pub sinks_aborted: u64,
    pub sinks_failed: u64,
    pub pages_written: u64,
    pub bytes_written: u64,
    pub segments_written: u64,
    pub segment_bytes_written: u64,
    pub reads: u64,
    pub pages_read: u64,
    pub bytes_read: u64,
    pub cache_hit_bytes: u64,
    pub cache_miss_bytes: u64,
    pub integrity_failures: u64,
}
