//! What an operator can do about the failure of a store.
//!
//! Does: name the cause where the client's text hides it, and the way out. Does not: search texts
//! of the client for itself (`client_messages`), or know the services that give out credentials
//! (`issuer_advice`). Invariant: advice names options as they are written in the configuration, and
//! contains nothing that the server said.

use super::client_messages::{
    TlsFailure, asked_container_agent, is_wrong_region, lacks_credentials, lacks_entity_tag,
    refuses_checksum, tls_failure, wants_checksum,
};
use super::exchange::{Issuer, IssuerFault};
use super::issuer_advice::issuer_advice;
use super::remedy::Advice;
use super::token_file::is_token_file_error;

/// What to do about a request that is forbidden.
pub(super) const PERMISSION: &str =
    "the credentials need permission to get, put, list and delete objects below the URI";
/// The same about a put on a condition.
pub(super) const CONDITION_PERMISSION: &str = "the credentials need permission to put objects \
    below the URI, also on a condition (If-None-Match, If-Match); if the store has no conditional \
    writes, set conditional_writes = false";

/// Advice for a failure with this status, this error code and this text of the client, maybe of a
/// service that gives out credentials.
pub(super) fn advice(
    issuer: Option<(Issuer, IssuerFault)>,
    status: Option<u16>,
    code: Option<&str>,
    text: &str,
) -> Advice {
    if let Some(failure) = tls_failure(text) {
        return about_tls(failure);
    }
    if is_token_file_error(text) {
        return Advice::new(
            "the file with the pod's token cannot be used",
            "mount it with the token alone, or correct the path",
        );
    }
    if let Some((issuer, fault)) = issuer {
        return issuer_advice(issuer, fault, status, code);
    }
    if lacks_credentials(text) {
        return Advice::new("no credentials were found", credentials(text));
    }
    if lacks_entity_tag(text) {
        return Advice::new(
            "the store sends no entity tags (ETag), by which versions of an object are told apart",
            "if a proxy between here and the store removes them, let it pass them; else use \
             another store",
        );
    }
    Advice {
        cause: None,
        hint: hint(status, code, text),
    }
}

/// Advice for a token that the store does not accept, where a new one is requested.
pub(super) fn about_token() -> Advice {
    Advice::new(
        "the store did not accept the token",
        "a new one is requested; if that is not accepted either, check this machine's clock, and \
         that the identity belongs to the tenant or project of the store",
    )
}

fn about_tls(failure: TlsFailure) -> Advice {
    match failure {
        TlsFailure::UnknownIssuer => Advice::new(
            "the store's certificate was issued by a CA that is not trusted here",
            "set ca_file to the CA's certificate in PEM, or SSL_CERT_FILE in the environment",
        ),
        TlsFailure::OtherHost => Advice::new(
            "the store's certificate is for another host name",
            "write endpoint with a name that the certificate lists; for a bucket before the host, \
             try path_style = true",
        ),
        TlsFailure::OtherTime => Advice::new(
            "the store's certificate has expired or is not valid yet",
            "renew the certificate, or set this machine's clock",
        ),
        TlsFailure::Certificate => Advice::new(
            "the store's certificate is not accepted",
            "give the store a valid certificate",
        ),
        TlsFailure::PlainServer => Advice::new(
            "the server at the endpoint does not speak TLS",
            "write endpoint with the port for TLS, or with http:// and allow_http = true",
        ),
        TlsFailure::PlainClient => Advice::new(
            "the server at the endpoint speaks TLS",
            "write endpoint with https://",
        ),
    }
}

fn credentials(text: &str) -> &'static str {
    if text.contains("GCS") {
        "set service_account_path, or GOOGLE_SERVICE_ACCOUNT in the environment, or give the \
         instance a service account"
    } else if text.contains("MicrosoftAzure") {
        "set access_key, sas_token, or client_id with client_secret and tenant_id, or give the \
         instance a managed identity"
    } else if asked_container_agent(text) {
        "give the task a role (taskRoleArn): AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, by which the \
         container is to get its credentials, is set by ECS for a task that has one; or set \
         access_key_id and secret_access_key"
    } else {
        "set access_key_id and secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
         in the environment, or give the instance or pod a role; ~/.aws and SSO sessions are not \
         read: `aws configure export-credentials --format env` prints what they hold"
    }
}

