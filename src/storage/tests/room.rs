//! Tests of base directories that are full.

use super::*;
use crate::config::units::SizeOrPercent;
use crate::store::local::{LocalStore, WriteMode};

const TOTAL: u64 = 1 << 30;

fn local(folder: &tempfile::TempDir, names: &[&str]) -> (Storage, Vec<LocalStore>) {
    let stores = names.iter().map(|name| {
        let store = LocalStore::new(folder.path().join(name), WriteMode::Unsynced, 7);
        let store = store.with_min_free(SizeOrPercent::Size(1 << 20));
        store.set_space(TOTAL, TOTAL);
        store
    });
    let stores: Vec<_> = stores.collect();
    let bases = names.iter().zip(&stores).map(|(name, store)| {
        let store: Arc<dyn Store> = Arc::new(store.clone());
        (name.parse().unwrap(), format!("test://{name}"), store)
    });
    let runtime = Runtime::seeded(3);
    let storage = Storage::from_stores(bases.collect(), StoreLimits::LOCAL, &runtime);
    (storage, stores)
}

fn full(storage: &Storage) -> Vec<bool> {
    storage.status().iter().map(|base| base.full).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_full_gets_no_segments_until_it_has_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, stores) = local(&folder, &["a", "b"]);
    storage.probe().await;
    assert_eq!(full(&storage), [false, false]);
    stores[1].set_space(TOTAL, 1 << 20);
    for n in 0..4 {
        assert_eq!(put(&storage, n).await.unwrap().base.as_str(), "a");
    }
    assert_eq!(full(&storage), [false, true]);
    let status = &storage.status()[1];
    let error = status.error.as_deref().unwrap();
    assert!(error.contains("1MiB must stay free"), "{error}");
    assert_eq!(storage.opening_obstacles(), [""; 0]);
    assert!(storage.can_write_markers().await, "leases are renewed");

    stores[1].set_space(TOTAL, 2 << 20);
    while full(&storage)[1] {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(healthy(&storage), [true, true]);
    let bases = [put(&storage, 4).await, put(&storage, 5).await];
    let bases = bases.map(|at| at.unwrap().base.to_string());
    assert!(bases.contains(&"b".to_owned()), "{bases:?}");
}

#[tokio::test(start_paused = true)]
async fn when_all_are_full_writers_get_an_error_that_names_each_and_closing_works() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, stores) = local(&folder, &["a", "b"]);
    storage.probe().await;
    let marker = Bytes::from_static(b"{}");
    let observed = storage.observe_markers(&exchange()).await;
    storage
        .put_marker(&exchange(), &marker, &observed)
        .await
        .unwrap();
    put(&storage, 1).await.unwrap();
    for store in &stores {
        store.set_space(TOTAL, 1 << 20);
    }
    let error = put(&storage, 2).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("a: writing ") && text.contains("b: writing "),
        "{text}"
    );
    assert!(text.contains("lower min_free"), "{text}");
    assert_eq!(full(&storage), [true, true]);
    assert_eq!(storage.opening_obstacles().len(), 2);
    // An expired exchange is claimed and removed, and an open one closed.
    let observed = storage.observe_markers(&exchange()).await;
    assert!(storage.claim(&exchange(), &observed).await.unwrap());
    assert_eq!(storage.remove_claimed(&exchange()).await.unwrap(), 1);
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 0);
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}
