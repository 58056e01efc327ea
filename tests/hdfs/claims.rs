//! What a base directory on HDFS does when writers, DataNodes and NameNodes fail.
//!
//! Does: one function for each claim, over a running HDFS. Does not: start it. Invariant: each uses
//! a folder of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdfs_native::{Client, ClientBuilder, WriteOptions};
use stopover::id::{DaemonId, ExchangeId, SegmentId};
use stopover::runtime::Runtime;
use stopover::store::keys::{self, Key};
use stopover::store::open::open_all;
use stopover::store::{DeleteOutcome, Precondition, Store, StoreError, StoreErrorKind};

use crate::cluster::{Cluster, base};

fn store(config: stopover::config::BaseDirectoryConfig) -> Arc<dyn Store> {
    let opened = open_all(&[config], &Runtime::system()).unwrap();
    Arc::clone(&opened[0].opened.store)
}

fn exchange() -> ExchangeId {
    "query_1-x".parse().unwrap()
}

fn segment(sequence: u64) -> Key {
    let daemon = DaemonId(7);
    keys::segment(&exchange(), SegmentId { daemon, sequence })
}

fn marker() -> Key {
    keys::marker(&exchange())
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// Whether the precondition held.
async fn put_marker(store: &Arc<dyn Store>, content: &str, expected: &Precondition) -> bool {
    store
        .put_if(&marker(), bytes(content), expected)
        .await
        .unwrap()
}

/// A client of its own, as another process has.
fn raw(cluster: &Cluster) -> Client {
    let url = format!("hdfs://127.0.0.1:{}", cluster.name_nodes[0]);
    ClientBuilder::new().with_url(url).build().unwrap()
}

async fn names(client: &Client, path: &str) -> Vec<String> {
    let listed = client.list_status(path, true).await.unwrap();
    listed.into_iter().map(|found| found.path).collect()
}

pub async fn all(cluster: &mut Cluster) {
    objects_are_read_listed_and_deleted(cluster).await;
    one_of_many_conditional_writes_succeeds(cluster).await;
    a_killed_writer_neither_blocks_nor_undoes_others(cluster).await;
    a_removed_object_does_not_come_back(cluster).await;
    temporaries_of_dead_writers_are_removed_and_those_of_others_stay(cluster).await;
    what_others_wrote_is_never_touched(cluster).await;
    what_is_acknowledged_is_on_disks(cluster).await;
    faults_are_told_with_the_way_out(cluster).await;
    what_failed_puts_left_is_removed_however_often_that_fails(cluster).await;
    a_name_node_that_restarts_loses_nothing(cluster).await;
}

pub async fn objects_are_read_listed_and_deleted(cluster: &mut Cluster) {
    let store = store(cluster.base("/objects/base dir"));
    let parts = vec![bytes("some "), Bytes::new(), bytes("bytes")];
    store.put(&segment(1), parts).await.unwrap();
    store
        .put(&segment(1), vec![bytes("other bytes")])
        .await
        .unwrap();
    store.put(&segment(2), vec![]).await.unwrap();
    let tail = store.get_tail(&segment(1), 5).await.unwrap();
    assert_eq!((&tail.bytes[..], tail.object_size), (&b"bytes"[..], 11));
    assert_eq!(store.get_tail(&segment(2), 5).await.unwrap().object_size, 0);
    assert_eq!(store.get_range(&segment(1), 1..4).await.unwrap(), "the");
    let beyond = store.get_range(&segment(1), 5..12).await.unwrap_err();
    assert_eq!(beyond.kind, StoreErrorKind::Corrupt);
    let missing = store.get_tail(&segment(9), 5).await.unwrap_err();
    assert_eq!(missing.kind, StoreErrorKind::NotFound, "{missing}");
    let missing = store.get_versioned(&marker()).await.unwrap_err();
    assert_eq!(missing.kind, StoreErrorKind::NotFound, "{missing}");
    store.put(&marker(), vec![bytes("mark")]).await.unwrap();
    let mut listed = store.list(&keys::all()).await.unwrap();
    listed.sort_by(|a, b| a.key.cmp(&b.key));
    let listed: Vec<_> = listed
        .into_iter()
        .map(|found| (found.key, found.size))
        .collect();
    assert_eq!(listed, [(marker(), 4), (segment(1), 11), (segment(2), 0)]);
    assert_eq!(
        store
            .list_folders(&keys::all_segments())
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(store.first_keys(2).await.unwrap().len(), 2);
    let all = vec![segment(1), segment(2), segment(3), marker()];
    assert_eq!(store.delete(all.clone()).await.unwrap(), 3);
    assert_eq!(store.delete(all).await.unwrap(), 0);
    assert_eq!(store.list(&keys::all()).await.unwrap(), []);
    let folders = store.list_folders(&keys::all_segments()).await.unwrap();
    assert!(folders.is_empty(), "{folders:?}");
}

pub async fn one_of_many_conditional_writes_succeeds(cluster: &mut Cluster) {
    let stores: Vec<_> = (0..4).map(|_| store(cluster.base("/race"))).collect();
    let won = async |round: &str, expected: &Precondition| {
        let puts = stores.iter().enumerate().map(|(n, store)| async move {
            let content = bytes(&format!("{round} of {n}"));
            store.put_if(&marker(), content, expected).await.unwrap()
        });
        let won = futures::future::join_all(puts).await;
        won.into_iter().filter(|won| *won).count()
    };
    assert_eq!(won("first", &Precondition::Absent).await, 1);
    assert_eq!(won("again", &Precondition::StrictlyAbsent).await, 0);
    for round in 0..20 {
        let found = stores[0].get_versioned(&marker()).await.unwrap();
        let expected = Precondition::Version(found.version.clone());
        assert_eq!(won(&format!("round {round}"), &expected).await, 1);
        let now = stores[1].get_versioned(&marker()).await.unwrap();
        assert!(now.version != found.version && now.bytes != found.bytes);
        let listed = stores[2].list(&keys::markers()).await.unwrap();
        assert_eq!(listed[0].entity_tag.as_ref(), Some(&now.entity_tag));
        let stale = stores[3]
            .delete_if(&marker(), Some(&found.version))
            .await
            .unwrap();
        assert_eq!(stale, DeleteOutcome::Changed);
    }
    let found = stores[0].get_versioned(&marker()).await.unwrap();
    let (key, version) = (marker(), Some(found.version.as_str()));
    let deletes = stores.iter().map(|store| store.delete_if(&key, version));
    let deleted = futures::future::join_all(deletes).await;
    let removed =
        |outcome: &Result<_, StoreError>| *outcome.as_ref().unwrap() == DeleteOutcome::Removed;
    assert_eq!(deleted.iter().filter(|outcome| removed(outcome)).count(), 1);
    let reopened = won("late", &Precondition::Version(found.version)).await;
    assert_eq!(reopened, 0, "a version that was removed does not come back");
}

/// A daemon that is killed, or stopped for any time, after it has written the content of a new
/// version and before it renames.
pub async fn a_killed_writer_neither_blocks_nor_undoes_others(cluster: &mut Cluster) {
    let (store, client) = (store(cluster.base("/killed")), raw(cluster));
    assert!(put_marker(&store, "one", &Precondition::Absent).await);
    let one = store.get_versioned(&marker()).await.unwrap();
    let folder = format!("/killed/{}", marker());
    // What such a daemon leaves: content that names the version that it would replace.
    let after = stopover::store::stable_hash(&[one.version.as_bytes()]);
    let killed = format!("{:016x}-{:x}-{:x}-{after:016x}", 99, 0, 3);
    let file = format!("{folder}/{}/{killed}", one.version);
    let mut writer = client.create(&file, WriteOptions::default()).await.unwrap();
    writer.write_bytes(bytes("bad")).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(store.get_versioned(&marker()).await.unwrap(), one);
    // While it may still be renamed, it stays.
    assert_eq!(
        store.remove_stale_temporaries(&keys::all()).await.unwrap(),
        0
    );
    let expected = Precondition::Version(one.version.clone());
    assert!(put_marker(&store, "two", &expected).await);
    // It is resumed, and goes on.
    let (from, to) = (
        format!("{folder}/{}", one.version),
        format!("{folder}/{killed}"),
    );
    client.rename(&from, &to, false).await.unwrap_err();
    let two = store.get_versioned(&marker()).await.unwrap();
    assert_eq!(two.bytes, "two");
    assert_eq!(
        store.remove_stale_temporaries(&keys::all()).await.unwrap(),
        1
    );
    let left = names(&client, &folder).await;
    assert_eq!(left.len(), 2, "one version and its content: {left:?}");
    assert_eq!(store.get_versioned(&marker()).await.unwrap(), two);
}

/// The same, with a removal in between.
pub async fn a_removed_object_does_not_come_back(cluster: &mut Cluster) {
    let (store, client) = (store(cluster.base("/removed")), raw(cluster));
    assert!(put_marker(&store, "one", &Precondition::Absent).await);
    let one = store.get_versioned(&marker()).await.unwrap();
    // A remover that was killed before it removed the folder of the object.
    let folder = format!("/removed/{}", marker());
    assert!(
        client
            .delete(&format!("{folder}/{}", one.version), true)
            .await
            .unwrap()
    );
    assert_eq!(store.list(&keys::all()).await.unwrap(), []);
    let expected = Precondition::Version(one.version.clone());
    assert!(!put_marker(&store, "late", &expected).await);
    let outcome = store
        .delete_if(&marker(), Some(&one.version))
        .await
        .unwrap();
    assert_eq!(outcome, DeleteOutcome::Absent);
    // What it left is not in the way.
    assert!(put_marker(&store, "new", &Precondition::Absent).await);
    assert_eq!(store.get_versioned(&marker()).await.unwrap().bytes, "new");
}

pub async fn temporaries_of_dead_writers_are_removed_and_those_of_others_stay(
    cluster: &mut Cluster,
) {
    let store = store(cluster.base("/stale"));
    store.put(&segment(1), vec![bytes("kept")]).await.unwrap();
    let temporary = |n: u64| format!("/stale/{}{}", segment(n), keys::temporary_suffix(n, n));
    let client = raw(cluster);
    let closed = client.create(&temporary(2), WriteOptions::default()).await;
    closed.unwrap().close().await.unwrap();
    let of_one_writer = [0, 1].map(|n| {
        let suffix = keys::temporary_suffix(3, n);
        format!("/stale/{}{suffix}", segment(3 + n))
    });
    let mut open = Vec::new();
    for path in &of_one_writer {
        let writing = client.create(path, WriteOptions::default()).await;
        let mut writing = writing.unwrap();
        writing.write_bytes(bytes("content")).await.unwrap();
        writing.hsync().await.unwrap();
        open.push(writing);
    }
    let listed = store.list(&keys::all()).await.unwrap();
    assert_eq!(listed.len(), 1, "temporaries are no objects: {listed:?}");
    assert_eq!(
        store.remove_stale_temporaries(&keys::all()).await.unwrap(),
        1
    );
    // Its writer falls silent.
    cluster.run("lease-limit 1000");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut removed = 0;
    for _ in 0..20 {
        removed += store.remove_stale_temporaries(&keys::all()).await.unwrap();
        if removed > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cluster.run("lease-limit 60000");
    // Both at once: the test of the first one renews the lease of both.
    assert_eq!(removed, 2);
    drop(open);
    let left = store.get_tail(&segment(1), 10).await.unwrap();
    assert_eq!(&left.bytes[..], b"kept");
}

pub async fn what_others_wrote_is_never_touched(cluster: &mut Cluster) {
    let (store, client) = (store(cluster.base("/foreign")), raw(cluster));
    let of_exchange = format!("{}/notes.txt", keys::segments(&exchange()));
    let foreign = [
        "README",
        "v2/markers/README",
        "v2/foo/bar.txt",
        "v2/segments/other/000000000000feed-000000000001.seg",
        &format!("{}/notes", marker()),
        &of_exchange,
    ];
    for name in foreign {
        let path = format!("/foreign/{name}");
        let file = client.create(&path, WriteOptions::default()).await;
        file.unwrap().close().await.unwrap();
    }
    let refused = store
        .put_if(&marker(), bytes("mine"), &Precondition::Absent)
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Refused, "{refused}");
    store.put(&segment(1), vec![bytes("mine")]).await.unwrap();
    store.delete(vec![segment(1), marker()]).await.unwrap();
    store.remove_stale_temporaries(&keys::root()).await.unwrap();
    for name in foreign {
        client
            .get_file_info(&format!("/foreign/{name}"))
            .await
            .unwrap();
    }
}

pub async fn what_is_acknowledged_is_on_disks(cluster: &mut Cluster) {
    let store = store(cluster.base("/durable"));
    let before: u64 = cluster.run("syncs").parse().unwrap();
    store
        .put(&segment(1), vec![bytes("content")])
        .await
        .unwrap();
    let after: u64 = cluster.run("syncs").parse().unwrap();
    assert!(after > before, "no DataNode has synced: {before}, {after}");
}

pub async fn faults_are_told_with_the_way_out(cluster: &mut Cluster) {
    let put = async |config| store(config).put(&segment(1), vec![bytes("x")]).await;
    let failed = async |config, kind, part: &str| {
        let error: StoreError = put(config).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(part), "{part}: {text}");
        assert_eq!(error.kind, kind, "{text}");
    };
    use StoreErrorKind::{Refused, Unavailable};
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let wrong = base(&format!("hdfs://{nobody}/x"), &[]);
    failed(wrong, Unavailable, "that of the NameNode's RPC (8020").await;
    let unknown = base("hdfs://no-such-host.invalid/x", &[]);
    failed(unknown, Unavailable, "if it is a nameservice").await;
    cluster.run("mkdir /private");
    cluster.run("chmod 700 /private");
    let uri = cluster.base("/private/x").uri;
    let other = base(&uri, &[("user", "somebody")]);
    failed(other, Refused, "give the daemon's HDFS user the right").await;
    cluster.run("enter-safe-mode");
    failed(cluster.base("/safe"), Unavailable, "-safemode leave").await;
    cluster.run("leave-safe-mode");
    cluster.run("mkdir /few");
    cluster.run("space-quota 1000 /few");
    let full = put(cluster.base("/few/x")).await.unwrap_err();
    assert!(
        full.full && full.to_string().contains("raise the quota"),
        "{full}"
    );
}

/// Found by the soak: where the NameNode was away when several puts had failed, all but the first
/// were forgotten. As the process lives and renews its leases, no sweep ever found them abandoned.
pub async fn what_failed_puts_left_is_removed_however_often_that_fails(cluster: &mut Cluster) {
    let store = store(cluster.base("/left"));
    let put = async |n| store.put(&segment(n), vec![bytes("x")]).await;
    put(0).await.unwrap();
    cluster.run("space-quota 1000 /left");
    let failed = futures::future::join_all((1..5).map(put)).await;
    assert!(failed.iter().all(Result::is_err), "{failed:?}");
    cluster.run("enter-safe-mode");
    for n in 5..7 {
        put(n).await.unwrap_err();
    }
    cluster.run("leave-safe-mode");
    cluster.run("space-quota -1 /left");
    put(7).await.unwrap();
    let folder = format!("/left/{}", keys::segments(&exchange()));
    let mut left = names(&raw(cluster), &folder).await;
    left.retain(|name| !name.ends_with(".seg"));
    assert_eq!(left, [] as [&str; 0]);
}

pub async fn a_name_node_that_restarts_loses_nothing(cluster: &mut Cluster) {
    let store = store(cluster.base("/restart"));
    store
        .put(&segment(1), vec![bytes("content")])
        .await
        .unwrap();
    assert!(put_marker(&store, "mark", &Precondition::Absent).await);
    let before = store.get_versioned(&marker()).await.unwrap();
    cluster.run("restart-namenode 0");
    let give_up = std::time::Instant::now() + Duration::from_secs(120);
    let after = loop {
        match store.get_versioned(&marker()).await {
            Ok(found) => break found,
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
                assert!(std::time::Instant::now() < give_up, "{error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    assert_eq!(before, after);
    assert_eq!(
        &store.get_tail(&segment(1), 9).await.unwrap().bytes[..],
        b"content"
    );
    let expected = Precondition::Version(after.version);
    assert!(put_marker(&store, "more", &expected).await);
}

/// One of two DataNodes is killed, and comes back.
pub async fn a_killed_data_node_loses_nothing(cluster: &mut Cluster) {
    let store = store(cluster.base("/datanode"));
    let content = vec![Bytes::from(vec![7; 1 << 20])];
    for n in 0..4 {
        store.put(&segment(n), content.clone()).await.unwrap();
    }
    cluster.run("stop-datanode");
    for n in 0..4 {
        let tail = store.get_tail(&segment(n), 1 << 20).await.unwrap();
        assert_eq!(tail.bytes, content[0], "{n}");
    }
    // Until the NameNode knows, it names the dead one for new blocks, and the client does not ask
    // for others (docs/decisions/storage-hdfs.md): such a put fails, and says that it may be
    // retried.
    let give_up = std::time::Instant::now() + Duration::from_secs(120);
    while let Err(error) = store.put(&segment(4), content.clone()).await {
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
        assert!(std::time::Instant::now() < give_up, "{error}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cluster.run("start-datanode");
    store.put(&segment(9), content.clone()).await.unwrap();
    for found in store.list(&keys::segments(&exchange())).await.unwrap() {
        let tail = store.get_tail(&found.key, 1 << 20).await.unwrap();
        assert_eq!(tail.bytes, content[0], "{}", found.key);
    }
}

/// With two NameNodes: the active one is stopped, the other one activated.
pub async fn the_other_name_node_takes_over(cluster: &mut Cluster) {
    let uri = "hdfs://spool/ha/base";
    let folder = cluster.folder.path().join("conf");
    std::fs::create_dir_all(&folder).unwrap();
    let property = |name: &str, value: &str| {
        format!("<property><name>{name}</name><value>{value}</value></property>")
    };
    let mut text = property("dfs.nameservices", "spool");
    text += &property("dfs.ha.namenodes.spool", "nn1, nn2");
    for (id, port) in ["nn1", "nn2"].iter().zip(&cluster.name_nodes) {
        let name = format!("dfs.namenode.rpc-address.spool.{id}");
        text += &property(&name, &format!("127.0.0.1:{port}"));
    }
    text += &property("fs.viewfs.mounttable.table.link./spool", "hdfs://spool/ha");
    let text = format!("<configuration>{text}</configuration>");
    std::fs::write(folder.join("hdfs-site.xml"), text).unwrap();
    let options = [("config_dir", folder.to_str().unwrap()), ("timeout", "9s")];
    let (direct, mounted) = (
        store(base(uri, &options)),
        store(base("viewfs://table/spool/base", &options)),
    );
    direct
        .put(&segment(1), vec![bytes("content")])
        .await
        .unwrap();
    assert!(put_marker(&mounted, "one", &Precondition::Absent).await);
    cluster.run("stop-namenode 0");
    cluster.run("activate 1");
    for store in [&direct, &mounted] {
        assert_eq!(
            &store.get_tail(&segment(1), 9).await.unwrap().bytes[..],
            b"content"
        );
        let found = store.get_versioned(&marker()).await.unwrap();
        let expected = Precondition::Version(found.version);
        let content = Bytes::from([&found.bytes[..], b"+"].concat());
        assert!(store.put_if(&marker(), content, &expected).await.unwrap());
    }
    let both = open_all(
        &[
            base(uri, &options),
            base("viewfs://table/spool/base", &options),
        ],
        &Runtime::system(),
    );
    let error = both.unwrap_err().to_string();
    assert!(error.contains("is the same location as"), "{error}");
    let misspelt = open_all(&[base("hdfs://spol/x", &options)], &Runtime::system());
    let error = misspelt.unwrap_err().to_string();
    assert!(error.contains("did you mean spool?"), "{error}");
    cluster.run("deactivate 1");
    let error = direct.put(&segment(2), vec![bytes("x")]).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("NameNode"), "{error}");
}
