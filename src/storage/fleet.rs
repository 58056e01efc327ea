//! The list of the fleet's base directories, as stored in each of them.
//!
//! Does: read the list from all base directories, create it for a new fleet, edit it, copy the
//! newest to those that have an older one, and decide whether this daemon has all members, so that
//! it may collect. Does not: interpret a list (`membership`). Invariant: a base directory gets
//! objects only once every other member has the list that contains it; so a daemon that lacks it
//! detects that before it concludes that an exchange has ended.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;

use super::attachment::Attachment;
use super::error::{Result, StorageError, StorageFailure};
use super::membership::{Member, MemberState, Membership};
use super::roster::{Role, Roster, find_by_name};
use crate::id::{BaseId, BaseName};
use crate::store::keys::{self, Owner};
use crate::store::{Precondition, StoreError, StoreErrorKind, if_found};

/// How many times an edit is tried while others edit the list.
const MAX_EDITS: u32 = 8;

/// Objects that are listed to determine whether the fleet has exchanges.
const SAMPLE: usize = 100;

/// The base directories of a daemon as a part of the fleet.
#[derive(Debug)]
pub(super) struct Fleet {
    attachments: Vec<Arc<Attachment>>,
    roster: Arc<Roster>,
    editing: tokio::sync::Mutex<()>,
    settled: tokio::sync::OnceCell<()>,
    /// Why this daemon collects nothing.
    collection_obstacle: Mutex<Option<String>>,
    /// How long this daemon tries to write the marker of an exchange that it announces.
    announcement: Mutex<Duration>,
}

/// The list in one base directory.
struct Stored {
    at: Arc<Attachment>,
    /// With the version of the object; `None` if there is none.
    list: Option<(Membership, String)>,
}

/// What was read from all base directories.
struct Lists {
    stored: Vec<Stored>,
    failures: Vec<StorageError>,
    newest: Option<Membership>,
}

impl Fleet {
    pub(super) fn new(attachments: Vec<Arc<Attachment>>, roster: Arc<Roster>) -> Arc<Self> {
        Arc::new(Self {
            attachments,
            roster,
            editing: tokio::sync::Mutex::default(),
            settled: tokio::sync::OnceCell::new(),
            collection_obstacle: Mutex::default(),
            announcement: Mutex::default(),
        })
    }

    /// Sets for how long this daemon would write the marker of an exchange. It is entered in the
    /// list before it is used, unless that allows as much.
    pub(super) fn set_announcement(&self, announcement: Duration) {
        *self.announcement.lock() = announcement;
    }

    /// For how long this daemon may write the marker of an exchange that it announces: as long as
    /// it is configured with, if the fleet's list allows that. What is not on the list yet, nobody
    /// else has entered.
    pub(super) fn announcement(&self) -> Duration {
        let (own, listed) = (*self.announcement.lock(), self.listed_announcement());
        listed.map_or(own, |listed| own.min(listed))
    }

    /// For how long any daemon of the fleet may do so.
    pub(super) fn longest_announcement(&self) -> Duration {
        let listed = self.listed_announcement().unwrap_or_default();
        listed.max(*self.announcement.lock())
    }

    fn listed_announcement(&self) -> Option<Duration> {
        let listed = self.members().map(|list| list.announcement);
        listed.filter(|listed| !listed.is_zero())
    }

    /// The newest list that is known.
    pub(super) fn members(&self) -> Option<Arc<Membership>> {
        self.roster.members()
    }

    /// Why this daemon collects nothing, if that is so.
    pub(super) fn collection_obstacle(&self) -> Option<String> {
        self.collection_obstacle.lock().clone()
    }

    /// Settles before the first put, if no base directory was probed before.
    pub(super) async fn settle_once(&self) {
        if self.roster.members().is_some() {
            return;
        }
        let identify = || join_all(self.attachments.iter().map(|at| at.ensure()));
        let settle = async || {
            identify().await;
            self.settle().await;
        };
        self.settled.get_or_init(settle).await;
    }

    /// Reads the list where a base directory was identified, founds it in a new fleet, enters what
    /// this daemon needs, and copies the newest to where an older one is.
    pub(super) async fn settle(&self) {
        let _editing = self.editing.lock().await;
        for _ in 0..MAX_EDITS {
            let lists = self.read_lists(|at| at.id().is_some()).await;
            let list = lists.newest.clone().unwrap_or_else(Membership::empty);
            let unlisted = lists.stored.iter().filter_map(|stored| {
                let id = stored.at.id().filter(|id| list.find(*id).is_none())?;
                Some((id, stored.at.name.clone()))
            });
            let unlisted: Vec<_> = unlisted.collect();
            let adds = !unlisted.is_empty() && self.may_add(&lists).await;
            let Some(next) = self.next_list(&lists, if adds { unlisted } else { Vec::new() })
            else {
                self.copy(&lists).await;
                return;
            };
            let founding = lists.newest.is_none();
            match self.write(&next, &lists, true).await {
                Ok(true) => {
                    if founding {
                        self.roster.set_founder();
                    }
                    tracing::info!(
                        generation = next.generation,
                        announcement_timeout = ?next.announcement,
                        added = next.members.len() - list.members.len(),
                        "the fleet's list of members was changed"
                    );
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot write the list of the fleet's members");
                    return;
                }
            }
        }
    }

