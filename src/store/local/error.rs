//! Errors of the file system.
//!
//! Does: decide the kind of a failure and what the operator can do. Does not: decide what is
//! retried. Invariant: every error names the path, and is that of an operation which has ended.

use std::io;
use std::path::Path;

use super::reserve::is_full;
use crate::store::{StoreError, StoreErrorKind};

/// What a file operation returned; `None` if there is no such file or folder.
///
/// # Errors
/// All others.
pub(super) fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The error of a failed put. `NotFound` concerns its folder then, not the object.
pub(super) fn put_failure(doing: &str, path: &Path, error: io::Error) -> StoreError {
    let mut failure = failure(doing, path, error);
    if failure.kind == StoreErrorKind::NotFound {
        failure.kind = StoreErrorKind::Unavailable;
    }
    failure
}

/// The error of a failed operation on a file.
pub(super) fn failure(doing: &str, path: &Path, error: io::Error) -> StoreError {
    use StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
    use io::ErrorKind as Io;

    let (kind, hint) = match error.kind() {
        Io::NotFound => (NotFound, None),
        Io::UnexpectedEof => (Corrupt, Some("the file is shorter than it was")),
        Io::InvalidData => (Corrupt, None),
        Io::StorageFull => (
            Unavailable,
            Some("the file system is full; free space or enlarge it"),
        ),
        Io::QuotaExceeded => (Unavailable, Some("raise the quota or free space")),
        Io::PermissionDenied => (
            Refused,
            Some("give the daemon's user the right to read and write there"),
        ),
        Io::ReadOnlyFilesystem => (
            Refused,
            Some("mount it writable or choose another base directory"),
        ),
        Io::NotADirectory => (
            Refused,
            Some(
                "a part of this path is a file; remove it or choose another base directory; a \
                 symbolic link is no folder either",
            ),
        ),
        _ if error.raw_os_error() == Some(libc::ELOOP) => (
            Refused,
            Some("it is a symbolic link, and none is followed below a base directory; remove it"),
        ),
        _ if error.raw_os_error() == Some(libc::EMFILE) => (
            Unavailable,
            Some("raise the limit of open files (ulimit -n)"),
        ),
        _ => (Unavailable, None),
    };
    StoreError {
        hint,
        settled: true,
        full: is_full(&error),
        ..StoreError::new(kind, format!("{doing} {}", path.display())).caused_by(error)
    }
}
