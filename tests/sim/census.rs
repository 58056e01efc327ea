//! A census of the requests that an idle fleet sends in one hour, by kind.
//!
//! Does: run fleets with open exchanges and no pages, in virtual time, and compare the number of
//! their requests with a budget. Does not: count renewals (they are written past the daemons).
//! Invariant: nothing in the budget is multiplied by both daemons and exchanges.
//!
//! The largest fleets take minutes: `cargo test --test sim census -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::time::Duration;

use stopover::exchange::{Announce, ExchangeSpec};
use stopover::store::keys;

use crate::cluster::Cluster;
use crate::history::History;
use crate::plan::Plan;
use crate::simulation::Simulation;

const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(900);
const SITES: usize = 2;

/// Requests of all kinds.
type Requests = BTreeMap<&'static str, u64>;

fn plan(daemons: usize) -> Plan {
    let mut plan = Plan::quiet(daemons, SITES);
    plan.config.lease.duration = LEASE;
    plan.config.lease.sweep_interval = Duration::from_secs(60);
    plan.leases = vec![LEASE; daemons];
    plan.limits.concurrency = 64;
    plan
}

fn requests(cluster: &Cluster) -> Requests {
    let mut all = Requests::new();
    for site in cluster.sites.iter() {
        for (kind, count) in site.requests.lock().iter() {
            *all.entry(kind).or_default() += count;
        }
    }
    all
}

/// What an idle fleet sends in one hour, after `exchanges` were announced; its sweeper is killed
/// in the middle.
async fn one_hour(cluster: &Cluster, exchanges: u64) -> Requests {
    for host in cluster.hosts.iter() {
        cluster.simulation.spawn(host.clone().supervise());
    }
    for host in cluster.hosts.iter() {
        host.wait_until_serving().await;
    }
    let spec = ExchangeSpec {
        partitions: 50,
        ordered: false,
    };
    let run = cluster.hosts[0].wait_until_serving().await;
    let mut markers = Vec::new();
    for number in 0..exchanges {
        let id = format!("20261128_{number:06}_00001_abcde-{number:032x}");
        let id = id.parse().unwrap();
        let announced = run
            .daemon
            .exchanges
            .announce(&id, spec.clone(), Announce::CreateOrRenew);
        announced.await.unwrap();
        markers.push(keys::marker(&id));
    }
    drop(run);
    let before = requests(cluster);
    for fifth in 0..12 {
        if fifth == 6 {
            for host in cluster.hosts.iter() {
                let run = host.current_run();
                if run.is_some_and(|run| run.daemon.metrics.sweeper.get() == 1) {
                    host.kill("while it sweeps");
                }
            }
        }
        // Renewals: a write of a marker has a version of its own.
        for site in cluster.sites.iter() {
            let mut disk = site.disk.lock();
            for marker in &markers {
                if let Ok(found) = disk.get_versioned(marker) {
                    disk.put(marker, found.bytes);
                }
            }
        }
        tokio::time::sleep(HOUR / 12).await;
    }
    let after = requests(cluster);
    let left = cluster.leftovers().len() as u64;
    assert_eq!(left, exchanges, "no exchange has ended");
    let since = after.iter().map(|(kind, count)| {
        let before = before.get(kind).copied().unwrap_or(0);
        (*kind, count - before)
    });
    since.collect()
}

fn census(daemons: usize, exchanges: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let counted = runtime.block_on(async {
        let simulation = Simulation::new(0, History::new(LEASE), None, false);
        let cluster = Cluster::new(&simulation, plan(daemons));
        let counted = one_hour(&cluster, exchanges).await;
        assert_eq!(simulation.report().violation, None);
        counted
    });
    println!("{daemons:4} daemons {exchanges:5} exchanges {counted:?}");
    check(daemons as u64, exchanges, &counted);
}

/// D GET and B·(2·E/1,000 + 4) LIST a minute. Besides: the markers of all exchanges are read once
/// for each takeover at most, each daemon compares its base directories with the fleet's when it
/// starts, and the daemon that sweeps does so with each sweep.
fn check(daemons: u64, exchanges: u64, counted: &Requests) {
    let (minutes, sites) = (60, SITES as u64);
    let of = |kind| counted.get(kind).copied().unwrap_or(0);
    let starts = (daemons + 1) * sites * 16;
    let compared = minutes * 2 * sites * 16 / 15;
    let gets = minutes * daemons + exchanges + compared + starts;
    assert!(of("get") <= gets, "{} GET, {gets} allowed", of("get"));
    let lists = minutes * sites * (2 * exchanges + 4_000) / 1_000;
    assert!(of("list") <= lists, "{} LIST, {lists} allowed", of("list"));
    let puts = minutes * 2 + sites * 16;
    assert!(of("put") <= puts, "{} PUT, {puts} allowed", of("put"));
    assert!(of("delete") <= sites * 16, "{} DELETE", of("delete"));
}

#[test]
fn the_requests_of_an_idle_fleet_do_not_grow_with_daemons_times_exchanges() {
    for (daemons, exchanges) in [(1, 50), (1, 800), (8, 800), (32, 50), (200, 50), (1, 5_000)] {
        census(daemons, exchanges);
    }
}

#[test]
#[ignore = "takes minutes"]
fn the_census_of_the_largest_fleets() {
    for daemons in [1, 8, 32, 200] {
        for exchanges in [50, 800, 5_000] {
            census(daemons, exchanges);
        }
    }
}
