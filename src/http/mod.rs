//! Transport: sockets, TLS, limits on connections, and the credentials in force.
//!
//! Does: accept connections, bound each one's life, hand requests to the service that it is given.
//! Does not: know a route (`api` does). Invariant: what is configured as required (TLS, a client
//! certificate) is checked before the service sees a request.

pub mod credentials;
pub mod limits;
pub mod scopes;
pub mod server;
pub mod stall;
pub mod tls;
pub mod tokens;
