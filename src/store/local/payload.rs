//! The bytes of a put, which its caller releases when it stops waiting.
//!
//! Does: lend the bytes to a thread while it writes them. Does not: write. Invariant: a thread that
//! hangs before or after the write of the content (while it creates, syncs or renames a file) holds
//! no bytes once its caller has stopped waiting, and so no memory of the budget.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// The bytes of one put.
#[derive(Debug)]
pub(super) struct Payload(Arc<Mutex<Option<Vec<Bytes>>>>);

/// Held by the caller; when it is dropped the thread finds no bytes any more.
#[derive(Debug)]
pub(super) struct PayloadOwner(Arc<Mutex<Option<Vec<Bytes>>>>);

impl Payload {
    /// The payload, and the owner of its bytes.
    pub(super) fn owned(content: Vec<Bytes>) -> (Self, PayloadOwner) {
        let shared = Arc::new(Mutex::new(Some(content)));
        (Self(Arc::clone(&shared)), PayloadOwner(shared))
    }

    /// Their number; 0 if the caller has stopped waiting.
    pub(super) fn size(&self) -> u64 {
        let content = self.0.lock();
        let parts = content.iter().flatten();
        parts.map(|part| part.len() as u64).sum()
    }

    /// The bytes, to be dropped once they are written.
    ///
    /// # Errors
    /// If the caller has stopped waiting.
    pub(super) fn get(&self) -> io::Result<Vec<Bytes>> {
        let content = self.0.lock().clone();
        content.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "its caller stopped waiting"))
    }
}

impl Drop for PayloadOwner {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(content: Vec<Bytes>) -> Self {
        Self(Arc::new(Mutex::new(Some(content))))
    }
}
