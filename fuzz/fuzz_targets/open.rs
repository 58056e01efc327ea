//! Feeds `open::open`. With the feature `daemon` only, as it needs the whole crate.

#![no_main]

extern crate daemon as stopover;

#[path = "../open.rs"]
mod open;

libfuzzer_sys::fuzz_target!(|input: &[u8]| open::open(input));
