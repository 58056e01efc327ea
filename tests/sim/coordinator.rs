//! One exchange from announcement to end, managed as Trino's coordinator does it.
//!
//! Announces, renews three times per lease, runs tasks until one attempt of each is finished, reads
//! the chosen attempts, and closes: at the end, while tasks write, or never. Invariant: an attempt
//! number is used once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::client::RequestError;
use crate::cluster::{Cluster, pause, sleep_millis};
use crate::history::AttemptId;
use crate::host::Host;
use crate::plan::ExchangePlan;
use crate::reader::Reader;
use crate::rng::Rng;
use crate::simulation::note;
use crate::writer::{AttemptOutcome, Writer};

/// Attempts per task.
const ATTEMPTS: u32 = 5;

#[derive(Clone)]
pub struct Coordinator {
    pub cluster: Cluster,
    pub plan: ExchangePlan,
    rng: Rng,
    /// For each task, the attempt that was reported finished first.
    chosen: Arc<Mutex<BTreeMap<u32, AttemptId>>>,
    /// The hosts that may announce it yet: asked, and neither closed nor gone.
    announcers: Arc<Mutex<Vec<Arc<Host>>>>,
    /// Cancelled when it stops renewing.
    stopped: CancellationToken,
    /// Its only permit is taken while the coordinator pauses.
    not_paused: Arc<Semaphore>,
}

impl Coordinator {
    pub fn new(cluster: &Cluster, plan: &ExchangePlan) -> Self {
        let seed = cluster.simulation.seed;
        let mut history = cluster.simulation.history.lock();
        history.add_exchange(&plan.name, plan.partitions, plan.ordered);
        drop(history);
        Self {
            cluster: cluster.clone(),
            plan: plan.clone(),
            rng: Rng::new(seed, &format!("coordinator {}", plan.name)),
            chosen: Arc::default(),
            announcers: Arc::default(),
            stopped: CancellationToken::new(),
            not_paused: Arc::new(Semaphore::new(1)),
        }
    }

    fn name(&self) -> &str {
        &self.plan.name
    }

    pub fn chosen(&self) -> Vec<AttemptId> {
        self.chosen.lock().values().copied().collect()
    }

    async fn wait_while_paused(&self) {
        drop(self.not_paused.acquire().await);
    }

