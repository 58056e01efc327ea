//! What an operator sees: readiness, metrics, the log, the start of a process.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stopover::telemetry::catalog::{CATALOG, Definition, Kind};

use crate::support::frames::batch;
use crate::support::{BaseFolder, RAW, TestServer, ok_json, sink};

/// Writes one page as one finished attempt.
async fn write_task(server: &TestServer, exchange: &str, task: u32, page: &'static str) {
    let sink = sink(exchange, task, 0);
    let pages = format!("{sink}/pages?partition=0");
    ok_json(server.post(&pages, RAW, page).await).await;
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
}

async fn problem_of(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    let kind = problem["type"].as_str().unwrap();
    (
        status,
        kind.trim_start_matches("urn:stopover:problem:").into(),
    )
}

/// Story: the segments of an open exchange were deleted from outside. The route for curl answered
/// 200 with an empty body, through every daemon.
#[tokio::test]
async fn a_partition_whose_segments_were_deleted_is_an_error_and_never_a_shorter_result() {
    let base_folder = BaseFolder::new();
    let writer = TestServer::open(&base_folder.config()).await;
    let stranger = TestServer::open(&base_folder.config()).await;
    writer.announce("lost", 1).await;
    let path = "/v1/exchanges/lost/partitions/0";
    let nothing = (409, "attempt-not-committed".to_owned());
    assert_eq!(problem_of(writer.get(path).await).await, nothing);
    write_task(&writer, "lost", 0, "first").await;
    write_task(&writer, "lost", 1, "second").await;
    for server in [&writer, &stranger] {
        assert_eq!(server.get(path).await.text().await.unwrap(), "firstsecond");
        let complete = server.get(&format!("{path}?tasks=2")).await;
        assert_eq!(complete.text().await.unwrap(), "firstsecond");
        let wrong = problem_of(server.get(&format!("{path}?tasks=3")).await).await;
        assert_eq!(wrong, nothing);
    }

    let segments = base_folder.segments();
    assert_eq!(segments.len(), 2);
    std::fs::remove_file(&segments[0]).unwrap();
    let newcomer = TestServer::open(&base_folder.config()).await;
    let lost = (502, "data-lost".to_owned());
    for server in [&writer, &stranger] {
        assert_eq!(
            problem_of(server.get(path).await).await,
            lost,
            "it had the segment"
        );
        let shown = server.get("/v1/exchanges/lost").await;
        assert_eq!(problem_of(shown).await, lost);
    }
    let counted = newcomer.get(&format!("{path}?tasks=2")).await;
    assert_eq!(
        problem_of(counted).await,
        nothing,
        "the client knows how many tasks there are"
    );
    std::fs::remove_file(&segments[1]).unwrap();
    assert_eq!(problem_of(newcomer.get(path).await).await, lost);
    let last = TestServer::open(&base_folder.config()).await;
    assert_eq!(problem_of(last.get(path).await).await, nothing);
    assert_eq!(newcomer.delete("/v1/exchanges/lost").await.status(), 204);
    for server in [writer, stranger, newcomer, last] {
        let closed = problem_of(server.get(path).await).await;
        assert!(
            ["exchange-closed", "exchange-not-found"].contains(&&*closed.1),
            "{closed:?}"
        );
        server.shut_down().await;
    }
}

/// Story: a response with a Content-Length is complete before its stream ends, and pages were
/// counted at the end of the stream.
#[tokio::test]
async fn pages_read_without_a_handle_are_counted() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("counted", 1).await;
    write_task(&server, "counted", 0, "seven b").await;
    let read = server.get("/v1/exchanges/counted/partitions/0").await;
    assert_eq!(read.text().await.unwrap(), "seven b");
    server.expect_no_request_in_progress().await;
    assert_eq!(server.metric("stopover_pages_read_bytes_total").await, 7);
    assert_eq!(server.metric("stopover_pages_read_total").await, 1);
    server.shut_down().await;
}

