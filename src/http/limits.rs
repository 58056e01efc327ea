//! Limits on connections and request heads.
//!
//! Does: hold the constants, and those that are settings. Does not: enforce them.

use std::time::Duration;

use crate::config::LimitsConfig;

/// Bytes of an HTTP/1.1 request line and its headers; hyper answers 431 to more. It is the size of
/// hyper's read buffer, so each connection costs at most this. A larger one does not read faster.
pub const MAX_HEAD: usize = 64 << 10;
/// Headers of a request; hyper answers 431 to more.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a request's path and query.
pub const MAX_URI: usize = 4096;
/// Bytes of the headers of an HTTP/2 request.
pub const MAX_HEADER_LIST: u32 = 32 << 10;
/// HTTP/2 flow control window of a request body, in bytes.
pub const STREAM_WINDOW: u32 = 128 << 10;
/// HTTP/2 flow control window of a connection, in bytes: its unread body bytes are at most this.
pub const CONNECTION_WINDOW: u32 = 256 << 10;
/// Concurrent requests of one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 64;

/// Limits on connections.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    pub max_connections: usize,
    /// For a TLS handshake, and for each request head.
    pub header_timeout: Duration,
    /// How long a request may continue after the server has stopped accepting.
    pub stop_grace: Duration,
}

impl ServerLimits {
    /// The configured limits.
    pub fn new(limits: &LimitsConfig) -> Self {
        Self {
            max_connections: limits.max_connections,
            header_timeout: limits.header_timeout,
            stop_grace: Duration::from_secs(5),
        }
    }
}
