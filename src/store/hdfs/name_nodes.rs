//! The client of the NameNodes of one base directory.
//!
//! Does: build it when it is first used, limit how long a call may be without an answer, and build
//! it anew, with another NameNode first, when one does not answer. Does not: repeat calls (`Retry`
//! does). Invariant: no variable of the environment and no file is read; what is configured is all
//! that the client knows. A panic of the client is an error, and ends no task of the daemon.
//!
//! The client fails over by itself when a NameNode refuses a connection or is in standby. It has no
//! limit for connecting and none for an answer, so one whose machine has disappeared would keep
//! every call until its deadline, and the next call too.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::Failure;
use crate::runtime::Clock;

/// A folder without Hadoop's files, so that the client does not search for them itself.
const NO_FOLDER: &str = "/dev/null";

/// How long one call of a NameNode may take; less if the whole operation may not take three times
/// as long. A call takes milliseconds, seconds on a NameNode that collects garbage.
const LONGEST_CALL: Duration = Duration::from_secs(10);

/// What the client panics about: hdfs-native 0.14.8 believes what the header of a packet says.
const PANICKED: &str = "the client of HDFS failed over what a DataNode or NameNode sent; was it \
    damaged on its way?";

/// What the client may still have to send when a file is synced: its queue holds 100 packets of 64
/// KiB.
const MAX_QUEUED: u64 = 100 * (64 << 10);

/// The slowest rate at which DataNodes may take that, in bytes per second. Low, since a slow
/// cluster is better than none.
const SLOWEST_SYNC: u64 = 1 << 20;

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

/// The client, built anew from time to time.
#[derive(Debug)]
pub(super) struct NameNodes {
    settings: Settings,
    clock: Clock,
    call: Duration,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    client: Option<Client>,
    /// How many clients were built before; the NameNode that is asked first changes with it.
    generation: usize,
}

impl NameNodes {
    /// `timeout` is how long the store may take to answer an operation.
    pub(super) fn new(settings: Settings, timeout: Duration, clock: Clock) -> Self {
        Self {
            settings,
            clock,
            call: LONGEST_CALL.min(timeout / 3),
            current: Mutex::default(),
        }
    }

    /// One or a few calls of the NameNode, within the time that one may take.
    pub(super) async fn call<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, HdfsError>,
    ) -> Result<T, Failure> {
        let limit = self.call;
        let called = self.transfer(work);
        match self.clock.within(limit, called).await {
            Some(result) => result,
            None => Err(Failure::Silent(limit)),
        }
    }

    /// Work that also moves content to or from DataNodes, within the deadline of the operation.
    pub(super) async fn transfer<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, HdfsError>,
    ) -> Result<T, Failure> {
        let (client, generation) = self.client()?;
        let mut watch = Watch {
            of: self,
            generation,
            started: Some(self.clock.now()),
        };
        // Sound: after a panic nothing of the work is used. The client keeps caches alone, which it
        // fills in one step.
        let result = AssertUnwindSafe(work(client)).catch_unwind().await;
        watch.started = None;
        Ok(result.unwrap_or_else(|_| Err(HdfsError::InternalError(PANICKED.into())))?)
    }

    /// Syncs a file of this size to the disks of its DataNodes, within the time that this may take.
    /// If a DataNode dies while the client waits for the acknowledgement, the client waits for ever
    /// (hdfs-native 0.14.8: it joins its sending task, and that waits for more packets).
    pub(super) async fn sync(&self, file: &mut FileWriter, size: u64) -> Result<(), HdfsError> {
        let limit = sync_limit(self.call, size);
        let synced = self.clock.within(limit, file.hsync()).await;
        synced.unwrap_or_else(|| {
            let seconds = limit.as_secs_f64();
            let message = format!("no DataNode has acknowledged the sync within {seconds:.0} s");
            Err(HdfsError::DataTransferError(message))
        })
    }

    fn client(&self) -> Result<(Client, usize), HdfsError> {
        let mut current = self.current.lock();
        let client = match &current.client {
            Some(client) => client.clone(),
            None => {
                let client = self.settings.build(current.generation)?;
                current.client.insert(client).clone()
            }
        };
        Ok((client, current.generation))
    }

    /// Drops a client whose NameNode did not answer. Calls that it still waits for go on.
    fn replace(&self, generation: usize) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.generation += 1;
            current.client = None;
            tracing::info!(
                url = self.settings.url,
                "the NameNode does not answer; connecting again, to another one first if there is"
            );
        }
    }
}

/// How long a sync may take if a call of the NameNode may take `call`.
fn sync_limit(call: Duration, size: u64) -> Duration {
    let queued = size.min(MAX_QUEUED) as f64;
    call + Duration::from_secs_f64(queued / SLOWEST_SYNC as f64)
}

impl Settings {
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
        if waited >= self.of.call.mul_f64(0.9) {
            self.of.replace(self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_may_take_as_long_as_a_slow_data_node_needs_for_what_is_queued_and_no_longer() {
        let limit = |size| sync_limit(Duration::from_secs(10), size).as_secs();
        assert_eq!([0, 1 << 20, 5 << 20].map(limit), [10, 11, 15]);
        assert_eq!(limit(1 << 40), limit(100 << 20), "only the queue counts");
        assert_eq!(limit(1 << 40), 16);
    }
}
