//! The bounds on what clients send and hold open, taken from the configuration once.
//!
//! Does: carry them to extractors and server. Does not: enforce. Invariant: each has the name under
//! which an error mentions it.

use std::time::Duration;

use crate::clock::Clock;
use crate::config::LimitsConfig;
use crate::memory::MemoryPool;

/// Bytes of a request line and its headers, HTTP/1.1: hyper's buffer, past which it answers 431. A
/// connection keeps it, so it is what each one costs at most: larger ones do not read faster.
pub const MAX_HEAD: usize = 64 << 10;
/// Headers of a request; more are answered 431.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a request's path and query.
pub const MAX_URI: usize = 4096;
/// Bytes of headers of an HTTP/2 request.
pub const MAX_HEADER_LIST: u32 = 32 << 10;
/// Bytes of one HTTP/2 request that a client may send before they are read.
pub const STREAM_WINDOW: u32 = 128 << 10;
/// The same for all requests of a connection: what it costs at most.
pub const CONNECTION_WINDOW: u32 = 256 << 10;
/// Requests of one HTTP/2 connection at a time.
pub const MAX_STREAMS: u32 = 64;
/// Small bodies held at a time, all requests together, as a multiple of the largest.
const SMALL_BODIES: u64 = 2;

/// Bounds on request bodies. Cheap to clone.
#[derive(Clone)]
pub struct BodyLimits {
    /// `limits.max_page_size`
    pub max_page_size: u64,
    /// `limits.max_batch_size`
    pub max_batch_size: u64,
    /// `limits.max_json_size`
    pub max_json_size: u64,
    /// `limits.body_timeout`
    pub body_timeout: Duration,
    /// What times bodies.
    pub clock: Clock,
    /// Memory of all JSON and handle bodies that are being read.
    pub small_bodies: MemoryPool,
}

impl BodyLimits {
    /// From the configuration.
    pub fn new(limits: &LimitsConfig, clock: Clock) -> Self {
        Self {
            max_page_size: limits.max_page_size,
            max_batch_size: limits.max_batch_size,
            max_json_size: limits.max_json_size,
            body_timeout: limits.body_timeout,
            clock,
            small_bodies: MemoryPool::new(
                "request",
                limits.max_json_size.saturating_mul(SMALL_BODIES),
            ),
        }
    }
}

/// Bounds on connections.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// `limits.max_connections`
    pub max_connections: usize,
    /// `limits.header_timeout`
    pub header_timeout: Duration,
    /// `limits.read_stall_timeout`
    pub write_stall_timeout: Duration,
    /// How long a connection may go on once the server was told to stop.
    pub stop_grace: Duration,
}

impl ServerLimits {
    /// From the configuration.
    pub fn new(limits: &LimitsConfig) -> Self {
        Self {
            max_connections: limits.max_connections,
            header_timeout: limits.header_timeout,
            write_stall_timeout: limits.read_stall_timeout,
            stop_grace: Duration::from_secs(5),
        }
    }
}
