//! What the simulation found, each as a test of its own that begins with the story of the defect.
//!
//! To add one: a stage, the few steps that
//! it takes, what must be true.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::ExchangeId;
use stopover::store::keys;
use tokio::time::Instant;

use crate::client::Handle;
use crate::cluster::{Cluster, sleep_millis};
use crate::history::{Counts, History, Pages};
use crate::net::Taking;
use crate::plan::{LEASE, Plan};
use crate::simulation::Simulation;
use crate::store::{Outage, Site};
use crate::weather::{SLOW_WAY, StoreWeather};
use crate::wire::{self, End};

const X: &str = "x0";

/// A world in which nothing happens by itself: so many daemons, object stores `a`, `b`, ….
pub fn on_stage<F: Future<Output = ()>>(
    hosts: usize,
    sites: usize,
    act: impl FnOnce(Cluster) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let simulation = Simulation::new(0, History::new(LEASE), None, false);
        let cluster = Cluster::new(&simulation, Plan::quiet(hosts, sites));
        simulation.history.lock().begin_exchange(X, 2, false);
        for host in cluster.hosts.iter() {
            simulation.spawn(host.clone().supervise());
            host.serves().await;
        }
        let announced = cluster
            .client
            .announce(&cluster.hosts[0], X, (2, false), false)
            .await;
        assert_eq!(announced.answer, Ok(true));
        act(cluster).await;
        assert_eq!(simulation.report().violation, None);
    });
}

fn some_pages() -> Pages {
    vec![(0, vec![b'a'; 300]), (1, vec![b'b'; 200])]
}

fn claim(batches: &[Pages]) -> (Counts, u32) {
    let pages = batches.concat();
    let counts = Counts {
        batches: batches.len() as u64,
        pages: pages.len() as u64,
        bytes: pages.iter().map(|page| page.1.len() as u64).sum(),
    };
    (counts, wire::finish_checksum(&pages))
}

/// Writes an attempt of one batch and finishes it.
async fn write(cluster: &Cluster, host: usize, task: u32) {
    let (client, host) = (&cluster.client, &cluster.hosts[host]);
    let sent = client.pages(host, X, (task, 0), 0, &some_pages()).await;
    assert_eq!(sent.answer, Ok(false));
    let (counts, checksum) = claim(&[some_pages()]);
    let finished = client.finish(host, X, (task, 0), counts, checksum).await;
    assert_eq!(finished.answer, Ok(counts));
}

#[test]
fn a_batch_that_is_under_way_when_its_exchange_closes_is_refused_and_not_held() {
    // A page request had passed its checks and was reading its body when its exchange was closed
    // through the same daemon. The batch then opened the exchange again in the writing side's
    // table, and was answered 200. Nobody ever forgot it: the exchange was known to be closed, so
    // the sweeper saw nothing to do, and the pages stayed in the write pool until the daemon ended.
    on_stage(1, 1, |cluster| async move {
        let life = cluster.hosts[0].serves().await;
        let body = Bytes::from(wire::batch(&some_pages()));
        let length = body.len();
        let slow = futures::stream::once(async move {
            sleep_millis(3000).await;
            Ok::<_, std::io::Error>(body)
        });
        let request = Request::post(format!("/v1/exchanges/{X}/sinks/0/0/pages?batch=0"))
            .header("content-type", "application/vnd.stopover.pages")
            .header("content-length", length)
            .body(Body::from_stream(slow))
            .unwrap();
        let (door, router) = (life.door.clone(), life.router.clone());
        let sent = tokio::spawn(async move { door.serve(router, request).await });
        sleep_millis(1000).await;
        cluster.simulation.history.lock().exchange(X).closing = true;
        cluster.client.close(&cluster.hosts[0], X).await.unwrap();
        assert_eq!(sent.await.unwrap().status(), 410);
        assert_eq!(life.daemon.write_pool.used(), 0);
        assert_eq!(life.daemon.metrics.sinks_open.get(), 0);
        assert_eq!(life.daemon.metrics.exchanges_open.get(), 0);
    });
}

