//! One attempt of one task, written like the Trino plugin's sink, but less carefully.
//!
//! Sends one batch at a time, all to the daemon that accepted the first; repeats unanswered
//! requests; finishes at another daemon if that one is down. An attempt of one batch goes to the
//! home of its exchange first. Sometimes it aborts, repeats what was acknowledged, or stalls. To
//! add a behaviour: a step in `run`.

use parking_lot::Mutex;
use std::sync::Arc;

use crate::client::RequestError;
use crate::cluster::{Cluster, pause};
use crate::history::{AttemptId, AttemptState, Counts, Pages};
use crate::host::Host;
use crate::plan::LEASE;
use crate::rng::Rng;
use crate::wire;

/// How often one request is tried.
const TRIES: u32 = 7;

/// Problems that no request for pages may be answered with while its exchange is live.
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
    id: AttemptId,
    rng: Rng,
    batches: Vec<Pages>,
    /// The daemon that accepted the first batch, and its run at that time.
    owner: Option<(Arc<Host>, Option<u64>)>,
    /// The only daemon to use. If set, the writer only writes and finishes.
    only: Option<Arc<Host>>,
    /// The home of a writer with `only`.
    home: Option<Arc<Host>>,
    /// The home at which the attempt did not succeed: all of it goes to another daemon.
    left_home: Option<Arc<Host>>,
    /// What it is doing, for those that stop.
    doing: Arc<Mutex<&'static str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    Finished,
    Failed,
}

impl Writer {
    pub fn new(cluster: &Cluster, exchange: &str, id: AttemptId) -> Self {
        let label = format!("{exchange} {} {}", id.0, id.1);
        let rng = Rng::new(cluster.simulation.seed, &label);
        let partitions = {
            let mut history = cluster.simulation.history.lock();
            history.attempt(exchange, id);
            u64::from(history.exchange(exchange).partitions)
        };
        let page = |batch: u64, number: u64| {
            let mut bytes = format!("{label} {batch} {number};").into_bytes();
            let length = if rng.chance(20) {
                4000
            } else {
                cluster.plan.page
            };
            bytes.resize(
                bytes.len() + rng.below(length) as usize,
                b'0' + number as u8,
            );
            (rng.below(partitions) as u32, bytes)
        };
        let batches = (0..rng.below(6)).map(|batch| {
            let pages = rng.between(1, 5);
            let mut pages: Pages = (0..pages).map(|number| page(batch, number)).collect();
            pages.sort_by_key(|page| page.0);
            pages
        });
        Self {
            batches: batches.collect(),
            cluster: cluster.clone(),
            exchange: exchange.to_owned(),
            id,
            rng,
            owner: None,
            only: None,
            home: None,
            left_home: None,
            doing: Arc::new(Mutex::new("a writer that stops before its first batch")),
        }
    }

    /// A writer that uses one daemon and does nothing but write and finish.
    pub fn at(cluster: &Cluster, exchange: &str, id: AttemptId, host: &Arc<Host>) -> Self {
        Self {
            only: Some(Arc::clone(host)),
            ..Self::new(cluster, exchange, id)
        }
    }

    /// A writer like [`Writer::at`], with these batches.
    pub fn with(
        cluster: &Cluster,
        exchange: &str,
        id: AttemptId,
        host: &Arc<Host>,
        batches: Vec<Pages>,
    ) -> Self {
        Self {
            batches,
            ..Self::at(cluster, exchange, id, host)
        }
    }

    /// The same, with this home for a small attempt.
    pub fn at_home(mut self, home: &Arc<Host>) -> Self {
        self.home = Some(Arc::clone(home));
        self
    }

    fn host(&self) -> Arc<Host> {
        match &self.only {
            Some(host) => Arc::clone(host),
            None => loop {
                let host = self.cluster.any_host(&self.rng);
                let left = self.left_home.as_ref();
                if left.is_none_or(|left| !Arc::ptr_eq(left, &host)) {
                    return host;
                }
            },
        }
    }

