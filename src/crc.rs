//! CRC-32C (Castagnoli), the checksum of pages, footers, markers and handles.
//!
//! Does: compute it at once or incrementally. Does not: decide what it covers.

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
    /// Covers more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of all bytes so far.
    pub fn value(&self) -> u32 {
        low_32(self.0.finalize())
    }
}

/// CRC-32C (Castagnoli) of some bytes.
///
/// ```
/// assert_eq!(stopover::crc::checksum(b"123456789"), 0xE306_9283);
/// ```
pub fn checksum(bytes: &[u8]) -> u32 {
    low_32(crc_fast::checksum(
        crc_fast::CrcAlgorithm::Crc32Iscsi,
        bytes,
    ))
}

/// The library returns a CRC of any width in 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "the CRC has 32 bits")]
fn low_32(crc: u64) -> u32 {
    crc as u32
}
