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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> BaseName {
        name.parse().unwrap()
    }

    fn list(members: &[(u64, &str, MemberState)]) -> Membership {
        let members = members.iter().map(|(id, text, state)| Member {
            id: BaseId(*id),
            name: name(text),
            state: *state,
        });
        members.fold(Membership::empty(), |list, member| list.with(member))
    }

    #[test]
    fn one_base_directory_under_two_names_is_refused_with_the_first() {
        let roster = Roster::default();
        assert_eq!(roster.identify(BaseId(1), &name("a")), Ok(()));
        assert_eq!(roster.identify(BaseId(1), &name("a")), Ok(()));
        assert_eq!(roster.identify(BaseId(1), &name("b")), Err(name("a")));
        assert_eq!(roster.identify(BaseId(2), &name("b")), Ok(()));
        assert_eq!(roster.identified(), [BaseId(1), BaseId(2)]);
    }

    #[test]
    fn an_older_list_never_replaces_a_newer_one() {
        let roster = Roster::default();
        assert!(roster.members().is_none());
        let old = list(&[(1, "a", MemberState::Active)]);
        let new = list(&[
            (1, "a", MemberState::Active),
            (2, "b", MemberState::Draining),
        ]);
        for (adopted, expected) in [(&old, &old), (&new, &new), (&old, &new)] {
            roster.adopt(adopted);
            assert_eq!(roster.members().as_deref(), Some(expected));
        }
        let adopted = roster.members().unwrap();
        roster.adopt(&new.clone());
        let members = roster.members().unwrap();
        assert!(Arc::ptr_eq(&adopted, &members), "an equal list is no news");
    }

    #[test]
    fn the_role_of_a_base_directory_follows_its_identity_and_before_that_its_name() {
        let roster = Roster::default();
        let (a, active) = (name("a"), Role::Member(MemberState::Active));
        assert_eq!(roster.role(Some(BaseId(9)), &a), active, "no list was read");
        roster.adopt(&list(&[
            (1, "a", MemberState::Abandoned),
            (2, "a", MemberState::Draining),
            (3, "b", MemberState::Active),
        ]));
        let abandoned = Role::Member(MemberState::Abandoned);
        assert_eq!(roster.role(Some(BaseId(1)), &a), abandoned);
        assert_eq!(roster.role(Some(BaseId(3)), &a), active);
        assert_eq!(roster.role(Some(BaseId(9)), &a), Role::NotListed);
        let draining = Role::Member(MemberState::Draining);
        assert_eq!(roster.role(None, &a), draining, "not the abandoned one");
        assert_eq!(roster.role(None, &name("c")), Role::NotListed);
    }

    #[test]
    fn only_the_process_that_wrote_the_first_list_is_its_founder() {
        let roster = Roster::default();
        assert!(!roster.is_founder());
        roster.set_founder();
        assert!(roster.is_founder());
    }
}
