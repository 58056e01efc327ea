//! The text of the small objects that describe a base directory: a title with the layout, a line of
//! JSON, a checksum.
//!
//! Pure: text to bytes and back. Does not: interpret the JSON (`identity`, `membership`).
//! Invariant: damaged text and text of another layout are errors.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crc::checksum;

/// The layout of base directories that this code reads and writes.
pub(super) const LAYOUT: u32 = 2;

/// Why a text cannot be decoded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TextError {
    #[error("it does not begin with \"{title}\"")]
    Title { title: &'static str },
    #[error("its layout is {found}, but this daemon supports layout {LAYOUT}")]
    Layout { found: String },
    #[error("checksum mismatch")]
    Checksum,
    #[error("it is not the expected JSON: {message}")]
    Json { message: String },
}

/// Encodes a title and a content.
pub(super) fn encode(title: &str, content: &impl Serialize) -> Bytes {
    let content = serde_json::to_string(content).expect("plain data");
    let text = format!("{title}, layout {LAYOUT}\n{content}\n");
    let crc = checksum(text.as_bytes());
    format!("{text}crc32c {crc:08x}\n").into()
}

/// Decodes a text; returns what follows the title in the first line, and the content.
///
/// # Errors
/// It is damaged, of another layout, or something else.
pub(super) fn decode<T: DeserializeOwned>(
    title: &'static str,
    bytes: &[u8],
) -> Result<(String, T), TextError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TextError::Checksum)?;
    let rest = text.strip_prefix(title).ok_or(TextError::Title { title })?;
    let (first, rest) = rest.split_once('\n').ok_or(TextError::Checksum)?;
    let (first, layout) = first.split_once(", layout ").ok_or(TextError::Checksum)?;
    if layout != LAYOUT.to_string() {
        let found = layout.chars().take(20).collect();
        return Err(TextError::Layout { found });
    }
    let (json, crc) = rest.split_once('\n').ok_or(TextError::Checksum)?;
    let checked = text.len() - crc.len();
    let expected = format!("crc32c {:08x}\n", checksum(&bytes[..checked]));
    if crc != expected {
        return Err(TextError::Checksum);
    }
    let content = serde_json::from_str(json).map_err(|error| TextError::Json {
        message: error.to_string(),
    })?;
    Ok((first.to_owned(), content))
}
