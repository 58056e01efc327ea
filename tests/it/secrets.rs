//! Secrets in output: a canary stands wherever a secret may be configured or issued, and everything
//! that `check`, `import` and a daemon print and answer is searched for it.
//!
//! Story: an endpoint with a user part was shown by `/readyz`, the page, the log and `check`. Later
//! a store that repeats the request was shown with the tokens that STS, instance metadata and
//! agents had issued: only what was configured was known as a secret. What is refused is tested in
//! `src/config/tests.rs` and `src/store/tests/open.rs`.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::process::Guarded;
use crate::support::stub_store::{response, s3_error, start, start_tls};
use crate::support::tls::Authority;

const CANARY: &str = "CaNaRyCaNaRyCaNaRy==";
/// The canary without the padding of Base64, which may be encoded or cut off.
const UNPADDED: &str = "CaNaRyCaNaRyCaNaRy";

/// A base directory and where a secret may be in its configuration.
struct Case {
    uri: &'static str,
    options: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
}

/// Options and their values.
type Pairs = Vec<(&'static str, String)>;

/// Where requests go that carry secrets.
struct Servers {
    plain: String,
    /// The same with TLS, as a URL.
    tls: String,
    folder: tempfile::TempDir,
}

impl Servers {
    fn start() -> Self {
        let authority = Authority::new();
        let tls = start_tls(authority.server().server_config(), answer);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
        std::fs::write(folder.path().join("token"), CANARY).unwrap();
        Self {
            plain: start(answer).to_string(),
            tls: format!("https://localhost:{}", tls.port()),
            folder,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn cases(&self) -> Vec<Case> {
        let plain = &self.plain;
        let all = [s3_cases(plain), other_cases(plain), self.issued_cases()];
        all.into_iter().flatten().collect()
    }

    /// Secrets that are issued, or exchanged for others, and of which the store or the service
    /// repeats those that it was sent.
    fn issued_cases(&self) -> Vec<Case> {
        let (plain, tls) = (&self.plain, &self.tls);
        let token = || self.file("token");
        let case = |more: Pairs, variables: Pairs| Case {
            uri: "s3://b/p",
            options: [at(plain), more].concat(),
            variables,
        };
        let role = |sts: &str| {
            let more = vec![
                ("access_key_id", CANARY.to_owned()),
                ("secret_access_key", CANARY.to_owned()),
                ("iam_role", "arn:aws:iam::1:role/x".to_owned()),
                ("external_id", CANARY.to_owned()),
                ("aws_endpoint_url_sts", format!("http://{plain}/{sts}")),
            ];
            case(more, vec![])
        };
        let web = |sts: &str| {
            let more = vec![
                ("ca_file", self.file("ca.pem")),
                ("aws_endpoint_url_sts", format!("{tls}/{sts}")),
            ];
            let variables = vec![
                ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x".to_owned()),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token()),
            ];
            case(more, variables)
        };
        let agent = |path: &str| {
            let url = format!("http://{plain}/{path}");
            let variables = vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token()),
            ];
            case(vec![], variables)
        };
        let metadata = vec![("aws_metadata_endpoint", format!("http://{plain}"))];
        vec![
            case(metadata, vec![]),
            role("sts"),
            role("refuses"),
            web("sts"),
            web("refuses"),
            agent("agent"),
            agent("refuses"),
            self.login("client_secret", CANARY.to_owned(), "refuses"),
            self.login("client_secret", CANARY.to_owned(), "login"),
            self.login("azure_federated_token_file", token(), "refuses"),
            self.login("azure_federated_token_file", token(), "login"),
        ]
    }

    /// Credentials of Azure that are exchanged at the login service.
    fn login(&self, option: &'static str, value: String, service: &str) -> Case {
        let more = vec![
            ("account", "a".to_owned()),
            ("client_id", "c".to_owned()),
            ("tenant_id", "t".to_owned()),
            ("azure_authority_host", format!("{}/{service}", self.tls)),
            ("ca_file", self.file("ca.pem")),
            (option, value),
        ];
        Case {
            uri: "az://c/p",
            options: [at(&self.plain), more].concat(),
            variables: vec![],
        }
    }
}

/// Issues the canary, or repeats the lines of a request that have it, as some stores do.
fn answer(request: &str) -> String {
    let keys = format!(
        "{{\"Code\": \"Success\", \"AccessKeyId\": \"{CANARY}\", \
         \"SecretAccessKey\": \"{CANARY}\", \"Token\": \"{CANARY}\", \
         \"Expiration\": \"2099-01-01T00:00:00Z\"}}"
    );
    let ok = |body: &str| response("200 OK", "", body);
    match request.split(' ').nth(1).unwrap_or_default() {
        "/latest/api/token" => ok(CANARY),
        "/latest/meta-data/iam/security-credentials/" => ok("role"),
        "/latest/meta-data/iam/security-credentials/role" | "/agent" => ok(&keys),
        "/sts" => ok(&format!(
            "<Credentials><AccessKeyId>{CANARY}</AccessKeyId><SecretAccessKey>{CANARY}\
             </SecretAccessKey><SessionToken>{CANARY}</SessionToken></Credentials>"
        )),
        path if path.starts_with("/login/") => ok(&format!(
            "{{\"access_token\": \"{CANARY}\", \"expires_in\": 3599}}"
        )),
        _ => {
            let lines = request.lines().filter(|line| line.contains(UNPADDED));
            let echo = lines.collect::<Vec<_>>().join(" ");
            let message = format!("You sent: {echo}");
            s3_error("403 Forbidden", "SignatureDoesNotMatch", &message)
        }
    }
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
            vec![(
                "connection_string",
                format!("AccountName=a;SharedAccessSignature=sv=1&sig={CANARY}"),
            )],
        ),
        with(
            "az://c/p",
            vec![(
                "connection_string",
                format!("AccountName=a;AccountKey={CANARY}"),
            )],
        ),
        with(
            "az://c/p",
            vec![account(), ("access_key", CANARY.to_owned())],
        ),
    ]
}

