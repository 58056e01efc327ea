//! Claims about the command line: what an operator types, what is printed, and the exit codes.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::process::{announce, finish, write};
use crate::support::process::{Guarded, Process};

const ID: &str = "20261123_120000_00001_abcde-67e55044-10b1-426f-9247-bb680e5fe0c8";
const TOKEN: &str = "operator-token-0123456789";

fn stopover(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must succeed; its output.
fn printed(arguments: &[&str]) -> String {
    let output = stopover(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn refused(arguments: &[&str], code: i32) -> String {
    let output = stopover(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    said
}

async fn daemon_with_an_exchange(folder: &std::path::Path, more: &[&str]) -> Process {
    let (daemon, http) = (Process::start(folder, more), Client::new());
    announce(&http, &daemon, ID).await;
    for task in 0..3 {
        write(&http, &daemon, ID, task, b"some page").await;
        assert_eq!(finish(&http, &daemon, ID, task).await, StatusCode::OK);
    }
    daemon
}

#[tokio::test]
async fn exchanges_are_listed_and_shown_by_a_daemon_and_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon_with_an_exchange(folder.path(), &[]).await;
    let address = daemon.url.strip_prefix("http://").unwrap();
    let table = printed(&["exchanges", "--address", address]);
    let row = table.lines().nth(1).unwrap();
    assert!(row.starts_with("open") && row.ends_with(ID), "{table}");
    assert!(table.contains("1 exchange, "), "{table}");
    let list = printed(&["exchanges", "--address", address, "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["exchanges"][0]["query"], "20261123_120000_00001_abcde");
    let none = printed(&[
        "exchanges",
        "--address",
        address,
        "--query",
        "other",
        "--json",
    ]);
    assert_eq!(
        serde_json::from_str::<Value>(&none).unwrap()["exchanges"],
        serde_json::json!([])
    );

    let shown = printed(&["exchange", ID, "--address", address]);
    for part in [
        "2 partitions",
        "base directory",
        "written by run",
        "committed in",
        "sealed",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let told = printed(&["exchange", ID, "--address", address, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["committed"].as_array().unwrap().len(), 3);
    daemon.kill();

    let base = format!("file://{}", folder.path().display());
    let found = printed(&["inspect", ID, "--json", "--base-directory", &base]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let lasting = |shown: &Value| {
        let mut shown = shown.as_object().unwrap().clone();
        // They pass between the two looks.
        shown.retain(|name, _| !["age_seconds", "lease_left_seconds"].contains(&name.as_str()));
        shown
    };
    assert_eq!(lasting(&found), lasting(&told), "what the daemon said");
    assert!(printed(&["inspect", ID, "--base-directory", &base]).contains("committed in"));
    let said = refused(
        &["inspect", "no-such-exchange", "--base-directory", &base],
        1,
    );
    assert!(
        said.contains("holds anything of no-such-exchange"),
        "{said}"
    );
}

#[tokio::test]
async fn inspect_names_a_damaged_segment_and_prints_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    daemon_with_an_exchange(folder.path(), &["--set", "segment.commit_linger=0s"])
        .await
        .kill();
    let segments = folder.path().join("v2/segments");
    let of_exchange = std::fs::read_dir(segments)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let mut files = std::fs::read_dir(of_exchange.path()).unwrap();
    let damaged = files.next().unwrap().unwrap().path();
    let rest = files.count();
    std::fs::write(&damaged, b"not a segment").unwrap();
    let base = format!("file://{}", folder.path().display());
    let output = stopover(&["inspect", ID, "--json", "--base-directory", &base]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let name = damaged.file_stem().unwrap().to_str().unwrap();
    assert!(
        said.contains(name) && said.contains("cannot be inspected"),
        "{said}"
    );
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["segments"].as_array().unwrap().len(), rest + 1);
}

#[tokio::test]
async fn commands_send_a_token_of_the_file_and_say_what_helps_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(
        &tokens,
        format!("read reader-token-0123456789\nadmin {TOKEN}\n"),
    )
    .unwrap();
    let tokens = tokens.to_str().unwrap();
    let setting = format!("server.token_file={tokens}");
    let base = folder.path().join("base");
    let daemon = Process::start(&base, &["--set", &setting]);
    let address = daemon.url.strip_prefix("http://").unwrap();
    let said = refused(&["exchanges", "--address", address], 1);
    assert!(
        said.contains("401") && said.contains("--token-file"),
        "{said}"
    );
    let listed = printed(&["exchanges", "--address", address, "--token-file", tokens]);
    assert!(listed.contains("0 exchanges"), "{listed}");
    // Or all from the daemon's configuration.
    let config = folder.path().join("stopover.toml");
    let text = format!("[server]\nlisten = {address:?}\ntoken_file = {tokens:?}\n");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    assert!(printed(&["exchanges", "--config", config]).contains("0 exchanges"));
    let said = refused(&["exchange", ID, "--config", config], 1);
    assert!(
        said.contains("is not known") && !said.contains(TOKEN),
        "{said}"
    );
}

#[test]
fn each_exit_code_means_what_the_help_says() {
    assert!(printed(&["--help"]).contains("Exit codes:"));
    for usage in [
        &["exchanges", "--address", "no-port"][..],
        &["exchange", "../x", "--address", "127.0.0.1:1"],
        &["exchanges", "--query", "a b", "--address", "127.0.0.1:1"],
        &["exchanges", "--watch", "soon", "--address", "127.0.0.1:1"],
        &[
            "exchanges",
            "--token-file",
            "/does/not/exist",
            "--address",
            "127.0.0.1:1",
        ],
        &["completions", "tcsh"],
        &["no-such-command"],
    ] {
        refused(usage, 2);
    }
    let said = refused(&["exchanges", "--address", "127.0.0.1:1"], 1);
    assert!(said.contains("nothing listens there"), "{said}");
    refused(&["health", "--address", "127.0.0.1:1"], 1);
}

#[test]
fn completions_and_manual_pages_are_generated_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    printed(&["man", "--dir", pages.to_str().unwrap()]);
    for command in [
        "stopover",
        "stopover-serve",
        "stopover-exchanges",
        "stopover-gc",
    ] {
        let page = std::fs::read_to_string(pages.join(format!("{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{command}");
        assert!(page.contains("Exit codes"), "{command}: {page}");
    }
    assert!(!pages.join("stopover-help.1").exists());
    assert!(printed(&["man"]).contains(".TH"));
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef stopover"),
        ("fish", "complete -c stopover"),
    ] {
        let script = printed(&["completions", shell]);
        assert!(script.contains(part), "{shell}");
        assert!(script.contains("exchanges"), "{shell}");
    }
    // What bash makes of it.
    let mut bash = Command::new("bash");
    bash.arg("-n").stdin(Stdio::piped());
    let mut bash = bash.spawn().unwrap();
    let script = printed(&["completions", "bash"]);
    bash.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(bash.wait().unwrap().success());
}

#[test]
fn a_closed_stdout_is_no_error() {
    for arguments in [
        "man",
        "completions bash",
        "--help",
        "check --base-directory memory://x",
    ] {
        let script = format!(
            "set -o pipefail; {} {arguments} | true",
            env!("CARGO_BIN_EXE_stopover")
        );
        let mut command = Command::new("bash");
        let output = command.args(["-c", &script]).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn bench_measures_every_base_directory_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("a/new"));
    std::fs::create_dir(&old).unwrap();
    let quick = [
        "--duration",
        "20ms",
        "--size",
        "64KiB",
        "--parallel",
        "3",
        "--volume",
        "1MiB",
    ];
    let bases = ["--base-directory", old.to_str().unwrap()];
    let more = ["--base-directory", new.to_str().unwrap(), "--mix", "put=10"];
    let arguments = [&["bench", "--json"][..], &quick, &bases, &more].concat();
    let report: Value = serde_json::from_str(&printed(&arguments)).unwrap();
    assert!(
        report["machine"]["crc32c_bytes_per_second"]
            .as_f64()
            .unwrap()
            > 1e6
    );
    for base in report["base_directories"].as_array().unwrap() {
        for operation in ["put", "get", "list", "delete", "put_unsynced"] {
            assert!(
                base[operation]["samples"].as_u64().unwrap() > 0,
                "{operation}: {base}"
            );
        }
        let levels = base["throughput"].as_array().unwrap().iter();
        let levels: Vec<_> = levels
            .map(|level| level["parallel"].as_u64().unwrap())
            .collect();
        assert_eq!(levels, [1, 2, 3]);
        assert_eq!(base["error"], Value::Null);
    }
    assert_eq!(report["base_directories"].as_array().unwrap().len(), 2);
    assert_eq!(
        std::fs::read_dir(&old).unwrap().count(),
        0,
        "nothing is left"
    );
    assert!(
        !folder.path().join("a").exists(),
        "no folder that was not there"
    );
    let text = printed(&[&["bench"][..], &quick, &bases].concat());
    assert!(
        text.contains("computes CRC-32C") && text.contains("put, no fsync"),
        "{text}"
    );
    refused(&["bench", "--mix", "post=1"], 2);
    refused(&["bench", "--parallel", "0"], 2);
}

#[test]
fn an_interrupted_bench_removes_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args([
        "bench",
        "--duration",
        "1h",
        "--parallel",
        "2",
        "--size",
        "64KiB",
    ]);
    command.arg("--base-directory").arg(folder.path());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Guarded(running) = &mut Guarded(command.spawn().unwrap());
    let segments = folder.path().join("v2/segments");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !segments.exists() {
        assert!(std::time::Instant::now() < deadline, "it writes nothing");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut kill = Command::new("kill");
    kill.args(["-s", "INT", &running.id().to_string()]);
    assert!(kill.status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(1));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

/// The build script, which decides what `--version` prints.
#[path = "../../build.rs"]
#[allow(dead_code)]
mod build_script;

#[test]
fn the_version_names_the_commit_in_a_checkout_and_in_a_source_archive() {
    let version = printed(&["--version"]);
    assert!(version.starts_with("stopover 0."), "{version}");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert_eq!(
        build_script::revision(root, true),
        None,
        "neither git nor an archive"
    );
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b.example"]);
        let done = git.args(arguments).current_dir(root).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    let repository = env!("CARGO_MANIFEST_DIR");
    for file in [".source-revision", ".gitattributes"] {
        std::fs::copy(format!("{repository}/{file}"), root.join(file)).unwrap();
    }
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let built = build_script::revision(root, true).unwrap();
    let (hash, date) = built.split_once(' ').unwrap();
    assert!(commit.starts_with(hash) && date.len() == 10, "{built}");
    assert_eq!(
        build_script::revision(root, false),
        None,
        "builds for development ask nothing"
    );
    git(&["archive", "--output", "archive.tar", "HEAD"]);
    let unpacked = root.join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-xf", "../archive.tar"]).current_dir(&unpacked);
    assert!(tar.status().unwrap().success());
    let archived = build_script::revision(&unpacked, false).unwrap();
    let (hash, archived_date) = archived.split_once(' ').unwrap();
    assert!(commit.starts_with(hash), "{archived}");
    assert_eq!(archived_date, date);
    assert_eq!(
        build_script::describe("1.0", Some(&archived)),
        format!("1.0 ({archived})")
    );
}
