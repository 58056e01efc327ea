//! Markers and tombstones as they are stored.
//!
//! Pure: bytes to content and back. Does not: interpret the content (`exchange`). Invariant: a
//! tombstone is never decoded as a marker, and no marker is as short as one.
//!
//! A marker is two lines: the content, and a number that is different in each write. A tombstone is
//! one line.

use bytes::Bytes;

/// How a tombstone begins; no marker does.
const TOMBSTONE: &[u8] = b"{\"ended\":";

/// Length of a tombstone: `{"ended":"`, a number, `"}` and a line end.
pub(super) const TOMBSTONE_LENGTH: u64 = 10 + 16 + 3;

/// A tombstone, different from all others if the number is.
pub(super) fn tombstone(number: u64) -> Bytes {
    format!("{{\"ended\":\"{number:016x}\"}}\n").into()
}

/// A marker with this content, different from all others if the number is.
pub(super) fn marker(content: &Bytes, number: u64) -> Bytes {
    let written = format!("\n{{\"written\":\"{number:016x}\"}}\n");
    [content, written.as_bytes()].concat().into()
}

/// Whether what was stored is a tombstone.
pub(super) fn is_tombstone(stored: &[u8]) -> bool {
    stored.starts_with(TOMBSTONE)
}

/// What was announced: the first line of a marker.
pub(super) fn content(stored: &Bytes) -> Bytes {
    let end = stored.iter().position(|byte| *byte == b'\n');
    stored.slice(..end.unwrap_or(stored.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_differs_from_every_marker_in_its_length() {
        let tombstone = tombstone(u64::MAX);
        assert!(is_tombstone(&tombstone));
        assert_eq!(tombstone.len() as u64, TOMBSTONE_LENGTH);
        let shortest = marker(&Bytes::new(), 0);
        assert!(!is_tombstone(&shortest));
        assert_eq!(shortest.len() as u64, TOMBSTONE_LENGTH + 3);
        let content_of = Bytes::from_static(b"{\"a\":1}");
        assert_eq!(content(&marker(&content_of, 7)), content_of);
    }
}
