//! Stopover's decoders without the rest of the crate, for fuzzing.
//!
//! Includes the crate's own source files under the same module paths, so that `decoders.rs` works
//! both here and in the tests that replay the corpus.

#![allow(missing_docs, dead_code)]

// The name that a misspelt one resembles is found by comparing it with all names. libFuzzer traces
// each comparison and would spend nine tenths of its time on them, so this cheap measure replaces
// the real one; the tests that replay the corpus use the real one.
extern crate self as strsim;

pub fn normalized_damerau_levenshtein(a: &str, b: &str) -> f64 {
    1.0 - damerau_levenshtein(a, b) as f64 / a.len().max(b.len()).max(1) as f64
}

/// The number of bytes of the longer string after their common prefix.
pub fn damerau_levenshtein(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b);
    a.len().max(b.len()) - same.count()
}

#[path = "../src/config/mod.rs"]
pub mod config;
#[path = "../src/crc.rs"]
pub mod crc;
#[path = "../src/id.rs"]
pub mod id;
#[path = "../src/human.rs"]
pub mod human;
#[path = "../src/segment/mod.rs"]
pub mod segment;

#[path = "../src/storage"]
pub mod storage {
    mod checked_text;
    pub mod identity;
    pub mod seals;
}

#[path = "../src/catalog/handle.rs"]
pub mod handle;

pub mod catalog {
    pub use crate::handle;
}
