//! Authentication and authorization: scopes, TLS, client certificates, and their rotation while the
//! daemon runs.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use stopover::api::authorization::permissions::{Access, TABLE};
use stopover::http::credentials::Credentials;
use stopover::http::scopes::Scopes;
use stopover::runtime::Clock;
use stopover::telemetry::credentials::Credential;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::process::{Process, announce};
use crate::support::raw::{Http2Client, RawAnswer, RawClient};
use crate::support::tls::{
    Authority, CredentialFiles, Identity, TlsClient, self_signed_client, write_whole,
};
use crate::support::{BaseFolder, TestServer};

const READER: &str = "reader-token-0123456789";
const WRITER: &str = "writer-token-0123456789";
const COORDINATOR: &str = "coordinator-token-0123456789";
const ADMIN: &str = "admin-token-0123456789";

async fn secured(base_folder: &BaseFolder, files: &CredentialFiles) -> TestServer {
    let mut config = base_folder.config();
    files.configure(&mut config);
    TestServer::open(&config).await
}

fn tokens_only(text: &str) -> CredentialFiles {
    let files = CredentialFiles::new(&Identity {
        certificate: String::new(),
        key: String::new(),
    });
    for name in ["certificate.pem", "key.pem"] {
        std::fs::remove_file(files.path(name)).unwrap();
    }
    files.write("tokens", text);
    files
}

#[tokio::test]
async fn each_scope_allows_its_routes_and_no_others() {
    let (base_folder, files) = (
        BaseFolder::new(),
        tokens_only(&format!(
            "read {READER}\nwrite {WRITER}\ncoordinate {COORDINATOR}\nadmin {ADMIN}\n"
        )),
    );
    let mut server = secured(&base_folder, &files).await;
    let tokens = [
        (READER, Scopes::READ),
        (WRITER, Scopes::WRITE),
        (COORDINATOR, Scopes::COORDINATE),
        (ADMIN, Scopes::ADMIN),
    ];
    for (token, scope) in tokens {
        server.token = Some(token.to_owned());
        for (method, route, access) in TABLE {
            let path = route
                .replace("{exchange}", "absent")
                .replace("{partition}", "0")
                .replace("{task}", "0")
                .replace("{attempt}", "0");
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = server.request(method.clone(), &path).send().await.unwrap();
            let allowed = match access {
                Access::Open => true,
                Access::AnyOf(wanted) => scope.intersects(*wanted),
                Access::Denied => false,
            };
            let status = answer.status();
            let text = answer.text().await.unwrap();
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(
                status != StatusCode::FORBIDDEN,
                allowed,
                "{scope:?} {method} {path}"
            );
            assert!(!text.contains(token), "{text}");
        }
        let nowhere = server.get("/nowhere").await;
        assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
        let wrong = server
            .request(Method::PATCH, "/v1/read")
            .send()
            .await
            .unwrap();
        assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    server.shut_down().await;
}

/// Both addresses are reloaded on SIGHUP, one after the other. When they shared one gauge, the
/// valid file of the second cleared what the invalid file of the first had set, and no alert fired.
#[test]
fn an_invalid_token_file_is_reported_although_that_of_the_other_address_is_valid() {
    let (base_folder, files) = (BaseFolder::new(), tokens_only(&format!("{READER}\n")));
    files.write("admin", &format!("{ADMIN}\n"));
    let mut server = base_folder.config().server;
    server.token_file = Some(files.path("tokens"));
    server.admin_token_file = Some(files.path("admin"));
    server.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    let main = Credentials::open(&server, &Clock::default()).unwrap();
    let admin = main.open_admin().unwrap().unwrap();
    let stale = || {
        main.reload(true);
        admin.reload(true);
        [Credential::Tokens, Credential::AdminTokens].map(|of| main.metrics().is_stale(of))
    };
    assert_eq!(stale(), [false, false]);
    files.write("tokens", "short\n");
    assert_eq!(stale(), [true, false]);
    files.write("tokens", &format!("{WRITER}\n"));
    files.write("admin", "short\n");
    assert_eq!(stale(), [false, true]);
}

#[tokio::test]
async fn tokens_are_rotated_on_open_connections_and_a_bad_file_changes_nothing() {
    let (base_folder, files) = (BaseFolder::new(), tokens_only(&format!("{READER}\n")));
    let server = secured(&base_folder, &files).await;
    let mut client = RawClient::connect(server.address).await;
    let mut status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        client.send_head("GET /v1/exchanges", &headers).await;
        client.answer().await.status
    };
    assert_eq!((status(READER).await, status(WRITER).await), (200, 401));
    files.write("tokens", &format!("{READER}\n{WRITER}\n"));
    server.credentials.reload(false);
    assert_eq!((status(READER).await, status(WRITER).await), (200, 200));
    files.write("tokens", &format!("{WRITER}\n"));
    server.credentials.reload(false);
    assert_eq!((status(READER).await, status(WRITER).await), (401, 200));
    for bad in ["", "root writer-token-0123456789\n", "short\n"] {
        files.write("tokens", bad);
        server.credentials.reload(false);
        assert!(
            server.credentials.metrics().is_stale(Credential::Tokens),
            "{bad:?}"
        );
        assert_eq!((status(READER).await, status(WRITER).await), (401, 200));
    }
    std::fs::remove_file(files.path("tokens")).unwrap();
    server.credentials.reload(true);
    assert_eq!((status(READER).await, status(WRITER).await), (401, 200));
    files.write("tokens", &format!("{READER}\n"));
    server.credentials.reload(false);
    assert!(!server.credentials.metrics().is_stale(Credential::Tokens));
    assert_eq!((status(READER).await, status(WRITER).await), (200, 401));
    server.shut_down().await;
}

