//! Claims about the program: real processes, killed and stopped, on local folders.

use std::io::{Read as _, Seek as _};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};

pub use crate::support::process::Process;
use crate::support::process::command;

pub async fn announce(http: &Client, daemon: &Process, exchange: &str) {
    let url = format!("{}/v1/exchanges/{exchange}", daemon.url);
    let body = serde_json::json!({"partitions": 2, "ordered": false});
    let answer = http.put(url).json(&body).send().await.unwrap();
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap()
    );
}

pub async fn write(http: &Client, daemon: &Process, exchange: &str, task: u32, page: &[u8]) {
    let sink = format!("{}/v1/exchanges/{exchange}/sinks/{task}/0", daemon.url);
    let post = http
        .post(format!("{sink}/pages?partition=1"))
        .body(page.to_vec());
    let answer = post
        .header("content-type", "application/octet-stream")
        .send()
        .await
        .unwrap();
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap()
    );
}

pub async fn finish(http: &Client, daemon: &Process, exchange: &str, task: u32) -> StatusCode {
    let url = format!(
        "{}/v1/exchanges/{exchange}/sinks/{task}/0/finish",
        daemon.url
    );
    http.post(url).send().await.unwrap().status()
}

pub async fn read(http: &Client, daemon: &Process, exchange: &str) -> Vec<u8> {
    let url = format!("{}/v1/exchanges/{exchange}/partitions/1", daemon.url);
    let answer = http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn a_killed_daemon_loses_only_unacknowledged_pages() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let killed = Process::start(folder.path(), &[]);
    announce(&http, &killed, "q-1").await;
    write(&http, &killed, "q-1", 0, b"acknowledged").await;
    assert_eq!(finish(&http, &killed, "q-1", 0).await, StatusCode::OK);
    write(&http, &killed, "q-1", 1, b"never finished").await;
    killed.kill();

    let other = Process::start(folder.path(), &[]);
    assert_eq!(read(&http, &other, "q-1").await, b"acknowledged");
    assert_eq!(
        finish(&http, &other, "q-1", 0).await,
        StatusCode::OK,
        "the same answer"
    );
    assert_eq!(
        finish(&http, &other, "q-1", 1).await,
        StatusCode::NOT_FOUND,
        "the client must run the task again"
    );
}

/// Story: nothing told which daemon had written what a base directory contains: the id of its run
/// was in no line of a log and in no metric.
#[tokio::test]
async fn a_daemon_names_its_run_in_the_log_in_a_metric_and_on_its_page() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let log = folder.path().join("log");
    let daemon = Process::start_with_log(&folder.path().join("base"), &[], &log);
    let get = async |path: &str| {
        let answer = http.get(format!("{}{path}", daemon.url)).send().await;
        answer.unwrap().text().await.unwrap()
    };
    let info: serde_json::Value = serde_json::from_str(&get("/v1/daemon").await).unwrap();
    let (run, host) = (
        info["run"].as_str().unwrap(),
        info["host"].as_str().unwrap(),
    );
    let metrics = get("/metrics").await;
    assert!(
        metrics.contains(&format!(",run=\"{run}\"}} 1")),
        "{metrics}"
    );
    let overview = get("/").await;
    let address = daemon.url.strip_prefix("http://").unwrap();
    for shown in [run, host, address] {
        assert!(
            overview.contains(&format!("<dd>{shown}</dd>")),
            "{shown} in {overview}"
        );
    }
    daemon.terminate();
    assert!(daemon.wait().success());
    let log = std::fs::read_to_string(&log).unwrap();
    for message in ["listening", "serving"] {
        let line = log.lines().find(|line| line.contains(message)).unwrap();
        assert!(line.contains(&format!("run={run}")), "{line}");
    }
}

#[tokio::test]
async fn a_terminated_daemon_lets_open_sinks_finish_refuses_new_ones_and_exits_with_success() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let daemon = Process::start(folder.path(), &["--set", "server.drain_timeout=30s"]);
    announce(&http, &daemon, "q-1").await;
    write(&http, &daemon, "q-1", 0, b"open when the signal came").await;
    daemon.terminate();
    wait_until_draining(&http, &daemon).await;
    let late = format!(
        "{}/v1/exchanges/q-1/sinks/7/0/pages?partition=1",
        daemon.url
    );
    let refused = http
        .post(late)
        .header("content-type", "application/octet-stream")
        .body("x");
    assert_eq!(
        refused.send().await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(finish(&http, &daemon, "q-1", 0).await, StatusCode::OK);
    assert!(daemon.wait().success());

    let other = Process::start(folder.path(), &[]);
    assert_eq!(
        read(&http, &other, "q-1").await,
        b"open when the signal came"
    );
}

