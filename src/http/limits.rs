//! Limits on connections and request heads.
//!
//! Does: hold the constants, and those that are settings. Does not: enforce them.

use std::time::Duration;

use crate::config::{LimitsConfig, ServerConfig};

/// Bytes of an HTTP/1.1 request line and its headers; hyper answers 431 to more. It is the size of
/// hyper's read buffer, so each connection costs at most this. A larger one does not read faster.
pub const MAX_HEAD: usize = 64 << 10;
/// Headers of a request; hyper answers 431 to more.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a request's path and query.
pub const MAX_URI: usize = 4096;
/// Bytes of the headers of an HTTP/2 request.
pub const MAX_HEADER_LIST: u32 = 32 << 10;
/// Concurrent requests of one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 8;
/// HTTP/2 flow control window of a request body, in bytes.
pub const STREAM_WINDOW: u32 = 64 << 10;
/// HTTP/2 flow control window of a connection, in bytes: its unread body bytes are at most this. It
/// is the sum of the windows of all requests, so that the bodies of those that wait for memory
/// never keep a request that has memory from sending.
pub const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// Idle time before the first TCP keepalive probe, which detects clients that vanished while their
/// request waits for the daemon. The number of probes is below.
pub const TCP_PROBE_AFTER: Duration = Duration::from_secs(30);
/// Time between two such probes.
pub const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Number of such probes that may stay unanswered.
pub const TCP_PROBES: u32 = 3;

/// Limits on connections.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections that have sent an authorized request.
    pub max_connections: usize,
    /// For a TLS handshake, and for each request head.
    pub header_timeout: Duration,
    /// How long a client may send nothing of the body that a request waits for. The handlers bound
    /// the time for the whole body.
    pub body_timeout: Duration,
    /// How long a request may continue after the server has stopped accepting.
    pub stop_grace: Duration,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
}

/// Connections to `server.admin_listen` that have sent an authorized request.
const ADMIN_CONNECTIONS: usize = 32;

impl ServerLimits {
    /// The configured limits.
    pub fn new(server: &ServerConfig, limits: &LimitsConfig) -> Self {
        Self {
            max_connections: limits.max_connections,
            header_timeout: limits.header_timeout,
            body_timeout: limits.body_timeout,
            stop_grace: Duration::from_secs(5),
            http2: server.http2,
        }
    }

    /// The limits of `server.admin_listen`, which has separate slots.
    pub fn admin(self) -> Self {
        Self {
            max_connections: ADMIN_CONNECTIONS.min(self.max_connections),
            ..self
        }
    }
}
