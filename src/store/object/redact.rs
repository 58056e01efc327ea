//! Removes secrets from messages.
//!
//! Does: replace known secrets, join lines, bound the length. Does not: find secrets that it was
//! not given. Invariant: its result has one line of at most [`MAX_MESSAGE`] characters and an
//! ellipsis.

use std::fmt;

/// Longest message, in characters: servers may answer with whole pages.
const MAX_MESSAGE: usize = 600;

/// Knows the secrets of one base directory.
#[derive(Clone, Default)]
pub struct Redactor(Vec<String>);

impl Redactor {
    /// Knows these secrets, except those shorter than 4 bytes: replacing them would garble every
    /// message.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets.into_iter().filter(|s| s.len() >= 4).collect();
        // Longest first: a secret that contains another one must be replaced as a whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The message without secrets, on one line, bounded.
    pub fn clean(&self, message: &str) -> String {
        let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "***");
        }
        if text.chars().count() > MAX_MESSAGE {
            text = text.chars().take(MAX_MESSAGE).collect::<String>() + "…";
        }
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
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
    fn long_messages_are_cut() {
        let message = Redactor::default().clean(&"word ".repeat(10_000));
        assert!(message.chars().count() <= MAX_MESSAGE + 1);
    }
}
