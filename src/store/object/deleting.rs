//! Deleting objects.
//!
//! Does: delete many with one request where the server can, one by one where it cannot, and the
//! earlier versions too where it is told to, and find out whether the bucket keeps what is deleted.
//! Does not: check conditions (`conditional`). Invariant: a server that deleted many with one
//! request once is never taken for one that cannot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;

use super::advice::PERMISSION;
use super::backend::ObjectBackend;
use super::error::{is_of_one_key, refuses_bulk_delete};
use super::known::Deleting;
use super::versions::ADVICE;
use crate::store::keys::Key;
use crate::store::{Result, StoreError, StoreErrorKind};

/// Why a delete failed.
struct Failure {
    error: StoreError,
    /// The server may know only deletes of one object.
    refuses_bulk: bool,
}

impl ObjectBackend {
    pub(super) async fn delete_all(&self, keys: &[Key]) -> Result<u64> {
        let paths: Vec<_> = keys.iter().map(|key| self.path(key.as_str())).collect();
        let removed = self.delete_current(&paths).await?;
        if let Some(versions) = &self.deleting.versions {
            let deleted = versions.delete(&paths).await;
            deleted.map_err(|error| self.versions_error(&error))?;
        }
        if let Some(settings) = &self.deleting.settings {
            settings.note_in_background(&self.seen);
        }
        Ok(removed)
    }

    /// The objects themselves are deleted then: the same delete is repeated for their versions.
    fn versions_error(&self, error: &object_store::Error) -> StoreError {
        let failure = self.error(error);
        let kind = match failure.kind {
            // Of the bucket: the objects are deleted already.
            StoreErrorKind::NotFound => StoreErrorKind::Refused,
            kind => kind,
        };
        let hint = match failure.hint {
            None | Some(PERMISSION) => Some(ADVICE),
            hint => hint,
        };
        StoreError {
            kind,
            hint,
            message: format!("versions cannot be removed: {}", failure.message),
            ..failure
        }
    }

    async fn delete_current(&self, paths: &[Path]) -> Result<u64> {
        let Deleting {
            single,
            bulk_works,
            one_by_one,
            ..
        } = &self.deleting;
        let Some(single) = single else {
            let deleted = self.delete_with(&self.store, paths, false).await;
            return deleted.map_err(|failure| failure.error);
        };
        if !one_by_one.load(Ordering::Relaxed) {
            match self.delete_with(&self.store, paths, true).await {
                Ok(removed) => {
                    bulk_works.fetch_or(!paths.is_empty(), Ordering::Relaxed);
                    return Ok(removed);
                }
                Err(failure) if !failure.refuses_bulk || bulk_works.load(Ordering::Relaxed) => {
                    return Err(failure.error);
                }
                Err(_) => {}
            }
        }
        // What fails here too fails for another reason, which this error names.
        let deleted = self.delete_with(single, paths, false).await;
        let removed = deleted.map_err(|failure| failure.error)?;
        if !one_by_one.swap(true, Ordering::Relaxed) {
            tracing::info!(store = ?self, "the store does not delete several objects with one \
                request (DeleteObjects): they are deleted one by one");
        }
        Ok(removed)
    }

    async fn delete_with(
        &self,
        store: &Arc<dyn ObjectStore>,
        paths: &[Path],
        in_bulk: bool,
    ) -> Result<u64, Failure> {
        let paths: Vec<_> = paths.iter().cloned().map(Ok).collect();
        let mut answers = store.delete_stream(futures::stream::iter(paths).boxed());
        let (mut removed, mut first) = (0, None);
        while let Some(answer) = answers.next().await {
            let Err(error) = answer else {
                removed += 1;
                continue;
            };
            let failure = Failure {
                refuses_bulk: refuses_bulk_delete(&error),
                error: self.error(&error),
            };
            // That a request for many objects gets 404 says nothing about one of them.
            let of_object = !in_bulk || is_of_one_key(&error);
            if !of_object || failure.error.kind != StoreErrorKind::NotFound {
                first = first.or(Some(failure));
            }
        }
        first.map_or(Ok(removed), Err)
    }
}
