//! One attempt of one task, as the Trino plugin's sink writes it, and with less care.
//!
//! Batches one at a time; the daemon that took the first keeps the attempt; what was not answered
//! is sent again; a finish whose daemon is gone is asked for elsewhere. Sometimes it aborts,
//! repeats what is done, or stalls. To add a behaviour: a step in `run`.

use std::sync::Arc;

use crate::chance::Chance;
use crate::client::Trouble;
use crate::cluster::{Cluster, pause};
use crate::history::{Counts, Pages, Verdict, Which};
use crate::host::Host;
use crate::plan::LEASE;
use crate::wire;

/// Tries of one request.
const TRIES: u32 = 7;

/// Answers that no page request may have while its exchange lives.
const NEVER: &[&str] = &[
    "exchange-not-found",
    "exchange-closed",
    "data-lost",
    "count-mismatch",
    "invalid-frame",
];

pub struct Writer {
    cluster: Cluster,
    exchange: String,
    which: Which,
    chance: Chance,
    batches: Vec<Pages>,
    /// The daemon that took the first batch, and which run of it.
    home: Option<(Arc<Host>, Option<u64>)>,
    /// Asked instead of any; and then it does nothing but write and finish.
    only: Option<Arc<Host>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Finished,
    Failed,
}

impl Writer {
    pub fn new(cluster: &Cluster, exchange: &str, which: Which) -> Self {
        let label = format!("{exchange} {} {}", which.0, which.1);
        let chance = Chance::new(cluster.simulation.seed, &label);
        let partitions = {
            let mut history = cluster.simulation.history.lock();
            history.attempt(exchange, which);
            u64::from(history.exchange(exchange).partitions)
        };
        let page = |batch: u64, number: u64| {
            let mut bytes = format!("{label} {batch} {number};").into_bytes();
            let length = if chance.yes(20) {
                4000
            } else {
                cluster.plan.page
            };
            bytes.resize(
                bytes.len() + chance.below(length) as usize,
                b'0' + number as u8,
            );
            (chance.below(partitions) as u32, bytes)
        };
        let batches = (0..chance.below(6)).map(|batch| {
            let pages = chance.between(1, 5);
            let mut pages: Pages = (0..pages).map(|number| page(batch, number)).collect();
            pages.sort_by_key(|page| page.0);
            pages
        });
        Self {
            batches: batches.collect(),
            cluster: cluster.clone(),
            exchange: exchange.to_owned(),
            which,
            chance,
            home: None,
            only: None,
        }
    }

    /// A writer that asks one daemon only, and does its work straight away.
    pub fn at(cluster: &Cluster, exchange: &str, which: Which, host: &Arc<Host>) -> Self {
        Self {
            only: Some(Arc::clone(host)),
            ..Self::new(cluster, exchange, which)
        }
    }

    /// The same with given batches.
    pub fn with(
        cluster: &Cluster,
        exchange: &str,
        which: Which,
        host: &Arc<Host>,
        batches: Vec<Pages>,
    ) -> Self {
        Self {
            batches,
            ..Self::at(cluster, exchange, which, host)
        }
    }

    fn host(&self) -> Arc<Host> {
        match &self.only {
            Some(host) => Arc::clone(host),
            None => self.cluster.any_host(&self.chance),
        }
    }

    fn sometimes(&self, per_hundred: u64) -> bool {
        self.only.is_none() && self.chance.yes(per_hundred * 10)
    }

    /// Writes the attempt to its end.
    pub async fn run(mut self) -> Ended {
        if self.sometimes(60) {
            self.foretell().await;
        }
        for number in 0..self.batches.len() {
            if self.send(number).await.is_err() {
                return self.give_up().await;
            }
            if self.chance.yes(100) {
                self.repeat(self.chance.below(number as u64 + 1) as usize)
                    .await;
            }
        }
        if self.sometimes(self.cluster.plan.stalls) {
            self.cluster.simulation.count("a writer that stalls");
            let lease = LEASE.as_millis() as u64;
            tokio::time::sleep(self.chance.millis(lease / 2, lease * 3 / 2)).await;
        }
        if self.sometimes(self.cluster.plan.aborts) {
            return self.give_up().await;
        }
        match self.finish().await {
            Ok(()) => {
                self.look_back().await;
                Ended::Finished
            }
            Err(_) => self.give_up().await,
        }
    }

