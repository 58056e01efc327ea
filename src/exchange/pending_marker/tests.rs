//! What announcements and closes can make a daemon hold while a store does not answer.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::exchange::{Announce, ExchangeSpec, ExchangesDeps, Terms};
use crate::runtime::Runtime;
use crate::storage::Storage;
use crate::store::tests::faulty::{Fault, FaultyStore};
use crate::store::{Store, StoreLimits};

const LEASE: Duration = Duration::from_secs(900);
const ANNOUNCEMENT: Duration = Duration::from_secs(60);
const SPEC: ExchangeSpec = ExchangeSpec {
    partitions: 2,
    ordered: false,
};

fn id(number: usize) -> ExchangeId {
    format!("q-{number}").parse().unwrap()
}

/// Exchanges over a store that works until the first was announced, and never answers a put since.
async fn over_a_hanging_store(max_announced: usize) -> (Exchanges, Arc<FaultyStore>) {
    let (store, runtime) = (FaultyStore::new(), Runtime::seeded(3));
    let faulty: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store);
    let bases = vec![("a".parse().unwrap(), "faulty://a".to_owned(), faulty)];
    let storage = Storage::from_stores(bases, StoreLimits::REMOTE, &runtime);
    let terms = Terms {
        lease: LEASE,
        announcement: ANNOUNCEMENT,
        max_partitions: 100,
        max_announced,
    };
    let exchanges = Exchanges::new(ExchangesDeps { runtime, storage }, terms);
    let first = id(0);
    let announced = exchanges.announce(&first, SPEC, Announce::CreateOrRenew);
    announced.await.unwrap();
    store.always("put", Fault::Hangs);
    (exchanges, store)
}

/// Story: each announcement started a task that wrote its marker, and an announcement and a close
/// one more, which waited for a minute. With a store that did not answer, a client could start as
/// many as it could send requests.
#[tokio::test(start_paused = true)]
async fn announcements_are_refused_while_too_many_markers_are_being_written() {
    let (exchanges, store) = over_a_hanging_store(10_000).await;
    let (mut announced, mut refused) = (Vec::new(), None);
    for number in 1..=MAX_MARKER_TASKS + 100 {
        match exchanges.announce(&id(number), SPEC, Announce::New).await {
            Ok(_) => announced.push(id(number)),
            Err(error) => refused = Some(error),
        }
    }
    assert_eq!(announced.len(), MAX_MARKER_TASKS);
    let refused = refused.unwrap();
    assert!(
        matches!(refused, ExchangeError::TooManyMarkers { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("1024 exchanges"), "{refused}");
    // A repetition and the second half of an announcement need no further task.
    let confirmed = exchanges.announce(&announced[0], SPEC, Announce::Confirm);
    let confirmed = tokio::time::timeout(Duration::from_secs(1), confirmed).await;
    assert!(confirmed.is_err(), "it waits for the marker");
    // What is closed meanwhile is bounded, too; the rest is the sweeper's.
    let tasks = &exchanges.shared.marker_tasks;
    for exchange in &announced {
        let late = exchanges.mark_closed(exchange).unwrap();
        exchanges.remove_late_marker(late);
    }
    assert!(tasks.removals.try_acquire().is_none());
    store.heal();
    tokio::time::sleep(ANNOUNCEMENT + Duration::from_secs(1)).await;
    assert!(tasks.removals.try_acquire().is_some(), "all were removed");
    let after = exchanges.announce(&id(9999), SPEC, Announce::New).await;
    assert!(after.unwrap().created);
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_fails_does_not_count() {
    let (exchanges, store) = over_a_hanging_store(2).await;
    exchanges
        .announce(&id(1), SPEC, Announce::New)
        .await
        .unwrap();
    let full = exchanges.announce(&id(2), SPEC, Announce::New).await;
    let full = full.unwrap_err().to_string();
    assert!(full.contains("limits.max_announced_exchanges"), "{full}");
    let failed = exchanges.wait_for_marker(&id(1)).await.unwrap_err();
    assert!(
        matches!(failed, ExchangeError::NotAnnounced { .. }),
        "{failed}"
    );
    store.heal();
    // Once the base directory was found to work again.
    exchanges.shared.deps.storage.probe().await;
    exchanges
        .announce(&id(2), SPEC, Announce::New)
        .await
        .unwrap();
    let third = id(3);
    let full = exchanges.announce(&third, SPEC, Announce::CreateOrRenew);
    let full = full.await.unwrap_err();
    assert!(
        matches!(full, ExchangeError::TooManyAnnounced { .. }),
        "{full}"
    );
    exchanges.mark_closed(&id(2));
    let third = exchanges.announce(&third, SPEC, Announce::CreateOrRenew);
    third.await.unwrap();
}

/// Story: an exchange whose status was forgotten counted as one whose marker is durable, so that a
/// finish was acknowledged before it was.
#[tokio::test(start_paused = true)]
async fn a_marker_that_was_forgotten_is_read_before_anything_is_acknowledged() {
    let (exchanges, _) = over_a_hanging_store(10).await;
    let pending = exchanges.announce(&id(1), SPEC, Announce::New).await;
    let Descriptor { set, .. } = &*pending.unwrap().descriptor;
    for number in 0..20_000 {
        let other = Descriptor {
            exchange: format!("other-{number}").parse().unwrap(),
            spec: SPEC,
            lease: LEASE,
            announcement: ANNOUNCEMENT,
            number: 0,
            set: set.clone(),
        };
        let until = exchanges.deadline(&other);
        exchanges.shared.status.record_pending(other.into(), until);
    }
    let unknown = exchanges.wait_for_marker(&id(1)).await.unwrap_err();
    assert!(
        matches!(unknown, ExchangeError::NotFound { .. }),
        "{unknown}"
    );
    exchanges.wait_for_marker(&id(0)).await.unwrap();
}
