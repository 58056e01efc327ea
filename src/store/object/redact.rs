//! Removes secrets from messages.
//!
//! Does: replace known secrets, remove user part and query of every URL, join lines, bound the
//! length. Does not: find other secrets that it was not given. Invariant: its result has one line
//! of at most [`MAX_MESSAGE`] characters and an ellipsis.

use std::fmt;

use super::issued::IssuedSecrets;
use crate::config::shown_authority;

/// Longest message, in characters: servers may answer with whole pages.
const MAX_MESSAGE: usize = 600;

/// Knows the secrets of one base directory.
#[derive(Clone, Default)]
pub struct Redactor {
    configured: Vec<String>,
    issued: IssuedSecrets,
}

/// Shorter secrets, in bytes, are not replaced: that would garble every message.
const MIN_SECRET: usize = 4;

impl Redactor {
    /// Knows these secrets.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        Self {
            configured: secrets.into_iter().collect(),
            issued: IssuedSecrets::default(),
        }
    }

    /// Knows those too that are issued from now on.
    pub fn with_issued(self, issued: IssuedSecrets) -> Self {
        Self { issued, ..self }
    }

    /// The message without secrets, on one line, bounded.
    pub fn clean(&self, message: &str) -> String {
        let issued = self.issued.all();
        let secrets = self.configured.iter().chain(&issued);
        let mut secrets: Vec<&String> = secrets.filter(|s| s.len() >= MIN_SECRET).collect();
        // Longest first: a secret that contains another one must be replaced as a whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = message.to_owned();
        for secret in secrets {
            text = text.replace(secret.as_str(), "***");
        }
        text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        text = without_url_secrets(&text);
        if text.chars().count() > MAX_MESSAGE {
            text = text.chars().take(MAX_MESSAGE).collect::<String>() + "…";
        }
        text
    }
}

/// The text with every URL in it without user part, query and fragment: signatures and tokens are
/// sent in them.
fn without_url_secrets(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + "://".len());
        let end = url.find([' ', '"', '\'', '`', ')', '<', '>']);
        let (url, after) = url.split_at(end.unwrap_or(url.len()));
        shown.push_str(before);
        shown.push_str(&shown_authority(url));
        rest = after;
    }
    shown + rest
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configured = self.configured.len();
        write!(f, "Redactor({configured} secrets, {:?})", self.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_from_messages() {
        let redactor = Redactor::new(["s3cr3t-key".to_owned(), "ab".to_owned()]);
        let clean = redactor.clean("signed with s3cr3t-key about");
        assert_eq!(clean, "signed with *** about");
        assert!(!format!("{redactor:?}").contains("s3cr3t"));
    }

    #[test]
    fn urls_lose_what_may_be_a_secret() {
        let clean = |text: &str| Redactor::default().clean(text);
        assert_eq!(
            clean("GET https://me:hush@h:1/b?sig=hush: refused, (http://h/x) ok"),
            "GET https://***@h:1/b?*** refused, (http://h/x) ok"
        );
        assert_eq!(clean("no URL at all: a@b?c"), "no URL at all: a@b?c");
    }

    #[test]
    fn long_messages_are_cut() {
        let message = Redactor::default().clean(&"word ".repeat(10_000));
        assert!(message.chars().count() <= MAX_MESSAGE + 1);
    }
}
