//! Feeds `read::read`. With the feature `daemon` only, as it needs the whole crate.

#![no_main]

extern crate daemon as stopover;

#[path = "../read.rs"]
mod read;

libfuzzer_sys::fuzz_target!(|input: &[u8]| read::read(input));
