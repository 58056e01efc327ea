//! Reads like the plugin's source, and whole partitions like curl.
//!
//! Does: plan handles, read each to its end at any daemon, resume after the pages received so far,
//! have the history check the result. Invariant: a read that breaks off is resumed or fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::client::{Handle, RequestError};
use crate::cluster::{Cluster, pause};
use crate::history::AttemptId;
use crate::host::Host;
use crate::net::ReadBehaviour;
use crate::rng::Rng;
use crate::wire::{End, ReadPage};

/// How often one read is tried without a new page.
const TRIES: u32 = 12;

/// Problems that no read may be answered with while its exchange is live.
const NEVER: &[&str] = &[
    "exchange-not-found",
    "exchange-closed",
    "data-lost",
    "attempt-not-committed",
    "invalid-handle",
    "invalid-request",
    "sink-not-found",
];

pub struct Reader<'a> {
    pub cluster: &'a Cluster,
    pub exchange: &'a str,
    pub rng: &'a Rng,
    /// The only daemon to use. If set, the read must succeed.
    pub only: Option<&'a Arc<Host>>,
}

impl Reader<'_> {
    fn host(&self) -> Arc<Host> {
        match self.only {
            Some(host) => Arc::clone(host),
            None => self.cluster.any_host(self.rng),
        }
    }

    fn tries(&self) -> u32 {
        if self.only.is_some() { 2 } else { TRIES }
    }

    /// Reads all pages of the chosen attempts and checks them.
    pub async fn consume(&self, chosen: &[AttemptId]) -> Result<(), RequestError> {
        let handles = self.plan(chosen).await?;
        let mut read = Vec::new();
        for handle in &handles {
            read.push((handle.partition, self.read(handle).await?));
        }
        let simulation = &self.cluster.simulation;
        let checked = simulation.history.lock().read(self.exchange, chosen, &read);
        simulation.check(checked);
        simulation.count("an exchange read");
        Ok(())
    }

    /// The handles of the chosen attempts: sometimes from some daemons' memory first, each asked
    /// for what the ones before do not know.
    async fn plan(&self, chosen: &[AttemptId]) -> Result<Vec<Handle>, RequestError> {
        let (client, target) = (&self.cluster.client, self.cluster.plan.target);
        let (mut unknown, mut handles) = (chosen.to_vec(), Vec::new());
        for _ in 0..self.rng.below(3) {
            let planned = client
                .handles_from_memory(&self.host(), self.exchange, &unknown, target)
                .await;
            if let Ok((rest, planned)) = planned {
                if rest.len() < unknown.len() {
                    self.cluster.simulation.count("a plan from memory");
                }
                unknown = rest;
                handles.extend(planned);
            }
        }
        if unknown.is_empty() && !chosen.is_empty() {
            return Ok(handles);
        }
        let mut tries = 0;
        loop {
            let planned = client
                .handles(&self.host(), self.exchange, &unknown, target)
                .await;
            match planned {
                Ok(rest) => {
                    handles.extend(rest);
                    return Ok(handles);
                }
                Err(error) => tries = self.failed(error, tries).await?,
            }
        }
    }

    /// Pauses before the next try; fails after the last try, or if a retry cannot help.
    async fn failed(&self, error: RequestError, tries: u32) -> Result<u32, RequestError> {
        self.cluster.check_error(self.exchange, &error, NEVER);
        if tries + 1 >= self.tries() || !error.retryable() {
            return Err(error);
        }
        pause(self.rng, tries).await;
        Ok(tries + 1)
    }

    async fn read(&self, handle: &Handle) -> Result<Vec<ReadPage>, RequestError> {
        let mut pages: Vec<ReadPage> = Vec::new();
        let mut tries = 0;
        loop {
            let behaviour = self.behaviour();
            let (client, skip) = (&self.cluster.client, pages.len() as u64);
            let error = match client.read(&self.host(), handle, skip, behaviour).await {
                Err(error) => error,
                Ok(read) => {
                    if !read.pages.is_empty() {
                        tries = 0;
                    }
                    pages.extend(read.pages);
                    match read.end {
                        End::Complete => return self.complete(handle, pages),
                        End::Problem(problem_type) => RequestError::Problem {
                            retryable: problem_type != "data-lost",
                            problem_type,
                        },
                        End::Missing => {
                            self.cluster.simulation.count("a read resumed");
                            RequestError::Lost
                        }
                    }
                }
            };
            tries = self.failed(error, tries).await?;
        }
    }

    fn behaviour(&self) -> ReadBehaviour {
        if self.only.is_some() {
            return ReadBehaviour::default();
        }
        let rng = self.rng;
        ReadBehaviour {
            disconnects_after: rng.chance(150).then(|| rng.below(3000) as usize),
            stalls_for: rng.chance(60).then(|| rng.millis(10, 4000)),
        }
    }

    fn complete(
        &self,
        handle: &Handle,
        pages: Vec<ReadPage>,
    ) -> Result<Vec<ReadPage>, RequestError> {
        let right = pages.len() as u64 == handle.pages
            && pages.iter().all(|page| page.partition == handle.partition);
        if !right {
            let (received, announced) = (pages.len(), handle.pages);
            self.cluster.simulation.violate(format_args!(
                "promise 5: received {received} of {announced} pages"
            ));
        }
        Ok(pages)
    }

    /// Inspects an exchange once: lists its attempts and reads a partition.
    pub async fn inspect(&self) -> Result<(), RequestError> {
        let simulation = &self.cluster.simulation;
        let (must, partitions) = {
            let mut history = simulation.history.lock();
            let exchange = history.exchange(self.exchange);
            (exchange.committed(), exchange.partitions)
        };
        let host = self.host();
        match self.cluster.client.show(&host, self.exchange).await {
            Err(error) => self.cluster.check_error(self.exchange, &error, NEVER),
            Ok(listed) => {
                let checked = simulation
                    .history
                    .lock()
                    .listed(self.exchange, &must, &listed);
                simulation.check(checked);
            }
        }
        let partition = self.rng.below(u64::from(partitions)) as u32;
        self.partition(&host, partition, &must).await
    }

    /// Reads a partition without a handle, like curl.
    pub async fn partition(
        &self,
        host: &Host,
        partition: u32,
        must: &BTreeSet<AttemptId>,
    ) -> Result<(), RequestError> {
        let simulation = &self.cluster.simulation;
        let read = self
            .cluster
            .client
            .partition(host, self.exchange, partition)
            .await;
        let read = match read {
            // Nothing to read, and no promise that there is.
            Err(RequestError::Problem { problem_type, .. })
                if problem_type == "attempt-not-committed" && must.is_empty() =>
            {
                return Ok(());
            }
            Err(error) => {
                self.cluster.check_error(self.exchange, &error, NEVER);
                return Err(error);
            }
            Ok(read) => read,
        };
        match read.end {
            End::Complete => {
                let mut history = simulation.history.lock();
                // An expired exchange may have been collected and announced again, empty.
                let checked = match history.exchange(self.exchange).expired {
                    true => Ok(()),
                    false => history.read_partition(self.exchange, partition, must, &read.pages),
                };
                drop(history);
                simulation.count("a partition read");
                simulation.check(checked);
                Ok(())
            }
            End::Problem(problem_type) => {
                let error = RequestError::Problem {
                    problem_type,
                    retryable: true,
                };
                self.cluster.check_error(self.exchange, &error, NEVER);
                Err(error)
            }
            End::Missing => Err(RequestError::Lost),
        }
    }
}
