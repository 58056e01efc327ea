//! The decoders of Stopover and nothing else of it, for fuzzing.
//!
//! The sources are the project's own, under the paths that they have there, so that `decoders.rs` is
//! the same here and in the tests that replay the corpus.

#![allow(missing_docs, dead_code)]

#[path = "../src/id.rs"]
pub mod id;
#[path = "../src/segment/mod.rs"]
pub mod segment;

#[path = "../src/commit/handle.rs"]
pub mod handle;

pub mod commit {
    pub use crate::handle;
}
