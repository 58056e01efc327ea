//! Defects that the simulation found. Each test starts with the story of its defect.
//!
//! To add one: a quiet world, the few steps that reproduce the defect, what must be true.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use stopover::catalog::Selection;
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::ExchangeId;
use stopover::store::keys;
use tokio::time::Instant;

use crate::client::{Handle, RequestError};
use crate::cluster::{Cluster, sleep_millis};
use crate::crash_point::CrashPoint;
use crate::faults::{MAX_SLOW_LATENCY, StoreFaults};
use crate::history::{Counts, History, Pages};
use crate::net::ReadBehaviour;
use crate::plan::{LEASE, Plan};
use crate::simulation::Simulation;
use crate::store::{Outage, OutageKind, Site};
use crate::wire::{self, End};

pub const X: &str = "x0";

/// Runs `act` in a world without faults and events, with this many daemons and object stores
/// (`a`, `b`, …).
pub fn in_a_quiet_world<F: Future<Output = ()>>(
    hosts: usize,
    sites: usize,
    act: impl FnOnce(Cluster) -> F,
) {
    in_a_world(Plan::quiet(hosts, sites), None, act);
}

/// Runs `act` in the world of this plan, in which one exchange is announced.
pub fn in_a_world<F: Future<Output = ()>>(
    plan: Plan,
    crash_point: Option<&Arc<CrashPoint>>,
    act: impl FnOnce(Cluster) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let simulation = Simulation::new(0, History::new(LEASE), None, false);
        let cluster = Cluster::with_crash_point(&simulation, plan, crash_point.cloned());
        simulation.history.lock().add_exchange(X, 2, false);
        for host in cluster.hosts.iter() {
            simulation.spawn(host.clone().supervise());
            host.wait_until_serving().await;
        }
        let announced = cluster
            .client
            .announce(&cluster.hosts[0], X, (2, false), false)
            .await;
        assert_eq!(announced.result, Ok(true));
        act(cluster).await;
        assert_eq!(simulation.report().violation, None);
    });
}

pub fn some_pages() -> Pages {
    vec![(0, vec![b'a'; 300]), (1, vec![b'b'; 200])]
}

pub fn claim(batches: &[Pages]) -> (Counts, u32) {
    let pages = batches.concat();
    let counts = Counts {
        batches: batches.len() as u64,
        pages: pages.len() as u64,
        bytes: pages.iter().map(|page| page.1.len() as u64).sum(),
    };
    (counts, wire::finish_checksum(&pages))
}

/// Writes an attempt of one batch and finishes it.
pub async fn write(cluster: &Cluster, host: usize, task: u32) {
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    let sent = client.pages(host, X, (task, 0), 0, &some_pages()).await;
    assert_eq!(sent.result, Ok(false));
    let (counts, checksum) = claim(&[some_pages()]);
    let finished = client.finish(host, X, (task, 0), counts, checksum).await;
    assert_eq!(finished.result, Ok(counts));
}

#[test]
fn a_batch_in_flight_when_its_exchange_closes_is_refused_and_not_retained() {
    // A page request had passed its checks and was reading its body when its exchange was closed at
    // the same daemon. The batch then reopened the exchange in the table of ingest and was answered
    // 200. It was never dropped: the exchange was known to be closed, so the sweeper had nothing to
    // do, and the pages stayed in the write pool until the daemon ended.
    in_a_quiet_world(1, 1, |cluster| async move {
        let run = cluster.hosts[0].wait_until_serving().await;
        let body = Bytes::from(wire::batch(&some_pages()));
        let length = body.len();
        let slow = futures::stream::once(async move {
            sleep_millis(3000).await;
            Ok::<_, std::io::Error>(body)
        });
        let request = Request::post(format!("/v1/exchanges/{X}/sinks/0/0/pages?batch=0"))
            .header("content-type", "application/vnd.stopover.pages")
            .header("content-length", length)
            .header("host", "localhost")
            .body(Body::from_stream(slow))
            .unwrap();
        let (mutant_router, router) = (run.mutant_router.clone(), run.router.clone());
        let sent = tokio::spawn(async move { mutant_router.serve(router, request).await });
        sleep_millis(1000).await;
        cluster.simulation.history.lock().exchange(X).closing = true;
        cluster.client.close(&cluster.hosts[0], X).await.unwrap();
        assert_eq!(sent.await.unwrap().status(), 410);
        assert_eq!(run.daemon.write_pool.used(), 0);
        assert_eq!(run.daemon.metrics.sinks_open.get(), 0);
        assert_eq!(run.daemon.metrics.exchanges_with_sinks.get(), 0);
    });
}

