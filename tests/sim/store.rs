//! The base directories of a world: a store that delays, reorders, fails, and reports failures of
//! operations that took effect.
//!
//! Does: deliver an operation to its disk and the result back, with the faults of the world. Does
//! not: hold data. Invariant: the far side of an object store continues when its client dies, a
//! file system stops with it; an operation takes effect at one moment and as a whole, except
//! `Partial`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::id::BaseName;
use stopover::storage::{StoreErrorKind, Tail};
use stopover::store::keys::{self, Folder, Key};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::disk::Disk;
use crate::faults::{Operation, Outcome, StoreFaults};
use crate::process::Process;
use crate::rng::Rng;
use crate::simulation::{Simulation, note};

/// A period in which a base directory fails.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub end: Instant,
    pub kind: OutageKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageKind {
    /// Every operation fails and has no effect.
    Fails,
    /// Requests are executed, but never answered.
    Silent,
    /// Nothing is answered: a file system executes and answers everything at the end, an object
    /// store never answers what was sent meanwhile.
    Hangs,
    /// Puts fail: no space is left. Everything else works.
    Full,
    /// One operation in two fails and has no effect.
    Half,
    /// Every operation is refused: no permission.
    Denied,
    /// Puts and deletes are refused.
    ReadOnly,
}

/// One base directory, shared by all daemons.
pub struct Site {
    pub name: BaseName,
    /// Whether it is a file system, whose operations end with their process.
    pub local: bool,
    pub disk: Mutex<Disk>,
    pub faults: Mutex<StoreFaults>,
    pub outage: Mutex<Option<Outage>>,
    /// The disk of a file system that is not mounted; `disk` is the folder below the mount point.
    unmounted: Mutex<Option<Disk>>,
    /// Requests by kind, as an object store counts them: a list is one for each 1,000 results.
    pub requests: Mutex<BTreeMap<&'static str, u64>>,
    /// Runs of daemons whose puts fail here.
    pub denied: Mutex<BTreeSet<u64>>,
    /// Runs of daemons that cannot reach it, each until some time.
    unreachable: Mutex<BTreeMap<u64, Instant>>,
    /// Each daemon has a digest of its own, and so believes that it alone sweeps.
    pub private_digests: AtomicBool,
    rng: Rng,
    simulation: Arc<Simulation>,
}

