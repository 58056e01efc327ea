//! A base directory in an object store, through `object_store`; also in memory.
//!
//! Does: translate operations, keys and errors. Does not: choose credentials (`base_dir`) or try
//! again for long (`retry`; the client's own few tries are for dropped connections and single
//! 503s). Invariant: no message that leaves here holds a configured secret.

pub mod checksums;
pub mod cloud;
pub mod error;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};

use self::checksums::Checksums;
use self::error::{Redactor, is_not_implemented, translate};
use super::keys::{Folder, Key};
use super::{
    DeleteOutcome, MAX_VERSIONED_SIZE, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind,
    Tail, Versioned, stable_hash,
};

/// Between the parts of a version; no entity tag holds it.
const SEPARATOR: char = '\t';

/// Objects below a prefix of a bucket, a container or a store in memory.
pub struct ObjectBackend {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    redactor: Redactor,
    /// It has turned out to know no conditional puts.
    unconditional: AtomicBool,
    needs_keep_object: bool,
    /// Another way for its uploads, where there is one.
    checksums: Option<Arc<Checksums>>,
}

/// The client's own `Debug` may show more than anybody should read.
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
            unconditional: AtomicBool::new(false),
            needs_keep_object,
            checksums: None,
        }
    }

    /// Uploads in another way once it is known to be safe; conditional puts stay as they are.
    pub fn with_checksums(self, checksums: Checksums) -> Self {
        Self {
            checksums: Some(Arc::new(checksums)),
            ..self
        }
    }

    fn path(&self, relative: &str) -> Path {
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

    fn error(&self, error: &object_store::Error) -> StoreError {
        translate(error, &self.redactor)
    }

    fn put_error(&self, error: &object_store::Error) -> StoreError {
        let mut failure = self.error(error);
        match error {
            object_store::Error::NotFound { .. } => failure.kind = StoreErrorKind::Refused,
            object_store::Error::AlreadyExists { .. } => failure.contended = true,
            object_store::Error::PermissionDenied { .. } => failure.contended = true,
            _ => {}
        }
        failure
    }

    async fn get(&self, key: &Key, range: Option<GetRange>) -> object_store::Result<GetResult> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        self.store.get_opts(&self.path(key.as_str()), options).await
    }

    async fn bytes(&self, result: GetResult) -> Result<Bytes, StoreError> {
        let expected = result.range.end - result.range.start;
        let bytes = result.bytes().await.map_err(|error| self.error(&error))?;
        if bytes.len() as u64 == expected {
            return Ok(bytes);
        }
        let message = format!("{} bytes came instead of {expected}", bytes.len());
        Err(StoreError::new(StoreErrorKind::Corrupt, message))
    }

    /// The tail of an object in a store that does not know the last bytes of anything, or that has
    /// an empty object: the size first, then the bytes.
    async fn tail_by_size(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let meta = self.store.head(&self.path(key.as_str())).await;
        let object_size = meta.map_err(|error| self.error(&error))?.size;
        let start = object_size - max.min(object_size);
        let bytes = match start == object_size {
            true => Bytes::new(),
            false => self.get_range(key, start..object_size).await?,
        };
        Ok(Tail { bytes, object_size })
    }

    async fn put_with(
        &self,
        key: &Key,
        content: PutPayload,
        mode: PutMode,
    ) -> object_store::Result<()> {
        let options = PutOptions::from(mode);
        let path = self.path(key.as_str());
        self.store.put_opts(&path, content, options).await.map(drop)
    }

    /// A conditional put was refused: because the object is another one, because it is the very one
    /// that an earlier try of this put wrote, or because of some neighbour.
    async fn why_refused(
        &self,
        key: &Key,
        content: &Bytes,
        expected: &Precondition,
        error: &object_store::Error,
    ) -> Result<bool, StoreError> {
        let found = match self.get_versioned(key).await {
            Ok(found) if found.bytes == *content => return Ok(true),
            Ok(found) => Precondition::Version(found.version),
            Err(error) if error.kind == StoreErrorKind::NotFound => Precondition::Absent,
            Err(error) => return Err(error),
        };
        if found != *expected {
            return Ok(false);
        }
        let mut failure = self.put_error(error);
        (failure.kind, failure.contended) = (StoreErrorKind::Unavailable, true);
        Err(failure)
    }

    /// For stores that know no conditions: what comes between the look and the put is lost.
    async fn look_and_put(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        if !self.unconditional.swap(true, Ordering::Relaxed) {
            tracing::warn!(store = ?self, "the store knows no conditional writes: a lease that is \
                renewed in the same instant in which it is collected may be lost");
        }
        let found = match self.get_versioned(key).await {
            Ok(found) => Precondition::Version(found.version),
            Err(error) if error.kind == StoreErrorKind::NotFound => Precondition::Absent,
            Err(error) => return Err(error),
        };
        if found != *expected {
            return Ok(false);
        }
        let put = self.put_with(key, content.into(), PutMode::Overwrite).await;
        put.map(|()| true).map_err(|error| self.put_error(&error))
    }
}

