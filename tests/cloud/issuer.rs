//! Everything that gives out credentials of AWS, and knows which of them are still valid.
//!
//! Does: play instance metadata, the endpoints of containers and pods, and STS. Does not: check
//! signatures. Invariant: of what it gave out, only what its ledger calls valid is accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio_rustls::rustls::ServerConfig;

use crate::gate::{Refusal, serve, serve_at};
use crate::ledger::Ledger;

/// What a pod's token file must contain.
pub const POD_TOKEN: &str = "token-of-the-pod";
/// The path of the credentials of a container of ECS.
pub const TASK_PATH: &str = "/v2/credentials/task-7";
pub const EXTERNAL_ID: &str = "external-7";

struct Shared {
    ledger: Ledger,
    /// The bodies of requests to STS.
    forms: Mutex<Vec<String>>,
}

#[derive(Clone)]
pub struct Issuer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Issuer {
    /// Credentials live for `lifetime`, and are said to live for `claimed`.
    pub async fn start(lifetime: Duration, claimed: Duration, tls: Option<ServerConfig>) -> Self {
        let (app, shared) = app(lifetime, claimed);
        let address = serve(app, tls).await;
        Self { address, shared }
    }

    /// The same at this address, where credentials live for as long as they are said to.
    pub async fn start_at(address: SocketAddr, lifetime: Duration) -> Self {
        let (app, shared) = app(lifetime, lifetime);
        let address = serve_at(address, app, None).await;
        Self { address, shared }
    }

    pub fn issued(&self) -> usize {
        self.shared.ledger.issued()
    }

    /// Ends all credentials that it gave out.
    pub fn revoke(&self) {
        self.shared.ledger.revoke();
    }

    pub fn forms(&self) -> Vec<String> {
        self.shared.forms.lock().clone()
    }

    /// Whether a request to a store is signed with credentials that are valid, in its headers or in
    /// its URL.
    pub fn accepts(&self, head: &Parts) -> Result<(), Refusal> {
        let header = |name: &str| head.headers.get(name)?.to_str().ok();
        let query = head.uri.query().unwrap_or_default();
        let signed = header("authorization").unwrap_or(query);
        let number = signed.split("Credential=key-").nth(1);
        let number = number.and_then(|rest| rest.split(['/', '%']).next()?.parse::<usize>().ok());
        let number = number.ok_or((403, "InvalidAccessKeyId"))?;
        let mut parameters = url::form_urlencoded::parse(query.as_bytes());
        let in_url = parameters.find(|(name, _)| name == "X-Amz-Security-Token");
        let in_url = in_url.map(|(_, token)| token.into_owned());
        let token = header("x-amz-security-token").or(in_url.as_deref());
        if token != Some(&*format!("token-{number}")) {
            return Err((403, "InvalidToken"));
        }
        match self.shared.ledger.is_valid(number) {
            Some(true) => Ok(()),
            Some(false) => Err((400, "ExpiredToken")),
            None => Err((403, "InvalidAccessKeyId")),
        }
    }
}

fn app(lifetime: Duration, claimed: Duration) -> (Router, Arc<Shared>) {
    let shared = Arc::new(Shared {
        ledger: Ledger::new(lifetime, claimed),
        forms: Mutex::default(),
    });
    let app = Router::new().fallback(answer);
    (app.with_state(shared.clone()), shared)
}

impl Shared {
    /// New credentials: their number, and when they end as it says.
    fn issue(&self) -> (usize, String) {
        let (number, end) = self.ledger.issue();
        (number, humantime::format_rfc3339_seconds(end).to_string())
    }

    fn json(&self) -> String {
        let (number, end) = self.issue();
        format!(
            "{{\"Code\": \"Success\", \"AccessKeyId\": \"key-{number}\", \
             \"SecretAccessKey\": \"secret\", \"Token\": \"token-{number}\", \
             \"Expiration\": \"{end}\"}}"
        )
    }

    fn xml(&self, action: &str) -> String {
        let (number, end) = self.issue();
        format!(
            "<{action}Response><{action}Result><Credentials><AccessKeyId>key-{number}</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>token-{number}</SessionToken>\
             <Expiration>{end}</Expiration></Credentials></{action}Result></{action}Response>"
        )
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let form = String::from_utf8(body.to_vec()).unwrap();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let refused = || StatusCode::FORBIDDEN.into_response();
    match head.uri.path() {
        "/latest/api/token" => "session-of-metadata".into_response(),
        "/latest/meta-data/iam/security-credentials/" => "role".into_response(),
        "/latest/meta-data/iam/security-credentials/role" => shared.json().into_response(),
        "/v1/credentials" if !has(&head.headers, POD_TOKEN) => refused(),
        "/v1/credentials" => shared.json().into_response(),
        TASK_PATH => shared.json().into_response(),
        "/" => {
            let said = format!("{query}&{form}");
            shared.forms.lock().push(said.clone());
            let web = said.contains("Action=AssumeRoleWithWebIdentity");
            match web {
                true if !said.contains(&format!("WebIdentityToken={POD_TOKEN}")) => refused(),
                true => shared.xml("AssumeRoleWithWebIdentity").into_response(),
                false => shared.xml("AssumeRole").into_response(),
            }
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn has(headers: &HeaderMap, token: &str) -> bool {
    headers.get("authorization").is_some_and(|v| v == token)
}