    /// The home of a small attempt, which may be another one for the next attempt.
    fn home(&self) -> Option<Arc<Host>> {
        let hosts = &self.cluster.hosts;
        if self.only.is_some() || self.batches.len() > 1 || hosts.len() < 2 {
            return self.home.clone();
        }
        let moves = if self.rng.chance(100) { self.id.1 } else { 0 };
        if !(moves as usize).is_multiple_of(hosts.len()) {
            self.count("a home that is another one for the next attempt");
        }
        let hash: usize = self.exchange.bytes().map(usize::from).sum();
        Some(Arc::clone(&hosts[(hash + moves as usize) % hosts.len()]))
    }

    /// Writes a small attempt at its home: the batch, if there is one, and the finish, each once.
    async fn finish_at_home(&mut self, home: &Arc<Host>) -> Result<(), RequestError> {
        if let Some(pages) = self.batches.first() {
            self.now_doing("a writer that stops in a batch");
            let client = &self.cluster.client;
            let sent = client
                .pages_at_home(home, &self.exchange, self.id, pages)
                .await;
            self.note_reached(sent.run);
            if let Err(error) = sent.result {
                self.check_page_error(&error, sent.run);
                return Err(error);
            }
            let mut history = self.cluster.simulation.history.lock();
            let attempt = history.attempt(&self.exchange, self.id);
            attempt.batches.push(pages.clone());
            attempt.first_run = sent.run;
        }
        self.now_doing("a writer that stops after its finish was sent");
        self.finish_at(home).await
    }

    /// Gives up the home: all of it is written at another daemon. The home may yet commit it.
    fn leave_home(&mut self, home: Arc<Host>) {
        let simulation = &self.cluster.simulation;
        simulation.count("a small attempt that left its home");
        let mut history = simulation.history.lock();
        history.attempt(&self.exchange, self.id).first_run = None;
        drop(history);
        self.left_home = Some(home);
    }

    fn count(&self, event: &'static str) {
        self.cluster.simulation.count(event);
    }

    fn sometimes(&self, percent: u64) -> bool {
        self.only.is_none() && self.rng.chance(percent * 10)
    }

