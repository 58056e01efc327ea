//! Who sweeps, and what happens to exchanges and to caches while that changes.
//!
//! Each test is a story of a few daemons, an exchange whose coordinator renews it and one whose
//! coordinator is dead. To add one: a world, what happens to the daemon that sweeps, and
//! `watch_until_collected`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stopover::storage::Digest;
use stopover::store::keys;
use tokio::time::Instant;

use crate::cluster::{Cluster, sleep_millis};
use crate::host::Host;
use crate::plan::{LEASE, Plan};
use crate::regressions::{X, in_a_world, some_pages, write};
use crate::store::{Outage, OutageKind};
use crate::wire::End;
use crate::world;

/// The exchange that nobody renews.
const DEAD: &str = "x1";
/// Longer than any daemon waits for one that has stopped sweeping.
const TAKEOVER: Duration = Duration::from_secs(24);

fn sweepers(cluster: &Cluster) -> Vec<Arc<Host>> {
    let sweeps = |host: &&Arc<Host>| {
        let run = host.current_run();
        run.is_some_and(|run| run.daemon.metrics.sweeper.get() == 1)
    };
    cluster.hosts.iter().filter(sweeps).cloned().collect()
}

/// Waits until some daemon sweeps.
async fn wait_for_sweeper(cluster: &Cluster) -> Arc<Host> {
    let deadline = Instant::now() + TAKEOVER;
    loop {
        if let Some(host) = sweepers(cluster).pop() {
            return host;
        }
        assert!(Instant::now() < deadline, "no daemon sweeps");
        sleep_millis(500).await;
    }
}

/// Announces the exchange that nobody renews, and writes to the one that is renewed.
async fn begin(cluster: &Cluster) -> Instant {
    write(cluster, 0, 0).await;
    let host = &cluster.hosts[0];
    let announced = cluster.client.announce(host, DEAD, (2, false), false).await;
    assert_eq!(announced.result, Ok(true));
    Instant::now()
}

fn marker_exists(cluster: &Cluster, exchange: &str) -> bool {
    let marker = keys::marker(&exchange.parse().unwrap());
    let mut disks = cluster.sites.iter().map(|site| site.disk.lock());
    disks.any(|disk| disk.get_versioned(&marker).is_ok())
}

async fn assert_live(cluster: &Cluster) {
    let known = &cluster.plan.known_sites;
    let knows_all = |host: &&Arc<Host>| known.get(host.index).is_none_or(|n| *n == 2);
    for host in cluster.hosts.iter().filter(knows_all) {
        host.wait_until_serving().await;
        let read = cluster.client.partition(host, X, 0).await.unwrap();
        assert_eq!((read.pages.len(), read.end), (1, End::Complete));
    }
}

/// Renews the live exchange until the other one was collected, which may not happen before its
/// lease has run out; `meanwhile` is called every two seconds.
async fn watch_until_collected<F: Future<Output = ()>>(
    cluster: &Cluster,
    announced: Instant,
    within: Duration,
    mut meanwhile: impl FnMut(u64) -> F,
) {
    let renewing = {
        let cluster = cluster.clone();
        cluster.simulation.clone().spawn(async move {
            for number in 0.. {
                let host = &cluster.hosts[number % cluster.hosts.len()];
                if host.current_run().is_some() {
                    let renew = cluster.client.announce(host, X, (2, false), true);
                    let _ = tokio::time::timeout(LEASE / 6, renew).await;
                }
                tokio::time::sleep(LEASE / 6).await;
            }
        })
    };
    let mut number = 0;
    while marker_exists(cluster, DEAD) {
        let elapsed = announced.elapsed();
        assert!(elapsed < within, "not collected within {elapsed:?}");
        meanwhile(number).await;
        number += 1;
        sleep_millis(2000).await;
    }
    let elapsed = announced.elapsed();
    assert!(elapsed >= LEASE, "collected after {elapsed:?}");
    assert_live(cluster).await;
    renewing.abort();
}

#[test]
fn a_fleet_has_one_sweeper_and_the_others_only_read_its_digest() {
    in_a_world(Plan::quiet(4, 2), None, |cluster| async move {
        wait_for_sweeper(&cluster).await;
        sleep_millis(8000).await;
        for _ in 0..30 {
            assert_eq!(sweepers(&cluster).len(), 1);
            sleep_millis(1000).await;
        }
    });
}

