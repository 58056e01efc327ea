//! The second address, `server.admin_listen`: what it shows, to whom, and what it never does.

use std::net::SocketAddr;

use reqwest::{Client, Method, StatusCode};
use stopover::config::Config;

use crate::support::tls::{CredentialFiles, Identity};
use crate::support::{BaseFolder, TestServer};

const OWN: &str = "admin-token-of-the-second-address";
const MAIN: &str = "token-of-the-first-address";

fn files() -> CredentialFiles {
    CredentialFiles::new(&Identity {
        certificate: String::new(),
        key: String::new(),
    })
}

async fn open(config: &mut Config, listen: &str) -> (TestServer, Watcher) {
    config.server.admin_listen = Some(listen.parse().unwrap());
    let server = TestServer::open(config).await;
    let watcher = Watcher {
        address: server.admin.unwrap(),
        client: Client::builder().no_proxy().build().unwrap(),
    };
    (server, watcher)
}

struct Watcher {
    address: SocketAddr,
    client: Client,
}

impl Watcher {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str, token: Option<&str>) -> StatusCode {
        let request = self.client.get(self.url(path));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap().status()
    }
}

#[tokio::test]
async fn the_second_address_shows_the_daemon_and_changes_nothing() {
    let base_folder = BaseFolder::new();
    let (server, watcher) = open(&mut base_folder.config(), "127.0.0.1:0").await;
    server.announce("q1", 1).await;
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/daemon",
        "/v1/exchanges",
        "/v1/exchanges/q1",
    ] {
        assert_eq!(watcher.get(path, None).await, StatusCode::OK, "{path}");
    }
    for (method, path, status) in [
        (Method::DELETE, "/v1/exchanges/q1", 405),
        (Method::PUT, "/v1/exchanges/q2", 405),
        (Method::POST, "/v1/read", 404),
        (Method::POST, "/v1/exchanges/q1/handles", 404),
        (Method::GET, "/v1/exchanges/q1/partitions/0", 404),
        (Method::POST, "/v1/exchanges/q1/sinks/0/0/finish", 404),
    ] {
        let request = watcher.client.request(method.clone(), watcher.url(path));
        let response = request.body("").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
    }
    let listed = server.get("/v1/exchanges").await.text().await.unwrap();
    assert!(listed.contains("q1") && !listed.contains("q2"), "{listed}");
    server.shut_down().await;
}

#[tokio::test]
async fn an_address_beyond_loopback_without_a_token_shows_no_names_of_queries() {
    let base_folder = BaseFolder::new();
    let (server, watcher) = open(&mut base_folder.config(), "0.0.0.0:7078").await;
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 401),
        ("/v1/exchanges", 401),
        ("/v1/daemon", 401),
        ("/other", 401),
    ] {
        assert_eq!(watcher.get(path, None).await.as_u16(), status, "{path}");
    }
    let refused = watcher.client.get(watcher.url("/v1/exchanges"));
    let text = refused.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("server.admin_token_file"), "{text}");
    server.shut_down().await;
}

#[tokio::test]
async fn the_second_address_has_tokens_of_its_own_which_open_nothing_else() {
    let (base_folder, files) = (BaseFolder::new(), files());
    files.write("tokens", MAIN);
    files.write("admin", OWN);
    let mut config = base_folder.config();
    config.server.token_file = Some(files.path("tokens"));
    config.server.admin_token_file = Some(files.path("admin"));
    let (mut server, watcher) = open(&mut config, "127.0.0.1:0").await;
    assert_eq!(watcher.get("/healthz", None).await, StatusCode::OK);
    for path in ["/", "/metrics", "/v1/exchanges"] {
        assert_eq!(watcher.get(path, Some(OWN)).await, StatusCode::OK, "{path}");
        for token in [None, Some(MAIN)] {
            let status = watcher.get(path, token).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {token:?}");
        }
    }
    server.token = Some(OWN.to_owned());
    let refused = server.get("/v1/exchanges").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    server.shut_down().await;
}

#[tokio::test]
async fn without_tokens_of_its_own_it_uses_those_of_the_first_address() {
    let (base_folder, files) = (BaseFolder::new(), files());
    files.write("tokens", &format!("read {MAIN}\nadmin {OWN}\n"));
    let mut config = base_folder.config();
    config.server.token_file = Some(files.path("tokens"));
    let (server, watcher) = open(&mut config, "127.0.0.1:0").await;
    assert_eq!(watcher.get("/metrics", Some(MAIN)).await, StatusCode::OK);
    let listed = watcher.get("/v1/exchanges", Some(MAIN)).await;
    assert_eq!(listed, StatusCode::FORBIDDEN);
    let listed = watcher.get("/v1/exchanges", Some(OWN)).await;
    assert_eq!(listed, StatusCode::OK);
    server.shut_down().await;
}

#[tokio::test]
async fn a_browser_asks_for_the_token_as_a_password_and_only_to_look() {
    let (base_folder, files) = (BaseFolder::new(), files());
    files.write("tokens", MAIN);
    let mut config = base_folder.config();
    config.server.token_file = Some(files.path("tokens"));
    let (server, watcher) = open(&mut config, "127.0.0.1:0").await;
    for address in [server.address, watcher.address] {
        let url = format!("http://{address}/");
        let asked = watcher.client.get(&url).header("accept", "text/html,*/*");
        let asked = asked.send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::UNAUTHORIZED);
        let challenges = asked.headers().get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges.map(|c| c.to_str().unwrap()).collect();
        assert!(challenges[1].starts_with("Basic realm="), "{challenges:?}");
        let page = watcher.client.get(&url).basic_auth("anybody", Some(MAIN));
        assert_eq!(page.send().await.unwrap().status(), StatusCode::OK);
    }
    // A page of another site can make the browser send the password, but not look at the answer.
    let close = format!("http://{}/v1/exchanges/q1", server.address);
    let close = watcher
        .client
        .delete(close)
        .basic_auth("anybody", Some(MAIN));
    assert_eq!(
        close.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    server.shut_down().await;
}