async fn read(cluster: &Cluster, host: usize, handle: &Handle) -> End {
    let host = &cluster.hosts[host];
    let read = cluster
        .client
        .read(host, handle, 0, ReadBehaviour::default())
        .await;
    read.unwrap().end
}

#[test]
fn bytes_corrupted_in_transit_are_fetched_again_for_the_next_reader() {
    // A chunk was corrupted between store and daemon. The reader got an error, but the chunk stayed
    // in the cache, and every later reader of that chunk got the same error from this daemon,
    // although the store was intact.
    in_a_quiet_world(2, 1, |cluster| async move {
        // Several segments: the flipped bit of one may be in bytes that this reader does not need.
        let chosen: Vec<_> = (0..30).map(|task| (task, 0)).collect();
        for (task, _) in &chosen {
            write(&cluster, 0, *task).await;
        }
        let reader = &cluster.hosts[1];
        let handles = cluster
            .client
            .handles(reader, X, &chosen, 1 << 20)
            .await
            .unwrap();
        *cluster.sites[0].faults.lock() = StoreFaults {
            corrupts: 1000,
            ..StoreFaults::default()
        };
        let corrupt = End::Problem("data-corrupt".into());
        assert_eq!(read(&cluster, 1, &handles[0]).await, corrupt);
        *cluster.sites[0].faults.lock() = StoreFaults::default();
        assert_eq!(read(&cluster, 1, &handles[0]).await, End::Complete);
        assert_eq!(read(&cluster, 1, &handles[1]).await, End::Complete);
    });
}

#[test]
fn finishes_are_answered_while_one_of_two_base_directories_is_frozen() {
    // One of two file systems was frozen. Its puts had no deadline: the finishes whose segments
    // went there waited for ever, and it counted as healthy.
    in_a_quiet_world(1, 2, |cluster| async move {
        let end = Instant::now() + Duration::from_secs(3600);
        *cluster.sites[0].outage.lock() = Some(Outage {
            end,
            kind: OutageKind::Hangs,
        });
        for task in 0..6 {
            write(&cluster, 0, task).await;
        }
        assert!(Instant::now() < end, "they waited until it thawed");
        let daemon = cluster.hosts[0].wait_until_serving().await.daemon.clone();
        let status = daemon.storage.status();
        let healthy: Vec<bool> = status.iter().map(|base| base.healthy).collect();
        assert_eq!(healthy, [false, true]);
    });
}

#[test]
fn listing_base_directories_at_different_moments_reports_no_lost_data() {
    // A partition was read while its exchange was written. One base directory was listed before the
    // first segment of an attempt was stored there, another one after the segment with the commit
    // record was stored there: the read failed with an error about lost data.
    for before in 0..2 {
        in_a_quiet_world(2, 2, |cluster| async move {
            // Segments alternate between base directories: one more segment before swaps the two.
            for task in 0..before {
                write(&cluster, 0, 10 + task).await;
            }
            let slow = StoreFaults {
                slow: 1000,
                ..StoreFaults::default()
            };
            *cluster.sites[1].faults.lock() = slow;
            let commits = cluster.hosts[1]
                .wait_until_serving()
                .await
                .daemon
                .catalog
                .clone();
            let planning = tokio::spawn(async move {
                let exchange = X.parse().unwrap();
                commits
                    .partition_handle(&exchange, 0, Selection::default())
                    .await
            });
            sleep_millis(100).await;
            *cluster.sites[1].faults.lock() = StoreFaults::default();
            let (client, host) = (&cluster.client, &cluster.hosts[0]);
            let batches = [vec![(0, vec![b'a'; 3000])], some_pages()];
            for (number, pages) in batches.iter().enumerate() {
                let sent = client.pages(host, X, (0, 0), number, pages).await;
                assert_eq!(sent.result, Ok(false));
            }
            let (counts, checksum) = claim(&batches);
            let finished = client.finish(host, X, (0, 0), counts, checksum).await;
            assert_eq!(finished.result, Ok(counts));
            planning.await.unwrap().expect("no data is lost");
        });
    }
}

#[test]
fn a_put_that_failed_after_taking_effect_still_commits_the_attempt() {
    // The segment with a commit record was stored, but every answer of the store was lost. The
    // finish failed, rightly, since the outcome was unknown. But then the daemon regarded the
    // attempt as failed for good: it acknowledged an abort and refused a repeated finish, while
    // every other daemon found the attempt committed and returned its pages.
    in_a_quiet_world(2, 1, |cluster| async move {
        let (client, host) = (&cluster.client, &cluster.hosts[0]);
        let sent = client.pages(host, X, (0, 0), 0, &some_pages()).await;
        assert_eq!(sent.result, Ok(false));
        let end = Instant::now() + Duration::from_secs(15);
        *cluster.sites[0].outage.lock() = Some(Outage {
            end,
            kind: OutageKind::Silent,
        });
        let (counts, checksum) = claim(&[some_pages()]);
        let failed = client.finish(host, X, (0, 0), counts, checksum).await;
        assert!(failed.result.unwrap_err().is("storage-unavailable"));
        let unknown = client.abort(host, X, (0, 0)).await;
        assert!(unknown.result.is_err(), "the outcome is unknown yet");
        tokio::time::sleep_until(end).await;
        assert_eq!(
            client.abort(host, X, (0, 0)).await.result,
            Ok(false),
            "the attempt is finished"
        );
        for host in cluster.hosts.iter() {
            let again = client.finish(host, X, (0, 0), counts, checksum).await;
            assert_eq!(again.result, Ok(counts));
        }
    });
}