impl Site {
    pub fn new(
        name: &str,
        local: bool,
        faults: StoreFaults,
        simulation: &Arc<Simulation>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.parse().expect("a fixed name"),
            local,
            disk: Mutex::default(),
            faults: Mutex::new(faults),
            outage: Mutex::default(),
            unmounted: Mutex::default(),
            requests: Mutex::default(),
            denied: Mutex::default(),
            unreachable: Mutex::default(),
            private_digests: AtomicBool::new(false),
            rng: Rng::new(simulation.seed, name),
            simulation: Arc::clone(simulation),
        })
    }

    fn current_outage(&self) -> Option<OutageKind> {
        let current = |outage: &Outage| Instant::now() < outage.end;
        self.outage.lock().filter(current).map(|outage| outage.kind)
    }

    /// One run cannot reach it for a while, whatever others do.
    pub fn cut_off(&self, run: u64, duration: Duration) {
        note!(self.simulation, "{} out of the reach of {run:x}", self.name);
        let until = Instant::now() + duration;
        self.unreachable.lock().insert(run, until);
    }

    pub fn reconnect(&self) {
        self.unreachable.lock().clear();
    }

    fn is_cut_off(&self, run: u64) -> bool {
        let until = self.unreachable.lock().get(&run).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    fn draw_outcome(&self, operation: Operation) -> Outcome {
        let outcome = self.faults.lock().draw(operation, &self.rng);
        let writes = matches!(operation, Operation::Put | Operation::Delete);
        match self.current_outage() {
            Some(OutageKind::Silent) if writes && !self.local => Outcome::FailsAfterEffect,
            Some(OutageKind::Fails | OutageKind::Silent) => Outcome::Fails,
            Some(OutageKind::Hangs) => Outcome::Hangs(self.rng.chance(500)),
            Some(OutageKind::Full) if operation == Operation::Put => Outcome::Full,
            Some(OutageKind::Half) if self.rng.chance(500) => Outcome::Fails,
            Some(OutageKind::Denied) => Outcome::Denied,
            Some(OutageKind::ReadOnly) if writes => Outcome::Denied,
            Some(OutageKind::Full | OutageKind::Half | OutageKind::ReadOnly) | None => {
                self.possible(outcome)
            }
        }
    }

    /// Waits until a file system answers again.
    async fn wait_while_hanging(&self) {
        while self.current_outage() == Some(OutageKind::Hangs) || self.faults.lock().hangs > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Unmounts the disk of a file system: its folder is there, and empty.
    pub fn unmount(&self) {
        let mut unmounted = self.unmounted.lock();
        if self.local && unmounted.is_none() {
            let mut disk = self.disk.lock();
            let below = disk.below_mount_point();
            *unmounted = Some(std::mem::replace(&mut disk, below));
            note!(self.simulation, "{} unmounted", self.name);
        }
    }

    /// Mounts the disk again. Nothing may have been written below it.
    pub fn mount(&self) {
        if let Some(disk) = self.unmounted.lock().take() {
            let below = std::mem::replace(&mut *self.disk.lock(), disk);
            note!(self.simulation, "{} mounted again", self.name);
            let written = below.list(&keys::root());
            if !written.is_empty() {
                self.simulation.violate(format_args!(
                    "promise 6: {written:?} lies below the mount point of {}",
                    self.name
                ));
            }
        }
    }

    /// Whether the folder below the mount point is there instead of the disk.
    fn is_unmounted(&self) -> bool {
        self.unmounted.lock().is_some()
    }

    fn possible(&self, outcome: Outcome) -> Outcome {
        match outcome {
            // When a file system answers, an operation has taken effect or never will.
            Outcome::LateEffect(_) | Outcome::FailsAfterEffect | Outcome::Contended
                if self.local =>
            {
                Outcome::Fails
            }
            outcome => outcome,
        }
    }

    fn count(&self, kind: &'static str, requests: usize) {
        *self.requests.lock().entry(kind).or_default() += requests as u64;
    }

    fn latency(&self) -> Duration {
        self.faults.lock().latency(&self.rng)
    }

    fn corrupted(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut copy = bytes.to_vec();
        let at = self.rng.below(copy.len() as u64) as usize;
        copy[at] ^= 1 << self.rng.below(8);
        copy.into()
    }

    /// Deletes objects, each checked by the history; returns how many existed.
    fn delete(&self, disk: &mut Disk, keys: &[Key]) -> u64 {
        let mut removed = 0;
        for key in keys {
            if disk.delete(key) {
                removed += 1;
                self.simulation
                    .check(self.simulation.history.lock().deleted(key.as_str()));
            }
        }
        removed
    }
}

/// A base directory as one run of one daemon sees it.
pub struct SimulatedStore {
    site: Arc<Site>,
    /// The process of that run.
    process: Arc<Process>,
    anchor: Arc<Anchor>,
}

/// What a run knows of the folder of a file system, as `store/local/anchor.rs` does.
#[derive(Default)]
struct Anchor(Mutex<Option<Anchored>>);

#[derive(Clone, PartialEq, Eq)]
struct Anchored {
    /// Whether it is the folder below the mount point.
    below: bool,
    identity: Option<String>,
}

impl Anchor {
    /// Checks that the folder is the one that was found first, or has its identity.
    fn check(&self, site: &Site, disk: &Disk) -> Result<(), StoreError> {
        if !site.local {
            return Ok(());
        }
        let now = Anchored {
            below: site.is_unmounted(),
            identity: disk.identity(),
        };
        let mut anchored = self.0.lock();
        let is_same = anchored.as_ref().is_none_or(|before| {
            let known = before.identity.is_none() || before.identity == now.identity;
            before.below == now.below || (now.identity.is_some() && known)
        });
        if !is_same {
            return Err(not_done("another folder is there"));
        }
        *anchored = Some(now);
        Ok(())
    }
}

impl std::fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simulated {}", self.site.name)
    }
}

