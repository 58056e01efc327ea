//! A host on which a daemon runs, dies and is restarted, each time as a new run.
//!
//! Does: assemble the daemon from its own parts over the simulated stores, serve requests through
//! its own router, restart it. Does not: decide when it dies (`chaos`). Invariant: only the disks
//! outlive a run.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use axum::Router;
use parking_lot::Mutex;
use stopover::api;
use stopover::app::Daemon;
use stopover::config::Config;
use stopover::gc::drain::drain;
use stopover::http::credentials::Credentials;
use stopover::runtime::{Clock, Random, Runtime, TaskGroup};
use stopover::storage::{Storage, StoreLimits};
use stopover::telemetry::metrics::Metrics;

use crate::crash_point::CrashPoint;
use crate::mutants::MutantRouter;
use crate::plan::LEASE;
use crate::process::{Process, ProcessSpawner};
use crate::rng::Rng;
use crate::simulation::{Simulation, note};
use crate::store::{SimulatedStore, Site};

/// The host kills a daemon that takes longer than this to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What all runs of all daemons have in common.
pub struct Blueprint {
    pub config: Config,
    /// The lease that each host is configured with instead.
    pub leases: Vec<Duration>,
    pub limits: StoreLimits,
    pub sites: Vec<Arc<Site>>,
    /// How many of them each host is configured with; all, if nothing is said.
    pub known_sites: Vec<usize>,
    /// Whether their base directories have `require_init`.
    pub initialized: bool,
    /// In how many of 1,000 polls a task yields to the others first.
    pub yield_per_mille: u64,
    /// Kills a run at one of its storage calls.
    pub crash_point: Option<Arc<CrashPoint>>,
}

/// One run of a daemon.
pub struct DaemonRun {
    pub process: Arc<Process>,
    pub daemon: Daemon,
    pub router: Router,
    pub mutant_router: Arc<MutantRouter>,
}

pub struct Host {
    pub index: usize,
    simulation: Arc<Simulation>,
    blueprint: Arc<Blueprint>,
    rng: Rng,
    current: Mutex<Option<Arc<DaemonRun>>>,
    process: Mutex<Option<Arc<Process>>>,
    run_count: Mutex<u64>,
    /// An object of each run, which lives as long as the memory of the run.
    all_runs: Mutex<Vec<Weak<Metrics>>>,
}

