//! Pages written and read over HTTP: what a client that does everything right may rely on.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::frames::{End, ReadPage, batch, finish_checksum, parse};
use crate::support::{BATCH, BaseFolder, RAW, TestServer, ok_json, sink};

/// Announces, writes and finishes three tasks of four pages each over three partitions.
async fn three_tasks(server: &TestServer, exchange: &str) -> Vec<ReadPage> {
    server.announce(exchange, 3).await;
    let mut written = Vec::new();
    for task in 0..3 {
        let page = |n: u32| format!("page {n} of task {task}").into_bytes();
        let pages: Vec<Vec<u8>> = (0..4).map(page).collect();
        // Partition 2 stays empty.
        let partitions = [0, 0, 1, 1];
        let frames: Vec<(u32, &[u8])> = partitions
            .iter()
            .zip(&pages)
            .map(|(p, page)| (*p, page.as_slice()))
            .collect();
        let sink = sink(exchange, task, 0);
        server.add(&sink, 0, batch(&frames[..3])).await;
        server.add(&sink, 1, batch(&frames[3..])).await;
        let bytes: usize = pages.iter().map(Vec::len).sum();
        let claim = json!({
            "batches": 2, "pages": 4, "bytes": bytes, "checksum": finish_checksum(&frames),
        });
        let finished = ok_json(server.post_json(&format!("{sink}/finish"), &claim).await).await;
        let expected = json!({"state": "finished", "batches": 2, "pages": 4, "bytes": bytes});
        assert_eq!(finished, expected);
        let read_page = |(partition, page): &(u32, &[u8])| ReadPage {
            partition: *partition,
            task,
            attempt: 0,
            page: page.to_vec(),
        };
        written.extend(frames.iter().map(read_page));
    }
    written.sort_by_key(|page| (page.partition, page.task));
    written
}

async fn read_all(server: &TestServer, handles: &[Value]) -> Vec<ReadPage> {
    let mut pages = Vec::new();
    for handle in handles {
        let response = server.read(handle["handle"].as_str().unwrap(), 0).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["content-type"],
            "application/vnd.stopover.read"
        );
        let (read, end) = parse(&response.bytes().await.unwrap());
        assert_eq!(end, End::Complete);
        assert_eq!(handle["pages"], read.len());
        assert_eq!(
            handle["bytes"],
            read.iter().map(|p| p.page.len()).sum::<usize>()
        );
        assert!(read.iter().all(|p| handle["partition"] == p.partition));
        pages.extend(read);
    }
    pages
}

#[tokio::test]
async fn raw_pages_sent_as_curl_would_are_read_back_byte_for_byte() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("curl", 4).await;
    let sink = sink("curl", 7, 2);
    for (number, page) in ["first", "second"].into_iter().enumerate() {
        let accepted = server
            .post(&format!("{sink}/pages?partition=3"), RAW, page)
            .await;
        let expected = json!({"batch": number, "next": number + 1, "repeated": false});
        assert_eq!(ok_json(accepted).await, expected);
    }
    let finished = ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let expected = json!({"state": "finished", "batches": 2, "pages": 2, "bytes": 11});
    assert_eq!(finished, expected);
    let response = server.get("/v1/exchanges/curl/partitions/3").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], RAW);
    assert_eq!(response.headers()["content-length"], "11");
    assert_eq!(response.bytes().await.unwrap(), "firstsecond");
    let empty = server.get("/v1/exchanges/curl/partitions/0").await;
    assert_eq!(empty.headers()["content-length"], "0");
    assert_eq!(empty.bytes().await.unwrap(), "");
    server.shut_down().await;
}

