//! A base directory in an object store, through `object_store`; also in memory.
//!
//! Does: translate operations, keys and errors. Does not: choose credentials (`base_dir`) or try
//! again for long (`retry`; the client's own few tries are for dropped connections and single
//! 503s). Invariant: no message that leaves here holds a configured secret.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt,
    PutOptions, PutPayload,
};

use super::keys::{Folder, Key};
use super::object_error::{Redactor, translate};
use super::store::{Found, MAX_VERSIONED_SIZE, Store, StoreError, Versioned};
use super::{StorageErrorKind, Tail};
use crate::clock::Random;

/// Metadata of a marker: the entity tag of some stores is a hash of the content, and so is the same
/// when the same content is written again.
const NONCE: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("nonce"));

/// Objects below a prefix of a bucket, a container or a store in memory.
pub struct ObjectBackend {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    redactor: Redactor,
    random: Random,
    wants_keep: bool,
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
        random: Random,
        wants_keep: bool,
    ) -> Self {
        Self {
            store,
            prefix,
            redactor,
            random,
            wants_keep,
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
            object_store::Error::NotFound { .. } => failure.kind = StorageErrorKind::Refused,
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
        Err(StoreError::new(StorageErrorKind::Corrupt, message))
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
        options: PutOptions,
    ) -> Result<(), StoreError> {
        let put = self
            .store
            .put_opts(&self.path(key.as_str()), content, options)
            .await;
        put.map(|_| ()).map_err(|error| self.put_error(&error))
    }
}

#[async_trait]
impl Store for ObjectBackend {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.put_with(key, content.into_iter().collect(), PutOptions::default())
            .await
    }

    async fn put_versioned(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let nonce = format!("{:016x}", self.random.next_u64());
        let attributes = Attributes::from_iter([(NONCE, nonce)]);
        self.put_with(key, content.into(), attributes.into()).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let result = self
            .get(key, None)
            .await
            .map_err(|error| self.error(&error))?;
        if result.meta.size > MAX_VERSIONED_SIZE {
            let message = format!("{} bytes, more than {MAX_VERSIONED_SIZE}", result.meta.size);
            return Err(StoreError::new(StorageErrorKind::Corrupt, message));
        }
        let version = format!(
            "{}-{}-{}-{}",
            result.meta.last_modified.timestamp_millis(),
            result.meta.size,
            result
                .meta
                .e_tag
                .as_deref()
                .unwrap_or_default()
                .trim_matches('"'),
            result.attributes.get(&NONCE).map_or("", AsRef::as_ref),
        );
        Ok(Versioned {
            bytes: self.bytes(result).await?,
            version,
        })
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        use StorageErrorKind::{Corrupt, Refused};
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
            return Err(StoreError::new(StorageErrorKind::Corrupt, message));
        }
        self.bytes(result).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<Found>, StoreError> {
        let objects = self.store.list(Some(&self.path(folder.as_str())));
        let found = objects.try_filter_map(async |object| {
            let key = self.key(&object.location);
            Ok(key.map(|key| Found {
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

    async fn remove_stale_temporaries(&self, _: &Folder) -> Result<u64, StoreError> {
        // A put is one request: there is nothing halfway.
        Ok(0)
    }

    fn wants_keep(&self) -> bool {
        self.wants_keep
    }
}