/// Story: alerts on `stopover_storage_put_failures_total` saw nothing of the first failure, because
/// the series appeared with it.
#[tokio::test]
async fn every_counter_is_exported_from_the_start() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let text = server.get("/metrics").await.text().await.unwrap();
    let catalogs = [CATALOG, stopover::store::metrics::CATALOG].concat();
    let counters = catalogs
        .iter()
        .filter(|definition| definition.kind == Kind::Counter);
    let name = Definition::full_name;
    let missing: Vec<String> = counters
        .map(name)
        .filter(|name| {
            !text.lines().any(|line| {
                line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{"))
            })
        })
        .collect();
    assert_eq!(missing, [""; 0]);
    assert!(text.contains("stopover_storage_put_failures_total{base=\"main\"} 0\n"));
    let pools = ["write", "read", "request"];
    for pool in pools {
        let series = format!("stopover_memory_capacity_bytes{{pool=\"{pool}\"}}");
        assert!(server.metric(&series).await > 0);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_stored_for_open_exchanges_is_counted_until_it_is_deleted() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let stored = "stopover_storage_stored_bytes{base=\"main\"}";
    let deleted = "stopover_storage_deleted_bytes_total{base=\"main\"}";
    // Names of the same length, so that the segments have the same size.
    for exchange in ["q-1", "q-2"] {
        server.announce(exchange, 1).await;
        write_task(&server, exchange, 0, "pages").await;
    }
    let written = server.metric("stopover_segments_written_bytes_total").await;
    assert!(written > 0);
    assert_eq!(server.metric(stored).await, written);
    assert_eq!(server.metric(deleted).await, 0);
    let young = "stopover_exchanges_by_age{age=\"1m\"}";
    assert_eq!(server.metric(young).await, 2);
    assert_eq!(
        server.metric("stopover_exchanges_by_age{age=\"1d\"}").await,
        0
    );

    server.delete("/v1/exchanges/q-1").await;
    assert_eq!(server.metric(deleted).await, written / 2);
    assert_eq!(server.metric(stored).await, written / 2);
    assert_eq!(server.metric(young).await, 1);
    server.delete("/v1/exchanges/q-2").await;
    assert_eq!(server.metric(stored).await, 0);
    assert_eq!(server.metric(deleted).await, written);
    let price = "stopover_storage_request_dollars_total{base=\"main\",operation=\"put\"}";
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(
        text.contains(&format!("{price} 0.0\n")),
        "a folder costs nothing: {text}"
    );
    server.shut_down().await;
}

/// Writes a task of an exchange that is described, plans and reads it, and closes the exchange.
async fn use_described(server: &TestServer, exchange: &str, descriptor: &str) {
    let described = |method, path: &str| {
        let request = server.request(method, path);
        request.header("stopover-exchange", descriptor)
    };
    let path = format!("/v1/exchanges/{exchange}");
    let page = described(Method::POST, &format!("{path}/sinks/0/0/pages?partition=0"));
    let page = page.header("content-type", "application/octet-stream");
    ok_json(page.body("page").send().await.unwrap()).await;
    let finish = described(Method::POST, &format!("{path}/sinks/0/0/finish"));
    ok_json(finish.send().await.unwrap()).await;
    let wanted = json!({"attempts": [[0, 0]], "target_size": 1000});
    let planned = described(Method::POST, &format!("{path}/handles"));
    let planned = planned.json(&wanted).send().await.unwrap();
    let lines = planned.text().await.unwrap();
    let handle: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let read = server.read(handle["handle"].as_str().unwrap(), 0).await;
    assert_eq!(read.status(), StatusCode::OK);
    let closed = described(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(closed.status(), StatusCode::NO_CONTENT);
}

/// Announces an exchange as the plugin does; returns its descriptor once that is durable.
async fn announce_new(server: &TestServer, exchange: &str) -> String {
    let properties = json!({"partitions": 1, "ordered": false});
    let path = format!("/v1/exchanges/{exchange}");
    let announce = || {
        server
            .request(Method::PUT, &path)
            .header("if-none-match", "*")
    };
    let announced = announce().json(&properties).send().await.unwrap();
    assert_eq!(announced.status(), StatusCode::CREATED);
    let announced: Value = announced.json().await.unwrap();
    let descriptor = announced["descriptor"].as_str().unwrap().to_owned();
    let confirm = announce().header("stopover-exchange", &descriptor);
    ok_json(confirm.json(&properties).send().await.unwrap()).await;
    descriptor
}

/// Story: of two base directories one lost its bucket, and no query could begin.
#[tokio::test]
async fn exchanges_announced_while_a_base_directory_is_gone_do_not_depend_on_it() {
    let (kept, removed) = (BaseFolder::new(), BaseFolder::new());
    let mut config = kept.config();
    let mut second = removed.config().base_directories.remove(0);
    second.name = "removed".into();
    config.base_directories.push(second);
    let server = TestServer::open(&config).await;
    let before = announce_new(&server, "before").await;
    let away = removed.path().with_extension("away");
    std::fs::rename(removed.path(), &away).unwrap();
    server.daemon.storage.probe().await;
    let ready = ok_json(server.get("/readyz").await).await;
    assert_eq!(
        (&ready["ready"], &ready["obstacles"]),
        (&json!(true), &json!([]))
    );
    let out = &ready["base_directories"][1];
    assert_eq!(
        (&out["healthy"], &out["readable"]),
        (&json!(false), &json!(false))
    );
    for number in 0..3 {
        let exchange = format!("meanwhile-{number}");
        let descriptor = announce_new(&server, &exchange).await;
        use_described(&server, &exchange, &descriptor).await;
    }
    // One that was announced before is closed, and what is left is said.
    let close = server.request(Method::DELETE, "/v1/exchanges/before");
    let close = close
        .header("stopover-exchange", &before)
        .send()
        .await
        .unwrap();
    assert_eq!(close.status(), StatusCode::ACCEPTED);
    let closed: Value = close.json().await.unwrap();
    let reason = closed["reason"].as_str().unwrap();
    assert!(reason.contains("base directory removed"), "{reason}");
    std::fs::rename(&away, removed.path()).unwrap();
    server.daemon.storage.probe().await;
    let begun = Instant::now();
    while !server
        .daemon
        .storage
        .list_exchanges()
        .await
        .unwrap()
        .is_empty()
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "not cleared");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let descriptor = announce_new(&server, "after").await;
    use_described(&server, "after", &descriptor).await;
    let closed = server.delete("/v1/exchanges/before").await;
    assert_eq!(closed.status(), StatusCode::NO_CONTENT);
    server.shut_down().await;
}

/// Story: of two base directories one lost its bucket. Every announcement was answered 503, and
/// `/readyz` said ready.
#[tokio::test]
async fn a_daemon_is_not_ready_while_no_exchange_can_be_opened_and_reports_why() {
    let removed = BaseFolder::new();
    let mut config = removed.config();
    config.base_directories[0].name = "removed".into();
    let server = TestServer::open(&config).await;
    let ready = ok_json(server.get("/readyz").await).await;
    assert_eq!(
        (&ready["ready"], &ready["obstacles"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(server.metric("stopover_accepts_exchanges").await, 1);
    server.announce("before", 1).await;

    // A file in the place of the folder cannot be read as one.
    let away = removed.path().with_extension("away");
    std::fs::rename(removed.path(), &away).unwrap();
    std::fs::write(removed.path(), "").unwrap();
    let announced = json!({"partitions": 1, "ordered": false});
    let refused = server.put_json("/v1/exchanges/after", &announced).await;
    assert_eq!(problem_of(refused).await.0, 503);
    let not_ready = server.get("/readyz").await;
    assert_eq!(not_ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let not_ready: Value = not_ready.json().await.unwrap();
    let obstacle = not_ready["obstacles"][0].as_str().unwrap();
    assert!(
        obstacle.starts_with("base directory removed cannot be read"),
        "{obstacle}"
    );
    assert_eq!(not_ready["base_directories"][0]["readable"], false);
    assert_eq!(server.metric("stopover_accepts_exchanges").await, 0);
    let page = server.get("/").await.text().await.unwrap();
    assert!(
        page.contains("No new exchange can be opened: base directory removed"),
        "{page}"
    );

    std::fs::remove_file(removed.path()).unwrap();
    std::fs::rename(&away, removed.path()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.get("/readyz").await.status() != StatusCode::OK {
        assert!(Instant::now() < deadline, "not ready again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.metric("stopover_accepts_exchanges").await, 1);
    server.announce("after", 1).await;
    server.shut_down().await;
}

#[tokio::test]
async fn readiness_shows_clients_without_a_token_only_whether_the_daemon_is_ready() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "write the-token-0123456789\n").unwrap();
    config.server.token_file = Some(file.path().to_owned());
    let mut server = TestServer::open(&config).await;
    for token in [None, Some("another-token-0123456789")] {
        server.token = token.map(str::to_owned);
        let ready = ok_json(server.get("/readyz").await).await;
        assert_eq!(ready, json!({"ready": true}));
    }
    server.token = Some("the-token-0123456789".to_owned());
    let ready = ok_json(server.get("/readyz").await).await;
    assert_eq!(ready["base_directories"][0]["name"], "main");
    server.shut_down().await;
}

#[tokio::test]
async fn a_json_array_in_place_of_an_object_is_refused() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let refused = server.put_json("/v1/exchanges/a", &json!([1, false])).await;
    assert_eq!(
        problem_of(refused).await,
        (400, "invalid-request".to_owned())
    );
    server.announce("a", 1).await;
    let pages = format!("{}/pages?batch=0", sink("a", 0, 0));
    ok_json(
        server
            .post(&pages, crate::support::BATCH, batch(&[(0, b"x")]))
            .await,
    )
    .await;
    let finish = format!("{}/finish", sink("a", 0, 0));
    let refused = server.post_json(&finish, &json!([1, 1, 1, null])).await;
    assert_eq!(
        problem_of(refused).await,
        (400, "invalid-request".to_owned())
    );
    let handles = "/v1/exchanges/a/handles";
    let refused = server.post_json(handles, &json!([[[0, 0]], 1])).await;
    assert_eq!(
        problem_of(refused).await,
        (400, "invalid-request".to_owned())
    );
    server.shut_down().await;
}

/// A daemon process with this configuration, at a fixed address, and with its log.
struct Logged {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Logged {
    fn start(folder: &Path, config: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let file = folder.join("stopover.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
        command.args(["serve", "--listen", &address.to_string(), "--config"]);
        command
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let log = folder.join("log");
        command.stderr(File::create(&log).unwrap());
        Self {
            child: command.spawn().unwrap(),
            url: format!("http://{address}"),
            log,
        }
    }

    fn wait_until_serving(&mut self) {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line}");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log contains a text: an answer may be earlier than the line about it.
    fn wait_until_logged(&self, part: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.log().contains(part) {
            assert!(
                Instant::now() < deadline,
                "{part:?} is not in {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer, as soon as the process listens.
async fn first_answer(url: &str) -> reqwest::Response {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match reqwest::get(url).await {
            Ok(response) => return response,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Story: one of two base directories accepted connections and never answered. Nothing was answered
/// for 160 s, and liveness probes restarted the daemon before.
#[tokio::test]
async fn a_daemon_answers_probes_while_it_starts_and_serves_with_the_base_directories_that_answer()
{
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[server]\nstart_timeout = \"4s\"\n\
         [[base_directory]]\nname = \"good\"\nuri = \"file://{}\"\n\
         [[base_directory]]\nname = \"silent\"\nuri = \"s3://bucket/prefix\"\n\
         endpoint = \"http://{}\"\nallow_http = \"true\"\nregion = \"r\"\naccess_key_id = \"k\"\n\
         secret_access_key = \"secret-secret\"\n",
        folder.path().join("data").display(),
        silent.local_addr().unwrap()
    );
    let started = Instant::now();
    let mut daemon = Logged::start(folder.path(), &config);
    let url = daemon.url.clone();
    assert_eq!(first_answer(&format!("{url}/healthz")).await.status(), 200);
    let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap();
    assert!(
        metrics
            .text()
            .await
            .unwrap()
            .contains("stopover_accepts_exchanges 0\n")
    );
    let early = reqwest::get(format!("{url}/v1/exchanges")).await.unwrap();
    assert_eq!(early.headers()["retry-after"], "1");
    assert_eq!(problem_of(early).await, (503, "starting".to_owned()));
    let starting = reqwest::get(format!("{url}/readyz")).await.unwrap();
    assert_eq!(starting.status(), 503);
    assert_eq!(starting.json::<Value>().await.unwrap()["starting"], true);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );

    daemon.wait_until_serving();
    let took = started.elapsed();
    assert!((4..12).contains(&took.as_secs()), "{took:?}");
    let ready: Value = reqwest::get(format!("{url}/readyz"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ready["starting"], false);
    assert_eq!(ready["obstacles"], json!([]), "the other one works");
    let bases = ready["base_directories"].as_array().unwrap();
    let out = bases.iter().find(|base| base["name"] == "silent").unwrap();
    let error = out["error"].as_str().unwrap();
    assert!(error.contains("server.start_timeout"), "{error}");
    let log = daemon.log();
    assert_eq!(
        log.matches("no new exchange can be opened").count(),
        0,
        "{log}"
    );
}

#[tokio::test]
async fn a_daemon_without_a_base_directory_that_works_runs_and_is_ready_once_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // A file in the place of the folder.
    std::fs::write(&data, "").unwrap();
    let config = format!("[[base_directory]]\nuri = \"file://{}\"\n", data.display());
    let mut daemon = Logged::start(folder.path(), &config);
    daemon.wait_until_serving();
    let ready = format!("{}/readyz", daemon.url);
    let not_ready = reqwest::get(&ready).await.unwrap();
    assert_eq!(not_ready.status(), 503);
    assert_ne!(
        not_ready.json::<Value>().await.unwrap()["obstacles"],
        json!([])
    );
    std::fs::remove_file(&data).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while reqwest::get(&ready).await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline, "not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.wait_until_logged("new exchanges can be opened again");
    let log = daemon.log();
    assert_eq!(
        log.matches("new exchanges can be opened again").count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn closes_refusals_and_collections_are_lines_of_the_log_without_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(
        &tokens,
        "# two\nthe-admin-token-0123\nread the-reader-token-0123\n",
    )
    .unwrap();
    let config = format!(
        "[server]\ntoken_file = \"{}\"\n[lease]\nduration = \"1s\"\nsweep_interval = \"100ms\"\n\
         [[base_directory]]\nuri = \"file://{}\"\n",
        tokens.display(),
        folder.path().join("data").display()
    );
    let mut daemon = Logged::start(folder.path(), &config);
    daemon.wait_until_serving();
    let http = reqwest::Client::new();
    let send = async |method: &str, path: &str, token: &str| {
        let url = format!("{}{path}", daemon.url);
        let request = http
            .request(method.parse().unwrap(), url)
            .bearer_auth(token);
        let body = json!({"partitions": 1, "ordered": false});
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    let admin = "the-admin-token-0123";
    assert_eq!(send("PUT", "/v1/exchanges/closed", admin).await, 201);
    assert_eq!(send("DELETE", "/v1/exchanges/closed", admin).await, 204);
    assert_eq!(send("PUT", "/v1/exchanges/collected", admin).await, 201);
    for _ in 0..50 {
        let refused = send("PUT", "/v1/exchanges/refused", "the-reader-token-0123").await;
        assert_eq!(refused, 403);
    }
    assert_eq!(
        send("GET", "/v1/exchanges/%C2%9B2J", "a-wrong-token-0123").await,
        401
    );
    daemon.wait_until_logged("exchange collected");
    let log = daemon.log();
    let line = |words: &[&str]| {
        let matching = log
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)));
        matching.count()
    };
    let closed = [
        "INFO",
        "exchange closed",
        "exchange=closed",
        "segments=0",
        "client=127.0.0.1:",
        "with the token of line 2",
    ];
    assert_eq!(line(&closed), 1, "{log}");
    let collected = [
        "INFO",
        "exchange collected",
        "exchange=collected",
        "segments=0",
    ];
    assert_eq!(line(&collected), 1, "{log}");
    let refused = [
        "INFO",
        "refused for lack of rights",
        "forbidden",
        "client=127.0.0.1:",
    ];
    assert_eq!(line(&refused), 10, "limited: {log}");
    assert!(!log.contains("token-0123"), "{log}");
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log}");
}
