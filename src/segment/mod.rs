//! The format of pages, blocks and segments: bytes in, bytes out, no I/O.

pub mod frame;