#[test]
fn what_a_killed_sweeper_has_watched_counts_for_the_next_one() {
    // Every sweeper lives for less than a lease. Each observed all exchanges from zero, so a dead
    // one was never collected.
    for local in [false, true] {
        let mut plan = Plan::quiet(3, 2);
        plan.sites = vec![local; 2];
        in_a_world(plan, None, |cluster| async move {
            let announced = begin(&cluster).await;
            let within = LEASE * 8;
            let kills = std::cell::Cell::new(0);
            watch_until_collected(&cluster, announced, within, async |number| {
                // Five seconds of sweeping at most, then a gap until another daemon takes over.
                if number % 4 == 3 {
                    let sweeping = sweepers(&cluster);
                    sweeping
                        .iter()
                        .for_each(|host| host.kill("while it sweeps"));
                    kills.set(kills.get() + sweeping.len());
                }
            })
            .await;
            assert!(kills.get() >= 3, "{} sweepers were killed", kills.get());
        });
    }
}

#[test]
fn handovers_every_few_seconds_stop_no_collection_and_end_no_live_exchange() {
    in_a_world(Plan::quiet(3, 1), None, |cluster| async move {
        let announced = begin(&cluster).await;
        let handovers = std::cell::Cell::new(0);
        watch_until_collected(&cluster, announced, LEASE * 8, async |number| {
            // Every ten seconds the digest says that nobody sweeps: the next daemon that reads it
            // takes the lease, and the one that had it finds out when it publishes.
            let mut disk = cluster.sites[0].disk.lock();
            let Ok(stored) = disk.get_versioned(&keys::sweeper()) else {
                return;
            };
            let digest = Digest::decode(&stored.bytes).unwrap();
            if number % 5 == 4 {
                let released = Digest {
                    holder: None,
                    number,
                    ..digest
                };
                disk.put(&keys::sweeper(), released.encode());
                handovers.set(handovers.get() + 1);
            }
        })
        .await;
        assert!(handovers.get() >= 3, "{}", handovers.get());
    });
}

#[test]
fn a_sweeper_that_is_paused_for_minutes_and_returns_does_no_harm() {
    in_a_world(Plan::quiet(3, 2), None, |cluster| async move {
        let announced = begin(&cluster).await;
        let first = wait_for_sweeper(&cluster).await;
        // Shortly before it would collect.
        tokio::time::sleep_until(announced + LEASE - Duration::from_secs(3)).await;
        let frozen = first.process().unwrap();
        let freezing = cluster.simulation.clone();
        freezing.spawn(async move { frozen.freeze(LEASE * 6).await });
        // Renewals go to the other daemons.
        let others: Vec<_> = cluster
            .hosts
            .iter()
            .filter(|host| host.index != first.index)
            .collect();
        let end = announced + LEASE * 8;
        let mut number = 0;
        while Instant::now() < end {
            let renewed = cluster
                .client
                .announce(others[number % 2], X, (2, false), true);
            assert_eq!(renewed.await.result, Ok(false));
            number += 1;
            tokio::time::sleep(LEASE / 3).await;
        }
        assert!(
            !marker_exists(&cluster, DEAD),
            "another daemon has collected it"
        );
        assert_live(&cluster).await;
        assert_eq!(sweepers(&cluster).len(), 1);
        assert_ne!(sweepers(&cluster)[0].index, first.index);
    });
}

#[test]
fn a_sweeper_that_can_no_longer_write_is_replaced() {
    in_a_world(Plan::quiet(3, 1), None, |cluster| async move {
        let announced = begin(&cluster).await;
        let first = wait_for_sweeper(&cluster).await;
        let run = first.process().unwrap().incarnation;
        cluster.sites[0].denied.lock().insert(run);
        watch_until_collected(&cluster, announced, LEASE * 4, async |_| {}).await;
        let second = wait_for_sweeper(&cluster).await;
        assert_ne!(first.index, second.index);
    });
}

#[test]
fn the_digest_moves_to_a_base_directory_that_accepts_it_and_back() {
    in_a_world(Plan::quiet(3, 2), None, |cluster| async move {
        begin(&cluster).await;
        let places = |cluster: &Cluster| -> Vec<bool> {
            let sites = cluster.sites.iter();
            let found = sites.map(|site| site.disk.lock().get_versioned(&keys::sweeper()).is_ok());
            found.collect()
        };
        wait_for_sweeper(&cluster).await;
        let before = places(&cluster);
        assert_eq!(
            before.iter().filter(|there| **there).count(),
            1,
            "{before:?}"
        );
        let full = before.iter().position(|there| *there).unwrap();
        let end = Instant::now() + LEASE;
        let kind = OutageKind::Full;
        *cluster.sites[full].outage.lock() = Some(Outage { end, kind });
        tokio::time::sleep_until(end - Duration::from_secs(1)).await;
        assert!(places(&cluster)[1 - full], "written elsewhere");
        assert_eq!(sweepers(&cluster).len(), 1);
        // The first place is tried again with each sweep.
        sleep_millis(40_000).await;
        assert_eq!(places(&cluster), before);
        assert_eq!(sweepers(&cluster).len(), 1);
    });
}

