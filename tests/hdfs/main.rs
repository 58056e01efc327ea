//! The conformance suite and HDFS's own behaviour over a real HDFS.
//!
//! `STOPOVER_TEST_HADOOP` names the folder of Hadoop's jars, `STOPOVER_TEST_KDC` that of a KDC's,
//! `STOPOVER_TEST_KINIT` Kerberos' `kinit`, `STOPOVER_TEST_JDK` a JDK. Without them every test here
//! fails: a suite that silently skips its subject proves nothing.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod claims;
mod cluster;
mod damage;
#[path = "../it/support/frames.rs"]
#[allow(dead_code)] // not all of it is used here
mod frames;
mod kerberos;
#[path = "../it/support/process.rs"]
#[allow(dead_code)] // not all of it is used here
mod process;
mod smoke;
#[path = "../storage_conformance/mod.rs"]
mod storage_conformance;
mod wire;

use cluster::Cluster;
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store::keys;
use stopover::store::open::open_all;

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_conforms_and_only_what_is_permanent_remains() {
    let cluster = Cluster::start(&["--datanodes", "1"]);
    let mut base = cluster.base("/some/base");
    // A NameNode and a DataNode that have just started on a busy machine answer slowly.
    base.options.insert("timeout".into(), "2m".into());
    let storage = Storage::open(std::slice::from_ref(&base), &Runtime::seeded(7)).unwrap();
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while !storage.probe().await[0].healthy {
        let status = storage.status();
        assert!(std::time::Instant::now() < give_up, "{status:?}");
    }
    storage_conformance::all(&storage).await;
    let opened = open_all(&[base], &Runtime::seeded(8)).unwrap();
    let left = opened[0].opened.store.list(&keys::root()).await.unwrap();
    let mut left: Vec<_> = left
        .into_iter()
        .map(|found| found.key.to_string())
        .collect();
    left.sort();
    assert_eq!(left, ["v2/identity", "v2/members"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_nodes_that_fail_lose_nothing() {
    let mut cluster = Cluster::start(&["--datanodes", "2"]);
    claims::all(&mut cluster).await;
    claims::a_killed_data_node_loses_nothing(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nameservice_survives_one_of_its_name_nodes() {
    let mut cluster = Cluster::start(&["--datanodes", "1", "--ha"]);
    claims::the_other_name_node_takes_over(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_in_and_comes_out_with_curl() {
    let cluster = Cluster::start(&["--datanodes", "2"]);
    let uri = cluster.base("/smoke/base").uri;
    smoke::passes(&format!("[[base_directory]]\nuri = \"{uri}\"\n"), &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_between_a_daemon_and_a_disk_is_acknowledged_or_served() {
    damage::all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_over_a_slow_way_to_the_data_nodes_may_take_as_long_as_it_needs() {
    damage::a_slow_way_is_waited_for().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keytab_signs_in_and_whoever_has_none_is_told_what_to_set() {
    kerberos::all("authentication");
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_use_the_tickets_of_a_cache_and_tell_when_they_have_expired() {
    kerberos::tickets();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kdc_that_is_silent_keeps_no_request_and_no_other_base_directory_waiting() {
    kerberos::a_silent_kdc();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kerberos_protects_is_encrypted_where_the_cluster_wants_that() {
    kerberos::all("privacy");
}
