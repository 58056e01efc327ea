//! One exchange from announcement to end, as Trino's coordinator leads it.
//!
//! Announces, renews every third of the lease, runs tasks until one attempt of each is finished,
//! reads what it chose, and closes: in the end, in the midst, or never. Invariant: attempt numbers
//! are used once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Ended, Writer};
use crate::chance::Chance;
use crate::client::Trouble;
use crate::cluster::{Cluster, pause, sleep_millis};
use crate::history::Which;
use crate::plan::{ExchangePlan, LEASE};
use crate::reader::Reader;
use crate::simulation::note;

const ATTEMPTS: u32 = 5;

#[derive(Clone)]
pub struct Coordinator {
    pub cluster: Cluster,
    pub plan: ExchangePlan,
    chance: Chance,
    /// The finished attempt of each task that was told first.
    chosen: Arc<Mutex<BTreeMap<u32, Which>>>,
    /// It lives, and so renews.
    gone: CancellationToken,
    /// None left while it pauses.
    awake: Arc<Semaphore>,
}

impl Coordinator {
    pub fn new(cluster: &Cluster, plan: &ExchangePlan) -> Self {
        let seed = cluster.simulation.seed;
        let mut history = cluster.simulation.history.lock();
        history.begin_exchange(&plan.name, plan.partitions, plan.ordered);
        drop(history);
        Self {
            cluster: cluster.clone(),
            plan: plan.clone(),
            chance: Chance::new(seed, &format!("coordinator {}", plan.name)),
            chosen: Arc::default(),
            gone: CancellationToken::new(),
            awake: Arc::new(Semaphore::new(1)),
        }
    }

    fn name(&self) -> &str {
        &self.plan.name
    }

    pub fn chosen(&self) -> Vec<Which> {
        self.chosen.lock().values().copied().collect()
    }

    async fn is_awake(&self) {
        drop(self.awake.acquire().await);
    }

