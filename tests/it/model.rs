//! The daemon against a model of it: random operations on two daemons that share base directories,
//! with crashes in between, must look to every reader as the model predicts.
//!
//! The model knows nothing about segments: it records what each daemon has in memory and what was
//! committed. Time is simulated, so a thousand waits cost nothing, and a failing case is replayed
//! from its seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use stopover::app::Daemon;
use stopover::catalog::CatalogError;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::id::{ExchangeId, SinkId, TaskAttempt};
use stopover::ingest::{Aborted, IngestError};
use stopover::read::ReadError;
use stopover::runtime::Runtime;

use crate::semantics::{announce, exchange, read, sink, write};

const TASKS: u32 = 3;
const ATTEMPTS: u32 = 2;
const PARTITIONS: u32 = 2;

#[derive(Debug, Clone)]
enum Op {
    /// Sends a batch of an attempt to the daemon that owns the attempt.
    Write {
        task: u32,
        attempt: u32,
        pages: Vec<(u32, u8)>,
    },
    /// Sends the last batch again.
    Repeat { task: u32, attempt: u32 },
    Finish {
        daemon: usize,
        task: u32,
        attempt: u32,
    },
    Abort {
        daemon: usize,
        task: u32,
        attempt: u32,
    },
    /// The daemon loses everything that it had in memory and restarts as a new run.
    Crash { daemon: usize },
    /// Reads through both daemons.
    Read,
}

fn op() -> impl Strategy<Value = Op> {
    let at = || (0usize..2, 0..TASKS, 0..ATTEMPTS);
    let page = (0..PARTITIONS, 1u8..=255);
    prop_oneof![
        6 => (0..TASKS, 0..ATTEMPTS, prop::collection::vec(page, 1..4))
            .prop_map(|(task, attempt, pages)| Op::Write { task, attempt, pages }),
        1 => (0..TASKS, 0..ATTEMPTS).prop_map(|(task, attempt)| Op::Repeat { task, attempt }),
        3 => at().prop_map(|(daemon, task, attempt)| Op::Finish { daemon, task, attempt }),
        1 => at().prop_map(|(daemon, task, attempt)| Op::Abort { daemon, task, attempt }),
        1 => (0usize..2).prop_map(|daemon| Op::Crash { daemon }),
        1 => Just(Op::Read),
    ]
}

type Pages = Vec<(u32, Vec<u8>)>;

#[derive(Debug, Clone, PartialEq)]
enum SinkState {
    Open(Vec<Pages>),
    Aborted,
    Finished,
}

#[derive(Default)]
struct Model {
    sinks: [HashMap<(u32, u32), SinkState>; 2],
    committed: BTreeMap<(u32, u32), Pages>,
}

impl Model {
    /// What a reader of a partition must get: the newest finished attempt of each task.
    fn expected(&self, partition: u32) -> Vec<u8> {
        let newest: BTreeMap<u32, &Pages> = self
            .committed
            .iter()
            .map(|((task, _), pages)| (*task, pages))
            .collect();
        let pages = newest
            .into_values()
            .flatten()
            .filter(|page| page.0 == partition);
        pages.flat_map(|page| page.1.clone()).collect()
    }
}

struct World {
    config: Config,
    daemons: Vec<Daemon>,
    exchange: ExchangeId,
    model: Model,
    seeds: u64,
}

fn owner(task: u32, attempt: u32) -> usize {
    ((task + attempt) % 2) as usize
}

impl World {
    async fn new() -> Self {
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let mut config = Config::default();
        // Small enough that segments are sealed while sinks are open.
        config.memory.budget = Some(64 << 10);
        config.segment.target_size = 2 << 10;
        config.base_directories = ["a", "b"]
            .map(|name| BaseDirectoryConfig {
                uri: format!("memory://model-{number}-{name}"),
                name: name.into(),
                ..Default::default()
            })
            .into();
        let daemons = (0..2)
            .map(|seed| Daemon::build(&config, &Runtime::seeded(seed)).unwrap())
            .collect::<Vec<_>>();
        let exchange = exchange("q-model");
        announce(&daemons[0], &exchange, PARTITIONS).await;
        Self {
            config,
            daemons,
            exchange,
            model: Model::default(),
            seeds: 2,
        }
    }