impl SimulatedStore {
    pub fn new(site: &Arc<Site>, process: &Arc<Process>) -> Arc<Self> {
        Arc::new(Self {
            site: Arc::clone(site),
            process: Arc::clone(process),
            anchor: Arc::default(),
        })
    }

    /// The key under which this daemon finds an object.
    fn key(&self, key: &Key) -> Key {
        let private = self.site.private_digests.load(Ordering::Relaxed);
        match private && *key == keys::sweeper() {
            true => Key::listed(format!("{key}-{:x}", self.process.incarnation)),
            false => key.clone(),
        }
    }

    /// Executes one operation. `apply` is its effect, at one moment.
    async fn operate<T: Send + 'static>(
        &self,
        operation: Operation,
        what: String,
        apply: impl FnOnce(&Site, &mut Disk, Outcome) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let site = Arc::clone(&self.site);
        if site.is_cut_off(self.process.incarnation) {
            return Err(not_done("connection refused"));
        }
        let outcome = site.draw_outcome(operation);
        let (there, back) = (site.latency(), site.latency());
        let what = format!("{:x} {} {what}", self.process.incarnation, site.name);
        note!(site.simulation, "store {what} {outcome:?}");
        let anchor = Arc::clone(&self.anchor);
        let apply = move |site: &Site, disk: &mut Disk, outcome: Outcome| {
            anchor.check(site, disk)?;
            apply(site, disk, outcome)
        };
        let checked = Arc::clone(&self.anchor);
        let far_side = async move {
            checked.check(&site, &site.disk.lock())?;
            tokio::time::sleep(there).await;
            let answer = match outcome {
                Outcome::Fails if site.local => Err(not_done("input/output error")),
                Outcome::Fails => Err(unavailable("connection reset")),
                Outcome::Throttled => Err(not_done("503 SlowDown: reduce your request rate")),
                Outcome::Contended => Err(StoreError {
                    contended: true,
                    ..not_done("409 Conflict")
                }),
                Outcome::LateEffect(_) => Err(unavailable("timed out")),
                Outcome::Full => Err(not_done("no space left")),
                Outcome::Denied => Err(denied()),
                Outcome::Hangs(_) if site.local => {
                    site.wait_while_hanging().await;
                    return apply(&site, &mut site.disk.lock(), Outcome::Works);
                }
                Outcome::Hangs(effect) => {
                    if effect {
                        let _ = apply(&site, &mut site.disk.lock(), Outcome::Works);
                    }
                    return std::future::pending().await;
                }
                Outcome::Works
                | Outcome::FailsAfterEffect
                | Outcome::Partial
                | Outcome::Corrupted => {
                    let applied = apply(&site, &mut site.disk.lock(), outcome);
                    note!(site.simulation, "store {what} took effect");
                    tokio::time::sleep(back).await;
                    checked.check(&site, &site.disk.lock())?;
                    return match outcome {
                        Outcome::FailsAfterEffect if applied.is_ok() => {
                            Err(unavailable("502 after it took effect"))
                        }
                        _ => applied,
                    };
                }
            };
            if let Outcome::LateEffect(delay) = outcome {
                let late = Arc::clone(&site);
                site.simulation.spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = apply(&late, &mut late.disk.lock(), Outcome::Works);
                    note!(late.simulation, "store {what} took effect late");
                });
            }
            answer
        };
        self.far_side(far_side).await
    }

    /// Runs `work` to its end even if the caller stops waiting: for a file system, in the daemon's
    /// process; for an object store, outside of it.
    async fn far_side<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work = async move {
            let _ = sender.send(work.await);
        };
        if self.site.local {
            self.process.start(Box::pin(work));
        } else {
            self.site.simulation.spawn(work);
        }
        let dead = |_| Err(unavailable("the daemon has ended"));
        receiver.await.unwrap_or_else(dead)
    }

    /// Puts an object if the precondition holds.
    async fn put_object(
        &self,
        key: &Key,
        bytes: Bytes,
        expected: Option<Precondition>,
    ) -> Result<bool, StoreError> {
        let (what, key) = (format!("put {key} {} bytes", bytes.len()), self.key(key));
        self.site.count("put", 1);
        let denied = &self.site.denied;
        let run = self.process.incarnation;
        if denied.lock().contains(&run) || self.site.is_cut_off(run) {
            return Err(not_done("connection refused"));
        }
        if self.site.local {
            return self.put_file(what, key, bytes, expected).await;
        }
        let put = move |site: &Site, disk: &mut Disk, _| {
            Ok(site.store_object(disk, &key, bytes, expected.as_ref()))
        };
        self.operate(Operation::Put, what, put).await
    }

    /// Writes a temporary file first, which a dying process leaves behind.
    async fn put_file(
        &self,
        what: String,
        key: Key,
        bytes: Bytes,
        expected: Option<Precondition>,
    ) -> Result<bool, StoreError> {
        let (site, run) = (Arc::clone(&self.site), self.process.incarnation);
        let outcome = site.draw_outcome(Operation::Put);
        let (there, back) = (site.latency(), site.latency());
        let name = &site.name;
        note!(site.simulation, "store {run:x} {name} {what} {outcome:?}");
        let anchor = Arc::clone(&self.anchor);
        self.far_side(async move {
            let temporary = {
                let mut disk = site.disk.lock();
                anchor.check(&site, &disk)?;
                disk.create_temporary(&key, run)
            };
            tokio::time::sleep(there).await;
            if matches!(outcome, Outcome::Hangs(_)) {
                site.wait_while_hanging().await;
            }
            let renamed = site.rename(&temporary, &key, bytes, expected.as_ref(), outcome);
            site.remove_temporary(&temporary);
            let name = &site.name;
            note!(site.simulation, "store {run:x} {name} {what}: {renamed:?}");
            tokio::time::sleep(back).await;
            anchor.check(&site, &site.disk.lock())?;
            renamed.ok_or_else(|| not_done("no space left"))
        })
        .await
    }
}

