//! Errors of the bytes of a segment's index.
//!
//! Does: name each fault of an encoding. Does not: name the segment; the caller adds that.

use crate::human;

/// Why a variable-length encoding (footer or handle) cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the bytes end early")]
    Truncated,
    #[error("a number has more than {bits} bits")]
    NumberTooLarge { bits: u32 },
    /// Checked before anything is allocated.
    #[error("a count of {count} is larger than the bytes that follow")]
    CountTooLarge { count: u64 },
    #[error("a name is not UTF-8")]
    NotUtf8,
    #[error("{} after the end", human::count(*count, "byte"))]
    TrailingBytes { count: usize },
    #[error("invalid {field}")]
    Invalid { field: &'static str },
    /// An index points beyond the table that it refers to.
    #[error("reference to an unknown {field}")]
    UnknownReference { field: &'static str },
    #[error("contradictory {field}")]
    Contradiction { field: &'static str },
}

/// Why an object is not a readable segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("an object of {} is too small for a segment", human::count(*size, "byte"))]
    TooShort { size: u64 },
    #[error("not a segment: trailer magic missing")]
    NotASegment,
    #[error(
        "format version {version}, but this daemon reads version {supported}: run the same \
         version of stopover on all daemons"
    )]
    UnknownVersion { version: u32, supported: u32 },
    #[error("trailer checksum mismatch")]
    TrailerChecksum,
    #[error("the object has {}, but was written with {recorded}", human::count(*size, "byte"))]
    SizeMismatch { size: u64, recorded: u64 },
    #[error("the footer begins at byte {footer_offset}, inside the segment header")]
    FooterInHeader { footer_offset: u64 },
    #[error("the footer has {}, but the trailer has {recorded}", human::count(*length, "byte"))]
    FooterLength { length: usize, recorded: u32 },
    #[error("footer checksum mismatch")]
    FooterChecksum,
    #[error("malformed footer: {0}")]
    MalformedFooter(#[from] DecodeError),
    #[error("the blocks end at byte {blocks_end}, but the footer begins at {footer_offset}")]
    BlocksEnd { blocks_end: u64, footer_offset: u64 },
}
