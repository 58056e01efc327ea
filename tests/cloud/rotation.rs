//! Credentials that expire or are replaced while a daemon writes: no sink fails for it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::request::Parts;
use stopover::runtime::Runtime;
use stopover::storage::{Storage, StoreErrorKind};
use stopover::store::keys;
use stopover::store::open::open_all;

use crate::base;
use crate::certificates::server_config;
use crate::fake_s3::{FakeS3, Oddity};
use crate::frames::batch;
use crate::gate::Gate;
use crate::issuer::{EXTERNAL_ID, Issuer, POD_TOKEN};
use crate::process::Process;
use crate::tls::Authority;

/// Credentials end after this time.
const LIFETIME: Duration = Duration::from_secs(2);
const SINKS: u32 = 24;

/// A daemon with its one base directory at a gate, and its configuration.
pub struct Tried {
    daemon: Process,
    _folder: tempfile::TempDir,
}

pub fn daemon(gate: &Gate, options: &[(&str, &str)], variables: &[(&str, &str)]) -> Tried {
    let endpoint = format!("http://{}", gate.address);
    let own = [("endpoint", endpoint.as_str()), ("region", "us-east-1")];
    daemon_at("s3://bucket/p", &[&own[..], options].concat(), variables)
}

/// A daemon with a base directory at this URI, and its configuration.
pub fn daemon_at(uri: &str, options: &[(&str, &str)], variables: &[(&str, &str)]) -> Tried {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("stopover.toml");
    let mut toml = format!("[[base_directory]]\nuri = \"{uri}\"\nallow_http = true\n");
    for (name, value) in options {
        toml += &format!("{name} = \"{value}\"\n");
    }
    std::fs::write(&config, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(&config).stderr(Stdio::null());
    // No credentials of whoever runs the tests.
    command.env("HOME", folder.path());
    for name in [
        "AWS_ACCESS_KEY_ID",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "SERVICE_ACCOUNT",
    ] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    Tried {
        daemon: Process::spawn(command),
        _folder: folder,
    }
}

/// Writes sinks one after another for as long as `going_on`, several at a time; each must be
/// finished at the first try.
pub async fn write(tried: &Tried, meanwhile: impl AsyncFn(u32)) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let exchange = format!("{}/v1/exchanges/rotation", tried.daemon.url);
    let body = serde_json::json!({"partitions": 4, "ordered": false});
    let put = http.put(&exchange).json(&body).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    for round in 0..SINKS {
        let sinks = (0..4).map(|n| {
            let (http, sink) = (
                http.clone(),
                format!("{exchange}/sinks/{}/0", round * 4 + n),
            );
            async move {
                let page = vec![n as u8; 50_000];
                let post = http.post(format!("{sink}/pages?batch=0"));
                let post = post.header("content-type", "application/vnd.stopover.pages");
                let answer = post.body(batch(&[(n, &page)])).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
                let answer = http.post(format!("{sink}/finish")).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
            }
        });
        futures::future::join_all(sinks).await;
        meanwhile(round).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    for partition in 0..4 {
        let read = http.get(format!("{exchange}/partitions/{partition}"));
        let answer = read.send().await.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(
            bytes.len(),
            50_000 * SINKS as usize,
            "partition {partition}"
        );
    }
    let closed = http.delete(&exchange).send().await.unwrap();
    assert!(closed.status().is_success());
}

/// A gate that demands valid credentials of an issuer.
pub async fn gate(issuer: &Issuer) -> Gate {
    let issuer = issuer.clone();
    Gate::start(move |head| issuer.accepts(head)).await
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_credentials_of_an_instance_live_for_two_seconds() {
    let issuer = Issuer::start(LIFETIME, LIFETIME, None).await;
    let gate = gate(&issuer).await;
    let metadata = format!("http://{}", issuer.address);
    let tried = daemon(&gate, &[("aws_metadata_endpoint", &metadata)], &[]);
    write(&tried, async |_| ()).await;
    assert!(issuer.issued() > 3, "{} were given out", issuer.issued());
}

/// The client keeps credentials until five minutes before the end that it was told. Where
/// they were revoked before, every request was refused until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_when_credentials_are_revoked_long_before_their_end() {
    let issuer = Issuer::start(HOUR, HOUR, None).await;
    let gate = gate(&issuer).await;
    let metadata = format!("http://{}", issuer.address);
    let tried = daemon(&gate, &[("aws_metadata_endpoint", &metadata)], &[]);
    write(&tried, async |round| {
        if round % 8 == 3 {
            issuer.revoke();
        }
    })
    .await;
    assert!(issuer.issued() >= 4, "{} were given out", issuer.issued());
    let refused = gate.refused();
    assert!(
        refused.iter().any(|line| line.contains("ExpiredToken")),
        "nothing was refused: the test proves nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_the_credentials_of_an_assumed_role_live_for_two_seconds() {
    let issuer = Issuer::start(LIFETIME, LIFETIME, None).await;
    let gate = gate(&issuer).await;
    let sts = format!("http://{}", issuer.address);
    let options = [
        ("access_key_id", "own"),
        ("secret_access_key", "own-secret"),
        ("iam_role", "arn:aws:iam::123456789012:role/spool"),
        ("external_id", EXTERNAL_ID),
        ("aws_endpoint_url_sts", sts.as_str()),
    ];
    let tried = daemon(&gate, &options, &[]);
    write(&tried, async |_| ()).await;
    let forms = issuer.forms();
    assert!(forms.len() > 3, "{forms:?}");
    let external = format!("ExternalId={EXTERNAL_ID}");
    assert!(
        forms.iter().all(|form| form.contains(&external)),
        "{forms:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_the_credentials_of_a_pod_live_for_two_seconds() {
    let issuer = Issuer::start(LIFETIME, LIFETIME, None).await;
    let gate = gate(&issuer).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, POD_TOKEN).unwrap();
    let url = format!("http://{}/v1/credentials", issuer.address);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            token.to_str().unwrap(),
        ),
    ];
    let tried = daemon(&gate, &[], &variables);
    write(&tried, async |_| ()).await;
    assert!(issuer.issued() > 3, "{} were given out", issuer.issued());
}