impl Site {
    /// Removes a temporary file through its open folder, whether that is mounted or not.
    fn remove_temporary(&self, name: &str) {
        self.disk.lock().remove_temporary(name);
        if let Some(disk) = self.unmounted.lock().as_mut() {
            disk.remove_temporary(name);
        }
    }

    /// Renames a temporary file if the precondition holds, else removes it; `None` if that failed.
    fn rename(
        &self,
        temporary: &str,
        key: &Key,
        bytes: Bytes,
        expected: Option<&Precondition>,
        outcome: Outcome,
    ) -> Option<bool> {
        let mut disk = self.disk.lock();
        let exists = disk.remove_temporary(temporary);
        (exists && matches!(outcome, Outcome::Works | Outcome::Hangs(_)))
            .then(|| self.store_object(&mut disk, key, bytes, expected))
    }

    /// Stores an object; `false` if the precondition does not hold.
    fn store_object(
        &self,
        disk: &mut Disk,
        key: &Key,
        bytes: Bytes,
        expected: Option<&Precondition>,
    ) -> bool {
        if !disk.satisfies(key, expected) {
            return false;
        }
        let written = self.simulation.history.lock().written(key.as_str(), &bytes);
        disk.put(key, bytes);
        self.simulation.check(written);
        true
    }
}

