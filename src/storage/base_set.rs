//! The set of an exchange: the base directories that were in order when it was announced.
//!
//! Does: tell which are in order now, and find those of a set. Does not: probe them (`base`).
//! Invariant: a set contains no base directory that the fleet does not use, and is never empty.

use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use crate::id::{BaseId, ExchangeId};
use crate::store::keys::{self, Key};

impl Storage {
    /// The identities of the base directories that work, as far as is known, in the order in which
    /// the exchange prefers them; if none works, those that were reached before. No request, unless
    /// none was reached since the daemon started.
    ///
    /// # Errors
    /// No base directory has been reached yet.
    pub async fn in_order(&self, exchange: &ExchangeId) -> Result<Vec<BaseId>> {
        self.inner.fleet.settle_once().await;
        let identified = |only_working: bool| {
            let preferred = self.preferred(exchange).into_iter();
            let bases = preferred.map(|index| &self.inner.bases[index]);
            let bases = bases.filter(|base| base.is_active() && (base.works() || !only_working));
            bases.filter_map(|base| base.attachment.id()).collect()
        };
        let mut set: Vec<BaseId> = identified(true);
        if set.is_empty() {
            set = identified(false);
        }
        match set.is_empty() {
            false => Ok(set),
            true => Err(incomplete(
                &keys::marker(exchange),
                "none of the base directories here that the fleet uses has been reached since this \
                 daemon was started",
            )),
        }
    }

    /// The indexes of the base directories of a set, as far as they are known here.
    ///
    /// # Errors
    /// None of them is.
    pub(super) fn indexes_of(&self, set: &[BaseId], key: &Key) -> Result<Vec<usize>> {
        let known = set.iter().filter_map(|id| {
            let mut bases = self.inner.bases.iter();
            bases.position(|base| base.attachment.id() == Some(*id))
        });
        let known: Vec<usize> = known.collect();
        match known.is_empty() {
            false => Ok(known),
            true => Err(incomplete(
                key,
                "this daemon has none of the base directories that were in order when the exchange \
                 was announced",
            )),
        }
    }
}

fn incomplete(key: &Key, reason: &str) -> StorageError {
    StorageError {
        base: "all".into(),
        operation: "put",
        object: key.to_string(),
        source: StorageFailure::Incomplete(reason.into()),
    }
}
