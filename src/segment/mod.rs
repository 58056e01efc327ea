//! The format of pages, blocks and segments: bytes in, bytes out, no I/O.
//!
//! `docs/segment-format.md` is the drawing; `layout` is the only place that knows an offset.
//! Invariant: what `writer` makes, `footer` and `scan` read back; anything else is refused with a
//! reason.

pub mod blocks;
pub mod footer;
pub mod frame;
pub mod layout;
pub mod scan;
pub mod varint;
pub mod writer;

#[cfg(test)]
mod tests;
