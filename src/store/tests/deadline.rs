//! Tests of deadlines: whatever a store does, each operation ends and its slot is free.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::faulty::{Fault, FaultyStore};
use super::limited;
use crate::id::ExchangeId;
use crate::runtime::Clock;
use crate::store::deadline::{Deadline, DeadlinePolicy};
use crate::store::{Precondition, Store, StoreError, StoreErrorKind, keys};

const POLICY: DeadlinePolicy = DeadlinePolicy {
    timeout: Duration::from_secs(10),
    bytes_per_second: 1 << 20,
};

fn hanging() -> Arc<FaultyStore> {
    let store = FaultyStore::new();
    for operation in ["put", "get", "list", "delete", "sweep", "reserve"] {
        store.always(operation, Fault::Hangs);
    }
    store
}

fn bounded(store: &Arc<FaultyStore>) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::<FaultyStore>::clone(store);
    Arc::new(Deadline::new(store, POLICY, Clock::default()))
}

#[tokio::test(start_paused = true)]
async fn every_operation_on_a_store_that_never_answers_ends_as_ambiguous() {
    let store = bounded(&hanging());
    let exchange: ExchangeId = "q-1".parse().unwrap();
    let (key, folder) = (keys::marker(&exchange), keys::segments(&exchange));
    let content = || vec![Bytes::from(vec![0; 3 << 20])];
    async fn failure<T>(work: impl Future<Output = Result<T, StoreError>>) -> (StoreError, u64) {
        let start = Instant::now();
        let error = work.await.err().expect("it hangs");
        (error, start.elapsed().as_secs())
    }
    let failures = [
        failure(store.put(&key, content())).await,
        failure(store.put_if(&key, Bytes::new(), &Precondition::Absent)).await,
        failure(store.get_versioned(&key)).await,
        failure(store.get_tail(&key, 2 << 20)).await,
        failure(store.get_range(&key, 0..5 << 20)).await,
        failure(store.list(&folder)).await,
        failure(store.list_after(&folder, None, 1)).await,
        failure(store.first_keys(1)).await,
        failure(store.list_folders(&folder)).await,
        failure(store.delete(vec![key.clone(); 2500])).await,
        failure(store.delete_if(&key, None)).await,
        failure(store.remove_stale_temporaries(&folder)).await,
    ];
    let seconds = failures.each_ref().map(|(_, seconds)| *seconds);
    assert_eq!(seconds, [13, 10, 11, 12, 15, 40, 40, 40, 40, 30, 11, 200]);
    for (error, _) in failures {
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
        assert!(
            error.timed_out && error.to_string().contains("raise `timeout`"),
            "{error}"
        );
    }
    let start = Instant::now();
    assert!(!store.can_write_when_full().await, "it does not answer");
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// Story: an operation of a file system holds its slot until its thread returns, which on a frozen
/// one is never. After 32 of them all others waited.
#[tokio::test(start_paused = true)]
async fn the_slot_of_an_operation_that_hangs_is_free_once_its_deadline_has_passed() {
    for cancellable in [true, false] {
        let inner = hanging();
        let limit = limited(bounded(&inner), 1, cancellable);
        let key = keys::probe(1);
        // Its caller stops waiting; the slot is taken until the deadline, not for ever.
        let _ = tokio::time::timeout(Duration::from_secs(1), limit.put(&key, Vec::new())).await;
        let waiting = limit.put(&key, Vec::new());
        assert!(waiting.await.unwrap_err().timed_out);
        inner.heal();
        limit.put(&key, Vec::new()).await.unwrap();
    }
}

#[test]
fn no_size_and_no_number_of_keys_overflows_a_deadline() {
    for policy in [
        POLICY,
        DeadlinePolicy {
            bytes_per_second: 0,
            ..POLICY
        },
    ] {
        assert!(policy.transfer(u64::MAX) > Duration::from_secs(1 << 30));
        assert!(policy.delete(usize::MAX) >= POLICY.timeout);
    }
}