fn denied() -> StoreError {
    StoreError::new(StoreErrorKind::Refused, "403 AccessDenied")
}

fn unavailable(text: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, text)
}

/// The operation has no effect from now on, and its error says so.
fn not_done(text: &str) -> StoreError {
    StoreError {
        settled: true,
        ..unavailable(text)
    }
}

/// A copy of the bytes to send, so that the store does not share the daemon's reserved memory.
fn copied(content: &[Bytes]) -> Bytes {
    content.concat().into()
}

#[async_trait]
impl Store for SimulatedStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.put_object(key, copied(&content), None).await.map(drop)
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        let expected = Some(expected.clone());
        self.put_object(key, copied(&[content]), expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let (what, key) = (format!("get {key}"), self.key(key));
        self.site.count("get", 1);
        self.operate(Operation::List, what, move |_, disk, _| {
            disk.get_versioned(&key)
        })
        .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let (what, key) = (format!("tail {key}"), key.clone());
        self.site.count("get", 1);
        self.operate(Operation::Read, what, move |site, disk, outcome| {
            let mut tail = disk.get_tail(&key, max)?;
            if outcome == Outcome::Corrupted {
                tail.bytes = site.corrupted(tail.bytes);
            }
            Ok(tail)
        })
        .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (what, key) = (format!("range {key} {range:?}"), key.clone());
        self.site.count("get", 1);
        self.operate(Operation::Read, what, move |site, disk, outcome| {
            let bytes = disk.get_range(&key, range)?;
            Ok(match outcome {
                Outcome::Corrupted => site.corrupted(bytes),
                _ => bytes,
            })
        })
        .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        let (what, folder) = (format!("list {folder}"), folder.clone());
        self.operate(Operation::List, what, move |site, disk, _| {
            let listed = disk.list(&folder);
            site.count("list", listed.len().div_ceil(1000).max(1));
            Ok(listed)
        })
        .await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        let (what, folder) = (format!("folders {folder}"), folder.clone());
        self.operate(Operation::List, what, move |site, disk, _| {
            let folders = disk.list_folders(&folder);
            site.count("list", folders.len().div_ceil(1000).max(1));
            Ok(folders)
        })
        .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let what = format!("delete {} from {}", keys.len(), keys[0]);
        self.site.count("delete", keys.len().div_ceil(1000));
        self.operate(Operation::Delete, what, move |site, disk, outcome| {
            if outcome == Outcome::Partial {
                site.delete(disk, &keys[..keys.len() / 2]);
                return Err(unavailable("half of the keys removed"));
            }
            Ok(site.delete(disk, &keys))
        })
        .await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        let (what, key) = (format!("delete {key} if {version:?}"), self.key(key));
        self.site.count("delete", 1);
        let version = version.map(ToOwned::to_owned);
        let delete_if = move |site: &Site, disk: &mut Disk, outcome| {
            if outcome == Outcome::Partial {
                return Err(unavailable("nothing removed"));
            }
            let found = match disk.get_versioned(&key) {
                Ok(found) => found.version,
                Err(_) => return Ok(DeleteOutcome::Absent),
            };
            if version.is_some_and(|version| version != found) {
                return Ok(DeleteOutcome::Changed);
            }
            site.delete(disk, &[key]);
            Ok(DeleteOutcome::Removed)
        };
        self.operate(Operation::Delete, what, delete_if).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        if !self.site.local {
            return Ok(0);
        }
        let (what, folder) = (format!("temporaries {folder}"), folder.clone());
        self.operate(Operation::List, what, move |site, disk, _| {
            let live_processes = site.simulation.live_processes.lock().clone();
            Ok(disk.remove_temporaries(&folder, |writer| live_processes.contains(&writer)))
        })
        .await
    }

    fn needs_keep_object(&self) -> bool {
        !self.site.local
    }
}
