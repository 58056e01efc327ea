//! The pages for people, as a browser gets them: content, escaping, headers, tokens.

use std::time::Duration;

use reqwest::StatusCode;

use crate::support::frames::batch;
use crate::support::{BaseFolder, TestServer, sink};

async fn page(server: &TestServer, path: &str) -> String {
    let response = server.get(path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let html = response.text().await.unwrap();
    for outside in [
        "<script", "src=", "http://", "https://", " style=", "onclick",
    ] {
        assert!(!html.contains(outside), "{outside} in {path}");
    }
    html
}

#[tokio::test]
async fn the_pages_show_an_exchange_with_its_tasks_size_and_lease() {
    let folder = BaseFolder::new();
    let server = TestServer::open(&folder.config()).await;
    server.announce("query-7-abc", 1).await;
    for task in [0, 1] {
        let body = batch(&[(0, b"a page of some bytes")]);
        server.add(&sink("query-7-abc", task, 0), 0, body).await;
    }
    let finish = sink("query-7-abc", 0, 0) + "/finish";
    assert_eq!(server.post_empty(&finish).await.status(), StatusCode::OK);

    let overview = page(&server, "/").await;
    assert!(overview.contains("<h1>Serving</h1>"), "{overview}");
    let version = stopover::telemetry::VERSION;
    assert!(overview.contains(&format!("<dt>Version</dt><dd>{version}</dd>")));
    let host = stopover::telemetry::process::host_name();
    assert!(
        overview.contains(&format!("<dt>Host</dt><dd>{host}</dd>")),
        "{overview}"
    );
    for path in ["/", "/exchanges", "/base-directories/main"] {
        let title = format!(" · {host} · Stopover</title>");
        assert!(page(&server, path).await.contains(&title), "{path}");
    }
    assert!(overview.contains("<a href=\"/base-directories/main\">main</a>"));
    assert!(
        overview.contains("<dt>Open tasks</dt><dd>1</dd>"),
        "{overview}"
    );
    let list = page(&server, "/exchanges").await;
    assert!(
        list.contains("<a href=\"/exchanges/query-7-abc\">"),
        "{list}"
    );
    assert!(
        list.contains("data-label=\"lease left\"><span>14m"),
        "{list}"
    );
    let one = page(&server, "/exchanges/query-7-abc").await;
    assert!(
        one.contains("<span>0.0</span>") && one.contains("<span>1.0</span>"),
        "{one}"
    );
    assert!(one.contains("<dt>Tasks finished</dt><dd>1</dd>"), "{one}");
    assert!(one.contains("<a href=\"/base-directories/main\">"), "{one}");
    let base = page(&server, "/base-directories/main").await;
    assert!(
        base.contains("<span>PUT</span>") && base.contains("file://"),
        "{base}"
    );
    server.delete("/v1/exchanges/query-7-abc").await;
    let list = page(&server, "/exchanges").await;
    assert!(!list.contains("query-7-abc"), "{list}");
    server.shut_down().await;
}

/// Story: the page of a fleet said "not known here" of every lease but those that the daemon itself
/// had renewed.
#[tokio::test]
async fn a_lease_that_another_daemon_renews_is_shown_as_the_last_sweep_saw_it() {
    let folder = BaseFolder::new();
    let mut config = folder.config();
    config.lease.sweep_interval = Duration::from_millis(100);
    config.server.zone = "zone-7".into();
    let announcer = TestServer::open(&config).await;
    let server = TestServer::open(&config).await;
    announcer.announce("query-7-abc", 1).await;
    let body = batch(&[(0, b"a page of some bytes")]);
    server.add(&sink("query-7-abc", 0, 0), 0, body).await;
    let told = async {
        loop {
            let list = page(&server, "/exchanges").await;
            if list.contains("data-label=\"lease left\"><span>at least 14m") {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let list = tokio::time::timeout(Duration::from_secs(60), told).await;
    assert!(list.unwrap().contains("those at this daemon"));
    let overview = page(&server, "/").await;
    assert!(overview.contains("<dt>Zone</dt><dd>zone-7</dd>"));
    announcer.shut_down().await;
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_here_is_not_found_and_what_is_not_a_name_is_refused() {
    let folder = BaseFolder::new();
    let server = TestServer::open(&folder.config()).await;
    for (path, status) in [
        ("/exchanges/unknown", 404),
        ("/base-directories/unknown", 404),
        ("/base-directories/%3Cscript%3E", 400),
        ("/exchanges/%3Cscript%3E", 400),
        ("/?reload=x", 400),
        ("/?other=1", 400),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_page_reloads_itself_only_when_asked_to() {
    let folder = BaseFolder::new();
    let server = TestServer::open(&folder.config()).await;
    let still = page(&server, "/").await;
    assert!(!still.contains("http-equiv") && still.contains("href=\"/?reload=10\""));
    let reloads = page(&server, "/?reload=10").await;
    assert!(reloads.contains("<meta http-equiv=\"refresh\" content=\"10\">"));
    assert!(reloads.contains("Stop reloading"));
    server.shut_down().await;
}

#[tokio::test]
async fn the_pages_of_exchanges_need_the_scope_that_lists_exchanges() {
    let folder = BaseFolder::new();
    let tokens = folder.path().join("tokens");
    let (reader, admin) = ("reader-token-0123456789", "admin-token-0123456789");
    std::fs::write(&tokens, format!("read {reader}\nadmin {admin}\n")).unwrap();
    let mut config = folder.config();
    config.base_directories[0].uri += "/base";
    config.server.token_file = Some(tokens);
    let mut server = TestServer::open(&config).await;
    assert_eq!(server.get("/").await.status(), StatusCode::UNAUTHORIZED);
    server.token = Some(reader.to_owned());
    page(&server, "/").await;
    page(&server, "/base-directories/main").await;
    assert_eq!(
        server.get("/exchanges").await.status(),
        StatusCode::FORBIDDEN
    );
    server.token = Some(admin.to_owned());
    page(&server, "/exchanges").await;
    server.shut_down().await;
}
