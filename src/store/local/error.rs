//! Errors of the file system, told with a way out.
//!
//! Does: decide the kind of a failure and what to say about it. Does not: decide what is tried
//! again. Invariant: a message names the path.

use std::io;
use std::path::Path;

use crate::store::StorageErrorKind;
use crate::store::StoreError;

/// Why a put failed: what is missing then is not the object.
pub fn put_failure(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    let mut failure = failure(doing, path, error);
    if failure.kind == StorageErrorKind::NotFound {
        failure.kind = StorageErrorKind::Unavailable;
    }
    failure
}

/// Why an operation on a file failed, with a way out where there is one.
pub fn failure(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    use io::ErrorKind as Io;
    let (kind, way_out) = match error.kind() {
        Io::NotFound => (StorageErrorKind::NotFound, ""),
        Io::UnexpectedEof => (
            StorageErrorKind::Corrupt,
            ": the file is shorter than it was",
        ),
        Io::InvalidData => (StorageErrorKind::Corrupt, ""),
        Io::StorageFull => (
            StorageErrorKind::Unavailable,
            ": the file system is full; free space or enlarge it",
        ),
        Io::QuotaExceeded => (
            StorageErrorKind::Unavailable,
            ": raise the quota or free space",
        ),
        Io::PermissionDenied => (
            StorageErrorKind::Refused,
            ": give the daemon's user the right to read and write there",
        ),
        Io::ReadOnlyFilesystem => (
            StorageErrorKind::Refused,
            ": mount it writable or choose another base directory",
        ),
        Io::NotADirectory => (
            StorageErrorKind::Refused,
            ": a part of this path is a file; remove it or choose another base directory",
        ),
        _ if error.raw_os_error() == Some(libc::EMFILE) => (
            StorageErrorKind::Unavailable,
            ": raise the limit of open files (ulimit -n)",
        ),
        _ => (StorageErrorKind::Unavailable, ""),
    };
    StoreError::new(
        kind,
        format!("{doing} {}: {error}{way_out}", path.display()),
    )
}
