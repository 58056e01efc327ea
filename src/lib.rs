//! Stopover: an exchange manager daemon for Trino's fault-tolerant execution.
//!
//! The way of a page: `api` → `ingest` → `segment` → `storage`, and back: `storage` → `read` →
//! `api`.
//! `ingest` and `read` meet only in `commit`. `docs/architecture.md` is the map.

pub mod api;
pub mod app;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod crc;
pub mod dashboard;
pub mod exchange;
pub mod fair;
pub mod gc;
pub mod http;
pub mod id;
pub mod ingest;
pub mod memory;
pub mod read;
pub mod runtime;
pub mod segment;
pub mod storage;
pub mod store;
pub mod telemetry;