async fn get(client: &TlsClient, server: &TestServer, path: &str) -> std::io::Result<RawAnswer> {
    let client = TlsClient {
        protocols: vec!["http/1.1"],
        ..client.clone()
    };
    let stream = client.connect(server.address).await?;
    let mut raw = RawClient::over(stream);
    raw.send_head(&format!("GET {path}"), &[]).await;
    Ok(raw.answer().await)
}

#[tokio::test]
async fn with_tls_both_http_versions_work_and_clear_text_is_refused() {
    let (base_folder, authority) = (BaseFolder::new(), Authority::new());
    let files = CredentialFiles::new(&authority.server());
    let mut config = base_folder.config();
    files.configure(&mut config);
    let mut client = TlsClient::trusting(&authority.certificate());
    client.protocols = vec!["h2", "http/1.1"];
    let without = TestServer::open(&config).await;
    let stream = client.connect(without.address).await.unwrap();
    let protocol = stream.get_ref().1.alpn_protocol();
    assert_eq!(protocol, Some(b"http/1.1".as_slice()), "off by default");
    drop(stream);
    without.shut_down().await;
    config.server.http2 = true;
    let server = TestServer::open(&config).await;
    let answer = get(&client, &server, "/healthz").await.unwrap();
    assert_eq!(answer.status, 200);
    let stream = client.connect(server.address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let mut http2 = Http2Client::over(stream).await;
    let answer = http2.post("/v1/read", "text/plain", b"AAAA").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("invalid-handle"), "{answer}");
    client.protocols = vec!["spdy/1"];
    assert!(
        client.connect(server.address).await.is_err(),
        "no common protocol"
    );
    // A client that trusts another authority refuses the daemon.
    let stranger = TlsClient::trusting(&Authority::new().certificate());
    assert!(stranger.connect(server.address).await.is_err());
    let mut clear = RawClient::connect(server.address).await;
    clear
        .send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let answer = clear.rest().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_batch_and_a_read_of_many_mebibytes_pass_through_tls_unchanged() {
    let (base_folder, authority) = (BaseFolder::new(), Authority::new());
    let files = CredentialFiles::new(&authority.server());
    let server = secured(&base_folder, &files).await;
    let client = TlsClient::trusting(&authority.certificate());
    let page: Vec<u8> = (0..9_000_000u32)
        .map(|n| (n * 31 + n / 251) as u8)
        .collect();
    let length = page.len().to_string();
    let mut raw = RawClient::over(client.connect(server.address).await.unwrap());
    let json = "{\"partitions\":1,\"ordered\":false}";
    let headers = [
        ("content-type", "application/json"),
        ("content-length", "32"),
    ];
    raw.send_head("PUT /v1/exchanges/t", &headers).await;
    raw.send(json).await;
    assert_eq!(raw.answer().await.status, 201);
    let line = "POST /v1/exchanges/t/sinks/0/0/pages?partition=0";
    let octets = ("content-type", "application/octet-stream");
    raw.send_head(line, &[octets, ("content-length", &length)])
        .await;
    raw.send(&page).await;
    assert_eq!(raw.answer().await.status, 200);
    let nothing = [("content-length", "0")];
    raw.send_head("POST /v1/exchanges/t/sinks/0/0/finish", &nothing)
        .await;
    assert_eq!(raw.answer().await.status, 200);
    raw.send_head("GET /v1/exchanges/t/partitions/0", &[]).await;
    let answer = raw.answer().await;
    assert!(
        answer.status == 200 && answer.body == page,
        "{}",
        answer.head
    );
    drop(raw);
    server.shut_down().await;
}

#[tokio::test]
async fn an_unfinished_handshake_is_cut_off() {
    let (base_folder, authority) = (BaseFolder::new(), Authority::new());
    let files = CredentialFiles::new(&authority.server());
    let mut config = base_folder.config();
    files.configure(&mut config);
    config.limits.header_timeout = Duration::from_millis(300);
    let server = TestServer::open(&config).await;
    // Nothing at all, and the start of a ClientHello.
    for beginning in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1]] {
        let mut silent = RawClient::connect(server.address).await;
        silent.send(beginning).await;
        assert!(silent.is_closed().await);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_without_a_trusted_certificate_reaches_only_health_and_readiness() {
    let (base_folder, authority) = (BaseFolder::new(), Authority::new());
    let (clients, others) = (Authority::new(), Authority::new());
    let files = CredentialFiles::new(&authority.server());
    files.write("clients.pem", &clients.certificate());
    let server = secured(&base_folder, &files).await;
    let anonymous = TlsClient::trusting(&authority.certificate());
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/", 401),
    ] {
        let answer = get(&anonymous, &server, path).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        if status == 401 {
            assert_eq!(answer.problem_type(), "unauthorized");
            let text = String::from_utf8(answer.body).unwrap();
            assert!(text.contains("client certificate"), "{text}");
        }
    }
    let trusted = TlsClient::trusting(&authority.certificate()).with(&clients.client());
    assert_eq!(
        get(&trusted, &server, "/v1/exchanges")
            .await
            .unwrap()
            .status,
        200
    );
    // A server certificate, or one of another authority, gives access to nothing, not even to the
    // health checks.
    for identity in [others.client(), clients.server(), self_signed_client()] {
        let bad = TlsClient::trusting(&authority.certificate()).with(&identity);
        let Ok(mut stream) = bad.connect(server.address).await else {
            continue;
        };
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest).await;
        assert!(read.is_err() && rest.is_empty(), "{rest:?}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_certificate_removed_from_the_trusted_ones_is_refused_on_open_connections_too() {
    let (base_folder, authority) = (BaseFolder::new(), Authority::new());
    let (clients, single) = (Authority::new(), self_signed_client());
    let files = CredentialFiles::new(&authority.server());
    let both = format!("{}{}", clients.certificate(), single.certificate);
    files.write("clients.pem", &both);
    let server = secured(&base_folder, &files).await;
    let trusting = || TlsClient::trusting(&authority.certificate());
    let (by_ca, by_itself) = (trusting().with(&clients.client()), trusting().with(&single));
    let mut connections = Vec::new();
    for client in [&by_ca, &by_itself] {
        connections.push(RawClient::over(
            client.connect(server.address).await.unwrap(),
        ));
    }
    let mut statuses = async || {
        let mut statuses = Vec::new();
        for connection in &mut connections {
            connection.send_head("GET /v1/exchanges", &[]).await;
            statuses.push(connection.answer().await.status);
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 200]);
    files.write("clients.pem", &clients.certificate());
    server.credentials.reload(false);
    assert_eq!(statuses().await, [200, 401]);
    files.write("clients.pem", &single.certificate);
    server.credentials.reload(false);
    assert_eq!(statuses().await, [401, 200]);
    files.write("clients.pem", "no certificate");
    server.credentials.reload(false);
    assert!(server.credentials.metrics().is_stale(Credential::Tls));
    assert_eq!(statuses().await, [401, 200]);
    assert_eq!(
        get(&by_itself, &server, "/metrics").await.unwrap().status,
        200
    );
    server.shut_down().await;
}

#[tokio::test]
async fn where_tokens_and_client_certificates_are_configured_both_are_required() {
    let (base_folder, authority) = (BaseFolder::new(), Authority::new());
    let files = CredentialFiles::new(&authority.server());
    files.write("clients.pem", &authority.certificate());
    files.write("tokens", &format!("admin {READER}\n"));
    let server = secured(&base_folder, &files).await;
    let bearer = format!("Bearer {READER}");
    let with_token = [("authorization", bearer.as_str())];
    let anonymous = TlsClient::trusting(&authority.certificate());
    let trusted = TlsClient::trusting(&authority.certificate()).with(&authority.client());
    for (client, headers, status) in [
        (&anonymous, &with_token[..], 401),
        (&trusted, &[], 401),
        (&trusted, &with_token[..], 200),
    ] {
        let mut raw = RawClient::over(client.connect(server.address).await.unwrap());
        raw.send_head("GET /v1/exchanges", headers).await;
        assert_eq!(raw.answer().await.status, status);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn certificates_are_rotated_and_a_mismatched_key_changes_nothing() {
    let (base_folder, old, new) = (BaseFolder::new(), Authority::new(), Authority::new());
    let files = CredentialFiles::new(&old.server());
    let server = secured(&base_folder, &files).await;
    let (trusts_old, trusts_new) = (
        TlsClient::trusting(&old.certificate()),
        TlsClient::trusting(&new.certificate()),
    );
    let mut open = RawClient::over(trusts_old.connect(server.address).await.unwrap());
    let renewed = new.server();
    // Between the two writes, the certificate is new and the key is old.
    files.write("certificate.pem", &renewed.certificate);
    server.credentials.reload(false);
    assert!(server.credentials.metrics().is_stale(Credential::Tls));
    assert!(trusts_old.connect(server.address).await.is_ok());
    files.write("key.pem", &renewed.key);
    server.credentials.reload(false);
    assert!(!server.credentials.metrics().is_stale(Credential::Tls));
    assert!(trusts_old.connect(server.address).await.is_err());
    assert!(trusts_new.connect(server.address).await.is_ok());
    open.send_head("GET /healthz", &[]).await;
    assert_eq!(
        open.answer().await.status,
        200,
        "open connections stay open"
    );
    drop(open);
    server.shut_down().await;
}

async fn until_status(http: &Client, daemon: &Process, token: &str, wanted: StatusCode) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let list = http.get(format!("{}/v1/exchanges", daemon.url));
        let status = list.bearer_auth(token).send().await.unwrap().status();
        if status == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "still {status} after 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_running_daemon_reloads_its_tokens_periodically_and_on_sighup() {
    let (folder, http) = (tempfile::tempdir().unwrap(), Client::new());
    let (base, tokens) = (folder.path().join("base"), folder.path().join("tokens"));
    for interval in ["50ms", "1d"] {
        write_whole(&tokens, &format!("{READER}\n"));
        let file = format!("server.token_file={}", tokens.display());
        let interval = format!("server.reload_interval={interval}");
        let daemon = Process::start(&base, &["--set", &file, "--set", &interval]);
        until_status(&http, &daemon, READER, StatusCode::OK).await;
        write_whole(&tokens, &format!("admin {WRITER}\n"));
        if interval.ends_with("1d") {
            until_status(&http, &daemon, READER, StatusCode::OK).await;
            daemon.signal("HUP");
        }
        until_status(&http, &daemon, READER, StatusCode::UNAUTHORIZED).await;
        until_status(&http, &daemon, WRITER, StatusCode::OK).await;
        daemon.signal("HUP");
        until_status(&http, &daemon, WRITER, StatusCode::OK).await;
    }
    // SIGHUP does not end a daemon without tokens either.
    let daemon = Process::start(&base, &[]);
    daemon.signal("HUP");
    announce(&http, &daemon, "q-1").await;
}

#[tokio::test]
async fn health_and_check_work_with_tls() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = CredentialFiles::new(&authority.server());
    files.write("clients.pem", &authority.certificate());
    let setting = |key: &str, name: &str| format!("server.{key}={}", files.path(name).display());
    let settings = [
        setting("tls_certificate_file", "certificate.pem"),
        setting("tls_key_file", "key.pem"),
        setting("tls_client_ca_file", "clients.pem"),
    ];
    let flags: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let daemon = Process::start(folder.path(), &flags);
    let address = daemon
        .url
        .strip_prefix("https://")
        .expect("the URL begins with https://");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stopover"))
            .args(arguments)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    };
    let certificate = files.path("certificate.pem");
    let certificate = certificate.to_str().unwrap();
    let health = ["health", "--ready", "--address", address, "--certificate"];
    let (code, printed) = run(&[&health[..], &[certificate]].concat());
    assert_eq!(code, Some(0), "{printed}");
    files.write("other.pem", &authority.server().certificate);
    let other = files.path("other.pem");
    let (code, printed) = run(&[&health[..], &[other.to_str().unwrap()]].concat());
    assert!(
        code == Some(1) && printed.contains("a certificate other than"),
        "{printed}"
    );
    let (code, printed) = run(&["health", "--address", address]);
    assert_eq!(code, Some(1), "{printed}");

    let base = format!("file://{}", folder.path().display());
    let check = [&["check", "--base-directory", &base], &flags[..]].concat();
    let (code, printed) = run(&check);
    assert!(
        code == Some(0) && printed.contains("TLS with client certificates"),
        "{printed}"
    );
    files.write("key.pem", &authority.server().key);
    let (code, printed) = run(&check);
    assert!(
        code == Some(1) && printed.contains("does not match the key"),
        "{printed}"
    );
    let stream = TcpStream::connect(address).await;
    assert!(stream.is_ok(), "the running daemon still listens");
}

