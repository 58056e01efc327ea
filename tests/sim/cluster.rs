//! The daemons, base directories and network of one world, shared by all of its actors.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::{Client, RequestError};
use crate::crash_point::CrashPoint;
use crate::host::{Blueprint, Host};
use crate::net::Net;
use crate::plan::{LEASE, Plan};
use crate::rng::Rng;
use crate::simulation::Simulation;
use crate::store::Site;

#[derive(Clone)]
pub struct Cluster {
    pub simulation: Arc<Simulation>,
    pub plan: Arc<Plan>,
    pub client: Client,
    pub net: Arc<Net>,
    pub hosts: Arc<Vec<Arc<Host>>>,
    /// A daemon that no client knows, without the last base directory.
    pub stranger: Option<Arc<Host>>,
    pub sites: Arc<Vec<Arc<Site>>>,
    crash_point: Option<Arc<CrashPoint>>,
}

impl Cluster {
    pub fn new(simulation: &Arc<Simulation>, plan: Plan) -> Self {
        Self::with_crash_point(simulation, plan, None)
    }

    /// A cluster in which a daemon can be killed at one of its storage calls.
    pub fn with_crash_point(
        simulation: &Arc<Simulation>,
        plan: Plan,
        crash_point: Option<Arc<CrashPoint>>,
    ) -> Self {
        let sites: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(&plan.sites)
            .map(|(name, local)| Site::new(name, *local, plan.store.clone(), simulation))
            .collect();
        for (number, site) in (1..).zip(&sites) {
            site.private_digests
                .store(plan.all_sweep, Ordering::Relaxed);
            if plan.is_initialized() {
                site.disk.lock().init(&site.name, number);
            }
        }
        let blueprint = Arc::new(Blueprint {
            config: plan.config.clone(),
            leases: plan.leases.clone(),
            limits: plan.limits,
            sites: sites.clone(),
            known_sites: plan.known_sites.clone(),
            initialized: plan.is_initialized(),
            yield_per_mille: plan.yield_per_mille,
            crash_point: crash_point.clone(),
        });
        let hosts = (0..plan.hosts).map(|index| Host::new(simulation, &blueprint, index));
        let stranger = (plan.has_stranger && sites.len() > 1).then(|| {
            simulation.count("a daemon without one of the base directories");
            Host::stranger(simulation, &blueprint, plan.hosts)
        });
        let net = Net::new(simulation, plan.hosts, plan.net.clone());
        Self {
            simulation: Arc::clone(simulation),
            client: Client {
                simulation: Arc::clone(simulation),
                net: Arc::clone(&net),
            },
            net,
            hosts: Arc::new(hosts.collect()),
            stranger,
            sites: Arc::new(sites),
            crash_point,
            plan: Arc::new(plan),
        }
    }

    pub fn any_host(&self, rng: &Rng) -> Arc<Host> {
        Arc::clone(rng.pick(&self.hosts))
    }

    /// All objects and files in any base directory, except `.keep` files.
    pub fn leftovers(&self) -> Vec<String> {
        let files = self
            .crash_point
            .iter()
            .flat_map(|crash_point| crash_point.leftovers());
        let sites = self
            .sites
            .iter()
            .flat_map(|site| site.disk.lock().leftovers());
        sites.chain(files).collect()
    }

    /// Time after which nothing of an ended exchange may be left.
    pub fn grace(&self) -> Duration {
        let longest = self.plan.leases.iter().copied().max();
        longest.unwrap_or(LEASE) * 3
    }

    pub fn is_live(&self, exchange: &str) -> bool {
        self.simulation.history.lock().is_live(exchange)
    }

    /// Reports a violation if the error may not occur while the exchange is live.
    pub fn check_error(&self, exchange: &str, error: &RequestError, never: &[&str]) {
        let RequestError::Problem { problem_type, .. } = error else {
            return;
        };
        let unexplained_corruption =
            problem_type == "data-corrupt" && self.plan.store.corrupts == 0;
        if self.is_live(exchange)
            && (unexplained_corruption || never.contains(&problem_type.as_str()))
        {
            self.simulation.violate(format_args!(
                "promise 1: {problem_type} for the live exchange {exchange}"
            ));
        }
    }

    /// Stops all faults and waits until every daemon serves.
    pub async fn recover(&self) {
        self.stop_faults();
        for host in self.hosts.iter() {
            host.wait_until_serving().await;
        }
    }

    fn stop_faults(&self) {
        *self.net.faults.lock() = self.plan.net.without_faults();
        self.net.reconnect();
        for site in self.sites.iter() {
            *site.faults.lock() = self.plan.store.without_faults();
            *site.outage.lock() = None;
            site.reconnect();
            site.mount();
        }
        for process in self.hosts.iter().filter_map(|host| host.process()) {
            process.cancel_kill();
            process.thaw();
        }
    }

    /// Starts the faults of the plan again.
    pub fn resume_faults(&self) {
        *self.net.faults.lock() = self.plan.net.clone();
        for site in self.sites.iter() {
            *site.faults.lock() = self.plan.store.clone();
        }
    }
}

/// Pauses before try number `n`.
pub async fn pause(rng: &Rng, n: u32) {
    let most = 200 << n.min(4);
    tokio::time::sleep(rng.millis(20, most)).await;
}

pub async fn sleep_millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
