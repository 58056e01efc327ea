//! Parts of files in a base directory.
//!
//! Does: read ranges and tails, whole or not at all. Does not: choose paths. Invariant: an answer
//! has exactly the bytes that were asked for.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::error::failure;
use crate::store::StoreError;
use crate::store::{StoreErrorKind, Tail};

fn open(path: &Path) -> Result<(File, Metadata), StoreError> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|meta| (file, meta)));
    opened.map_err(|error| failure("reading", path, error))
}

/// Into memory that was not filled with zeros before: for megabytes that costs as much as the copy.
fn read_exactly(mut file: &File, path: &Path, range: &Range<u64>) -> Result<Bytes, StoreError> {
    let length = range.end - range.start;
    let mut buffer = Vec::with_capacity(length as usize);
    let read = file
        .seek(SeekFrom::Start(range.start))
        .and_then(|_| file.take(length).read_to_end(&mut buffer));
    match read {
        Ok(came) if came as u64 == length => Ok(buffer.into()),
        Ok(_) => Err(failure("reading", path, ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(failure("reading", path, error)),
    }
}

/// Exactly these bytes of a file.
pub fn read_range(path: &Path, range: &Range<u64>) -> Result<Bytes, StoreError> {
    let (file, metadata) = open(path)?;
    // Checked before memory is taken for a range that a damaged handle invented.
    if range.end > metadata.len() {
        return Err(StoreError::new(
            StoreErrorKind::Corrupt,
            format!("bytes {range:?} of a file of {} bytes", metadata.len()),
        ));
    }
    read_exactly(&file, path, range)
}

/// The last bytes of a file, at most `max`.
pub fn read_tail(path: &Path, max: u64) -> Result<Tail, StoreError> {
    let (file, metadata) = open(path)?;
    let object_size = metadata.len();
    let range = object_size.saturating_sub(max)..object_size;
    Ok(Tail {
        bytes: read_exactly(&file, path, &range)?,
        object_size,
    })
}
