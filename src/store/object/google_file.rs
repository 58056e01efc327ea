//! Documents with credentials of Google: those that the client cannot use.
//!
//! Does: tell the type of a document, and what to use instead of one that the client does not know.
//! Does not: read what else is in it (the client does). Invariant: a fault contains nothing of the
//! document but a type that Google defines.

/// What a document is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The key of a service account.
    ServiceAccount,
    /// Application default credentials: also those of a user.
    ApplicationDefault,
}

/// Types that the client does not know, and what they are.
const UNSUPPORTED: [(&str, &str); 4] = [
    ("external_account", "workload identity federation"),
    (
        "external_account_authorized_user",
        "workforce identity federation",
    ),
    (
        "impersonated_service_account",
        "the impersonation of a service account",
    ),
    (
        "gdch_service_account",
        "an account of Google Distributed Cloud",
    ),
];

const INSTEAD: &str = "which is not supported: set service_account_path to a file with the key of \
    a service account; or, on GKE, use its workload identity, which needs no file; or reach the \
    bucket as s3:// with an HMAC key and endpoint = \"https://storage.googleapis.com\"";

/// Why a document cannot be used, to be read after the name of what it is in; `None` if the client
/// may be able to use it.
pub(super) fn fault(document: &[u8], purpose: Purpose) -> Option<String> {
    let parsed: serde_json::Value = serde_json::from_slice(document).ok()?;
    let kind = parsed.get("type")?.as_str()?;
    if let Some((kind, what)) = UNSUPPORTED.iter().find(|(known, _)| *known == kind) {
        return Some(format!("has the type {kind} ({what}), {INSTEAD}"));
    }
    let is_user = kind == "authorized_user" && purpose == Purpose::ServiceAccount;
    is_user.then(|| {
        "has the type authorized_user (a user's own credentials), which is no service account: \
         name the file with application_credentials instead"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, purpose: Purpose) -> Option<String> {
        let document = format!("{{\"type\": \"{kind}\", \"client_secret\": \"hush\"}}");
        let fault = fault(document.as_bytes(), purpose);
        assert!(!fault.as_ref().is_some_and(|text| text.contains("hush")));
        fault
    }

    #[test]
    fn types_that_the_client_does_not_know_are_named_with_what_to_use_instead() {
        use Purpose::{ApplicationDefault, ServiceAccount};
        for (kind, _) in UNSUPPORTED {
            for purpose in [ServiceAccount, ApplicationDefault] {
                let text = of(kind, purpose).unwrap();
                assert!(text.contains(kind), "{text}");
                assert!(text.contains("service_account_path"), "{text}");
            }
        }
        let text = of("authorized_user", ServiceAccount).unwrap();
        assert!(text.contains("application_credentials"), "{text}");
        assert_eq!(of("authorized_user", ApplicationDefault), None);
        assert_eq!(of("service_account", ServiceAccount), None);
        // Not a type, and perhaps a secret: the client says what is wrong with it.
        assert_eq!(of("hush", ServiceAccount), None);
        for other in ["", "{}", "[]", "{\"type\": 7}"] {
            assert_eq!(fault(other.as_bytes(), ServiceAccount), None, "{other}");
        }
    }
}
