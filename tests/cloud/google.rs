//! Google's ways to sign in: metadata server, service account, a user's own credentials.
//!
//! The metadata server of GKE also gives out the tokens of its workload identity, in the same form.
//! No emulator checks any of it, so Google's side is played: what the bucket is shown is what the
//! issuer gave out, or a token whose signature is verified.

#![allow(clippy::disallowed_methods)] // servers run as spawned tasks

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use stopover::runtime::Runtime;
use stopover::store::open::open_in;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::ServerConfig;

use crate::certificates::server_config_of;
use crate::gate::serve;
use crate::tls::Authority;
use crate::{base, fault};

/// What a played server was shown or asked, in order.
type Noted = Arc<Mutex<Vec<String>>>;

/// A bucket that does not exist, for everybody; it notes what it is shown.
async fn bucket(State(shown): State<Noted>, request: Request) -> Response {
    let token = request.headers().get("authorization");
    let token = token.map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
    shown.lock().push(token);
    let text = "<Error><Code>NoSuchBucket</Code><Message>No such bucket.</Message></Error>";
    (StatusCode::NOT_FOUND, text).into_response()
}

/// Gives out tokens that are valid for a second, as a metadata server or Google's login does.
async fn issue(State(asked): State<Noted>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let form = String::from_utf8(body.to_vec()).unwrap();
    let flavor = head.headers.get("metadata-flavor");
    let flavor = flavor.map_or("", |value| value.to_str().unwrap());
    let mut asked = asked.lock();
    let number = asked.len();
    asked.push(format!("{} {flavor} {form}", head.uri.path()));
    let token = format!("token-{number}");
    format!("{{\"access_token\": \"{token}\", \"expires_in\": 1, \"token_type\": \"Bearer\"}}")
        .into_response()
}

/// The options of a base directory at the played bucket.
async fn played_bucket(shown: &Noted) -> Vec<(&'static str, String)> {
    let app = Router::new().fallback(bucket).with_state(shown.clone());
    let address = serve(app, None).await;
    vec![
        ("endpoint", format!("http://{address}")),
        ("allow_http", "true".into()),
    ]
}

/// What is wrong with a base directory of these options: always that its bucket is missing.
async fn tried(options: &[(&str, String)]) {
    let options: Vec<_> = options.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let error = fault(base("gs://bucket/p", &options)).await;
    let error = error.expect("the bucket is missing");
    assert!(error.contains("No such bucket"), "{error}");
}