    /// The list with these base directories, and with the time that this daemon is configured with
    /// if all members were read; `None` if it has all that.
    fn next_list(&self, lists: &Lists, new: Vec<(BaseId, BaseName)>) -> Option<Membership> {
        let list = lists.newest.clone().unwrap_or_else(Membership::empty);
        let read: Vec<BaseId> = lists.stored.iter().filter_map(|s| s.at.id()).collect();
        let state = MemberState::Active;
        let added = new.into_iter().fold(list.clone(), |list, (id, name)| {
            list.with(Member { id, name, state })
        });
        let complete = !added.members.is_empty() && added.missing(&read).next().is_none();
        let own = *self.announcement.lock();
        let raised = complete.then(|| added.with_announcement(own)).flatten();
        let next = raised.unwrap_or(added);
        (next != list).then_some(next)
    }

    /// Checks that this daemon has every base directory in which the fleet may have a marker.
    ///
    /// # Errors
    /// It lacks one, the list is missing, or a base directory cannot be read.
    pub(super) async fn check_complete(&self) -> Result<()> {
        if !self.is_settled() {
            self.settle().await;
        }
        let lists = {
            let _editing = self.editing.lock().await;
            let lists = self.read_lists(|_| true).await;
            self.copy(&lists).await;
            lists
        };
        let known = self.members();
        if let Some(failure) = lists.failures.into_iter().next() {
            return Err(failure);
        }
        let collection_obstacle = match known {
            None => Some(
                "the list of the fleet's members cannot be written; run `stopover members add` for \
                 each base directory that it uses"
                    .to_owned(),
            ),
            Some(members) => lacking(&members, &self.roster.identified()),
        };
        let mut state = self.collection_obstacle.lock();
        if *state != collection_obstacle {
            match &collection_obstacle {
                Some(why) => tracing::warn!("this daemon collects nothing: {why}"),
                None => tracing::info!("this daemon has all base directories of the fleet again"),
            }
            state.clone_from(&collection_obstacle);
        }
        match collection_obstacle {
            None => Ok(()),
            Some(why) => Err(StorageError {
                base: "all".into(),
                operation: "collect",
                object: "expired exchanges".into(),
                source: StorageFailure::Incomplete(why),
            }),
        }
    }

    /// Whether there is a list and all base directories that were identified are on it.
    fn is_settled(&self) -> bool {
        let identified = self.roster.identified();
        let members = self.members();
        members.is_some_and(|list| identified.iter().all(|id| list.find(*id).is_some()))
    }

    /// Sets what the fleet does with a base directory.
    ///
    /// # Errors
    /// There is none of this name, or the list cannot be written where it must be.
    pub(super) async fn set_state(
        &self,
        name: &BaseName,
        state: MemberState,
    ) -> Result<Arc<Membership>> {
        let _editing = self.editing.lock().await;
        for _ in 0..MAX_EDITS {
            let lists = self.read_lists(|_| true).await;
            let list = lists.newest.clone().unwrap_or_else(Membership::empty);
            let member = self.member_for(&list, name, state)?;
            let next = list.with(member);
            // What is added needs the list everywhere; what leaves may be unreachable.
            if self
                .write(&next, &lists, state == MemberState::Active)
                .await?
            {
                return Ok(self.members().unwrap_or_else(|| Arc::new(next)));
            }
        }
        Err(edit_error(name, "other processes edit it at the same time"))
    }

    fn member_for(&self, list: &Membership, name: &BaseName, state: MemberState) -> Result<Member> {
        let mine = self.attachments.iter().find(|at| at.name == *name);
        let mine = mine.and_then(|at| at.id());
        let listed = match mine {
            Some(id) => list.find(id).or_else(|| find_by_name(list, name)),
            None => find_by_name(list, name),
        };
        let id = match (listed, mine) {
            (Some(member), _) if member.state == MemberState::Abandoned => {
                return Err(edit_error(
                    name,
                    "it was abandoned, and what it holds is out of date: empty it and run \
                     `stopover init`, which gives it a new identity",
                ));
            }
            (_, Some(id)) if state == MemberState::Active => id,
            (Some(member), _) => member.id,
            (None, _) if state == MemberState::Active => {
                return Err(edit_error(
                    name,
                    "no base directory of this name is configured here, or it cannot be reached",
                ));
            }
            (None, _) => return Err(edit_error(name, "it is not on the list")),
        };
        let name = name.clone();
        Ok(Member { id, name, state })
    }

