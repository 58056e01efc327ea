//! Reads the footer of a segment for `stopover inspect`.
//!
//! Does: fetch as much of its end as the footer needs, and decode it. Does not: locate the segment.
//! Invariant: only what passed every check of the format is returned.

use super::inspect_fleet::FleetObjectError;
use super::inspect_text::Inspected;
use crate::segment::error::FormatError;
use crate::segment::footer::Footer;
use crate::segment::layout::{TRAILER_LEN, Trailer};
use crate::storage::{StorageError, Tail};

/// Bytes fetched first; they contain the footer of most segments.
const FIRST_TAIL: u64 = 128 << 10;

/// Why a segment cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    #[error(
        "an object is named as BASE-DIRECTORY/v2/segments/HASH-EXCHANGE/SEGMENT.seg, or \
         BASE-DIRECTORY/v2/ and identity, members or sweeper"
    )]
    UnknownName,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Malformed(#[from] FormatError),
    #[error(transparent)]
    FleetObject(#[from] FleetObjectError),
    #[error("it changed while it was being read: try again")]
    Changed,
}

/// Fetches the tail, and again if the footer is longer than the first fetch.
///
/// # Errors
/// It cannot be read or decoded.
pub(super) async fn read_footer(
    mut tail: impl AsyncFnMut(u64) -> Result<Tail, InspectError>,
) -> Result<Inspected, InspectError> {
    let mut last = tail(FIRST_TAIL).await?;
    let trailer = Trailer::decode(&last.bytes, last.object_size)?;
    let wanted = u64::from(trailer.footer_length) + TRAILER_LEN as u64;
    if wanted > last.bytes.len() as u64 {
        last = tail(wanted).await?;
    }
    let end = last.bytes.len() - TRAILER_LEN;
    let start = end
        .checked_sub(trailer.footer_length as usize)
        .ok_or(InspectError::Changed)?;
    let footer = Footer::decode(&last.bytes[start..end], &trailer)?;
    Ok(Inspected {
        size: last.object_size,
        footer_length: trailer.footer_length,
        footer,
    })
}