async fn read(cluster: &Cluster, host: usize, handle: &Handle) -> End {
    let host = &cluster.hosts[host];
    let read = cluster
        .client
        .read(host, handle, 0, Taking::default())
        .await;
    read.unwrap().end
}

#[test]
fn bytes_that_were_damaged_on_their_way_are_fetched_anew_by_the_next_reader() {
    // A chunk was damaged between store and daemon. The reader was told so, but the chunk stayed in
    // the cache, and every later reader of its neighbourhood was told the same by this daemon,
    // although the store was in order.
    on_stage(2, 1, |cluster| async move {
        write(&cluster, 0, 0).await;
        let reader = &cluster.hosts[1];
        let handles = cluster
            .client
            .handles(reader, X, &[(0, 0)], 1 << 20)
            .await
            .unwrap();
        *cluster.sites[0].weather.lock() = StoreWeather {
            damages: 1000,
            ..StoreWeather::default()
        };
        let damaged = End::Problem("data-corrupt".into());
        assert_eq!(read(&cluster, 1, &handles[0]).await, damaged);
        *cluster.sites[0].weather.lock() = StoreWeather::default();
        assert_eq!(read(&cluster, 1, &handles[0]).await, End::Complete);
        assert_eq!(read(&cluster, 1, &handles[1]).await, End::Complete);
    });
}

#[test]
fn base_directories_that_are_listed_at_different_moments_are_not_taken_for_lost_data() {
    // While an exchange was written, a partition was read. One base directory was listed before the
    // first segment of an attempt was stored there, another one after the segment with the commit
    // record was stored there: the reader was told that data was lost.
    for before in 0..2 {
        on_stage(2, 2, |cluster| async move {
            // Segments take turns: with one more or less before them, the two lie the other way.
            for task in 0..before {
                write(&cluster, 0, 10 + task).await;
            }
            let slow = StoreWeather {
                slow: 1000,
                ..StoreWeather::default()
            };
            *cluster.sites[1].weather.lock() = slow;
            let commits = cluster.hosts[1].serves().await.daemon.catalog.clone();
            let planning = tokio::spawn(async move {
                let exchange = X.parse().unwrap();
                commits.partition_handle(&exchange, 0, None, None).await
            });
            sleep_millis(100).await;
            *cluster.sites[1].weather.lock() = StoreWeather::default();
            let (client, host) = (&cluster.client, &cluster.hosts[0]);
            let batches = [vec![(0, vec![b'a'; 3000])], some_pages()];
            for (number, pages) in batches.iter().enumerate() {
                let sent = client.pages(host, X, (0, 0), number, pages).await;
                assert_eq!(sent.answer, Ok(false));
            }
            let (counts, checksum) = claim(&batches);
            let finished = client.finish(host, X, (0, 0), counts, checksum).await;
            assert_eq!(finished.answer, Ok(counts));
            planning.await.unwrap().expect("nothing is lost");
        });
    }
}

#[test]
fn a_finish_whose_put_failed_after_the_fact_is_answered_as_the_store_has_it() {
    // The segment with a commit record was stored, but every answer of the store was lost. The
    // finish failed, rightly, as nobody could know. But then the daemon held the attempt for failed
    // for good: it acknowledged an abort of it, and refused a repeated finish, while every other
    // daemon found it committed and showed its pages.
    on_stage(2, 1, |cluster| async move {
        let (client, host) = (&cluster.client, &cluster.hosts[0]);
        let sent = client.pages(host, X, (0, 0), 0, &some_pages()).await;
        assert_eq!(sent.answer, Ok(false));
        let end = Instant::now() + Duration::from_secs(15);
        *cluster.sites[0].outage.lock() = Some(Outage { end, mute: true });
        let (counts, checksum) = claim(&[some_pages()]);
        let failed = client.finish(host, X, (0, 0), counts, checksum).await;
        assert!(failed.answer.unwrap_err().is("storage-unavailable"));
        let unknown = client.abort(host, X, (0, 0)).await;
        assert!(unknown.answer.is_err(), "nobody can know yet");
        tokio::time::sleep_until(end).await;
        assert_eq!(
            client.abort(host, X, (0, 0)).await.answer,
            Ok(false),
            "it is finished"
        );
        for host in cluster.hosts.iter() {
            let again = client.finish(host, X, (0, 0), counts, checksum).await;
            assert_eq!(again.answer, Ok(counts));
        }
    });
}

