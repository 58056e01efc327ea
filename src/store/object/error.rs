//! Errors of `object_store`, told truly and without secrets.
//!
//! Does: decide the kind of a failure from its variant, its transport error or its HTTP status, and
//! make one readable line of it. Does not: decide what is tried again. Invariant: every message has
//! passed the redactor and is bounded.

use std::error::Error as _;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::store::StoreError;
use crate::store::StoreErrorKind;

/// Longest message, in characters: servers may answer whole pages.
const MAX_MESSAGE: usize = 600;

/// Takes known secrets out of messages.
#[derive(Clone, Default)]
pub struct Redactor(Vec<String>);

impl Redactor {
    /// Knows these secrets; very short ones are left out, as they would garble every message.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets.into_iter().filter(|s| s.len() >= 4).collect();
        // Longest first, so that a secret which holds another one goes as a whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The message without them, on one line, bounded.
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

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
    }
}

/// What an error of `object_store` means here.
pub fn translate(error: &Error, redactor: &Redactor) -> StoreError {
    let text = full_text(error);
    let status = http_status(&text);
    let code = xml_element(&text, "Code");
    let kind = kind_of(error, status, code, &text);
    let mut message = match (status, code) {
        // The answer of an S3-like server, without its echo of the request (which names key ids).
        (Some(status), Some(code)) => {
            let words = xml_element(&text, "Message").unwrap_or_default();
            format!("the store answered {status} {code}: {words}")
        }
        _ => text.clone(),
    };
    message = redactor.clean(&message);
    if let Some(way_out) = way_out(status, code, &text) {
        message = format!("{message} ({way_out})");
    }
    StoreError::new(kind, message)
}

fn kind_of(error: &Error, status: Option<u16>, code: Option<&str>, text: &str) -> StoreErrorKind {
    use StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
    // Without its bucket (or container) nothing can be said about an object.
    if matches!(code, Some("NoSuchBucket" | "ContainerNotFound")) {
        return Refused;
    }
    match error {
        Error::NotFound { .. } => NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Refused,
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => Refused,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            Unavailable
        }
        _ if is_transport(error) => Unavailable,
        _ => match status {
            Some(416) => Corrupt,
            Some(404) => NotFound,
            Some(408 | 409 | 425 | 429) => Unavailable,
            Some(400) if code == Some("RequestTimeout") => Unavailable,
            Some(300..=499) => Refused,
            Some(_) => Unavailable,
            None if is_short_range(text) => Corrupt,
            None if text.contains("redirect without LOCATION") => Refused,
            // The server does not know ranges, or the object is empty.
            None if text.contains("non-partial response") => Refused,
            None => Unavailable,
        },
    }
}

/// Whether the client or the server does not know the kind of request.
pub fn is_not_implemented(error: &Error) -> bool {
    match error {
        Error::NotImplemented { .. } | Error::NotSupported { .. } => true,
        other => http_status(&full_text(other)) == Some(501),
    }
}

/// A range that the object does not have; the client has no type for it, only words.
fn is_short_range(text: &str) -> bool {
    [
        "Wanted range starting at",
        "Requested ",
        "Range started at",
        "larger than object",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn is_transport(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(http) = cause.downcast_ref::<HttpError>() {
            return !matches!(http.kind(), HttpErrorKind::Decode);
        }
        source = cause.source();
    }
    false
}

/// The error and its causes, each said once: some displays repeat their source, some hide it.
fn full_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

/// The client keeps the status in a private type; its words are checked by tests against a server.
fn http_status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn xml_element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim())
}

