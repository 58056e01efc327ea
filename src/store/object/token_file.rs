//! A file with the token of a pod, which a store's own service exchanges for credentials.
//!
//! Does: read the token, remove white space at its ends, refuse what no header can hold. Does not:
//! exchange it (`pod`). Invariant: each call reads the file again, since Kubernetes replaces it
//! every few minutes; an error names the option or variable and the file, if there is one, and
//! shows no character of the token.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::human::count;

/// Longest token that is read, in bytes. Those of Kubernetes have one or two KiB.
const MAX_TOKEN: usize = 64 << 10;

/// How every error begins.
const ERROR: &str = "the file with the pod's token, ";

/// Whether a text contains an error of such a file.
pub(super) fn is_token_file_error(text: &str) -> bool {
    text.contains(ERROR)
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("{ERROR}{file} {reason}")]
pub(super) struct TokenFileError {
    /// The file and what names it.
    file: String,
    #[source]
    reason: TokenFault,
}

/// What is wrong with a file with a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenFault {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("is no file but a folder or a device")]
    NotFile,
    #[error("is empty: write the token into it")]
    Empty,
    #[error("is longer than {MAX_TOKEN} bytes: write the token alone")]
    TooLong,
    #[error(
        "has a control character within its token, such as the end of a line: write the token alone"
    )]
    ControlCharacter,
    #[error(
        "has a character that is not ASCII: write the token alone, without a byte order mark and \
         not as UTF-16"
    )]
    NotAscii,
}

impl TokenFileError {
    /// Whether the file may still come: it is mounted by others.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.reason, TokenFault::Unreadable(_) | TokenFault::Empty)
    }

    /// What is wrong, without the name of the file.
    pub(super) fn reason(&self) -> &TokenFault {
        &self.reason
    }
}

/// What a file holds.
#[derive(PartialEq, Eq)]
pub(super) struct Token {
    /// The token, which a header can hold.
    pub text: String,
    /// Whether white space at its ends was removed.
    pub trimmed: bool,
}

/// The length alone: the token is a secret.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Token({}, trimmed: {})",
            count(self.text.len(), "byte"),
            self.trimmed
        )
    }
}

/// A file that is read whenever its token is needed.
#[derive(Debug)]
pub(super) struct TokenFile {
    name: String,
    path: PathBuf,
    /// Whether the notice about white space was logged.
    notice_logged: AtomicBool,
}

impl TokenFile {
    /// The file that an option or an environment variable names.
    pub(super) fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            notice_logged: AtomicBool::new(false),
        }
    }

    /// Reads the token; blocks on the file system.
    ///
    /// # Errors
    /// If the file cannot be read, or holds anything but a token.
    pub(super) fn read(&self) -> Result<Token, TokenFileError> {
        self.bytes()
            .and_then(|bytes| token(&bytes))
            .map_err(|reason| self.error(reason))
    }

    /// Where there is no such file, the given name may be the token itself.
    fn error(&self, reason: TokenFault) -> TokenFileError {
        let name = &self.name;
        let file = match self.path.exists() {
            true => format!("{} of {name}", self.path.display()),
            false => format!("named by {name},"),
        };
        TokenFileError { file, reason }
    }

    /// The same within a request: beside it, and with one line of the log about white space, as the
    /// file may be another one than when the daemon started.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(super) async fn current(self: &std::sync::Arc<Self>) -> Result<String, TokenFileError> {
        let file = std::sync::Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        // It neither panics nor is it cancelled while the daemon serves.
        let token = read.unwrap_or_else(|error| {
            Err(self.error(TokenFault::Unreadable(io::Error::other(error))))
        })?;
        if token.trimmed && !self.notice_logged.swap(true, Ordering::Relaxed) {
            tracing::info!(file = %self.path.display(), "{}", self.notice());
        }
        Ok(token.text)
    }

    /// The notice about a token with white space at its ends.
    pub(super) fn notice(&self) -> String {
        let name = &self.name;
        format!(
            "{name}: white space at the ends of the token in this file is left out, such as the \
             end of a line"
        )
    }

    fn bytes(&self) -> Result<Vec<u8>, TokenFault> {
        // Before it is opened: opening a pipe waits for who writes into it.
        let found = std::fs::metadata(&self.path).map_err(TokenFault::Unreadable)?;
        if !found.is_file() {
            return Err(TokenFault::NotFile);
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&self.path).map_err(TokenFault::Unreadable)?;
        let read = file.take(MAX_TOKEN as u64 + 1).read_to_end(&mut bytes);
        read.map_err(TokenFault::Unreadable)?;
        Ok(bytes)
    }
}

/// The token that a file of these bytes holds.
fn token(bytes: &[u8]) -> Result<Token, TokenFault> {
    if bytes.len() > MAX_TOKEN {
        return Err(TokenFault::TooLong);
    }
    let text = bytes.trim_ascii();
    match text {
        [] => Err(TokenFault::Empty),
        _ if !text.is_ascii() => Err(TokenFault::NotAscii),
        _ if text.iter().any(u8::is_ascii_control) => Err(TokenFault::ControlCharacter),
        _ => Ok(Token {
            text: String::from_utf8_lossy(text).into_owned(),
            trimmed: text.len() < bytes.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_loses_white_space_at_its_ends_and_nothing_else() {
        for (bytes, expected, is_trimmed) in [
            ("a.b-c_d=", "a.b-c_d=", false),
            ("a.b\n", "a.b", true),
            ("a.b\r\n", "a.b", true),
            ("\n\t a.b \n\n", "a.b", true),
            ("Bearer a.b", "Bearer a.b", false),
        ] {
            let found = token(bytes.as_bytes()).unwrap();
            assert_eq!((&*found.text, found.trimmed), (expected, is_trimmed));
        }
        assert!(token(&[b'x'; MAX_TOKEN]).is_ok());
    }

    #[test]
    fn what_no_header_can_hold_is_refused_without_showing_it() {
        let long = [b'x'; MAX_TOKEN + 1];
        let cases: [(&[u8], &str); 9] = [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"hush\nhush", "control character"),
            (b"hush\rhush", "control character"),
            (b"hush\0", "control character"),
            (b"hush\x7fhush", "control character"),
            (b"\xef\xbb\xbfhush", "byte order mark"),
            (b"h\xffush", "not ASCII"),
            (&long, "longer than 65536"),
        ];
        for (bytes, words) in cases {
            let error = token(bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_before_it_is_opened() {
        for path in ["/dev/zero", "/dev"] {
            let error = TokenFile::new("`x`", path).read().unwrap_err();
            assert!(matches!(error.reason, TokenFault::NotFile), "{error}");
            let file = format!("token, {path} of `x` is no file");
            assert!(error.to_string().contains(&file), "{error}");
            assert!(!error.is_missing());
        }
        let error = TokenFile::new("`x`", "hush").read().unwrap_err();
        assert!(error.is_missing());
        let text = error.to_string();
        let expected = "token, named by `x`, cannot be read: ";
        assert!(text.contains(expected) && !text.contains("hush"), "{text}");
    }
}
