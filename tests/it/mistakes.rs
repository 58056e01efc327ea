//! Mistakes of an operator, made with real processes: what is said about each, and the exit code.
//!
//! Story: each was made by hand, and the message led away from the cause.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use reqwest::{Client, StatusCode};

use crate::process::{announce, finish, write};
use crate::support::process::Process;

fn stopover(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

/// Runs a script in which `$0` is the program and `$1` a folder.
fn script(text: &str, folder: &std::path::Path) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", text, env!("CARGO_BIN_EXE_stopover")]);
    command.arg(folder).stdin(Stdio::null()).output().unwrap()
}

/// What was printed to stderr, by a command that ended with this code.
fn said(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn too_few_open_files_are_named_before_anything_fails_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let serve = "ulimit -n 9; exec \"$0\" serve --listen 127.0.0.1:0 --base-directory \"$1\"";
    let text = said(&script(serve, folder.path()), 1);
    assert_has(&text, &["only 9 files", "LimitNOFILE", "ulimit -n"]);
    assert!(!text.contains("address"), "{text}");
}

#[test]
fn a_probe_of_a_daemon_that_accepts_and_stays_silent_says_that_it_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let text = said(&stopover(&["health", "--address", &address]), 1);
    assert_has(&text, &["nothing came within 3 s", "hangs"]);
}

#[tokio::test]
async fn a_drain_that_runs_out_of_time_is_told_by_the_exit_code() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let daemon = Process::start(folder.path(), &["--set", "server.drain_timeout=200ms"]);
    announce(&http, &daemon, "q-1").await;
    write(&http, &daemon, "q-1", 0, b"never finished").await;
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(3), "a sink was cut off");
}

#[tokio::test]
async fn a_collection_without_a_terminal_says_how_far_it_is() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let lease = ["--set=lease.duration=20s", "--set=lease.sweep_interval=1s"];
    let daemon = Process::start(folder.path(), &lease);
    announce(&http, &daemon, "q-1").await;
    write(&http, &daemon, "q-1", 0, b"of a cluster that died").await;
    assert_eq!(finish(&http, &daemon, "q-1", 0).await, StatusCode::OK);
    daemon.kill();
    let base = format!("file://{}", folder.path().display());
    let gc = ["gc", "--dry-run", "--watch=10s", "--base-directory", &base];
    let text = said(&stopover(&[&gc[..], &lease].concat()), 0);
    assert_has(&text, &["watching 1 exchange for 10s"]);
    let lines = text
        .lines()
        .filter(|line| line.starts_with("stopover: watched ") && line.ends_with("s of 10s"));
    assert!(lines.count() >= 2, "{text}");
}

#[test]
fn a_wrong_option_of_a_base_directory_is_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stopover.toml");
    let text = "[[base_directory]]\nuri = \"s3://bucket/p\"\nregoin = \"eu-central-1\"\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    for command in ["check", "serve", "gc"] {
        let text = said(&stopover(&[command, "--config", path]), 2);
        assert_has(&text, &[&format!("{path}:3"), "regoin", "region"]);
    }
}

#[test]
fn a_relative_path_in_a_working_directory_that_was_deleted_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = "mkdir \"$1/gone\" && cd \"$1/gone\" && rmdir \"$1/gone\" && \
                 exec \"$0\" check --base-directory ./spool-of-a-test";
    let text = said(&script(check, folder.path()), 2);
    assert_has(&text, &["working directory does not exist"]);
    assert!(!std::path::Path::new("/spool-of-a-test").exists());
}
