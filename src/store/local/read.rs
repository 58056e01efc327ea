//! Reading ranges of files.
//!
//! Does: read ranges and tails. Does not: choose paths. Invariant: a result has exactly the
//! requested bytes; a shorter one is an error.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::error::failure;
use super::root::Root;
use crate::human::count;
use crate::store::{Result, StoreError};
use crate::store::{StoreErrorKind, Tail};

fn open(root: &Root, path: &Path) -> Result<(File, Metadata)> {
    let opened = root
        .open(path)
        .and_then(|file| file.metadata().map(|meta| (file, meta)));
    opened.map_err(|error| failure("reading", path, error))
}

/// Reads into memory that is not zeroed first: for megabytes that would cost as much as the copy.
fn read_exactly(mut file: &File, path: &Path, range: &Range<u64>) -> Result<Bytes> {
    let length = range.end - range.start;
    let mut buffer = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let read = file
        .seek(SeekFrom::Start(range.start))
        .and_then(|_| file.take(length).read_to_end(&mut buffer));
    match read {
        Ok(count) if count as u64 == length => Ok(buffer.into()),
        Ok(_) => Err(failure("reading", path, ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(failure("reading", path, error)),
    }
}

/// Exactly these bytes of a file.
///
/// # Errors
/// `Corrupt` if the file does not have all of them; otherwise those of the file system.
pub(super) fn read_range(root: &Root, path: &Path, range: &Range<u64>) -> Result<Bytes> {
    let (file, metadata) = open(root, path)?;
    // Checked before memory is allocated: the range may come from a damaged handle.
    let size = metadata.len();
    if range.end > size {
        let message = format!(
            "the file has {}, not the range {range:?}",
            count(size, "byte")
        );
        return Err(StoreError::new(StoreErrorKind::Corrupt, message));
    }
    read_exactly(&file, path, range)
}

/// The last bytes of a file, at most `max`.
///
/// # Errors
/// Those of the file system.
pub(super) fn read_tail(root: &Root, path: &Path, max: u64) -> Result<Tail> {
    let (file, metadata) = open(root, path)?;
    let object_size = metadata.len();
    let range = object_size.saturating_sub(max)..object_size;
    Ok(Tail {
        bytes: read_exactly(&file, path, &range)?,
        object_size,
    })
}
