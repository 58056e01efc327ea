//! The set of an exchange: the base directories that were in order when it was announced.
//!
//! Does: tell which are in order now. Does not: probe them (`base`). Invariant: a set contains no
//! base directory that the fleet does not use, and is never empty.

use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use crate::id::{BaseId, ExchangeId};
use crate::store::keys;

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
        if set.is_empty() {
            let reason = "none of the base directories here that the fleet uses has been reached \
                 since this daemon was started";
            return Err(StorageError {
                base: "all".into(),
                operation: "put",
                object: keys::marker(exchange).to_string(),
                source: StorageFailure::Incomplete(reason.into()),
            });
        }
        Ok(set)
    }
}
