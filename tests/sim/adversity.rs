//! Long troubles of stores, one test each: a full disk, an unmounted one, a store that hangs, and
//! daemons with other leases.
//!
//! Worlds with random faults have these too. Here nothing else goes wrong, so that the outcome is
//! certain.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::cluster::{Cluster, sleep_millis};
use crate::plan::{LEASE, Plan};
use crate::regressions::{X, in_a_world, write};
use crate::store::{Outage, OutageKind};
use crate::wire::End;
use crate::writer::{AttemptOutcome, Writer};

/// A world with two daemons and these base directories: whether each is a file system.
fn plan(sites: &[bool]) -> Plan {
    let mut plan = Plan::quiet(2, sites.len());
    plan.sites = sites.to_vec();
    plan
}

fn start_outage(cluster: &Cluster, site: usize, kind: OutageKind, duration: Duration) -> Instant {
    let end = Instant::now() + duration;
    *cluster.sites[site].outage.lock() = Some(Outage { end, kind });
    end
}

/// Renews at the first daemon, three times a lease, until then; returns how often it was refused.
async fn renew_until(cluster: &Cluster, end: Instant) -> usize {
    let mut refused = 0;
    loop {
        let host = &cluster.hosts[0];
        let renewed = cluster.client.announce(host, X, (2, false), true).await;
        refused += usize::from(renewed.result.is_err());
        let lease = cluster.simulation.history.lock().exchange(X).lease;
        let next = Instant::now() + lease / 3;
        if next > end {
            return refused;
        }
        tokio::time::sleep_until(next).await;
    }
}

async fn assert_whole(cluster: &Cluster, pages: usize) {
    for host in cluster.hosts.iter() {
        let read = cluster.client.partition(host, X, 0).await.unwrap();
        assert_eq!((read.pages.len(), read.end), (pages, End::Complete));
    }
}

#[test]
fn an_exchange_that_could_not_be_renewed_since_the_disk_was_full_is_not_collected() {
    // An idle daemon had not noticed that the disk was full, so it counted the time in which no
    // renewal could be written. Without a probe of the base directories it collected the exchange
    // in the moment when there was space again, before the coordinator's next renewal.
    for local in [true, false] {
        in_a_world(plan(&[local]), None, |cluster| async move {
            write(&cluster, 0, 0).await;
            let end = start_outage(&cluster, 0, OutageKind::Full, LEASE * 2);
            let refused = renew_until(&cluster, end).await;
            assert!(refused >= 3, "{refused} renewals refused");
            tokio::time::sleep_until(end).await;
            // A coordinator that renews every third of a lease may be that late.
            tokio::time::sleep(LEASE / 3).await;
            assert_whole(&cluster, 1).await;
            let host = &cluster.hosts[0];
            let renewed = cluster.client.announce(host, X, (2, false), true).await;
            assert_eq!(renewed.result, Ok(false));
        });
    }
}

#[test]
fn a_full_disk_can_be_emptied_by_closing_exchanges() {
    in_a_world(plan(&[true, true]), None, |cluster| async move {
        for task in 0..4 {
            write(&cluster, 0, task).await;
        }
        start_outage(&cluster, 0, OutageKind::Full, LEASE);
        // Another base directory takes what this one refuses.
        for task in 4..8 {
            write(&cluster, 0, task).await;
        }
        assert_whole(&cluster, 8).await;
        cluster.simulation.history.lock().exchange(X).closing = true;
        cluster.client.close(&cluster.hosts[1], X).await.unwrap();
        sleep_millis(2000).await;
        assert_eq!(cluster.leftovers(), [""; 0]);
    });
}

#[test]
fn an_unmounted_disk_is_no_empty_base_directory() {
    // The folder of a disk that was not mounted was there, and empty: exchanges looked closed,
    // their readers were told so, and what was written went below the mount point.
    in_a_world(plan(&[true]), None, |cluster| async move {
        write(&cluster, 0, 0).await;
        cluster.sites[0].unmount();
        let client = &cluster.client;
        for host in cluster.hosts.iter() {
            let error = client.partition(host, X, 0).await.unwrap_err();
            assert!(error.is("storage-unavailable"), "{error:?}");
        }
        let refused = renew_until(&cluster, Instant::now() + LEASE * 2).await;
        assert!(refused >= 3, "{refused} renewals refused");
        assert_eq!(cluster.leftovers(), [""; 0], "below the mount point");
        cluster.sites[0].mount();
        sleep_millis(10_000).await;
        assert_whole(&cluster, 1).await;
    });
}

#[test]
fn an_exchange_lives_as_long_as_its_own_lease_whatever_other_daemons_are_configured_with() {
    let mut plan = plan(&[false]);
    plan.leases = vec![LEASE * 3, LEASE / 3];
    in_a_world(plan, None, |cluster| async move {
        write(&cluster, 0, 0).await;
        let end = Instant::now() + LEASE * 6;
        assert_eq!(renew_until(&cluster, end).await, 0);
        assert_whole(&cluster, 1).await;
    });
}

#[test]
fn a_base_directory_that_hangs_stops_no_writer_while_another_works() {
    // A file system was frozen. Puts into it had no deadline, kept their slots, and with these all
    // uploads waited, although another base directory worked.
    for local in [true, false] {
        in_a_world(plan(&[local, local]), None, |cluster| async move {
            start_outage(&cluster, 1, OutageKind::Hangs, LEASE * 20);
            let writers = (0..12).map(|task| {
                let pages = vec![vec![(0, vec![b'a'; 300])]];
                let host = &cluster.hosts[0];
                let writer = Writer::with(&cluster, X, (task, 0), host, pages);
                tokio::time::timeout(LEASE * 4, writer.run())
            });
            let outcomes = join_all(writers).await;
            let finished = |outcome: &&Result<_, _>| **outcome == Ok(AttemptOutcome::Finished);
            assert_eq!(outcomes.iter().filter(finished).count(), 12);
        });
    }
}
