//! Announcements that were answered before their marker was written, and what may come between.
//!
//! To add one: a test that announces [`Y`] with `announce_new`, and says what must be true however
//! late the marker comes.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::client::RequestError;
use crate::cluster::{Cluster, sleep_millis};
use crate::crash_point::CrashPoint;
use crate::interleavings::{interleave, with_each_call_held};
use crate::plan::{ANNOUNCEMENT, LEASE};
use crate::regressions::{claim, in_a_quiet_world, some_pages};

pub const Y: &str = "y0";
const PROPERTIES: (u32, bool) = (2, false);

async fn send(cluster: &Cluster, host: usize, task: u32) -> Result<bool, RequestError> {
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    let sent = client.pages(host, Y, (task, 0), 0, &some_pages()).await;
    sent.result
}

async fn finish(cluster: &Cluster, host: usize, task: u32) -> Result<(), RequestError> {
    let (counts, checksum) = claim(&[some_pages()]);
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    let finished = client.finish(host, Y, (task, 0), counts, checksum).await;
    finished.result.map(drop)
}

pub async fn write(cluster: &Cluster, host: usize, task: u32) -> Result<(), RequestError> {
    send(cluster, host, task).await?;
    finish(cluster, host, task).await
}

pub async fn announce_new(cluster: &Cluster, host: usize) {
    cluster
        .simulation
        .history
        .lock()
        .add_exchange(Y, PROPERTIES.0, PROPERTIES.1);
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    let announced = client.announce_new(host, Y, PROPERTIES).await;
    assert_eq!(announced.result, Ok(true));
}

pub async fn confirm(cluster: &Cluster, host: usize) -> Result<(), RequestError> {
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    client.confirm(host, Y, PROPERTIES).await.result.map(drop)
}

pub async fn close(cluster: &Cluster, host: usize) -> Result<(), RequestError> {
    cluster.simulation.history.lock().exchange(Y).closing = true;
    cluster.client.close(&cluster.hosts[host], Y).await
}

/// The objects of the exchange whose names contain `part`.
pub fn objects(cluster: &Cluster, part: &str) -> Vec<String> {
    let mut found = cluster.leftovers();
    found.retain(|key| key.contains(Y) && key.contains(part));
    found
}

/// Announces at the first daemon, whose storage calls are held in turn, and waits for the marker.
async fn announcing(
    cluster: &Cluster,
    point: &CrashPoint,
    meanwhile: impl Future<Output = ()>,
) -> bool {
    let announcer = cluster.clone();
    let request = async move {
        announce_new(&announcer, 0).await;
        let _ = confirm(&announcer, 0).await;
    };
    interleave(point, request, meanwhile).await.1
}

#[test]
fn a_task_before_the_marker_is_acknowledged_only_after_it_and_nothing_of_it_is_removed() {
    // The marker's PUT was throttled for seconds while the first segment of the exchange's home had
    // landed: a daemon that finds no marker must not take the segment for an orphan.
    let calls = with_each_call_held(2, 1, |cluster, point: Arc<CrashPoint>| async move {
        let acknowledged = Arc::new(AtomicBool::new(false));
        let (told, home) = (Arc::clone(&acknowledged), cluster.clone());
        let meanwhile = async {
            send(&cluster, 1, 0).await.unwrap();
            let work = async move {
                finish(&home, 1, 0).await.unwrap();
                told.store(true, Ordering::Relaxed);
            };
            cluster.simulation.spawn(work);
            sleep_millis(8000).await;
            assert_eq!(objects(&cluster, ".seg").len(), 1, "{point:?}");
            let marked = !objects(&cluster, "markers").is_empty();
            assert_eq!(acknowledged.load(Ordering::Relaxed), marked, "{point:?}");
        };
        let reached = announcing(&cluster, &point, meanwhile).await;
        if reached {
            sleep_millis(4000).await;
            assert!(acknowledged.load(Ordering::Relaxed), "{point:?}");
            assert_eq!(objects(&cluster, ".seg").len(), 1, "{point:?}");
            confirm(&cluster, 1).await.unwrap();
        }
        reached
    });
    assert!(calls > 0, "an announcement without a storage call");
}

#[test]
fn a_close_that_overtakes_the_marker_leaves_nothing_and_the_exchange_stays_closed() {
    for closer in [0, 1] {
        with_each_call_held(2, 1, |cluster, point: Arc<CrashPoint>| async move {
            let meanwhile = async {
                send(&cluster, 1, 0).await.unwrap();
                close(&cluster, closer).await.unwrap();
            };
            let reached = announcing(&cluster, &point, meanwhile).await;
            if reached {
                // A daemon that saw it open just now finds out after its upload.
                let late = write(&cluster, 1, 1).await;
                let refused = late.is_err_and(|error| error.is("exchange-closed"));
                assert!(closer == 0 || refused, "{point:?}");
                tokio::time::sleep(ANNOUNCEMENT * 2).await;
                assert_eq!(objects(&cluster, ""), [""; 0], "{point:?}");
                let again = confirm(&cluster, closer).await.unwrap_err();
                assert!(again.is("exchange-closed"), "{again:?}");
            }
            reached
        });
    }
}

