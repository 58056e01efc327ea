//! The base directories of a world: a store that delays, reorders, fails, and answers errors after
//! the fact.
//!
//! Does: carry an operation to its disk and the answer back, as the weather has it. Does not: keep
//! anything. Invariant: the far side of an object store goes on when its client dies, a file system
//! stops with it; an operation takes place at one moment, as a whole, but for `Halfway`.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::id::BaseName;
use stopover::storage::{StoreErrorKind, Tail};
use stopover::store::keys::{Folder, Key};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::nest::Nest;
use crate::simulation::{Simulation, note};
use crate::weather::{Fate, Operation, StoreWeather};

/// A time in which a base directory fails.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub end: Instant,
    /// Requests arrive and are carried out, and no answer comes back.
    pub mute: bool,
}

/// One base directory, shared by all daemons.
pub struct Site {
    pub name: BaseName,
    /// A file system: what was begun ends with its process.
    pub local: bool,
    pub disk: Mutex<Disk>,
    pub weather: Mutex<StoreWeather>,
    /// Nothing works until the end of it.
    pub outage: Mutex<Option<Outage>>,
    chance: Chance,
    simulation: Arc<Simulation>,
}

impl Site {
    pub fn new(
        name: &str,
        local: bool,
        weather: StoreWeather,
        simulation: &Arc<Simulation>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.parse().expect("a fixed name"),
            local,
            disk: Mutex::default(),
            weather: Mutex::new(weather),
            outage: Mutex::default(),
            chance: Chance::new(simulation.seed, name),
            simulation: Arc::clone(simulation),
        })
    }

    fn fate(&self, operation: Operation) -> Fate {
        let outage = self
            .outage
            .lock()
            .filter(|outage| Instant::now() < outage.end);
        let fate = self.weather.lock().fate(operation, &self.chance);
        let writes = matches!(operation, Operation::Put | Operation::Delete);
        match (fate, outage) {
            (_, Some(outage)) if outage.mute && writes && !self.local => Fate::FailsAfterwards,
            (_, Some(_)) => Fate::Fails,
            (fate, None) => self.possible(fate),
        }
    }

    fn possible(&self, fate: Fate) -> Fate {
        match fate {
            // A file system is done or not done when it answers.
            Fate::Late(_) | Fate::FailsAfterwards | Fate::Contended if self.local => Fate::Fails,
            fate => fate,
        }
    }

    fn way(&self) -> Duration {
        self.weather.lock().way(&self.chance)
    }

    fn damaged(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut copy = bytes.to_vec();
        let at = self.chance.below(copy.len() as u64) as usize;
        copy[at] ^= 1 << self.chance.below(8);
        copy.into()
    }

    /// Tells the history what this deletes before it is gone.
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
    /// Whose it is.
    nest: Arc<Nest>,
}

impl std::fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simulated {}", self.site.name)
    }
}

impl SimulatedStore {
    pub fn new(site: &Arc<Site>, nest: &Arc<Nest>) -> Arc<Self> {
        Arc::new(Self {
            site: Arc::clone(site),
            nest: Arc::clone(nest),
        })
    }

    /// Carries one operation out. `apply` takes place at one moment.
    async fn operate<T: Send + 'static>(
        &self,
        operation: Operation,
        what: String,
        apply: impl FnOnce(&Site, &mut Disk, Fate) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let site = Arc::clone(&self.site);
        let fate = site.fate(operation);
        let (there, back) = (site.way(), site.way());
        let what = format!("{:x} {} {what}", self.nest.incarnation, site.name);
        note!(site.simulation, "store {what} {fate:?}");
        let far_side = async move {
            tokio::time::sleep(there).await;
            let answer = match fate {
                Fate::Fails => Err(unavailable("connection reset")),
                Fate::Throttled => Err(unavailable("503 SlowDown: reduce your request rate")),
                Fate::Contended => Err(StoreError {
                    contended: true,
                    ..unavailable("409 Conflict")
                }),
                Fate::Late(_) => Err(unavailable("timed out")),
                Fate::Works | Fate::FailsAfterwards | Fate::Halfway | Fate::Damaged => {
                    let applied = apply(&site, &mut site.disk.lock(), fate);
                    note!(site.simulation, "store {what} took place");
                    tokio::time::sleep(back).await;
                    return match fate {
                        Fate::FailsAfterwards if applied.is_ok() => {
                            Err(unavailable("502 after the fact"))
                        }
                        _ => applied,
                    };
                }
            };
            if let Fate::Late(delay) = fate {
                let late = Arc::clone(&site);
                site.simulation.spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = apply(&late, &mut late.disk.lock(), Fate::Works);
                    note!(late.simulation, "store {what} took place late");
                });
            }
            answer
        };
        self.far_side(far_side).await
    }

    /// Runs to its end whoever stops waiting: a file system's within the daemon, an object store's
    /// wherever that is.
    async fn far_side<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work = async move {
            let _ = sender.send(work.await);
        };
        if self.site.local {
            self.nest.start(Box::pin(work));
        } else {
            self.site.simulation.spawn(work);
        }
        let ended = |_| Err(unavailable("the daemon has ended"));
        receiver.await.unwrap_or_else(ended)
    }

    /// Puts an object if what lies there is as expected.
    async fn put_object(
        &self,
        key: &Key,
        bytes: Bytes,
        expected: Option<Precondition>,
    ) -> Result<bool, StoreError> {
        let what = format!("put {key} {} bytes", bytes.len());
        let key = key.clone();
        if self.site.local {
            return self.put_file(what, key, bytes, expected).await;
        }
        let put = move |site: &Site, disk: &mut Disk, _| {
            Ok(site.arrived(disk, &key, bytes, expected.as_ref()))
        };
        self.operate(Operation::Put, what, put).await
    }

    /// A file under another name first: what a dying process leaves is that.
    async fn put_file(
        &self,
        what: String,
        key: Key,
        bytes: Bytes,
        expected: Option<Precondition>,
    ) -> Result<bool, StoreError> {
        let (site, run) = (Arc::clone(&self.site), self.nest.incarnation);
        let fate = site.fate(Operation::Put);
        let (there, back) = (site.way(), site.way());
        let name = &site.name;
        note!(site.simulation, "store {run:x} {name} {what} {fate:?}");
        self.far_side(async move {
            let temporary = site.disk.lock().begin_temporary(&key, run);
            tokio::time::sleep(there).await;
            let renamed = site.rename(&temporary, &key, bytes, expected.as_ref(), fate);
            let name = &site.name;
            note!(site.simulation, "store {run:x} {name} {what}: {renamed:?}");
            tokio::time::sleep(back).await;
            renamed.ok_or_else(|| unavailable("no space left"))
        })
        .await
    }
}

