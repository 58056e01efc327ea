//! The fleet's base directories that this daemon knows.
//!
//! Does: hold the newest list of members and the base directories that were identified here. Does
//! not: read or write anything (`attachment`, `fleet`). Invariant: the list never becomes older,
//! and no two base directories of this daemon have the same identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::membership::{Member, MemberState, Membership};
use crate::id::{BaseId, BaseName};

#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    identified: BTreeMap<BaseId, BaseName>,
    members: Option<Arc<Membership>>,
    /// This process has written the first list: it adds its other base directories too.
    founder: bool,
}

/// The role of a base directory in the fleet, according to this daemon's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is listed as this, or no list has been read yet.
    Member(MemberState),
    /// It is not on the list: other daemons may lack it.
    NotListed,
}

impl Roster {
    /// Records which base directory was found under a name.
    ///
    /// # Errors
    /// The other name under which this daemon has it already.
    pub(super) fn identify(&self, id: BaseId, name: &BaseName) -> Result<(), BaseName> {
        let mut state = self.0.lock();
        let known = state.identified.entry(id).or_insert_with(|| name.clone());
        match known == name {
            true => Ok(()),
            false => Err(known.clone()),
        }
    }

    /// The identities of the base directories of this daemon that were identified.
    pub(super) fn identified(&self) -> Vec<BaseId> {
        self.0.lock().identified.keys().copied().collect()
    }

    /// The newest list that was read or written.
    pub(super) fn members(&self) -> Option<Arc<Membership>> {
        self.0.lock().members.clone()
    }

    /// Replaces the list by a newer one.
    pub(super) fn adopt(&self, members: &Membership) {
        let mut state = self.0.lock();
        if state.members.as_deref().is_none_or(|old| old < members) {
            state.members = Some(Arc::new(members.clone()));
        }
    }

    pub(super) fn is_founder(&self) -> bool {
        self.0.lock().founder
    }

    pub(super) fn set_founder(&self) {
        self.0.lock().founder = true;
    }

    /// What the fleet does with a base directory. Before it is identified its name decides, so that
    /// one that is lost need not be reached.
    pub(super) fn role(&self, id: Option<BaseId>, name: &BaseName) -> Role {
        let Some(members) = self.members() else {
            return Role::Member(MemberState::Active);
        };
        let listed = match id {
            Some(id) => members.find(id),
            None => find_by_name(&members, name),
        };
        listed.map_or(Role::NotListed, |member| Role::Member(member.state))
    }
}

/// The member of this name; rather one that was not abandoned.
pub(super) fn find_by_name<'a>(members: &'a Membership, name: &BaseName) -> Option<&'a Member> {
    let named = members.members.iter().filter(|member| member.name == *name);
    named.min_by_key(|member| member.state)
}
