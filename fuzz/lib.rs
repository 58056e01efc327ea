//! The decoders of Stopover and nothing else of it, for fuzzing.
//!
//! The sources are the project's own, under the paths that they have there, so that `decoders.rs` is
//! the same here and in the tests that replay the corpus.

#![allow(missing_docs, dead_code)]

// Which name a misspelt one resembles is found by comparing it with all names. libFuzzer watches each
// comparison and would spend nine tenths of its time on them, so here a cheap measure stands in; the
// tests that replay the corpus have the real one.
extern crate self as strsim;

pub fn normalized_damerau_levenshtein(a: &str, b: &str) -> f64 {
    1.0 - damerau_levenshtein(a, b) as f64 / a.len().max(b.len()).max(1) as f64
}

/// Bytes of the longer one behind the beginning that both share.
pub fn damerau_levenshtein(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b);
    a.len().max(b.len()) - same.count()
}

#[path = "../src/config/mod.rs"]
pub mod config;
#[path = "../src/id.rs"]
pub mod id;
#[path = "../src/segment/mod.rs"]
pub mod segment;

#[path = "../src/commit/handle.rs"]
pub mod handle;

pub mod commit {
    pub use crate::handle;
}
