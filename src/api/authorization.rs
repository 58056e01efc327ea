//! Lets through who may: the layer before every route.
//!
//! Does: ask the doors who a request comes from, and the table what it needs. Does not: hold tokens
//! or certificates (`doors`). Invariant: nothing of a request is looked at but its method, route
//! and headers before it is let through.

pub mod permissions;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, ProblemType};
use crate::http::credentials::{Credentials, Peer};
use crate::http::scopes::Scopes;
use crate::http::tokens::Tokens;
use permissions::Access;

/// Lets through who may, before anything else of the request is looked at.
pub async fn require_access(
    State(credentials): State<Credentials>,
    request: Request,
    next: Next,
) -> Response {
    let extensions = request.extensions();
    let route = extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let wanted = match permissions::of(request.method(), route) {
        Access::Open => return next.run(request).await,
        Access::Any(scopes) => scopes,
        Access::Closed => Scopes::NONE,
    };
    let admitted = check_peer(&credentials, extensions.get::<Peer>())
        .and_then(|()| check_token(credentials.tokens().as_deref(), request.headers(), wanted));
    match admitted {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_peer(credentials: &Credentials, peer: Option<&Peer>) -> Result<(), Problem> {
    if credentials.admits(peer) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::Unauthorized,
        "a client certificate is needed that server.tls_client_ca_file vouches for",
    ))
}

fn check_token(
    tokens: Option<&Tokens>,
    headers: &HeaderMap,
    wanted: Scopes,
) -> Result<(), Problem> {
    let Some(tokens) = tokens else {
        return match wanted {
            Scopes::NONE => Err(Problem::new(ProblemType::Forbidden, "nobody may do this")),
            _ => Ok(()),
        };
    };
    let given = bearer(headers).ok_or_else(|| {
        Problem::new(
            ProblemType::Unauthorized,
            "a token is needed: send Authorization: Bearer <token>, once",
        )
    })?;
    let scopes = tokens.scopes(given).ok_or_else(|| {
        Problem::new(
            ProblemType::Unauthorized,
            "the token is not one of server.token_file",
        )
    })?;
    if scopes.any_of(wanted) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::Forbidden,
        format!(
            "this needs a token with the scope {wanted}; the given one has {scopes:?}: use another \
             or widen it in server.token_file"
        ),
    ))
}

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

    fn check(values: &[&str], wanted: Scopes) -> Result<(), ProblemType> {
        check_token(Some(&tokens()), &given(values), wanted).map_err(|p| p.slug())
    }

    #[test]
    fn a_token_is_accepted_and_the_scheme_has_no_case() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let header = format!("{scheme} {FIRST}");
            assert_eq!(check(&[&header], Scopes::ADMIN), Ok(()));
        }
    }

    #[test]
    fn nothing_else_is_accepted() {
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
    fn a_token_does_what_its_scopes_say_and_no_more() {
        let reader = format!("Bearer {READER}");
        assert_eq!(check(&[&reader], Scopes::READ), Ok(()));
        assert_eq!(check(&[&reader], Scopes::READ.and(Scopes::ADMIN)), Ok(()));
        for wanted in [Scopes::WRITE, Scopes::ADMIN, Scopes::NONE] {
            assert_eq!(check(&[&reader], wanted), Err(ProblemType::Forbidden));
        }
        let problem = check_token(Some(&tokens()), &given(&[&reader]), Scopes::WRITE);
        let text = String::from_utf8(problem.unwrap_err().to_json()).unwrap();
        assert!(text.contains("write") && !text.contains(READER), "{text}");
    }

    #[test]
    fn a_route_without_a_row_is_closed_with_and_without_tokens() {
        let all = given(&[&format!("Bearer {FIRST}")]);
        let forbidden = |tokens: Option<&Tokens>| {
            let problem = check_token(tokens, &all, Scopes::NONE).unwrap_err();
            assert_eq!(problem.slug(), ProblemType::Forbidden);
        };
        forbidden(None);
        forbidden(Some(&tokens()));
        assert!(check_token(None, &given(&[]), Scopes::WRITE).is_ok());
    }
}