#[test]
fn small_segments_far_away_are_fetched_together() {
    // A read fetched four parts ahead, of whatever size. Of an exchange with hundreds of small
    // segments that was four of them for each round trip.
    on_stage(2, 1, |cluster| async move {
        const TASKS: usize = 6;
        for task in 0..TASKS {
            write(&cluster, 0, task as u32).await;
        }
        let chosen: Vec<_> = (0..TASKS as u32).map(|task| (task, 0)).collect();
        let (client, reader) = (&cluster.client, &cluster.hosts[1]);
        let handles = client.handles(reader, X, &chosen, 1 << 20).await.unwrap();
        *cluster.sites[0].weather.lock() = StoreWeather {
            slow: 1000,
            ..StoreWeather::default()
        };
        let start = Instant::now();
        assert_eq!(read(&cluster, 1, &handles[0]).await, End::Complete);
        let longest = 2 * SLOW_WAY;
        assert!(start.elapsed() <= longest, "{:?}", start.elapsed());
    });
}

#[test]
fn an_exchange_that_is_looked_at_while_it_is_announced_is_not_taken_for_closed() {
    // An announcement was written, and one base directory was still being asked for another, when a
    // lookup found it. As the daemon knew the exchange by then, and nothing was found besides, the
    // announcement took it for one that had been closed elsewhere.
    on_stage(1, 2, |cluster| async move {
        let closing = cluster.hosts[0].serves().await.daemon.closing.clone();
        let exchanges = closing.exchanges.clone();
        let mut met = 0;
        for n in 0..8 {
            let exchange: ExchangeId = format!("y{n}").parse().unwrap();
            *cluster.sites[1].weather.lock() = StoreWeather {
                slow: 1000,
                ..StoreWeather::default()
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
            *cluster.sites[1].weather.lock() = StoreWeather::default();
            met += usize::from(exchanges.lookup(&exchange).await.is_ok());
            assert!(announcing.await.unwrap().unwrap().created);
            exchanges.lookup_uncached(&exchange).await.unwrap();
            closing.close(&exchange).await.unwrap();
        }
        assert!(met > 0, "its home was never the other base directory");
    });
}

#[test]
fn an_exchange_that_one_base_directory_still_announces_keeps_its_pages_in_all_of_them() {
    // An exchange was closed while the base directory with its announcement refused everything. The
    // segments in the others were removed all the same. When that base directory worked again it
    // announced an exchange that had finished attempts and no page: through another daemon its
    // partitions were read whole, and empty.
    on_stage(2, 3, |cluster| async move {
        for task in 0..4 {
            write(&cluster, 0, task).await;
        }
        let (client, other) = (&cluster.client, &cluster.hosts[1]);
        let key = keys::marker(&X.parse().unwrap());
        let announces = |site: &&Arc<Site>| site.disk.lock().get_versioned(&key).is_ok();
        let home = cluster.sites.iter().find(announces).unwrap();
        let end = Instant::now() + Duration::from_secs(90);
        *home.outage.lock() = Some(Outage { end, mute: false });
        cluster.simulation.history.lock().exchange(X).closing = true;
        let closing = cluster.hosts[0].serves().await.daemon.closing.clone();
        let closed = closing.close(&X.parse().unwrap()).await;
        assert!(closed.is_err(), "{closed:?}");
        assert!(Instant::now() < end);
        tokio::time::sleep_until(end).await;
        let read = client.partition(other, X, 0).await.unwrap();
        assert_eq!((read.pages.len(), read.end), (4, End::Complete));
        client.close(other, X).await.unwrap();
        for site in cluster.sites.iter() {
            assert_eq!(site.disk.lock().leftovers(), [""; 0], "{}", site.name);
        }
    });
}