/// Story: the log went into a pipe whose reader had stopped. Once the pipe was full, whatever was
/// logged waited for it, and no request was answered any more.
#[tokio::test]
async fn a_daemon_whose_log_nobody_reads_serves_counts_lost_lines_and_ends() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let mut command = command(folder.path(), &["--set", "log.filter=trace"]);
    command.stderr(std::process::Stdio::piped());
    let daemon = Process::spawn(command);
    // More lines than a pipe and the queue hold.
    let long = format!("{}/{}", daemon.url, "a".repeat(500));
    for _ in 0..4000 {
        let answer = http
            .get(&long)
            .timeout(Duration::from_secs(60))
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), StatusCode::NOT_FOUND);
    }
    let metrics = http.get(format!("{}/metrics", daemon.url)).send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    let mut lines = metrics.lines();
    let lost = lines.find_map(|line| line.strip_prefix("stopover_log_lines_lost_total "));
    assert!(lost.unwrap().parse::<u64>().unwrap() > 0, "{lost:?}");
    daemon.terminate();
    assert!(daemon.wait().success());
}

#[test]
fn a_daemon_without_a_token_refuses_to_listen_beyond_loopback() {
    let output = Command::new(env!("CARGO_BIN_EXE_stopover"))
        .args([
            "serve",
            "--listen",
            "0.0.0.0:0",
            "--base-directory",
            "memory://credentials",
        ])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("allow_remote_without_token"), "{stderr}");
}

/// Story: a unit of `Type=notify` is killed if it does not report its start. A daemon whose base
/// directory is away serves all the same, so it has to report.
#[test]
fn systemd_is_notified_that_a_daemon_listens_serves_and_drains_without_its_base_directory() {
    let folder = tempfile::tempdir().unwrap();
    let obstacle = folder.path().join("spool");
    std::fs::write(&obstacle, "a file in the place of the folder").unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let heard = || {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut daemon = command(&obstacle, &["--set", "server.start_timeout=1s"]);
    daemon.env("NOTIFY_SOCKET", &path);
    let daemon = Process::spawn(daemon);
    let started = heard();
    assert!(started.contains("READY=1"), "{started}");
    let serving = heard();
    assert!(serving.contains("STATUS=serving 127.0.0.1:"), "{serving}");
    daemon.terminate();
    let stopping = heard();
    assert!(stopping.contains("STOPPING=1"), "{stopping}");
    assert!(daemon.wait().success());
}

async fn wait_until_draining(http: &Client, daemon: &Process) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let ready = http.get(format!("{}/readyz", daemon.url)).send().await;
        if ready.unwrap().status() == StatusCode::SERVICE_UNAVAILABLE {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the daemon did not start to drain"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Story: a worker died during its task, and its query ended through another daemon. The daemon
/// that held the open sink waited for it until its drain deadline.
#[tokio::test]
async fn a_draining_daemon_does_not_wait_for_sinks_of_exchanges_closed_elsewhere() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let daemon = Process::start(folder.path(), &["--set", "server.drain_timeout=1d"]);
    let other = Process::start(folder.path(), &[]);
    announce(&http, &daemon, "q-1").await;
    write(&http, &daemon, "q-1", 0, b"its worker has died").await;
    let url = format!("{}/v1/exchanges/q-1", other.url);
    let closed = http.delete(url).send().await.unwrap();
    assert_eq!(closed.status(), StatusCode::NO_CONTENT);
    daemon.terminate();
    assert!(daemon.wait().success());
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once_and_the_exit_code_says_that_a_sink_was_cut_off() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let daemon = Process::start(folder.path(), &["--set", "server.drain_timeout=1d"]);
    announce(&http, &daemon, "q-1").await;
    write(&http, &daemon, "q-1", 0, b"never finished, never aborted").await;
    daemon.terminate();
    wait_until_draining(&http, &daemon).await;
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(3), "a sink was cut off");
}

/// Runs `stopover check` over base directories; whether it found them usable, and its output. Fails
/// if it does not end.
fn check(bases: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.arg("check");
    for base in bases {
        command.args(["--base-directory", base]);
    }
    let output = tempfile::tempfile().unwrap();
    command.stdout(output.try_clone().unwrap());
    command.stderr(output.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().unwrap();
            panic!("check of {bases:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    let mut output = output;
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    (status.success(), text)
}

/// Story: `check` of a folder that cannot be made never ended, at 100 % CPU.
#[test]
fn check_of_a_folder_that_cannot_be_made_ends_and_says_why() {
    let (usable, text) = check(&["/proc/x"]);
    assert!(!usable);
    assert!(
        text.contains("does not work") && text.contains("/proc/x"),
        "{text}"
    );
}

#[test]
fn check_leaves_no_folder_behind_that_was_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("old")).unwrap();
    let bases = ["old", "new/one", "new/two/three"].map(path);
    let bases = bases.each_ref().map(|base| base.to_str().unwrap());
    let (usable, text) = check(&bases);
    assert!(usable, "{text}");
    assert!(!path("new").exists(), "{text}");
    assert_eq!(std::fs::read_dir(path("old")).unwrap().count(), 0);
}
