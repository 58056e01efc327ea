//! Transport: sockets, TLS, connection limits, and the current credentials.
//!
//! Does: accept connections, bound the life of each one, and pass requests to a given service. Does
//! not: know routes (`api` does). Invariant: the service never sees a request over a connection
//! without TLS where TLS is configured.

pub mod connection;
pub mod credentials;
pub mod limits;
pub mod reachability;
pub mod scopes;
pub mod server;
pub mod slots;
pub mod stall;
pub mod tls;
pub mod tokens;
