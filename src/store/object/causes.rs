//! The causes of an error of `object_store`.
//!
//! Does: find one by its type, and say what only the HTTP client's own type tells. Does not: decide
//! what it means (`error`). Invariant: of several of a type the outermost is found.

use std::error::Error as _;

use object_store::Error;

/// The first cause of this type.
pub(super) fn cause<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

/// Whether the operation failed before there was a connection: nothing was sent.
pub(super) fn is_unconnected(error: &Error) -> bool {
    cause::<reqwest::Error>(error).is_some_and(reqwest::Error::is_connect)
}
