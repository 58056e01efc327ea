//! Text that may be a secret.
//!
//! Does: hold configured text that may turn out to be a secret. Does not: print it: there is no
//! `Display`, and `Debug` hides it. Invariant: the text is accessible only through
//! [`Secret::expose`], so that a search for this name finds every use.

use std::fmt;

/// Text that no message, log line or answer can show by accident. Costs no more than a `String`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for those that need it: never format it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Whether a setting of this name holds a secret. Unknown names are judged too, since a secret may
/// be given under a wrong name.
pub fn is_secret_name(key: &str) -> bool {
    const PARTS: [&str; 15] = [
        "secret",
        "token",
        "passw",
        "passphrase",
        "key",
        "sas",
        "credential",
        "connection_string",
        "auth",
        "signature",
        "private",
        "session",
        "bearer",
        "headers",
        // Without it the owner of a role lets nobody assume it.
        "external_id",
    ];
    let leaf = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    let is_harmless = leaf == "allow_remote_without_token"
        || leaf.ends_with("_file")
        || leaf.ends_with("_path")
        || leaf.ends_with("_key_id");
    !is_harmless && PARTS.iter().any(|part| leaf.contains(part))
}

/// Whether a setting names a file with tokens. Its value may be the token itself, by mistake, and
/// is shown only if there is such a file.
pub(super) fn names_token_file(key: &str) -> bool {
    key.ends_with("token_file")
}

/// A URI as it may be shown: without user part, query and fragment, each of which may hold a
/// secret. It may lack slashes: it is shown where it is refused.
pub fn shown_uri(text: &str) -> String {
    let is_scheme_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let colon = text.find(|c| !is_scheme_char(c)).filter(|at| *at > 0);
    let Some(rest) = colon.and_then(|at| text[at..].strip_prefix(':')) else {
        return text.to_owned();
    };
    let rest = rest
        .strip_prefix("//")
        .or(rest.strip_prefix('/'))
        .unwrap_or(rest);
    let start = &text[..text.len() - rest.len()];
    format!("{start}{}", shown_authority(rest))
}

/// What follows the slashes of a URI, likewise.
pub fn shown_authority(rest: &str) -> String {
    let (user, rest) = match user_part(rest) {
        Some(end) => ("***@", &rest[end..]),
        None => ("", rest),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{user}{}***", &rest[..=at]),
        None => format!("{user}{rest}"),
    }
}

/// The end of the user part of a URI, given what follows its slashes. The part may contain slashes
/// that should have been escaped, as secret keys of S3 do.
pub(super) fn user_part(rest: &str) -> Option<usize> {
    let authority = rest.split('/').next().unwrap_or_default();
    let end = match authority.rfind('@') {
        None if authority.contains(':') => rest.rfind('@'),
        found => found.and_then(|_| rest.rfind('@')),
    };
    end.map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_a_secret() {
        let secret = Secret::from("hush");
        assert_eq!(format!("{secret:?} {secret:#?}"), "(hidden) (hidden)");
        assert_eq!(secret.expose(), "hush");
    }

    #[test]
    fn what_looks_like_a_secret_by_name_is_one() {
        for name in [
            "secret_access_key",
            "account_key",
            "azure_storage_account_key",
            "aws_sse_customer_key_base64",
            "base_directory.0.sas_token",
            "server.password",
            "AWS_SESSION_TOKEN",
            "tracing.headers",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "server.token_file",
            "access_key_id",
            "region",
            "lease.duration",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn uris_are_shown_without_user_part_query_and_fragment() {
        for (given, shown) in [
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("http://user:hush@host:9000/x", "http://***@host:9000/x"),
            ("https://hush@host", "https://***@host"),
            ("s3://id:hu/sh@bucket/x", "s3://***@bucket/x"),
            ("az://c/p?sig=hush", "az://c/p?***"),
            ("s3://id:hu?sh@b", "s3://***@b"),
            ("az://c/p#hush", "az://c/p#***"),
            ("az:c?sv=1&sig=hush", "az:c?***"),
            ("s3:/bucket/x#hush", "s3:/bucket/x#***"),
            ("s3:id:hush@bucket/x", "s3:***@bucket/x"),
            ("s3:/id:hu/sh@bucket/x", "s3:/***@bucket/x"),
            ("file:///a@b/c", "file:///a@b/c"),
            ("arn:aws:kms:key", "arn:aws:kms:key"),
            ("./plain", "./plain"),
            (":", ":"),
            ("", ""),
        ] {
            assert_eq!(shown_uri(given), shown);
        }
    }
}