/// In a process of its own: the client reads where the metadata server is from the environment.
#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_server_gives_out_tokens_also_of_a_workload_identity() {
    let (shown, asked) = (Noted::default(), Noted::default());
    let app = Router::new().fallback(issue).with_state(asked.clone());
    let metadata = serve(app, None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut toml = "[[base_directory]]\nuri = \"gs://bucket/p\"\n".to_owned();
    for (name, value) in played_bucket(&shown).await {
        let quote = if value == "true" { "" } else { "\"" };
        toml += &format!("{name} = {quote}{value}{quote}\n");
    }
    let config = folder.path().join("stopover.toml");
    std::fs::write(&config, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(["check", "--config"]).arg(&config);
    command.env(
        "GCE_METADATA_HOST",
        format!("localhost:{}", metadata.port()),
    );
    // Nothing listens there.
    command.env("HTTP_PROXY", "http://127.0.0.1:9");
    command.env("NO_PROXY", "127.0.0.1");
    // No credentials of whoever runs the tests.
    command.env("HOME", folder.path());
    for name in ["GOOGLE_APPLICATION_CREDENTIALS", "SERVICE_ACCOUNT"] {
        command.env_remove(name);
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("No such bucket"), "{said}");
    let asked = asked.lock().clone();
    let path = "/computeMetadata/v1/instance/service-accounts/default/token Google";
    assert!(!asked.is_empty(), "nobody asked for a token");
    assert!(asked.iter().all(|ask| ask.starts_with(path)), "{asked:?}");
    let shown = shown.lock().clone();
    let given = |shown: &String| shown.starts_with("Bearer token-");
    assert!(!shown.is_empty() && shown.iter().all(given), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_shows_tokens_that_its_key_has_signed() {
    const ACCOUNT: &str = "spool@project.iam.gserviceaccount.com";
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("account.json");
    let account = serde_json::json!({
        "type": "service_account", "client_email": ACCOUNT, "private_key_id": "key-7",
        "private_key": key.serialize_pem(),
    });
    std::fs::write(&file, account.to_string()).unwrap();
    for option in ["service_account_path", "application_credentials"] {
        let shown = Noted::default();
        let mut options = played_bucket(&shown).await;
        options.push((option, file.display().to_string()));
        tried(&options).await;
        let shown = shown.lock().clone();
        assert!(!shown.is_empty());
        for token in shown {
            let token = token.strip_prefix("Bearer ").unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key_raw())
                .verify(signed.as_bytes(), &signature)
                .expect("the account's key has signed it");
            let (_, claims) = signed.split_once('.').unwrap();
            let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
            let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(claims["iss"], ACCOUNT, "{claims}");
            let scope = claims["scope"].as_str().unwrap();
            assert!(scope.ends_with("/auth/cloud-platform"), "{claims}");
        }
    }
}

/// A user's own credentials, in files, and the certificate of Google's login that they lead to.
pub struct User {
    pub tls: ServerConfig,
    folder: tempfile::TempDir,
}

impl User {
    pub fn new() -> Self {
        let authority = Authority::new();
        let login = authority.server_of(vec!["accounts.google.com".into()]);
        let tls = server_config_of(&authority, &login, false);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
        let user = serde_json::json!({
            "type": "authorized_user", "client_id": "client-7", "client_secret": "hush",
            "refresh_token": "refresh-8",
        });
        std::fs::write(folder.path().join("user.json"), user.to_string()).unwrap();
        Self { tls, folder }
    }

    /// The options of a base directory that reaches the login through this proxy.
    pub fn options(&self, proxy: SocketAddr) -> [(&'static str, String); 4] {
        let path = |name| self.folder.path().join(name).display().to_string();
        [
            ("application_credentials", path("user.json")),
            ("ca_file", path("ca.pem")),
            ("google_proxy_url", format!("http://{proxy}")),
            ("google_proxy_excludes", "127.0.0.1".into()),
        ]
    }
}

/// Google's login has a fixed address, which a proxy leads to the played one.
#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_a_user_become_tokens_at_the_login_through_a_proxy_too() {
    let (shown, asked, connected) = (Noted::default(), Noted::default(), Noted::default());
    let user = User::new();
    let app = Router::new().fallback(issue).with_state(asked.clone());
    let login = serve(app, Some(user.tls.clone())).await;
    let proxy = proxy_to(login, connected.clone()).await;
    let mut options = played_bucket(&shown).await;
    options.extend(user.options(proxy));
    tried(&options).await;
    let (asked, connected) = (asked.lock().clone(), connected.lock().clone());
    assert!(!asked.is_empty(), "nobody signed in");
    for form in &asked {
        for part in [
            "grant_type=refresh_token",
            "refresh_token=refresh-8",
            "client_id=client-7",
        ] {
            assert!(form.contains(part), "{form}");
        }
    }
    let target = |line: &String| line.starts_with("CONNECT accounts.google.com:443 ");
    assert!(connected.iter().all(target), "{connected:?}");
    let shown = shown.lock().clone();
    let given = |shown: &String| shown.starts_with("Bearer token-");
    assert!(!shown.is_empty() && shown.iter().all(given), "{shown:?}");
}

/// Story: the client says of such a file that a variant is unknown, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_types_that_are_not_supported_are_refused_with_what_to_use_instead() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("federation.json");
    // As `gcloud iam workload-identity-pools create-cred-config` writes it.
    let document = serde_json::json!({
        "type": "external_account", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": "/var/run/token"},
    });
    std::fs::write(&file, document.to_string()).unwrap();
    let path = file.display().to_string();
    let words = [
        "has the type external_account (workload identity federation)",
        "set service_account_path to a file",
    ];
    let refused = |options: &[(&str, &str)], variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let variables: Vec<_> = variables.collect();
        let opened = open_in(
            &[base("gs://bucket/p", options)],
            &variables,
            &Runtime::seeded(1),
        );
        opened.err().map(|error| error.to_string())
    };
    let name = "GOOGLE_APPLICATION_CREDENTIALS";
    for (options, variables, origin) in [
        (
            vec![("application_credentials", path.as_str())],
            vec![],
            "`application_credentials` names the file ",
        ),
        (
            vec![("service_account_path", path.as_str())],
            vec![],
            "`service_account_path` names the file ",
        ),
        (
            vec![],
            vec![(name, path.as_str())],
            "environment variable GOOGLE_APPLICATION_CREDENTIALS",
        ),
    ] {
        let error = refused(&options, &variables).expect("it is not supported");
        for word in words.into_iter().chain([origin, &path]) {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }
    let text = document.to_string();
    let error = refused(&[("service_account_key", &text)], &[]).unwrap();
    assert!(
        error.contains(words[0]) && error.contains(words[1]),
        "{error}"
    );
    // Another credential takes precedence: the file is not read.
    let other = [("google_bearer_token", "token-7")];
    assert_eq!(refused(&other, &[(name, &path)]), None);
}

/// A proxy that leads every tunnel to one address; it notes for where each was asked.
pub async fn proxy_to(target: SocketAddr, asked: Noted) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(tunnel(client, target, asked.clone()));
        }
    });
    address
}

async fn tunnel(mut client: TcpStream, target: SocketAddr, asked: Noted) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    asked.lock().extend(line.lines().next().map(str::to_owned));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut server = TcpStream::connect(target).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