    /// Notes the run that a request of this attempt reached.
    fn touched(&self, by: Option<u64>) {
        if let Some(run) = by {
            let mut history = self.cluster.simulation.history.lock();
            let attempt = history.attempt(&self.exchange, self.which);
            attempt.touched.insert(run);
        }
    }

    async fn send(&mut self, number: usize) -> Result<(), Trouble> {
        let mut tries = 0;
        loop {
            let host = match &self.home {
                Some((host, _)) => Arc::clone(host),
                None => self.host(),
            };
            let pages = &self.batches[number];
            let client = &self.cluster.client;
            let sent = client
                .pages(&host, &self.exchange, self.which, number, pages)
                .await;
            self.touched(sent.by);
            match sent.answer {
                Ok(_) => {
                    let mut history = self.cluster.simulation.history.lock();
                    let attempt = history.attempt(&self.exchange, self.which);
                    attempt.batches.push(pages.clone());
                    attempt.home = attempt.home.or(sent.by);
                    drop(history);
                    self.home.get_or_insert((host, sent.by));
                    return Ok(());
                }
                Err(trouble) => {
                    self.judge_pages(&trouble, sent.by);
                    tries += 1;
                    if tries == TRIES || !trouble.retryable() {
                        return Err(trouble);
                    }
                }
            }
            pause(&self.chance, tries).await;
        }
    }

    fn judge_pages(&self, trouble: &Trouble, by: Option<u64>) {
        let mut never = NEVER.to_vec();
        never.extend(["sink-aborted", "sink-finished", "attempt-not-committed"]);
        if self.home.as_ref().is_some_and(|home| home.1 == by) {
            never.push("batch-out-of-order");
        }
        self.cluster.judge(&self.exchange, trouble, &never);
    }

    /// Says that it is going to write, perhaps at another daemon than it will; nothing depends on
    /// it.
    async fn foretell(&self) {
        let host = self.host();
        let client = &self.cluster.client;
        let told = client.expect(&host, &self.exchange, self.which).await;
        match told.answer {
            Ok(()) => self.cluster.simulation.count("an attempt foretold"),
            Err(trouble) => self.judge_pages(&trouble, told.by),
        }
    }

    /// A batch that was taken comes once more.
    async fn repeat(&self, number: usize) {
        let Some((host, run)) = &self.home else {
            return;
        };
        let (client, pages) = (&self.cluster.client, &self.batches[number]);
        let sent = client
            .pages(host, &self.exchange, self.which, number, pages)
            .await;
        self.touched(sent.by);
        match sent.answer {
            Ok(false) if sent.by == *run => {
                let simulation = &self.cluster.simulation;
                simulation.violate("promise 2: a repeated batch was taken twice");
            }
            Ok(_) => self.cluster.simulation.count("a repeated batch"),
            Err(trouble) => self.judge_pages(&trouble, sent.by),
        }
    }

    fn counts(&self) -> (Counts, u32) {
        let pages: Pages = self.batches.concat();
        let counts = Counts {
            batches: self.batches.len() as u64,
            pages: pages.len() as u64,
            bytes: pages.iter().map(|page| page.1.len() as u64).sum(),
        };
        (counts, wire::finish_checksum(&pages))
    }