fn way_out(status: Option<u16>, code: Option<&str>, text: &str) -> Option<&'static str> {
    if text.contains("169.254.169.254") {
        return Some(
            "no credentials were found: configure them, set them in the environment, or give the \
             instance a role",
        );
    }
    match (status, code) {
        (_, Some("NoSuchBucket" | "ContainerNotFound")) => {
            Some("create the bucket or correct the URI")
        }
        (_, Some("SignatureDoesNotMatch")) => Some("check secret_access_key, region and endpoint"),
        (_, Some("InvalidAccessKeyId")) => Some("check access_key_id"),
        (_, Some("PermanentRedirect" | "AuthorizationHeaderMalformed")) => {
            Some("set region to that of the bucket")
        }
        (_, Some("RequestTimeTooSkewed")) => {
            Some("set this machine's clock: signatures carry the time")
        }
        (Some(401 | 403), _) => {
            Some("the credentials need the right to get, put, list and delete below the URI")
        }
        _ if text.contains("redirect without LOCATION") => Some("set region to that of the bucket"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn kind(error: &Error) -> StoreErrorKind {
        translate(error, &Redactor::default()).kind
    }

    #[test]
    fn throttling_and_server_errors_may_be_retried() {
        for status in [
            "500 Internal Server Error",
            "503 Slow Down",
            "429 Too Many Requests",
        ] {
            let error = generic(&format!("Server returned non-2xx status code: {status}: "));
            assert_eq!(kind(&error), StoreErrorKind::Unavailable, "{status}");
        }
    }

    #[test]
    fn refusals_are_not_retried_and_name_the_way_out() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message>\
                    <AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId></Error>";
        let source = format!("Server returned non-2xx status code: 403 Forbidden: {body}").into();
        let error = Error::PermissionDenied {
            path: "v1/x".into(),
            source,
        };
        let translated = translate(&error, &Redactor::default());
        assert_eq!(translated.kind, StoreErrorKind::Refused);
        assert!(
            translated.message.contains("secret_access_key"),
            "{translated}"
        );
        assert!(!translated.message.contains("AKIAEXAMPLE"), "{translated}");
    }

    /// A daemon whose wall clock was three hours off was told to look after its credentials'
    /// rights.
    #[test]
    fn a_clock_that_is_wrong_is_named_as_such() {
        let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>Too large.</Message></Error>";
        let source = format!("Server returned non-2xx status code: 403 Forbidden: {body}").into();
        let error = Error::PermissionDenied {
            path: "v1/x".into(),
            source,
        };
        let said = translate(&error, &Redactor::default()).message;
        assert!(
            said.contains("clock") && !said.contains("right to"),
            "{said}"
        );
    }

    #[test]
    fn missing_credentials_are_told_from_wrong_ones() {
        let text = "Error performing GET http://169.254.169.254/latest/api/token - Server returned \
                    non-2xx status code: 403 Forbidden: denied";
        let translated = translate(&generic(text), &Redactor::default());
        assert!(
            translated.message.contains("no credentials were found"),
            "{translated}"
        );
        assert!(
            !translated.message.contains("need the right"),
            "{translated}"
        );
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let body = "<Error><Code>NoSuchBucket</Code><Message>No bucket.</Message></Error>";
        let source =
            format!("Server returned non-2xx status code: 404 Not ObjectMeta: {body}").into();
        let error = Error::NotFound {
            path: "v1/x".into(),
            source,
        };
        assert_eq!(kind(&error), StoreErrorKind::Refused);
    }

    #[test]
    fn a_server_that_does_not_know_a_header_is_told_from_one_that_fails() {
        let answer = |status: &str| generic(&format!("non-2xx status code: {status}: "));
        assert!(is_not_implemented(&answer("501 Not Implemented")));
        assert!(!is_not_implemented(&answer("500 Internal Server Error")));
        assert!(!is_not_implemented(&generic("a connection was lost")));
    }

    #[test]
    fn secrets_are_taken_out_of_messages() {
        let redactor = Redactor::new(["s3cr3t-key".to_owned(), "ab".to_owned()]);
        let message = translate(&generic("signed with s3cr3t-key about"), &redactor).message;
        assert!(message.contains("signed with *** about"), "{message}");
        assert!(!format!("{redactor:?}").contains("s3cr3t"));
    }

    #[test]
    fn long_answers_are_cut() {
        let message = Redactor::default().clean(&"word ".repeat(10_000));
        assert!(message.chars().count() <= MAX_MESSAGE + 1);
    }
}