impl Host {
    pub fn new(
        simulation: &Arc<Simulation>,
        blueprint: &Arc<Blueprint>,
        index: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            simulation: Arc::clone(simulation),
            blueprint: Arc::clone(blueprint),
            rng: Rng::new(simulation.seed, &format!("host {index}")),
            current: Mutex::default(),
            process: Mutex::default(),
            run_count: Mutex::default(),
            all_runs: Mutex::default(),
        })
    }

    /// A host whose daemon is configured without the last base directory.
    pub fn stranger(
        simulation: &Arc<Simulation>,
        blueprint: &Arc<Blueprint>,
        index: usize,
    ) -> Arc<Self> {
        let mut without = blueprint.sites.clone();
        without.pop();
        let blueprint = Arc::new(Blueprint {
            config: blueprint.config.clone(),
            leases: vec![LEASE; index + 1],
            limits: blueprint.limits,
            sites: without,
            known_sites: Vec::new(),
            initialized: blueprint.initialized,
            yield_per_mille: blueprint.yield_per_mille,
            crash_point: None,
        });
        Self::new(simulation, &blueprint, index)
    }

    /// Restarts the daemon whenever it has died, for ever.
    pub async fn supervise(self: Arc<Self>) {
        loop {
            let process = self.start();
            process.wait_until_dead().await;
            self.current.lock().take();
            tokio::time::sleep(self.rng.millis(50, 6000)).await;
        }
    }

    /// Starts a run; it serves once it has probed its base directories, like the real daemon.
    fn start(self: &Arc<Self>) -> Arc<Process> {
        let incarnation = {
            let mut runs = self.run_count.lock();
            *runs += 1;
            (self.index as u64) << 8 | *runs
        };
        note!(self.simulation, "{incarnation:x} starts");
        let process = Process::new(
            &self.simulation,
            incarnation,
            self.blueprint.yield_per_mille,
        );
        *self.process.lock() = Some(Arc::clone(&process));
        let run = Arc::new(self.build(&process));
        self.all_runs
            .lock()
            .push(Arc::downgrade(&run.daemon.metrics));
        let host = Arc::clone(self);
        process.start(Box::pin(async move {
            run.daemon.storage.probe().await;
            note!(host.simulation, "{:x} serves", run.process.incarnation);
            *host.current.lock() = Some(run);
        }));
        process
    }

    fn config(&self) -> Config {
        let mut config = self.blueprint.config.clone();
        config.lease.duration = self.blueprint.leases[self.index];
        config
    }

    fn build(&self, process: &Arc<Process>) -> DaemonRun {
        let Blueprint {
            limits,
            sites,
            crash_point,
            ..
        } = &*self.blueprint;
        let config = &self.config();
        let runtime = Runtime {
            clock: Clock::with_fixed_wall(SystemTime::UNIX_EPOCH),
            random: Random::seeded(self.rng.next()),
            tasks: TaskGroup::with_spawner(Arc::new(ProcessSpawner(Arc::clone(process)))),
        };
        let known = self.blueprint.known_sites.get(self.index);
        let sites = &sites[..known.copied().unwrap_or(sites.len())];
        let stores = sites.iter().map(|site| {
            let store = process.meter.wrap(SimulatedStore::new(site, process));
            let store = match self.simulation.mutant {
                Some(mutant) => mutant.wrap(store, site, process),
                None => store,
            };
            let store = match crash_point {
                Some(crash_point) => crash_point.wrap(store, site, process),
                None => store,
            };
            (site.name.clone(), format!("sim://{}", site.name), store)
        });
        let open = match self.blueprint.initialized {
            true => Storage::from_initialized_stores,
            false => Storage::from_stores,
        };
        let storage = open(stores.collect(), *limits, &runtime);
        let daemon = Daemon::assemble(config, &runtime, storage, Arc::new(Metrics::default()));
        process.meter.observe(&daemon);
        let credentials =
            Credentials::open(&config.server, &runtime.clock).expect("credentials without files");
        DaemonRun {
            process: Arc::clone(process),
            router: api::router(daemon.api_state(config, credentials)),
            mutant_router: MutantRouter::new(self.simulation.mutant),
            daemon,
        }
    }

    /// The run that serves requests now, if any.
    pub fn current_run(&self) -> Option<Arc<DaemonRun>> {
        self.current.lock().clone()
    }

    /// Kills the run, even if it does not serve yet.
    pub fn kill(&self, how: &str) {
        let process = self.process.lock().clone();
        if let Some(process) = process {
            process.kill(how);
        }
        self.current.lock().take();
    }

    /// The process of the newest run.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    /// SIGTERM: drain, shut down all tasks, exit.
    pub async fn stop(&self) {
        let Some(run) = self.current_run() else {
            return;
        };
        note!(self.simulation, "{:x} drains", run.process.incarnation);
        let daemon = &run.daemon;
        let stop = async {
            let timeout = Duration::from_secs(5);
            drain(&daemon.closing, &daemon.runtime.clock, timeout).await;
            self.stop_serving(&run);
            daemon.runtime.tasks.shut_down().await;
        };
        let _ = tokio::time::timeout(STOP_TIMEOUT, stop).await;
        run.process.kill("after draining");
    }

    /// Stops sending requests to this run; a later run may serve already.
    fn stop_serving(&self, of: &Arc<DaemonRun>) {
        let mut run = self.current.lock();
        if run.as_ref().is_some_and(|run| Arc::ptr_eq(run, of)) {
            run.take();
        }
    }

    /// Waits until a run serves requests.
    pub async fn wait_until_serving(&self) -> Arc<DaemonRun> {
        loop {
            if let Some(run) = self.current_run() {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many runs other than the current one still have memory.
    pub fn leaked_runs(&self) -> usize {
        let current = self
            .current_run()
            .map(|run| Arc::downgrade(&run.daemon.metrics));
        let all_runs = self.all_runs.lock();
        let others = all_runs.iter().filter(|one| {
            one.strong_count() > 0 && !current.as_ref().is_some_and(|c| c.ptr_eq(one))
        });
        others.count()
    }
}