#[tokio::test]
async fn framed_pages_of_many_tasks_are_read_by_handle_through_any_daemon() {
    let base_folder = BaseFolder::new();
    let writer = TestServer::open(&base_folder.config()).await;
    let written = three_tasks(&writer, "many").await;
    let attempts = json!([[0, 0], [1, 0], [2, 0]]);
    let handles = writer.handles("many", &attempts, 64 << 20).await;
    let partitions: Vec<&Value> = handles.iter().map(|h| &h["partition"]).collect();
    assert_eq!(partitions, [0, 1]);
    assert_eq!(read_all(&writer, &handles).await, written);

    let other = TestServer::open(&base_folder.config()).await;
    assert_eq!(other.handles("many", &attempts, 64 << 20).await, handles);
    assert_eq!(read_all(&other, &handles).await, written);
    writer.shut_down().await;
    assert_eq!(read_all(&other, &handles).await, written);
    other.shut_down().await;
}

#[tokio::test]
async fn a_read_resumes_with_skip_after_any_page() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let written = three_tasks(&server, "skip").await;
    let handles = server
        .handles("skip", &json!([[0, 0], [1, 0], [2, 0]]), 64 << 20)
        .await;
    let handle = handles[0]["handle"].as_str().unwrap();
    let whole: Vec<ReadPage> = written.into_iter().filter(|p| p.partition == 0).collect();
    for skip in 0..=whole.len() {
        let response = server.read(handle, skip as u64).await;
        let (read, end) = parse(&response.bytes().await.unwrap());
        assert_eq!(end, End::Complete);
        assert_eq!(read, whole[skip..], "skip={skip}");
    }
    let beyond = server.read(handle, whole.len() as u64 + 1).await;
    assert_eq!(beyond.status(), StatusCode::BAD_REQUEST);
    server.shut_down().await;
}

#[tokio::test]
async fn a_partition_is_sent_as_records_on_request_and_filtered_by_task_and_attempt() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let written = three_tasks(&server, "p").await;
    // A second attempt of task 1: the newest is read unless the query names another.
    let second = sink("p", 1, 1);
    server.add(&second, 0, batch(&[(1, b"again")])).await;
    ok_json(server.post_empty(&format!("{second}/finish")).await).await;

    let records = server
        .request(Method::GET, "/v1/exchanges/p/partitions/1")
        .header("accept", "application/vnd.stopover.read");
    let response = records.send().await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "application/vnd.stopover.read"
    );
    let (read, end) = parse(&response.bytes().await.unwrap());
    assert_eq!(end, End::Complete);
    let chosen: Vec<(u32, u32)> = read.iter().map(|p| (p.task, p.attempt)).collect();
    assert_eq!(chosen, [(0, 0), (0, 0), (1, 1), (2, 0), (2, 0)]);

    let filtered = server
        .get("/v1/exchanges/p/partitions/1?task=1&attempt=0")
        .await;
    let expected: Vec<u8> = written
        .iter()
        .filter(|p| p.partition == 1 && p.task == 1)
        .flat_map(|p| p.page.clone())
        .collect();
    assert_eq!(filtered.bytes().await.unwrap(), expected);
    server.shut_down().await;
}

#[tokio::test]
async fn a_repeated_batch_changes_nothing_and_is_reported_as_repeated() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("r", 1).await;
    let sink = sink("r", 0, 0);
    for (batch_number, page) in [(0, b"one"), (1, b"two")] {
        let body = batch(&[(0, page)]);
        let first = server.add(&sink, batch_number, body.clone()).await;
        assert_eq!(
            first,
            json!({"batch": batch_number, "next": batch_number + 1, "repeated": false})
        );
        for _ in 0..2 {
            let again = server.add(&sink, batch_number, body.clone()).await;
            assert_eq!(again["repeated"], true);
            assert_eq!(again["next"], batch_number + 1);
        }
    }
    assert_eq!(
        server.add(&sink, 0, batch(&[(0, b"one")])).await["repeated"],
        true
    );
    let claim = json!({"batches": 2, "pages": 2, "bytes": 6});
    ok_json(server.post_json(&format!("{sink}/finish"), &claim).await).await;
    let response = server.get("/v1/exchanges/r/partitions/0").await;
    assert_eq!(response.bytes().await.unwrap(), "onetwo");
    server.shut_down().await;
}

