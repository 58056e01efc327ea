//! One daemon's storage call is held while others act: each call of a request in turn, before it
//! and after it took effect.
//!
//! What is true for every such moment is true for daemons that are slow, or stopped for a while, at
//! any of them. To add one: a test that calls `with_each_call_held`.

use std::cell::Cell;
use std::sync::Arc;

use crate::client::RequestError;
use crate::cluster::{Cluster, sleep_millis};
use crate::crash_point::{CrashPoint, When};
use crate::plan::Plan;
use crate::regressions::{X, claim, in_a_world, some_pages, write};
use crate::wire::End;

/// A request that made this many storage calls would be a defect of its own.
const MAX_CALLS: usize = 200;

/// Runs a scenario once for each storage call that the first daemon makes in it, and each moment,
/// until there is no such call. Returns the number of calls.
pub fn with_each_call_held<F: Future<Output = bool>>(
    hosts: usize,
    sites: usize,
    scenario: impl Fn(Cluster, Arc<CrashPoint>) -> F,
) -> usize {
    for at in 0..MAX_CALLS {
        let mut reached = false;
        for when in [When::Before, When::After] {
            let point = CrashPoint::holding(at, when);
            in_a_world(Plan::quiet(hosts, sites), Some(&point), async |cluster| {
                reached |= scenario(cluster, Arc::clone(&point)).await;
            });
        }
        if !reached {
            return at;
        }
    }
    panic!("more than {MAX_CALLS} storage calls");
}

/// Runs `request` at the first daemon, and `meanwhile` once its call is held. Returns the outcome,
/// and whether the call was reached.
pub async fn interleave<T: Send + 'static>(
    point: &CrashPoint,
    request: impl Future<Output = T> + Send + 'static,
    meanwhile: impl Future<Output = ()>,
) -> (T, bool) {
    point.arm(true);
    let mut running = tokio::spawn(request);
    let completed = tokio::select! {
        biased;
        () = point.wait_until_held() => None,
        completed = &mut running => Some(completed.unwrap()),
    };
    point.arm(false);
    if let Some(completed) = completed {
        return (completed, false);
    }
    meanwhile.await;
    point.release();
    (running.await.unwrap(), true)
}

async fn close(cluster: &Cluster, host: usize, exchange: &str) -> Result<(), RequestError> {
    if exchange == X {
        cluster.simulation.history.lock().exchange(X).closing = true;
    }
    cluster.client.close(&cluster.hosts[host], exchange).await
}

async fn send(cluster: &Cluster, host: usize, task: u32) {
    let host = &cluster.hosts[host];
    let (client, pages) = (&cluster.client, some_pages());
    let sent = client.pages(host, X, (task, 0), 0, &pages).await;
    assert_eq!(sent.result, Ok(false));
}

async fn finish(cluster: &Cluster, host: usize, task: u32) -> Result<(), RequestError> {
    let ((counts, checksum), host) = (claim(&[some_pages()]), &cluster.hosts[host]);
    let finish = cluster.client.finish(host, X, (task, 0), counts, checksum);
    finish.await.result.map(drop)
}

#[test]
fn a_partition_read_while_its_exchange_is_closed_is_whole_or_refused() {
    // The first lookup found the exchange open. Then it was closed elsewhere, and the list of its
    // segments was empty: without a second lookup the answer was 200 and an empty body.
    let calls = with_each_call_held(2, 2, |cluster, point| async move {
        for task in 0..3 {
            write(&cluster, 1, task).await;
        }
        let reader = cluster.clone();
        let reading = async move { reader.client.partition(&reader.hosts[0], X, 0).await };
        let closing = async { close(&cluster, 1, X).await.unwrap() };
        let (read, reached) = interleave(&point, reading, closing).await;
        match read {
            Ok(read) if read.end == End::Complete => assert_eq!(read.pages.len(), 3, "{point:?}"),
            _ => assert!(reached, "refused although nothing was closed"),
        }
        reached
    });
    assert!(calls >= 3, "{calls} calls: a lookup, a list and a read");
}

