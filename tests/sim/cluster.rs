//! Daemons, base directories and the network of one world, as all who act in it hold them.

use std::sync::Arc;
use std::time::Duration;

use crate::chance::Chance;
use crate::client::{Client, Trouble};
use crate::host::{Blueprint, Host};
use crate::net::Net;
use crate::plan::Plan;
use crate::simulation::Simulation;
use crate::store::Site;
use crate::tap::Tap;

#[derive(Clone)]
pub struct Cluster {
    pub simulation: Arc<Simulation>,
    pub plan: Arc<Plan>,
    pub client: Client,
    pub net: Arc<Net>,
    pub hosts: Arc<Vec<Arc<Host>>>,
    pub sites: Arc<Vec<Arc<Site>>>,
    tap: Option<Arc<Tap>>,
}

impl Cluster {
    pub fn new(simulation: &Arc<Simulation>, plan: Plan) -> Self {
        Self::tapped(simulation, plan, None)
    }

    /// A cluster in which a daemon can be ended at one of its storage calls.
    pub fn tapped(simulation: &Arc<Simulation>, plan: Plan, tap: Option<Arc<Tap>>) -> Self {
        let sites: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(&plan.sites)
            .map(|(name, local)| Site::new(name, *local, plan.store.clone(), simulation))
            .collect();
        let blueprint = Arc::new(Blueprint {
            config: plan.config.clone(),
            limits: plan.limits,
            sites: sites.clone(),
            shuffle: plan.shuffle,
            tap: tap.clone(),
        });
        let hosts = (0..plan.hosts).map(|index| Host::new(simulation, &blueprint, index));
        let net = Net::new(simulation, plan.hosts, plan.net.clone());
        Self {
            simulation: Arc::clone(simulation),
            client: Client {
                simulation: Arc::clone(simulation),
                net: Arc::clone(&net),
            },
            net,
            hosts: Arc::new(hosts.collect()),
            sites: Arc::new(sites),
            tap,
            plan: Arc::new(plan),
        }
    }

    pub fn any_host(&self, chance: &Chance) -> Arc<Host> {
        Arc::clone(chance.pick(&self.hosts))
    }

    /// All that lies in any base directory, but for what keeps folders.
    pub fn leftovers(&self) -> Vec<String> {
        let files = self.tap.iter().flat_map(|tap| tap.leftovers());
        let sites = self
            .sites
            .iter()
            .flat_map(|site| site.disk.lock().leftovers());
        sites.chain(files).collect()
    }

    pub fn lives(&self, exchange: &str) -> bool {
        self.simulation.history.lock().lives(exchange)
    }

    /// Judges an answer that is not a good one: some may never come while the exchange lives.
    pub fn judge(&self, exchange: &str, trouble: &Trouble, never: &[&str]) {
        let Trouble::Problem { slug, .. } = trouble else {
            return;
        };
        let damage = slug == "data-corrupt" && self.plan.store.damages == 0;
        if self.lives(exchange) && (damage || never.contains(&slug.as_str())) {
            self.simulation.violate(format_args!(
                "promise 1: {slug} for {exchange}, which lives"
            ));
        }
    }

    /// Nothing goes wrong any more, and every daemon serves.
    pub async fn heal(&self) {
        self.fair_weather();
        for host in self.hosts.iter() {
            host.serves().await;
        }
    }

    fn fair_weather(&self) {
        *self.net.weather.lock() = self.plan.net.calm();
        self.net.join();
        for site in self.sites.iter() {
            *site.weather.lock() = self.plan.store.calm();
            *site.outage.lock() = None;
        }
        for nest in self.hosts.iter().filter_map(|host| host.nest()) {
            nest.spare();
            nest.thaw();
        }
    }

    /// Things go wrong again.
    pub fn foul_weather(&self) {
        *self.net.weather.lock() = self.plan.net.clone();
        for site in self.sites.iter() {
            *site.weather.lock() = self.plan.store.clone();
        }
    }
}

/// The pause before try number `n`.
pub async fn pause(chance: &Chance, n: u32) {
    let most = 200 << n.min(4);
    tokio::time::sleep(chance.millis(20, most)).await;
}

pub async fn sleep_millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