    async fn read_lists(&self, which: impl Fn(&Attachment) -> bool) -> Lists {
        let used = self.attachments.iter().filter(|at| which(at));
        let used = used.filter(|at| at.role() != Role::Member(MemberState::Abandoned));
        let reads = join_all(used.map(async |at| (at, read_list(at).await))).await;
        let (mut stored, mut failures) = (Vec::new(), Vec::new());
        for (at, read) in reads {
            let at = Arc::clone(at);
            match read {
                Ok(list) => stored.push(Stored { at, list }),
                Err(error) => failures.push((at, error)),
            }
        }
        let lists = stored.iter().filter_map(|s| s.list.as_ref());
        if let Some((newest, _)) = lists.max_by_key(|(list, _)| list) {
            self.roster.adopt(newest);
        }
        // The list is known only now: an abandoned base directory need not answer.
        failures.retain(|(at, _)| at.role() != Role::Member(MemberState::Abandoned));
        let failures = failures.into_iter().map(|(_, error)| error).collect();
        Lists {
            stored,
            failures,
            newest: self.members().as_deref().cloned(),
        }
    }

    /// Whether this daemon may add its base directories by itself: the fleet is new.
    async fn may_add(&self, lists: &Lists) -> bool {
        if !self.attachments.iter().all(|at| at.may_create_identity()) {
            return false;
        }
        // Where there is no list anywhere, any daemon creates it: without one nothing is collected.
        if self.roster.is_founder() || lists.newest.is_none() {
            return true;
        }
        let unused = lists.stored.iter().map(async |stored| {
            let found = stored.at.raw.first_keys(SAMPLE).await;
            found.is_ok_and(|found| {
                let mut used = found.iter().filter(|key| keys::owner(key) == Owner::Fleet);
                used.all(keys::is_administrative)
            })
        });
        join_all(unused).await.into_iter().all(|unused| unused)
    }

    /// Writes a list wherever it can be read, those that are listed first; returns whether all
    /// still had what was read. With `everywhere` every member must be written.
    async fn write(&self, next: &Membership, lists: &Lists, everywhere: bool) -> Result<bool> {
        if let (true, Some(failure)) = (everywhere, lists.failures.first()) {
            return Err(failure.clone());
        }
        let before = lists.newest.as_ref();
        let is_new = |stored: &&Stored| {
            let id = stored.at.id();
            before.is_none_or(|list| id.is_none_or(|id| list.find(id).is_none()))
        };
        let (new, listed): (Vec<_>, Vec<_>) = lists.stored.iter().partition(is_new);
        for stored in listed.into_iter().chain(new) {
            if !put_list(stored, next).await? {
                return Ok(false);
            }
        }
        self.roster.adopt(next);
        Ok(true)
    }

    /// Copies the newest list to base directories with an older one, or none: an expiry rule may
    /// have removed it.
    async fn copy(&self, lists: &Lists) {
        let Some(newest) = &lists.newest else { return };
        if !self.attachments.iter().all(|at| at.may_create_identity()) {
            return;
        }
        for stored in &lists.stored {
            let listed = stored.at.id().is_some_and(|id| newest.find(id).is_some());
            let older = stored.list.as_ref().is_none_or(|(list, _)| list < newest);
            if listed
                && older
                && let Err(error) = put_list(stored, newest).await
            {
                tracing::debug!(%error, "cannot copy the list of the fleet's members");
            }
        }
    }
}

/// Which members a daemon lacks that has identified these base directories, as text.
fn lacking(members: &Membership, identified: &[BaseId]) -> Option<String> {
    let missing = members.missing(identified);
    let missing: Vec<String> = missing
        .map(|member| format!("{} ({})", member.name, member.id))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "the fleet also uses base directory {}, which is not configured here, or is configured \
             with another location; configure it as the other daemons do, or run `stopover \
             members abandon` if it is lost for ever",
            missing.join(", ")
        )
    })
}

async fn read_list(at: &Attachment) -> Result<Option<(Membership, String)>> {
    let key = keys::members();
    let read = async {
        at.confirm().await?;
        let Some(found) = if_found(at.raw.get_versioned(&key).await)? else {
            return Ok(None);
        };
        let list = Membership::decode(&found.bytes).map_err(|error| {
            StoreError::new(StoreErrorKind::Refused, "the list of members is damaged")
                .caused_by(error)
        })?;
        Ok(Some((list, found.version)))
    };
    read.await.map_err(|error| store_error(at, "get", error))
}

async fn put_list(stored: &Stored, list: &Membership) -> Result<bool> {
    let expected = match &stored.list {
        Some((_, version)) => Precondition::Version(version.clone()),
        None => Precondition::Absent,
    };
    let key = keys::members();
    let put = stored.at.raw.put_if(&key, list.encode(), &expected);
    put.await
        .map_err(|error| store_error(&stored.at, "put", error))
}

fn store_error(at: &Attachment, operation: &'static str, error: StoreError) -> StorageError {
    StorageError {
        base: at.name.to_string(),
        operation,
        object: keys::members().to_string(),
        source: error.into(),
    }
}

fn edit_error(name: &BaseName, reason: &str) -> StorageError {
    StorageError {
        base: name.to_string(),
        operation: "put",
        object: keys::members().to_string(),
        source: StoreError::new(StoreErrorKind::Refused, reason).into(),
    }
}
