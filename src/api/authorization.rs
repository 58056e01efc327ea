//! The authorization layer, before every route.
//!
//! Does: compare the credentials of a request with the permission of its route, and log refusals.
//! Does not: hold tokens or certificates (`http::credentials` does). Invariant: until a request is
//! authorized, only its method, route and headers are inspected.

pub mod caller;
pub mod permissions;
mod refusals;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, ProblemType};
use crate::http::credentials::{Credentials, Peer};
use crate::http::scopes::Scopes;
use crate::http::server::ClientAddress;
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
}

impl AccessState {
    /// For these credentials.
    pub fn new(credentials: &Credentials, runtime: &Runtime) -> Self {
        Self {
            credentials: credentials.clone(),
            refusals: Arc::default(),
            clock: runtime.clock.clone(),
        }
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
    let tokens = state.credentials.tokens();
    let authorized = check_peer(&state.credentials, extensions.get::<Peer>())
        .and_then(|()| check_token(tokens.as_deref(), request.headers(), required));
    let address = extensions.get::<ClientAddress>().copied();
    match authorized {
        Ok(credential) => {
            let caller = Caller::new(address, credential);
            request.extensions_mut().insert(caller);
        }
        Err(_) if access == Access::Open => {}
        Err(problem) => {
            let caller = Caller::new(address, Credential::Refused);
            let now = state.clock.now();
            state.refusals.report(now, &caller, &problem);
            return problem.into_response();
        }
    }
    next.run(request).await
}

fn check_peer(credentials: &Credentials, peer: Option<&Peer>) -> Result<(), Problem> {
    if credentials.admits(peer) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::Unauthorized,
        "a client certificate issued by a CA of server.tls_client_ca_file is required",
    ))
}

fn check_token(
    tokens: Option<&Tokens>,
    headers: &HeaderMap,
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
    let unauthorized = |detail| Problem::new(ProblemType::Unauthorized, detail);
    let given = bearer(headers)
        .ok_or_else(|| unauthorized("send a token once, as Authorization: Bearer <token>"))?;
    let Grant { scopes, line } = tokens
        .find(given)
        .ok_or_else(|| unauthorized("the token is not in server.token_file"))?;
    if scopes.intersects(required) {
        return Ok(Credential::Token { line });
    }
    Err(Problem::new(
        ProblemType::Forbidden,
        format!(
            "this requires a token with scope {required}, and the given one has {scopes:?}: use \
             another token, or add the scope in server.token_file"
        ),
    ))
}

/// The token of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use axum::http::HeaderValue;

    const FIRST: &str = "first-token-0123456789";
    const READER: &str = "reader-token-012345678";

    fn tokens() -> Tokens {
        let text = format!("{FIRST}\nread {READER}\n");
        Tokens::parse(&text, Path::new("tokens")).unwrap()
    }

    fn given(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn check(values: &[&str], required: Scopes) -> Result<(), ProblemType> {
        let checked = check_token(Some(&tokens()), &given(values), required);
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
        let problem = check_token(Some(&tokens()), &given(&[&reader]), Scopes::WRITE);
        let text = String::from_utf8(problem.unwrap_err().to_json()).unwrap();
        assert!(text.contains("write") && !text.contains(READER), "{text}");
    }

    #[test]
    fn a_route_without_a_row_is_denied_with_and_without_tokens() {
        let all = given(&[&format!("Bearer {FIRST}")]);
        let forbidden = |tokens: Option<&Tokens>| {
            let problem = check_token(tokens, &all, Scopes::NONE).unwrap_err();
            assert_eq!(problem.problem_type(), ProblemType::Forbidden);
        };
        forbidden(None);
        forbidden(Some(&tokens()));
        assert!(check_token(None, &given(&[]), Scopes::WRITE).is_ok());
    }
}
