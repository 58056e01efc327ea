//! Bearer tokens and their scopes.
//!
//! Does: parse a token file, and look up a token in time that does not depend on its bytes. Does
//! not: know routes. Invariant: a token is never logged or part of an error.

use std::fmt;
use std::path::PathBuf;

use subtle::ConstantTimeEq as _;

use super::scopes::Scopes;
use crate::config::read_text_file;
use crate::human::count;

/// Shortest token, in characters: shorter ones could be guessed.
const MIN_TOKEN: usize = 16;

/// A file with tokens, and the setting or flag that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    pub setting: &'static str,
    pub path: PathBuf,
}

impl fmt::Display for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.path.display())
    }
}

/// Why a token file cannot be used. No variant holds the text of a line: it may be a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("{file} cannot be read: {source}")]
    Unreadable {
        file: TokenFile,
        source: std::io::Error,
    },
    /// There is no such file: instead of its name, the token itself may have been given.
    #[error("the file that {setting} names cannot be read: {source}")]
    Missing {
        setting: &'static str,
        source: std::io::Error,
    },
    #[error("{file} holds no token: write one per line")]
    Empty { file: TokenFile },
    #[error(
        "line {line} of {file} is not a token: a token is at least {MIN_TOKEN} characters of A-Z \
         a-z 0-9 - . _ ~ + / ="
    )]
    Malformed {
        file: TokenFile,
        /// Counted from 1.
        line: usize,
    },
    #[error(
        "line {line} of {file} does not start with known scopes: write either the token alone, \
         which allows everything, or put its scopes before it, separated by commas (read, write, \
         coordinate, admin)"
    )]
    UnknownScope {
        file: TokenFile,
        /// Counted from 1.
        line: usize,
    },
}

impl TokenFile {
    /// Reads the file. Blocks on file I/O.
    ///
    /// # Errors
    /// If it is missing, or cannot be read as text.
    pub fn read(&self) -> Result<String, TokenFileError> {
        read_text_file(&self.path).map_err(|source| match self.path.exists() {
            true => TokenFileError::Unreadable {
                file: self.clone(),
                source,
            },
            false => TokenFileError::Missing {
                setting: self.setting,
                source,
            },
        })
    }
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
    /// all of them. Empty lines and lines that start with `#` are ignored. `file` is for errors.
    ///
    /// # Errors
    /// A line is not a token, or there is none.
    pub fn parse(text: &str, file: &TokenFile) -> Result<Self, TokenFileError> {
        let lines = text.lines().map(str::trim).zip(1..);
        let tokens: Vec<_> = lines
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, number)| parse_line(line, number, file))
            .collect::<Result<_, _>>()?;
        if tokens.is_empty() {
            return Err(TokenFileError::Empty { file: file.clone() });
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

fn parse_line(text: &str, line: usize, file: &TokenFile) -> Result<Token, TokenFileError> {
    let file = file.clone();
    let (scopes, token) = match text.split_once(char::is_whitespace) {
        None => (Scopes::ALL, text),
        Some((words, token)) => match Scopes::parse(words) {
            Some(scopes) => (scopes, token.trim_start()),
            None => return Err(TokenFileError::UnknownScope { file, line }),
        },
    };
    if token.len() < MIN_TOKEN || !token.bytes().all(is_token_byte) {
        return Err(TokenFileError::Malformed { file, line });
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
        let file = TokenFile {
            setting: "server.admin_token_file",
            path: "tokens".into(),
        };
        Tokens::parse(text, &file)
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
        let expected = "server.admin_token_file tokens holds no token";
        assert!(empty.to_string().starts_with(expected), "{empty}");
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
            let place = "line 2 of server.admin_token_file tokens";
            assert!(text.starts_with(place), "{text}");
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

    /// Story: a token that was given instead of the name of a file was part of the error.
    #[test]
    fn the_name_of_a_file_that_does_not_exist_is_not_shown() {
        let setting = "server.admin_token_file";
        let read = |path: &str| TokenFile {
            setting,
            path: path.into(),
        };
        let missing = read(FIRST).read().unwrap_err().to_string();
        let expected = "the file that server.admin_token_file names cannot be read: ";
        assert!(missing.starts_with(expected), "{missing}");
        assert!(!missing.contains(FIRST), "{missing}");
        let folder = read("/").read().unwrap_err().to_string();
        let expected = "server.admin_token_file / cannot be read: ";
        assert!(folder.starts_with(expected), "{folder}");
    }

    #[test]
    fn tokens_do_not_print() {
        let tokens = tokens(&format!("{FIRST}\n{SECOND}\n")).unwrap();
        assert_eq!(format!("{tokens:?}"), "2 tokens");
    }
}
