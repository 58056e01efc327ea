//! Azure: workload identity, client secrets, and accounts that keep what is deleted.
//!
//! Azurite knows neither tokens without TLS nor soft delete, so both sides are played.

#![allow(clippy::disallowed_methods)] // servers run as spawned tasks

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::runtime::Runtime;
use stopover::storage::StoreErrorKind;
use stopover::store::Retention;
use stopover::store::keys;
use stopover::store::open::open_all;

use crate::certificates::server_config;
use crate::gate::serve;
use crate::tls::Authority;
use crate::{base, fault};

/// What was asked: the path and body of requests for tokens, or the `Authorization` of others.
type Asked = Arc<Mutex<Vec<String>>>;

/// Gives out tokens as Microsoft Entra does.
async fn entra(State(asked): State<Asked>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let form = String::from_utf8(body.to_vec()).unwrap();
    let number = asked.lock().len();
    asked.lock().push(format!("{} {form}", head.uri.path()));
    format!("{{\"access_token\": \"token-{number}\", \"expires_in\": 1}}").into_response()
}

/// A container that is missing, for clients that show a token.
async fn blobs(State(asked): State<Asked>, request: Request) -> Response {
    let shown = request.headers().get("authorization");
    let shown = shown.map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
    let is_token = shown.starts_with("Bearer token-");
    asked.lock().push(shown);
    match is_token {
        false => StatusCode::FORBIDDEN.into_response(),
        true => {
            let code = [("x-ms-error-code", "ContainerNotFound")];
            let text = "<Error><Code>ContainerNotFound</Code></Error>";
            (StatusCode::NOT_FOUND, code, text).into_response()
        }
    }
}

struct Played {
    entra: SocketAddr,
    asked: Asked,
    blobs: SocketAddr,
    shown: Asked,
    folder: tempfile::TempDir,
}

impl Played {
    async fn start() -> Self {
        let authority = Authority::new();
        let (asked, shown) = (Asked::default(), Asked::default());
        let app = Router::new().fallback(entra).with_state(asked.clone());
        let tls = server_config(&authority, false);
        let entra = serve(app, Some(tls)).await;
        let app = Router::new().fallback(blobs).with_state(shown.clone());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
        std::fs::write(folder.path().join("token"), "token-of-the-pod").unwrap();
        Self {
            entra,
            asked,
            blobs: serve(app, None).await,
            shown,
            folder,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// What is wrong with a base directory with these credentials.
    async fn tried(&self, credentials: &[(&str, &str)]) -> String {
        let endpoint = format!("http://{}/account", self.blobs);
        let authority = format!("https://localhost:{}", self.entra.port());
        let ca = self.file("ca.pem");
        let own = [
            ("account", "account"),
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            ("ca_file", &ca),
            ("client_id", "client-7"),
            ("tenant_id", "tenant-8"),
            ("azure_authority_host", &authority),
        ];
        let base = base("az://container/p", &[&own[..], credentials].concat());
        fault(base).await.expect("the container is missing")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_identity_and_a_client_secret_become_tokens_that_are_renewed() {
    let played = Played::start().await;
    let token_file = played.file("token");
    let cases = [
        (("client_secret", "hush"), "client_secret=hush"),
        (
            ("azure_federated_token_file", token_file.as_str()),
            "client_assertion=token-of-the-pod",
        ),
    ];
    for (credentials, words) in cases {
        played.asked.lock().clear();
        for _ in 0..2 {
            let error = played.tried(&[credentials]).await;
            assert!(error.contains("ContainerNotFound"), "{error}");
        }
        let asked = played.asked.lock().clone();
        assert!(asked.len() > 1, "{asked:?}");
        for form in asked {
            assert!(form.contains("/tenant-8/oauth2/v2.0/token"), "{form}");
            assert!(form.contains("client_id=client-7"), "{form}");
            assert!(form.contains(words), "{form}");
        }
    }
    let shown = played.shown.lock().clone();
    assert!(
        shown.iter().all(|shown| shown.starts_with("Bearer ")),
        "{shown:?}"
    );
}

/// Answers each delete of a batch; `permanent` is what Azure says of it.
async fn deleted(State(permanent): State<bool>, request: Request) -> Response {
    if request.method() != Method::POST {
        return StatusCode::NOT_FOUND.into_response();
    }
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let count = String::from_utf8_lossy(&body).matches("DELETE /").count();
    let part = |id: usize| {
        format!(
            "--answers\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\n\
             HTTP/1.1 202 Accepted\r\nx-ms-delete-type-permanent: {permanent}\r\n\r\n\r\n"
        )
    };
    let text = (0..count).map(part).collect::<String>() + "--answers--\r\n";
    let content_type = [("content-type", "multipart/mixed; boundary=answers")];
    (StatusCode::ACCEPTED, content_type, Bytes::from(text)).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_keeps_deleted_objects_is_noticed_by_its_answer_to_a_delete() {
    for (permanent, retention) in [(true, None), (false, Some(Retention::SoftDelete))] {
        let app = Router::new().fallback(deleted).with_state(permanent);
        let endpoint = format!("http://{}/account", serve(app, None).await);
        let options = [
            ("account", "account"),
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            ("access_key", "aHVzaA=="),
        ];
        let base = base("az://container/p", &options);
        let store = open_all(&[base], &Runtime::seeded(1)).unwrap().remove(0);
        let store = store.opened.store;
        assert_eq!(store.observed().retention, None);
        let missing = store.get_range(&keys::probe(1), 0..1).await.unwrap_err();
        assert_eq!(missing.kind, StoreErrorKind::NotFound);
        let removed = store.delete(vec![keys::probe(1), keys::probe(2)]).await;
        assert_eq!(removed.unwrap(), 2);
        assert_eq!(store.observed().retention, retention);
    }
}
