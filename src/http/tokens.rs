//! Bearer tokens and their scopes.
//!
//! Does: parse a token file, and look up a token in time that does not depend on its bytes. Does
//! not: know routes. Invariant: a token is never logged or part of an error.

use std::fmt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;

use super::scopes::Scopes;
use crate::human::count;

/// Shortest token, in characters: shorter ones could be guessed.
const MIN_TOKEN: usize = 16;

/// Why a token file cannot be used. No variant holds the text of a line: it may be a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("server.token_file {} cannot be read: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("server.token_file {} holds no token: write one per line", path.display())]
    Empty { path: PathBuf },
    #[error(
        "line {line} of server.token_file {} is not a token: a token is at least {MIN_TOKEN} \
         characters of A-Z a-z 0-9 - . _ ~ + / =",
        path.display()
    )]
    Malformed {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    #[error(
        "line {line} of server.token_file {} does not start with known scopes: write either the \
         token alone, which allows everything, or put its scopes before it, separated by commas \
         (read, write, coordinate, admin)",
        path.display()
    )]
    UnknownScope {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// The accepted tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

#[derive(Clone, PartialEq, Eq)]
struct Token {
    text: Box<[u8]>,
    grant: Grant,
}

/// An accepted token's scopes and line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    pub scopes: Scopes,
    /// Its line in the token file, counted from 1: a label that does not reveal it.
    pub line: usize,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", count(self.0.len(), "token"))
    }
}

impl Tokens {
    /// Parses the text of a token file: one token per line, preceded by its scopes unless it has
    /// all of them. Empty lines and lines that start with `#` are ignored. `path` is for errors.
    ///
    /// # Errors
    /// A line is not a token, or there is none.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TokenFileError> {
        let lines = text.lines().map(str::trim).zip(1..);
        let tokens: Vec<_> = lines
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, number)| parse_line(line, number, path))
            .collect::<Result<_, _>>()?;
        if tokens.is_empty() {
            return Err(TokenFileError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self(tokens))
    }

    /// The number of tokens.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The text of the first token with this scope, or else of the first: for a command that sends
    /// it to the daemon that uses this file.
    pub fn text_with(&self, scope: Scopes) -> &str {
        let fitting = self
            .0
            .iter()
            .find(|token| token.grant.scopes.intersects(scope));
        let token = fitting.or(self.0.first());
        token.map_or("", |token| {
            std::str::from_utf8(&token.text).expect("a token is ASCII")
        })
    }

    /// The grant of the token `given`; `None` if it is unknown. Compares with every token, also
    /// after a match. Only the lengths of the tokens affect the duration.
    pub fn find(&self, given: &[u8]) -> Option<Grant> {
        self.0.iter().fold(None, |found: Option<Grant>, token| {
            match bool::from(token.text.ct_eq(given)) {
                true => Some(Grant {
                    scopes: found
                        .map_or(Scopes::NONE, |found| found.scopes)
                        .or(token.grant.scopes),
                    line: token.grant.line,
                }),
                false => found,
            }
        })
    }
}

fn parse_line(text: &str, line: usize, path: &Path) -> Result<Token, TokenFileError> {
    let path = path.to_owned();
    let (scopes, token) = match text.split_once(char::is_whitespace) {
        None => (Scopes::ALL, text),
        Some((words, token)) => match Scopes::parse(words) {
            Some(scopes) => (scopes, token.trim_start()),
            None => return Err(TokenFileError::UnknownScope { path, line }),
        },
    };
    if token.len() < MIN_TOKEN || !token.bytes().all(is_token_byte) {
        return Err(TokenFileError::Malformed { path, line });
    }
    Ok(Token {
        text: token.as_bytes().into(),
        grant: Grant { scopes, line },
    })
}

/// The characters of a bearer token (RFC 6750).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "first-token-0123456789";
    const SECOND: &str = "second-token-012345678";
    const THIRD: &str = "third-token-0123456789";

    fn tokens(text: &str) -> Result<Tokens, TokenFileError> {
        Tokens::parse(text, Path::new("tokens"))
    }

    fn scopes(tokens: &Tokens, token: &str) -> Option<Scopes> {
        tokens.find(token.as_bytes()).map(|grant| grant.scopes)
    }

    #[test]
    fn a_token_is_known_by_its_line() {
        let tokens = tokens(&format!("# two\n{FIRST}\n\nread {SECOND}\n")).unwrap();
        let line = |token: &str| tokens.find(token.as_bytes()).map(|grant| grant.line);
        assert_eq!(
            (line(FIRST), line(SECOND), line(THIRD)),
            (Some(2), Some(4), None)
        );
    }

    #[test]
    fn each_line_is_a_token_alone_or_after_its_scopes() {
        let text = format!("# three\n{FIRST}\n\n  read {SECOND}  \nwrite,admin\t{THIRD}\n");
        let tokens = tokens(&text).unwrap();
        assert_eq!(scopes(&tokens, FIRST), Some(Scopes::ALL));
        assert_eq!(scopes(&tokens, SECOND), Some(Scopes::READ));
        let both = Scopes::WRITE.or(Scopes::ADMIN);
        assert_eq!(scopes(&tokens, THIRD), Some(both));
        for other in ["", "read", &FIRST[1..], &format!("{FIRST}x"), "# three"] {
            assert_eq!(scopes(&tokens, other), None, "{other:?}");
        }
    }

    #[test]
    fn a_command_sends_the_first_token_that_has_the_scope() {
        let tokens = tokens(&format!("read {FIRST}\nadmin {SECOND}\n{THIRD}\n")).unwrap();
        assert_eq!(tokens.text_with(Scopes::ADMIN), SECOND);
        assert_eq!(tokens.text_with(Scopes::WRITE), THIRD);
    }

    #[test]
    fn a_token_on_two_lines_has_the_scopes_of_both() {
        let tokens = tokens(&format!("read {FIRST}\nadmin {FIRST}\n")).unwrap();
        let both = Scopes::READ.or(Scopes::ADMIN);
        assert_eq!(scopes(&tokens, FIRST), Some(both));
    }

    #[test]
    fn a_file_without_a_token_or_with_a_bad_one_is_refused_without_showing_it() {
        let empty = tokens("# none\n\n").unwrap_err();
        assert!(empty.to_string().contains("holds no token"));
        for bad in [
            "short",
            "secretword and-then-another-one",
            "read short",
            "ümlaut-ümlaut-ümlaut",
            "first-token-0123456789 trailing",
            "root first-token-0123456789",
            "read write third-token-0123456789",
        ] {
            let error = tokens(&format!("{FIRST}\n{bad}\n")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("line 2"), "{text}");
            for word in bad
                .split_whitespace()
                .filter(|w| !["read", "write"].contains(w))
            {
                assert!(!text.contains(word), "{text}");
            }
        }
    }

    #[test]
    fn an_unknown_scope_is_reported_as_such_and_not_as_a_malformed_token() {
        let scope = tokens(&format!("reed {FIRST}")).unwrap_err();
        assert!(matches!(
            scope,
            TokenFileError::UnknownScope { line: 1, .. }
        ));
        assert!(scope.to_string().contains("read, write, coordinate, admin"));
        let token = tokens("read token with spaces").unwrap_err();
        assert!(matches!(token, TokenFileError::Malformed { line: 1, .. }));
    }

    #[test]
    fn tokens_do_not_print() {
        let tokens = tokens(&format!("{FIRST}\n{SECOND}\n")).unwrap();
        assert_eq!(format!("{tokens:?}"), "2 tokens");
    }
}
