//! What the English messages of `object_store` reveal and its types do not.
//!
//! Does: extract the HTTP status and error code of a response, and recognise failures for which the
//! client has no variant. Does not: decide what they mean (`error`). Invariant: every text that is
//! searched for is written here and nowhere else; docs/decisions/storage-object-store-gaps.md says
//! what is missing upstream, and tests against a server notice when the texts change.

use std::error::Error as _;

use object_store::Error;

/// The error and its causes in one text, each said once: some displays repeat their source, others
/// hide it.
pub fn full_text(error: &Error) -> String {
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
pub fn http_status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The error code in the XML body of an S3 or Azure response.
pub fn code(text: &str) -> Option<&str> {
    xml_element(text, "Code")
}

/// The message in the XML body of an S3 or Azure response.
pub fn server_message(text: &str) -> Option<&str> {
    xml_element(text, "Message")
}

fn xml_element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim())
}

/// Whether the object does not have the requested range.
pub fn is_short_range(text: &str) -> bool {
    [
        "Wanted range starting at",
        "Requested ",
        "Range started at",
        "larger than object",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Whether the bucket is in another region than configured.
pub fn is_wrong_region(text: &str) -> bool {
    text.contains("redirect without LOCATION")
}

/// Whether the server ignored a range: it does not know ranges, or the object is empty.
pub fn is_whole_object(text: &str) -> bool {
    text.contains("non-partial response")
}

/// Whether the instance was asked for credentials because none are configured.
pub fn lacks_credentials(text: &str) -> bool {
    text.contains("169.254.169.254")
}
