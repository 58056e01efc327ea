//! The writing side: batches in, sealed and uploaded segments out, commits acknowledged.
//!
//! Does: buffer the pages of sinks until they are durable, and settle each attempt once. Does not:
//! speak HTTP, read pages back, or lay out segments. Invariant: `finish` returns `Ok`
//! only after the segment with the commit record, and every earlier segment of the attempt, has
//! been stored.
//!
//! A batch: [`Ingest::admit`] refuses what can be refused without the body, [`Admission::reserve`]
//! waits for memory, [`ReservedAdmission::append`] verifies the body and adds its runs to the open
//! segment. A commit: `finish` queues the sink, `sealing` seals the open segment when `seal_policy`
//! decides to, `uploader` stores it and settles the sinks whose commit records it holds.
//!
//! Locks: the table of exchanges (`service`) and the state of each exchange (`exchange`). No two
//! are held at once, and none across an await. What queries have stored (`stored`) is counted under
//! the lock of an exchange.

mod admission;
mod commit_lookup;
mod commit_queue;
mod error;
mod exchange;
mod finish;
mod overhead;
mod overview;
mod pressure;
pub mod seal_policy;
mod sealing;
mod service;
mod sink;
mod sink_memory;
mod stored;
mod types;
mod upload_outcome;
mod uploader;

pub use self::admission::{Admission, ReservedAdmission};
pub use self::error::{IngestError, SinkFailure};
pub use self::overview::{ExchangeOverview, SinkOverview};
pub use self::service::{Ingest, IngestDeps};
pub use self::stored::TooMuchStored;
pub use self::types::{Aborted, Appended, ClientTotals};
