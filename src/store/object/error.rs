//! Translates errors of `object_store`.
//!
//! Does: decide the kind of a failure from its variant, its transport error or its HTTP status, and
//! make one readable line of it. Does not: decide what is retried. Invariant: everything that an
//! error holds has passed the redactor; the client's own errors may hold secrets and are never
//! kept.

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::advice::{about_token, advice};
use super::answers::retry_after;
use super::causes::{cause, is_unconnected};
use super::client_messages::{
    code, full_text, http_status, is_odd_delete_answer, is_odd_range, is_short_range,
    is_stored_without_tag, is_whole_object, is_wrong_region, issuer_in, lacks_credentials,
    lacks_entity_tag, refused_delete, server_message, unescaped,
};
use super::exchange::{IssuerFault, issuer_failure};
use super::redact::Redactor;
use super::remedy::Advice;
use crate::store::{StoreError, StoreErrorKind};

/// What the client reported, without secrets.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    /// An error response of an S3-like server, without its echo of the request, which names key
    /// ids.
    #[error("{who} answered {status} {code}: {message}")]
    Response {
        who: &'static str,
        status: u16,
        code: String,
        message: String,
    },
    /// The answer of S3 to one key of a bulk delete.
    #[error("the store did not delete an object, {code}: {message}")]
    Delete { code: String, message: String },
    #[error("{0}")]
    Other(String),
}

/// What an error of `object_store` means here. With `renews_tokens`, requests carry tokens of which
/// there may be a new one.
pub(super) fn translate(error: &Error, redactor: &Redactor, renews_tokens: bool) -> StoreError {
    let text = full_text(error);
    let delete = refused_delete(&text);
    let (status, code) = (http_status(&text), delete.map(|d| d.0).or(code(&text)));
    let issuer = issuer_failure(error).or_else(|| issuer_in(&text, status));
    let of_store = issuer.is_none() && !lacks_credentials(&text);
    let refuses_token = renews_tokens && of_store && status == Some(401);
    let expired = refuses_token || is_expired(code);
    let kind = match issuer {
        // Whoever gives credentials out may have new ones in a moment.
        _ if expired => StoreErrorKind::Unavailable,
        Some((_, IssuerFault::Failed)) => StoreErrorKind::Unavailable,
        _ => kind_of(error, status, code, &text),
    };
    let Advice { cause: named, hint } = match refuses_token {
        true => about_token(),
        false => advice(issuer, status, code, &text),
    };
    let cause = match (delete, status, code) {
        (Some((code, message)), ..) => ClientError::Delete {
            code: redactor.clean(code),
            message: redactor.clean(&unescaped(message)),
        },
        (None, Some(status), Some(code)) => ClientError::Response {
            who: issuer.map_or("the store", |_| "it"),
            status,
            code: redactor.clean(code),
            message: redactor.clean(&unescaped(server_message(&text).unwrap_or_default())),
        },
        _ => ClientError::Other(redactor.clean(&text)),
    };
    StoreError {
        hint,
        timed_out: transport_kind(error) == Some(HttpErrorKind::Timeout),
        settled: is_settled(error, status),
        credentials_expired: expired,
        retry_after: retry_after(error),
        ..StoreError::new(kind, named.unwrap_or(summary(kind).into())).caused_by(cause)
    }
}

fn summary(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::NotFound => "not found",
        StoreErrorKind::Unavailable => "the store is unavailable",
        StoreErrorKind::Refused => "the store refused the request",
        StoreErrorKind::Corrupt => "the object does not have the requested bytes",
    }
}

/// Whether an error code says that temporary credentials have run out.
fn is_expired(code: Option<&str>) -> bool {
    matches!(
        code,
        Some("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")
    )
}

fn kind_of(error: &Error, status: Option<u16>, code: Option<&str>, text: &str) -> StoreErrorKind {
    use StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
    // Without its bucket (or container) nothing is known about an object.
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
        _ if refused_delete(text).is_some() => match code {
            // S3 says that such a key is deleted; versitygw, at times, that it was not there.
            Some("NoSuchKey" | "NoSuchVersion") => NotFound,
            Some("InternalError" | "SlowDown" | "ServiceUnavailable" | "OperationAborted") => {
                Unavailable
            }
            _ => Refused,
        },
        _ => match status {
            Some(416) => Corrupt,
            // Of a service that gives out credentials, it says nothing about an object.
            Some(404) if lacks_credentials(text) || issuer_in(text, status).is_some() => Refused,
            Some(404) => NotFound,
            Some(408 | 409 | 425 | 429) => Unavailable,
            Some(400) if code == Some("RequestTimeout") => Unavailable,
            Some(300..=499 | 501) => Refused,
            Some(_) => Unavailable,
            None if is_short_range(text) || is_odd_range(text) => Corrupt,
            None if is_wrong_region(text) || is_whole_object(text) => Refused,
            None if lacks_entity_tag(text) => Refused,
            None => Unavailable,
        },
    }
}

