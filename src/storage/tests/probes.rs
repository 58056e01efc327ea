//! Tests of probes: whether they detect each way in which a store is unusable.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::storage;
use crate::runtime::Runtime;
use crate::storage::StoreErrorKind::Refused;
use crate::storage::{BaseStatus, InitOptions, Storage, StoreLimits, Tail};
use crate::store::keys::{Folder, Key};
use crate::store::tests::fake_s3::{FakeS3, Kind, Oddity};
use crate::store::tests::faulty::{Fault, FaultyStore};
use crate::store::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Retention, Store, StoreError,
    Versioned, if_found,
};

/// What a store does with conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditions {
    Ignored,
    /// It has none, and reports that: a condition is checked before the write.
    Checked,
    CreateRefused,
    ReplaceRefused,
    CreateNeverHolds,
    ReplaceNeverHolds,
    DeleteIgnored,
    DeleteNeverHolds,
    /// It deletes the first of many.
    OneDelete,
    NoSuffix,
}

/// A store with one fault.
#[derive(Debug)]
pub(super) struct Odd(pub Arc<FaultyStore>, pub Conditions);

impl Odd {
    async fn write(&self, key: &Key, content: Bytes) -> Result<bool> {
        self.0.put(key, vec![content]).await.map(|()| true)
    }
}

#[async_trait]
impl Store for Odd {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        self.0.put(key, content).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        use Conditions::{CreateNeverHolds, CreateRefused, ReplaceNeverHolds, ReplaceRefused};
        let refused = || Err(StoreError::new(Refused, "HTTP 400: unknown header"));
        match (self.1, expected) {
            (Conditions::Ignored, _) => self.write(key, content).await,
            (CreateRefused, Precondition::Absent) => refused(),
            (ReplaceRefused, Precondition::Version(_)) => refused(),
            (CreateNeverHolds, Precondition::Absent) => Ok(false),
            (ReplaceNeverHolds, Precondition::Version(_)) => Ok(false),
            _ => self.0.put_if(key, content, expected).await,
        }
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        match self.1 {
            Conditions::DeleteIgnored => self.0.delete_if(key, None).await,
            Conditions::DeleteNeverHolds => Ok(DeleteOutcome::Changed),
            _ => self.0.delete_if(key, version).await,
        }
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        self.0.get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let whole = if self.1 == Conditions::NoSuffix {
            1 << 20
        } else {
            max
        };
        self.0.get_tail(key, whole).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.0.get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.0.list(folder).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.0.list_folders(folder).await
    }

    async fn delete(&self, mut keys: Vec<Key>) -> Result<u64> {
        if self.1 == Conditions::OneDelete {
            keys.retain(|key| !key.as_str().is_empty());
            keys.reverse();
            keys.truncate(1);
        }
        self.0.delete(keys).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.0.remove_stale_temporaries(folder).await
    }

    fn observed(&self) -> Observed {
        Observed {
            checks_then_writes: self.1 == Conditions::Checked,
            ..Observed::default()
        }
    }
}

async fn probed(conditions: Conditions) -> (BaseStatus, Arc<FaultyStore>) {
    let inner = FaultyStore::new();
    let odd: Arc<dyn Store> = Arc::new(Odd(Arc::clone(&inner), conditions));
    let bases = vec![("odd".parse().unwrap(), "test".to_owned(), odd)];
    let storage = Storage::from_stores(bases, StoreLimits::LOCAL, &Runtime::seeded(3));
    // Without an identity, conditions that are ignored are refused before the probe.
    let _ = storage.init(None, InitOptions::default()).await;
    (storage.probe().await.remove(0), inner)
}

#[tokio::test(start_paused = true)]
async fn a_store_without_conditional_writes_is_usable_and_named() {
    for conditions in [Conditions::Ignored, Conditions::Checked] {
        let (status, _) = probed(conditions).await;
        assert!(status.healthy, "{conditions:?}: {status:?}");
        assert!(status.ignores_preconditions, "{conditions:?}");
    }
    let (storage, _) = storage(&["honours"]);
    let status = storage.probe().await.remove(0);
    assert!(status.healthy && !status.ignores_preconditions);
}

