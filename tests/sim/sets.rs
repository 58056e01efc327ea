//! Exchanges announced while a base directory is out of order, and sets on which daemons disagree.
//!
//! To add one: a test that announces [`Y`] after [`out_of_order`], and says what is true of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::announcing::{Y, announce_new, close, confirm, objects, write};
use crate::client::RequestError;
use crate::cluster::{Cluster, sleep_millis};
use crate::net::ReadBehaviour;
use crate::plan::{ANNOUNCEMENT, LEASE, Plan};
use crate::regressions::{in_a_quiet_world, in_a_world};
use crate::store::{Outage, OutageKind};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(36_000);

/// The ways in which a base directory is out of order.
const KINDS: [OutageKind; 7] = [
    OutageKind::Fails,
    OutageKind::Silent,
    OutageKind::Hangs,
    OutageKind::Full,
    OutageKind::Half,
    OutageKind::Denied,
    OutageKind::ReadOnly,
];

/// A base directory fails from now on, and all daemons know.
async fn out_of_order(cluster: &Cluster, site: usize, kind: OutageKind) {
    fails(cluster, site, kind);
    probe(cluster).await;
}

/// A base directory fails from now on; nobody knows yet.
fn fails(cluster: &Cluster, site: usize, kind: OutageKind) {
    let end = Instant::now() + FOR_EVER;
    *cluster.sites[site].outage.lock() = Some(Outage { end, kind });
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
    for kind in KINDS {
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

/// Repeats a request as the plugin does; fails if it goes on failing.
async fn eventually<T>(what: &str, mut request: impl AsyncFnMut() -> Result<T, RequestError>) -> T {
    for _ in 0..20 {
        match request().await {
            Ok(done) => return done,
            Err(error) => assert!(error.retryable(), "{what}: {error:?}"),
        }
        sleep_millis(500).await;
    }
    panic!("{what} never succeeds");
}

#[test]
fn an_exchange_that_is_the_first_to_meet_a_base_directory_out_of_order_waits_for_it_once() {
    // A plan waited until the list of one that hung had timed out: longer than its client waits,
    // and twice.
    for kind in KINDS {
        in_a_quiet_world(3, 3, |cluster| async move {
            fails(&cluster, 1, kind);
            let start = Instant::now();
            announce_new(&cluster, 0).await;
            eventually("confirm", async || confirm(&cluster, 0).await).await;
            for (host, task) in [(1, 0), (2, 1), (1, 2)] {
                eventually("write", async || write(&cluster, host, task).await).await;
            }
            let pages = eventually("read", async || read(&cluster, 0, &[0, 1, 2]).await);
            assert_eq!(pages.await, 6, "{kind:?}");
            if kind == OutageKind::Denied {
                // Somebody has to grant the permission first: it is in the set.
                close(&cluster, 2).await.unwrap_err();
            } else {
                eventually("close", async || close(&cluster, 2).await).await;
            }
            let elapsed = start.elapsed();
            assert!(elapsed < Duration::from_secs(10), "{kind:?}: {elapsed:?}");
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

/// Announces an exchange, and writes some of it into both base directories.
async fn announce_and_write(cluster: &Cluster) {
    announce_new(cluster, 0).await;
    confirm(cluster, 0).await.unwrap();
    for task in 0..4 {
        write(cluster, 0, task).await.unwrap();
    }
}

#[test]
fn a_close_does_not_wait_for_a_member_that_is_away_and_is_completed_when_it_is_back() {
    // It failed after a minute of retries, for each exchange that was open when a base directory
    // vanished, and what was left stayed for a lease after the return.
    for kind in [OutageKind::Fails, OutageKind::Silent, OutageKind::Hangs] {
        in_a_quiet_world(2, 2, |cluster| async move {
            announce_and_write(&cluster).await;
            out_of_order(&cluster, 1, kind).await;
            let start = Instant::now();
            close(&cluster, 0).await.unwrap();
            let elapsed = start.elapsed();
            assert!(elapsed < Duration::from_secs(8), "{kind:?}: {elapsed:?}");
            let late = write(&cluster, 0, 9).await.unwrap_err();
            assert!(late.is("exchange-closed"), "{late:?}");
            tokio::time::sleep(LEASE * 2).await;
            in_order(&cluster, 1).await;
            sleep_millis(10_000).await;
            assert_eq!(objects(&cluster, ""), [""; 0], "{kind:?}");
        });
    }
}

#[test]
fn what_a_daemon_was_to_remove_when_it_died_the_sweeper_collects_after_a_lease() {
    in_a_quiet_world(2, 2, |cluster| async move {
        announce_and_write(&cluster).await;
        out_of_order(&cluster, 1, OutageKind::Fails).await;
        close(&cluster, 0).await.unwrap();
        cluster.hosts[0].kill("before it could complete the close");
        tokio::time::sleep(LEASE).await;
        in_order(&cluster, 1).await;
        tokio::time::sleep(LEASE * 3).await;
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}

#[test]
fn a_member_that_is_away_does_not_end_the_lease_of_an_exchange_whether_it_has_the_marker_or_not() {
    for has_marker in [false, true] {
        in_a_quiet_world(2, 2, |cluster| async move {
            announce_and_write(&cluster).await;
            let marked = |site: &usize| {
                let mut found = cluster.sites[*site].disk.lock().leftovers();
                found.retain(|key| key.contains(Y) && key.contains("markers"));
                !found.is_empty()
            };
            let site = (0..2).find(|site| marked(site) == has_marker).unwrap();
            out_of_order(&cluster, site, OutageKind::Fails).await;
            for _ in 0..12 {
                // Where the marker cannot be read, no time counts for the sweeper either.
                assert_eq!(renew(&cluster, 1).await.is_ok(), !has_marker);
                tokio::time::sleep(LEASE / 3).await;
            }
            in_order(&cluster, site).await;
            tokio::time::sleep(LEASE / 3).await;
            assert_eq!(renew(&cluster, 1).await, Ok(false));
            assert_eq!(read(&cluster, 1, &[0, 1, 2, 3]).await, Ok(8));
        });
    }
}

/// The daemon that sweeps now, once there is one, and another one.
async fn sweeper_and_other(cluster: &Cluster) -> (usize, usize) {
    loop {
        for (index, host) in cluster.hosts.iter().enumerate() {
            let run = host.wait_until_serving().await;
            if run.daemon.metrics.sweeper.get() == 1 {
                return (index, (index + 1) % cluster.hosts.len());
            }
        }
        sleep_millis(500).await;
    }
}

#[test]
fn a_marker_of_another_announcement_outside_the_known_set_is_collected() {
    // An exchange was announced in `a`, and again through a daemon that could reach only `b` (the
    // first answer was lost). That daemon took the sweep over: it knew the lease from the digest
    // and so read no marker, and the set `b` from its own announcement. It judged both markers,
    // claimed and removed the one in `b`, and never looked at the one in `a` again.
    in_a_quiet_world(2, 2, |cluster| async move {
        let (sweeper, other) = sweeper_and_other(&cluster).await;
        out_of_order(&cluster, 1, OutageKind::Fails).await;
        announce_new(&cluster, sweeper).await;
        confirm(&cluster, sweeper).await.unwrap();
        in_order(&cluster, 1).await;
        out_of_order(&cluster, 0, OutageKind::Fails).await;
        announce_undescribed(&cluster, other).await.unwrap_err();
        announce_undescribed(&cluster, other).await.unwrap();
        in_order(&cluster, 0).await;
        assert_eq!(
            (stored_in(&cluster, 0), stored_in(&cluster, 1)),
            (1, 1),
            "a marker of each announcement"
        );
        // The sweeper tells the lease, and is replaced.
        sleep_millis(10_000).await;
        let run = cluster.hosts[sweeper].wait_until_serving().await;
        for site in cluster.sites.iter() {
            site.cut_off(run.process.incarnation, FOR_EVER);
        }
        cluster.simulation.history.lock().exchange(Y).closing = true;
        tokio::time::sleep(LEASE * 4).await;
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}

#[test]
fn an_announcement_that_fails_over_stays_in_the_set_that_its_marker_names() {
    // Its set was `a`, since `b` was out of order. The put into `a` took effect without an answer,
    // so that it was tried in `b` as well, which worked again. The marker there named a set in
    // which it was not: whoever read it never looked at it again, and it was never collected.
    in_a_quiet_world(1, 2, |cluster| async move {
        cluster.simulation.history.lock().add_exchange(Y, 2, false);
        let first = preferred(&cluster).await;
        out_of_order(&cluster, 1 - first, OutageKind::Fails).await;
        *cluster.sites[1 - first].outage.lock() = None;
        let end = Instant::now() + FOR_EVER;
        let kind = OutageKind::Silent;
        *cluster.sites[first].outage.lock() = Some(Outage { end, kind });
        announce_undescribed(&cluster, 0).await.unwrap_err();
        in_order(&cluster, first).await;
        assert_eq!(announce_undescribed(&cluster, 0).await, Ok(false));
        let stored = [first, 1 - first].map(|site| stored_in(&cluster, site));
        assert_eq!(stored, [1, 0]);
    });
}

#[test]
fn a_renewal_through_a_daemon_that_does_not_know_the_set_stays_in_it() {
    // `a` was full, so a daemon that had read the marker there renewed it in `b`. The set that the
    // marker names is `a`: nobody else looked for the renewal in `b`, and nobody collected it.
    in_a_quiet_world(2, 2, |cluster| async move {
        announce_in_the_first_alone(&cluster).await;
        cluster.net.forget(Y);
        let end = Instant::now() + FOR_EVER;
        let kind = OutageKind::Full;
        *cluster.sites[0].outage.lock() = Some(Outage { end, kind });
        renew(&cluster, 1).await.unwrap_err();
        assert_eq!(stored_in(&cluster, 1), 0);
        in_order(&cluster, 0).await;
        cluster.net.forget(Y);
        assert_eq!(renew(&cluster, 1).await, Ok(false));
        close(&cluster, 1).await.unwrap();
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}

#[test]
fn a_close_leaves_no_tombstone_where_the_put_of_a_marker_was_rejected() {
    // Wherever a marker could not be put, for whatever reason, the close put a tombstone that the
    // sweeper removed two minutes later, though such a put cannot be applied any more.
    for (kind, local) in [
        (OutageKind::Full, false),
        (OutageKind::ReadOnly, false),
        (OutageKind::Full, true),
        (OutageKind::Fails, true),
    ] {
        let mut plan = Plan::quiet(1, 2);
        plan.sites = vec![local; 2];
        in_a_world(plan, None, |cluster| async move {
            cluster.simulation.history.lock().add_exchange(Y, 2, false);
            let first = preferred(&cluster).await;
            fails(&cluster, first, kind);
            announce_new(&cluster, 0).await;
            eventually("confirm", async || confirm(&cluster, 0).await).await;
            assert_eq!(stored_in(&cluster, 1 - first), 1, "{kind:?}");
            in_order(&cluster, first).await;
            close(&cluster, 0).await.unwrap();
            assert_eq!(objects(&cluster, ""), [""; 0], "{kind:?}");
        });
    }
}

/// The base directory into which the marker of [`Y`] goes first.
async fn preferred(cluster: &Cluster) -> usize {
    let run = cluster.hosts[0].wait_until_serving().await;
    let storage = &run.daemon.storage;
    let set = storage.in_order(&Y.parse().unwrap()).await.unwrap();
    let identities = storage.identities();
    let first = identities.iter().position(|(_, identity)| {
        let identity = identity.as_ref();
        identity.is_some_and(|identity| identity.id == set[0])
    });
    first.unwrap()
}

/// Announces as a client that has no descriptor.
async fn announce_undescribed(cluster: &Cluster, host: usize) -> Result<bool, RequestError> {
    cluster.net.forget(Y);
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    client.announce(host, Y, (2, false), false).await.result
}
