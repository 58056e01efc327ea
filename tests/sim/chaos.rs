//! What happens to daemons and base directories from outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::cluster::Cluster;
use crate::plan::{Event, LEASE};
use crate::simulation::note;
use crate::store::{Outage, Site};

/// Lets things happen until it is told to end.
pub async fn reign(cluster: Cluster, number: u64, until: CancellationToken) {
    let chance = Chance::new(cluster.simulation.seed, &format!("chaos {number}"));
    if cluster.plan.events.is_empty() {
        return;
    }
    for _ in 0..chance.between(1, 6) {
        tokio::time::sleep(chance.millis(50, 8000)).await;
        if until.is_cancelled() {
            return;
        }
        happen(&cluster, *chance.pick(&cluster.plan.events), &chance);
    }
}

fn happen(cluster: &Cluster, event: Event, chance: &Chance) {
    let host = cluster.any_host(chance);
    note!(cluster.simulation, "event {event:?} at host {}", host.index);
    match event {
        Event::Kill => {
            cluster.simulation.count("a daemon killed");
            host.kill("now");
        }
        Event::KillAtAwait => {
            if let Some(nest) = host.nest() {
                nest.kill_after_polls(chance.between(1, 400));
            }
        }
        Event::Stop => {
            cluster.simulation.count("a daemon drained");
            cluster.simulation.spawn(async move { host.stop().await });
        }
        Event::Freeze => freeze(cluster, &host, chance.millis(100, 8000)),
        Event::FreezeLong => freeze(
            cluster,
            &host,
            LEASE.mul_f64(chance.between(50, 140) as f64 / 100.0),
        ),
        Event::CutOff => cluster.net.cut_off(host.index, chance.millis(100, 6000)),
        Event::Outage => {
            let site = chance.pick(&cluster.sites);
            fail(site, chance.millis(100, 12_000), false);
        }
        Event::Mute => {
            cluster.simulation.count("stores that do not answer");
            let duration = chance.millis(2000, 15_000);
            cluster
                .sites
                .iter()
                .for_each(|site| fail(site, duration, true));
        }
        Event::OutageLong => {
            cluster.simulation.count("an outage longer than a lease");
            for site in cluster.sites.iter() {
                fail(site, LEASE + Duration::from_secs(4), false);
            }
        }
    }
}

fn fail(site: &Site, duration: Duration, mute: bool) {
    let end = Instant::now() + duration;
    *site.outage.lock() = Some(Outage { end, mute });
}

fn freeze(cluster: &Cluster, host: &Arc<crate::host::Host>, duration: Duration) {
    let Some(nest) = host.nest() else { return };
    cluster.simulation.count("a daemon frozen");
    cluster
        .simulation
        .spawn(async move { nest.freeze(duration).await });
}
