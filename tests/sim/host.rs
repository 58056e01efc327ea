//! A place where a daemon runs, dies and comes back, each time as another run of it.
//!
//! Does: build the daemon from its own parts over the simulated stores, serve requests through its
//! own router, supervise it. Does not: decide when it dies (`chaos`). Invariant: between two runs
//! only the disks remain.

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
use stopover::storage::{Limits, Storage};
use stopover::telemetry::metrics::Metrics;

use crate::chance::Chance;
use crate::mutants::Door;
use crate::nest::{Nest, Nursery};
use crate::simulation::{Simulation, note};
use crate::store::{SimulatedStore, Site};
use crate::tap::Tap;

/// A supervisor kills a daemon that takes longer than this to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What all runs of all daemons are built with.
pub struct Blueprint {
    pub config: Config,
    pub limits: Limits,
    pub sites: Vec<Arc<Site>>,
    /// How often in a thousand a task lets others go first.
    pub shuffle: u64,
    /// Ends a run at one of its storage calls.
    pub tap: Option<Arc<Tap>>,
}

/// One run of a daemon.
pub struct Life {
    pub nest: Arc<Nest>,
    pub daemon: Daemon,
    pub router: Router,
    pub door: Arc<Door>,
}

pub struct Host {
    pub index: usize,
    simulation: Arc<Simulation>,
    blueprint: Arc<Blueprint>,
    chance: Chance,
    life: Mutex<Option<Arc<Life>>>,
    nest: Mutex<Option<Arc<Nest>>>,
    runs: Mutex<u64>,
    /// Something of each run: gone when its memory is.
    remains: Mutex<Vec<Weak<Metrics>>>,
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
            chance: Chance::new(simulation.seed, &format!("host {index}")),
            life: Mutex::default(),
            nest: Mutex::default(),
            runs: Mutex::default(),
            remains: Mutex::default(),
        })
    }

    /// Runs the daemon again whenever it has died; for ever.
    pub async fn supervise(self: Arc<Self>) {
        loop {
            let nest = self.start();
            nest.died().await;
            self.life.lock().take();
            tokio::time::sleep(self.chance.millis(50, 6000)).await;
        }
    }

    /// Begins a run; it serves once it has probed its base directories, as the real one.
    fn start(self: &Arc<Self>) -> Arc<Nest> {
        let incarnation = {
            let mut runs = self.runs.lock();
            *runs += 1;
            (self.index as u64) << 8 | *runs
        };
        note!(self.simulation, "{incarnation:x} starts");
        let nest = Nest::new(&self.simulation, incarnation, self.blueprint.shuffle);
        *self.nest.lock() = Some(Arc::clone(&nest));
        let life = Arc::new(self.build(&nest));
        self.remains
            .lock()
            .push(Arc::downgrade(&life.daemon.metrics));
        let host = Arc::clone(self);
        nest.start(Box::pin(async move {
            life.daemon.storage.probe().await;
            note!(host.simulation, "{:x} serves", life.nest.incarnation);
            *host.life.lock() = Some(life);
        }));
        nest
    }

    fn build(&self, nest: &Arc<Nest>) -> Life {
        let Blueprint {
            config,
            limits,
            sites,
            tap,
            ..
        } = &*self.blueprint;
        let runtime = Runtime {
            clock: Clock::with_fixed_wall(SystemTime::UNIX_EPOCH),
            random: Random::seeded(self.chance.next()),
            tasks: TaskGroup::with_spawner(Arc::new(Nursery(Arc::clone(nest)))),
        };
        let stores = sites.iter().map(|site| {
            let store = nest.meter.over(SimulatedStore::new(site, nest));
            let store = match self.simulation.mutant {
                Some(mutant) => mutant.over(store, site, nest),
                None => store,
            };
            let store = match tap {
                Some(tap) => tap.over(store, site, nest),
                None => store,
            };
            (site.name.clone(), format!("sim://{}", site.name), store)
        });
        let storage = Storage::from_stores(stores.collect(), *limits, &runtime);
        let daemon = Daemon::assemble(config, &runtime, storage, Arc::new(Metrics::default()));
        nest.meter.look_at(&daemon);
        let credentials =
            Credentials::open(&config.server, &runtime.clock).expect("credentials without files");
        Life {
            nest: Arc::clone(nest),
            router: api::router(daemon.api_state(config, credentials)),
            door: Door::new(self.simulation.mutant),
            daemon,
        }
    }

    /// The run that serves now, if any does.
    pub fn life(&self) -> Option<Arc<Life>> {
        self.life.lock().clone()
    }

    /// Kills the run, also one that does not serve yet.
    pub fn kill(&self, how: &str) {
        let nest = self.nest.lock().clone();
        if let Some(nest) = nest {
            nest.kill(how);
        }
        self.life.lock().take();
    }

    /// The tasks of the run.
    pub fn nest(&self) -> Option<Arc<Nest>> {
        self.nest.lock().clone()
    }

    /// SIGTERM: drain, end all work, die.
    pub async fn stop(&self) {
        let Some(life) = self.life() else { return };
        note!(self.simulation, "{:x} drains", life.nest.incarnation);
        let daemon = &life.daemon;
        let ending = async {
            let timeout = Duration::from_secs(5);
            drain(&daemon.closing, &daemon.runtime.clock, timeout).await;
            self.close_door(&life);
            daemon.runtime.tasks.shut_down().await;
        };
        let _ = tokio::time::timeout(STOP_PATIENCE, ending).await;
        life.nest.kill("after draining");
    }

    /// This run takes no more requests; a later one may.
    fn close_door(&self, of: &Arc<Life>) {
        let mut life = self.life.lock();
        if life.as_ref().is_some_and(|life| Arc::ptr_eq(life, of)) {
            life.take();
        }
    }

    /// Waits until a run serves.
    pub async fn serves(&self) -> Arc<Life> {
        loop {
            if let Some(life) = self.life() {
                return life;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs whose memory is still there, the current one left out.
    pub fn undead(&self) -> usize {
        let current = self.life().map(|life| Arc::downgrade(&life.daemon.metrics));
        let remains = self.remains.lock();
        let others = remains.iter().filter(|one| {
            one.strong_count() > 0 && !current.as_ref().is_some_and(|c| c.ptr_eq(one))
        });
        others.count()
    }
}
