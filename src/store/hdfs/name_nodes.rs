//! The client of the NameNodes of one base directory.
//!
//! Does: build it when it is first used, run it on separate threads, limit how long a call may be
//! without an answer, and rebuild it, with another NameNode first, when one does not answer.
//! Does not: repeat calls (`Retry` does). Invariant: no variable of the environment and no file is
//! read; what is configured is all that the client knows. A panic of the client is an error, and
//! ends no task of the daemon; where the client blocks its thread, it blocks none of the daemon's.
//!
//! The client fails over by itself when a NameNode refuses a connection or is in standby. It has no
//! limit for connecting and none for an answer, so one whose machine has disappeared would keep
//! every call until its deadline, and the next call too.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use hdfs_native::client::FileStatus;
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::{Credentials, Failure};
use super::workers::Workers;
use crate::runtime::Clock;
use crate::store::deadline::DeadlinePolicy;

/// A folder without Hadoop's files, so that the client does not search for them itself.
const NO_FOLDER: &str = "/dev/null";

/// How long one call of a NameNode may take, as a part of what the store may take to answer. A call
/// takes milliseconds, seconds on a NameNode that collects garbage.
const CALLS_PER_ANSWER: u32 = 3;

/// What the client panics about: hdfs-native 0.14.8 believes what the header of a packet says.
const PANICKED: &str = "the client of HDFS failed over what a DataNode or NameNode sent; was it \
    damaged on its way?";

/// What the client is built from.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// `hdfs://nameservice` or `hdfs://host:port`.
    pub url: String,
    /// The properties of Hadoop's files.
    pub properties: BTreeMap<String, String>,
    /// The property that lists the NameNodes of the nameservice, and the list.
    pub name_nodes: Option<(String, Vec<String>)>,
    pub user: Option<String>,
    pub principal: Option<String>,
    pub keytab: Option<String>,
    pub cache: Option<String>,
}

/// The client, rebuilt from time to time.
#[derive(Debug)]
pub(super) struct NameNodes {
    shared: Arc<Shared>,
    workers: Workers,
    clock: Clock,
    deadline: DeadlinePolicy,
}

/// What the threads of the client use too.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    client: Option<Client>,
    /// How many clients were built before; the NameNode that is asked first changes with it.
    generation: usize,
}

impl NameNodes {
    /// `deadline` is how long the store may take for an operation.
    pub(super) fn new(settings: Settings, deadline: DeadlinePolicy, clock: Clock) -> Self {
        let current = Mutex::default();
        Self {
            shared: Arc::new(Shared { settings, current }),
            workers: Workers::default(),
            clock,
            deadline,
        }
    }

    fn longest_call(&self) -> Duration {
        self.deadline.timeout / CALLS_PER_ANSWER
    }

    /// One or a few calls of the NameNode, within the time that one may take.
    pub(super) async fn call<W, F, T, E>(&self, work: W) -> Result<T, Failure>
    where
        W: FnOnce(Client) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let limit = self.longest_call();
        let called = self.transfer(work);
        match self.clock.within(limit, called).await {
            Some(result) => result,
            None => Err(Failure::Silent(limit)),
        }
    }

    /// Removes a path; returns whether there was something.
    pub(super) async fn delete(&self, path: &str, recursive: bool) -> Result<bool, Failure> {
        let path = path.to_owned();
        let delete = move |client: Client| async move { client.delete(&path, recursive).await };
        self.call(delete).await
    }

    /// The entries of a folder.
    pub(super) async fn list(
        &self,
        path: &str,
        recursive: bool,
    ) -> Result<Vec<FileStatus>, Failure> {
        let path = path.to_owned();
        let list = move |client: Client| async move { client.list_status(&path, recursive).await };
        self.call(list).await
    }

    /// Work that also moves content to or from DataNodes, within the deadline of the operation.
    pub(super) async fn transfer<W, F, T, E>(&self, work: W) -> Result<T, Failure>
    where
        W: FnOnce(Client) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let generation = self.shared.current.lock().generation;
        let mut watch = Watch {
            of: self,
            generation,
            started: Some(self.clock.now()),
        };
        let shared = Arc::clone(&self.shared);
        let work = async move { work(shared.client()?).await.map_err(Into::into) };
        // Sound: after a panic nothing of the work is used. The client keeps caches alone, which it
        // fills in one step.
        let ran = self.workers.run(AssertUnwindSafe(work).catch_unwind());
        let result = ran.await;
        watch.started = None;
        let panicked = |_| Err(HdfsError::InternalError(PANICKED.into()).into());
        let result = result?.unwrap_or_else(panicked);
        result.map_err(|failure: Failure| {
            failure.signed_in_with(|| self.shared.settings.credentials())
        })
    }

    /// For syncing a file of this size to the disks of its DataNodes. It may take as long as a
    /// call, and the time for all bytes: some are still to be sent, the others are to be written
    /// to the disks.
    pub(super) fn sync(&self, size: u64) -> Sync {
        let of_sync = DeadlinePolicy {
            timeout: self.longest_call(),
            ..self.deadline
        };
        Sync {
            clock: self.clock.clone(),
            limit: of_sync.transfer(size),
        }
    }

    /// Drops a client whose NameNode did not answer. Calls that it still waits for go on.
    fn replace(&self, generation: usize) {
        let mut current = self.shared.current.lock();
        if current.generation == generation {
            current.generation += 1;
            current.client = None;
            tracing::info!(
                url = self.shared.settings.url,
                "the NameNode does not answer; connecting again, to another one first if there is"
            );
        }
    }
}