impl Site {
    /// Gives a file its name, if that is as expected, or removes it; `None` if that failed.
    fn rename(
        &self,
        temporary: &str,
        key: &Key,
        bytes: Bytes,
        expected: Option<&Precondition>,
        fate: Fate,
    ) -> Option<bool> {
        let mut disk = self.disk.lock();
        let there = disk.forget_temporary(temporary);
        (there && fate == Fate::Works).then(|| self.arrived(&mut disk, key, bytes, expected))
    }

    /// An object arrives; `false` if it was not to replace what lies there.
    fn arrived(
        &self,
        disk: &mut Disk,
        key: &Key,
        bytes: Bytes,
        expected: Option<&Precondition>,
    ) -> bool {
        if !disk.is_as(key, expected) {
            return false;
        }
        let written = self.simulation.history.lock().written(key.as_str(), &bytes);
        disk.put(key, bytes);
        self.simulation.check(written);
        true
    }
}

fn unavailable(text: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, text)
}

/// The bytes as they travel: a copy, so that what the daemon holds is what it reserved.
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
        let (what, key) = (format!("get {key}"), key.clone());
        self.operate(Operation::List, what, move |_, disk, _| {
            disk.get_versioned(&key)
        })
        .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let (what, key) = (format!("tail {key}"), key.clone());
        self.operate(Operation::Read, what, move |site, disk, fate| {
            let mut tail = disk.get_tail(&key, max)?;
            if fate == Fate::Damaged {
                tail.bytes = site.damaged(tail.bytes);
            }
            Ok(tail)
        })
        .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (what, key) = (format!("range {key} {range:?}"), key.clone());
        self.operate(Operation::Read, what, move |site, disk, fate| {
            let bytes = disk.get_range(&key, range)?;
            Ok(match fate {
                Fate::Damaged => site.damaged(bytes),
                _ => bytes,
            })
        })
        .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        let (what, folder) = (format!("list {folder}"), folder.clone());
        self.operate(Operation::List, what, move |_, disk, _| {
            Ok(disk.list(&folder))
        })
        .await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        let (what, folder) = (format!("folders {folder}"), folder.clone());
        self.operate(Operation::List, what, move |_, disk, _| {
            Ok(disk.list_folders(&folder))
        })
        .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let what = format!("delete {} from {}", keys.len(), keys[0]);
        self.operate(Operation::Delete, what, move |site, disk, fate| {
            if fate == Fate::Halfway {
                site.delete(disk, &keys[..keys.len() / 2]);
                return Err(unavailable("half of it"));
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
        let (what, key) = (format!("take {key} {version:?}"), key.clone());
        let version = version.map(ToOwned::to_owned);
        let take = move |site: &Site, disk: &mut Disk, fate| {
            if fate == Fate::Halfway {
                return Err(unavailable("none of it"));
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
        self.operate(Operation::Delete, what, take).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        if !self.site.local {
            return Ok(0);
        }
        let (what, folder) = (format!("temporaries {folder}"), folder.clone());
        self.operate(Operation::List, what, move |site, disk, _| {
            let living = site.simulation.living.lock().clone();
            Ok(disk.remove_temporaries(&folder, |writer| living.contains(&writer)))
        })
        .await
    }

    fn needs_keep_object(&self) -> bool {
        !self.site.local
    }
}
