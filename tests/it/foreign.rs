//! What others have put into and around a base directory.
//!
//! Story: two folders of somebody else's data below the folder of exchanges were taken for dead
//! exchanges and deleted after a lease; a `DELETE` of their name removed them at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use stopover::config::BaseDirectoryConfig;
use stopover::gc::one_shot::{GcOptions, GcOutcome, collect_once};
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store::object::ObjectBackend;
use stopover::store::object::redact::Redactor;
use stopover::store::{Store, StoreLimits};

use crate::semantics::exchange;
use crate::support::foreign_objects::survive;
use crate::support::slow::{Delay, SlowStore};

fn at(uri: String) -> BaseDirectoryConfig {
    BaseDirectoryConfig {
        uri,
        ..Default::default()
    }
}

#[tokio::test]
async fn foreign_files_survive_closing_sweeps_and_gc() {
    let folder = tempfile::tempdir().unwrap();
    survive(at(format!("file://{}", folder.path().display()))).await;
}

#[tokio::test]
async fn foreign_objects_of_an_object_store_survive_closing_sweeps_and_gc() {
    survive(at("memory://foreign/some/prefix".into())).await;
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
