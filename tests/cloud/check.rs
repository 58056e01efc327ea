//! What `check` says about a store that works and lacks something.

use std::process::Command;

use crate::fake_gcs::FakeGcs;
use crate::fake_s3::{FakeS3, Oddity};

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

/// Story: no answer to a request for objects reveals it, and buckets have it unless it is switched
/// off: what a base directory had deleted was paid for, for a week.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_notes_a_bucket_of_google_that_keeps_what_is_deleted() {
    let soft = "gcloud storage buckets update gs://BUCKET --clear-soft-delete";
    let versions = "is in a bucket with versions";
    let of = |seconds: &str| {
        format!("{{\"softDeletePolicy\": {{\"retentionDurationSeconds\": \"{seconds}\"}}}}")
    };
    for (status, settings, noted) in [
        (200, of("604800"), Some(soft)),
        (200, of("0"), None),
        (200, "{}".into(), None),
        (
            200,
            "{\"versioning\": {\"enabled\": true}}".into(),
            Some(versions),
        ),
        // Whoever may not read the settings can use the bucket all the same.
        (403, of("604800"), None),
        (200, "no JSON".into(), None),
    ] {
        let server = FakeGcs::start(status, &settings).await;
        let run = |verb: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
            command.args([verb, "--base-directory", "gs://bucket/p"]);
            for (name, value) in [
                ("endpoint", format!("http://{}", server.address)),
                ("allow_http", "true".into()),
                ("google_bearer_token", "token-7".into()),
            ] {
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