    async fn finish_at(&self, host: &Host) -> Result<(), Trouble> {
        let simulation = &self.cluster.simulation;
        let (counts, checksum) = self.counts();
        let certain = {
            let mut history = simulation.history.lock();
            let attempt = history.attempt(&self.exchange, self.which);
            attempt.finish_sent = true;
            attempt.verdict == Verdict::Committed
        };
        let client = &self.cluster.client;
        let finish = client.finish(host, &self.exchange, self.which, counts, checksum);
        let finished = finish.await;
        self.touched(finished.by);
        match finished.answer {
            Ok(answer) => {
                simulation.count("a finish acknowledged");
                let mut history = simulation.history.lock();
                let checked = history.finished(&self.exchange, self.which, answer);
                drop(history);
                simulation.check(checked);
                Ok(())
            }
            Err(trouble) => {
                let mut never = NEVER.to_vec();
                if certain {
                    never.extend(["sink-not-found", "sink-aborted", "sink-failed"]);
                }
                never.extend(["attempt-not-committed", "sink-finished"]);
                let elsewhere = self.home.as_ref().is_some_and(|h| h.1 != finished.by);
                if elsewhere && !certain {
                    // Another run may hold the first batch only, if its answer to that was lost.
                    never.retain(|slug| *slug != "count-mismatch");
                }
                self.cluster.judge(&self.exchange, &trouble, &never);
                Err(trouble)
            }
        }
    }

    async fn finish(&mut self) -> Result<(), Trouble> {
        let Some((home, _)) = self.home.clone() else {
            let mut tries = 0;
            loop {
                let host = self.host();
                match self.finish_at(&host).await {
                    Ok(()) => return Ok(()),
                    Err(trouble) if tries == TRIES || !trouble.retryable() => return Err(trouble),
                    Err(_) => tries += 1,
                }
                pause(&self.chance, tries).await;
            }
        };
        let mut may_have_committed = false;
        for tries in 0..TRIES {
            match self.finish_at(&home).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Refused) if may_have_committed => {
                    return self.finish_elsewhere().await;
                }
                Err(trouble) if !trouble.retryable() => {
                    // The run that held it may be gone, its commit not.
                    return match trouble.is("sink-not-found") && may_have_committed {
                        true => self.finish_elsewhere().await,
                        false => Err(trouble),
                    };
                }
                Err(trouble) => may_have_committed |= trouble != Trouble::Refused,
            }
            pause(&self.chance, tries).await;
        }
        self.finish_elsewhere().await
    }

    async fn finish_elsewhere(&self) -> Result<(), Trouble> {
        for host in self.cluster.hosts.iter() {
            if self.finish_at(host).await.is_ok() {
                self.cluster
                    .simulation
                    .count("a finish whose own daemon was gone");
                return Ok(());
            }
        }
        Err(Trouble::Lost)
    }

    /// What is finished stays so, whoever is asked and whatever is tried.
    async fn look_back(&self) {
        if self.chance.yes(300) {
            let host = self.cluster.any_host(&self.chance);
            let told = self.finish_at(&host).await.is_ok();
            let own = |(home, _): &(Arc<Host>, _)| Arc::ptr_eq(home, &host);
            if told && !self.home.as_ref().is_some_and(own) {
                self.cluster
                    .simulation
                    .count("a finish told by another daemon");
            }
        }
        if self.chance.yes(200) {
            let host = self.cluster.any_host(&self.chance);
            self.abort_at(&host).await;
        }
    }

    async fn abort_at(&self, host: &Host) {
        let simulation = &self.cluster.simulation;
        let client = &self.cluster.client;
        let aborted = client.abort(host, &self.exchange, self.which).await;
        match (aborted.answer, aborted.by) {
            (Ok(true), Some(by)) => {
                simulation.count("an abort acknowledged");
                let checked = simulation
                    .history
                    .lock()
                    .aborted(&self.exchange, self.which, by);
                simulation.check(checked);
            }
            (Ok(_), _) => {
                let checked = simulation.history.lock().seen(&self.exchange, self.which);
                simulation.check(checked);
            }
            (Err(trouble), _) => self.cluster.judge(&self.exchange, &trouble, NEVER),
        }
    }

    /// Aborts where the attempt may be known, as far as that can be reached.
    async fn give_up(&self) -> Ended {
        if self.chance.yes(800) {
            match &self.home {
                Some((host, _)) => self.abort_at(host).await,
                None => self.abort_at(&self.cluster.any_host(&self.chance)).await,
            }
        }
        Ended::Failed
    }
}