#[test]
fn a_daemon_that_lacks_a_base_directory_hands_over_the_lease_and_collects_nothing() {
    // The first daemon of a fleet sweeps, with the one base directory that it knows. Others are
    // configured with a second one, where the markers of live exchanges are.
    let mut plan = Plan::quiet(2, 2);
    plan.known_sites = vec![1, 2];
    in_a_world(plan, None, |cluster| async move {
        let knows_less = &cluster.hosts[0];
        let announced = begin_at(&cluster, 1).await;
        watch_until_collected(&cluster, announced, LEASE * 4, async |_| {
            let sweeping = sweepers(&cluster);
            let late = announced.elapsed() > TAKEOVER;
            assert!(!late || sweeping.iter().all(|host| host.index != knows_less.index));
        })
        .await;
        // Also while no other daemon is there.
        let other = cluster
            .client
            .announce(&cluster.hosts[1], "x2", (2, false), false);
        assert_eq!(other.await.result, Ok(true));
        let frozen = cluster.hosts[1].process().unwrap();
        frozen.freeze(LEASE * 5).await;
        assert!(marker_exists(&cluster, "x2"));
        assert!(
            knows_less
                .current_run()
                .is_some_and(|run| { run.daemon.storage.collection_obstacle().is_some() })
        );
    });
}

async fn begin_at(cluster: &Cluster, host: usize) -> Instant {
    write(cluster, host, 0).await;
    let host = &cluster.hosts[host];
    let announced = cluster.client.announce(host, DEAD, (2, false), false).await;
    assert_eq!(announced.result, Ok(true));
    Instant::now()
}

#[test]
fn a_digest_that_is_foreign_damaged_or_too_large_is_refused_and_does_no_harm() {
    let whole = Digest::default().encode();
    let damaged = whole.slice(..whole.len() - 3);
    let too_large = Bytes::from(vec![b'x'; (1 << 20) + 1]);
    for (what, replaced) in [
        (Bytes::from_static(b"notes of somebody else\n"), false),
        (too_large, false),
        (damaged, true),
    ] {
        in_a_world(Plan::quiet(2, 1), None, |cluster| async move {
            let announced = begin(&cluster).await;
            let put = |content: &Bytes| {
                let mut disk = cluster.sites[0].disk.lock();
                disk.put(&keys::sweeper(), content.clone());
            };
            put(&what);
            watch_until_collected(&cluster, announced, LEASE * 5, async |_| {}).await;
            let stored = cluster.sites[0].disk.lock();
            let stored = stored.get_versioned(&keys::sweeper()).unwrap();
            assert_eq!(stored.bytes != what, replaced);
            let runs = cluster.hosts.iter().filter_map(|host| host.current_run());
            let refused = runs.map(|run| run.daemon.metrics.digests_refused.get());
            assert!(refused.sum::<u64>() > 0);
        });
    }
}

#[test]
fn what_a_daemon_holds_of_a_closed_exchange_is_freed_within_two_minutes() {
    // With the default intervals, whenever it is closed between two sweeps.
    for step in 0..12 {
        let mut plan = Plan::quiet(4, 2);
        plan.config.lease.sweep_interval = Duration::from_secs(60);
        plan.config.lease.duration = Duration::from_secs(900);
        plan.leases = vec![Duration::from_secs(900); 4];
        in_a_world(plan, None, |cluster| async move {
            sleep_millis(150_000 + step * 5_000).await;
            let client = &cluster.client;
            // A sink of a worker that is dead, and copies of what others wrote.
            let pages = some_pages();
            let sent = client.pages(&cluster.hosts[1], X, (7, 0), 0, &pages);
            assert_eq!(sent.await.result, Ok(false));
            write(&cluster, 2, 0).await;
            client.partition(&cluster.hosts[3], X, 0).await.unwrap();
            cluster.simulation.history.lock().exchange(X).closing = true;
            client.close(&cluster.hosts[0], X).await.unwrap();
            let held = |cluster: &Cluster| -> i64 {
                let runs = cluster.hosts.iter().filter_map(|host| host.current_run());
                let held = runs.map(|run| {
                    let (daemon, metrics) = (&run.daemon, &run.daemon.metrics);
                    let cached = daemon.reader.cached_exchanges().len()
                        + daemon.catalog.cached_exchanges().len();
                    metrics.exchanges_with_sinks.get() + cached as i64
                });
                held.sum()
            };
            assert!(held(&cluster) >= 3, "{}", held(&cluster));
            sleep_millis(120_000).await;
            assert_eq!(held(&cluster), 0, "closed {step} steps after a sweep");
        });
    }
}

#[test]
fn daemons_that_all_believe_that_they_sweep_do_no_harm() {
    let broken = (0..24).filter_map(|seed| {
        let plan = Plan {
            all_sweep: true,
            ..Plan::of(seed)
        };
        let report = world::run_planned(seed, plan, None, false);
        report.violation.map(|violation| (seed, violation))
    });
    assert_eq!(broken.collect::<Vec<_>>(), []);
}
