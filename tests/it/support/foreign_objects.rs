//! What others have put into and around a base directory, of whatever store.
//!
//! To use it: [`survive`] with a base directory that is empty.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::gc::one_shot::{GcOptions, GcOutcome, collect_once};
use stopover::id::ExchangeId;
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store::keys::{self, Key};
use stopover::store::{Store, open};

/// Foreign objects, some of which look very much like Stopover's.
fn foreign(own: &ExchangeId) -> Vec<Key> {
    let in_segments = format!("{}/notes.txt", keys::segments(own));
    let deeper = format!(
        "{}/sub/000000000000feed-00000000002a.seg",
        keys::segments(own)
    );
    let names = [
        "data.csv",
        "v1/q/exchange.json",
        "v2/foo/bar.txt",
        "v2/markers/README",
        "v2/markers/q-foreign",
        "v2/markers/0000-q-foreign",
        "v2/markers/folder/000000000000feed-00000000002a.seg",
        "v2/segments/other-folder/x",
        "v2/segments/other-folder/000000000000feed-00000000002a.seg",
        "v2/segments/0000-q-foreign/000000000000feed-00000000002a.seg",
        "v2/segments/q-foreign/000000000000feed-00000000002a.seg",
        "v2/segments/file",
        "v2/probes/notes",
        "v2/probes/folder/0000000000000001",
    ];
    let names = names.into_iter().map(str::to_owned);
    names
        .chain([in_segments, deeper])
        .map(Key::listed)
        .collect()
}

fn config(base: BaseDirectoryConfig) -> Config {
    let mut config = Config::default();
    config.memory.budget = Some(64 << 20);
    config.segment.commit_linger = Duration::from_millis(2);
    config.lease.duration = Duration::from_millis(400);
    config.lease.announcement_timeout = Duration::from_millis(200);
    config.lease.sweep_interval = Duration::from_millis(40);
    config.base_directories = vec![base];
    config
}

fn exchange(name: &str) -> ExchangeId {
    name.parse().unwrap()
}

async fn put_segment(storage: &Storage, exchange: &ExchangeId, id: &str) {
    let content = vec![Bytes::from_static(b"a segment")];
    let put = storage.put_segment(exchange, id.parse().unwrap(), content);
    put.await.unwrap();
}

async fn check_foreign(store: &dyn Store, foreign: &[Key], after: &str) {
    for key in foreign {
        let found = store.get_tail(key, 10).await;
        let found = found.unwrap_or_else(|error| panic!("{key} after {after}: {error}"));
        assert_eq!(&found.bytes[..], b"mine", "{key} after {after}");
    }
}

async fn wait_until_empty(storage: &Storage, exchange: &ExchangeId) {
    for _ in 0..500 {
        let listed = storage
            .survey()
            .await
            .unwrap()
            .remove(exchange)
            .unwrap_or_default();
        if storage.inventory(exchange, &listed).await.unwrap().objects == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{exchange} was never collected");
}

/// Puts foreign objects into an empty base directory, and has a daemon close, sweep and collect
/// beside them.
pub async fn survive(base: BaseDirectoryConfig) {
    let config = config(base);
    let runtime = Runtime::seeded(4);
    let opened = open::open_all(&config.base_directories, &runtime).unwrap();
    let store: &Arc<dyn Store> = &opened[0].opened.store;
    let (closed, dead) = (exchange("q-closed"), exchange("q-dead"));
    let mut all = foreign(&closed);
    all.extend(foreign(&dead).split_off(14));
    // An identity first: without one, a place with foreign objects is refused.
    let storage = Storage::open(&config.base_directories, &runtime).unwrap();
    assert!(storage.probe().await.iter().all(|base| base.healthy));
    for key in &all {
        store
            .put(key, vec![Bytes::from_static(b"mine")])
            .await
            .unwrap();
    }
    let daemon = Daemon::build(&config, &Runtime::seeded(5)).unwrap();
    for id in [&closed, &dead] {
        let spec = ExchangeSpec {
            partitions: 2,
            ordered: false,
        };
        let exchanges = &daemon.exchanges;
        let announced = exchanges.announce(id, spec, Announce::CreateOrRenew);
        announced.await.unwrap();
        put_segment(&daemon.storage, id, "000000000000feed-000000000001").await;
    }
    daemon.closing.close(&closed).await.unwrap();
    check_foreign(&**store, &all, "close").await;
    for id in [
        "q-foreign",
        "README",
        "foo",
        "folder",
        "other-folder",
        "file",
    ] {
        daemon.closing.close(&exchange(id)).await.unwrap();
    }
    check_foreign(&**store, &all, "close of what is named like them").await;
    wait_until_empty(&daemon.storage, &dead).await;
    // Several leases more, for whatever else is taken for dead.
    tokio::time::sleep(Duration::from_secs(2)).await;
    check_foreign(&**store, &all, "many sweeps").await;
    daemon.runtime.tasks.shut_down().await;

    let orphan = exchange("q-orphan");
    put_segment(&daemon.storage, &orphan, "000000000000feed-00000000002a").await;
    let options = GcOptions {
        watch: Duration::from_secs(1),
        announcement: Duration::from_millis(100),
        dry_run: false,
    };
    let report = collect_once(&daemon.storage, &runtime, options, |_| {})
        .await
        .unwrap();
    let outcome = &report.entries[&orphan].outcome;
    assert!(matches!(outcome, GcOutcome::Orphaned), "{outcome:?}");
    let folders: Vec<_> = report.foreign.iter().map(|f| f.folder.as_str()).collect();
    for folder in ["v2/markers", "v2/segments/other-folder", "v2/probes"] {
        assert!(folders.contains(&folder), "{folders:?}");
    }
    check_foreign(&**store, &all, "gc").await;
}
