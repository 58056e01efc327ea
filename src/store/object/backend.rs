//! The trait [`Store`] over a client of `object_store`.
//!
//! Does: translate operations and keys, recover where servers differ (suffix ranges, empty
//! objects). Does not: know which cloud it is. Invariant: a read returns exactly the bytes of its
//! range or an error.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Attribute, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

use super::answers::Seen;
use super::entity_tag;
use super::error::{is_stored, translate};
use super::known::{Conditions, Deleting};
use super::redact::Redactor;
use crate::human::count;
use crate::store::keys::{Folder, Key};
use crate::store::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Retention, Store, StoreError,
    StoreErrorKind, Tail, Versioned,
};

/// Objects below a prefix of a bucket, a container or a store in memory.
pub struct ObjectBackend {
    pub(super) store: Arc<dyn ObjectStore>,
    prefix: Path,
    pub(super) redactor: Redactor,
    needs_keep_object: bool,
    pub(super) deleting: Deleting,
    pub(super) conditions: Conditions,
    /// The server does not know ranges that are counted from the end.
    no_suffix: AtomicBool,
    pub(super) seen: Arc<Seen>,
    /// Of new objects, if it is not the store's default.
    storage_class: Option<String>,
}

/// The client's own `Debug` may show secrets.
impl std::fmt::Debug for ObjectBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} below {:?}", self.store, self.prefix.as_ref())
    }
}

