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

/// Running CRC-32C (Castagnoli).
#[derive(Clone)]
pub struct Checksum(crc_fast::Digest);

impl Default for Checksum {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checksum({:08x})", self.value())
    }
}

impl Checksum {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of all bytes so far.
    pub fn value(&self) -> u32 {
        self.0.finalize() as u32
    }
}

/// CRC-32C (Castagnoli) of some bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests;