    /// Like `run`, but its process may stop at any moment, also while a request is under way.
    pub async fn run_or_stop(self) -> AttemptOutcome {
        let simulation = Arc::clone(&self.cluster.simulation);
        let doing = Arc::clone(&self.doing);
        if !self.sometimes(self.cluster.plan.stops) {
            return self.run().await;
        }
        let longest = *self.rng.pick(&[100, 1000, 5000]);
        let after = self.rng.millis(0, longest);
        match tokio::time::timeout(after, self.run()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                simulation.count(*doing.lock());
                AttemptOutcome::Failed
            }
        }
    }

    fn now_doing(&self, what: &'static str) {
        *self.doing.lock() = what;
    }

    /// Writes, finishes or gives up the attempt.
    pub async fn run(mut self) -> AttemptOutcome {
        if self.sometimes(60) {
            self.declare().await;
        }
        if let Some(home) = self.home() {
            if self.finish_at_home(&home).await.is_ok() {
                self.count("a small attempt at its home");
                self.check_repeats().await;
                return AttemptOutcome::Finished;
            }
            self.leave_home(home);
        }
        for number in 0..self.batches.len() {
            self.now_doing("a writer that stops in a batch");
            if self.send(number).await.is_err() {
                return self.give_up().await;
            }
            self.now_doing("a writer that stops between batches");
            tokio::time::sleep(self.rng.millis(0, self.cluster.plan.stops * 20)).await;
            if self.rng.chance(100) {
                self.repeat(self.rng.below(number as u64 + 1) as usize)
                    .await;
            }
        }
        if self.sometimes(self.cluster.plan.stalls) {
            self.count("a writer that stalls");
            let lease = LEASE.as_millis() as u64;
            tokio::time::sleep(self.rng.millis(lease / 2, lease * 3 / 2)).await;
        }
        if self.sometimes(self.cluster.plan.aborts) {
            return self.give_up().await;
        }
        self.now_doing("a writer that stops after its finish was sent");
        match self.finish().await {
            Ok(()) => {
                self.check_repeats().await;
                AttemptOutcome::Finished
            }
            Err(_) => self.give_up().await,
        }
    }

    /// Records which run a request of this attempt reached.
    fn note_reached(&self, run: Option<u64>) {
        if let Some(run) = run {
            let mut history = self.cluster.simulation.history.lock();
            let attempt = history.attempt(&self.exchange, self.id);
            attempt.reached.insert(run);
        }
    }

    async fn send(&mut self, number: usize) -> Result<(), RequestError> {
        let mut tries = 0;
        loop {
            let host = match &self.owner {
                Some((host, _)) => Arc::clone(host),
                None => self.host(),
            };
            let pages = &self.batches[number];
            let client = &self.cluster.client;
            let sent = client
                .pages(&host, &self.exchange, self.id, number, pages)
                .await;
            self.note_reached(sent.run);
            match sent.result {
                Ok(_) => {
                    let mut history = self.cluster.simulation.history.lock();
                    let attempt = history.attempt(&self.exchange, self.id);
                    if attempt.batches.len() == number {
                        attempt.batches.push(pages.clone());
                    }
                    attempt.first_run = attempt.first_run.or(sent.run);
                    drop(history);
                    self.owner.get_or_insert((host, sent.run));
                    return Ok(());
                }
                Err(error) => {
                    self.check_page_error(&error, sent.run);
                    tries += 1;
                    if tries == TRIES || !error.retryable() {
                        return Err(error);
                    }
                }
            }
            pause(&self.rng, tries).await;
        }
    }

    fn check_page_error(&self, error: &RequestError, run: Option<u64>) {
        let mut never = NEVER.to_vec();
        never.extend(["sink-aborted", "sink-finished", "attempt-not-committed"]);
        if self.owner.as_ref().is_some_and(|owner| owner.1 == run) {
            never.push("batch-out-of-order");
        }
        self.cluster.check_error(&self.exchange, error, &never);
    }

    /// Declares the sink, perhaps at another daemon than the one that it will use; nothing depends
    /// on the declaration.
    async fn declare(&self) {
        let host = self.host();
        let client = &self.cluster.client;
        let declared = client.declare_sink(&host, &self.exchange, self.id).await;
        match declared.result {
            Ok(()) => self.count("a declared sink"),
            Err(error) => self.check_page_error(&error, declared.run),
        }
        if self.rng.chance(300) {
            let withdrawn = client.withdraw_sink(&host, &self.exchange, self.id).await;
            match withdrawn.result {
                Ok(()) => self.count("a sink withdrawn"),
                Err(error) => self.check_page_error(&error, withdrawn.run),
            }
        }
    }

    /// Sends a batch again that was accepted.
    async fn repeat(&self, number: usize) {
        let Some((host, run)) = &self.owner else {
            return;
        };
        let (client, pages) = (&self.cluster.client, &self.batches[number]);
        let sent = client
            .pages(host, &self.exchange, self.id, number, pages)
            .await;
        self.note_reached(sent.run);
        match sent.result {
            Ok(false) if sent.run == *run => {
                let simulation = &self.cluster.simulation;
                simulation.violate("promise 2: a repeated batch was accepted twice");
            }
            Ok(_) => self.count("a repeated batch"),
            Err(error) => self.check_page_error(&error, sent.run),
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

    async fn finish_at(&self, host: &Host) -> Result<(), RequestError> {
        let simulation = &self.cluster.simulation;
        let (counts, checksum) = self.counts();
        let known_committed = {
            let mut history = simulation.history.lock();
            let attempt = history.attempt(&self.exchange, self.id);
            attempt.finish_sent = true;
            attempt.state == AttemptState::Committed
        };
        let client = &self.cluster.client;
        let finish = client.finish(host, &self.exchange, self.id, counts, checksum);
        let finished = finish.await;
        self.note_reached(finished.run);
        match finished.result {
            Ok(answer) => {
                simulation.count("a finish acknowledged");
                let mut history = simulation.history.lock();
                let checked = history.finished(&self.exchange, self.id, answer);
                drop(history);
                simulation.check(checked);
                Ok(())
            }
            Err(error) => {
                let mut never = NEVER.to_vec();
                if known_committed {
                    never.extend(["sink-not-found", "sink-aborted", "sink-failed"]);
                }
                never.extend(["attempt-not-committed", "sink-finished"]);
                let at_another_run = self
                    .owner
                    .as_ref()
                    .is_some_and(|owner| owner.1 != finished.run);
                if at_another_run && !known_committed {
                    // Another run may hold only the first batch, if its answer to that was lost.
                    never.retain(|problem_type| *problem_type != "count-mismatch");
                }
                self.cluster.check_error(&self.exchange, &error, &never);
                Err(error)
            }
        }
    }

    async fn finish(&mut self) -> Result<(), RequestError> {
        let Some((owner, _)) = self.owner.clone() else {
            let mut tries = 0;
            loop {
                let host = self.host();
                match self.finish_at(&host).await {
                    Ok(()) => return Ok(()),
                    Err(error) if tries == TRIES || !error.retryable() => return Err(error),
                    Err(_) => tries += 1,
                }
                pause(&self.rng, tries).await;
            }
        };
        let mut may_have_committed = false;
        for tries in 0..TRIES {
            match self.finish_at(&owner).await {
                Ok(()) => return Ok(()),
                Err(RequestError::Refused) if may_have_committed => {
                    return self.finish_elsewhere().await;
                }
                Err(error) if !error.retryable() => {
                    // The run that held the sink may have ended after the commit.
                    return match error.is("sink-not-found") && may_have_committed {
                        true => self.finish_elsewhere().await,
                        false => Err(error),
                    };
                }
                Err(error) => may_have_committed |= error != RequestError::Refused,
            }
            pause(&self.rng, tries).await;
        }
        self.finish_elsewhere().await
    }

    async fn finish_elsewhere(&self) -> Result<(), RequestError> {
        for host in self.cluster.hosts.iter() {
            if self.finish_at(host).await.is_ok() {
                self.count("a finish answered in place of a dead daemon");
                return Ok(());
            }
        }
        Err(RequestError::Lost)
    }

    /// Repeats the finish and tries an abort, at any daemon: the attempt must stay committed.
    async fn check_repeats(&self) {
        if let Some(home) = &self.left_home
            && self.rng.chance(700)
        {
            self.abort_at(home).await;
        }
        if self.rng.chance(300) {
            let host = self.cluster.any_host(&self.rng);
            let repeated = self.finish_at(&host).await.is_ok();
            let is_host = |(owner, _): &(Arc<Host>, _)| Arc::ptr_eq(owner, &host);
            if repeated && !self.owner.as_ref().is_some_and(is_host) {
                self.count("a finish answered by another daemon");
            }
        }
        if self.rng.chance(200) {
            let host = self.cluster.any_host(&self.rng);
            self.abort_at(&host).await;
        }
    }

    async fn abort_at(&self, host: &Host) {
        let simulation = &self.cluster.simulation;
        let client = &self.cluster.client;
        let aborted = client.abort(host, &self.exchange, self.id).await;
        match (aborted.result, aborted.run) {
            (Ok(true), Some(run)) => {
                simulation.count("an abort acknowledged");
                let checked = simulation
                    .history
                    .lock()
                    .aborted(&self.exchange, self.id, run);
                simulation.check(checked);
            }
            (Ok(_), _) => {
                let checked = simulation.history.lock().observed(&self.exchange, self.id);
                simulation.check(checked);
            }
            (Err(error), _) => self.cluster.check_error(&self.exchange, &error, NEVER),
        }
    }

    /// Usually aborts at the daemon that holds the attempt, if it can be reached.
    async fn give_up(&self) -> AttemptOutcome {
        if self.rng.chance(800) {
            match &self.owner {
                Some((host, _)) => self.abort_at(host).await,
                None => self.abort_at(&self.cluster.any_host(&self.rng)).await,
            }
        }
        AttemptOutcome::Failed
    }
}
