//! Bearer tokens: nobody passes without one once a token file is configured.
//!
//! Does: load tokens and compare them in time that does not depend on where they differ. Does not:
//! know scopes yet. Invariant: a token is never logged, shown or part of an error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, Slug};

/// Routes that answer without a token: probes of an orchestrator have none.
const OPEN_ROUTES: [&str; 2] = ["/healthz", "/readyz"];
/// Shorter tokens could be guessed.
const MIN_TOKEN: usize = 16;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// Cannot be read.
    #[error("server.token_file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Holds no token.
    #[error("server.token_file {} holds no token: write one a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is no token.
    #[error(
        "line {line} of server.token_file {} is no token: it is at least {MIN_TOKEN} characters of \
         A-Z a-z 0-9 - . _ ~ + / =",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, from 1; what it holds is not shown.
        line: usize,
    },
}

/// The accepted tokens.
pub struct Tokens(Vec<Box<[u8]>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Reads a file with one token a line; empty lines and lines that begin with `#` are passed
    /// over.
    pub fn load(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, TokenFileError> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.len() < MIN_TOKEN || !line.bytes().all(is_token_byte) {
                return Err(TokenFileError::Malformed {
                    path: path.to_owned(),
                    line: index + 1,
                });
            }
            tokens.push(line.as_bytes().into());
        }
        if tokens.is_empty() {
            return Err(TokenFileError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self(tokens))
    }

    /// Whether `given` is one of them; looks at all of them, whichever fits.
    fn accept(&self, given: &[u8]) -> bool {
        self.0
            .iter()
            .fold(false, |found, token| found | same(token, given))
    }
}

/// The characters of a bearer token (RFC 6750).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// Compares without stopping at the first difference; only the lengths show in the time it takes.
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a
        .iter()
        .zip(b)
        .fold(0u8, |all, (x, y)| std::hint::black_box(all | (x ^ y)));
    std::hint::black_box(difference) == 0
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

fn check(tokens: &Tokens, headers: &HeaderMap) -> Result<(), Problem> {
    match bearer(headers) {
        Some(given) if tokens.accept(given) => Ok(()),
        Some(_) => Err(Problem::new(
            Slug::Unauthorized,
            "the token is not one of server.token_file",
        )),
        None => Err(Problem::new(
            Slug::Unauthorized,
            "a token is needed: send Authorization: Bearer <token>, once",
        )),
    }
}

/// Lets through who has a token, before anything else of the request is looked at.
pub async fn require_token(
    State(tokens): State<Option<Arc<Tokens>>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(tokens) = &tokens
        && !OPEN_ROUTES.contains(&request.uri().path())
        && let Err(problem) = check(tokens, request.headers())
    {
        return problem.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const FIRST: &str = "first-token-0123456789";
    const SECOND: &str = "second-token-012345678";

    fn tokens() -> Tokens {
        let text = format!("# two\n{FIRST}\n\n  {SECOND}  \n");
        Tokens::parse(&text, Path::new("tokens")).unwrap()
    }

    fn given(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn each_line_of_the_file_is_accepted_and_the_scheme_has_no_case() {
        for token in [FIRST, SECOND] {
            for scheme in ["Bearer", "bearer", "BEARER"] {
                let headers = given(&[&format!("{scheme} {token}")]);
                assert!(check(&tokens(), &headers).is_ok());
            }
        }
    }

    #[test]
    fn nothing_else_is_accepted() {
        let prefix = format!("Bearer {}", &FIRST[..FIRST.len() - 1]);
        let longer = format!("Bearer {FIRST}x");
        let basic = format!("Basic {FIRST}");
        let good = format!("Bearer {FIRST}");
        let cases: [&[&str]; 8] = [
            &[],
            &[""],
            &["Bearer "],
            &["Bearer # two"],
            &[&prefix],
            &[&longer],
            &[&basic],
            &[&good, &good],
        ];
        for case in cases {
            let problem = check(&tokens(), &given(case)).unwrap_err();
            assert_eq!(problem.slug(), Slug::Unauthorized, "{case:?}");
        }
    }

    #[test]
    fn a_file_without_a_token_or_with_a_bad_one_is_refused_without_showing_it() {
        let path = Path::new("tokens");
        let empty = Tokens::parse("# none\n\n", path).unwrap_err();
        assert!(empty.to_string().contains("holds no token"));
        for bad in ["short", "has a space in its midst", "ümlaut-ümlaut-ümlaut"] {
            let error = Tokens::parse(&format!("{FIRST}\n{bad}\n"), path).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("line 2") && !text.contains(bad), "{text}");
        }
    }

    #[test]
    fn tokens_do_not_print() {
        assert_eq!(format!("{:?}", tokens()), "2 tokens");
    }
}
