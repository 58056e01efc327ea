//! The set of an exchange: the base directories that were in order when it was announced.
//!
//! Does: determine which are in order now, record the sets of exchanges, and divide the base
//! directories of this daemon by them. Does not: probe them (`base`), or store sets (`exchange`).
//! Invariant: if the set of an exchange is unknown, all base directories count as members; a set
//! contains no base directory that the fleet does not use.
//!
//! Markers are only in members of the set; segments may be in any base directory.

use std::sync::Arc;

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use super::membership::MemberState;
use super::placement;
use crate::id::{BaseId, ExchangeId};
use crate::store::keys::{self, Key};

/// The base directories of a daemon, divided by the set of an exchange. Indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseSet {
    /// The members of the set, in the exchange's order of preference.
    pub members: Vec<usize>,
    /// The rest, without those that were abandoned.
    pub others: Vec<usize>,
    /// A member that this daemon does not have.
    pub lacking: Option<BaseId>,
}

/// Divides base directories, in the order of preference, by a set. One that was not identified yet
/// may be a member for which no identified one was found.
fn divide(preferred: &[(usize, Option<BaseId>)], set: &[BaseId]) -> BaseSet {
    let found = |id: &BaseId| {
        preferred
            .iter()
            .any(|(_, known)| known.as_ref() == Some(id))
    };
    let mut unmatched = set.iter().filter(|id| !found(id)).copied();
    let unmatched = unmatched.next();
    let is_member = |id: &Option<BaseId>| match id {
        Some(id) => set.contains(id),
        None => unmatched.is_some(),
    };
    let (members, others): (Vec<_>, Vec<_>) = preferred.iter().partition(|(_, id)| is_member(id));
    let unidentified = members.iter().any(|(_, id)| id.is_none());
    let indexes = |part: Vec<(usize, Option<BaseId>)>| part.into_iter().map(|(at, _)| at).collect();
    BaseSet {
        members: indexes(members),
        others: indexes(others),
        lacking: unmatched.filter(|_| !unidentified),
    }
}

impl Storage {
    /// Indexes of the base directories in the order in which an exchange prefers them.
    pub(super) fn preferred(&self, exchange: &ExchangeId) -> Vec<usize> {
        let names = self.inner.bases.iter().map(|base| &base.name);
        let mut order = placement::rendezvous(exchange, names);
        order.retain(|index| !self.inner.bases[*index].is_abandoned());
        order
    }

    /// The identities of the base directories that work according to their last health, in the
    /// order of the exchange's preference; if none works, those that were reached before. Sends no
    /// request, unless none was reached since the daemon started.
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

    /// Records the set of an exchange. If it was announced several times, the members of all
    /// announcements are in it.
    pub fn remember_set(&self, exchange: &ExchangeId, set: &[BaseId]) {
        self.inner.sets.add(exchange, set);
    }

    /// The index of a base directory, if it is one of these.
    pub(super) fn index_of(&self, base: &Arc<BaseDirectory>) -> Option<usize> {
        let mut bases = self.inner.bases.iter();
        bases.position(|one| Arc::ptr_eq(one, base))
    }

    /// The base directories, divided by the set of an exchange.
    pub(super) fn set_of(&self, exchange: &ExchangeId) -> BaseSet {
        let preferred = self.preferred(exchange).into_iter();
        let Some(set) = self.inner.sets.get(exchange) else {
            return BaseSet {
                members: preferred.collect(),
                others: Vec::new(),
                lacking: None,
            };
        };
        let identified = preferred.map(|at| (at, self.inner.bases[at].attachment.id()));
        let identified: Vec<_> = identified.collect();
        let mut divided = divide(&identified, &set);
        let members = self.members();
        divided.lacking = divided.lacking.filter(|id| {
            let listed = members.as_deref().and_then(|list| list.find(*id));
            listed.is_none_or(|member| member.state != MemberState::Abandoned)
        });
        divided
    }

    /// Whether there are base directories outside the set of an exchange.
    pub fn has_others(&self, exchange: &ExchangeId) -> bool {
        !self.set_of(exchange).others.is_empty()
    }

    /// The error of an operation for which a member that this daemon lacks is needed.
    pub(super) fn lacking(&self, exchange: &ExchangeId, id: BaseId) -> StorageError {
        incomplete(
            &keys::marker(exchange),
            &format!(
                "the exchange was announced with base directory {id}, which this daemon does not \
                 have; every daemon needs the same base directories"
            ),
        )
    }

    /// The indexes of those members of a set that this daemon knows.
    ///
    /// # Errors
    /// This daemon knows none of them.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<BaseId> {
        ids.iter().copied().map(BaseId).collect()
    }

    fn divided(bases: &[Option<u64>], set: &[u64]) -> (Vec<usize>, Vec<usize>, Option<BaseId>) {
        let bases = bases.iter().enumerate();
        let bases: Vec<_> = bases.map(|(at, id)| (at, id.map(BaseId))).collect();
        let BaseSet {
            members,
            others,
            lacking,
        } = divide(&bases, &ids(set));
        (members, others, lacking)
    }

    #[test]
    fn the_members_must_answer_and_the_others_need_not() {
        let bases = [Some(1), Some(2), Some(3)];
        assert_eq!(divided(&bases, &[3, 1]), (vec![0, 2], vec![1], None));
        assert_eq!(divided(&bases, &[1, 2, 3]), (vec![0, 1, 2], vec![], None));
    }

    #[test]
    fn one_that_was_not_reached_yet_may_be_the_missing_member() {
        let bases = [Some(1), None, Some(3)];
        assert_eq!(divided(&bases, &[1, 3]), (vec![0, 2], vec![1], None));
        assert_eq!(divided(&bases, &[1, 7]), (vec![0, 1], vec![2], None));
    }

    #[test]
    fn a_member_that_this_daemon_lacks_is_named() {
        let found = divided(&[Some(1)], &[1, 7]);
        assert_eq!(found, (vec![0], vec![], Some(BaseId(7))));
    }
}
