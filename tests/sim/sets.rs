//! Exchanges announced while a base directory is out of order, and sets on which daemons disagree.
//!
//! To add one: a test that announces [`Y`] after [`out_of_order`], and says what is true of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::announcing::{Y, announce_new, close, confirm, objects, write};
use crate::client::RequestError;
use crate::cluster::{Cluster, sleep_millis};
use crate::net::ReadBehaviour;
use crate::plan::{ANNOUNCEMENT, LEASE};
use crate::regressions::in_a_quiet_world;
use crate::store::{Outage, OutageKind};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(36_000);

/// A base directory fails from now on, and all daemons know.
async fn out_of_order(cluster: &Cluster, site: usize, kind: OutageKind) {
    let end = Instant::now() + FOR_EVER;
    *cluster.sites[site].outage.lock() = Some(Outage { end, kind });
    probe(cluster).await;
}

async fn in_order(cluster: &Cluster, site: usize) {
    *cluster.sites[site].outage.lock() = None;
    probe(cluster).await;
}

async fn probe(cluster: &Cluster) {
    for host in cluster.hosts.iter() {
        let run = host.wait_until_serving().await;
        run.daemon.storage.probe().await;
    }
}

async fn renew(cluster: &Cluster, host: usize) -> Result<bool, RequestError> {
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    client.announce(host, Y, (2, false), true).await.result
}

/// Plans and reads these tasks at a daemon; returns the number of pages.
async fn read(cluster: &Cluster, host: usize, tasks: &[u32]) -> Result<usize, RequestError> {
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    let chosen: Vec<_> = tasks.iter().map(|task| (*task, 0)).collect();
    let handles = client.handles(host, Y, &chosen, 1 << 20).await?;
    let mut pages = 0;
    for handle in handles {
        let read = client
            .read(host, &handle, 0, ReadBehaviour::default())
            .await?;
        pages += read.pages.len();
    }
    Ok(pages)
}

fn stored_in(cluster: &Cluster, site: usize) -> usize {
    let mut found = cluster.sites[site].disk.lock().leftovers();
    found.retain(|key| key.contains(Y));
    found.len()
}

/// Announces an exchange while only the first base directory works, and brings the others back.
async fn announce_in_the_first_alone(cluster: &Cluster) {
    for site in 1..cluster.sites.len() {
        out_of_order(cluster, site, OutageKind::Fails).await;
    }
    announce_new(cluster, 0).await;
    confirm(cluster, 0).await.unwrap();
    for site in 1..cluster.sites.len() {
        in_order(cluster, site).await;
    }
}

#[test]
fn an_exchange_announced_while_a_base_directory_is_out_of_order_never_waits_for_it() {
    // One base directory of several that could not be read stopped every new query for 150 s, and
    // then failed it.
    for kind in [
        OutageKind::Fails,
        OutageKind::Silent,
        OutageKind::Hangs,
        OutageKind::Full,
    ] {
        in_a_quiet_world(3, 3, |cluster| async move {
            out_of_order(&cluster, 1, kind).await;
            let start = Instant::now();
            announce_new(&cluster, 0).await;
            confirm(&cluster, 0).await.unwrap();
            for (host, task) in [(1, 0), (2, 1), (1, 2)] {
                write(&cluster, host, task).await.unwrap();
            }
            renew(&cluster, 2).await.unwrap();
            assert_eq!(read(&cluster, 0, &[0, 1, 2]).await, Ok(6));
            close(&cluster, 2).await.unwrap();
            let elapsed = start.elapsed();
            assert!(elapsed < Duration::from_secs(3), "{kind:?}: {elapsed:?}");
            assert_eq!(objects(&cluster, ""), [""; 0], "{kind:?}");
        });
    }
}

#[test]
fn a_base_directory_that_is_back_takes_part_again() {
    in_a_quiet_world(1, 2, |cluster| async move {
        out_of_order(&cluster, 1, OutageKind::Fails).await;
        in_order(&cluster, 1).await;
        announce_new(&cluster, 0).await;
        confirm(&cluster, 0).await.unwrap();
        for task in 0..4 {
            write(&cluster, 0, task).await.unwrap();
        }
        assert!(stored_in(&cluster, 0) >= 2 && stored_in(&cluster, 1) >= 2);
    });
}

#[test]
fn when_all_members_of_a_set_fail_new_segments_go_elsewhere_and_plans_find_them() {
    in_a_quiet_world(2, 2, |cluster| async move {
        announce_in_the_first_alone(&cluster).await;
        write(&cluster, 0, 0).await.unwrap();
        confirm(&cluster, 1).await.unwrap();
        out_of_order(&cluster, 0, OutageKind::Fails).await;
        write(&cluster, 0, 1).await.unwrap();
        assert_eq!(stored_in(&cluster, 1), 1, "outside the set");
        assert_eq!(read(&cluster, 1, &[1]).await, Ok(2));
        // What needs the one that fails says so.
        let refused = read(&cluster, 1, &[0, 1]).await.unwrap_err();
        assert!(refused.is("storage-unavailable"), "{refused:?}");
        in_order(&cluster, 0).await;
        assert_eq!(read(&cluster, 1, &[0, 1]).await, Ok(4));
        close(&cluster, 1).await.unwrap();
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}

#[test]
fn what_a_close_could_not_reach_outside_the_set_is_cleared_when_it_is_back() {
    in_a_quiet_world(2, 2, |cluster| async move {
        announce_in_the_first_alone(&cluster).await;
        out_of_order(&cluster, 0, OutageKind::Fails).await;
        write(&cluster, 0, 1).await.unwrap();
        in_order(&cluster, 0).await;
        out_of_order(&cluster, 1, OutageKind::Hangs).await;
        let start = Instant::now();
        close(&cluster, 1).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(stored_in(&cluster, 1), 1);
        in_order(&cluster, 1).await;
        tokio::time::sleep(LEASE * 2 + ANNOUNCEMENT * 2).await;
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}

#[test]
fn a_coordinator_that_cannot_reach_the_set_renews_through_a_daemon_that_can() {
    // Its own daemon reaches another base directory, and may not renew there: nobody looks for the
    // marker outside the set. The sweeper reaches the set all the time.
    in_a_quiet_world(2, 2, |cluster| async move {
        announce_in_the_first_alone(&cluster).await;
        let run = cluster.hosts[0]
            .wait_until_serving()
            .await
            .process
            .incarnation;
        cluster.sites[0].cut_off(run, FOR_EVER);
        write(&cluster, 0, 0).await.unwrap();
        assert_eq!(stored_in(&cluster, 1), 1, "outside the set");
        for _ in 0..12 {
            let refused = renew(&cluster, 0).await.unwrap_err();
            assert!(refused.is("storage-unavailable"), "{refused:?}");
            assert_eq!(renew(&cluster, 1).await, Ok(false));
            tokio::time::sleep(LEASE / 3).await;
        }
        assert_eq!(stored_in(&cluster, 1), 1);
        assert_eq!(read(&cluster, 1, &[0]).await, Ok(2));
        sleep_millis(1000).await;
        close(&cluster, 1).await.unwrap();
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}