    /// Announces, writes and reads. Closes the exchange only if the plan closes it early. Its tasks
    /// continue if it stops.
    pub async fn run(&self) {
        let stop = async {
            match self.plan.stops {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop => {
                self.cluster.simulation.count("a coordinator that stops");
                self.abandon();
            }
            () = self.run_to_end() => {}
        }
    }

    async fn run_to_end(&self) {
        if !self.announce().await {
            return;
        }
        let renewing = self.clone();
        self.cluster
            .simulation
            .spawn(async move { renewing.renew().await });
        let pausing = self.clone();
        self.cluster
            .simulation
            .spawn(async move { pausing.pause().await });
        let closing = self.clone();
        self.cluster.simulation.spawn(async move {
            if let Some(after) = closing.plan.closed_early {
                tokio::time::sleep(after).await;
                closing.close().await;
            }
        });
        let reading = self.clone();
        self.cluster
            .simulation
            .spawn(async move { reading.read_meanwhile().await });
        let tasks: Vec<_> = (0..self.plan.tasks)
            .map(|task| {
                let coordinator = self.clone();
                let work = async move { coordinator.task(task).await };
                self.cluster.simulation.spawn(work)
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
        self.wait_while_paused().await;
        let times = self.rng.between(1, 2);
        for _ in 0..times {
            if let Err(error) = self.reader(&self.rng, None).consume(&self.chosen()).await {
                note!(
                    self.cluster.simulation,
                    "{} not read: {error:?}",
                    self.name()
                );
            }
        }
    }

    pub fn reader<'a>(&'a self, rng: &'a Rng, only: Option<&'a Arc<Host>>) -> Reader<'a> {
        Reader {
            cluster: &self.cluster,
            exchange: self.name(),
            rng,
            only,
        }
    }

    async fn announce_or_renew(&self, renewal: bool) -> Result<bool, RequestError> {
        let host = self.cluster.any_host(&self.rng);
        let ExchangePlan {
            partitions,
            ordered,
            ..
        } = self.plan;
        let client = &self.cluster.client;
        let announced = client
            .announce(&host, self.name(), (partitions, ordered), renewal)
            .await;
        if !renewal {
            self.asked(&host, &announced.result);
        }
        if announced.result.is_ok() || matches!(announced.result, Err(RequestError::Problem { .. }))
        {
            self.cluster
                .simulation
                .history
                .lock()
                .contacted(self.name());
        }
        announced.result
    }

    /// Remembers where an announcement was sent, unless nothing listened there.
    fn asked<T>(&self, host: &Arc<Host>, result: &Result<T, RequestError>) {
        let mut announcers = self.announcers.lock();
        let is_known = announcers.iter().any(|known| known.index == host.index);
        if !is_known && !matches!(result, Err(RequestError::Refused)) {
            announcers.push(Arc::clone(host));
        }
    }

    fn properties(&self) -> (u32, bool) {
        (self.plan.partitions, self.plan.ordered)
    }

    async fn announce(&self) -> bool {
        let at_once = self.cluster.net.describes(self.name()) && self.rng.chance(700);
        for tries in 0..60 {
            if at_once && tries == 0 {
                let host = self.cluster.any_host(&self.rng);
                let (client, properties) = (&self.cluster.client, self.properties());
                let announced = client.announce_new(&host, self.name(), properties);
                let announced = announced.await.result;
                self.asked(&host, &announced);
                if announced.is_ok() {
                    self.cluster.simulation.count("an announcement at once");
                    let confirming = self.clone();
                    let confirming = async move { confirming.confirm().await };
                    self.cluster.simulation.spawn(confirming);
                    return true;
                }
            } else if self.announce_or_renew(false).await.is_ok() {
                let mut history = self.cluster.simulation.history.lock();
                history.exchange(self.name()).announced = true;
                return true;
            }
            pause(&self.rng, tries).await;
        }
        false
    }

    /// Waits until the marker of an exchange that was announced at once is durable, through any
    /// daemon.
    async fn confirm(&self) {
        let label = format!("confirmation {}", self.name());
        let rng = Rng::new(self.cluster.simulation.seed, &label);
        for tries in 0.. {
            self.wait_while_paused().await;
            if self.stopped.is_cancelled() {
                return;
            }
            let host = self.cluster.any_host(&rng);
            let (client, properties) = (&self.cluster.client, self.properties());
            let confirmed = client.confirm(&host, self.name(), properties).await.result;
            self.asked(&host, &confirmed);
            match confirmed {
                Ok(_) => {
                    let mut history = self.cluster.simulation.history.lock();
                    history.contacted(self.name());
                    history.exchange(self.name()).announced = true;
                    return;
                }
                Err(error) if error.retryable() => pause(&rng, tries).await,
                Err(_) => {
                    self.cluster
                        .simulation
                        .count("an announcement that failed later");
                    self.abandon();
                    return;
                }
            }
        }
    }

    /// Renews until stopped; retries soon after a failure.
    async fn renew(&self) {
        while !self.stopped.is_cancelled() {
            tokio::time::sleep(self.lease() / 3).await;
            self.wait_while_paused().await;
            for tries in 0..200 {
                if self.stopped.is_cancelled() {
                    return;
                }
                let answer = self.announce_or_renew(true).await;
                let lives = self.cluster.is_live(self.name());
                match answer {
                    Ok(false) => break,
                    Ok(true) if lives => {
                        let simulation = &self.cluster.simulation;
                        simulation.violate("promise 6: a live exchange was unknown to the daemon");
                    }
                    Err(error) if error.retryable() => pause(&self.rng, tries.min(3)).await,
                    Err(error) => {
                        let never = [
                            "exchange-closed",
                            "exchange-not-found",
                            "exchange-conflict",
                            "invalid-request",
                        ];
                        self.cluster.check_error(self.name(), &error, &never);
                        return;
                    }
                    Ok(true) => break,
                }
            }
        }
    }

    /// Pauses once, like a coordinator in a long garbage collection.
    async fn pause(&self) {
        let Some((when, length)) = self.plan.pauses else {
            return;
        };
        tokio::time::sleep(when).await;
        let Ok(permit) = self.not_paused.acquire().await else {
            return;
        };
        self.cluster.simulation.count("a coordinator that pauses");
        tokio::time::sleep(length).await;
        drop(permit);
    }

    /// Inspects and reads the exchange while it is written.
    async fn read_meanwhile(&self) {
        let rng = Rng::new(
            self.cluster.simulation.seed,
            &format!("meanwhile {}", self.name()),
        );
        for _ in 0..rng.below(6) {
            tokio::time::sleep(rng.millis(10, 3000)).await;
            let reader = self.reader(&rng, None);
            let _ = reader.inspect().await;
            let chosen = self.chosen();
            if !chosen.is_empty() && rng.chance(300) {
                let _ = reader.consume(&chosen).await;
            }
        }
    }

    /// Runs attempts of a task until one has finished.
    async fn task(&self, task: u32) {
        let label = format!("task {} {task}", self.name());
        let rng = Rng::new(self.cluster.simulation.seed, &label);
        sleep_millis(rng.below(1500)).await;
        let mut attempt = 0;
        while attempt < ATTEMPTS && !self.chosen.lock().contains_key(&task) {
            self.wait_while_paused().await;
            let mut running = vec![self.attempt((task, attempt))];
            attempt += 1;
            if rng.chance(self.cluster.plan.speculates * 10) {
                self.cluster.simulation.count("a speculative attempt");
                sleep_millis(rng.below(300)).await;
                running.push(self.attempt((task, attempt)));
                attempt += 1;
            }
            for attempt in running {
                let _ = attempt.await;
            }
            pause(&rng, 2).await;
        }
        if self.chosen.lock().contains_key(&task) {
            return;
        }
        self.cluster.simulation.count("a task that failed");
        if self.cluster.plan.is_quiet() && self.cluster.plan.aborts == 0 {
            let live = self.cluster.is_live(self.name());
            if live {
                self.cluster
                    .simulation
                    .violate("a task failed without any fault");
            }
        }
    }

    fn lease(&self) -> Duration {
        let mut history = self.cluster.simulation.history.lock();
        history.exchange(self.name()).lease
    }

    fn attempt(&self, id: AttemptId) -> tokio::task::JoinHandle<()> {
        let coordinator = self.clone();
        self.cluster.simulation.spawn(async move {
            let writer = Writer::new(&coordinator.cluster, coordinator.name(), id);
            if writer.run_or_stop().await == AttemptOutcome::Finished {
                coordinator.chosen.lock().entry(id.0).or_insert(id);
            }
        })
    }

    /// Closes the exchange where it was announced, or else at any daemon, with a few tries; the
    /// other announcers hear of it later.
    pub async fn close(&self) {
        self.stopped.cancel();
        self.cluster
            .simulation
            .history
            .lock()
            .exchange(self.name())
            .closing = true;
        let announcers = self.announcers.lock().clone();
        for tries in 0..8 {
            let announcer = announcers.get(tries as usize).cloned();
            let host = announcer.unwrap_or_else(|| self.cluster.any_host(&self.rng));
            match self.close_at(&host).await {
                Ok(()) => {
                    self.cluster.simulation.count("an exchange closed");
                    self.close_at_others();
                    return;
                }
                Err(error) if error.retryable() => pause(&self.rng, tries).await,
                Err(_) => return,
            }
        }
        self.cluster
            .simulation
            .count("an exchange that could not be closed");
        self.close_at_others();
    }

    async fn close_at(&self, host: &Arc<Host>) -> Result<(), RequestError> {
        let closed = self.cluster.client.close(host, self.name()).await;
        if matches!(closed, Ok(()) | Err(RequestError::Refused)) {
            self.announcers
                .lock()
                .retain(|asked| asked.index != host.index);
        }
        let simulation = &self.cluster.simulation;
        if let Err(error) = &closed
            && !error.retryable()
        {
            simulation.violate(format_args!("a close was answered with {error:?}"));
        }
        closed
    }

    /// A daemon that has not answered may read the announcement later and open the exchange again.
    fn close_at_others(&self) {
        for host in self.announcers.lock().clone() {
            let closing = self.clone();
            self.cluster.simulation.spawn(async move {
                closing.cluster.simulation.count("a close elsewhere");
                let label = format!("closing {} at {}", closing.name(), host.index);
                let rng = Rng::new(closing.cluster.simulation.seed, &label);
                for tries in 0..100 {
                    match closing.close_at(&host).await {
                        Ok(()) | Err(RequestError::Refused) => return,
                        Err(_) => pause(&rng, tries).await,
                    }
                }
            });
        }
    }

    /// Stops without closing the exchange.
    pub fn abandon(&self) {
        self.stopped.cancel();
        self.cluster.simulation.count("an exchange abandoned");
        self.cluster
            .simulation
            .history
            .lock()
            .exchange(self.name())
            .closing = true;
    }

    /// Runs superfluous writers before, while and after the exchange ends.
    pub async fn late_writers(&self) {
        for number in 0..self.rng.below(3) as u32 {
            tokio::time::sleep(self.rng.millis(0, 4000)).await;
            self.cluster.simulation.count("a late writer");
            let id = (1000 + number, 0);
            Writer::new(&self.cluster, self.name(), id).run().await;
        }
    }
}
