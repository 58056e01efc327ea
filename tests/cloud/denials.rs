//! Services that deny credentials, or answer without any: each is told as what it is.
//!
//! Story: a role that other credentials may not assume was explained with the token of a pod, an
//! answer without credentials with a network, and the denial of Microsoft's login service with the
//! permissions of the container.

use axum::Router;
use axum::http::StatusCode;
use stopover::runtime::Runtime;
use stopover::storage::StoreErrorKind;
use stopover::store::keys;
use stopover::store::open::open_all;

use crate::certificates::server_config;
use crate::gate::serve;
use crate::tls::Authority;
use crate::{base, fault};

const DENIAL: &str = "<ErrorResponse><Error><Code>AccessDenied</Code>\
    <Message>Not authorized.</Message></Error></ErrorResponse>";

/// Credentials that a service gives out, and what is said when it does not.
struct Case {
    uri: &'static str,
    options: Vec<(&'static str, String)>,
    denied: &'static [&'static str],
    empty: &'static [&'static str],
}

/// Words of each kind of advice, which no other kind may have.
const ADVICE: [&str; 6] = [
    "sts:AssumeRole to the credentials at hand",
    "sts:AssumeRoleWithWebIdentity",
    "pod identity association",
    "federated credential",
    "client_secret, which may have expired",
    "permission to get, put",
];

/// A service that answers everything alike, with TLS and without.
struct Service {
    plain: String,
    tls: String,
    folder: tempfile::TempDir,
}

impl Service {
    async fn start(status: StatusCode, text: &'static str) -> Self {
        let app = Router::new().fallback(move || async move { (status, text) });
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
        std::fs::write(folder.path().join("token"), "token-of-the-pod").unwrap();
        let plain = serve(app.clone(), None).await;
        let tls = serve(app, Some(server_config(&authority, false))).await;
        Self {
            plain: format!("http://{plain}"),
            tls: format!("https://localhost:{}", tls.port()),
            folder,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn of_aws(&self) -> [Case; 3] {
        let s3 = |options, denied, empty| Case {
            uri: "s3://bucket/p",
            options,
            denied,
            empty,
        };
        let role = || "arn:aws:iam::123456789012:role/x".to_owned();
        let assumed = vec![
            ("access_key_id", "own".to_owned()),
            ("secret_access_key", "own-secret".to_owned()),
            ("iam_role", role()),
            ("external_id", "external-7".to_owned()),
            ("aws_endpoint_url_sts", self.plain.clone()),
        ];
        let web = vec![
            ("aws_role_arn", role()),
            ("aws_web_identity_token_file", self.file("token")),
            ("aws_endpoint_url_sts", self.tls.clone()),
        ];
        let agent = vec![
            (
                "aws_container_credentials_full_uri",
                format!("{}/v1/credentials", self.plain),
            ),
            ("aws_container_authorization_token_file", self.file("token")),
        ];
        let sts = &["STS", "without credentials", "aws_endpoint_url_sts"];
        [
            s3(
                assumed,
                &["the role could not be assumed", ADVICE[0], "external_id"],
                sts,
            ),
            s3(web, &["with the pod's token", ADVICE[1]], sts),
            s3(
                agent,
                &["the agent", "refused its token", ADVICE[2]],
                &[
                    "the agent",
                    "without credentials",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                ],
            ),
        ]
    }

    fn of_azure(&self) -> [Case; 2] {
        let az = |option, value, denied| Case {
            uri: "az://container/p",
            options: vec![
                ("account", "account".to_owned()),
                ("client_id", "client-7".to_owned()),
                ("tenant_id", "tenant-8".to_owned()),
                ("azure_authority_host", self.tls.clone()),
                (option, value),
            ],
            denied,
            empty: &[
                "Microsoft's login service",
                "without credentials",
                "azure_authority_host",
            ],
        };
        let (token, secret) = (self.file("token"), "hush".to_owned());
        [
            az(
                "azure_federated_token_file",
                token,
                &["did not exchange the pod's token", ADVICE[3]],
            ),
            az(
                "client_secret",
                secret,
                &["did not accept the application", ADVICE[4]],
            ),
        ]
    }

    /// What is said about each case, with the case.
    async fn tried(&self) -> Vec<(Case, String)> {
        let mut all = Vec::new();
        let ca = self.file("ca.pem");
        for case in self.of_aws().into_iter().chain(self.of_azure()) {
            let mut options = vec![
                ("endpoint", "http://127.0.0.1:1"),
                ("allow_http", "true"),
                ("ca_file", &ca),
            ];
            options.extend(case.options.iter().map(|(name, value)| (*name, &**value)));
            let error = fault(base(case.uri, &options)).await;
            all.push((case, error.expect("there are no credentials")));
        }
        all
    }
}

fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
    for other in ADVICE.iter().filter(|other| !words.contains(other)) {
        assert!(!error.contains(other), "{other:?} leads astray in: {error}");
    }
    assert!(!error.contains("could not be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_denies_credentials_is_told_with_what_it_wants() {
    let service = Service::start(StatusCode::FORBIDDEN, DENIAL).await;
    for (case, error) in service.tried().await {
        assert_says(&error, case.denied);
        assert!(error.contains("AccessDenied"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_credentials_is_no_trouble_of_the_network() {
    for text in ["{}", "<Other/>"] {
        let service = Service::start(StatusCode::OK, text).await;
        for (case, error) in service.tried().await {
            assert_says(&error, case.empty);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_not_told_as_one_that_denies() {
    let service = Service::start(StatusCode::SERVICE_UNAVAILABLE, "later").await;
    for (case, error) in service.tried().await {
        assert_says(&error, &["failed", case.empty[0]]);
    }
}

/// Story: STS throttles with 400, which was told as a trust policy that denies the role, and not
/// repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_wants_to_be_asked_later_is_not_told_as_one_that_denies() {
    for text in [
        "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error>\
         </ErrorResponse>",
        "<ErrorResponse><Error><Code>IDPCommunicationError</Code><Message>No.</Message></Error>\
         </ErrorResponse>",
    ] {
        let service = Service::start(StatusCode::BAD_REQUEST, text).await;
        for (case, error) in service.tried().await {
            assert_says(&error, &["failed", case.empty[0]]);
        }
        let ca = service.file("ca.pem");
        for case in service.of_aws() {
            let mut options = vec![("endpoint", "http://127.0.0.1:1"), ("allow_http", "true")];
            options.push(("ca_file", &ca));
            options.extend(case.options.iter().map(|(name, value)| (*name, &**value)));
            let opened = open_all(&[base(case.uri, &options)], &Runtime::seeded(1)).unwrap();
            let key = keys::probe(1);
            let read = opened[0].opened.store.get_range(&key, 0..1);
            let error = read.await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
        }
    }
}
