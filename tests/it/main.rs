//! The integration tests, one binary: each module tests the daemon from one side.

#![allow(clippy::disallowed_methods)] // tests spawn tasks of their own

mod http;
mod http_errors;
mod http_wire;
mod support;
