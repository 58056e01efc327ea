//! Tests of identities and the list of members over stores that fail or ignore conditions.

use super::probes::{Conditions, Odd};
use super::*;
use crate::storage::{InitOptions, MemberState};
use crate::store::keys;

async fn error(storage: &Storage, index: usize) -> String {
    storage.probe().await[index]
        .error
        .clone()
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_create_only_conditions_needs_init() {
    let ignores: Arc<dyn Store> = Arc::new(Odd(FaultyStore::new(), Conditions::Ignored));
    let open = || {
        let base = (
            "only".parse().unwrap(),
            "only".to_owned(),
            Arc::clone(&ignores),
        );
        Storage::from_stores(vec![base], StoreLimits::REMOTE, &Runtime::seeded(3))
    };
    let refused = error(&open(), 0).await;
    for words in ["ignores create-only conditions", "stopover init"] {
        assert!(refused.contains(words), "{refused}");
    }
    let missing = ignores.get_versioned(&keys::identity()).await.unwrap_err();
    assert_eq!(missing.kind, NotFound);
    open().init(None, InitOptions::default()).await.unwrap();
    assert_eq!(error(&open(), 0).await, "");
}

#[tokio::test(start_paused = true)]
async fn daemons_that_start_together_agree_on_identity_and_members() {
    let (names, stores) = (["a", "b"], [FaultyStore::new(), FaultyStore::new()]);
    for store in &stores {
        for operation in ["get", "put", "list", "delete"] {
            store.always(operation, Fault::Late);
        }
    }
    let daemons: Vec<_> = (0..4).map(|n| unidentified(&names, &stores, n)).collect();
    join_all(daemons.iter().map(Storage::probe)).await;
    let identities = |storage: &Storage| -> Vec<_> {
        let identities = storage.identities().into_iter();
        identities.map(|(_, identity)| identity.unwrap()).collect()
    };
    for daemon in &daemons {
        // One that lost the race to create the identity reads it with its next probe.
        daemon.probe().await;
        assert_eq!(identities(daemon), identities(&daemons[0]));
        daemon.check_members().await.unwrap();
        let members = daemon.members().unwrap();
        assert_eq!(members.members.len(), 2, "{members:?}");
        assert!(
            members
                .members
                .iter()
                .all(|m| m.state == MemberState::Active)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_base_directory_that_cannot_be_reached_at_start_is_not_written_to_until_identified() {
    let (names, stores) = (["a", "b"], [FaultyStore::new(), FaultyStore::new()]);
    stores[1].always("get", Fault::Fails(Unavailable));
    let storage = unidentified(&names, &stores, 3);
    storage.probe().await;
    for n in 0..4 {
        assert_eq!(put(&storage, n).await.unwrap().base.as_str(), "a");
    }
    assert_eq!(stores[1].count("put"), 0);
    stores[1].heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(healthy(&storage), [true, true]);
    // The daemon that founded the list adds its other base directory itself.
    let used: BTreeSet<_> = [put(&storage, 5).await, put(&storage, 6).await]
        .into_iter()
        .map(|put| put.unwrap().base.to_string())
        .collect();
    assert_eq!(used.len(), 2, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_base_directory_is_empty_for_every_daemon_and_never_asked() {
    let (storage, stores) = storage(&["a", "b"]);
    let other = over(&["a", "b"], &stores, 9);
    for n in 0..2 {
        put(&storage, n).await.unwrap();
    }
    stores[1].always("get", Fault::Fails(Unavailable));
    stores[1].always("list", Fault::Fails(Unavailable));
    assert!(other.list_segments(&exchange()).await.is_err());
    let b = "b".parse().unwrap();
    storage
        .set_member(&b, MemberState::Abandoned)
        .await
        .unwrap();
    // The other daemon learns it with its next check.
    other.check_members().await.unwrap();
    stores[1].clear_log();
    for daemon in [&storage, &other] {
        let readable = daemon.list_segments(&exchange()).await.unwrap();
        assert!(
            readable
                .iter()
                .all(|found| found.address.base.as_str() == "a")
        );
        assert_eq!(put(daemon, 7).await.unwrap().base.as_str(), "a");
        daemon.check_members().await.unwrap();
    }
    assert_eq!(stores[1].log(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_an_expiry_rule_took_is_written_again_and_an_older_one_replaced() {
    let (storage, stores) = storage(&["a", "b"]);
    let before = stores[0].get_versioned(&keys::members()).await.unwrap();
    stores[0].delete(vec![keys::members()]).await.unwrap();
    stores[1].delete(vec![keys::members()]).await.unwrap();
    storage.check_members().await.unwrap();
    for store in &stores {
        let now = store.get_versioned(&keys::members()).await.unwrap();
        assert_eq!(now.bytes, before.bytes);
    }
}

/// Whether the lists of all base directories tell this time for announcements.
async fn all_tell(stores: &[Arc<FaultyStore>], seconds: u64) -> bool {
    let expected = format!("\"announcement_millis\":{}", seconds * 1000);
    let mut all = true;
    for store in stores {
        let list = store.get_versioned(&keys::members()).await.unwrap().bytes;
        all &= std::str::from_utf8(&list).unwrap().contains(&expected);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn no_daemon_writes_markers_for_longer_than_every_sweeper_knows() {
    // A daemon with a long `lease.announcement_timeout` was still writing a marker when a sweeper
    // with a short one took the first segments of that exchange for orphans.
    let (names, seconds) = (["a", "b"], Duration::from_secs);
    let (_, stores) = storage(&names);
    let daemon = |announcement, seed| {
        let daemon = unidentified(&names, &stores, seed);
        daemon.set_announcement(announcement);
        daemon
    };
    let short = daemon(seconds(5), 11);
    short.probe().await;
    assert!(all_tell(&stores, 5).await);
    stores[1].always("get", Fault::Fails(Unavailable));
    let long = daemon(seconds(90), 12);
    long.probe().await;
    assert_eq!(long.announcement(), seconds(5), "not every member was told");
    stores[1].heal();
    tokio::time::sleep(seconds(60)).await;
    assert!(all_tell(&stores, 90).await);
    assert_eq!(long.announcement(), seconds(90));
    short.check_members().await.unwrap();
    assert_eq!(short.longest_announcement(), seconds(90));
    assert_eq!(short.announcement(), seconds(5), "as it is configured");
}