fn put_mode(expected: &Precondition) -> PutMode {
    let Precondition::Version(version) = expected else {
        return PutMode::Create;
    };
    let part = |n| {
        version
            .split(SEPARATOR)
            .nth(n)
            .filter(|part| !part.is_empty())
    };
    PutMode::Update(UpdateVersion {
        e_tag: part(0).map(str::to_owned),
        version: part(1).map(str::to_owned),
    })
}

#[async_trait]
impl Store for ObjectBackend {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        if let Some(other_way) = self.checksums.as_ref().and_then(|c| c.for_uploads()) {
            return other_way.put(key, content).await;
        }
        let content = content.into_iter().collect();
        let put = self.put_with(key, content, PutMode::Overwrite).await;
        put.map_err(|error| self.put_error(&error))
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        use object_store::Error;
        if self.unconditional.load(Ordering::Relaxed) {
            return self.look_and_put(key, content, expected).await;
        }
        let put = self.put_with(key, content.clone().into(), put_mode(expected));
        match put.await {
            Ok(()) => Ok(true),
            Err(error) if is_not_implemented(&error) => {
                self.look_and_put(key, content, expected).await
            }
            Err(error @ (Error::Precondition { .. } | Error::AlreadyExists { .. })) => {
                self.why_refused(key, &content, expected, &error).await
            }
            Err(error) => Err(self.put_error(&error)),
        }
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let result = self
            .get(key, None)
            .await
            .map_err(|error| self.error(&error))?;
        if result.meta.size > MAX_VERSIONED_SIZE {
            let message = format!("{} bytes, more than {MAX_VERSIONED_SIZE}", result.meta.size);
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        }
        let e_tag = result.meta.e_tag.clone().unwrap_or_default();
        let generation = result.meta.version.clone().unwrap_or_default();
        let bytes = self.bytes(result).await?;
        let hash = stable_hash(&[&bytes]);
        let version = format!("{e_tag}{SEPARATOR}{generation}{SEPARATOR}{hash:016x}");
        Ok(Versioned { bytes, version })
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        use StoreErrorKind::{Corrupt, Refused};
        // Zero bytes cannot be asked for; one byte also tells the size.
        let result = match self.get(key, Some(GetRange::Suffix(max.max(1)))).await {
            Ok(result) => result,
            // Azure does not know suffixes: the client refuses without asking.
            Err(object_store::Error::NotSupported { .. }) => {
                return self.tail_by_size(key, max).await;
            }
            Err(error) => {
                let failure = self.error(&error);
                // An empty object has no last bytes: servers refuse the range, or answer without
                // one, which the client refuses. Any other object had a true failure.
                if !matches!(failure.kind, Corrupt | Refused) {
                    return Err(failure);
                }
                let tail = self.tail_by_size(key, 0).await;
                return tail
                    .ok()
                    .filter(|tail| tail.object_size == 0)
                    .ok_or(failure);
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

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let result = self.get(key, Some(GetRange::Bounded(range.clone()))).await;
        let result = result.map_err(|error| self.error(&error))?;
        if result.range != range {
            let message = format!("bytes {range:?} of an object of {} bytes", result.meta.size);
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        }
        self.bytes(result).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        let objects = self.store.list(Some(&self.path(folder.as_str())));
        let found = objects.try_filter_map(async |object| {
            let key = self.key(&object.location);
            Ok(key.map(|key| ObjectMeta {
                key,
                size: object.size,
            }))
        });
        found
            .try_collect()
            .await
            .map_err(|error| self.error(&error))
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        let listed = self
            .store
            .list_with_delimiter(Some(&self.path(folder.as_str())))
            .await;
        let listed = listed.map_err(|error| self.error(&error))?;
        let names = listed
            .common_prefixes
            .iter()
            .filter_map(|prefix| prefix.filename());
        Ok(names.map(Into::into).collect())
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key.as_str()))).collect();
        let mut answers = self
            .store
            .delete_stream(futures::stream::iter(paths).boxed());
        let (mut removed, mut failure) = (0, None);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) => removed += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => failure = failure.or_else(|| Some(self.error(&error))),
            }
        }
        failure.map_or(Ok(removed), Err)
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        match self.get_versioned(key).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Ok(DeleteOutcome::Absent);
            }
            Ok(found) if version.is_some_and(|version| version != found.version) => {
                return Ok(DeleteOutcome::Changed);
            }
            // What is too large to be read is removed like any other.
            Err(error) if version.is_none() && error.kind == StoreErrorKind::Corrupt => {}
            other => drop(other?),
        }
        self.delete(vec![key.clone()])
            .await
            .map(|_| DeleteOutcome::Removed)
    }

    async fn remove_stale_temporaries(&self, _: &Folder) -> Result<u64, StoreError> {
        // A put is one request: there is nothing halfway.
        Ok(0)
    }

    fn needs_keep_object(&self) -> bool {
        self.needs_keep_object
    }

    fn checksums(&self) -> Option<Arc<Checksums>> {
        self.checksums.clone()
    }
}