#[test]
fn small_remote_segments_are_fetched_concurrently() {
    // A read fetched four parts ahead, whatever their size. With hundreds of small segments, that
    // was only four segments per round trip.
    in_a_quiet_world(2, 1, |cluster| async move {
        const TASKS: usize = 6;
        for task in 0..TASKS {
            write(&cluster, 0, task as u32).await;
        }
        let chosen: Vec<_> = (0..TASKS as u32).map(|task| (task, 0)).collect();
        let (client, reader) = (&cluster.client, &cluster.hosts[1]);
        let handles = client.handles(reader, X, &chosen, 1 << 20).await.unwrap();
        *cluster.sites[0].faults.lock() = StoreFaults {
            slow: 1000,
            ..StoreFaults::default()
        };
        let start = Instant::now();
        assert_eq!(read(&cluster, 1, &handles[0]).await, End::Complete);
        let longest = 2 * MAX_SLOW_LATENCY;
        assert!(start.elapsed() <= longest, "{:?}", start.elapsed());
    });
}

#[test]
fn an_exchange_inspected_during_its_announcement_is_not_mistaken_for_closed() {
    // A marker was written, and another base directory was still being searched for a second one,
    // when a lookup found it. By then the daemon knew the exchange and found no other marker, so
    // the announcement mistook the exchange for one that had been closed elsewhere.
    in_a_quiet_world(1, 2, |cluster| async move {
        let closing = cluster.hosts[0]
            .wait_until_serving()
            .await
            .daemon
            .closing
            .clone();
        let exchanges = closing.exchanges.clone();
        let mut found = 0;
        for n in 0..8 {
            let exchange: ExchangeId = format!("y{n}").parse().unwrap();
            *cluster.sites[1].faults.lock() = StoreFaults {
                slow: 1000,
                ..StoreFaults::default()
            };
            let (announcer, id) = (exchanges.clone(), exchange.clone());
            let announcing = tokio::spawn(async move {
                let spec = ExchangeSpec {
                    partitions: 2,
                    ordered: false,
                };
                announcer.announce(&id, spec, Announce::CreateOrRenew).await
            });
            sleep_millis(100).await;
            *cluster.sites[1].faults.lock() = StoreFaults::default();
            found += usize::from(exchanges.lookup(&exchange).await.is_ok());
            assert!(announcing.await.unwrap().unwrap().created);
            exchanges.lookup_uncached(&exchange).await.unwrap();
            closing.close(&exchange).await.unwrap();
        }
        assert!(
            found > 0,
            "no lookup found a marker before its announcement ended"
        );
    });
}

#[test]
fn no_segment_is_removed_while_a_base_directory_may_still_have_the_marker() {
    // An exchange was closed while the base directory with its marker failed. The segments in the
    // other ones were removed all the same. When that base directory worked again, its marker said
    // that the exchange was open, with finished attempts but no pages: another daemon read its
    // partitions as complete and empty.
    in_a_quiet_world(2, 3, |cluster| async move {
        for task in 0..4 {
            write(&cluster, 0, task).await;
        }
        let (client, other) = (&cluster.client, &cluster.hosts[1]);
        let key = keys::marker(&X.parse().unwrap());
        let has_marker = |site: &&Arc<Site>| site.disk.lock().get_versioned(&key).is_ok();
        let marked = cluster.sites.iter().find(has_marker).unwrap();
        let end = Instant::now() + Duration::from_secs(90);
        *marked.outage.lock() = Some(Outage {
            end,
            kind: OutageKind::Fails,
        });
        cluster.simulation.history.lock().exchange(X).closing = true;
        let closing = cluster.hosts[0]
            .wait_until_serving()
            .await
            .daemon
            .closing
            .clone();
        let closed = closing.close(&X.parse().unwrap()).await.unwrap();
        assert!(closed.left.is_some(), "{closed:?}");
        assert!(Instant::now() < end);
        // Else it removes the rest as soon as it can.
        cluster.hosts[0].kill("before it could complete the close");
        tokio::time::sleep_until(end).await;
        let read = client.partition(other, X, 0).await.unwrap();
        assert_eq!((read.pages.len(), read.end), (4, End::Complete));
        client.close(other, X).await.unwrap();
        for site in cluster.sites.iter() {
            assert_eq!(site.disk.lock().leftovers(), [""; 0], "{}", site.name);
        }
    });
}

