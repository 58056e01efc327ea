//! Deleting objects.
//!
//! Does: delete many with one request where the server can, one by one where it cannot, and the
//! earlier versions too where it is told to. Does not: check conditions (`conditional`). Invariant:
//! a server that deleted many with one request once is never taken for one that cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;

use super::backend::ObjectBackend;
use super::error::refuses_bulk_delete;
use super::versions::Versions;
use crate::store::keys::Key;
use crate::store::{Result, StoreError, StoreErrorKind};

/// How the objects of one base directory are deleted.
#[derive(Debug, Default)]
pub struct Deleting {
    /// The same store, with a request for each object.
    single: Option<Arc<dyn ObjectStore>>,
    /// Deletes earlier versions too.
    pub(super) versions: Option<Versions>,
    /// The server deleted several with one request.
    bulk_works: AtomicBool,
    /// The server does not know that request.
    one_by_one: AtomicBool,
}

impl Deleting {
    /// Many with one request, or through `single`, which sends one for each object.
    pub fn or_one_by_one(single: Arc<dyn ObjectStore>, versions: Option<Versions>) -> Self {
        Self {
            single: Some(single),
            versions,
            ..Self::default()
        }
    }
}

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
            versions.delete(&paths, &self.redactor).await?;
        }
        Ok(removed)
    }

    async fn delete_current(&self, paths: &[Path]) -> Result<u64> {
        let Deleting {
            single,
            bulk_works,
            one_by_one,
            ..
        } = &self.deleting;
        let Some(single) = single else {
            let deleted = self.delete_with(&self.store, paths, is_absent).await;
            return deleted.map_err(|failure| failure.error);
        };
        if !one_by_one.load(Ordering::Relaxed) {
            // The answer to one request for many objects tells of none that it is absent.
            match self.delete_with(&self.store, paths, |_| false).await {
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
        let deleted = self.delete_with(single, paths, is_absent).await;
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
        is_absent: fn(&StoreError) -> bool,
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
            if !is_absent(&failure.error) {
                first = first.or(Some(failure));
            }
        }
        first.map_or(Ok(removed), Err)
    }
}

fn is_absent(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::NotFound
}
