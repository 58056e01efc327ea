//! The conformance suite and S3's own behaviour over a real S3 server, versitygw.
//!
//! `STOPOVER_TEST_VERSITYGW` names the server's binary. Without it every test here fails: a suite
//! that silently skips its subject proves nothing. `cargo test --lib --test storage` needs no
//! server.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod budget;
mod checksums;
#[path = "../../src/store/tests/fake_s3.rs"]
#[allow(dead_code)] // not all of it is used here
mod fake_s3;
#[path = "../it/support/foreign_objects.rs"]
mod foreign_objects;
#[path = "../it/support/frames.rs"]
#[allow(dead_code)] // not all of it is used here
mod frames;
#[path = "../it/support/process.rs"]
#[allow(dead_code)]
mod process;
mod recorder;
mod slow;
#[path = "../storage_conformance/mod.rs"]
mod storage_conformance;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stopover::config::{self, BaseDirectoryConfig};
use stopover::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId};
use stopover::runtime::Runtime;
use stopover::storage::{Storage, StoreErrorKind};
use stopover::store::open::open_all;
use stopover::store::{
    self,
    keys::{self, Key},
};

/// An S3 server for one test, stopped when dropped.
struct Gateway {
    process: Option<Child>,
    binary: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    key: String,
    secret: String,
}

