//! Reading, as the plugin's source does it, and as curl does.
//!
//! Does: plan handles, read each to its end through whichever daemon answers, resume after what is
//! there, hand the whole to the history. Invariant: what breaks off is resumed, never guessed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::chance::Chance;
use crate::client::{Handle, Trouble};
use crate::cluster::{Cluster, pause};
use crate::history::Which;
use crate::host::Host;
use crate::net::Taking;
use crate::wire::{End, ReadPage};

const TRIES: u32 = 12;

/// Answers that no read may have while its exchange lives.
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
    pub chance: &'a Chance,
    /// Asked instead of any, and then nothing may go wrong.
    pub only: Option<&'a Arc<Host>>,
}

impl Reader<'_> {
    fn host(&self) -> Arc<Host> {
        match self.only {
            Some(host) => Arc::clone(host),
            None => self.cluster.any_host(self.chance),
        }
    }

    fn tries(&self) -> u32 {
        if self.only.is_some() { 2 } else { TRIES }
    }

    /// Reads all pages of the chosen attempts and checks them.
    pub async fn consume(&self, chosen: &[Which]) -> Result<(), Trouble> {
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

    async fn plan(&self, chosen: &[Which]) -> Result<Vec<Handle>, Trouble> {
        let mut tries = 0;
        loop {
            let (client, target) = (&self.cluster.client, self.cluster.plan.target);
            let planned = client
                .handles(&self.host(), self.exchange, chosen, target)
                .await;
            match planned {
                Ok(handles) => return Ok(handles),
                Err(trouble) => tries = self.failed(trouble, tries).await?,
            }
        }
    }

    /// Goes on unless it was the last try, or no try helps.
    async fn failed(&self, trouble: Trouble, tries: u32) -> Result<u32, Trouble> {
        self.cluster.judge(self.exchange, &trouble, NEVER);
        if tries + 1 >= self.tries() || !trouble.retryable() {
            return Err(trouble);
        }
        pause(self.chance, tries).await;
        Ok(tries + 1)
    }

    async fn read(&self, handle: &Handle) -> Result<Vec<ReadPage>, Trouble> {
        let mut pages: Vec<ReadPage> = Vec::new();
        let mut tries = 0;
        loop {
            let taking = self.taking();
            let (client, skip) = (&self.cluster.client, pages.len() as u64);
            let trouble = match client.read(&self.host(), handle, skip, taking).await {
                Err(trouble) => trouble,
                Ok(read) => {
                    if !read.pages.is_empty() {
                        tries = 0;
                    }
                    pages.extend(read.pages);
                    match read.end {
                        End::Complete => return self.whole(handle, pages),
                        End::Problem(slug) => Trouble::Problem {
                            retryable: slug != "data-lost",
                            slug,
                        },
                        End::Missing => {
                            self.cluster.simulation.count("a read resumed");
                            Trouble::Lost
                        }
                    }
                }
            };
            tries = self.failed(trouble, tries).await?;
        }
    }

    fn taking(&self) -> Taking {
        if self.only.is_some() {
            return Taking::default();
        }
        let chance = self.chance;
        Taking {
            leaves_after: chance.yes(150).then(|| chance.below(3000) as usize),
            stalls: chance.yes(60).then(|| chance.millis(10, 4000)),
        }
    }

    fn whole(&self, handle: &Handle, pages: Vec<ReadPage>) -> Result<Vec<ReadPage>, Trouble> {
        let right = pages.len() as u64 == handle.pages
            && pages.iter().all(|page| page.partition == handle.partition);
        if !right {
            let (came, named) = (pages.len(), handle.pages);
            self.cluster
                .simulation
                .violate(format_args!("promise 5: {came} pages came of {named}"));
        }
        Ok(pages)
    }

    /// Looks at an exchange without having chosen attempts, once.
    pub async fn look(&self) -> Result<(), Trouble> {
        let simulation = &self.cluster.simulation;
        let (must, partitions) = {
            let mut history = simulation.history.lock();
            let exchange = history.exchange(self.exchange);
            (exchange.committed(), exchange.partitions)
        };
        let host = self.host();
        match self.cluster.client.show(&host, self.exchange).await {
            Err(trouble) => self.cluster.judge(self.exchange, &trouble, NEVER),
            Ok(listed) => {
                let checked = simulation
                    .history
                    .lock()
                    .listed(self.exchange, &must, &listed);
                simulation.check(checked);
            }
        }
        let partition = self.chance.below(u64::from(partitions)) as u32;
        self.partition(&host, partition, &must).await
    }

    /// Reads a partition as curl does.
    pub async fn partition(
        &self,
        host: &Host,
        partition: u32,
        must: &BTreeSet<Which>,
    ) -> Result<(), Trouble> {
        let simulation = &self.cluster.simulation;
        let read = self
            .cluster
            .client
            .partition(host, self.exchange, partition)
            .await;
        let read = match read {
            Err(trouble) => {
                self.cluster.judge(self.exchange, &trouble, NEVER);
                return Err(trouble);
            }
            Ok(read) => read,
        };
        match read.end {
            End::Complete => {
                let mut history = simulation.history.lock();
                // What ran out of its lease may have been collected and announced again, empty.
                let checked = match history.exchange(self.exchange).expired {
                    true => Ok(()),
                    false => history.read_partition(self.exchange, partition, must, &read.pages),
                };
                drop(history);
                simulation.count("a partition read");
                simulation.check(checked);
                Ok(())
            }
            End::Problem(slug) => {
                let trouble = Trouble::Problem {
                    slug,
                    retryable: true,
                };
                self.cluster.judge(self.exchange, &trouble, NEVER);
                Err(trouble)
            }
            End::Missing => Err(Trouble::Lost),
        }
    }
}
