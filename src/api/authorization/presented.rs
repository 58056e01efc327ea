//! The token that a request presents.
//!
//! Pure: headers to token. Does not: know which tokens are valid. Invariant: a request with more
//! than one `Authorization` has no token. A password counts as a token only if the method changes
//! nothing, since a browser sends a stored password with every page's requests to this address.

use std::borrow::Cow;

use axum::http::header::{ACCEPT, AUTHORIZATION};
use axum::http::{HeaderMap, HeaderValue, Method};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Challenge for browsers: the password is the token.
pub(super) const PASSWORD_CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"Stopover: the token is the password\"");

/// The token of the only `Authorization` header: `Bearer`, or the password of `Basic`.
pub(super) fn token<'a>(method: &Method, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, given) = (&value[..space], value[space + 1..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(given.into());
    }
    if scheme.eq_ignore_ascii_case(b"basic") && changes_nothing(method) {
        let pair = BASE64_STANDARD.decode(given).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(pair[colon + 1..].to_vec().into());
    }
    None
}

/// Whether a person with a browser waits for the answer.
pub(super) fn is_browser(method: &Method, headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter();
    let html = |accept: &HeaderValue| accept.to_str().is_ok_and(|text| text.contains("text/html"));
    changes_nothing(method) && accepted.any(html)
}

fn changes_nothing(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &Method, values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        token(method, &headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
    }

    #[test]
    fn a_password_is_a_token_only_where_the_method_changes_nothing() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("anybody:the:token"));
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(of(&method, &[&basic]).as_deref(), Some("the:token"));
        }
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(of(&method, &[&basic]), None, "{method}");
            assert_eq!(of(&method, &["Bearer abc"]).as_deref(), Some("abc"));
        }
    }

    #[test]
    fn what_is_malformed_or_doubled_is_no_token() {
        let without_colon = format!("Basic {}", BASE64_STANDARD.encode("token"));
        let cases: [&[&str]; 7] = [
            &[],
            &[""],
            &["Bearer"],
            &["Basic ???"],
            &[&without_colon],
            &["Digest abc"],
            &["Bearer abc", "Bearer abc"],
        ];
        for case in cases {
            assert_eq!(of(&Method::GET, case), None, "{case:?}");
        }
    }

    #[test]
    fn a_person_is_recognized_by_the_page_that_the_browser_accepts() {
        let accepts =
            |value: &'static str| HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]);
        let browser = accepts("text/html,application/xhtml+xml;q=0.9");
        assert!(is_browser(&Method::GET, &browser));
        assert!(!is_browser(&Method::POST, &browser));
        assert!(!is_browser(&Method::GET, &accepts("*/*")));
        assert!(!is_browser(&Method::GET, &HeaderMap::new()));
    }
}
