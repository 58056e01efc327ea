//! Secrets of one base directory that no configuration holds: services issue them, or a file holds
//! them and is replaced.
//!
//! Does: learn them from the credentials of AWS and from the headers and forms in which they are
//! sent, so that an answer that repeats its request can be cleaned (`redact`). Does not: replace
//! them in a text. Invariant: a secret is known before the request that carries it is sent; the
//! newest [`MAX_ISSUED`] are.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use parking_lot::Mutex;
use url::form_urlencoded;

use crate::store::options::spellings;

/// Most spellings of secrets that are kept: those of some renewals.
const MAX_ISSUED: usize = 48;

/// Headers whose value is a secret.
const HEADERS: [&str; 5] = [
    "authorization",
    "x-amz-security-token",
    "x-amz-s3session-token",
    "x-aws-ec2-metadata-token",
    "x-identity-header",
];

/// How an `Authorization` begins that is derived from a secret and from its request.
const SIGNATURES: [&str; 2] = ["AWS4-HMAC-SHA256 ", "SharedKey "];

/// The fields of forms that are exchanged for credentials.
const FIELDS: [&str; 5] = [
    "WebIdentityToken",
    "assertion",
    "client_assertion",
    "client_secret",
    "refresh_token",
];

/// Shared by what gets credentials and by the redactor of one base directory.
#[derive(Clone, Default)]
pub struct IssuedSecrets(Arc<Mutex<VecDeque<String>>>);

/// The number alone.
impl fmt::Debug for IssuedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedSecrets({})", self.0.lock().len())
    }
}

impl IssuedSecrets {
    /// Every spelling of the secrets that are known.
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    fn remember(&self, secret: &str) {
        // As `spellings` has it.
        let plain = secret.trim_end_matches('=');
        let mut known = self.0.lock();
        if known.iter().any(|known| known == plain) {
            return;
        }
        for spelling in spellings(secret) {
            known.push_front(spelling);
        }
        known.truncate(MAX_ISSUED);
    }

    /// Learns what a request shows of itself.
    pub(super) fn note(&self, request: &HttpRequest) {
        let headers = request.headers();
        for value in HEADERS.iter().filter_map(|name| headers.get(*name)) {
            let value = value.to_str().unwrap_or_default();
            if !SIGNATURES.iter().any(|start| value.starts_with(start)) {
                self.remember(value.strip_prefix("Bearer ").unwrap_or(value));
            }
        }
        let content_type = headers.get("content-type");
        if content_type.is_some_and(|v| v.as_bytes().ends_with(b"x-www-form-urlencoded")) {
            let form = request.body().as_bytes().cloned().unwrap_or_default();
            for (name, value) in form_urlencoded::parse(&form) {
                if FIELDS.contains(&&*name) {
                    self.remember(&value);
                }
            }
        }
    }
}

/// Credentials of AWS that are known as secrets before they are used: the secret key is never sent,
/// and the id of the key is not sent in a header of its own.
#[derive(Debug)]
pub(super) struct Remembered {
    pub inner: AwsCredentialProvider,
    pub issued: IssuedSecrets,
}

#[async_trait]
impl CredentialProvider for Remembered {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credential = self.inner.get_credential().await?;
        let parts = [&credential.key_id, &credential.secret_key];
        for secret in parts.into_iter().chain(credential.token.as_ref()) {
            self.issued.remember(secret);
        }
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::super::redact::Redactor;
    use super::*;

    fn known(headers: &[(&'static str, &str)], body: &str) -> Redactor {
        let mut request = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        for (name, value) in headers {
            let value = value.parse().unwrap();
            request.headers_mut().insert(*name, value);
        }
        let issued = IssuedSecrets::default();
        issued.note(&request);
        assert!(!format!("{issued:?}").contains("hush"));
        Redactor::new([]).with_issued(issued)
    }

    #[test]
    fn what_a_request_carries_is_a_secret_before_it_is_sent() {
        for name in HEADERS {
            let redactor = known(&[(name, "hush+1==")], "");
            assert_eq!(redactor.clean("a hush+1 b hush%2B1 c"), "a *** b *** c");
        }
        let redactor = known(&[("authorization", "Bearer hush")], "");
        assert_eq!(redactor.clean("Bearer of hush"), "Bearer of ***");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for name in FIELDS {
            let redactor = known(&form, &format!("Action=AsIs&{name}=hush%2B1"));
            assert_eq!(redactor.clean("AsIs hush+1 hush%2B1"), "AsIs *** ***");
        }
    }

    #[test]
    fn signatures_and_the_contents_of_objects_are_no_secrets() {
        for signature in ["AWS4-HMAC-SHA256 Credential=x", "SharedKey a:b"] {
            let redactor = known(&[("authorization", signature)], "assertion=hush");
            assert_eq!(redactor.clean(signature), signature);
            assert_eq!(redactor.clean("hush"), "hush");
        }
    }

    #[test]
    fn the_newest_secrets_are_kept_and_each_once() {
        let issued = IssuedSecrets::default();
        for number in (0..1000).flat_map(|n| [n, n]) {
            issued.remember(&format!("secret{number}"));
        }
        let all = issued.all();
        assert_eq!(all.len(), MAX_ISSUED);
        assert!(all.contains(&"secret999".to_owned()));
        assert!(!all.contains(&"secret0".to_owned()));
    }
}