/// Lines of Trino's file with a secret, wherever one may be by right or by mistake.
const IMPORTED: [&str; 19] = [
    "exchange.base-directories=s3://AKIA:CANARY@bucket/x",
    "exchange.base-directories=s3://bucket/x?key=CANARY,s3://other",
    "exchange.base-directories=s3://bucket/x#CANARY",
    "exchange.base-directories=s3:/bucket/x?key=CANARY",
    "exchange.base-directories=gs://CANARY@bucket",
    "exchange.base-directories=az:container?sv=1&sig=CANARY",
    "exchange.base-directories=abfss://a:CANARY@acme.dfs.core.windows.net/x?sig=CANARY",
    "exchange.base-directories=https://host/x?sig=CANARY",
    "exchange.base-directories=s3://bucket\nexchange.s3.endpoint=http://user:CANARY@host",
    "exchange.base-directories=s3://bucket\nexchange.s3.endpoint=http://host?sig=CANARY",
    "exchange.base-directories=s3://bucket\nexchange.s3.aws-secret-key=CANARY",
    "exchange.base-directories=s3://bucket\nexchange.s3.aws-secret-key=\nCANARY",
    "exchange.base-directories=s3://bucket\nexchange.s3.external-id=CANARY",
    "exchange.base-directories=s3://bucket\nexchange.s3.sse.type=CANARY",
    "exchange.base-directories=s3://bucket\nexchange.max-page-storage-size=CANARY",
    "exchange.base-directories=gs://bucket\nexchange.gcs.json-key=CANARY",
    "exchange.base-directories=abfs://c\nexchange.azure.endpoint=https://u:CANARY@host?s=CANARY",
    "exchange.base-directories=abfs://c\nexchange.azure.connection-string=AccountKey=CANARY",
    "exchange.base-directories=s3://bucket\nexchange.s3.secret-of-the-bucket=CANARY",
];

/// Story: under the words "Secrets are masked", endpoints and URIs were printed as they were given.
#[test]
fn import_shows_no_secret_and_writes_it_only_into_the_files() {
    let mut written = 0;
    for (number, lines) in IMPORTED.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given");
        let lines = lines.replace("CANARY", CANARY);
        std::fs::write(
            &given,
            format!("exchange-manager.name=filesystem\n{lines}\n"),
        )
        .unwrap();
        for output in [None, Some(folder.path())] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
            command.arg("import").arg(&given);
            command.args(output.map(|folder| format!("--output={}", folder.display())));
            let run = command.output().unwrap();
            assert!(!run.stdout.is_empty() || !run.stderr.is_empty());
            let what = format!("import of case {number}");
            assert_clean(&run.stdout, &what);
            assert_clean(&run.stderr, &what);
        }
        let result = std::fs::read_to_string(folder.path().join("stopover.toml"));
        written += usize::from(result.is_ok_and(|text| text.contains(CANARY)));
    }
    assert!(
        written >= 10,
        "{written} cases have a secret in their result"
    );
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
    if let Some(at) = printed.find(UNPADDED) {
        let around: String = printed[..at].chars().rev().take(300).collect();
        let around: String = around.chars().rev().collect();
        panic!("{what} shows a secret after: {around}");
    }
}

#[test]
fn check_shows_no_secret() {
    let (folder, servers) = (tempfile::tempdir().unwrap(), Servers::start());
    let mut echoed = 0;
    for (number, case) in servers.cases().iter().enumerate() {
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
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            echoed += usize::from(shown.contains("You sent:") && shown.contains("***"));
        }
    }
    let issued = 2 * servers.issued_cases().len();
    assert!(echoed >= issued, "{echoed} messages repeat a request");
}

#[tokio::test]
async fn a_daemon_shows_no_secret() {
    let (folder, servers) = (tempfile::tempdir().unwrap(), Servers::start());
    for (number, case) in servers.cases().iter().enumerate() {
        let what = format!("the daemon of case {number}, {}", case.uri);
        let daemon = command("serve", case, true, folder.path()).spawn();
        let Guarded(daemon) = &mut Guarded(daemon.unwrap());
        // Read all the time: a full pipe would lose lines.
        let mut stderr = daemon.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = Vec::new();
            stderr.read_to_end(&mut log).unwrap();
            log
        });
        if let Some(url) = url(daemon) {
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
        end(daemon);
        let log = log.join().unwrap();
        assert!(!log.is_empty(), "{what} logs something");
        assert_clean(&log, &what);
    }
}

/// Ends a daemon by a signal, so that it writes the lines of the log that are still in its queue.
fn end(daemon: &mut Child) {
    let mut kill = Command::new("kill");
    kill.arg(daemon.id().to_string()).stderr(Stdio::null());
    let deadline = Instant::now() + Duration::from_secs(30);
    while daemon.try_wait().unwrap().is_none() {
        let _ = kill.status();
        if Instant::now() > deadline {
            let _ = daemon.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
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
