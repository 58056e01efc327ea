//! The authorization layer, before every route.
//!
//! Does: compare the credentials of a request with the permission of its route, refuse browsers
//! where no token is configured, log refusals, and acquire a slot for the connection of an
//! authorized request. Does not: hold tokens or certificates (`http::credentials` does). Invariant:
//! until a request is authorized, only its method, route and headers are inspected.

mod browsers;
pub mod caller;
pub mod permissions;
mod presented;
mod refusals;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::WWW_AUTHENTICATE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, ProblemType};
use crate::http::credentials::{Credentials, Peer};
use crate::http::scopes::Scopes;
use crate::http::server::ClientAddress;
use crate::http::slots::Client;
use crate::http::tokens::{Grant, Tokens};
use crate::runtime::{Clock, Runtime};
use caller::{Caller, Credential};
use permissions::Access;
use refusals::RefusalLog;

/// The state of the layer.
#[derive(Clone)]
pub struct AccessState {
    credentials: Credentials,
    refusals: Arc<RefusalLog>,
    clock: Clock,
    /// Whether clients may use only probes and metrics while no token is configured.
    shows_little_without_token: bool,
}

impl AccessState {
    /// For these credentials.
    pub fn new(credentials: &Credentials, runtime: &Runtime) -> Self {
        Self {
            credentials: credentials.clone(),
            refusals: Arc::default(),
            clock: runtime.clock.clone(),
            shows_little_without_token: false,
        }
    }

    /// For `server.admin_listen`: an address that other machines can reach shows them no names of
    /// queries while no token is configured.
    pub fn admin(credentials: &Credentials, runtime: &Runtime) -> Self {
        Self {
            shows_little_without_token: credentials.is_reachable(),
            ..Self::new(credentials, runtime)
        }
    }

    fn check(&self, request: &Request, required: Scopes) -> Result<Credential, Problem> {
        check_peer(&self.credentials, request.extensions().get::<Peer>())?;
        let tokens = self.credentials.tokens();
        if tokens.is_none() {
            browsers::check(request, self.credentials.allowed_hosts())?;
            let route = request.extensions().get::<MatchedPath>();
            if self.shows_little_without_token
                && !permissions::needs_no_slot(route.map(MatchedPath::as_str))
            {
                return Err(unauthorized(
                    "other machines can reach server.admin_listen, so without a token it shows \
                     probes and metrics only: configure server.admin_token_file",
                ));
            }
        }
        let setting = self.credentials.token_setting();
        check_token(tokens.as_deref(), setting, request, required)
    }
}

/// Passes authorized requests on with their [`Caller`], and refuses all others. Requests to open
/// routes have a caller only if they would be authorized with any token.
pub async fn require_access(
    State(state): State<AccessState>,
    mut request: Request,
    next: Next,
) -> Response {
    let extensions = request.extensions();
    let route = extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let access = permissions::of(request.method(), route);
    let required = match access {
        Access::Open => Scopes::ALL,
        Access::AnyOf(scopes) => scopes,
        Access::Denied => Scopes::NONE,
    };
    let needs_slot = access != Access::Open && !permissions::needs_no_slot(route);
    let client = extensions.get::<Client>().cloned();
    let address = extensions.get::<ClientAddress>().copied();
    match state.check(&request, required) {
        Ok(credential) => {
            let caller = Caller::new(address, credential);
            request.extensions_mut().insert(caller);
        }
        Err(_) if access == Access::Open => {}
        Err(problem) => {
            let caller = Caller::new(address, Credential::Refused);
            let now = state.clock.now();
            state.refusals.report(now, &caller, &problem);
            return refuse(problem, &request, &state.credentials);
        }
    }
    if let Some(client) = client.filter(|_| needs_slot)
        && let Err(error) = client.acquire_slot().await
    {
        return Problem::new(ProblemType::Overloaded, error.to_string()).into_response();
    }
    next.run(request).await
}

/// The response to a refused request. The challenge makes a browser ask its user for the token.
fn refuse(problem: Problem, request: &Request, credentials: &Credentials) -> Response {
    let lacks_token =
        problem.problem_type() == ProblemType::Unauthorized && credentials.tokens().is_some();
    let mut response = problem.into_response();
    if lacks_token && presented::is_browser(request.method(), request.headers()) {
        let challenges = response.headers_mut();
        challenges.append(WWW_AUTHENTICATE, presented::PASSWORD_CHALLENGE);
    }
    response
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(ProblemType::Unauthorized, detail)
}