#[test]
fn a_marker_written_while_its_exchange_is_closed_does_not_stay() {
    // A close found nothing to remove, since the announcement was still writing the marker. The
    // marker stayed, and the exchange with it, until its lease had run out.
    let calls = with_each_call_held(1, 2, |cluster, point| async move {
        let announcer = cluster.clone();
        let announcing = async move {
            let host = &announcer.hosts[0];
            let announced = announcer.client.announce(host, "y0", (2, false), false);
            announced.await.result
        };
        let closing = async { close(&cluster, 0, "y0").await.unwrap() };
        let (announced, reached) = interleave(&point, announcing, closing).await;
        if !reached {
            assert_eq!(announced, Ok(true));
            return false;
        }
        sleep_millis(3000).await;
        let mut left = cluster.leftovers();
        left.retain(|key| key.contains("y0"));
        assert_eq!(left, [""; 0], "{point:?}, answered {announced:?}");
        true
    });
    assert!(calls > 0, "an announcement without a storage call");
}

#[test]
fn a_segment_stored_after_its_exchange_was_closed_is_removed_although_a_check_was_under_way() {
    // One check, half a second after an upload, covers all segments that are stored until it reads
    // the markers. One that is stored while they are being read needs a check of its own: the
    // exchange may have been closed since. It stayed until a sweeper had watched it for a lease.
    let calls = with_each_call_held(2, 1, |cluster, point| async move {
        for task in 0..2 {
            send(&cluster, 0, task).await;
        }
        let writer = cluster.clone();
        let finishing = async move {
            let _ = finish(&writer, 0, 0).await;
            sleep_millis(1500).await;
        };
        let late = cluster.clone();
        let closing = async {
            close(&cluster, 1, X).await.unwrap();
            let finishing = async move { drop(finish(&late, 0, 1).await) };
            cluster.simulation.spawn(finishing);
            sleep_millis(1000).await;
        };
        let ((), reached) = interleave(&point, finishing, closing).await;
        if reached {
            sleep_millis(3000).await;
            assert_eq!(cluster.leftovers(), [""; 0], "{point:?}");
        }
        reached
    });
    assert!(calls >= 2, "{calls} calls: an upload and a check");
}

#[test]
fn a_late_writer_removes_nothing_of_an_exchange_that_is_announced_again_meanwhile() {
    // A late writer found no marker, and was slow to list and remove the segments. Meanwhile the
    // exchange was announced through a daemon that had never heard of it, and a task finished:
    // without a claim its segment was removed too, after its finish had been acknowledged.
    let announced_again = Cell::new(0);
    with_each_call_held(3, 1, |cluster, point| {
        let announced_again = &announced_again;
        async move {
            send(&cluster, 0, 0).await;
            close(&cluster, 1, X).await.unwrap();
            let writer = cluster.clone();
            let late = async move {
                let _ = finish(&writer, 0, 0).await;
                sleep_millis(1500).await;
            };
            let finished_again = Cell::new(false);
            let announcing = async {
                let (client, host) = (&cluster.client, &cluster.hosts[2]);
                let announced = client.announce(host, X, (2, false), false).await;
                if announced.result == Ok(true) {
                    send(&cluster, 2, 5).await;
                    finished_again.set(finish(&cluster, 2, 5).await.is_ok());
                }
            };
            let ((), reached) = interleave(&point, late, announcing).await;
            if finished_again.get() {
                announced_again.set(announced_again.get() + 1);
                sleep_millis(3000).await;
                let read = cluster.client.partition(&cluster.hosts[2], X, 0).await;
                let read = read.unwrap_or_else(|error| panic!("{point:?}: {error:?}"));
                let of_task = read.pages.iter().filter(|page| page.task == 5);
                assert_eq!((of_task.count(), read.end), (1, End::Complete), "{point:?}");
            }
            reached
        }
    });
    assert!(announced_again.get() > 0, "never announced again");
}
