//! The bounds on what clients send and hold open, taken from the configuration once.
//!
//! Does: carry them to extractors and server. Does not: enforce. Invariant: each has the name under
//! which an error mentions it.

use std::time::Duration;

use crate::config::LimitsConfig;

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

/// Bounds on connections.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// `limits.max_connections`
    pub max_connections: usize,
    /// `limits.header_timeout`
    pub header_timeout: Duration,
    /// `limits.read_stall_timeout`
    pub response_stall_timeout: Duration,
    /// How long a connection may go on once the server was told to stop.
    pub stop_grace: Duration,
}

impl ServerLimits {
    /// From the configuration.
    pub fn new(limits: &LimitsConfig) -> Self {
        Self {
            max_connections: limits.max_connections,
            header_timeout: limits.header_timeout,
            response_stall_timeout: limits.read_stall_timeout,
            stop_grace: Duration::from_secs(5),
        }
    }
}
