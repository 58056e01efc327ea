//! Attaching a base directory: reading its identity, or creating it in an empty location.
//!
//! Does: read, create and restore the identity object, and compare it with what is known. Does not:
//! use the base directory for anything else (`attached_store`). Invariant: an identity is created
//! only in an empty base directory and by a conditional write; a base directory that has an
//! identity never changes it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::identity::Identity;
use super::roster::{Role, Roster};
use crate::id::{BaseId, BaseName};
use crate::runtime::Runtime;
use crate::store::keys::{self, Key, Owner};
use crate::store::{Precondition, Result, Store, StoreError, StoreErrorKind, if_found};

/// How many objects are listed to determine what a location is used for.
const SAMPLE: usize = 1000;

/// Least time between two reads of the identity for handles with unknown keys.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

const NOT_USED: &str =
    "it has no identity: no daemon has used it yet (start one, or run `stopover init`)";
const NOT_INITIALIZED: &str = "it has no identity, and its option require_init forbids to create \
    one: is the right disk or bucket mounted there? for a new base directory, run `stopover init` \
    once";

/// What is done about the identity of a base directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identification {
    /// It is created in an empty base directory: a daemon that serves.
    Create,
    /// It must exist: for commands that do not create a base directory in an empty location.
    Require,
    /// It is not read: for a command that reads one object.
    Skip,
}

/// What an operator has confirmed about a base directory that gets an identity.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitOptions {
    /// It may hold objects that Stopover did not write.
    pub beside_foreign_objects: bool,
    /// It may hold exchanges whose identity is lost; no daemon uses it.
    pub replace_lost_identity: bool,
    /// The identity gets a new key.
    pub rotate: bool,
}

