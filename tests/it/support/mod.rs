//! In-process daemons for tests: all of the daemon's parts behind its real HTTP server, on a free
//! port.
//!
//! Invariant: [`TestServer::shut_down`] returns once all tasks of the daemon have ended; a
//! [`BaseFolder`] is deleted when it is dropped.

pub mod collector;
pub mod commits;
pub mod foreign_objects;
pub mod frames;
pub mod key_ranges;
pub mod process;
pub mod raw;
pub mod slow;
pub mod stub_store;
pub mod tickets;
pub mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use stopover::api::{admin_router, router};
use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::http::credentials::Credentials;
use stopover::http::limits::ServerLimits;
use stopover::http::server::Server;
use stopover::runtime::Runtime;
use stopover::telemetry::http::HttpMetrics;
use tokio_util::sync::CancellationToken;

pub const BATCH: &str = "application/vnd.stopover.pages";
pub const RAW: &str = "application/octet-stream";

/// A temporary folder that holds a base directory; several daemons may share it.
pub struct BaseFolder(tempfile::TempDir);

impl BaseFolder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A configuration whose one base directory is this folder.
    pub fn config(&self) -> Config {
        self.config_named("main")
    }

    pub fn config_named(&self, name: &str) -> Config {
        let mut config = Config::default();
        config.memory.budget = Some(64 << 20);
        config.segment.commit_linger = Duration::from_millis(2);
        config.base_directories = vec![BaseDirectoryConfig {
            uri: format!("file://{}", self.0.path().display()),
            name: name.to_owned(),
            options: [("fsync".to_owned(), "false".into())].into(),
        }];
        config
    }

    /// The paths of all segment files.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "seg") {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// A daemon with a running HTTP server.
pub struct TestServer {
    pub daemon: Daemon,
    pub address: SocketAddr,
    /// The address of `server.admin_listen`, if one is configured.
    pub admin: Option<SocketAddr>,
    pub requests: HttpMetrics,
    pub token: Option<String>,
    pub credentials: Credentials,
    client: Client,
    stop: CancellationToken,
}

impl TestServer {
    pub async fn open(config: &Config) -> Self {
        let runtime = Runtime::system();
        let daemon = Daemon::build(config, &runtime).unwrap();
        Self::around(daemon, config, runtime).await
    }

    /// Starts the server for a daemon that the caller has built.
    pub async fn around(daemon: Daemon, config: &Config, runtime: Runtime) -> Self {
        daemon.start(config.server.start_timeout).await;
        for base in daemon.storage.status() {
            assert!(base.healthy, "{base:?}");
        }
        let credentials = Credentials::open(&config.server, &runtime.clock).unwrap();
        let state = daemon.api_state(config, credentials.clone());
        let requests = state.parts.requests.clone();
        let stall_policy = state.stall_policy.clone();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let limits = ServerLimits::new(&config.server, &config.limits);
        let stop = CancellationToken::new();
        let serve = async |limits, credentials: &Credentials, router| {
            let server = Server::bind(any_port, limits, stall_policy.clone(), credentials.clone());
            let server = server.await.unwrap();
            let address = server.address();
            let (stopped, on) = (stop.clone(), runtime.clone());
            let running = async move { server.run(router, &on, stopped).await };
            runtime.tasks.spawn(running);
            address
        };
        let admin = match credentials.open_admin().unwrap() {
            None => None,
            Some(admin) => {
                let router = admin_router(Arc::clone(&state), &admin);
                Some(serve(limits.admin(), &admin, router).await)
            }
        };
        let address = serve(limits, &credentials, router(state)).await;
        Self {
            daemon,
            address,
            admin,
            requests,
            token: None,
            credentials,
            client: Client::builder().no_proxy().build().unwrap(),
            stop,
        }
    }

    /// The value of a metric, with its labels, as `/metrics` prints it.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let values = text.lines().filter_map(|line| line.strip_prefix(series));
        let values: Vec<&str> = values.filter_map(|rest| rest.strip_prefix(' ')).collect();
        assert_eq!(values.len(), 1, "{series} in {text}");
        values[0].parse().unwrap()
    }

    pub async fn shut_down(self) {
        drop(self.client);
        self.stop.cancel();
        let ended = self.daemon.runtime.tasks.shut_down();
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .expect("the daemon did not shut down");
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    pub async fn put_json(&self, path: &str, body: &Value) -> Response {
        self.request(Method::PUT, path)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub async fn post(
        &self,
        path: &str,
        media_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let body = body.into();
        let mut request = self
            .request(Method::POST, path)
            .header("content-type", media_type);
        if body.as_bytes().is_some_and(<[u8]>::is_empty) {
            // An explicit length: reqwest sends none for an empty body.
            request = request.header("content-length", "0");
        }
        request.body(body).send().await.unwrap()
    }

    pub async fn post_empty(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().await.unwrap()
    }

    pub async fn put_empty(&self, path: &str) -> Response {
        self.request(Method::PUT, path).send().await.unwrap()
    }

    /// Announces an exchange with `partitions` partitions.
    pub async fn announce(&self, exchange: &str, partitions: u32) {
        let body = json!({"partitions": partitions, "ordered": false});
        let response = self
            .put_json(&format!("/v1/exchanges/{exchange}"), &body)
            .await;
        assert!(response.status().is_success(), "{response:?}");
    }

    /// Sends a batch, which must be accepted, and returns the answer.
    pub async fn add(&self, sink: &str, batch: u32, body: Vec<u8>) -> Value {
        let path = format!("{sink}/pages?batch={batch}");
        ok_json(self.post(&path, BATCH, body).await).await
    }

    /// Plans handles for these attempts and returns their lines without the end line.
    pub async fn handles(&self, exchange: &str, attempts: &Value, target_size: u64) -> Vec<Value> {
        let body = json!({"attempts": attempts, "target_size": target_size});
        let response = self
            .post_json(&format!("/v1/exchanges/{exchange}/handles"), &body)
            .await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let text = response.text().await.unwrap();
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let end = lines.pop().unwrap();
        assert_eq!(end, json!({"end": true, "handles": lines.len()}));
        lines
    }

    /// Reads a handle from page `skip` on.
    pub async fn read(&self, handle: &str, skip: u64) -> Response {
        let path = format!("/v1/read?skip={skip}");
        self.post(&path, "text/plain", handle.to_owned()).await
    }

    /// Waits until no request is in progress.
    pub async fn expect_no_request_in_progress(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.requests.in_flight() != 0 {
            assert!(
                std::time::Instant::now() < deadline,
                "a request is still in progress"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until no request, memory or sink is left.
    pub async fn expect_all_gauges_at_zero(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let held = (
                self.requests.in_flight(),
                self.daemon.write_pool.used(),
                self.daemon.write_pool.waiting(),
                self.daemon.metrics.sinks_open.get(),
            );
            if held == (0, 0, 0, 0) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "(requests, bytes reserved, bytes waited for, open sinks) = {held:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn sink(exchange: &str, task: u32, attempt: u32) -> String {
    format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}")
}

/// Parses the JSON of an answer whose status must be 200.
pub async fn ok_json(response: Response) -> Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).unwrap()
}
