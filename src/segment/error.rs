//! What can be wrong with the bytes of a segment's index.
//!
//! Does: name each fault of an encoding. Does not: say in which segment; the caller adds that.

/// Why a variable-length encoding (footer or handle) cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the bytes end early")]
    Truncated,
    /// The value does not fit into its type.
    #[error("a number has more than {bits} bits")]
    NumberTooLarge {
        /// 32 or 64.
        bits: u32,
    },
    /// Checked before anything is allocated.
    #[error("a count of {count} is larger than the bytes that follow")]
    CountTooLarge {
        /// As encoded.
        count: u64,
    },
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// The encoding is complete, but bytes follow.
    #[error("{count} bytes follow the end")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// One value breaks its rule.
    #[error("invalid {field}")]
    Invalid {
        /// What it stands for.
        field: &'static str,
    },
    /// An index points beyond the table that it refers to.
    #[error("reference to an unknown {field}")]
    UnknownReference {
        /// What the table holds.
        field: &'static str,
    },
    /// Values that are valid by themselves exclude each other.
    #[error("contradictory {field}")]
    Contradiction {
        /// What they describe.
        field: &'static str,
    },
}

/// Why an object is not a readable segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Shorter than a trailer.
    #[error("{size} bytes are too few for a segment")]
    TooShort {
        /// Size of the object.
        size: u64,
    },
    /// The object does not end with the trailer magic.
    #[error("not a segment: trailer magic missing")]
    NotASegment,
    /// Written by a daemon with another format.
    #[error(
        "format version {version}, but this daemon reads version {supported}: run the same \
         version of stopover on all daemons"
    )]
    UnknownVersion {
        /// As recorded.
        version: u32,
        /// The only one that can be read.
        supported: u32,
    },
    /// The trailer is damaged.
    #[error("trailer checksum mismatch")]
    TrailerChecksum,
    /// The object was cut short or extended.
    #[error("the object has {size} bytes, but was written with {recorded}")]
    SizeMismatch {
        /// Size of the object.
        size: u64,
        /// As the trailer says.
        recorded: u64,
    },
    /// The footer overlaps the segment header.
    #[error("the footer begins at byte {footer_offset}, inside the segment header")]
    FooterInHeader {
        /// As the trailer says.
        footer_offset: u64,
    },
    /// The footer is not as long as the trailer says.
    #[error("the footer has {length} bytes, but the trailer says {recorded}")]
    FooterLength {
        /// Of the footer.
        length: usize,
        /// As the trailer says.
        recorded: u32,
    },
    /// The footer is damaged.
    #[error("footer checksum mismatch")]
    FooterChecksum,
    /// The footer's checksum is right, but its content is not.
    #[error("malformed footer: {0}")]
    MalformedFooter(#[from] DecodeError),
    /// There is a gap or an overlap between the blocks and the footer.
    #[error("the blocks end at byte {blocks_end}, but the footer begins at {footer_offset}")]
    BlocksEnd {
        /// As the index says.
        blocks_end: u64,
        /// As the trailer says.
        footer_offset: u64,
    },
}
