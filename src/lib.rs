//! Stopover: an exchange manager daemon for Trino's fault-tolerant execution.
//!
//! The way of a page: `api` → `ingest` → `segment` → `storage`, and back: `storage` → `read` →
//! `api`.
//! `ingest` and `read` meet only in `commit`. `docs/architecture.md` is the map.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod dashboard;
pub mod fair;
pub mod id;
pub mod ingest;
pub mod lifecycle;
pub mod memory;
pub mod read;
pub mod segment;
pub mod storage;
pub mod telemetry;