/// Whether the answer to a bulk delete says this of one object.
pub(super) fn is_of_one_key(error: &Error) -> bool {
    refused_delete(&full_text(error)).is_some()
}

/// Whether a server that refuses like this may have no conditional writes. Only one that refuses
/// with 501 says so.
pub(super) fn may_lack_conditions(error: &Error) -> bool {
    if let Error::NotImplemented { .. } | Error::NotSupported { .. } = error {
        return true;
    }
    let text = full_text(error);
    // These say that something else is wrong.
    let is_other = matches!(
        code(&text),
        Some("RequestTimeout" | "ExpiredToken" | "AuthorizationHeaderMalformed" | "NoSuchBucket")
    );
    !is_other && matches!(http_status(&text), Some(400 | 405 | 501))
}

/// Whether a server that answers a bulk delete like this may know only deletes of one object.
pub(super) fn refuses_bulk_delete(error: &Error) -> bool {
    let text = full_text(error);
    let refuses = matches!(http_status(&text), Some(400 | 403 | 404 | 405 | 411 | 501));
    (refuses && code(&text) != Some("NoSuchBucket")) || is_odd_delete_answer(&text)
}

/// Whether a put that the client reports as failed was answered with success.
pub(super) fn is_stored(error: &Error) -> bool {
    is_stored_without_tag(&full_text(error))
}

/// Whether what failed will not be applied any more: nothing could be sent, or the server has
/// rejected it. One that answers 500, and a gateway that answers 502 or 504, do not know.
fn is_settled(error: &Error, status: Option<u16>) -> bool {
    match status {
        Some(status) => matches!(status, 400..=499 | 501 | 503),
        None => is_unconnected(error),
    }
}

fn is_transport(error: &Error) -> bool {
    transport_kind(error).is_some_and(|kind| kind != HttpErrorKind::Decode)
}