/// STS is asked over TLS only; its certificate is from the CA of `ca_file`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_the_credentials_of_a_web_identity_live_for_two_seconds() {
    let authority = Authority::new();
    let tls = server_config(&authority, false);
    let issuer = Issuer::start(LIFETIME, LIFETIME, Some(tls)).await;
    let gate = gate(&issuer).await;
    let folder = tempfile::tempdir().unwrap();
    let [token, ca] = ["token", "ca.pem"].map(|name| folder.path().join(name));
    std::fs::write(&token, POD_TOKEN).unwrap();
    std::fs::write(&ca, authority.certificate()).unwrap();
    let sts = format!("https://localhost:{}", issuer.address.port());
    let options = [
        ("ca_file", ca.to_str().unwrap()),
        ("aws_endpoint_url_sts", sts.as_str()),
    ];
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod"),
    ];
    let tried = daemon(&gate, &options, &variables);
    write(&tried, async |_| ()).await;
    let forms = issuer.forms();
    assert!(forms.len() > 3, "{forms:?}");
}

/// Story: an earlier version that was refused for expired credentials was refused for good. The
/// objects were deleted already, so nothing came back for it.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_deleted_although_credentials_end_after_the_objects_were() {
    let issuer = Issuer::start(HOUR, HOUR, None).await;
    let (check, listed) = (issuer.clone(), AtomicBool::new(false));
    let check = move |head: &Parts| {
        let lists = head.uri.query().is_some_and(|q| q.contains("versions"));
        if lists && !listed.swap(true, Ordering::Relaxed) {
            check.revoke();
        }
        check.accepts(head)
    };
    let store = FakeS3::start(Oddity::Versions).await;
    let gate = Gate::start_with(None, store, Box::new(check)).await;
    let endpoint = format!("http://{}", gate.address);
    let metadata = format!("http://{}", issuer.address);
    let options = [
        ("endpoint", endpoint.as_str()),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("aws_metadata_endpoint", &metadata),
        ("delete_versions", "true"),
    ];
    let opened = open_all(&[base("s3://bucket/p", &options)], &Runtime::seeded(1)).unwrap();
    let (store, key) = (&opened[0].opened.store, keys::probe(1));
    store.put(&key, vec!["x".into()]).await.unwrap();
    let error = store.delete(vec![key.clone()]).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    assert!(error.credentials_expired, "{error}");
    assert!(gate.store().versions() > 0);
    store.delete(vec![key]).await.unwrap();
    assert_eq!(gate.store().versions(), 0);
}

/// Each base directory has its own role.
#[tokio::test(flavor = "multi_thread")]
async fn base_directories_assume_roles_of_their_own() {
    let issuer = Issuer::start(HOUR, HOUR, None).await;
    let (one, other) = (gate(&issuer).await, gate(&issuer).await);
    let sts = format!("http://{}", issuer.address);
    let bases = [(&one, "role/one", "id-1"), (&other, "role/other", "id-2")];
    let bases = bases.map(|(gate, role, id)| {
        let (endpoint, role) = (
            format!("http://{}", gate.address),
            format!("arn:aws:iam::123456789012:{role}"),
        );
        let mut base = base(
            "s3://bucket/p",
            &[
                ("endpoint", &endpoint),
                ("allow_http", "true"),
                ("region", "us-east-1"),
                ("access_key_id", "own"),
                ("secret_access_key", "own-secret"),
                ("iam_role", &role),
                ("external_id", id),
                ("aws_endpoint_url_sts", &sts),
            ],
        );
        base.name = id.into();
        base
    });
    let storage = Storage::open(&bases, &Runtime::seeded(7)).unwrap();
    for status in storage.probe().await {
        assert!(status.healthy, "{status:?}");
    }
    let mut roles: Vec<_> = issuer
        .forms()
        .iter()
        .map(|form| {
            (
                form.contains("role%2Fone"),
                form.contains("ExternalId=id-1"),
            )
        })
        .collect();
    roles.sort_unstable();
    assert_eq!(roles, [(false, false), (true, true)]);
}

/// What the issuer refuses is an error with its cause, not a wait without end.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused_are_named() {
    let issuer = Issuer::start(Duration::ZERO, HOUR, None).await;
    let gate = gate(&issuer).await;
    let (endpoint, metadata) = (
        format!("http://{}", gate.address),
        format!("http://{}", issuer.address),
    );
    let options = [
        ("endpoint", endpoint.as_str()),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("aws_metadata_endpoint", &metadata),
    ];
    let opened = open_all(&[base("s3://bucket/p", &options)], &Runtime::seeded(1)).unwrap();
    let key = keys::probe(1);
    let read = opened[0].opened.store.get_range(&key, 0..1);
    let error = read.await.unwrap_err().to_string();
    assert!(error.contains("have expired"), "{error}");
}
