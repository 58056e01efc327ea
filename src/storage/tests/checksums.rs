//! Tests of the question whether a store verifies checksums: only a clear yes counts.

use std::sync::Arc;

use super::faulty::{Fault, FaultyStore};
use crate::runtime::Runtime;
use crate::storage::StoreErrorKind::{self, Corrupt, Refused, Unavailable};
use crate::storage::probe;
use crate::store::Store;
use crate::store::keys;
use crate::store::object::checksums::Checksums;

type Answer = Result<bool, StoreErrorKind>;

/// The answer of a store at which puts, the damaged one first, go wrong like this; nothing of the
/// question may be left there.
async fn asked(faults: &[Fault]) -> Answer {
    let store = FaultyStore::new();
    for fault in faults {
        store.next("put", fault.clone());
    }
    let way = || -> Arc<dyn Store> { Arc::<FaultyStore>::clone(&store) };
    let checksums = Checksums::new(way(), way());
    let answer = probe::verifies_checksums(&*store, &checksums, &Runtime::seeded(3)).await;
    let left = store.list(&keys::probes()).await.unwrap();
    assert!(left.is_empty(), "{faults:?} left {left:?}");
    answer.map_err(|error| error.kind)
}

#[tokio::test(start_paused = true)]
async fn only_a_store_that_refuses_what_is_damaged_and_takes_what_is_not_verifies() {
    use Fault::{Fails, FailsAfterwards, Forbidden};
    let cases: [(&[Fault], Answer); 8] = [
        (&[Fails(Refused)], Ok(true)),
        (&[], Ok(false)),
        (&[FailsAfterwards(Refused)], Ok(false)),
        (&[Fails(Refused), Fails(Refused)], Ok(false)),
        // No answers: it may have been anything.
        (&[Fails(Unavailable)], Err(Unavailable)),
        (&[Fails(Corrupt)], Err(Corrupt)),
        (&[Forbidden], Err(Refused)),
        (&[Fails(Refused), Fails(Unavailable)], Err(Unavailable)),
    ];
    for (faults, answer) in cases {
        assert_eq!(asked(faults).await, answer, "{faults:?}");
    }
}

#[test]
fn no_upload_goes_another_way_before_it_is_known_to_be_safe() {
    let checksums = || Checksums::new(FaultyStore::new(), FaultyStore::new());
    let (unknown, unsafe_, safe) = (checksums(), checksums(), checksums());
    unsafe_.settle(false);
    safe.settle(true);
    let ways = [unknown, unsafe_, safe].map(|checksums| checksums.for_uploads().is_some());
    assert_eq!(ways, [false, false, true]);
}
