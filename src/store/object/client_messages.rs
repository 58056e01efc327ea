//! What the English messages of `object_store` reveal and its types do not.
//!
//! Does: extract the HTTP status and error code of a response, and recognise failures for which the
//! client has no variant. Does not: decide what they mean (`error`). Invariant: every text that is
//! searched for is written here and nowhere else; docs/decisions/storage-object-store-gaps.md says
//! what is missing upstream, and tests against a server notice when the texts change.

use std::error::Error as _;

use object_store::Error;

use super::exchange::{Issuer, IssuerFault};

/// The error and its causes in one text, each said once: some displays repeat their source, others
/// hide it.
pub(super) fn full_text(error: &Error) -> String {
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

/// The status of an HTTP response; the client has it only in a private type.
pub(super) fn http_status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The error code in the XML body of an S3 or Azure response.
pub(super) fn code(text: &str) -> Option<&str> {
    xml_element(text, "Code")
}

/// The message in the XML body of an S3 or Azure response.
pub(super) fn server_message(text: &str) -> Option<&str> {
    xml_element(text, "Message")
}

/// The text of the first XML element of a name.
pub(super) fn xml_element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim())
}

/// The error code of one key in the answer to a bulk delete of S3, and its message.
pub(super) fn refused_delete(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("DeleteObjects request failed for key ")?;
    let (rest, code) = rest.rsplit_once(" (code: ")?;
    let (_, message) = rest.split_once(": ")?;
    Some((code.split_once(')')?.0, message))
}

/// Whether a bulk delete was answered with something else than a list of results.
pub(super) fn is_odd_delete_answer(text: &str) -> bool {
    text.contains("Got invalid DeleteObjects response")
}

/// Whether an answer names a range that no object has. MinIO answers `bytes 0--1/0` to a range from
/// the end of an empty object.
pub(super) fn is_odd_range(text: &str) -> bool {
    text.contains("value for CONTENT_RANGE header")
}

/// Text of an XML element with its escapes replaced.
pub(super) fn unescaped(text: &str) -> String {
    const ESCAPES: [(&str, &str); 9] = [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#x22;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    let unescape = |text: String, (escape, plain): &(&str, &str)| text.replace(escape, plain);
    ESCAPES.iter().fold(text.to_owned(), unescape)
}

/// Whether the object does not have the requested range.
pub(super) fn is_short_range(text: &str) -> bool {
    ["Wanted range starting at", "Range started at"]
        .iter()
        .any(|words| text.contains(words))
        || answers_another_range(text)
}

/// `Requested 2..3, got 2..4`
fn answers_another_range(text: &str) -> bool {
    let is_range =
        |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && text.contains("..");
    text.match_indices("Requested ").any(|(at, words)| {
        let asked_and_got = text[at + words.len()..].split_once(", got ");
        asked_and_got.is_some_and(|(asked, got)| is_range(asked) && is_range(got))
    })
}

/// Whether a put was applied and the client misses the entity tag in the answer.
pub(super) fn is_stored_without_tag(text: &str) -> bool {
    text.contains("ETag Header missing from response")
}

/// Whether the bucket is in another region than configured.
pub(super) fn is_wrong_region(text: &str) -> bool {
    text.contains("redirect without LOCATION")
}

/// Whether the server ignored a range: it does not know ranges, or the object is empty.
pub(super) fn is_whole_object(text: &str) -> bool {
    text.contains("non-partial response")
}

/// Whether the instance or its container was asked for credentials, because none are configured.
pub(super) fn lacks_credentials(text: &str) -> bool {
    // Those of managed identities have an address of their own in Azure's App Service and Arc.
    const METADATA: [&str; 6] = [
        "169.254.169.254",
        "169.254.170.2",
        "computeMetadata",
        "[fd00:ec2::254]",
        "metadata/identity",
        "msi/token",
    ];
    METADATA.iter().any(|place| has_word(text, place))
}

/// Whether it was the agent of containers (ECS) that was asked.
pub(super) fn asked_container_agent(text: &str) -> bool {
    has_word(text, "169.254.170.2")
}

/// Whether a text has these words, not as a part of longer ones: an address may be the beginning of
/// another one.
fn has_word(text: &str, word: &str) -> bool {
    let continues = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        // The end of a sentence is no part of an address.
        let after = after.strip_prefix('.').unwrap_or(after);
        !continues(before.chars().next_back()) && !continues(after.chars().next())
    })
}

