//! Secrets in output: a canary stands wherever a secret may be configured, and everything that
//! `check` and a daemon print and answer is searched for it.
//!
//! Story: an endpoint with a user part was shown by `/readyz`, the page, the log and `check`. What
//! is refused is tested in `src/config/tests.rs` and `src/store/tests/open.rs`.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::stub_store::{s3_error, start};

const CANARY: &str = "CaNaRyCaNaRyCaNaRy==";

/// A base directory and where a secret may be in its configuration.
struct Case {
    uri: &'static str,
    options: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
}

/// Options and their values.
type Pairs = Vec<(&'static str, String)>;

fn cases(server: &str) -> Vec<Case> {
    [s3_cases(server), other_cases(server)]
        .into_iter()
        .flatten()
        .collect()
}

fn at(server: &str) -> Pairs {
    vec![
        ("endpoint", format!("http://{server}")),
        ("allow_http", "true".to_owned()),
    ]
}

fn s3_cases(server: &str) -> Vec<Case> {
    let canary = || CANARY.to_owned();
    let proxy = || format!("http://user:{CANARY}@{server}");
    let keys = || vec![("access_key_id", canary()), ("secret_access_key", canary())];
    let case = |options: Pairs, variables: Pairs| Case {
        uri: "s3://b/p",
        options,
        variables,
    };
    let with = |more: Pairs| case([at(server), keys(), more].concat(), vec![]);
    let variables = vec![
        ("AWS_ACCESS_KEY_ID", canary()),
        ("AWS_SECRET_ACCESS_KEY", canary()),
        ("AWS_SESSION_TOKEN", format!("{CANARY}\n")),
    ];
    vec![
        with(vec![("session_token", canary())]),
        with(vec![("aws_proxy_url", proxy())]),
        with(vec![
            ("aws_server_side_encryption", "sse-c".to_owned()),
            ("aws_sse_customer_key_base64", canary()),
        ]),
        case(at(server), variables),
        case(keys(), vec![("AWS_ENDPOINT_URL", proxy())]),
        case([vec![("endpoint", proxy())], keys()].concat(), vec![]),
    ]
}

fn other_cases(server: &str) -> Vec<Case> {
    let with = |uri, more: Pairs| Case {
        uri,
        options: [at(server), more].concat(),
        variables: vec![],
    };
    let account = || ("account", "a".to_owned());
    vec![
        with("gs://b/p", vec![("google_bearer_token", CANARY.to_owned())]),
        with("gs://b/p", vec![("service_account_key", CANARY.to_owned())]),
        with(
            "az://c/p",
            vec![account(), ("sas_token", format!("sv=1&sig={CANARY}"))],
        ),
        with(
            "az://c/p",
            vec![account(), ("access_key", CANARY.to_owned())],
        ),
    ]
}

/// The command with the secrets in its file or in its environment.
fn command(verb: &str, case: &Case, in_file: bool, folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    let uri = case.uri;
    command
        .env_clear()
        .envs(case.variables.iter().cloned())
        .arg(verb);
    if in_file {
        let options = case
            .options
            .iter()
            .map(|(name, value)| format!("{name} = {value:?}\n"));
        let text = format!(
            "[[base_directory]]\nuri = {uri:?}\n{}",
            options.collect::<String>()
        );
        let path = folder.join("stopover.toml");
        std::fs::write(&path, text).unwrap();
        command.arg("--config").arg(path);
    } else {
        command.env("STOPOVER_BASE_DIRECTORIES__0__URI", uri);
        for (name, value) in &case.options {
            let name = format!("STOPOVER_BASE_DIRECTORIES__0__{}", name.to_uppercase());
            command.env(name, value);
        }
    }
    command.args(["--listen", "127.0.0.1:0", "--set=log.filter=trace"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn assert_clean(printed: &[u8], what: &str) {
    let printed = String::from_utf8_lossy(printed);
    for secret in [CANARY, CANARY.trim_end_matches('=')] {
        if let Some(at) = printed.find(secret) {
            let around: String = printed[..at].chars().rev().take(300).collect();
            let around: String = around.chars().rev().collect();
            panic!("{what} shows a secret after: {around}");
        }
    }
}

/// The store echoes what it was sent, as some do.
fn echoing_store() -> String {
    let server = start(|head| {
        let echo = head.replace("\r\n", " ");
        s3_error(
            "403 Forbidden",
            "SignatureDoesNotMatch",
            &format!("You sent: {echo}"),
        )
    });
    server.to_string()
}

#[test]
fn check_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    for (number, case) in cases(&echoing_store()).iter().enumerate() {
        for in_file in [true, false] {
            let output = command("check", case, in_file, folder.path())
                .output()
                .unwrap();
            let what = format!("check of case {number}, {}", case.uri);
            assert!(
                !output.status.success(),
                "{what}: the store refuses everything"
            );
            assert!(!output.stderr.is_empty() || !output.stdout.is_empty());
            assert_clean(&output.stdout, &what);
            assert_clean(&output.stderr, &what);
        }
    }
}

#[tokio::test]
async fn a_daemon_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    for (number, case) in cases(&echoing_store()).iter().enumerate() {
        let what = format!("the daemon of case {number}, {}", case.uri);
        let mut daemon = command("serve", case, true, folder.path()).spawn().unwrap();
        if let Some(url) = url(&mut daemon) {
            for path in ["/readyz", "/", "/metrics", "/openapi.json", "/v1/exchanges"] {
                let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
                assert_clean(&answer.bytes().await.unwrap(), &format!("{path} of {what}"));
            }
            let announced = reqwest::Client::new().put(format!("{url}/v1/exchanges/q-1"));
            let announced = announced.json(&serde_json::json!({"partitions": 1}));
            let announced = announced.timeout(Duration::from_secs(3)).send().await;
            if let Ok(answer) = announced {
                assert_clean(&answer.bytes().await.unwrap(), &what);
            }
        }
        let _ = daemon.kill();
        let mut log = Vec::new();
        daemon.stderr.take().unwrap().read_to_end(&mut log).unwrap();
        assert!(!log.is_empty(), "{what} logs something");
        assert_clean(&log, &what);
        daemon.wait().unwrap();
    }
}

/// The URL that a daemon prints; `None` if it refuses to start.
fn url(daemon: &mut Child) -> Option<String> {
    let mut stdout = daemon.stdout.take()?;
    let (deadline, mut line) = (Instant::now() + Duration::from_secs(60), String::new());
    let mut byte = [0];
    while Instant::now() < deadline && stdout.read(&mut byte).is_ok_and(|n| n == 1) {
        match byte[0] {
            b'\n' => return Some(line.trim_start_matches("listening on ").to_owned()),
            other => line.push(char::from(other)),
        }
    }
    None
}