fn hint(status: Option<u16>, code: Option<&str>, text: &str) -> Option<&'static str> {
    Some(match (status, code) {
        (_, Some("NoSuchBucket" | "ContainerNotFound")) => "create the bucket or correct the URI",
        (_, Some("SignatureDoesNotMatch")) => "check secret_access_key, region and endpoint",
        (_, Some("InvalidAccessKeyId" | "InvalidClientTokenId")) => {
            "the store does not know this key: check access_key_id, and that it belongs to the \
             store at this endpoint"
        }
        (_, Some("ExpiredToken" | "InvalidToken")) => {
            "the credentials are temporary and have expired: set new ones with their session_token"
        }
        (_, Some("PermanentRedirect" | "AuthorizationHeaderMalformed")) => {
            "set region to that of the bucket"
        }
        (_, Some("RequestTimeTooSkewed")) => "set this machine's clock: signatures carry the time",
        (Some(401 | 403), _) | (None, Some("AccessDenied")) => PERMISSION,
        _ if wants_checksum(text) => {
            "the bucket, such as one with object lock, wants a checksum with every upload: set \
             upload_checksum = \"crc64nvme\""
        }
        (Some(400 | 501), _) if refuses_checksum(text) => {
            "the store does not know the checksum that is sent with uploads: remove \
             upload_checksum, or set it to \"sha256\""
        }
        _ if is_wrong_region(text) => "set region to that of the bucket",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::client_messages::issuer_in;
    use super::*;

    /// The cause and the way out.
    fn advised(status: Option<u16>, code: Option<&str>, text: &str) -> String {
        let Advice { cause, hint } = advice(issuer_in(text, status), status, code, text);
        format!(
            "{}: {}",
            cause.unwrap_or_default(),
            hint.unwrap_or_default()
        )
    }

    /// Story: each of these texts of the client was all that an operator got, and none of them says
    /// what to do.
    #[test]
    fn texts_of_the_client_that_lead_astray_are_explained() {
        for (text, words) in [
            (
                "error sending request: client error (Connect): invalid peer certificate: \
                 UnknownIssuer",
                ["not trusted here", "ca_file", "SSL_CERT_FILE"],
            ),
            (
                "client error (Connect): received corrupt message of type InvalidContentType",
                ["does not speak TLS", "http://", "allow_http"],
            ),
            (
                "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token: \
                 error sending request",
                [
                    "no credentials were found",
                    "AWS_ACCESS_KEY_ID",
                    "~/.aws and SSO",
                ],
            ),
            (
                "Generic GCS error: Error performing token request: Error performing GET \
                 http://metadata.google.internal/computeMetadata/v1/x: error sending request",
                [
                    "no credentials were found",
                    "service_account_path",
                    "GOOGLE_SERVICE_ACCOUNT",
                ],
            ),
            (
                "Generic MicrosoftAzure error: Error performing token request: Error performing \
                 GET http://169.254.169.254/metadata/identity/oauth2/token: error sending request",
                [
                    "no credentials were found",
                    "access_key",
                    "managed identity",
                ],
            ),
            (
                "Generic GCS error: Error performing token request: Server returned non-2xx status \
                 code: 403 Forbidden: {}",
                ["Google's token service", "service account", "clock"],
            ),
            (
                "Unable to extract metadata from headers: ETag Header missing from response",
                ["no entity tags", "proxy", "another store"],
            ),
            (
                "Generic S3 error: the file with the pod's token, /var/run/x of `y` cannot be read",
                ["token cannot be used", "mount it", "the path"],
            ),
        ] {
            let advised = advised(Some(403).filter(|_| text.contains("403")), None, text);
            for word in words {
                assert!(advised.contains(word), "{word:?} is missing in: {advised}");
            }
        }
    }

    #[test]
    fn error_codes_are_explained() {
        for (code, word) in [
            ("InvalidAccessKeyId", "does not know this key"),
            ("AuthorizationHeaderMalformed", "region"),
            ("ExpiredToken", "session_token"),
            ("NoSuchBucket", "create the bucket"),
            ("SomethingElse", "permission to get, put, list and delete"),
        ] {
            let advised = advised(Some(403), Some(code), "");
            assert!(advised.contains(word), "{word:?} is missing in: {advised}");
        }
    }
}
