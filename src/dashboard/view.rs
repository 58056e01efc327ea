//! What the page shows, as plain data.

use std::time::Duration;

/// Everything on the page.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Version of the daemon.
    pub version: &'static str,
    /// How long it has served.
    pub uptime: Duration,
    /// Whether it is stopping.
    pub draining: bool,
    /// Base directories.
    pub bases: Vec<BaseView>,
    /// Memory pools.
    pub pools: Vec<PoolView>,
    /// Queries that hold or want memory, the largest first, a bounded number of them.
    pub queries: Vec<QueryView>,
    /// What it has done and does.
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
    /// What it is for.
    pub name: &'static str,
    /// Granted.
    pub used: u64,
    /// Waited for.
    pub waiting: u64,
    /// In all.
    pub capacity: u64,
}

/// What a query has of the memory, in bytes.
#[derive(Debug, Clone, Default)]
pub struct QueryView {
    /// Its name.
    pub name: String,
    /// Held for writing, with its segments kept for readers.
    pub writing: u64,
    /// Waited for to write.
    pub writing_waited: u64,
    /// Held for reading, with its chunks kept for readers.
    pub reading: u64,
    /// Waited for to read.
    pub reading_waited: u64,
}

/// Gauges and counters since the start.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // as in `telemetry::metrics`
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
    pub corruptions: u64,
}