impl Shared {
    /// Not under the lock: names of hosts may be resolved.
    fn client(&self) -> Result<Client, Failure> {
        let generation = {
            let current = self.current.lock();
            if let Some(client) = &current.client {
                return Ok(client.clone());
            }
            current.generation
        };
        let built = self.settings.build(generation)?;
        let mut current = self.current.lock();
        match current.generation == generation {
            true => Ok(current.client.get_or_insert(built).clone()),
            false => Ok(built),
        }
    }
}

/// Syncs a file within a time limit.
pub(super) struct Sync {
    clock: Clock,
    limit: Duration,
}

impl Sync {
    /// If a DataNode dies while the client waits for the acknowledgement, the client waits for ever
    /// (hdfs-native 0.14.8: it joins its sending task, and that waits for more packets).
    pub(super) async fn run(self, file: &mut FileWriter) -> Result<(), Failure> {
        match self.clock.within(self.limit, file.hsync()).await {
            Some(synced) => Ok(synced?),
            None => Err(Failure::Unsynced(self.limit)),
        }
    }
}

impl Settings {
    fn credentials(&self) -> Credentials {
        match (&self.keytab, &self.cache) {
            (Some(keytab), _) => Credentials::Keytab(keytab.clone()),
            (None, Some(cache)) => Credentials::Cache(cache.clone()),
            (None, None) => Credentials::Default,
        }
    }

    fn build(&self, generation: usize) -> Result<Client, HdfsError> {
        let mut properties = self.properties.clone();
        if let Some((name, all)) = &self.name_nodes {
            let mut all = all.clone();
            let first = generation % all.len().max(1);
            all.rotate_left(first);
            properties.insert(name.clone(), all.join(","));
        }
        // Each NameNode once. A second round would wait between the two, and hide the reason behind
        // the limit of the call; retries are made above.
        let others = self.name_nodes.as_ref().map_or(0, |(_, all)| all.len() - 1);
        properties.insert(
            "dfs.client.failover.max.attempts".into(),
            others.to_string(),
        );
        let mut builder = ClientBuilder::new()
            .with_url(&self.url)
            .with_config_dir(NO_FOLDER)
            .with_config(properties);
        if let Some(user) = &self.user {
            builder = builder.with_user(user);
        }
        if let Some(principal) = &self.principal {
            builder = builder.with_kerberos_principal(principal);
        }
        if let Some(keytab) = &self.keytab {
            builder = builder.with_kerberos_keytab(keytab);
        }
        if let Some(cache) = &self.cache {
            builder = builder.with_kerberos_cache(cache);
        }
        builder.build()
    }
}

/// Notices that a call was given up after it had waited for long, by its limit or by the deadline
/// of the operation. A caller that leaves earlier says nothing about the NameNode.
struct Watch<'a> {
    of: &'a NameNodes,
    generation: usize,
    /// `None` once it was answered.
    started: Option<Instant>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let Some(started) = self.started else { return };
        let waited = self.of.clock.now().saturating_duration_since(started);
        if waited >= self.of.longest_call().mul_f64(0.9) {
            self.of.replace(self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: a sync had 16 s at most, so every put over a network or to a disk below 400 KiB/s
    /// failed, whatever `timeout` was.
    #[test]
    fn a_sync_may_take_as_long_as_the_slowest_data_node_needs_for_the_file() {
        let nodes = |seconds| {
            let deadline = DeadlinePolicy {
                timeout: Duration::from_secs(seconds),
                ..DeadlinePolicy::REMOTE
            };
            NameNodes::new(Settings::default(), deadline, Clock::default())
        };
        let limit = |seconds, size| nodes(seconds).sync(size).limit.as_secs();
        assert_eq!(
            [0, 1 << 20, 16 << 20].map(|size| limit(30, size)),
            [10, 18, 138]
        );
        assert_eq!([9, 120].map(|seconds| limit(seconds, 0)), [3, 40]);
        for size in [0, 64 << 20] {
            let whole = DeadlinePolicy::REMOTE.transfer(size).as_secs();
            assert!(limit(30, size) < whole, "the put itself ends first");
        }
    }
}
