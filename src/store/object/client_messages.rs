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

/// The error code of one key in the answer to a bulk delete of S3, and its message.
pub fn refused_delete(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("DeleteObjects request failed for key ")?;
    let (rest, code) = rest.rsplit_once(" (code: ")?;
    let (_, message) = rest.split_once(": ")?;
    Some((code.split_once(')')?.0, message))
}

/// Whether the object does not have the requested range.
pub fn is_short_range(text: &str) -> bool {
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
pub fn is_stored_without_tag(text: &str) -> bool {
    text.contains("ETag Header missing from response")
}

/// Whether a put needs an entity tag that the server did not give.
pub fn lacks_tag(text: &str) -> bool {
    text.contains("ETag required for conditional put")
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
