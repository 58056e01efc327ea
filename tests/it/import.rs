//! `stopover import`: files as people have them become configurations that a daemon accepts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const FILE: &str = "\
# written by the official Helm chart
exchange-manager.name=filesystem
exchange.base-directories=s3://acme-fte-a,s3://acme-fte-b
exchange.s3.region=us-east-1
exchange.s3.aws-access-key=AKIAEXAMPLE
exchange.s3.aws-secret-key=c2VjcmV0
exchange.s3.max-error-retries=10
exchange.sink-buffers-per-partition=2
exchange.max-output-partition-count=100
";

fn run(file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.arg("import").arg(file).args(more);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_written_is_accepted_by_the_daemon_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("given.properties");
    std::fs::write(&input, FILE).unwrap();
    let output = folder.path().to_str().unwrap().to_owned();
    let first = run(&input, &["--output", &output]);
    assert!(first.status.success(), "{first:?}");
    let said = text(&first.stdout);
    for part in [
        "line 7: exchange.s3.max-error-retries: no counterpart",
        "line 8: exchange.sink-buffers-per-partition: no counterpart",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(
        !said.contains("c2VjcmV0") && !said.contains("refuses"),
        "{said}"
    );
    let daemon = folder.path().join("stopover.toml");
    let mode = std::fs::metadata(&daemon).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut check = Command::new(env!("CARGO_BIN_EXE_stopover"));
    check.arg("check").arg("--config").arg(&daemon);
    // The buckets do not exist; what matters is that the settings are accepted.
    check.args(["--set", "base_directory.0.endpoint=http://127.0.0.1:9"]);
    check.args(["--set", "base_directory.0.allow_http=true"]);
    check.args(["--set", "base_directory.1.endpoint=http://127.0.0.1:9"]);
    check.args(["--set", "base_directory.1.allow_http=true"]);
    check.args(["--set", "base_directory.0.timeout=100ms"]);
    check.args(["--set", "base_directory.1.timeout=100ms"]);
    let checked = check.output().unwrap();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let settings = text(&checked.stdout);
    assert!(
        settings.contains("limits.max_partitions = 100 "),
        "{settings}"
    );
    let again = run(&input, &["--output", &output]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("stopover.toml"), "{again:?}");
}

#[test]
fn without_a_folder_both_files_are_printed_and_secrets_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("given.properties");
    std::fs::write(&input, FILE).unwrap();
    let printed = run(&input, &[]);
    let said = text(&printed.stdout);
    assert!(
        printed.status.success() && !said.contains("c2VjcmV0"),
        "{said}"
    );
    for part in [
        "uri = \"s3://acme-fte-b\"",
        "exchange-manager.name=stopover",
        "***",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn hdfs_keeps_its_uris_and_the_files_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("given.properties");
    let given = "exchange-manager.name=hdfs\n\
                 exchange.base-directories=hdfs://nn/spool/,viewfs://table/x\n\
                 hdfs.config.resources=/etc/hadoop/core-site.xml,/etc/hadoop/hdfs-site.xml\n";
    std::fs::write(&input, given).unwrap();
    let printed = run(&input, &[]);
    let said = text(&printed.stdout);
    assert!(printed.status.success(), "{said}");
    let files = "config_files = \"/etc/hadoop/core-site.xml,/etc/hadoop/hdfs-site.xml\"";
    assert_eq!(said.matches(files).count(), 2, "{said}");
    for uri in ["uri = \"hdfs://nn/spool\"", "uri = \"viewfs://table/x\""] {
        assert!(said.contains(uri), "{uri}: {said}");
    }
    assert!(!said.contains("refuses the result"), "{said}");
}

#[test]
fn a_file_that_is_not_trinos_is_refused_with_what_to_give() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("given.properties");
    for (content, expected) in [
        (
            "exchange-manager.name=stopover\n",
            "neither filesystem nor hdfs",
        ),
        ("", "exchange.base-directories"),
    ] {
        std::fs::write(&input, content).unwrap();
        let refused = run(&input, &[]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(expected), "{refused:?}");
    }
    let missing = run(&folder.path().join("absent"), &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("absent"), "{missing:?}");
}