#[tokio::test]
async fn a_repeated_finish_or_abort_gives_the_same_answer_also_through_another_daemon() {
    let base_folder = BaseFolder::new();
    let (server, other) = (
        TestServer::open(&base_folder.config()).await,
        TestServer::open(&base_folder.config()).await,
    );
    three_tasks(&server, "f").await;
    let path = |task, verb| format!("{}/{verb}", sink("f", task, 0));
    let bare = ok_json(server.post_empty(&path(0, "finish")).await).await;
    for server in [&server, &other] {
        assert_eq!(
            ok_json(server.post_empty(&path(0, "finish")).await).await,
            bare
        );
        let aborted = ok_json(server.post_empty(&path(0, "abort")).await).await;
        assert_eq!(aborted, json!({"state": "finished"}));
    }
    for _ in 0..2 {
        let aborted = ok_json(server.post_empty(&path(9, "abort")).await).await;
        assert_eq!(aborted, json!({"state": "aborted"}));
    }
    let empty = json!({"batches": 0, "pages": 0, "bytes": 0});
    let finished = ok_json(other.post_json(&path(10, "finish"), &empty).await).await;
    assert_eq!(
        finished,
        json!({"state": "finished", "batches": 0, "pages": 0, "bytes": 0})
    );
    server.shut_down().await;
    other.shut_down().await;
}

