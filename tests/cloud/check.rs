//! What `check` and a starting daemon say about a store that works and lacks something.

use std::process::Command;
use std::time::{Duration, Instant};

use stopover::runtime::Runtime;
use stopover::store::open::open_all;
use stopover::store::{Retention, keys};

use crate::base;
use crate::fake_gcs::FakeGcs;
use crate::fake_s3::{FakeS3, Oddity};
use crate::process::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_notes_a_store_without_conditional_writes_and_no_other() {
    for (oddity, is_noted) in [(Oddity::IgnoresConditions, true), (Oddity::None, false)] {
        let server = FakeS3::start(oddity).await;
        let run = |verb: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
            command.args([verb, "--base-directory", "s3://bucket/p"]);
            for (name, value) in server.config().options {
                command.arg(format!("--set=base_directory.0.{name}={}", value.expose()));
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{verb}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run("init");
        let printed = run("check");
        let note = "does not implement conditional writes: an exchange that is renewed";
        assert_eq!(printed.contains(note), is_noted, "{oddity:?}: {printed}");
    }
}

/// The settings of a bucket that keeps what is deleted for so long.
fn kept(seconds: &str) -> String {
    format!("{{\"softDeletePolicy\": {{\"retentionDurationSeconds\": \"{seconds}\"}}}}")
}

fn options(server: &FakeGcs) -> [(&'static str, String); 3] {
    [
        ("endpoint", format!("http://{}", server.address)),
        ("allow_http", "true".into()),
        ("google_bearer_token", "token-7".into()),
    ]
}

/// Story: no answer to a request for objects reveals it, and buckets have it unless it is switched
/// off: what a base directory had deleted was paid for, for a week.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_notes_a_bucket_of_google_that_keeps_what_is_deleted() {
    let soft = "gcloud storage buckets update gs://BUCKET --clear-soft-delete";
    let versions = "is in a bucket with versions";
    for (status, settings, noted) in [
        (200, kept("604800"), Some(soft)),
        (200, kept("0"), None),
        (200, "{}".into(), None),
        (
            200,
            "{\"versioning\": {\"enabled\": true}}".into(),
            Some(versions),
        ),
        // Whoever may not read the settings can use the bucket all the same.
        (403, kept("604800"), None),
        (200, "no JSON".into(), None),
    ] {
        let delay = Duration::from_millis(300);
        let server = FakeGcs::start(status, &settings, delay).await;
        let run = |verb: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
            command.args([verb, "--base-directory", "gs://bucket/p"]);
            for (name, value) in options(&server) {
                command.arg(format!("--set=base_directory.0.{name}={value}"));
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{verb}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run("init");
        let before = server.asked().len();
        let printed = run("check");
        for note in [soft, versions] {
            let expected = noted == Some(note);
            assert_eq!(printed.contains(note), expected, "{settings}: {printed}");
        }
        assert_eq!(server.asked()[before..], ["Bearer token-7"], "{settings}");
    }
}

/// Story: the first delete waited for the settings, for up to five seconds, and so did a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delete_waits_for_the_settings_of_its_bucket() {
    let server = FakeGcs::start(200, &kept("604800"), Duration::from_secs(3)).await;
    let options = options(&server);
    let options = options.each_ref().map(|(name, value)| (*name, &**value));
    let opened = open_all(&[base("gs://bucket/p", &options)], &Runtime::seeded(1)).unwrap();
    let (store, begun) = (&opened[0].opened.store, Instant::now());
    store.delete(vec![keys::probe(1)]).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(store.observed().retention, None);
    while store.observed().retention.is_none() {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(30), "{:?}", server.asked());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let retention = store.observed().retention;
    assert_eq!(retention, Some(Retention::BucketSoftDelete));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_warns_of_what_a_store_reveals_after_its_start() {
    let server = FakeGcs::start(200, &kept("604800"), Duration::from_secs(1)).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--base-directory", "gs://bucket/p"]);
    for (name, value) in options(&server) {
        command.arg(format!("--set=base_directory.0.{name}={value}"));
    }
    command.stderr(std::fs::File::create(&log).unwrap());
    let (_daemon, begun) = (Process::spawn(command), Instant::now());
    loop {
        let said = std::fs::read_to_string(&log).unwrap();
        if said.contains("--clear-soft-delete") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