fn transport_kind(error: &Error) -> Option<HttpErrorKind> {
    cause::<HttpError>(error).map(HttpError::kind)
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

    fn translated(error: &Error) -> StoreError {
        translate(error, &Redactor::default(), false)
    }

    /// A response of status 403 with this error code.
    fn denied(code: &str) -> Error {
        let body = format!(
            "<Error><Code>{code}</Code><Message>No.</Message>\
             <AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId></Error>"
        );
        Error::PermissionDenied {
            path: "v1/x".into(),
            source: format!("Server returned non-2xx status code: 403 Forbidden: {body}").into(),
        }
    }

    /// Story: the client reports such an answer as it reports a missing object, so the role that an
    /// instance did not have was taken for an exchange that was not announced.
    #[test]
    fn a_service_that_gives_out_credentials_and_answers_404_says_nothing_about_an_object() {
        let not_found = "Server returned non-2xx status code: 404 Not Found: No.";
        for asked in [
            "Error performing GET http://169.254.169.254/latest/meta-data/iam/: ",
            "Error performing token request: Error performing POST https://login.example/x: ",
        ] {
            let error = translated(&generic(&format!("{asked}{not_found}")));
            assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
        }
        let of_the_store = format!("Error performing GET https://s3.example/b/k: {not_found}");
        let error = translated(&generic(&of_the_store));
        assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    }

    #[test]
    fn throttling_and_server_errors_may_be_retried() {
        for status in [
            "500 Internal Server Error",
            "503 Slow Down",
            "429 Too Many Requests",
        ] {
            let error = generic(&format!("Server returned non-2xx status code: {status}: "));
            assert_eq!(
                translated(&error).kind,
                StoreErrorKind::Unavailable,
                "{status}"
            );
        }
    }

    #[test]
    fn a_write_may_follow_unless_the_server_says_that_it_has_rejected_it() {
        for (status, settled) in [
            ("503 Slow Down", true),
            ("429 Too Many Requests", true),
            ("409 Conflict", true),
            ("500 Internal Server Error", false),
            ("502 Bad Gateway", false),
            ("504 Gateway Timeout", false),
        ] {
            let error = generic(&format!("Server returned non-2xx status code: {status}: "));
            assert_eq!(translated(&error).settled, settled, "{status}");
        }
        assert!(!translated(&generic("connection reset")).settled);
    }

    /// Story: a token that was revoked, or had expired while its machine was suspended, was shown
    /// for the rest of its life as it was announced.
    #[test]
    fn a_token_that_the_store_does_not_accept_has_expired_if_there_may_be_a_new_one() {
        let refused = |asked: &str| Error::Unauthenticated {
            path: "v1/x".into(),
            source: format!("{asked}Server returned non-2xx status code: 401 Unauthorized: No.")
                .into(),
        };
        let translated = |asked: &str, renews| {
            let failure = translate(&refused(asked), &Redactor::default(), renews);
            (failure.kind, failure.credentials_expired)
        };
        assert_eq!(translated("", true), (StoreErrorKind::Unavailable, true));
        assert_eq!(translated("", false), (StoreErrorKind::Refused, false));
        // What gives out tokens does not accept what is shown to it.
        for asked in [
            "Error performing token request: Error performing POST https://login.example/x: ",
            "Error performing token request: Error performing GET http://169.254.169.254/x: ",
        ] {
            assert_eq!(translated(asked, true), (StoreErrorKind::Refused, false));
        }
    }

    #[test]
    fn refusals_are_not_retried_and_say_what_to_do() {
        let refusal = translated(&denied("SignatureDoesNotMatch"));
        assert_eq!(refusal.kind, StoreErrorKind::Refused);
        let text = refusal.to_string();
        assert!(text.contains("secret_access_key"), "{text}");
        assert!(
            !format!("{text} {refusal:?}").contains("AKIAEXAMPLE"),
            "{text}"
        );
    }

    /// Story: a daemon whose wall clock was three hours off advised to check the permissions of its
    /// credentials.
    #[test]
    fn a_wrong_clock_is_named_as_such() {
        let text = translated(&denied("RequestTimeTooSkewed")).to_string();
        assert!(
            text.contains("clock") && !text.contains("permission"),
            "{text}"
        );
    }

    #[test]
    fn missing_credentials_are_distinguished_from_wrong_ones() {
        let text = "Error performing GET http://169.254.169.254/latest/api/token - Server returned \
                    non-2xx status code: 403 Forbidden: denied";
        let text = translated(&generic(text)).to_string();
        assert!(text.contains("no credentials were found"), "{text}");
        assert!(!text.contains("need permission"), "{text}");
    }

    /// Story: a server said which region it expected, and the message showed `&#39;eu&#39;`.
    #[test]
    fn what_the_server_says_is_shown_without_escapes() {
        let text = "Server returned non-2xx status code: 400 Bad Request: <Error>\
                    <Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong; \
                    expecting &#39;eu-central-1&apos;</Message></Error>";
        let text = translated(&generic(text)).to_string();
        assert!(text.contains("expecting 'eu-central-1'"), "{text}");
        assert!(text.contains("set region to that of the bucket"), "{text}");
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let body = "<Error><Code>NoSuchBucket</Code><Message>No bucket.</Message></Error>";
        let error = Error::NotFound {
            path: "v1/x".into(),
            source: format!("Server returned non-2xx status code: 404 Not Found: {body}").into(),
        };
        assert_eq!(translated(&error).kind, StoreErrorKind::Refused);
    }

    /// Story: without the permission to delete, S3 answers 200 to a bulk delete and refuses each
    /// key in the body. That counted as a failure of the server and was repeated for a minute.
    #[test]
    fn a_key_that_a_bulk_delete_refuses_is_not_retried() {
        let refused = |code: &str| {
            let text = format!("DeleteObjects request failed for key v1/a: No. (code: {code})");
            translated(&generic(&text))
        };
        let denied = refused("AccessDenied");
        assert_eq!(denied.kind, StoreErrorKind::Refused);
        let text = denied.to_string();
        assert!(
            text.contains("AccessDenied: No.") && text.contains("permission"),
            "{text}"
        );
        assert_eq!(refused("InternalError").kind, StoreErrorKind::Unavailable);
        assert_eq!(refused("NoSuchKey").kind, StoreErrorKind::NotFound);
    }

    #[test]
    fn a_store_without_entity_tags_is_refused_with_a_way_out() {
        let error = translated(&generic("ETag required for conditional put"));
        assert_eq!(error.kind, StoreErrorKind::Refused);
        assert!(error.to_string().contains("another store"), "{error}");
    }

    /// Story: any message with the word "Requested" was taken for damage, and the task failed.
    #[test]
    fn only_a_wrong_range_is_damage() {
        let kind = |text: &str| translated(&generic(text)).kind;
        assert_eq!(kind("Requested 2..3, got 2..4"), StoreErrorKind::Corrupt);
        let unrelated = "Requested rate is too high, got throttled, wait 2..4 s";
        assert_eq!(kind(unrelated), StoreErrorKind::Unavailable);
        assert_eq!(
            kind("Requested resource is busy"),
            StoreErrorKind::Unavailable
        );
    }

    #[test]
    fn an_unknown_kind_of_request_is_distinguished_from_a_failure() {
        let response = |status: &str| generic(&format!("non-2xx status code: {status}: "));
        for lacks in [may_lack_conditions, refuses_bulk_delete] {
            assert!(lacks(&response("501 Not Implemented")));
            assert!(!lacks(&response("500 Internal Server Error")));
            assert!(!lacks(&generic("a connection was lost")));
        }
    }

    #[test]
    fn errors_hold_no_secret() {
        let redactor = Redactor::new(["s3cr3t-key".to_owned()]);
        let error = translate(&generic("signed with s3cr3t-key"), &redactor, false);
        assert!(error.to_string().contains("signed with ***"), "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    }
}
