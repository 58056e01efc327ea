//! Claims about leases, with real processes: suspended, resumed, and collected by `stopover gc`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;
use stopover::store::keys;

use crate::process::{Process, announce, finish, read, write};

/// Settings of a daemon whose exchanges have a lease of six seconds, and which hardly ever sweeps:
/// it would take 25 seconds to collect one.
const RARE_SWEEPS: [&str; 6] = [
    "--set",
    "lease.duration=6s",
    "--set",
    "lease.sweep_interval=5s",
    "--set",
    "lease.announcement_timeout=1s",
];
/// Settings of a daemon that sweeps often. The lease of its own exchanges is another one.
const FREQUENT_SWEEPS: [&str; 4] = [
    "--set",
    "lease.duration=2s",
    "--set",
    "lease.sweep_interval=200ms",
];

fn files(folder: &Path, exchange: &str) -> Vec<PathBuf> {
    let exchange = exchange.parse().unwrap();
    let marker = folder.join(keys::marker(&exchange).as_str());
    let mut found: Vec<_> = [marker].into_iter().filter(|path| path.exists()).collect();
    let mut folders = vec![folder.join(keys::segments(&exchange).as_str())];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path),
            }
        }
    }
    found
}

async fn wait_until_no_files(folder: &Path, exchange: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !files(folder, exchange).is_empty() {
        let left = files(folder, exchange);
        assert!(Instant::now() < deadline, "never collected: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Renews the lease of an exchange repeatedly until dropped.
struct Renewals(Arc<AtomicBool>);

impl Renewals {
    fn start(http: &Client, daemon: &Process, exchange: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (http, stopped) = (http.clone(), Arc::clone(&stop));
        let url = format!("{}/v1/exchanges/{exchange}", daemon.url);
        tokio::spawn(async move {
            while !stopped.load(Ordering::Acquire) {
                let body = serde_json::json!({"partitions": 2, "ordered": false});
                let answer = http.put(&url).header("if-match", "*").json(&body).send();
                let status = answer.await.unwrap().status();
                assert!(status.is_success(), "{status}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self(stop)
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

async fn metric(http: &Client, daemon: &Process, name: &str) -> u64 {
    let answer = http.get(format!("{}/metrics", daemon.url)).send().await;
    let text = answer.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

async fn write_one(http: &Client, daemon: &Process, exchange: &str) {
    announce(http, daemon, exchange).await;
    write(http, daemon, exchange, 0, b"page").await;
    assert!(finish(http, daemon, exchange, 0).await.is_success());
}

#[tokio::test]
async fn a_sweeper_suspended_for_longer_than_a_lease_collects_no_renewed_exchange() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let daemon = Process::start(folder.path(), &RARE_SWEEPS);
    let sweeper = Process::start(folder.path(), &FREQUENT_SWEEPS);
    write_one(&http, &daemon, "q-1").await;
    // The sweeper observes the exchange before it is suspended. Nothing is renewed meanwhile, as if
    // all processes were suspended together.
    tokio::time::sleep(Duration::from_millis(600)).await;
    sweeper.signal("STOP");
    tokio::time::sleep(Duration::from_secs(6)).await;
    sweeper.signal("CONT");
    let renewals = Renewals::start(&http, &daemon, "q-1");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(read(&http, &daemon, "q-1").await, b"page");
    drop(renewals);
    wait_until_no_files(folder.path(), "q-1").await;
}

#[tokio::test]
async fn a_writer_suspended_until_its_exchange_was_collected_leaves_nothing_behind() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let writer = Process::start(folder.path(), &RARE_SWEEPS);
    write_one(&http, &writer, "q-1").await;
    write(&http, &writer, "q-1", 1, b"in memory when suspended").await;
    writer.signal("STOP");
    let sweeper = Process::start(folder.path(), &FREQUENT_SWEEPS);
    wait_until_no_files(folder.path(), "q-1").await;
    writer.signal("CONT");
    // The writer may still consider the exchange open: it uploads a segment, rechecks, and deletes
    // the segment.
    finish(&http, &writer, "q-1", 1).await;
    let renewed = http
        .put(format!("{}/v1/exchanges/q-1", writer.url))
        .json(&serde_json::json!({"partitions": 2, "ordered": false}));
    assert_eq!(renewed.send().await.unwrap().status(), 410);
    wait_until_no_files(folder.path(), "q-1").await;
    // Only a renewal shows that the coordinator is alive; an announcement may be a late one.
    let (collected, refused) = (
        "stopover_exchanges_collected_total",
        "stopover_renewals_refused_total",
    );
    assert_eq!(metric(&http, &sweeper, collected).await, 1);
    for (daemon, status) in [(&writer, 410), (&sweeper, 410)] {
        assert_eq!(metric(&http, daemon, refused).await, 0);
        let renewed = http.put(format!("{}/v1/exchanges/q-1", daemon.url));
        let renewed = renewed.header("if-match", "*");
        let renewed = renewed.json(&serde_json::json!({"partitions": 2, "ordered": false}));
        assert_eq!(renewed.send().await.unwrap().status(), status);
        assert_eq!(metric(&http, daemon, refused).await, 1);
    }
}

/// Story: daemons with leases of 30 s and 6 s shared a base directory. The client renewed every
/// 10 s, as the first one had told it to, and the second one collected the live exchange after 7 s.
#[tokio::test]
async fn an_exchange_is_judged_by_its_own_lease_whatever_a_daemon_is_configured_with() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let long = Process::start(folder.path(), &RARE_SWEEPS);
    let short = Process::start(folder.path(), &FREQUENT_SWEEPS);
    write_one(&http, &long, "q-long").await;
    write_one(&http, &short, "q-short").await;
    let start = Instant::now();
    wait_until_no_files(folder.path(), "q-short").await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    while start.elapsed() < Duration::from_secs(5) {
        assert_eq!(read(&http, &long, "q-long").await, b"page");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Each daemon tells the lease of the exchange, not its own, and a renewal does not change it.
    for daemon in [&short, &long, &short] {
        for (exchange, lease) in [("q-long", 6), ("q-new", 2)] {
            let renewed = http.put(format!("{}/v1/exchanges/{exchange}", daemon.url));
            let body = serde_json::json!({"partitions": 2, "ordered": false});
            let answer: Value = renewed
                .json(&body)
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            assert_eq!(answer["lease_seconds"], lease, "{answer}");
        }
    }
    wait_until_no_files(folder.path(), "q-long").await;
}

fn gc(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(["gc", "--base-directory"]);
    command.arg(format!("file://{}", folder.display()));
    command.args(["--set", "lease.duration=3s", "--set"]);
    command.args(["lease.sweep_interval=1s", "--set"]);
    command.arg("lease.announcement_timeout=1s");
    command.args(more).output().unwrap()
}

async fn gc_json(folder: &Path, more: &'static [&str]) -> Value {
    let folder = folder.to_owned();
    let output = tokio::task::spawn_blocking(move || gc(&folder, more)).await;
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn verdicts(report: &Value) -> Vec<(&str, &str, bool)> {
    let entries = report["exchanges"].as_array().unwrap().iter();
    entries
        .map(|e| {
            let text = |name: &str| e[name].as_str().unwrap();
            (
                text("exchange"),
                text("verdict"),
                e["removable"].as_bool().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn gc_removes_unrenewed_exchanges_and_a_dry_run_only_reports_them() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let daemon = Process::start(folder.path(), &RARE_SWEEPS);
    for exchange in ["q-alive", "q-dead"] {
        write_one(&http, &daemon, exchange).await;
    }
    // As left behind by a writer that dies right after it has stored a late segment.
    let orphan = keys::segments(&"q-orphan".parse().unwrap());
    let orphan = folder.path().join(orphan.as_str());
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join("000000000000feed-000000000001.seg"), "late").unwrap();
    let renewals = Renewals::start(&http, &daemon, "q-alive");
    let report = gc_json(folder.path(), &["--dry-run", "--json"]).await;
    let expected = [
        ("q-alive", "renewed", false),
        ("q-dead", "expired", true),
        ("q-orphan", "orphaned", true),
    ];
    assert_eq!(verdicts(&report), expected);
    assert_eq!(report["exchanges"][1]["objects"], 2, "marker and segment");
    for exchange in ["q-alive", "q-dead", "q-orphan"] {
        assert!(!files(folder.path(), exchange).is_empty(), "{exchange}");
    }
    let done = gc_json(folder.path(), &["--json"]).await;
    assert_eq!(verdicts(&done), expected);
    drop(renewals);
    assert_eq!(read(&http, &daemon, "q-alive").await, b"page");
    for exchange in ["q-dead", "q-orphan"] {
        assert_eq!(files(folder.path(), exchange), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn gc_reports_why_it_leaves_an_exchange_whose_lease_is_longer_than_it_watched() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let long = ["--set", "lease.duration=15m"];
    let daemon = Process::start(folder.path(), &long);
    write_one(&http, &daemon, "q-long").await;
    drop(daemon);
    let left = gc(folder.path(), &["--json"]);
    assert_eq!(left.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&left.stdout).unwrap();
    assert_eq!(verdicts(&report), [("q-long", "undetermined", false)]);
    let why = report["exchanges"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("its lease is 15m") && why.contains("at least 7m 30s"),
        "{why}"
    );
    assert_eq!(files(folder.path(), "q-long").len(), 2);
}

/// Story: a base directory was added, and `gc` ran with the configuration from before. It saw no
/// marker of exchanges whose marker is in the new one.
#[tokio::test]
async fn gc_that_lacks_a_base_directory_of_the_fleet_removes_nothing_and_names_it() {
    let (parent, http) = (tempfile::tempdir().unwrap(), Client::new());
    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    let more = format!("file://{}", new.display());
    let mut settings = RARE_SWEEPS.to_vec();
    settings.extend(["--base-directory", &more]);
    let daemon = Process::start(&old, &settings);
    for number in 0..4 {
        write_one(&http, &daemon, &format!("q-{number}")).await;
    }
    drop(daemon);
    let all = |folder: &Path| {
        (0..4)
            .flat_map(|n| files(folder, &format!("q-{n}")))
            .count()
    };
    let before = (all(&old), all(&new));
    assert!(before.0 > 0 && before.1 > 0, "{before:?}");
    let output = gc(&old, &["--watch", "3s"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the fleet also uses base directory b-"),
        "{stderr}"
    );
    assert_eq!((all(&old), all(&new)), before);
}

#[test]
fn gc_refuses_to_watch_for_less_than_half_a_lease() {
    let folder = tempfile::tempdir().unwrap();
    let output = gc(folder.path(), &["--watch", "1s"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("lease.duration"), "{stderr}");
}