#[tokio::test]
async fn an_exchange_is_announced_listed_shown_and_closed_without_a_trace() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let id = "20261123_q-67e55044-10b1-426f-9247-bb680e5fe0c8";
    let path = format!("/v1/exchanges/{id}");
    let spec = json!({"partitions": 3, "ordered": false});
    let response = server.put_json(&path, &spec).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let header = response.headers()["stopover-exchange"].clone();
    let announced: Value = response.json().await.unwrap();
    let lease = json!({
        "exchange": id, "partitions": 3, "ordered": false, "lease_seconds": 900,
        "descriptor": header.to_str().unwrap(),
    });
    assert_eq!(announced, lease);
    assert_eq!(ok_json(server.put_json(&path, &spec).await).await, lease);

    let written = three_tasks(&server, id).await;
    let files = base_folder.segments();
    let sizes = files
        .iter()
        .map(|file| std::fs::metadata(file).unwrap().len());
    let stored: u64 = sizes.sum();
    let share = json!({"base": "main", "marker": true, "segments": files.len(), "bytes": stored});
    let listed = json!({
        "exchange": id, "query": "20261123_q", "state": "open", "partitions": 3, "ordered": false,
        "lease_seconds": 900, "bytes": stored, "base_directories": [share],
    });
    let list = ok_json(server.get("/v1/exchanges").await).await;
    assert_eq!(list, json!({"exchanges": [listed]}));
    let shown = ok_json(server.get(&path).await).await;
    assert_eq!(shown["base_directories"], listed["base_directories"]);
    let bytes: usize = written
        .iter()
        .filter(|p| p.task == 2)
        .map(|p| p.page.len())
        .sum();
    assert_eq!(shown["query"], "20261123_q");
    let segments = shown["segments"].as_array().unwrap();
    assert_eq!(segments.len(), files.len());
    assert_eq!(segments[0]["base"], "main");
    let run = ok_json(server.get("/v1/daemon").await).await["run"].clone();
    assert!(segments.iter().all(|s| s["daemon"] == run), "{segments:?}");
    assert!(segments[0]["sealed_millis"].as_u64().unwrap() > 1_700_000_000_000);
    let mut committed = shown["committed"][2].clone();
    let holder = committed["segment"].take();
    assert!(segments.iter().any(|s| s["segment"] == holder), "{shown}");
    assert_eq!(
        committed,
        json!({"task": 2, "attempt": 0, "pages": 4, "bytes": bytes, "segment": null})
    );

    for _ in 0..2 {
        assert_eq!(server.delete(&path).await.status(), StatusCode::NO_CONTENT);
        assert!(base_folder.segments().is_empty());
    }
    assert_eq!(server.get(&path).await.status(), StatusCode::GONE);
    let list = ok_json(server.get("/v1/exchanges").await).await;
    assert_eq!(list, json!({"exchanges": []}));
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_list_of_exchanges_comes_in_parts_and_can_be_that_of_one_query() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c";
    let query = "20261123_120000_00001_abcde";
    for last in 0..3 {
        server.announce(&format!("{query}-{uuid}{last}"), 1).await;
    }
    server.announce("other", 1).await;
    let names = |list: &Value| -> Vec<String> {
        let all = list["exchanges"].as_array().unwrap().iter();
        all.map(|e| e["exchange"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut found = Vec::new();
    let mut path = "/v1/exchanges?limit=3".to_owned();
    for _ in 0..2 {
        let list = ok_json(server.get(&path).await).await;
        found.extend(names(&list));
        path = format!(
            "/v1/exchanges?limit=3&after={}",
            list["next"].as_str().unwrap_or("x")
        );
    }
    let whole = ok_json(server.get("/v1/exchanges").await).await;
    assert_eq!((found.len(), &found), (4, &names(&whole)));
    assert_eq!(whole.get("next"), None);
    let list = ok_json(server.get(&format!("/v1/exchanges?query={query}")).await).await;
    assert_eq!(names(&list).len(), 3);
    assert!(list["exchanges"][0]["age_seconds"].is_u64(), "{list}");
    for bad in [
        "limit=0",
        "limit=10001",
        "after=../x",
        "query=%41",
        "other=1",
    ] {
        let refused = server.get(&format!("/v1/exchanges?{bad}")).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn head_gives_the_headers_of_get_without_its_body() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    three_tasks(&server, "h").await;
    for path in [
        "/v1/exchanges/h/partitions/0",
        "/healthz",
        "/v1/exchanges",
        "/openapi.json",
    ] {
        let get = server.get(path).await;
        let head = server.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status(), get.status());
        for name in ["content-length", "content-type"] {
            assert!(get.headers().contains_key(name), "{path} {name}");
            assert_eq!(
                head.headers().get(name),
                get.headers().get(name),
                "{path} {name}"
            );
        }
        assert!(head.bytes().await.unwrap().is_empty());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn health_readiness_dashboard_metrics_and_openapi_are_served() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
    let ready = ok_json(server.get("/readyz").await).await;
    assert_eq!(
        (&ready["ready"], &ready["draining"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(ready["base_directories"][0]["name"], "main");
    assert_eq!(ready["base_directories"][0]["healthy"], true);
    let page = server.get("/").await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("<h2>Base directories</h2>")
    );
    let metrics = server.get("/metrics").await;
    assert!(metrics.text().await.unwrap().ends_with("# EOF\n"));
    let api = ok_json(server.get("/openapi.json").await).await;
    assert!(api["paths"]["/v1/read"]["post"].is_object());

    server.daemon.ingest.drain();
    let response = server.get("/readyz").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let draining: Value = response.json().await.unwrap();
    assert_eq!(
        (&draining["ready"], &draining["draining"]),
        (&json!(false), &json!(true))
    );
    server.shut_down().await;
}

/// A client plans with what every daemon of its fleet supports, so each says what that is.
#[tokio::test]
async fn a_daemon_describes_its_versions_and_limits_and_refuses_another_protocol() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.max_page_size = 12345;
    config.server.advertise = vec!["http://node-1.trino:7077".to_owned()];
    config.server.zone = "zone-1".to_owned();
    let server = TestServer::open(&config).await;
    let response = server.get("/v1/daemon").await;
    let run = response.headers()["stopover-run"].clone();
    assert_eq!(response.headers()["stopover-protocol"], "1");
    let info = ok_json(response).await;
    assert_eq!(info["run"], run.to_str().unwrap());
    assert_eq!(info["host"], stopover::telemetry::process::host_name());
    assert_eq!(info["limits"]["max_page_size"], 12345);
    let base = &info["base_directories"][0];
    assert_eq!(base["name"], "main");
    assert_eq!(base["id"].as_str().unwrap().len(), 16);
    assert_eq!(base["state"], "active");
    assert_eq!(info["missing_base_directories"], json!([]));
    assert_eq!(info["advertise"], json!(["http://node-1.trino:7077"]));
    assert_eq!(info["zone"], "zone-1");

    let with_protocol = async |path: &str, protocol: &str| {
        let request = server.request(Method::GET, path);
        let response = request.header("stopover-protocol", protocol).send().await;
        response.unwrap()
    };
    assert_eq!(
        with_protocol("/v1/exchanges", "1").await.status(),
        StatusCode::OK
    );
    let refused = with_protocol("/v1/exchanges", "9").await;
    assert_eq!(refused.headers()["stopover-run"], run);
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "urn:stopover:problem:unsupported-protocol");
    // It is how such a client finds out what to do.
    assert_eq!(
        with_protocol("/v1/daemon", "9").await.status(),
        StatusCode::OK
    );

    let other = TestServer::open(&config).await;
    let restarted = other.get("/healthz").await;
    assert_ne!(restarted.headers()["stopover-run"], run);
    other.shut_down().await;
    server.shut_down().await;
}

/// Promise 10 of docs/semantics.md.
#[tokio::test]
async fn without_a_valid_token_nothing_is_read_written_listed_or_deleted() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old-token-0123456789\nnew-token-0123456789\n").unwrap();
    config.server.token_file = Some(file.path().to_owned());
    let mut server = TestServer::open(&config).await;
    server.token = Some("new-token-0123456789".to_owned());
    let written = three_tasks(&server, "t").await;
    let handles = server
        .handles("t", &json!([[0, 0], [1, 0], [2, 0]]), 64 << 20)
        .await;
    let handle = handles[0]["handle"].as_str().unwrap().to_owned();

    let sink = sink("t", 5, 0);
    for token in [None, Some("old-token-0123456788".to_owned())] {
        server.token = token;
        let claim = json!({"batches": 0, "pages": 0, "bytes": 0});
        let attempts = json!({"attempts": [[0, 0]], "target_size": 1});
        let spec = json!({"partitions": 1, "ordered": false});
        let refused = [
            server.get("/v1/exchanges").await,
            server.get("/v1/exchanges/t").await,
            server.get("/v1/exchanges/t/partitions/0").await,
            server.delete("/v1/exchanges/t").await,
            server.put_json("/v1/exchanges/new", &spec).await,
            server
                .post(&format!("{sink}/pages?batch=0"), BATCH, batch(&[(0, b"x")]))
                .await,
            server.put_empty(&sink).await,
            server.post_json(&format!("{sink}/finish"), &claim).await,
            server.post_empty(&format!("{sink}/abort")).await,
            server.post_json("/v1/exchanges/t/handles", &attempts).await,
            server.read(&handle, 0).await,
            server.get("/metrics").await,
            server.get("/").await,
            server.get("/openapi.json").await,
        ];
        for response in refused {
            assert_eq!(
                response.status(),
                StatusCode::UNAUTHORIZED,
                "{}",
                response.url()
            );
            let text = response.text().await.unwrap();
            assert!(!text.contains("token-0123"), "{text}");
        }
        assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
        assert_eq!(server.get("/readyz").await.status(), StatusCode::OK);
    }
    server.token = Some("old-token-0123456789".to_owned());
    let list = ok_json(server.get("/v1/exchanges").await).await;
    assert_eq!(list["exchanges"].as_array().unwrap().len(), 1);
    let shown = ok_json(server.get("/v1/exchanges/t").await).await;
    assert_eq!(shown["committed"].as_array().unwrap().len(), 3);
    assert_eq!(read_all(&server, &handles).await, written);
    server.shut_down().await;
}
