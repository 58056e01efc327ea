//! Stopover: an exchange manager daemon for Trino's fault-tolerant execution.
//!
//! Tasks send their output pages to a daemon over HTTP. It gathers the pages of many tasks into
//! segments, stores them in one or more base directories (S3, GCS, Azure, a file system), and
//! serves them to any task on any worker. The base directories are the only shared state.
//!
//! # Where to start
//!
//! A page on its way in passes through [`api`] (the router: [`api::router`]) → [`ingest`] (sinks,
//! batches, sealing, uploads) → [`segment`] (the format) → [`storage`] (base directories) →
//! [`store`] (one of them); on its way back through [`storage`] → [`cache`] → [`read`] → [`api`].
//! [`catalog`] finds what is committed and where it is; `ingest` and `read` share only [`catalog`]
//! and [`cache`]. [`exchange`] tracks which exchanges are open, [`gc`] collects those that are not
//! renewed.
//!
//! Below them: [`memory`] (pools and reservations), [`fair`] (fair queueing among queries),
//! [`runtime`] (clock, randomness, tasks: passed in, so that a simulation can replace them),
//! [`human`] (numbers in messages), [`certificate`] (until when credentials are valid), [`config`],
//! [`telemetry`]. [`app`] assembles a daemon, [`reload`] changes its settings while it runs,
//! [`http`] is its transport, [`cli`] its command line. Imports point in one direction only;
//! `tests/tidy` holds the table.
//!
//! `docs/architecture.md` describes both paths function by function, `docs/semantics.md` the
//! guarantees, and `docs/glossary.md` the terms.
//!
//! # Example
//!
//! A configuration is validated as a whole, and every problem includes the remedy:
//!
//! ```
//! use stopover::config::{Environment, Files, Flags, Machine, load_in};
//!
//! let flags = Flags {
//!     set: vec!["segment.target_sise=32MiB".to_owned()],
//!     ..Flags::default()
//! };
//! let environment = Environment {
//!     variables: Vec::new(),
//!     cwd: "/".into(),
//!     machine: Machine::default(),
//!     files: Files::InMemory(Default::default()),
//! };
//! let errors = load_in(&flags, &environment).unwrap_err();
//! assert!(errors.to_string().contains("did you mean segment.target_size?"));
//! ```

// Of the library alone: what tests and benches share is private to each of them anyway.
#![warn(unreachable_pub)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss))]

pub mod api;
pub mod app;
pub mod cache;
pub mod catalog;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod crc;
pub mod dashboard;
pub mod exchange;
pub mod fair;
pub mod gc;
pub mod http;
pub mod human;
pub mod id;
pub mod ingest;
pub mod memory;
pub mod read;
pub mod reload;
pub mod runtime;
pub mod segment;
pub mod storage;
pub mod store;
pub mod telemetry;
