//! What `check` says about a store that works and lacks something.

use std::process::Command;

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
