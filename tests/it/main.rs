//! The integration tests, one binary: each module tests the daemon from one side.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own
#![allow(clippy::disallowed_methods, missing_docs)] // tests spawn their own tasks

mod admin;
mod command_line;
mod commit_lookup;
mod corpus;
mod credentials;
mod fairness;
mod foreign;
mod handles;
mod hostile;
mod http;
mod http_access;
mod http_errors;
mod http_fuzz;
mod http_hostile;
mod http_wire;
mod identity;
mod import;
mod integrity;
mod key_ranges;
mod large_exchanges;
mod leases;
mod mistakes;
mod model;
mod opening;
mod operations;
mod overload;
mod pages;
mod planning;
mod process;
mod reload;
mod room;
mod secrets;
mod semantics;
mod store_messages;
mod support;
mod traces;
