//! Which base directories a fleet uses, and what else all of its daemons must agree about.
//!
//! Pure: a list of members to text and back, edits, and what the list means for one daemon. Does
//! not: store it (`fleet`). Invariant: each edit has a higher generation, and the highest counts.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checked_text::{self, TextError};
use crate::id::{BaseId, BaseName, InvalidId};

const TITLE: &str = "stopover members";

/// What the fleet does with a base directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It gets new segments.
    Active,
    /// It gets no new segments; what it holds is read and collected.
    Draining,
    /// It is lost or empty: nothing is read from it or expected of it.
    Abandoned,
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Abandoned => "abandoned",
        })
    }
}

/// One base directory of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub id: BaseId,
    pub name: BaseName,
    pub state: MemberState,
}

/// The base directories of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// Higher with each edit.
    pub generation: u64,
    /// Sorted by id.
    pub members: Vec<Member>,
    /// The longest time for which a daemon of the fleet may still write the marker of an exchange
    /// after it was announced, in whole milliseconds. It never becomes shorter.
    pub announcement: Duration,
}

/// Why an object is not a list of members.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MembershipError {
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Id(#[from] InvalidId),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    generation: u64,
    announcement_millis: u64,
    members: Vec<MemberContent>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberContent {
    id: String,
    name: String,
    state: MemberState,
}

impl Membership {
    /// A fleet without base directories.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            members: Vec::new(),
            announcement: Duration::ZERO,
        }
    }

    /// The member with this id.
    pub fn find(&self, id: BaseId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The next generation, with `member` added or replaced.
    #[must_use]
    pub fn with(&self, member: Member) -> Self {
        let mut members = self.members.clone();
        members.retain(|other| other.id != member.id);
        members.push(member);
        members.sort();
        Self {
            generation: self.generation + 1,
            members,
            announcement: self.announcement,
        }
    }

    /// The next generation, in which markers may be written for this long; `None` if they may be
    /// already.
    pub fn with_announcement(&self, announcement: Duration) -> Option<Self> {
        (self.announcement < announcement).then(|| Self {
            generation: self.generation + 1,
            members: self.members.clone(),
            announcement,
        })
    }

    /// The members that are needed and not among `known`: a daemon that lacks one may mistake live
    /// exchanges for expired ones.
    pub fn missing<'a>(&'a self, known: &'a [BaseId]) -> impl Iterator<Item = &'a Member> {
        let needed = |member: &&Member| member.state != MemberState::Abandoned;
        let members = self.members.iter().filter(needed);
        members.filter(|member| !known.contains(&member.id))
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let members = self.members.iter().map(|member| MemberContent {
            id: member.id.to_string(),
            name: member.name.to_string(),
            state: member.state,
        });
        let content = Content {
            generation: self.generation,
            announcement_millis: u64::try_from(self.announcement.as_millis()).unwrap_or(u64::MAX),
            members: members.collect(),
        };
        checked_text::encode(TITLE, &content)
    }

    /// Decodes the stored form.
    ///
    /// # Errors
    /// It is damaged, of another layout, or no list of members.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let (_, content) = checked_text::decode::<Content>(TITLE, bytes)?;
        let members = content.members.into_iter().map(|member| {
            Ok::<_, InvalidId>(Member {
                id: member.id.parse()?,
                name: member.name.parse()?,
                state: member.state,
            })
        });
        let mut members = members.collect::<Result<Vec<_>, _>>()?;
        members.sort();
        Ok(Self {
            generation: content.generation,
            members,
            announcement: Duration::from_millis(content.announcement_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, state: MemberState) -> Member {
        let (id, name) = (BaseId(id), name.parse().unwrap());
        Member { id, name, state }
    }

    #[test]
    fn a_list_decodes_as_encoded_and_the_stored_form_does_not_change() {
        let list = Membership::empty()
            .with(member(2, "b", MemberState::Draining))
            .with(member(1, "a", MemberState::Active))
            .with_announcement(Duration::from_secs(60))
            .unwrap();
        let stored = list.encode();
        let golden = include_str!("../../tests/golden/members-v2.txt");
        assert_eq!(std::str::from_utf8(&stored).unwrap(), golden);
        assert_eq!(Membership::decode(&stored).unwrap(), list);
        assert!(Membership::decode(b"stopover members\n").is_err());
    }

    #[test]
    fn a_base_directory_is_missing_unless_it_is_known_or_abandoned() {
        let list = Membership::empty()
            .with(member(1, "a", MemberState::Active))
            .with(member(2, "b", MemberState::Draining))
            .with(member(3, "c", MemberState::Abandoned));
        let missing = |known: &[u64]| {
            let known: Vec<_> = known.iter().copied().map(BaseId).collect();
            list.missing(&known).map(|m| m.id.0).collect::<Vec<_>>()
        };
        assert_eq!(missing(&[1, 2]), [0_u64; 0]);
        assert_eq!(missing(&[1]), [2]);
        assert_eq!(missing(&[3]), [1, 2]);
    }

    #[test]
    fn the_time_for_announcements_is_raised_and_never_lowered() {
        let seconds = Duration::from_secs;
        let list = Membership::empty().with_announcement(seconds(60)).unwrap();
        assert_eq!(list.generation, 1);
        assert_eq!(list.with_announcement(seconds(60)), None);
        assert_eq!(list.with_announcement(seconds(5)), None);
        let raised = list.with_announcement(seconds(90)).unwrap();
        assert!(raised > list && raised.announcement == seconds(90));
        let edited = raised.with(member(1, "a", MemberState::Active));
        assert_eq!(edited.announcement, seconds(90), "an edit keeps it");
    }

    #[test]
    fn an_edit_replaces_a_member_and_has_a_higher_generation() {
        let one = Membership::empty().with(member(1, "a", MemberState::Active));
        let two = one.with(member(1, "a", MemberState::Abandoned));
        assert_eq!((two.generation, two.members.len()), (2, 1));
        assert!(two > one);
    }
}