/// Which service that gives out credentials the client asked by itself, and how that failed.
pub(super) fn issuer_in(text: &str, status: Option<u16>) -> Option<(Issuer, IssuerFault)> {
    let answered = text.contains("Error getting token response body");
    if lacks_credentials(text) || !(answered || text.contains("Error performing token request")) {
        return None;
    }
    let issuer = match text.contains("MicrosoftAzure") {
        true => Issuer::ClientSecret,
        false => Issuer::Google,
    };
    let fault = match status {
        Some(status) => IssuerFault::of(status, text),
        None if answered => IssuerFault::NoCredentials,
        None => IssuerFault::Unreachable,
    };
    Some((issuer, fault))
}

/// Whether a server did not say which version of an object it wrote or sent.
pub(super) fn lacks_entity_tag(text: &str) -> bool {
    text.contains("ETag Header missing") || text.contains("ETag required for conditional put")
}

/// Whether a server wants a checksum with each upload.
pub(super) fn wants_checksum(text: &str) -> bool {
    text.contains("Content-MD5") && text.contains("required")
}

/// Whether a server names the header of a checksum as what is wrong.
pub(super) fn refuses_checksum(text: &str) -> bool {
    text.contains("x-amz-checksum") || text.contains("x-amz-sdk-checksum")
}

/// What is wrong with the encryption of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsFailure {
    /// The certificate's issuer is not among the trusted ones.
    UnknownIssuer,
    /// The certificate is for other hosts.
    OtherHost,
    /// The certificate is not valid at this time.
    OtherTime,
    /// The certificate is wrong in another way.
    Certificate,
    /// The server does not speak TLS.
    PlainServer,
    /// The server speaks TLS alone, and was asked without.
    PlainClient,
}

/// Recognises failures of the encryption.
pub(super) fn tls_failure(text: &str) -> Option<TlsFailure> {
    use TlsFailure::{Certificate, OtherHost, OtherTime, PlainClient, PlainServer, UnknownIssuer};
    const WORDS: [(&str, TlsFailure); 11] = [
        ("UnknownIssuer", UnknownIssuer),
        // Of another CA with the name of one that is trusted, such as an earlier one.
        ("invalid peer certificate: BadSignature", UnknownIssuer),
        ("NotValidForName", OtherHost),
        ("certificate not valid for name", OtherHost),
        ("certificate expired", OtherTime),
        ("certificate not valid yet", OtherTime),
        ("invalid peer certificate", Certificate),
        ("InvalidContentType", PlainServer),
        ("HTTP request to an HTTPS server", PlainClient),
        ("HTTP request was sent to HTTPS port", PlainClient),
        ("invalid HTTP version parsed", PlainClient),
    ];
    let found = WORDS.iter().find(|(words, _)| text.contains(words));
    found.map(|(_, failure)| *failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: 169.254.170.2 gives credentials to containers, and 169.254.170.23 to the pods of EKS.
    #[test]
    fn an_address_is_found_as_a_whole() {
        for (text, is_found) in [
            ("GET http://169.254.170.2/v2: refused", true),
            ("GET http://169.254.170.2:80/v2", true),
            ("no answer from 169.254.170.2.", true),
            ("GET http://169.254.170.23/v1", false),
            ("GET http://169.254.170.2.example/v1", false),
            ("GET http://10.169.254.170.2/v1", false),
            ("GET http://h/computeMetadata/v1/x", true),
            ("GET http://localhost:42356/msi/token?resource=x", true),
            (
                "GET http://localhost:40342/metadata/identity/oauth2/token?x",
                true,
            ),
        ] {
            assert_eq!(lacks_credentials(text), is_found, "{text}");
        }
    }
}
