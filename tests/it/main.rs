//! The integration tests, one binary: each module tests the daemon from one side.

#![allow(clippy::disallowed_methods, missing_docs)] // tests spawn their own tasks

mod commit_lookup;
mod corpus;
mod credentials;
mod fairness;
mod hostile;
mod http;
mod http_errors;
mod http_fuzz;
mod http_hostile;
mod http_wire;
mod integrity;
mod leases;
mod model;
mod overload;
mod process;
mod semantics;
mod support;
