//! Media types of streamed responses, and how each ends after an error.
//!
//! Does: write the error record and the error line, which contain a problem. Does not: write block
//! and end records (`read` does) or frames (`segment` does). Invariant: the layout is that of
//! `docs/protocol.md`.

use bytes::{BufMut, Bytes, BytesMut};

use super::problem::Problem;
use crate::segment::layout::ERROR_MARKER;

/// Media type of records and frames.
pub(super) const READ_MEDIA_TYPE: &str = "application/vnd.stopover.read";
/// Media type of page bytes without framing.
pub(super) const RAW_MEDIA_TYPE: &str = "application/octet-stream";
/// Media type of handles, one JSON object per line.
pub(super) const NDJSON_MEDIA_TYPE: &str = "application/x-ndjson";

/// The record that ends a stream after an error.
pub(super) fn error_record(problem: &Problem) -> Bytes {
    let json = problem.to_json();
    let mut record = BytesMut::with_capacity(8 + json.len());
    record.put_u32_le(ERROR_MARKER);
    record.put_u32_le(u32::try_from(json.len()).expect("a problem is short"));
    record.put_slice(&json);
    record.freeze()
}

/// The line that ends lines of JSON after an error.
pub(super) fn error_line(problem: &Problem) -> Bytes {
    let mut line = BytesMut::from(&b"{\"error\":"[..]);
    line.put_slice(&problem.to_json());
    line.put_slice(b"}\n");
    line.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_record_is_kind_length_and_problem() {
        let record = error_record(&Problem::invalid("x"));
        assert_eq!(record[..4], [0xF2, 0xFF, 0xFF, 0xFF]);
        let length = u32::from_le_bytes(record[4..8].try_into().unwrap()) as usize;
        assert_eq!(record.len(), 8 + length);
        let json: serde_json::Value = serde_json::from_slice(&record[8..]).unwrap();
        assert_eq!(json["type"], "urn:stopover:problem:invalid-request");
        const { assert!(ERROR_MARKER >= crate::id::MAX_PARTITIONS) };
    }
}
