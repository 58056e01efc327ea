//! What others have put into and around a base directory.
//!
//! Story: two folders of somebody else's data below the folder of exchanges were taken for dead
//! exchanges and deleted after a lease; a `DELETE` of their name removed them at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::gc::one_shot::{GcOptions, GcOutcome, collect_once};
use stopover::id::ExchangeId;
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store::keys::{self, Key};
use stopover::store::object::ObjectBackend;
use stopover::store::object::redact::Redactor;
use stopover::store::{Store, StoreLimits, open};

use crate::semantics::{announce, exchange, sink, write};
use crate::support::slow::{Delay, SlowStore};

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

fn config(uri: String) -> Config {
    let mut config = Config::default();
    config.memory.budget = Some(64 << 20);
    config.segment.commit_linger = Duration::from_millis(2);
    config.lease.duration = Duration::from_millis(400);
    config.lease.announcement_timeout = Duration::from_millis(200);
    config.lease.sweep_interval = Duration::from_millis(40);
    let base = BaseDirectoryConfig {
        uri,
        ..Default::default()
    };
    config.base_directories = vec![base];
    config
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

async fn foreign_objects_survive(uri: String) {
    let config = config(uri);
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
        announce(&daemon, id, 2).await;
        let one = sink(id, 0, 0);
        write(&daemon, &one, 0, &[(0, vec![7; 300])]).await.unwrap();
        daemon.ingest.finish(&one, None).await.unwrap();
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
    let id = "000000000000feed-00000000002a".parse().unwrap();
    let content = vec![Bytes::from_static(b"late")];
    daemon
        .storage
        .put_segment(&orphan, id, content)
        .await
        .unwrap();
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

#[tokio::test]
async fn foreign_files_survive_closing_sweeps_and_gc() {
    let folder = tempfile::tempdir().unwrap();
    foreign_objects_survive(format!("file://{}", folder.path().display())).await;
}

#[tokio::test]
async fn foreign_objects_of_an_object_store_survive_closing_sweeps_and_gc() {
    foreign_objects_survive("memory://foreign/some/prefix".into()).await;
}

/// Story: `gc` gave up after three times its watch. On a loaded machine, or in a bucket with lists
/// that take longer than that, it reported everything as undetermined, with a wrong reason.
#[tokio::test(start_paused = true)]
async fn gc_decides_even_if_lists_take_longer_than_the_watch() {
    let delay = Delay::OfLists(Duration::from_secs(4));
    let memory = Arc::new(InMemory::new());
    let inner = ObjectBackend::new(memory, "p".into(), Redactor::default(), false);
    let inner: Arc<dyn Store> = Arc::new(inner);
    let slow: Arc<dyn Store> = Arc::new(SlowStore { inner, delay });
    let runtime = Runtime::seeded(6);
    let base = ("a".parse().unwrap(), "slow://a".to_owned(), slow);
    let storage = Storage::from_stores(vec![base], StoreLimits::REMOTE, &runtime);
    assert!(storage.probe().await.iter().all(|base| base.healthy));
    let orphan = exchange("q-orphan");
    let id = "000000000000feed-00000000002a".parse().unwrap();
    let content = vec![Bytes::from_static(b"late")];
    storage.put_segment(&orphan, id, content).await.unwrap();
    let options = GcOptions {
        watch: Duration::from_secs(3),
        announcement: Duration::from_secs(1),
        dry_run: false,
    };
    let report = collect_once(&storage, &runtime, options, |_| {}).await;
    let outcome = &report.unwrap().entries[&orphan].outcome;
    assert!(matches!(outcome, GcOutcome::Orphaned), "{outcome:?}");
}