    fn sink(&self, task: u32, attempt: u32) -> SinkId {
        sink(&self.exchange, task, attempt)
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Write {
                task,
                attempt,
                pages,
            } => self.write(task, attempt, pages).await,
            Op::Repeat { task, attempt } => self.repeat(task, attempt).await,
            Op::Finish {
                daemon,
                task,
                attempt,
            } => self.finish(daemon, task, attempt).await,
            Op::Abort {
                daemon,
                task,
                attempt,
            } => self.abort(daemon, task, attempt).await,
            Op::Crash { daemon } => {
                let runtime = Runtime::seeded(self.seeds);
                self.seeds += 1;
                self.daemons[daemon] = Daemon::build(&self.config, &runtime).unwrap();
                self.model.sinks[daemon].clear();
            }
            Op::Read => self.check_reads().await,
        }
    }

    async fn write(&mut self, task: u32, attempt: u32, pages: Vec<(u32, u8)>) {
        let (at, key) = (owner(task, attempt), (task, attempt));
        let state = self.model.sinks[at].get(&key).cloned();
        if state.is_none() && self.model.committed.contains_key(&key) {
            // No client writes a finished attempt again: a retry has a new number.
            return;
        }
        let number = match &state {
            Some(SinkState::Open(batches)) => batches.len() as u32,
            _ => 0,
        };
        let pages: Pages = pages
            .into_iter()
            .map(|(p, seed)| (p, vec![seed; 100 + seed as usize]))
            .collect();
        let written = write(&self.daemons[at], &self.sink(task, attempt), number, &pages).await;
        match state {
            None | Some(SinkState::Open(_)) => {
                written.unwrap();
                let entry = self.model.sinks[at]
                    .entry(key)
                    .or_insert(SinkState::Open(Vec::new()));
                let SinkState::Open(batches) = entry else {
                    unreachable!("checked above")
                };
                batches.push(pages);
            }
            Some(SinkState::Aborted) => {
                assert!(
                    matches!(written, Err(IngestError::SinkAborted { .. })),
                    "{written:?}"
                );
            }
            // Batch 0 of an attempt that had pages is a repeat; for an empty one it comes too late.
            Some(SinkState::Finished) if self.model.committed[&key].is_empty() => {
                assert!(
                    matches!(written, Err(IngestError::SinkFinished { .. })),
                    "{written:?}"
                );
            }
            Some(SinkState::Finished) => written.unwrap(),
        }
    }

    async fn repeat(&mut self, task: u32, attempt: u32) {
        let at = owner(task, attempt);
        if let Some(SinkState::Open(batches)) = self.model.sinks[at].get(&(task, attempt)) {
            let number = batches.len() as u32 - 1;
            let pages = batches[number as usize].clone();
            write(&self.daemons[at], &self.sink(task, attempt), number, &pages)
                .await
                .unwrap();
        }
    }

    async fn finish(&mut self, at: usize, task: u32, attempt: u32) {
        let key = (task, attempt);
        let finished = self.daemons[at]
            .ingest
            .finish(&self.sink(task, attempt), None)
            .await;
        match self.model.sinks[at].get(&key).cloned() {
            Some(SinkState::Open(batches)) => {
                finished.unwrap();
                self.model.committed.insert(key, batches.concat());
                self.model.sinks[at].insert(key, SinkState::Finished);
            }
            // Aborted here, but committed by its own daemon: that is the outcome everywhere.
            Some(SinkState::Aborted) if self.model.committed.contains_key(&key) => {
                self.check_totals(key, finished.unwrap().pages);
            }
            Some(SinkState::Aborted) => {
                assert!(
                    matches!(finished, Err(IngestError::SinkAborted { .. })),
                    "{finished:?}"
                );
            }
            Some(SinkState::Finished) => self.check_totals(key, finished.unwrap().pages),
            None if self.model.committed.contains_key(&key) => {
                self.check_totals(key, finished.unwrap().pages);
            }
            None => {
                assert!(
                    matches!(finished, Err(IngestError::SinkNotFound { .. })),
                    "{finished:?}"
                );
            }
        }
    }

    fn check_totals(&self, key: (u32, u32), pages: u64) {
        assert_eq!(
            pages,
            self.model.committed[&key].len() as u64,
            "a repeated finish gives the same answer"
        );
    }

    async fn abort(&mut self, at: usize, task: u32, attempt: u32) {
        let key = (task, attempt);
        let aborted = self.daemons[at]
            .ingest
            .abort(&self.sink(task, attempt))
            .await
            .unwrap();
        let committed = self.model.committed.contains_key(&key);
        match self.model.sinks[at].get(&key) {
            Some(SinkState::Finished) => assert_eq!(aborted, Aborted::AlreadyFinished),
            None if committed => assert_eq!(aborted, Aborted::AlreadyFinished),
            _ => {
                assert_eq!(aborted, Aborted::Aborted);
                self.model.sinks[at].insert(key, SinkState::Aborted);
            }
        }
    }

    async fn check_reads(&self) {
        for daemon in &self.daemons {
            for partition in 0..PARTITIONS {
                let got = match read(daemon, &self.exchange, partition).await {
                    Err(ReadError::Catalog(CatalogError::NothingCommitted { .. })) => {
                        assert!(self.model.committed.is_empty(), "something is committed");
                        continue;
                    }
                    got => got.unwrap(),
                };
                assert_eq!(got, self.model.expected(partition), "partition {partition}");
            }
            let (content, _memory) = daemon.catalog.summary(&self.exchange).await.unwrap();
            let got: Vec<TaskAttempt> = content.committed.iter().map(|c| c.attempt).collect();
            let expected: Vec<TaskAttempt> = self
                .model
                .committed
                .keys()
                .map(|(task, attempt)| TaskAttempt::new(*task, *attempt).unwrap())
                .collect();
            assert_eq!(got, expected);
        }
    }

    /// After the close nothing is left in the base directories and in memory, once uploads that
    /// were in progress have been cleaned up.
    async fn close(&self) {
        self.daemons[0].closing.close(&self.exchange).await.unwrap();
        for _ in 0..100 {
            let left = self.daemons[1].storage.list_exchanges().await.unwrap();
            if left.is_empty() && self.daemons[0].write_pool.used() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("objects or memory are left ten seconds after the close");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn readers_always_see_what_the_model_predicts(ops in prop::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in ops {
                world.run(op).await;
            }
            world.check_reads().await;
            world.close().await;
        });
    }
}
