//! Claims about changes of the configuration while the daemon runs: real processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::process::{announce, finish, write};
use crate::support::process::Process;
use crate::support::stub_store::{s3_error, start};

/// A daemon with a configuration file and a log.
struct Daemon {
    process: Process,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let with_base = |folder: &Path| {
            format!(
                "[[base_directory]]\nuri = \"file://{}/base\"\n",
                folder.display()
            )
        };
        let text = match configuration.contains("[[base_directory]]") {
            true => configuration.to_owned(),
            false => format!("{configuration}{}", with_base(folder.path())),
        };
        std::fs::write(folder.path().join("stopover.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]);
        command.arg(folder.path().join("stopover.toml"));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stderr(log);
        Self {
            process: Process::spawn(command),
            folder,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("stopover.toml")
    }

    /// Edits the file.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(self.file(), text.replace(from, to)).unwrap();
    }

    fn reload(&self, more: &[&str]) -> Output {
        let address = self.process.url.strip_prefix("http://").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
        command.args(["reload", "--address", address]).args(more);
        command.output().unwrap()
    }

    /// Reloads with success; the answer.
    fn reloaded(&self) -> Value {
        let output = self.reload(&["--json"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits for a line of the log.
    fn logged(&self, part: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "{part:?} is not in {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Story: an operator edited the file, sent SIGHUP, and nothing said that a restart was needed.
#[test]
fn sighup_applies_live_changes_and_names_what_needs_a_restart_with_both_values() {
    let edited = "[lease]\nduration = \"1h\"\n[log]\nfilter = \"info\"\n";
    let daemon = Daemon::start(edited);
    daemon.edit("1h", "2h");
    daemon.edit("\"info\"", "\"info,stopover=debug\"");
    daemon.process.signal("HUP");
    let applied = daemon.logged("changes were applied");
    assert!(
        applied.contains("log.filter: info -> info,stopover=debug"),
        "{applied}"
    );
    let left = daemon.logged("restart the daemon to apply them");
    assert!(left.contains("lease.duration: 1h -> 2h"), "{left}");
    let mut health = Command::new(env!("CARGO_BIN_EXE_stopover"));
    let address = daemon.process.url.strip_prefix("http://").unwrap();
    health.args(["exchange", "unknown", "--address", address]);
    assert_eq!(health.output().unwrap().status.code(), Some(1));
    daemon.logged("DEBUG");
}

#[tokio::test]
async fn limits_of_the_daemon_and_of_queries_change_while_it_runs() {
    let daemon = Daemon::start(
        "[limits]\nmax_partitions = 10\nmax_exchanges = 1\n[query]\nmax_stored_size = \"1KiB\"\n\
         [segment]\ncommit_linger = \"0s\"\n",
    );
    let http = Client::new();
    let open = async |exchange: &str, partitions: u32| {
        let url = format!("{}/v1/exchanges/{exchange}", daemon.process.url);
        let body = json!({"partitions": partitions, "ordered": false});
        http.put(url).json(&body).send().await.unwrap().status()
    };
    assert_eq!(open("q-1", 20).await, StatusCode::BAD_REQUEST);
    announce(&http, &daemon.process, "large").await;
    write(&http, &daemon.process, "large", 0, &[7; 4096]).await;
    let refused = finish(&http, &daemon.process, "large", 0).await;
    assert_eq!(refused, StatusCode::INSUFFICIENT_STORAGE);

    daemon.edit("max_partitions = 10", "max_partitions = 30");
    daemon.edit("max_exchanges = 1", "max_exchanges = 2");
    daemon.edit("\"1KiB\"", "\"1MiB\"");
    let answer = daemon.reloaded();
    let applied = answer["applied"].as_array().unwrap();
    assert_eq!(applied.len(), 3, "{answer}");
    assert!(applied.contains(&json!(
        {"key": "query.max_stored_size", "from": "1KiB", "to": "1MiB"}
    )));
    assert_eq!(answer["needs_restart"], json!([]));
    assert_eq!(open("q-1", 20).await, StatusCode::CREATED);
    write(&http, &daemon.process, "large", 1, &[7; 4096]).await;
    assert_eq!(
        finish(&http, &daemon.process, "large", 1).await,
        StatusCode::OK
    );
    // A second exchange at this daemon, and no third.
    announce(&http, &daemon.process, "second").await;
    write(&http, &daemon.process, "second", 0, b"page").await;
    announce(&http, &daemon.process, "third").await;
    let pages = format!(
        "{}/v1/exchanges/third/sinks/0/0/pages?partition=1",
        daemon.process.url
    );
    let pages = http
        .post(pages)
        .header("content-type", "application/octet-stream");
    let third = pages.body("page").send().await.unwrap();
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(third.text().await.unwrap().contains("limits.max_exchanges"));
}

#[tokio::test]
async fn a_configuration_with_a_problem_changes_nothing_and_is_refused_with_file_and_line() {
    let daemon = Daemon::start("[limits]\nmax_partitions = 10\n");
    daemon.edit(
        "max_partitions = 10",
        "max_partitions = 30\nmax_exchanges = \"many\"",
    );
    let output = daemon.reload(&[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("422") && said.contains("stopover.toml:3"),
        "{said}"
    );
    assert!(said.contains("limits.max_exchanges"), "{said}");
    daemon.process.signal("HUP");
    let told = daemon.logged("was not reloaded");
    assert!(told.contains("stopover.toml:3"), "{told}");
    let url = format!("{}/v1/exchanges/q-1", daemon.process.url);
    let body = json!({"partitions": 20, "ordered": false});
    let refused = Client::new().put(url).json(&body).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "10 is in effect");
    // Mended, it is taken over.
    daemon.edit("\"many\"", "5");
    let output = daemon.reload(&[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("in effect now: limits.max_partitions: 10 -> 30"),
        "{printed}"
    );
    let again = String::from_utf8(daemon.reload(&[]).stdout).unwrap();
    assert!(again.contains("no setting was edited"), "{again}");
}

#[test]
fn credentials_of_a_base_directory_are_replaced_without_a_restart_and_are_shown_nowhere() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&seen);
    let store = start(move |head| {
        heads.lock().unwrap().push(head.to_owned());
        s3_error("403 Forbidden", "InvalidAccessKeyId", "not this one")
    });
    let daemon = Daemon::start(&format!(
        "[server]\nstart_timeout = \"100ms\"\n[[base_directory]]\nuri = \"s3://bucket/p\"\n\
         endpoint = \"http://{store}\"\nallow_http = true\naccess_key_id = \"first-id\"\n\
         secret_access_key = \"first-hush\"\n"
    ));
    let shows = |id: &str| {
        let heads = seen.lock().unwrap();
        heads
            .iter()
            .any(|head| head.contains(&format!("Credential={id}/")))
    };
    assert!(shows("first-id") && !shows("second-id"));
    daemon.edit("first-id", "second-id");
    daemon.edit("first-hush", "second-hush");
    let answer = daemon.reloaded();
    let keys: Vec<_> = answer["applied"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["key"])
        .collect();
    assert_eq!(
        keys,
        [
            "base_directory.0.access_key_id",
            "base_directory.0.secret_access_key"
        ]
    );
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shows("second-id") {
        assert!(
            Instant::now() < deadline,
            "no request has the new credentials"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.edit(
        "allow_http = true",
        "allow_http = true\nregion = \"eu-central-1\"",
    );
    let answer = daemon.reloaded();
    assert_eq!(answer["needs_restart"][0]["key"], "base_directory.0.region");
    for text in [answer.to_string(), daemon.log()] {
        assert!(!text.contains("hush"), "{text}");
    }
}

/// Writes a certificate that ends in this year, and its key, into a folder.
fn write_client_certificate(folder: &Path, year: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("client.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("client.key"), key.serialize_pem()).unwrap();
}

/// Story: the runbook of an expiring certificate said to renew the file and to reload. The reload
/// compared the paths alone, and the daemon went on with the old certificate.
#[tokio::test]
async fn a_renewed_file_of_a_base_directory_is_used_after_a_reload() {
    let store = start(|_| s3_error("403 Forbidden", "InvalidAccessKeyId", "not this one"));
    let files = tempfile::tempdir().unwrap();
    write_client_certificate(files.path(), 2090);
    let path = |name: &str| files.path().join(name);
    let daemon = Daemon::start(&format!(
        "[server]\nstart_timeout = \"100ms\"\n[[base_directory]]\nname = \"b\"\n\
         uri = \"s3://bucket/p\"\nendpoint = \"http://{store}\"\nallow_http = true\n\
         access_key_id = \"id\"\nsecret_access_key = \"hush\"\n\
         client_certificate_file = {:?}\nclient_key_file = {:?}\n",
        path("client.pem"),
        path("client.key")
    ));
    let ends = async || {
        let metrics = format!("{}/metrics", daemon.process.url);
        let text = Client::new().get(metrics).send().await.unwrap();
        let text = text.text().await.unwrap();
        let series = "stopover_storage_credentials_not_after_seconds{base=\"b\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap().parse::<u64>().unwrap()
    };
    let keys = |answer: &Value| {
        let applied = answer["applied"].as_array().unwrap().iter();
        applied
            .map(|change| change["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ends().await, 3_786_912_000);
    assert_eq!(keys(&daemon.reloaded()), [""; 0]);
    write_client_certificate(files.path(), 2095);
    let renewed = [
        "base_directory.0.client_certificate_file",
        "base_directory.0.client_key_file",
    ];
    assert_eq!(keys(&daemon.reloaded()), renewed);
    assert_eq!(ends().await, 3_944_678_400);
    assert_eq!(keys(&daemon.reloaded()), [""; 0], "it is used already");
    // A file that is not a key changes nothing.
    std::fs::write(path("client.key"), "no key").unwrap();
    assert_eq!(daemon.reload(&[]).status.code(), Some(1));
    assert_eq!(ends().await, 3_944_678_400);
}

#[test]
fn tokens_are_read_again_and_only_an_administrator_may_reload() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let (admin, writer) = ("admin-token-0123456789", "writer-token-0123456789");
    std::fs::write(&tokens, format!("admin {admin}\nwrite {writer}\n")).unwrap();
    let daemon = Daemon::start(&format!(
        "[server]\nreload_interval = \"1d\"\ntoken_file = {tokens:?}\n"
    ));
    let with = |token: &str| {
        let file = folder.path().join("one");
        std::fs::write(&file, token).unwrap();
        daemon.reload(&["--token-file", file.to_str().unwrap()])
    };
    let refused = |output: Output, status: &str| {
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(status), "{said}");
    };
    refused(daemon.reload(&[]), "401");
    refused(with(writer), "403");
    let second = "second-token-0123456789";
    std::fs::write(&tokens, format!("admin {second}\n")).unwrap();
    refused(with(second), "401");
    assert!(
        with(admin).status.success(),
        "the old one is valid until now"
    );
    refused(with(admin), "401");
    assert!(with(second).status.success());
}
