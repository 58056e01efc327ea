//! Everything that gives out tokens of Azure and of Google, and knows which of them are still
//! valid.
//!
//! Does: play Microsoft Entra, managed identities, the metadata server of Google, and Google's
//! login. Does not: verify what is exchanged for a token. Invariant: of what it gave out, only what
//! its ledger calls valid is accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio_rustls::rustls::ServerConfig;

use crate::gate::{Refusal, serve, serve_at};
use crate::ledger::Ledger;

/// The path of the managed identities of App Service.
pub const MSI_PATH: &str = "/msi/token";

struct Shared {
    ledger: Ledger,
    /// Path, query and form of what was asked for.
    asked: Mutex<Vec<String>>,
}

#[derive(Clone)]
pub struct Tokens {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Tokens {
    /// Tokens live for `lifetime`, and are said to live for `claimed`.
    pub async fn start(lifetime: Duration, claimed: Duration, tls: Option<ServerConfig>) -> Self {
        let (app, shared) = app(lifetime, claimed);
        let address = serve(app, tls).await;
        Self { address, shared }
    }

    /// The same at this address, where tokens live for as long as they are said to.
    pub async fn start_at(address: SocketAddr, lifetime: Duration) -> Self {
        let (app, shared) = app(lifetime, lifetime);
        let address = serve_at(address, app, None).await;
        Self { address, shared }
    }

    pub fn issued(&self) -> usize {
        self.shared.ledger.issued()
    }

    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().clone()
    }

    /// Ends all tokens that it gave out.
    pub fn revoke(&self) {
        self.shared.ledger.revoke();
    }

    /// Whether a request to a store shows a token that is valid.
    pub fn accepts(&self, head: &Parts) -> Result<(), Refusal> {
        let shown = head.headers.get("authorization");
        let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer token-"));
        let number = shown.and_then(|number| number.parse::<usize>().ok());
        let number = number.ok_or((403, "NoAuthenticationInformation"))?;
        match self.shared.ledger.is_valid(number) {
            Some(true) => Ok(()),
            _ => Err((401, "InvalidAuthenticationInfo")),
        }
    }
}

fn app(lifetime: Duration, claimed: Duration) -> (Router, Arc<Shared>) {
    let shared = Arc::new(Shared {
        ledger: Ledger::new(lifetime, claimed),
        asked: Mutex::default(),
    });
    let app = Router::new().fallback(answer);
    (app.with_state(shared.clone()), shared)
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let form = String::from_utf8(body.to_vec()).unwrap();
    let says = |name: &str, value: &str| head.headers.get(name).is_some_and(|v| v == value);
    let may_have_one = match head.uri.path() {
        MSI_PATH | "/metadata/identity/oauth2/token" => says("metadata", "true"),
        path if path.starts_with("/computeMetadata/") => says("metadata-flavor", "Google"),
        _ => !form.is_empty(),
    };
    shared.asked.lock().push(format!("{} {form}", head.uri));
    if !may_have_one {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let (number, end) = shared.ledger.issue();
    let token = format!("token-{number}");
    let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let answer = serde_json::json!({
        "token_type": "Bearer", "access_token": token,
        "expires_in": shared.ledger.claimed.as_secs(), "expires_on": end.as_secs().to_string(),
    });
    answer.to_string().into_response()
}