#[test]
fn a_marker_that_is_put_late_does_not_reopen_a_closed_exchange() {
    // The put of a marker timed out at one base directory, and succeeded at another. The exchange
    // was closed, which found no marker at the former. Then the first put was applied after all:
    // the exchange seemed open to daemons that had not seen it closed, with its segments removed.
    // One of them accepted a late attempt, and then returned a partition without the committed
    // attempts (seed 4936).
    let mut plan = Plan::quiet(2, 3);
    // The default. The sweeper removes a tombstone with its second sweep.
    plan.config.lease.sweep_interval = Duration::from_secs(60);
    in_a_world(plan, None, |cluster| async move {
        let run = cluster.hosts[0].wait_until_serving().await;
        let set_late = |late| {
            for site in &cluster.sites[..2] {
                site.faults.lock().late_effects = late;
            }
        };
        let mut tombstones = 0;
        for number in 0..12 {
            let id: ExchangeId = format!("late-{number}").parse().unwrap();
            let spec = ExchangeSpec {
                partitions: 2,
                ordered: false,
            };
            let mode = match number % 2 {
                0 => Announce::CreateOrRenew,
                _ => Announce::New,
            };
            let exchanges = &run.daemon.exchanges;
            set_late(1000);
            exchanges.announce(&id, spec, mode).await.unwrap();
            exchanges.wait_for_marker(&id).await.unwrap();
            set_late(0);
            run.daemon.closing.close(&id).await.unwrap();
            let key = keys::marker(&id);
            let is_left = |site: &&Arc<Site>| site.disk.lock().get_versioned(&key).is_ok();
            tombstones += cluster.sites.iter().filter(is_left).count();
            // All that is late has been applied.
            sleep_millis(21_000).await;
            let other = cluster.hosts[1].wait_until_serving().await;
            assert!(!other.daemon.exchanges.is_open(&id).await.unwrap(), "{id}");
        }
        assert!(tombstones > 0, "no put was late");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(cluster.leftovers(), [""; 0]);
    });
}

#[test]
fn an_announcement_that_a_frozen_daemon_reads_late_ends_with_the_close_there() {
    // A client announced an exchange at a daemon that was frozen, then through another one, where
    // it wrote and closed it. The first daemon read the announcement when it went on, and opened
    // the exchange again (seed 9775). A client that has announced somewhere closes there too.
    in_a_quiet_world(2, 2, |cluster| async move {
        let (client, frozen, other) = (&cluster.client, &cluster.hosts[0], &cluster.hosts[1]);
        frozen.wait_until_serving().await;
        let process = frozen.process().unwrap();
        let freezing = tokio::spawn(async move { process.freeze(Duration::from_secs(40)).await });
        sleep_millis(10).await;
        let names: Vec<String> = (0..8).map(|number| format!("late-{number}")).collect();
        for name in &names {
            cluster
                .simulation
                .history
                .lock()
                .add_exchange(name, 2, false);
        }
        let unanswered = names
            .iter()
            .map(|name| client.announce(frozen, name, (2, false), false));
        for announced in futures::future::join_all(unanswered).await {
            assert_eq!(announced.result, Err(RequestError::Lost));
        }
        for name in &names {
            let announced = client.announce(other, name, (2, false), false).await;
            assert_eq!(announced.result, Ok(true));
            cluster.simulation.history.lock().exchange(name).closing = true;
            client.close(other, name).await.unwrap();
        }
        // Some while it is frozen, some when it has read the announcement.
        let closing = names.iter().enumerate().map(async |(number, name)| {
            sleep_millis(number as u64 * 5000).await;
            while let Err(error) = client.close(frozen, name).await {
                assert!(error.retryable(), "{error:?}");
            }
        });
        futures::future::join_all(closing).await;
        freezing.await.unwrap();
        sleep_millis(10_000).await;
        for name in &names {
            let id: ExchangeId = name.parse().unwrap();
            for host in [frozen, other] {
                let run = host.wait_until_serving().await;
                assert!(!run.daemon.exchanges.is_open(&id).await.unwrap(), "{id}");
            }
            let late = client.announce(frozen, name, (2, false), false).await;
            assert!(late.result.unwrap_err().is("exchange-closed"));
        }
        let mut left = cluster.leftovers();
        left.retain(|key| key.contains("late-"));
        assert_eq!(left, [""; 0]);
    });
}
