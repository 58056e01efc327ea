//! Who is served: browsers, workers, and strangers that fill the connections.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::frames::batch;
use crate::support::raw::RawClient;
use crate::support::tls::{CredentialFiles, Identity};
use crate::support::{BATCH, BaseFolder, TestServer, ok_json, sink};

const WORKER: &str = "worker-token-0123456789";
const COORDINATOR: &str = "coordinator-token-0123456789";

async fn with_tokens(base_folder: &BaseFolder, connections: usize) -> TestServer {
    let files = CredentialFiles::new(&Identity {
        certificate: String::new(),
        key: String::new(),
    });
    let text = format!("write,read {WORKER}\ncoordinate {COORDINATOR}\n");
    files.write("tokens", &text);
    let mut config = base_folder.config();
    config.server.token_file = Some(files.path("tokens"));
    config.limits.max_connections = connections;
    TestServer::open(&config).await
}

#[tokio::test]
async fn without_a_token_no_page_of_another_site_reads_or_deletes_and_the_dashboard_works() {
    // Stories: DNS rebinding listed and deleted exchanges; a cross-site form aborted a sink.
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.server.allowed_hosts = vec!["stopover.example".to_owned()];
    config.server.advertise = vec!["http://node-1.trino:7077".to_owned()];
    let server = TestServer::open(&config).await;
    server.announce("w", 1).await;
    let own = format!("localhost:{}", server.address.port());
    let origin = format!("http://{own}");
    for (line, host, header, status) in [
        ("GET /v1/exchanges", "evil.example", None, 403),
        ("DELETE /v1/exchanges/w", "evil.example:7077", None, 403),
        (
            "POST /v1/exchanges/w/sinks/0/0/abort",
            own.as_str(),
            Some(("origin", "null")),
            403,
        ),
        (
            "POST /v1/exchanges/w/sinks/0/0/abort",
            &own,
            Some(("origin", "http://evil.example")),
            403,
        ),
        ("GET /", &own, Some(("sec-fetch-site", "cross-site")), 403),
        ("GET /", &own, Some(("sec-fetch-site", "none")), 200),
        ("GET /", &own, Some(("origin", origin.as_str())), 200),
        ("GET /v1/exchanges/w", "stopover.example:7077", None, 200),
        ("GET /v1/exchanges/w", "node-1.trino:7077", None, 200),
        ("GET /healthz", "evil.example", None, 200),
    ] {
        let mut client = RawClient::connect(server.address).await;
        let header =
            header.map_or_else(String::new, |(name, value)| format!("{name}: {value}\r\n"));
        let length = "content-length: 0\r\n\r\n";
        client
            .send(format!(
                "{line} HTTP/1.1\r\nhost: {host}\r\n{header}{length}"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{line} {host} {header}: {answer:?}");
        if status == 403 {
            assert_eq!(answer.problem_type(), "forbidden");
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn with_tokens_the_name_of_the_daemon_does_not_matter() {
    let base_folder = BaseFolder::new();
    let server = with_tokens(&base_folder, 100).await;
    let mut client = RawClient::connect(server.address).await;
    let head = "GET /metrics HTTP/1.1\r\nhost: any.example\r\norigin: http://proxy.example\r\n";
    client
        .send(format!("{head}authorization: Bearer {WORKER}\r\n\r\n"))
        .await;
    assert_eq!(client.answer_head().await.status, 200);
    drop(client);
    server.shut_down().await;
}

#[tokio::test]
async fn a_request_in_http1_without_a_host_is_refused() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    for (version, status) in [("1.1", 400), ("1.0", 200)] {
        let mut client = RawClient::connect(server.address).await;
        client
            .send(format!("GET /v1/exchanges HTTP/{version}\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.status, status, "HTTP/{version}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_worker_writes_and_reads_but_plans_and_closes_nothing() {
    let base_folder = BaseFolder::new();
    let mut server = with_tokens(&base_folder, 100).await;
    server.token = Some(COORDINATOR.to_owned());
    server.announce("w", 1).await;
    let attempt = sink("w", 0, 0);
    server.token = Some(WORKER.to_owned());
    server.add(&attempt, 0, batch(&[(0, b"page")])).await;
    ok_json(server.post_empty(&format!("{attempt}/finish")).await).await;
    let plan = json!({"attempts": [[0, 0]], "target_size": 1 << 20});
    let announced = json!({"partitions": 1, "ordered": false});
    for (method, path) in [
        (Method::PUT, "/v1/exchanges/w"),
        (Method::POST, "/v1/exchanges/w/chosen"),
        (Method::POST, "/v1/exchanges/w/handles"),
        (Method::DELETE, "/v1/exchanges/w"),
        (Method::GET, "/v1/exchanges"),
        (Method::GET, "/v1/exchanges/w"),
        (Method::GET, "/v1/exchanges/w/partitions/0"),
    ] {
        let body = if method == Method::PUT {
            &announced
        } else {
            &plan
        };
        let request = server.request(method.clone(), path).json(body);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    server.token = Some(COORDINATOR.to_owned());
    let handles = server.handles("w", &json!([[0, 0]]), 1 << 20).await;
    let handle = handles[0]["handle"].as_str().unwrap();
    for (path, body) in [
        ("/v1/read", handle.as_bytes().to_vec()),
        (
            &*format!("{}/pages?batch=0", sink("w", 1, 0)),
            batch(&[(0, b"page")]),
        ),
    ] {
        let refused = server.post(path, BATCH, body).await.status();
        assert_eq!(refused, StatusCode::FORBIDDEN, "{path}");
    }
    server.token = Some(WORKER.to_owned());
    assert_eq!(server.read(handle, 0).await.status(), StatusCode::OK);
    server.token = Some(COORDINATOR.to_owned());
    let closed = server.delete("/v1/exchanges/w").await;
    assert_eq!(closed.status(), StatusCode::NO_CONTENT);
    server.shut_down().await;
}

#[tokio::test]
async fn strangers_that_fill_every_connection_keep_neither_probes_nor_workers_from_being_served() {
    // Story: as many connections as limits.max_connections, from clients without a token, kept
    // everybody from being served, and the liveness probe restarted the daemon.
    let base_folder = BaseFolder::new();
    let mut server = with_tokens(&base_folder, 8).await;
    let mut strangers = Vec::new();
    for number in 0..200 {
        let mut stranger = RawClient::connect(server.address).await;
        let sent = match number % 4 {
            0 => "",
            1 => "P",
            2 => "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
            _ => "DELETE /v1/exchanges/w HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        // The daemon may have closed it already.
        stranger.try_send(sent).await;
        strangers.push(stranger);
    }
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
    server.token = Some(COORDINATOR.to_owned());
    server.announce("w", 1).await;
    drop(strangers);
    server.shut_down().await;
}

#[tokio::test]
async fn probes_are_answered_while_requests_hold_every_slot() {
    let base_folder = BaseFolder::new();
    let mut server = with_tokens(&base_folder, 4).await;
    server.token = Some(COORDINATOR.to_owned());
    server.announce("w", 1).await;
    server.token = None;
    let mut uploads = Vec::new();
    let bearer = format!("Bearer {WORKER}");
    for task in 0..4 {
        let mut upload = RawClient::connect(server.address).await;
        let line = format!("POST {}/pages?batch=0", sink("w", task, 0));
        let headers = [
            ("content-type", BATCH),
            ("content-length", "100"),
            ("authorization", bearer.as_str()),
            ("expect", "100-continue"),
        ];
        upload.send_head(&line, &headers).await;
        assert_eq!(upload.answer_head().await.status, 100);
        uploads.push(upload);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.status(), StatusCode::OK, "{path}");
    }
    server.token = Some(WORKER.to_owned());
    assert_eq!(server.get("/metrics").await.status(), StatusCode::OK);
    drop(uploads);
    server.shut_down().await;
}