    /// Announces, writes and reads. Does not end the exchange unless that is planned in the midst.
    pub async fn run(&self) {
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
            if let Some(after) = closing.plan.closed_in_the_midst {
                tokio::time::sleep(after).await;
                closing.close().await;
            }
        });
        let looking = self.clone();
        self.cluster
            .simulation
            .spawn(async move { looking.look_around().await });
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
        self.is_awake().await;
        let times = self.chance.between(1, 2);
        for _ in 0..times {
            if let Err(trouble) = self
                .reader(&self.chance, None)
                .consume(&self.chosen())
                .await
            {
                note!(
                    self.cluster.simulation,
                    "{} not read: {trouble:?}",
                    self.name()
                );
            }
        }
    }

    pub fn reader<'a>(
        &'a self,
        chance: &'a Chance,
        only: Option<&'a Arc<crate::host::Host>>,
    ) -> Reader<'a> {
        Reader {
            cluster: &self.cluster,
            exchange: self.name(),
            chance,
            only,
        }
    }

    async fn ask_for_lease(&self, renewal: bool) -> Result<bool, Trouble> {
        let host = self.cluster.any_host(&self.chance);
        let ExchangePlan {
            partitions,
            ordered,
            ..
        } = self.plan;
        let client = &self.cluster.client;
        let announced = client
            .announce(&host, self.name(), (partitions, ordered), renewal)
            .await;
        if announced.answer.is_ok() || matches!(announced.answer, Err(Trouble::Problem { .. })) {
            self.cluster.simulation.history.lock().heard(self.name());
        }
        announced.answer
    }

    async fn announce(&self) -> bool {
        for tries in 0..60 {
            if self.ask_for_lease(false).await.is_ok() {
                let mut history = self.cluster.simulation.history.lock();
                history.exchange(self.name()).announced = true;
                return true;
            }
            pause(&self.chance, tries).await;
        }
        false
    }

    /// Renews until it goes away; asks again soon when that fails.
    async fn renew(&self) {
        while !self.gone.is_cancelled() {
            tokio::time::sleep(LEASE / 3).await;
            self.is_awake().await;
            for tries in 0..200 {
                if self.gone.is_cancelled() {
                    return;
                }
                let answer = self.ask_for_lease(true).await;
                let lives = self.cluster.lives(self.name());
                match answer {
                    Ok(false) => break,
                    Ok(true) if lives => {
                        let simulation = &self.cluster.simulation;
                        simulation.violate("promise 6: a live exchange was not known any more");
                    }
                    Err(trouble) if trouble.retryable() => pause(&self.chance, tries.min(3)).await,
                    Err(trouble) => {
                        let never = [
                            "exchange-closed",
                            "exchange-not-found",
                            "exchange-conflict",
                            "invalid-request",
                        ];
                        self.cluster.judge(self.name(), &trouble, &never);
                        return;
                    }
                    Ok(true) => break,
                }
            }
        }
    }

    /// Pauses once, as a coordinator in a long collection of garbage.
    async fn pause(&self) {
        let Some((when, length)) = self.plan.pauses else {
            return;
        };
        tokio::time::sleep(when).await;
        let Ok(asleep) = self.awake.acquire().await else {
            return;
        };
        self.cluster.simulation.count("a coordinator that pauses");
        tokio::time::sleep(length).await;
        drop(asleep);
    }

    /// Somebody looks at the exchange while it is written.
    async fn look_around(&self) {
        let chance = Chance::new(
            self.cluster.simulation.seed,
            &format!("look {}", self.name()),
        );
        for _ in 0..chance.below(6) {
            tokio::time::sleep(chance.millis(10, 3000)).await;
            let reader = self.reader(&chance, None);
            let _ = reader.look().await;
            let chosen = self.chosen();
            if !chosen.is_empty() && chance.yes(300) {
                let _ = reader.consume(&chosen).await;
            }
        }
    }

    /// Runs a task until one of its attempts has finished.
    async fn task(&self, task: u32) {
        let label = format!("task {} {task}", self.name());
        let chance = Chance::new(self.cluster.simulation.seed, &label);
        sleep_millis(chance.below(1500)).await;
        let mut attempt = 0;
        while attempt < ATTEMPTS && !self.chosen.lock().contains_key(&task) {
            self.is_awake().await;
            let mut running = vec![self.attempt((task, attempt))];
            attempt += 1;
            if chance.yes(self.cluster.plan.speculates * 10) {
                self.cluster.simulation.count("a speculative attempt");
                sleep_millis(chance.below(300)).await;
                running.push(self.attempt((task, attempt)));
                attempt += 1;
            }
            for attempt in running {
                let _ = attempt.await;
            }
            pause(&chance, 2).await;
        }
        if self.chosen.lock().contains_key(&task) {
            return;
        }
        self.cluster.simulation.count("a task that failed");
        if self.cluster.plan.is_quiet() && self.cluster.plan.aborts == 0 {
            let quiet = self.cluster.lives(self.name());
            if quiet {
                self.cluster
                    .simulation
                    .violate("a task failed though nothing went wrong");
            }
        }
    }

    fn attempt(&self, which: Which) -> tokio::task::JoinHandle<()> {
        let coordinator = self.clone();
        self.cluster.simulation.spawn(async move {
            let writer = Writer::new(&coordinator.cluster, coordinator.name(), which);
            if writer.run().await == Ended::Finished {
                coordinator.chosen.lock().entry(which.0).or_insert(which);
            }
        })
    }

    /// Closes the exchange, through whoever answers, for a while.
    pub async fn close(&self) {
        self.gone.cancel();
        self.cluster
            .simulation
            .history
            .lock()
            .exchange(self.name())
            .closing = true;
        for tries in 0..8 {
            let host = self.cluster.any_host(&self.chance);
            match self.cluster.client.close(&host, self.name()).await {
                Ok(()) => {
                    self.cluster.simulation.count("an exchange closed");
                    return;
                }
                Err(trouble) if trouble.retryable() => pause(&self.chance, tries).await,
                Err(trouble) => {
                    let simulation = &self.cluster.simulation;
                    simulation.violate(format_args!("close answers {trouble:?}"));
                    return;
                }
            }
        }
        self.cluster
            .simulation
            .count("an exchange that could not be closed");
    }

    /// Goes away without a word.
    pub fn abandon(&self) {
        self.gone.cancel();
        self.cluster.simulation.count("an exchange abandoned");
        self.cluster
            .simulation
            .history
            .lock()
            .exchange(self.name())
            .closing = true;
    }

    /// Writers that nobody wants any more, before, while and after the exchange ends.
    pub async fn late_writers(&self) {
        for number in 0..self.chance.below(3) as u32 {
            tokio::time::sleep(self.chance.millis(0, 4000)).await;
            self.cluster.simulation.count("a late writer");
            let which = (1000 + number, 0);
            Writer::new(&self.cluster, self.name(), which).run().await;
        }
    }

    /// How long until everything of it must be gone.
    pub fn grace() -> Duration {
        LEASE * 3
    }
}