impl ObjectBackend {
    /// Objects below `prefix`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        redactor: Redactor,
        needs_keep_object: bool,
    ) -> Self {
        Self {
            store,
            prefix,
            redactor,
            needs_keep_object,
            deleting: Deleting::default(),
            conditions: Conditions::default(),
            no_suffix: AtomicBool::new(false),
            seen: Arc::default(),
            storage_class: None,
        }
    }

    /// The same, with how its objects are deleted, their class of storage, and what answers show.
    pub fn with(self, deleting: Deleting, storage_class: Option<String>, seen: Arc<Seen>) -> Self {
        Self {
            deleting,
            storage_class,
            seen,
            ..self
        }
    }

    pub(super) fn path(&self, relative: &str) -> Path {
        self.prefix
            .parts()
            .chain(Path::from(relative).parts())
            .collect()
    }

    fn key(&self, path: &Path) -> Option<Key> {
        let parts: Vec<_> = path.prefix_match(&self.prefix)?.collect();
        let names: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        Some(Key::listed(names.join("/")))
    }

    pub(super) fn error(&self, error: &object_store::Error) -> StoreError {
        let failure = translate(error, &self.redactor, self.seen.renews_tokens());
        if failure.credentials_expired {
            self.seen.note_expired();
        }
        failure
    }

    pub(super) fn put_error(&self, error: &object_store::Error) -> StoreError {
        let mut failure = self.error(error);
        match error {
            object_store::Error::NotFound { .. } => failure.kind = StoreErrorKind::Refused,
            object_store::Error::AlreadyExists { .. } => failure.contended = true,
            object_store::Error::PermissionDenied { .. } => failure.contended = true,
            _ => {}
        }
        failure
    }

    pub(super) async fn get(
        &self,
        key: &Key,
        range: Option<GetRange>,
    ) -> object_store::Result<GetResult> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        self.store.get_opts(&self.path(key.as_str()), options).await
    }

    pub(super) async fn bytes(&self, result: GetResult) -> Result<Bytes> {
        let expected = result.range.end - result.range.start;
        let bytes = result.bytes().await.map_err(|error| self.error(&error))?;
        if bytes.len() as u64 == expected {
            return Ok(bytes);
        }
        let message = format!("got {} instead of {expected}", count(bytes.len(), "byte"));
        Err(StoreError::new(StoreErrorKind::Corrupt, message))
    }

    async fn listed(
        &self,
        objects: BoxStream<'static, object_store::Result<object_store::ObjectMeta>>,
    ) -> Result<Vec<ObjectMeta>> {
        let found = objects.try_filter_map(async |object| {
            let key = self.key(&object.location);
            Ok(key.map(|key| ObjectMeta {
                key,
                size: object.size,
                entity_tag: entity_tag::normalized(object.e_tag.as_deref()),
            }))
        });
        let listed = found.try_collect().await;
        listed.map_err(|error| self.error(&error))
    }

    /// The tail of an object whose suffix was refused. An empty object has no last byte: servers
    /// refuse the range, or ignore it, which the client refuses. Some servers refuse every suffix.
    async fn tail_after(&self, refusal: StoreError, key: &Key, max: u64) -> Result<Tail> {
        match self.tail_by_size(key, max).await {
            Ok(tail) => {
                let lacks = tail.object_size > 0 && max > 0;
                if lacks && !self.no_suffix.swap(true, Ordering::Relaxed) {
                    tracing::info!(store = ?self, "the store does not answer ranges from the end \
                        of an object: its size is asked for first");
                }
                Ok(tail)
            }
            Err(_) => Err(refusal),
        }
    }

    /// The tail of an object where suffix ranges do not work: the size first, then the bytes.
    async fn tail_by_size(&self, key: &Key, max: u64) -> Result<Tail> {
        let meta = self.store.head(&self.path(key.as_str())).await;
        let object_size = meta.map_err(|error| self.error(&error))?.size;
        let start = object_size - max.min(object_size);
        let bytes = match start == object_size {
            true => Bytes::new(),
            false => self.get_range(key, start..object_size).await?,
        };
        Ok(Tail { bytes, object_size })
    }

    pub(super) async fn put_with(
        &self,
        key: &Key,
        content: PutPayload,
        mode: PutMode,
    ) -> object_store::Result<()> {
        let class = self.storage_class.clone();
        let class = class.map(|class| (Attribute::StorageClass, class));
        let options = PutOptions {
            mode,
            attributes: class.into_iter().collect(),
            ..PutOptions::default()
        };
        let path = self.path(key.as_str());
        match self.store.put_opts(&path, content, options).await {
            // The client wants an entity tag that nothing here needs.
            Err(error) if is_stored(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[async_trait]
impl Store for ObjectBackend {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let content = content.into_iter().collect();
        let put = self.put_with(key, content, PutMode::Overwrite).await;
        put.map_err(|error| self.put_error(&error))
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        self.conditional_put(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        self.read_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        if self.no_suffix.load(Ordering::Relaxed) {
            return self.tail_by_size(key, max).await;
        }
        // A request for zero bytes is not possible; one byte also reveals the size.
        let result = match self.get(key, Some(GetRange::Suffix(max.max(1)))).await {
            Ok(result) => result,
            // Azure has no suffix ranges: the client refuses without a request.
            Err(object_store::Error::NotSupported { .. }) => {
                return self.tail_by_size(key, max).await;
            }
            Err(error) => {
                let failure = self.error(&error);
                return match failure.kind {
                    StoreErrorKind::Corrupt | StoreErrorKind::Refused => {
                        self.tail_after(failure, key, max).await
                    }
                    _ => Err(failure),
                };
            }
        };
        let object_size = result.meta.size;
        let bytes = self.bytes(result).await?;
        let surplus = bytes
            .len()
            .saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(Tail {
            bytes: bytes.slice(surplus..),
            object_size,
        })
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let result = self.get(key, Some(GetRange::Bounded(range.clone()))).await;
        let result = result.map_err(|error| self.error(&error))?;
        if result.range != range {
            let size = result.meta.size;
            let message = format!(
                "the object has {}, not the range {range:?}",
                count(size, "byte")
            );
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        }
        self.bytes(result).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let objects = self.store.list(Some(&self.path(folder.as_str())));
        self.listed(objects).await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let folder = self.path(folder.as_str());
        let objects = match after {
            Some(key) => {
                let after = self.path(key.as_str());
                self.store.list_with_offset(Some(&folder), &after)
            }
            None => self.store.list(Some(&folder)),
        };
        self.listed(objects.take(max).boxed()).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        let objects = self.store.list(Some(&self.path("")));
        let keys = objects.try_filter_map(async |object| Ok(self.key(&object.location)));
        let found = keys.take(max).try_collect().await;
        found.map_err(|error| self.error(&error))
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        let listed = self
            .store
            .list_with_delimiter(Some(&self.path(folder.as_str())))
            .await;
        let listed = listed.map_err(|error| self.error(&error))?;
        let prefixes = listed.common_prefixes.iter();
        let mut names: BTreeSet<String> = prefixes
            .filter_map(|prefix| prefix.filename().map(Into::into))
            .collect();
        // A server that ignores the delimiter lists the objects of the folders instead.
        let base = self.path(folder.as_str());
        for object in &listed.objects {
            let mut parts = object.location.prefix_match(&base).into_iter().flatten();
            if let (Some(name), Some(_)) = (parts.next(), parts.next()) {
                names.insert(name.as_ref().to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        self.delete_all(&keys).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        self.conditional_delete(key, version).await
    }

    async fn remove_stale_temporaries(&self, _: &Folder) -> Result<u64> {
        // A put is one request and leaves nothing when it is interrupted.
        Ok(0)
    }

    fn needs_keep_object(&self) -> bool {
        self.needs_keep_object
    }

    fn distrust_conditions(&self) {
        self.conditions.ignored.store(true, Ordering::Relaxed);
    }

    fn observed(&self) -> Observed {
        let retention = self.seen.retention();
        let deletes_versions = self.deleting.versions.is_some();
        Observed {
            checks_then_writes: self.conditions.are_missing() || self.conditions.are_ignored(),
            retention: retention.filter(|r| *r != Retention::Versions || !deletes_versions),
            stale_credentials: self.seen.has_stale_credentials(),
        }
    }
}