impl Gateway {
    fn start(bucket: &str, key: &str, secret: &str) -> Self {
        let binary = std::env::var_os("STOPOVER_TEST_VERSITYGW").unwrap_or_else(|| {
            panic!(
                "STOPOVER_TEST_VERSITYGW is not set: set it to the versitygw binary (go install \
                 github.com/versity/versitygw/cmd/versitygw@v1.8.0), or omit --test s3"
            )
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data").join(bucket)).unwrap();
        let mut gateway = Self {
            process: None,
            binary: binary.into(),
            port: free_port(),
            folder,
            key: key.into(),
            secret: secret.into(),
        };
        gateway.run();
        gateway
    }

    fn run(&mut self) {
        let process = Command::new(&self.binary)
            .args([
                "--access",
                &self.key,
                "--secret",
                &self.secret,
                "--region",
                "us-east-1",
            ])
            .args(["--quiet", "--keep-alive", "--health", "/health", "--port"])
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--access-log")
            .arg(self.folder.path().join("access.log"))
            .arg("posix")
            .arg(self.folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let binary = self.binary.display();
        self.process =
            Some(process.unwrap_or_else(|error| panic!("cannot start {binary}: {error}")));
        self.wait_until_ready();
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn wait_until_ready(&self) {
        let give_up = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                Instant::now() < give_up,
                "versitygw is not listening after 20 s"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn config(&self, uri: &str) -> BaseDirectoryConfig {
        let options = [
            ("endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("allow_http", "true".into()),
            ("region", "us-east-1".into()),
            ("access_key_id", self.key.clone()),
            ("secret_access_key", self.secret.clone()),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.into()));
        BaseDirectoryConfig {
            uri: uri.into(),
            name: String::new(),
            options: BTreeMap::from(options),
        }
    }

    /// The number of requests so far with this name in the access log (`s3_PutObject`, …).
    fn requests(&self, name: &str) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        log.lines()
            .filter(|line| line.split_whitespace().any(|word| word == name))
            .count()
    }

    fn files(&self) -> Vec<String> {
        let mut folders: Vec<PathBuf> = vec![self.folder.path().join("data")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let path = path.strip_prefix(self.folder.path().join("data")).unwrap();
                    files.push(path.to_str().unwrap().into());
                }
            }
        }
        // The server's own locks are beside the buckets, its temporary files in them.
        files.retain(|file: &String| !file.starts_with('.') && !file.contains(".sgwtmp"));
        files.sort();
        files
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn open(configs: &[BaseDirectoryConfig]) -> Storage {
    Storage::open(configs, &Runtime::seeded(7)).unwrap()
}

/// The files that a base directory keeps as long as it exists, sorted.
fn permanent(base: &str) -> Vec<String> {
    let names = ["identity", "markers/.keep", "members", "segments/.keep"];
    names.map(|name| format!("{base}/v2/{name}")).into()
}

fn segment(sequence: u64) -> SegmentId {
    SegmentId {
        daemon: DaemonId(0xC0FFEE),
        sequence,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms_and_only_the_keep_object_remains() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let storage = open(&[gateway.config("s3://bucket/some/prefix")]);
    assert!(storage.probe().await[0].healthy, "{:?}", storage.status());
    storage_conformance::all(&storage).await;
    assert_eq!(gateway.files(), permanent("bucket/some/prefix"));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_objects_in_a_bucket_are_left_alone() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let base = gateway.config("s3://bucket/p");
    let storage = open(std::slice::from_ref(&base));
    assert!(storage.probe().await[0].healthy, "{:?}", storage.status());
    let exchange: ExchangeId = "q-1".parse().unwrap();
    let mut foreign: Vec<_> = [
        "v1/q-1/exchange.json",
        "v2/foo/bar.txt",
        "v2/markers/README",
        "v2/markers/q-1",
        "v2/segments/0000-q-1/000000000000feed-000000000001.seg",
        "v2/segments/other/000000000000feed-000000000001.seg",
        "v2/probes/notes",
    ]
    .map(ToOwned::to_owned)
    .into();
    foreign.push(format!("{}/notes.txt", keys::segments(&exchange)));
    let opened = open_all(&[base], &Runtime::seeded(8)).unwrap();
    for key in &foreign {
        let content = vec![Bytes::from_static(b"mine")];
        opened[0]
            .opened
            .store
            .put(&Key::listed(key), content)
            .await
            .unwrap();
    }
    let put = async |n| {
        let content = vec![Bytes::from_static(b"segment")];
        storage
            .put_segment(&exchange, segment(n), content)
            .await
            .unwrap();
    };
    storage_conformance::announce(&storage, &exchange, Bytes::from_static(b"{}")).await;
    put(1).await;
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 1);
    put(2).await;
    assert_eq!(
        storage.remove_unannounced(&exchange).await.unwrap(),
        Some(1)
    );
    assert_eq!(storage.list_probes().await.unwrap(), []);
    for id in ["README", "foo", "other"] {
        storage.remove_exchange(&id.parse().unwrap()).await.unwrap();
    }
    storage.remove_stale_temporaries().await.unwrap();
    let foreign = foreign.iter().map(|key| format!("bucket/p/{key}"));
    let mut left: Vec<_> = foreign.chain(permanent("bucket/p")).collect();
    left.sort();
    assert_eq!(gateway.files(), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_objects_in_a_bucket_survive_closing_sweeps_and_gc() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    foreign_objects::survive(gateway.config("s3://bucket/some/prefix")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms_without_a_prefix_and_without_a_probe() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    storage_conformance::all(&open(&[gateway.config("s3://bucket")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_buckets_of_two_accounts_at_two_servers_work_together() {
    let one = Gateway::start("bucket", "first", "secret-of-first");
    let two = Gateway::start("bucket", "second", "secret-of-second");
    let storage = open(&[one.config("s3://bucket/p"), two.config("s3://bucket/p")]);
    assert!(
        storage.probe().await.iter().all(|status| status.healthy),
        "{:?}",
        storage.status()
    );
    storage_conformance::all(&storage).await;
    for gateway in [one, two] {
        assert!(
            gateway.requests("s3_PutObject") > 1000,
            "segments alternate between the base directories"
        );
        assert_eq!(gateway.files(), permanent("bucket/p"));
    }
}

const REQUESTS: [&str; 6] = [
    "s3_PutObject",
    "s3_GetObject",
    "s3_ListObjectsV2",
    "s3_DeleteObjects",
    "s3_DeleteObject",
    "s3_HeadObject",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_costs_the_expected_requests() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let storage = open(&[gateway.config("s3://bucket/p")]);
    let exchange = "q-1".parse().unwrap();
    // The first use identifies the base directory.
    assert!(storage.probe().await[0].healthy);
    let before: BTreeMap<&str, usize> = REQUESTS
        .iter()
        .map(|name| (*name, gateway.requests(name)))
        .collect();
    let count = |names: &[&str]| {
        let since = |name: &&str| gateway.requests(name) - before[*name];
        names.iter().map(since).sum::<usize>()
    };
    let pieces = vec![Bytes::from_static(b"some "), Bytes::from_static(b"bytes")];
    let at = storage
        .put_segment(&exchange, segment(1), pieces)
        .await
        .unwrap();
    assert_eq!(count(&["s3_PutObject"]), 1);
    storage.get_tail(&at, 4).await.unwrap();
    storage.get_range(&at, 1..3).await.unwrap();
    assert_eq!(count(&["s3_GetObject"]), 2);
    storage.list_segments(&exchange).await.unwrap();
    assert_eq!(count(&["s3_ListObjectsV2"]), 1);
    for n in 2..50 {
        storage
            .put_segment(&exchange, segment(n), vec![Bytes::from_static(b"x")])
            .await
            .unwrap();
    }
    storage_conformance::announce(&storage, &exchange, Bytes::from_static(b"{}")).await;
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 49);
    // One read before the marker is written, the removal of the marker, one list, one bulk delete
    // for all the rest.
    assert_eq!(count(&["s3_GetObject"]), 3);
    assert_eq!(count(&["s3_ListObjectsV2"]), 2);
    assert_eq!(count(&["s3_DeleteObjects"]), 2);
    assert_eq!(count(&["s3_DeleteObject", "s3_HeadObject"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_without_showing_them() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let mut config = gateway.config("s3://bucket/p");
    config
        .options
        .insert("secret_access_key".into(), "not-the-secret".into());
    let storage = open(&[config]);
    let exchange = "q-1".parse().unwrap();
    let error = storage
        .put_segment(&exchange, segment(1), vec![Bytes::from_static(b"x")])
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.base.as_str()),
        (StoreErrorKind::Refused, "all"),
        "{error}"
    );
    let text = format!("{error} {:?} {:?}", error, storage.status());
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    assert!(
        !text.contains("not-the-secret") && !text.contains("secret-of-key"),
        "{text}"
    );
    let error = storage.list_exchanges().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_refused_and_named_as_such() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let storage = open(&[gateway.config("s3://other/p")]);
    let exchange: stopover::id::ExchangeId = "q-1".parse().unwrap();
    let base = storage.status()[0].name.clone();
    let at = SegmentAddress {
        exchange: exchange.clone(),
        base,
        segment: segment(1),
    };
    let errors = [
        storage.get_range(&at, 0..4).await.unwrap_err(),
        storage.list_segments(&exchange).await.unwrap_err(),
        storage
            .put_segment(&exchange, segment(1), vec![Bytes::new()])
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("NoSuchBucket"), "{error}");
    }
    let status = &storage.probe().await[0];
    assert!(!status.healthy && status.error.as_ref().unwrap().contains("NoSuchBucket"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_skipped_until_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start("bucket", "key", "secret-of-key");
    let local = BaseDirectoryConfig {
        uri: format!("file://{}", folder.path().display()),
        name: "local".into(),
        ..Default::default()
    };
    let remote = BaseDirectoryConfig {
        name: "remote".into(),
        ..gateway.config("s3://bucket/p")
    };
    let storage = open(&[local, remote]);
    assert!(storage.probe().await.iter().all(|status| status.healthy));
    gateway.stop();
    let exchange = "q-1".parse().unwrap();
    for n in 0..6 {
        let at = storage
            .put_segment(&exchange, segment(n), vec![Bytes::from_static(b"x")])
            .await
            .unwrap();
        assert_eq!(at.base.as_str(), "local");
    }
    let down = storage
        .status()
        .into_iter()
        .find(|s| s.name.as_str() == "remote")
        .unwrap();
    assert!(!down.healthy, "{down:?}");
    gateway.run();
    let give_up = Instant::now() + Duration::from_secs(60);
    while !storage.status().iter().all(|status| status.healthy) {
        assert!(Instant::now() < give_up, "{:?}", storage.status());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut bases = std::collections::BTreeSet::new();
    for n in 6..8 {
        let put = storage.put_segment(&exchange, segment(n), vec![Bytes::from_static(b"x")]);
        bases.insert(put.await.unwrap().base.to_string());
    }
    assert_eq!(bases.len(), 2, "both receive segments again");
}

/// Probes base directories in a process with this environment; returns their health and errors.
fn probed_elsewhere(configs: &[BaseDirectoryConfig], environment: &[(&str, &str)]) -> String {
    let described: Vec<String> = configs
        .iter()
        .map(|config| {
            let options = config
                .options
                .iter()
                .map(|(name, value)| format!("\t{name}\t{}", value.expose()));
            format!("{}{}", config.uri, options.collect::<String>())
        })
        .collect();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "probes_base_directories_for_another_test",
            "--nocapture",
        ])
        .envs(environment.iter().copied())
        .env("STOPOVER_TEST_PROBE", described.join("\n"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = text.lines().filter(|line| line.contains("PROBED "));
    found
        .map(|line| line.split_once("PROBED ").unwrap().1)
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by other tests in a separate process with an environment that they set"]
async fn probes_base_directories_for_another_test() {
    let described =
        std::env::var_os("STOPOVER_TEST_PROBE").expect("set by the test that runs this one");
    let described = described.into_string().unwrap();
    let configs: Vec<_> = described
        .lines()
        .map(|line| {
            let mut words = line.split('\t').map(str::to_owned);
            let uri = words.next().unwrap();
            let mut options = BTreeMap::new();
            while let (Some(name), Some(value)) = (words.next(), words.next()) {
                options.insert(name, value.into());
            }
            BaseDirectoryConfig {
                uri,
                name: String::new(),
                options,
            }
        })
        .collect();
    for status in open(&configs).probe().await {
        println!("PROBED {} {:?}", status.healthy, status.error);
    }
}

fn without_keys(mut config: BaseDirectoryConfig) -> BaseDirectoryConfig {
    config.options.retain(|name, _| !name.contains("key"));
    config
}

#[test]
fn credentials_not_configured_come_from_the_environment() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let configs = [without_keys(gateway.config("s3://bucket/p"))];
    let keys = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-key"),
    ];
    assert_eq!(probed_elsewhere(&configs, &keys), "true None");
    let wrong = [keys[0], ("AWS_SECRET_ACCESS_KEY", "not-the-secret")];
    let refused = probed_elsewhere(&configs, &wrong);
    assert!(
        refused.starts_with("false") && refused.contains("SignatureDoesNotMatch"),
        "{refused}"
    );
    assert!(!refused.contains("not-the-secret"), "{refused}");
}

#[test]
fn credentials_of_a_base_directory_are_not_mixed_with_those_of_the_environment() {
    let own = Gateway::start("bucket", "own", "secret-of-own");
    let ambient = Gateway::start("bucket", "ambient", "secret-of-ambient");
    let configs = [
        own.config("s3://bucket/p"),
        without_keys(ambient.config("s3://bucket/p")),
    ];
    let environment = [
        ("AWS_ACCESS_KEY_ID", "ambient"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-ambient"),
        // Nothing listens there: the configured endpoint must take precedence.
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"),
    ];
    assert_eq!(
        probed_elsewhere(&configs, &environment),
        "true None\ntrue None"
    );
    // A session token belongs to the environment's keys, not to the configured ones.
    let token = [
        environment[0],
        environment[1],
        ("AWS_SESSION_TOKEN", "of-a-session"),
    ];
    assert_eq!(probed_elsewhere(&configs[..1], &token), "true None");
}