/// Story: a store that answered 400 to `If-None-Match` passed `stopover check`, and then no
/// exchange could be announced; one that did so to `If-Match` collected none. The error was
/// dropped.
#[tokio::test(start_paused = true)]
async fn each_way_in_which_conditions_fail_is_named_with_a_way_out() {
    use Conditions as C;
    let cases = [
        (
            C::CreateRefused,
            "creating, only if absent,",
            "If-None-Match",
        ),
        (
            C::ReplaceRefused,
            "replacing, only if unchanged,",
            "If-Match",
        ),
        (C::CreateNeverHolds, "because it exists", "use another"),
        (
            C::ReplaceNeverHolds,
            "because it has changed",
            "use another",
        ),
        (
            C::DeleteIgnored,
            "deleted although it had changed",
            "use another",
        ),
        (C::DeleteNeverHolds, "not deleted although", "use another"),
        (
            C::OneDelete,
            "still exists after it was deleted",
            "use another",
        ),
        (C::NoSuffix, "other content at its end", "use another"),
    ];
    for (conditions, what, way_out) in cases {
        let (status, _) = probed(conditions).await;
        let error = status.error.expect("a failure");
        assert!(
            error.contains(what) && error.contains(way_out),
            "{conditions:?}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_leaves_nothing_behind_whatever_it_finds() {
    for conditions in [
        Conditions::Ignored,
        Conditions::ReplaceRefused,
        Conditions::DeleteIgnored,
    ] {
        let (_, inner) = probed(conditions).await;
        let left = inner.list(&crate::store::keys::probes()).await.unwrap();
        assert_eq!(left, [], "{conditions:?}");
        for keep in crate::store::keys::keep() {
            assert!(if_found(inner.get_versioned(&keep).await).is_ok());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_names_the_operation_that_fails_and_what_to_do() {
    for (operation, step, advice) in [
        ("put", "writing", "able to put"),
        ("get", "reading its identity", "injected failure"),
        ("list", "listing", "able to list"),
        ("delete", "deleting", "able to delete"),
    ] {
        let (storage, stores) = storage(&["good", "bad"]);
        storage.probe().await;
        stores[1].always(operation, Fault::Fails(Refused));
        let status = storage.probe().await;
        assert!(status[0].healthy && !status[1].healthy, "{operation}");
        let error = status[1].error.clone().unwrap();
        assert!(
            error.starts_with(step) && error.contains(advice),
            "{operation}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_detects_a_store_that_returns_too_little() {
    let (storage, stores) = storage(&["only"]);
    stores[0].always("get", Fault::Short);
    let error = storage.probe().await[0].error.clone().unwrap();
    assert!(
        error.contains("other content in a range than was written"),
        "{error}"
    );
}

/// The same over HTTP: what the servers answer goes through the client of object stores.
#[tokio::test]
async fn a_server_that_does_not_implement_a_request_is_named_with_the_operation() {
    let cases = [
        (Kind::Put, 403, "writing a probe object"),
        (Kind::Create, 403, "testing create-only writes"),
        (
            Kind::Replace,
            403,
            "replacing, only if unchanged, a probe object",
        ),
        (Kind::Get, 403, "reading its identity"),
        (Kind::List, 403, "listing"),
    ];
    for (kind, status, words) in cases {
        let (base, _server) = probed_over_http(Oddity::Answers(kind, status)).await;
        let error = base
            .error
            .unwrap_or_else(|| panic!("{kind:?} {status} passes"));
        let way_out = ["must be able to", "must implement", "need permission"];
        let helps = way_out.iter().any(|words| error.contains(words));
        assert!(error.contains(words) && helps, "{kind:?} {status}: {error}");
        assert!(!base.healthy);
    }
    let (base, _server) = probed_over_http(Oddity::KeepsObjects("AccessDenied")).await;
    let error = base.error.expect("nothing was deleted");
    assert!(
        error.contains("deleting") && error.contains("AccessDenied"),
        "{error}"
    );
    let (base, _server) = probed_over_http(Oddity::NoTags).await;
    let error = base.error.expect("no version can be given");
    assert!(error.contains("no entity tags"), "{error}");
}

#[tokio::test]
async fn a_server_without_conditions_bulk_deletes_or_suffix_ranges_is_usable() {
    for (oddity, ignores) in [
        (Oddity::None, false),
        (Oddity::IgnoresConditions, true),
        (Oddity::Answers(Kind::Create, 501), true),
        (Oddity::Answers(Kind::Replace, 501), true),
        (Oddity::Answers(Kind::Replace, 400), true),
        (Oddity::Answers(Kind::Create, 405), true),
        (Oddity::Answers(Kind::Create, 400), true),
        (Oddity::Answers(Kind::Delete, 501), false),
        (Oddity::Answers(Kind::Delete, 403), false),
        (Oddity::Answers(Kind::Delete, 404), false),
        (Oddity::NoBulkDelete, false),
        (Oddity::NoSuffix, false),
        (Oddity::TagsOfWrites, false),
    ] {
        let (base, _server) = probed_over_http(oddity).await;
        assert!(base.healthy, "{oddity:?}: {base:?}");
        assert_eq!(base.ignores_preconditions, ignores, "{oddity:?}");
    }
}

#[tokio::test]
async fn a_server_whose_lists_lag_behind_is_refused() {
    for (oddity, words) in [
        (Oddity::ListsLate, "is not listed after it was written"),
        (Oddity::ListsDeleted, "is still listed after it was deleted"),
    ] {
        let (base, _server) = probed_over_http(oddity).await;
        let error = base.error.expect("a stale list");
        assert!(error.contains(words), "{error}");
        assert!(error.contains("use another one"), "{error}");
    }
}

/// Story: a probe made one kind of list. A store that refused or lost the others passed `check`;
/// then plans failed, or lacked segments, and sweeps found no exchange.
#[tokio::test]
async fn a_server_that_lacks_a_kind_of_list_that_daemons_need_is_refused() {
    for (oddity, words) in [
        (
            Oddity::RefusesInLists("delimiter"),
            ["listing, with a delimiter,", "delimiter=/"],
        ),
        (
            Oddity::RefusesInLists("start-after"),
            ["listing, from a key on,", "start-after"],
        ),
        (
            Oddity::LosesInLists("delimiter"),
            ["in a folder that is not listed", "use another one"],
        ),
        (
            Oddity::LosesInLists("start-after"),
            [
                "is not listed after a key that is before its own",
                "use another one",
            ],
        ),
    ] {
        let (base, _server) = probed_over_http(oddity).await;
        let error = base.error.unwrap_or_else(|| panic!("{oddity:?} passes"));
        for words in words {
            assert!(error.contains(words), "{oddity:?}: {error}");
        }
    }
    // More than was asked for does no harm.
    for oddity in [Oddity::IgnoresDelimiter, Oddity::IgnoresStartAfter] {
        let (base, _server) = probed_over_http(oddity).await;
        assert!(base.healthy, "{oddity:?}: {base:?}");
    }
}

#[tokio::test]
async fn only_the_first_probe_that_succeeds_makes_all_kinds_of_lists() {
    let server = FakeS3::start(Oddity::None).await;
    let storage = Storage::open(&[server.config()], &Runtime::seeded(3)).unwrap();
    storage.init(None, InitOptions::default()).await.unwrap();
    server.take_counts();
    let lists = async || {
        assert!(storage.probe().await[0].healthy);
        server.take_counts()[0]
    };
    let (first, second) = (lists().await, lists().await);
    assert_eq!(first, second + 2);
    assert_eq!(second, lists().await);
}

#[tokio::test]
async fn a_bucket_that_keeps_what_is_deleted_works_and_is_named() {
    for (oddity, retention) in [
        (Oddity::None, None),
        (Oddity::Versions, Some(Retention::Versions)),
        (Oddity::Locks, Some(Retention::ObjectLock)),
    ] {
        let (base, _server) = probed_over_http(oddity).await;
        assert!(base.healthy, "{oddity:?}: {base:?}");
        assert_eq!(base.retention, retention, "{oddity:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_wants_checksums_names_the_option() {
    let (base, _server) = probed_over_http(Oddity::WantsChecksum).await;
    let error = base.error.expect("an upload without a checksum");
    assert!(error.contains("upload_checksum = \"crc64nvme\""), "{error}");
}

async fn probed_over_http(oddity: Oddity) -> (BaseStatus, FakeS3) {
    let server = FakeS3::start(oddity).await;
    let storage = Storage::open(&[server.config()], &Runtime::seeded(3)).unwrap();
    // Without an identity, conditions that are ignored are refused before the probe.
    let _ = storage.init(None, InitOptions::default()).await;
    (storage.probe().await.remove(0), server)
}