#[test]
fn an_announcement_repeated_through_a_daemon_with_another_view_writes_the_same_marker() {
    in_a_quiet_world(2, 3, |cluster| async move {
        // The first daemon can write only to `c`.
        let run = cluster.hosts[0].wait_until_serving().await;
        for site in &cluster.sites[..2] {
            site.denied.lock().insert(run.process.incarnation);
        }
        run.daemon.storage.probe().await;
        announce_new(&cluster, 0).await;
        for host in [1, 0, 1] {
            confirm(&cluster, host).await.unwrap();
            assert_eq!(objects(&cluster, "markers").len(), 1);
        }
        let (client, other) = (&cluster.client, &cluster.hosts[1]);
        let undescribed = client.announce(other, Y, PROPERTIES, false).await;
        assert_eq!(undescribed.result, Ok(false));
        assert_eq!(objects(&cluster, "markers").len(), 1);
        let marker = objects(&cluster, "markers").remove(0);
        let in_c = cluster.sites[2].disk.lock().leftovers();
        assert!(in_c.contains(&marker), "{marker} is elsewhere");
        write(&cluster, 0, 0).await.unwrap();
        write(&cluster, 1, 1).await.unwrap();
    });
}

#[test]
fn a_daemon_that_dies_before_it_has_written_the_marker_is_replaced_by_another() {
    with_each_call_held(2, 1, |cluster, point: Arc<CrashPoint>| async move {
        let meanwhile = async {
            let process = cluster.hosts[0].process().unwrap();
            process.kill("before it has written the marker");
            confirm(&cluster, 1).await.unwrap();
            write(&cluster, 1, 0).await.unwrap();
        };
        let reached = announcing(&cluster, &point, meanwhile).await;
        if reached {
            assert_eq!(objects(&cluster, "markers").len(), 1, "{point:?}");
        }
        reached
    });
}

#[test]
fn an_announcement_whose_answer_is_late_and_its_repetition_write_the_same_bytes_in_one_place() {
    // The first daemon sees only the last base directory, the other one all of them: without the
    // descriptor, it would put the marker into the first.
    let calls = with_each_call_held(2, 3, |cluster, point: Arc<CrashPoint>| async move {
        let run = cluster.hosts[0].wait_until_serving().await;
        for site in &cluster.sites[..2] {
            site.denied.lock().insert(run.process.incarnation);
        }
        run.daemon.storage.probe().await;
        let repeated = OnceCell::new();
        let meanwhile = async {
            confirm(&cluster, 1).await.unwrap();
            repeated.set(marker(&cluster)).unwrap();
        };
        let reached = announcing(&cluster, &point, meanwhile).await;
        if reached {
            let (place, ..) = repeated.get().unwrap();
            assert_eq!(*place, 2, "{point:?}");
            assert_eq!(Some(&marker(&cluster)), repeated.get(), "{point:?}");
            confirm(&cluster, 0).await.unwrap();
            assert_eq!(Some(&marker(&cluster)), repeated.get(), "{point:?}");
        }
        reached
    });
    assert!(calls > 0, "an announcement without a storage call");
}

/// The base directory, the key and the bytes of the only marker.
fn marker(cluster: &Cluster) -> (usize, String, Bytes) {
    let keys = objects(cluster, "markers");
    let [key] = &keys[..] else {
        panic!("not one marker: {keys:?}")
    };
    for (place, site) in cluster.sites.iter().enumerate() {
        if let Some(bytes) = site.disk.lock().content(key) {
            return (place, key.clone(), bytes);
        }
    }
    unreachable!("it was listed")
}

#[test]
fn an_exchange_whose_marker_is_never_written_ends_after_its_time_and_leaves_nothing() {
    in_a_quiet_world(2, 1, |cluster| async move {
        announce_new(&cluster, 0).await;
        let process = cluster.hosts[0].process().unwrap();
        process.kill("at once");
        send(&cluster, 1, 0).await.unwrap();
        if !objects(&cluster, "markers").is_empty() {
            return;
        }
        let refused = finish(&cluster, 1, 0).await.unwrap_err();
        assert!(refused.is("exchange-closed"), "{refused:?}");
        tokio::time::sleep(LEASE).await;
        assert_eq!(objects(&cluster, ""), [""; 0]);
    });
}
