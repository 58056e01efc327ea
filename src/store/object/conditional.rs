//! Conditional writes of small objects in an object store.
//!
//! Does: derive versions, put and delete if a precondition holds, recognise a lost response. Does
//! not: write unconditionally (`backend`). Invariant: where the server implements conditional puts,
//! of several writers with the same precondition one succeeds.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::{PutMode, UpdateVersion};

use super::advice::{CONDITION_PERMISSION, PERMISSION};
use super::backend::ObjectBackend;
use super::entity_tag;
use super::error::may_lack_conditions;
use crate::human::count;
use crate::store::keys::Key;
use crate::store::{
    DeleteOutcome, MAX_VERSIONED_SIZE, Precondition, Result, Store as _, StoreError,
    StoreErrorKind, Versioned, if_found, stable_hash,
};

/// Separates the entity tag, the generation and the content's hash in a version; no entity tag
/// contains it.
const SEPARATOR: char = '\t';

impl ObjectBackend {
    pub(super) async fn conditional_put(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool> {
        use object_store::Error;
        let strict = *expected == Precondition::StrictlyAbsent;
        if self.conditions.are_missing() && !strict {
            return self.check_and_put(key, content, expected).await;
        }
        // Only some may be ignored, so they are sent all the same.
        if self.conditions.are_ignored()
            && !strict
            && let Some(written) = self.written_unless(key, &content, expected).await?
        {
            return Ok(written);
        }
        let proof = self.conditions.proof(expected);
        let put = self.put_with(key, content.clone().into(), put_mode(expected));
        match put.await {
            Ok(()) => Ok(true),
            Err(error @ (Error::Precondition { .. } | Error::AlreadyExists { .. })) => {
                let written = self
                    .explain_refusal(key, &content, expected, &error)
                    .await?;
                proof.fetch_or(!written, Ordering::Relaxed);
                Ok(written)
            }
            Err(error) if strict || proof.load(Ordering::Relaxed) => {
                Err(self.condition_error(&error))
            }
            // If a put without a condition works, the condition was what the server refused.
            Err(error) if may_lack_conditions(&error) => {
                let put = self.check_and_put(key, content, expected).await;
                put.map_err(|failure| match failure.kind {
                    StoreErrorKind::Refused => self.condition_error(&error),
                    _ => failure,
                })
            }
            Err(error) => Err(self.condition_error(&error)),
        }
    }

    /// A conditional put was refused: the object has changed, or it is what an earlier attempt of
    /// this put wrote, or the put collided with a delete of a neighbouring object.
    async fn explain_refusal(
        &self,
        key: &Key,
        content: &Bytes,
        expected: &Precondition,
        error: &object_store::Error,
    ) -> Result<bool> {
        if let Some(written) = self.written_unless(key, content, expected).await? {
            return Ok(written);
        }
        let mut failure = self.put_error(error);
        (failure.kind, failure.contended) = (StoreErrorKind::Unavailable, true);
        Err(failure)
    }

    /// For servers without conditional puts: a write between the check and the put is lost.
    async fn check_and_put(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool> {
        if let Some(written) = self.written_unless(key, &content, expected).await? {
            return Ok(written);
        }
        let put = self.put_with(key, content.into(), PutMode::Overwrite).await;
        put.map_err(|error| self.put_error(&error))?;
        if !self.conditions.missing.swap(true, Ordering::Relaxed) {
            tracing::warn!(store = ?self, "the store does not implement conditional writes: a \
                lease renewed at the moment of its collection may be lost");
        }
        Ok(true)
    }

    /// Unless the precondition holds, whether the object is what an earlier attempt of this put
    /// wrote.
    async fn written_unless(
        &self,
        key: &Key,
        content: &Bytes,
        expected: &Precondition,
    ) -> Result<Option<bool>> {
        let found = if_found(self.read_versioned(key).await)?;
        let written = found.as_ref().is_some_and(|found| found.bytes == *content);
        Ok((!holds(expected, found)).then_some(written))
    }

    /// The error of a conditional put. Some servers that have none answer as if it were forbidden.
    fn condition_error(&self, error: &object_store::Error) -> StoreError {
        let failure = self.put_error(error);
        match failure.hint {
            Some(PERMISSION) => StoreError {
                hint: Some(CONDITION_PERMISSION),
                ..failure
            },
            _ => failure,
        }
    }

    pub(super) async fn read_versioned(&self, key: &Key) -> Result<Versioned> {
        let result = self.get(key, None).await;
        let result = result.map_err(|error| self.error(&error))?;
        if result.meta.size > MAX_VERSIONED_SIZE {
            let size = result.meta.size;
            let message = format!(
                "the object has {}, more than {MAX_VERSIONED_SIZE}",
                count(size, "byte")
            );
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        }
        let e_tag = result.meta.e_tag.clone().unwrap_or_default();
        let generation = result.meta.version.clone().unwrap_or_default();
        let bytes = self.bytes(result).await?;
        let hash = stable_hash(&[&bytes]);
        let version = format!("{e_tag}{SEPARATOR}{generation}{SEPARATOR}{hash:016x}");
        let entity_tag =
            entity_tag::normalized(Some(&e_tag)).unwrap_or_else(|| format!("{hash:016x}"));
        Ok(Versioned {
            bytes,
            version,
            entity_tag,
        })
    }

    /// Object stores have no conditional delete: a write between the check and the delete is lost.
    pub(super) async fn conditional_delete(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome> {
        if let Some(version) = version {
            match if_found(self.read_versioned(key).await)? {
                None => return Ok(DeleteOutcome::Absent),
                Some(found) if found.version != version => return Ok(DeleteOutcome::Changed),
                Some(_) => {}
            }
        }
        self.delete(vec![key.clone()]).await?;
        Ok(DeleteOutcome::Removed)
    }
}

fn holds(expected: &Precondition, found: Option<Versioned>) -> bool {
    match expected {
        Precondition::Absent | Precondition::StrictlyAbsent => found.is_none(),
        Precondition::Version(version) => found.is_some_and(|found| found.version == *version),
    }
}

fn put_mode(expected: &Precondition) -> PutMode {
    let Precondition::Version(version) = expected else {
        return PutMode::Create;
    };
    let part = |n| {
        let part = version.split(SEPARATOR).nth(n);
        part.filter(|part| !part.is_empty()).map(str::to_owned)
    };
    PutMode::Update(UpdateVersion {
        e_tag: part(0),
        version: part(1),
    })
}
