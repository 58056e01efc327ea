//! The description of a daemon's base directories, by which clients compare the daemons of a fleet.
//!
//! Does: describe what was read before. Does not: read anything. Invariant: unknown values are
//! absent, never guessed.

use super::facade::Storage;
use super::membership::{Member, MemberState};
use super::roster::Role;
use crate::id::{BaseId, BaseName};

/// What this daemon knows about a base directory.
#[derive(Debug, Clone)]
pub struct BaseDescription {
    pub name: BaseName,
    /// Without credentials.
    pub uri: String,
    /// Absent until its identity was read.
    pub id: Option<BaseId>,
    /// What the fleet does with it; absent if it is not on the list of members.
    pub state: Option<MemberState>,
}

impl Storage {
    /// The base directories of this daemon.
    pub fn describe(&self) -> Vec<BaseDescription> {
        let bases = self.inner.bases.iter();
        bases
            .map(|base| BaseDescription {
                name: base.name.clone(),
                uri: base.status().uri,
                id: base.attachment.id(),
                state: match base.attachment.role() {
                    Role::Member(state) => Some(state),
                    Role::NotListed => None,
                },
            })
            .collect()
    }

    /// Base directories that the fleet uses and this daemon does not have, as last read. One of its
    /// own whose identity was not read yet is not among them.
    pub fn missing_members(&self) -> Vec<Member> {
        let Some(members) = self.members() else {
            return Vec::new();
        };
        let own = self.describe();
        let known: Vec<_> = own.iter().filter_map(|base| base.id).collect();
        let unread = |member: &&Member| {
            let mut same_name = own.iter().filter(|base| base.name == member.name);
            same_name.any(|base| base.id.is_none())
        };
        let missing = members.missing(&known).filter(|member| !unread(member));
        missing.cloned().collect()
    }
}
