//! Events that happen to daemons and base directories from outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::plan::{Event, LEASE};
use crate::rng::Rng;
use crate::simulation::note;
use crate::store::{Outage, OutageKind, Site};

/// Applies some random events, until cancelled.
pub async fn run(cluster: Cluster, number: u64, until: CancellationToken) {
    let rng = Rng::new(cluster.simulation.seed, &format!("chaos {number}"));
    if cluster.plan.events.is_empty() {
        return;
    }
    for _ in 0..rng.between(1, 6) {
        tokio::time::sleep(rng.millis(50, 8000)).await;
        if until.is_cancelled() {
            return;
        }
        apply(&cluster, *rng.pick(&cluster.plan.events), &rng);
    }
}

fn apply(cluster: &Cluster, event: Event, rng: &Rng) {
    let host = cluster.any_host(rng);
    note!(cluster.simulation, "event {event:?} at host {}", host.index);
    match event {
        Event::Kill => {
            cluster.simulation.count("a daemon killed");
            host.kill("now");
        }
        Event::KillAtAwait => {
            if let Some(process) = host.process() {
                process.kill_after_polls(rng.between(1, 400));
            }
        }
        Event::Stop => {
            cluster.simulation.count("a daemon drained");
            cluster.simulation.spawn(async move { host.stop().await });
        }
        Event::Freeze => freeze(cluster, &host, rng.millis(100, 8000)),
        Event::LongFreeze => freeze(
            cluster,
            &host,
            LEASE.mul_f64(rng.between(50, 140) as f64 / 100.0),
        ),
        Event::CutOff => cluster.net.cut_off(host.index, rng.millis(100, 6000)),
        Event::Outage => {
            let site = rng.pick(&cluster.sites);
            start_outage(site, rng.millis(100, 12_000), OutageKind::Fails);
        }
        Event::Vanish => {
            cluster.simulation.count("a base directory that vanishes");
            let site = rng.pick(&cluster.sites);
            start_outage(site, rng.millis(15_000, 60_000), OutageKind::Fails);
        }
        Event::Partition => {
            cluster
                .simulation
                .count("a daemon cut off from a base directory");
            let site = rng.pick(&cluster.sites);
            if let Some(process) = host.process() {
                site.cut_off(process.incarnation, rng.millis(2000, 60_000));
            }
        }
        Event::Hang => {
            cluster.simulation.count("a store that hangs");
            let site = rng.pick(&cluster.sites);
            start_outage(site, rng.millis(5000, 90_000), OutageKind::Hangs);
        }
        Event::FullDisk => {
            cluster.simulation.count("a full disk");
            let site = rng.pick(&cluster.sites);
            start_outage(site, rng.millis(2000, 60_000), OutageKind::Full);
        }
        Event::Unmount => unmount(cluster, rng),
        Event::Flaky => fail_half(cluster, rng),
        Event::SilentOutage => {
            cluster.simulation.count("stores that do not answer");
            let duration = rng.millis(2000, 15_000);
            cluster
                .sites
                .iter()
                .for_each(|site| start_outage(site, duration, OutageKind::Silent));
        }
        Event::LongOutage => {
            cluster.simulation.count("an outage longer than a lease");
            for site in cluster.sites.iter() {
                start_outage(site, LEASE + Duration::from_secs(4), OutageKind::Fails);
            }
        }
    }
}

fn start_outage(site: &Site, duration: Duration, kind: OutageKind) {
    let end = Instant::now() + duration;
    *site.outage.lock() = Some(Outage { end, kind });
}

fn fail_half(cluster: &Cluster, rng: &Rng) {
    let what = "a base directory that fails half of the time";
    cluster.simulation.count(what);
    let site = rng.pick(&cluster.sites);
    start_outage(site, rng.millis(5000, 60_000), OutageKind::Half);
}

fn unmount(cluster: &Cluster, rng: &Rng) {
    let local: Vec<_> = cluster.sites.iter().filter(|site| site.local).collect();
    if local.is_empty() {
        return;
    }
    cluster.simulation.count("a disk unmounted");
    let (site, duration) = (Arc::clone(*rng.pick(&local)), rng.millis(500, 60_000));
    site.unmount();
    cluster.simulation.spawn(async move {
        tokio::time::sleep(duration).await;
        site.mount();
    });
}

fn freeze(cluster: &Cluster, host: &Arc<crate::host::Host>, duration: Duration) {
    let Some(process) = host.process() else {
        return;
    };
    cluster.simulation.count("a daemon frozen");
    cluster
        .simulation
        .spawn(async move { process.freeze(duration).await });
}
