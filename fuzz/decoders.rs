//! What each decoder must do with arbitrary bytes: one function per decoder, which panics on a
//! violation.
//!
//! Does: check the claims, for the fuzzer and for the tests that replay its inputs. Does not:
//! generate inputs. Invariant: every function is fast and deterministic, and accepts every input.

#![allow(dead_code)] // each target uses one of them

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use stopover::catalog::handle::Handle;
use stopover::crc::{Checksum, checksum};
use stopover::id::{DaemonId, SegmentId, TaskAttempt};
use stopover::segment::blocks::BlockEntry;
use stopover::segment::error::FormatError;
use stopover::segment::footer::{CommitRecord, Footer, Totals};
use stopover::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};
use stopover::segment::layout::{TRAILER_LEN, Trailer};
use stopover::segment::scan::{Expected, PageFormat, Scanner, Sent};
use stopover::segment::writer::{SegmentDraft, SegmentImage, SinkRun, write_segment};

#[path = "config.rs"]
pub mod config;

/// The name of a fuzz target and its function.
pub type Named = (&'static str, fn(&[u8]));

pub const ALL: [Named; 7] = [
    ("batch", batch),
    ("scan", scan),
    ("segment", segment),
    ("trailer", trailer),
    ("footer", footer),
    ("handle", handle),
    ("config", config::config),
];

const PARTITIONS: u32 = 3;
const MAX_PAGE: u64 = 1 << 12;

/// A batch from a client is refused, or every byte of it is in one run. The fuzzer cannot guess
/// checksums, so each batch is also checked with the right one in every frame.
pub fn batch(input: &[u8]) {
    check_batch(input.to_vec());
    let mut sealed = input.to_vec();
    let mut at = 0;
    while let Some(head) = sealed.get(at..at + FRAME_HEADER_LEN) {
        let partition = u32::from_le_bytes(head[..4].try_into().unwrap());
        let length = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
        let end = at.saturating_add(FRAME_HEADER_LEN).saturating_add(length);
        let Some(frame) = sealed.get_mut(at..end) else {
            break;
        };
        write_frame_header(frame, partition);
        at = end;
    }
    check_batch(sealed);
}

fn check_batch(input: Vec<u8>) {
    let input = Bytes::from(input);
    let Ok(batch) = verify_batch(input.clone(), PARTITIONS, MAX_PAGE) else {
        return;
    };
    let joined: Vec<u8> = batch
        .runs
        .iter()
        .flat_map(|run| run.frames.to_vec())
        .collect();
    assert_eq!(joined, input, "every byte is in one run");
    assert!(batch.runs.iter().all(|run| run.partition < PARTITIONS));
    let pages: u64 = batch.runs.iter().map(|run| u64::from(run.pages)).sum();
    assert_eq!(pages, batch.pages);
    let headers = pages * FRAME_HEADER_LEN as u64;
    assert_eq!(batch.page_bytes + headers, input.len() as u64);
}

/// A range of arbitrary bytes is refused, or gives the expected pages, however it is cut.
pub fn scan(input: &[u8]) {
    let [cut, partition, pages, crc @ ..] = input else {
        return;
    };
    let Some((crc, range)) = crc.split_first_chunk::<4>() else {
        return;
    };
    let expected = Expected {
        partition: u32::from(*partition % 4),
        pages: u64::from(*pages),
        checksum: u32::from_le_bytes(*crc),
    };
    for format in [PageFormat::Records, PageFormat::Raw] {
        let range = Bytes::copy_from_slice(range);
        if let Ok((out, sent)) = scanned(&range, usize::from(*cut) + 1, expected, format) {
            assert_eq!(sent.pages, expected.pages);
            assert!(out.len() <= range.len());
        }
    }
}

/// Scans a range in cuts, now and then discarding a partial frame, as a read that waits for memory
/// does.
fn scanned(
    range: &Bytes,
    cut: usize,
    expected: Expected,
    format: PageFormat,
) -> Result<(Vec<u8>, Sent), String> {
    let mut scanner = Scanner::new(expected, format, 0);
    let (mut out, mut at, mut size, mut pushes) = (Vec::new(), 0, cut, 0usize);
    while at < range.len() {
        let end = (at + size).min(range.len());
        let pushed = scanner.push(range.slice(at..end), &mut out);
        pushed.map_err(|error| error.to_string())?;
        (at, size, pushes) = (end, cut, pushes + 1);
        if pushes.is_multiple_of(3) && scanner.has_partial() && at < range.len() {
            let (taken, item) = scanner.discard_partial();
            at = taken as usize;
            size = cut.max(FRAME_HEADER_LEN).max(item.unwrap_or(0) as usize);
        }
    }
    let sent = scanner.finish().map_err(|error| error.to_string())?;
    Ok((out.concat(), sent))
}

/// Pages written to a segment and damaged: what is read back is what was written, or an error. The
/// input is a cut, an offset and a value for the damage, then for each page a byte for task and
/// partition, a byte for the length, and the page.
pub fn segment(input: &[u8]) {
    let [cut, low, high, flip, pages @ ..] = input else {
        return;
    };
    let image = laid_out(pages);
    let object = image.content.concat();
    let footer = decoded(&object).expect("a segment that was just written");
    assert_eq!(footer, image.footer);
    let at = usize::from(u16::from_le_bytes([*low, *high])) % object.len();
    let mut damaged = object.clone();
    damaged[at] ^= flip;
    let blocks_end = footer.blocks.end() as usize;
    if *flip != 0 && at >= blocks_end {
        assert!(decoded(&damaged).is_err(), "a damaged footer is accepted");
    }
    let damaged = Bytes::from(damaged);
    let blocks: Vec<BlockEntry> = footer.blocks.iter().collect();
    for blocks in blocks.chunk_by(|a, b| a.partition == b.partition) {
        let mut crc = Checksum::default();
        blocks
            .iter()
            .for_each(|b| crc.update(&b.checksum.to_le_bytes()));
        let last = &blocks[blocks.len() - 1];
        let range = blocks[0].offset as usize..(last.offset + last.length()) as usize;
        let expected = Expected {
            partition: blocks[0].partition,
            pages: blocks.iter().map(|b| u64::from(b.pages)).sum(),
            checksum: crc.value(),
        };
        let part = damaged.slice(range.clone());
        match scanned(&part, usize::from(*cut) + 1, expected, PageFormat::Records) {
            Ok((out, _)) => assert_eq!(out, object[range], "damaged bytes are served"),
            Err(error) => assert!(*flip != 0 && range.contains(&at), "{error}"),
        }
    }
}

fn laid_out(mut pages: &[u8]) -> SegmentImage {
    let mut pieces = Vec::new();
    while let [place, length, rest @ ..] = pages {
        let (page, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        pages = rest;
        if page.is_empty() {
            continue;
        }
        let partition = u32::from(*place) % PARTITIONS;
        let sink = TaskAttempt::new(u32::from(*place) / PARTITIONS, 0).unwrap();
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(page);
        write_frame_header(&mut frame, partition);
        let batch = verify_batch(frame.into(), PARTITIONS, MAX_PAGE).unwrap();
        pieces.extend(batch.runs.into_iter().map(|run| SinkRun { sink, run }));
    }
    let (daemon, sequence) = (DaemonId(7), 3);
    write_segment(SegmentDraft {
        exchange: "q-1".parse().unwrap(),
        segment: SegmentId { daemon, sequence },
        sealed_millis: 0,
        runs: pieces,
        commits: vec![CommitRecord {
            attempt: TaskAttempt::new(1, 0).unwrap(),
            totals: Totals::default(),
            predecessors: vec![("a".parse().unwrap(), 2)],
        }],
    })
}

fn decoded(object: &[u8]) -> Result<Footer, FormatError> {
    let trailer = Trailer::decode(object, object.len() as u64)?;
    let start = trailer.footer_offset as usize;
    let end = start + trailer.footer_length as usize;
    Footer::decode(&object[start..end], &trailer)
}

/// The tail of an object is refused, or its footer ends where the trailer begins.
pub fn trailer(input: &[u8]) {
    let check = |tail: &[u8], size: u64| {
        if let Ok(trailer) = Trailer::decode(tail, size) {
            let end = trailer.footer_offset + u64::from(trailer.footer_length);
            assert_eq!(end + TRAILER_LEN as u64, size);
        }
    };
    check(input, input.len() as u64);
    let Some((size, tail)) = input.split_first_chunk::<8>() else {
        return;
    };
    let size = u64::from_le_bytes(*size);
    check(tail, size);
    // With a valid checksum, so that the checks after it are reached.
    if let Some(start) = tail.len().checked_sub(TRAILER_LEN) {
        let mut tail = tail.to_vec();
        let crc = checksum(&tail[start..start + 28]);
        tail[start + 28..start + 32].copy_from_slice(&crc.to_le_bytes());
        check(&tail, size);
    }
}

/// A footer with a valid checksum is refused, or is unchanged when encoded and decoded again.
pub fn footer(input: &[u8]) {
    for footer_offset in [16, input.first().map_or(16, |b| 16 + u64::from(*b))] {
        let trailer = Trailer {
            footer_offset,
            footer_length: input.len() as u32,
            footer_crc: checksum(input),
        };
        let Ok(footer) = Footer::decode(input, &trailer) else {
            continue;
        };
        let again = footer.encode().concat();
        let trailer = Trailer {
            footer_offset: footer.blocks.end(),
            footer_length: again.len() as u32,
            footer_crc: checksum(&again),
        };
        assert_eq!(Footer::decode(&again, &trailer).as_ref(), Ok(&footer));
    }
}

/// A handle from a client, as text and as a body with a valid checksum, is refused, or is unchanged
/// when encoded and decoded again, and its ranges are valid.
pub fn handle(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check_handle(text);
    }
    let mut body = input.to_vec();
    body.extend_from_slice(&checksum(input).to_le_bytes());
    check_handle(&URL_SAFE_NO_PAD.encode(body));
}

fn check_handle(text: &str) {
    let Ok(handle) = Handle::decode(text) else {
        return;
    };
    assert_eq!(Handle::decode(&handle.encode()).as_ref(), Ok(&handle));
    let _ = handle.pages();
    for range in &handle.ranges {
        assert!(range.length > 0 && range.pages > 0);
        let end = range.offset.checked_add(range.length);
        assert!(end.is_some_and(|end| end <= range.blocks_end));
    }
}