#[tokio::test]
async fn the_smoke_test_passes_over_tls_with_a_token_and_a_client_certificate() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (files, client) = (
        CredentialFiles::new(&authority.server()),
        authority.client(),
    );
    files.write("clients.pem", &authority.certificate());
    files.write("client.pem", &client.certificate);
    files.write("client-key.pem", &client.key);
    files.write("tokens", &format!("coordinate,write,read,admin {WRITER}\n"));
    let setting = |key: &str, name: &str| format!("server.{key}={}", files.path(name).display());
    let settings = [
        setting("tls_certificate_file", "certificate.pem"),
        setting("tls_key_file", "key.pem"),
        setting("tls_client_ca_file", "clients.pem"),
        setting("token_file", "tokens"),
    ];
    let flags: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let daemons = [(); 2].map(|()| Process::start(folder.path(), &flags));
    let shown = |name: &str| files.path(name).display().to_string();
    let options = format!(
        "--cacert {} --cert {} --key {} --oauth2-bearer {WRITER}",
        shown("clients.pem"),
        shown("client.pem"),
        shown("client-key.pem")
    );
    let smoke = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smoke.sh");
    let output = Command::new("bash")
        .args([smoke, &daemons[0].url, &daemons[1].url])
        .env("STOPOVER_SMOKE_CURL", options)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains(" 0 failed"),
        "{printed}"
    );
}

/// Story: of the files with secrets, only two were looked at.
#[test]
fn check_warns_of_each_file_with_a_secret_that_all_users_may_read() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("tokens"), format!("{ADMIN}\n")).unwrap();
    let text = format!(
        "[server]\nadmin_listen = \"127.0.0.1:0\"\nadmin_token_file = {:?}\n[tracing]\nheaders = \
         \"authorization={READER}\"\n[[base_directory]]\nuri = {:?}\n",
        path("tokens"),
        path("base"),
    );
    std::fs::write(path("stopover.toml"), text).unwrap();
    for (mode, warned) in [(0o600, false), (0o644, true)] {
        for name in ["tokens", "stopover.toml"] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path(name), permissions).unwrap();
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_stopover"));
        check
            .arg("check")
            .arg("--config")
            .arg(path("stopover.toml"));
        let checked = check.output().unwrap();
        let printed = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.status.success(), "{printed}");
        for what in ["the configuration file", "server.admin_token_file"] {
            let warning = format!("every user of this machine may read or change {what} ");
            assert_eq!(printed.contains(&warning), warned, "{mode:o}: {printed}");
        }
        assert!(!printed.contains(READER), "{printed}");
    }
}