/// The identity of one base directory, if it was read.
#[derive(Debug)]
pub(super) struct Attachment {
    pub name: BaseName,
    /// Without retries, and without waiting for the identity.
    pub raw: Arc<dyn Store>,
    pub roster: Arc<Roster>,
    identification: Identification,
    /// Only `stopover init` may create its identity.
    require_init: bool,
    runtime: Runtime,
    identity: RwLock<Option<Arc<Identity>>>,
    attempts: Mutex<Attempts>,
    refreshed: Mutex<Option<Instant>>,
    /// Whether it was found out that the store honours conditions, or does not.
    knows_conditions: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Attempts {
    count: u64,
    failure: Option<StoreError>,
}

impl Attachment {
    pub(super) fn new(
        name: BaseName,
        raw: Arc<dyn Store>,
        roster: &Arc<Roster>,
        (identification, require_init): (Identification, bool),
        runtime: &Runtime,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            raw,
            roster: Arc::clone(roster),
            identification,
            require_init,
            runtime: runtime.clone(),
            identity: RwLock::default(),
            attempts: Mutex::default(),
            refreshed: Mutex::default(),
            knows_conditions: Mutex::default(),
        })
    }

    /// The identity, once it was read.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.read().clone()
    }

    pub(super) fn id(&self) -> Option<BaseId> {
        self.identity.read().as_ref().map(|identity| identity.id)
    }

    /// What the fleet does with it.
    pub(super) fn role(&self) -> Role {
        self.roster.role(self.id(), &self.name)
    }

    pub(super) fn may_create_identity(&self) -> bool {
        self.identification == Identification::Create
    }

    /// Reads the identity unless it was read before. Concurrent callers share one attempt.
    ///
    /// # Errors
    /// It cannot be read or created, or is not the expected one.
    pub(super) async fn ensure(&self) -> Result<()> {
        if self.identity.read().is_some() || self.identification == Identification::Skip {
            return Ok(());
        }
        let waiting_since = self.attempts.try_lock().map(|attempts| attempts.count).ok();
        let mut attempts = self.attempts.lock().await;
        if self.identity.read().is_some() {
            return Ok(());
        }
        if let (true, Some(failure)) = (waiting_since != Some(attempts.count), &attempts.failure) {
            return Err(failure.clone());
        }
        let attached = self.confirm().await;
        attempts.count += 1;
        attempts.failure = attached.as_ref().err().cloned();
        attached
    }

    /// Reads the identity, again if it was read before: it must still exist and be the same. One
    /// that an expiry rule has removed is restored.
    ///
    /// # Errors
    /// As [`Attachment::ensure`].
    pub(super) async fn confirm(&self) -> Result<()> {
        let held = self.identity();
        let found = match (self.read().await?, held) {
            (Some((found, _)), _) => found,
            (None, Some(held)) => self.restore(&held).await?,
            (None, None) => self.create_identity().await?,
        };
        self.accept(found)
    }

    /// Reads the identity again, unless it was read a moment ago. Concurrent callers wait for it.
    pub(super) async fn refresh(&self) {
        let mut refreshed = self.refreshed.lock().await;
        let now = self.runtime.clock.now();
        if refreshed.is_some_and(|last| now.saturating_duration_since(last) < REFRESH_INTERVAL) {
            return;
        }
        if let Err(error) = self.confirm().await {
            tracing::debug!(%error, base = %self.name, "cannot read the identity again");
        }
        *refreshed = Some(now);
    }

    /// Finds out whether the store honours create-only conditions, before the first write that
    /// relies on conditions: one that ignores them would overwrite what others have written.
    /// Concurrent callers wait for it. A probe finds out about the other conditions, too.
    ///
    /// # Errors
    /// A write to a new key fails.
    pub(super) async fn learn_conditions(&self) -> Result<()> {
        let mut knows = self.knows_conditions.lock().await;
        if !*knows {
            if self.creates_twice(&Precondition::Absent).await? {
                self.raw.distrust_conditions();
            }
            *knows = true;
        }
        Ok(())
    }

    /// Records that a probe has found that out.
    pub(super) async fn learned_conditions(&self) {
        *self.knows_conditions.lock().await = true;
    }

    /// What a probe does first: confirms the identity, or, if none may be created, checks that a
    /// daemon could create it.
    ///
    /// # Errors
    /// As [`Attachment::ensure`].
    pub(super) async fn probe(&self) -> Result<()> {
        let confirms = self.may_create_identity() || self.require_init;
        if confirms || self.read().await?.is_some() {
            return self.confirm().await;
        }
        self.check_unused(InitOptions::default()).await?;
        self.check_conditions().await
    }

    async fn read(&self) -> Result<Option<(Identity, String)>> {
        let found = if_found(self.raw.get_versioned(&keys::identity()).await);
        let found = found.map_err(|error| with_step("reading its identity", error))?;
        let Some(found) = found else { return Ok(None) };
        let identity = Identity::decode(&found.bytes).map_err(|error| {
            let message = format!("its identity ({}) is damaged", keys::identity());
            StoreError {
                hint: Some("restore the object from another copy, or see `stopover init --help`"),
                ..StoreError::new(StoreErrorKind::Refused, message).caused_by(error)
            }
        })?;
        Ok(Some((identity, found.version)))
    }

    async fn restore(&self, held: &Identity) -> Result<Identity> {
        let key = keys::identity();
        let restored = self.raw.put_if(&key, held.encode(), &Precondition::Absent);
        let restored = restored.await;
        if restored.map_err(|error| with_step("restoring its identity", error))? {
            tracing::warn!(base = %self.name, id = %held.id,
                "the identity of the base directory was missing and has been restored; does an \
                 expiry rule delete objects there?");
            return Ok(held.clone());
        }
        let found = self.read().await?;
        found.map(|(identity, _)| identity).ok_or_else(vanished)
    }

    fn accept(&self, identity: Identity) -> Result<()> {
        let refused = |message: String| Err(StoreError::new(StoreErrorKind::Refused, message));
        if let Some(held) = self.id().filter(|held| *held != identity.id) {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                format!(
                    "another base directory ({}) is where {held} was; is the right one mounted, or \
                     was the bucket created anew? if it was replaced on purpose, restart the \
                     daemons",
                    identity.id
                ),
            ));
        }
        if identity.name != self.name {
            return refused(format!(
                "it is called {} by the daemons that use it, and {} here: set its `name` to {0}",
                identity.name, self.name
            ));
        }
        if let Err(other) = self.roster.identify(identity.id, &self.name) {
            return refused(format!(
                "it is the same location as base directory {other} (both are {}): remove one",
                identity.id
            ));
        }
        let mut held = self.identity.write();
        if held.as_deref() != Some(&identity) {
            tracing::info!(base = %self.name, id = %identity.id, keys = ?identity.keys,
                "base directory identified");
            *held = Some(Arc::new(identity));
        }
        Ok(())
    }

    async fn create_identity(&self) -> Result<Identity> {
        let missing = |message| Err(StoreError::new(StoreErrorKind::Refused, message));
        if self.require_init {
            return missing(NOT_INITIALIZED);
        }
        if !self.may_create_identity() {
            return missing(NOT_USED);
        }
        self.check_unused(InitOptions::default()).await?;
        self.check_conditions().await?;
        let identity = self.new_identity();
        let created = self
            .create(&identity, &Precondition::StrictlyAbsent)
            .await?;
        if created {
            return Ok(identity);
        }
        let found = self.read().await?;
        found.map(|(identity, _)| identity).ok_or_else(vanished)
    }

    fn new_identity(&self) -> Identity {
        let random = &self.runtime.random;
        let id = BaseId(random.next_u64());
        Identity::new(id, self.name.clone(), random.secret())
    }

    async fn create(&self, identity: &Identity, expected: &Precondition) -> Result<bool> {
        let (key, content) = (keys::identity(), identity.encode());
        let put = self.raw.put_if(&key, content, expected);
        put.await
            .map_err(|error| with_step("creating its identity", error))
    }

    /// Checks that nothing is there, except what the operator has confirmed.
    async fn check_unused(&self, options: InitOptions) -> Result<()> {
        let found = self.raw.first_keys(SAMPLE).await;
        let found = found.map_err(|error| with_step("listing", error))?;
        // Rather an object of an exchange.
        let example = |owner| {
            let found = found.iter().filter(|key| keys::owner(key) == owner);
            found.min_by_key(|key| keys::is_administrative(key))
        };
        if found.contains(&keys::identity()) {
            // Another daemon has created it since it was read.
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "its identity is just being created",
            ));
        }
        if let (Some(key), false) = (example(Owner::Fleet), options.replace_lost_identity) {
            return Err(lost_identity(key));
        }
        match (example(Owner::Foreign), options.beside_foreign_objects) {
            (Some(key), false) => Err(foreign(key)),
            _ => Ok(()),
        }
    }

    /// Checks that of two daemons that create an object one is refused.
    async fn check_conditions(&self) -> Result<()> {
        const IGNORED: &str = "run `stopover init` once, while no daemon runs: it creates the \
             identity without a condition";
        const REFUSED: &str = "the store must implement create-only writes; if it has none, run \
             `stopover init` once, while no daemon runs";
        let ignored = "the store ignores create-only conditions (If-None-Match: *)";
        let refused = match self.creates_twice(&Precondition::StrictlyAbsent).await {
            Ok(false) => {
                self.learned_conditions().await;
                return Ok(());
            }
            Ok(true) => StoreError {
                hint: Some(IGNORED),
                ..StoreError::new(StoreErrorKind::Refused, ignored)
            },
            // `init` fails for missing permissions, too; the error already has that hint.
            Err(error) if error.kind == StoreErrorKind::Refused => StoreError {
                hint: error.hint.or(Some(REFUSED)),
                ..error
            },
            Err(error) => error,
        };
        Err(refused)
    }

    /// Whether a probe object is created where there is one already.
    async fn creates_twice(&self, absent: &Precondition) -> Result<bool> {
        let key = keys::probe(self.runtime.random.next_u64());
        let put = async |content: &str| {
            let content = format!("{content} {key}").into();
            let put = self.raw.put_if(&key, content, absent).await;
            put.map_err(|error| with_step("testing create-only writes", error))
        };
        let tested = async {
            put("first").await?;
            put("second").await
        };
        let tested = tested.await;
        let deleted = self.raw.delete(vec![key.clone()]).await;
        match tested {
            Ok(false) => deleted.map(|_| false),
            other => other,
        }
    }

    /// Creates the identity, or rotates its keys, at the request of an operator; returns what was
    /// done.
    ///
    /// # Errors
    /// There is one already, or something else that was not confirmed.
    pub(super) async fn init(&self, options: InitOptions) -> Result<&'static str> {
        let secret = self.runtime.random.secret();
        match self.read().await? {
            Some((identity, version)) if options.rotate => {
                let rotated = identity.rotated(secret);
                let expected = Precondition::Version(version);
                match self.create(&rotated, &expected).await? {
                    true => self.accept(rotated).map(|()| "has a new key"),
                    false => Err(vanished()),
                }
            }
            Some((identity, _)) => self.accept(identity).map(|()| "has an identity already"),
            None => {
                self.check_unused(options).await?;
                let identity = self.new_identity();
                match self.create(&identity, &Precondition::Absent).await? {
                    true => self.accept(identity).map(|()| "has an identity now"),
                    false => Err(vanished()),
                }
            }
        }
    }
}

fn with_step(step: &str, error: StoreError) -> StoreError {
    let (kind, hint) = (error.kind, error.hint);
    let kind = match kind {
        // A missing bucket, for example: not a missing identity.
        StoreErrorKind::NotFound => StoreErrorKind::Unavailable,
        kind => kind,
    };
    StoreError {
        hint: hint.filter(|hint| !error.to_string().contains(hint)),
        ..StoreError::new(kind, step).caused_by(error)
    }
}

fn vanished() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        "its identity changes while it is read: another process writes it",
    )
}

fn lost_identity(example: &Key) -> StoreError {
    StoreError::new(
        StoreErrorKind::Refused,
        format!(
            "it has no identity ({}), but holds exchanges (such as {example}): a daemon that has \
             used it and still runs restores the identity within a minute; if none does, run \
             `stopover init --replace-lost-identity`",
            keys::identity()
        ),
    )
}

fn foreign(example: &Key) -> StoreError {
    StoreError::new(
        StoreErrorKind::Refused,
        format!(
            "it holds objects that Stopover did not write (such as {example}): use a folder or \
             prefix of its own, or run `stopover init --beside-foreign-objects` if they may stay"
        ),
    )
}