fn check_peer(credentials: &Credentials, peer: Option<&Peer>) -> Result<(), Problem> {
    if credentials.admits(peer) {
        return Ok(());
    }
    Err(unauthorized(
        "a client certificate issued by a CA of server.tls_client_ca_file is required",
    ))
}

fn check_token(
    tokens: Option<&Tokens>,
    setting: &str,
    request: &Request,
    required: Scopes,
) -> Result<Credential, Problem> {
    let Some(tokens) = tokens else {
        return match required {
            Scopes::NONE => Err(Problem::new(
                ProblemType::Forbidden,
                "no scope permits this",
            )),
            _ => Ok(Credential::None),
        };
    };
    let given = presented::token(request.method(), request.headers())
        .ok_or_else(|| unauthorized("send a token once, as Authorization: Bearer <token>"))?;
    let Grant { scopes, line } = tokens
        .find(&given)
        .ok_or_else(|| unauthorized(&format!("the token is not in {setting}")))?;
    if scopes.intersects(required) {
        return Ok(Credential::Token { line });
    }
    Err(Problem::new(
        ProblemType::Forbidden,
        format!(
            "this requires a token with scope {required}, and the given one has {scopes:?}: use \
             another token, or add the scope in {setting}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tokens::TokenFile;
    use axum::body::Body;
    use axum::http::HeaderValue;
    use axum::http::header::AUTHORIZATION;

    const FIRST: &str = "first-token-0123456789";
    const SETTING: &str = "server.token_file";
    const READER: &str = "reader-token-012345678";

    fn tokens() -> Tokens {
        let text = format!("{FIRST}\nread {READER}\n");
        let file = TokenFile {
            setting: SETTING,
            path: "tokens".into(),
        };
        Tokens::parse(&text, &file).unwrap()
    }

    fn given(values: &[&str]) -> Request {
        let mut request = Request::new(Body::empty());
        for value in values {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().append(AUTHORIZATION, value);
        }
        request
    }

    fn check(values: &[&str], required: Scopes) -> Result<(), ProblemType> {
        let checked = check_token(Some(&tokens()), SETTING, &given(values), required);
        checked.map(drop).map_err(|p| p.problem_type())
    }

    #[test]
    fn a_token_is_accepted_and_the_scheme_ignores_case() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let header = format!("{scheme} {FIRST}");
            assert_eq!(check(&[&header], Scopes::ADMIN), Ok(()));
        }
    }

    #[test]
    fn anything_but_one_known_bearer_token_is_refused() {
        let prefix = format!("Bearer {}", &FIRST[..FIRST.len() - 1]);
        let longer = format!("Bearer {FIRST}x");
        let basic = format!("Basic {FIRST}");
        let good = format!("Bearer {FIRST}");
        let line = format!("Bearer read {READER}");
        let cases: [&[&str]; 9] = [
            &[],
            &[""],
            &["Bearer "],
            &["Bearer # two"],
            &[&prefix],
            &[&longer],
            &[&basic],
            &[&good, &good],
            &[&line],
        ];
        for case in cases {
            let refused = check(case, Scopes::ALL).unwrap_err();
            assert_eq!(refused, ProblemType::Unauthorized, "{case:?}");
        }
    }

    #[test]
    fn a_token_permits_what_its_scopes_say_and_no_more() {
        let reader = format!("Bearer {READER}");
        assert_eq!(check(&[&reader], Scopes::READ), Ok(()));
        assert_eq!(check(&[&reader], Scopes::READ.or(Scopes::ADMIN)), Ok(()));
        for required in [Scopes::WRITE, Scopes::ADMIN, Scopes::NONE] {
            assert_eq!(check(&[&reader], required), Err(ProblemType::Forbidden));
        }
        let problem = check_token(Some(&tokens()), SETTING, &given(&[&reader]), Scopes::WRITE);
        let text = String::from_utf8(problem.unwrap_err().to_json()).unwrap();
        assert!(text.contains("write") && !text.contains(READER), "{text}");
    }

    #[test]
    fn a_route_without_a_row_is_denied_with_and_without_tokens() {
        let all = given(&[&format!("Bearer {FIRST}")]);
        let forbidden = |tokens: Option<&Tokens>| {
            let problem = check_token(tokens, SETTING, &all, Scopes::NONE).unwrap_err();
            assert_eq!(problem.problem_type(), ProblemType::Forbidden);
        };
        forbidden(None);
        forbidden(Some(&tokens()));
        assert!(check_token(None, SETTING, &given(&[]), Scopes::WRITE).is_ok());
    }
}
