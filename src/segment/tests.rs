//! Claims about segments: what is written can be scanned in any cuts, and nothing else is accepted.

use bytes::Bytes;
use proptest::prelude::*;

use super::blocks::{BlockEntry, Blocks, MAX_BLOCK_ENTRY};
use super::error::FormatError;
use super::footer::{
    CommitRecord, Footer, MAX_FIXED_PART, MAX_SINK_ENTRY, Totals, max_commit_record,
};
use super::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};
use super::layout::{
    BLOCK_MARKER, BlockRecord, FrameHeader, RECORD_LEN, SEGMENT_HEADER_LEN, Trailer, has_marker,
};
use super::scan::{Expected, PageFormat, ScanError, Scanner, Sent};
use super::writer::{SegmentDraft, SegmentImage, SinkRun, write_segment};
use crate::crc::{Checksum, checksum};
use crate::id::{DaemonId, SegmentId, TaskAttempt};

type Page = (u32, u32, Vec<u8>);

fn image(pages: &[Page]) -> SegmentImage {
    let mut runs = Vec::new();
    for (task, partition, page) in pages {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(page);
        write_frame_header(&mut frame, *partition);
        let sink = TaskAttempt::new(*task, 0).unwrap();
        let batch = verify_batch(frame.into(), 1000, 1 << 20).unwrap();
        runs.extend(batch.runs.into_iter().map(|run| SinkRun { sink, run }));
    }
    write_segment(SegmentDraft {
        exchange: "q-1".parse().unwrap(),
        segment: SegmentId {
            daemon: DaemonId(7),
            sequence: 3,
        },
        sealed_millis: 1_700_000_000_000,
        runs,
        commits: vec![CommitRecord {
            attempt: TaskAttempt::new(9, 2).unwrap(),
            totals: Totals {
                batches: 1,
                pages: 2,
                bytes: 3,
                checksum: 4,
            },
            predecessors: vec![("a".parse().unwrap(), 1), ("b".parse().unwrap(), 2)],
        }],
    })
}

fn joined(image: &SegmentImage) -> Bytes {
    image.content.concat().into()
}

fn decode(object: &[u8]) -> Result<Footer, FormatError> {
    let trailer = Trailer::decode(object, object.len() as u64)?;
    let start = trailer.footer_offset as usize;
    Footer::decode(
        &object[start..start + trailer.footer_length as usize],
        &trailer,
    )
}

fn first_partition(footer: &Footer) -> u32 {
    footer.blocks.iter().next().unwrap().partition
}

fn partition_range(footer: &Footer, partition: u32) -> (std::ops::Range<usize>, Expected) {
    let blocks: Vec<_> = footer
        .blocks
        .iter()
        .filter(|b| b.partition == partition)
        .collect();
    let mut crc = Checksum::default();
    blocks
        .iter()
        .for_each(|b| crc.update(&b.checksum.to_le_bytes()));
    let last = blocks.last().unwrap();
    let range = blocks[0].offset as usize..(last.offset + last.length()) as usize;
    let pages = blocks.iter().map(|b| u64::from(b.pages)).sum();
    (
        range,
        Expected {
            partition,
            pages,
            checksum: crc.value(),
        },
    )
}

fn scan(
    range: &Bytes,
    cuts: usize,
    expected: Expected,
    format: PageFormat,
    skip: u64,
) -> Result<(Vec<u8>, Sent), ScanError> {
    let mut scanner = Scanner::new(expected, format, skip);
    let mut out = Vec::new();
    for part in range.chunks(cuts) {
        scanner.push(range.slice_ref(part), &mut out)?;
    }
    assert!(out.iter().all(|slice| !slice.is_empty()));
    Ok((out.concat(), scanner.finish()?))
}

fn pages_of(pages: &[Page], partition: u32) -> Vec<Vec<u8>> {
    let mut chosen: Vec<_> = pages.iter().filter(|p| p.1 == partition).collect();
    chosen.sort_by_key(|p| p.0);
    chosen.into_iter().map(|p| p.2.clone()).collect()
}

fn some_pages() -> impl Strategy<Value = Vec<Page>> {
    let page = prop::collection::vec(any::<u8>(), 1..60);
    prop::collection::vec((0u32..4, 0u32..3, page), 1..25)
}

/// Each slice costs memory and a part of a response.
#[test]
fn what_is_sent_as_it_is_stored_is_one_slice() {
    let pages: Vec<Page> = (0..5).map(|_| (0, 0, vec![7; 30])).collect();
    let image = image(&pages);
    let (range, expected) = partition_range(&image.footer, 0);
    let mut scanner = Scanner::new(expected, PageFormat::Records, 0);
    let mut out = Vec::new();
    let object = joined(&image).slice(range);
    scanner.push(object.clone(), &mut out).unwrap();
    assert_eq!(out, [object]);
}

/// A range that a plan located wrongly holds undamaged blocks, of which none may be sent.
#[test]
fn a_block_of_another_partition_and_one_without_pages_are_refused() {
    let image = image(&[(0, 1, vec![7; 30])]);
    let (range, found) = partition_range(&image.footer, 1);
    let object = joined(&image).slice(range);
    let wanted = Expected {
        partition: 0,
        ..found
    };
    let refused = scan(&object, 1000, wanted, PageFormat::Records, 0);
    let Err(ScanError::UnexpectedBlock {
        partition: 1,
        pages: 1,
        expected: 0,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    let empty = BlockRecord {
        partition: 1,
        task: 0,
        attempt: 0,
        pages: 0,
        frames_length: 0,
    };
    let object = Bytes::copy_from_slice(&empty.encode());
    let refused = scan(&object, 1000, found, PageFormat::Records, 0);
    assert!(
        matches!(refused, Err(ScanError::UnexpectedBlock { pages: 0, .. })),
        "{refused:?}"
    );
}

#[test]
fn bytes_after_the_last_page_of_a_range_are_refused() {
    let image = image(&[(0, 0, vec![7; 30])]);
    let (range, expected) = partition_range(&image.footer, 0);
    let longer = [&joined(&image)[range], &[1, 2, 3]].concat();
    let refused = scan(&longer.into(), 1000, expected, PageFormat::Records, 0);
    assert!(
        matches!(refused, Err(ScanError::EndsInsideBlock)),
        "{refused:?}"
    );
}

/// The bounds decide when a segment is sealed: one that is too low would make a footer that nobody
/// can read, and one that is far too high small segments.
#[test]
fn the_bounds_of_a_footer_are_reached_by_the_largest_numbers_and_names() {
    let block = BlockEntry {
        partition: u32::MAX - 1,
        sink: u32::MAX,
        pages: u32::MAX,
        frames_length: u32::MAX,
        checksum: u32::MAX,
        offset: 0,
    };
    // Beside it are the number of partitions and that of its blocks, which are 1 here.
    let index = Blocks::new(&[block]).encoded().len() as u64;
    assert_eq!(index, 1 + MAX_BLOCK_ENTRY - 4);
    let footer = |sinks: u32, commits: Vec<CommitRecord>| Footer {
        exchange: "q".parse().unwrap(),
        segment: SegmentId {
            daemon: DaemonId(0),
            sequence: 0,
        },
        sealed_millis: 0,
        sinks: (0..sinks)
            .map(|task| TaskAttempt::new(task, 0).unwrap())
            .collect(),
        blocks: Blocks::new(&[]),
        commits,
    };
    let commit = |predecessors: usize| CommitRecord {
        attempt: TaskAttempt::new(0, 0).unwrap(),
        totals: Totals {
            batches: u64::MAX,
            pages: u64::MAX,
            bytes: u64::MAX,
            checksum: u32::MAX,
        },
        predecessors: (0..predecessors)
            .map(|n| (format!("{n:0>32}").parse().unwrap(), u64::MAX))
            .collect(),
    };
    let length = |footer: &Footer| footer.encode().iter().map(Bytes::len).sum::<usize>() as u64;
    let without = length(&footer(1, Vec::new()));
    for predecessors in [0, 1, 5] {
        let record = length(&footer(1, vec![commit(predecessors)])) - without;
        // The indexes of its sink and of each base directory, and the number of predecessors, are
        // of one byte here.
        let short = 2 * 9 + 9 * predecessors as u64;
        assert_eq!(record + short, max_commit_record(predecessors));
    }
    let (few, many) = (footer(1, Vec::new()), footer(1001, Vec::new()));
    assert_eq!(
        many.memory_size() - few.memory_size(),
        1000 * size_of::<TaskAttempt>() as u64
    );
}

proptest! {
    #[test]
    fn a_written_segment_is_scanned_whatever_the_cuts(
        pages in some_pages(), cuts in 1usize..100,
    ) {
        let image = image(&pages);
        let object = joined(&image);
        let footer = decode(&object).unwrap();
        prop_assert_eq!(&footer, &image.footer);
        for partition in 0..3 {
            let mine = pages_of(&pages, partition);
            if mine.is_empty() { continue; }
            let (range, expected) = partition_range(&footer, partition);
            let range = object.slice(range);
            let (raw, sent) = scan(&range, cuts, expected, PageFormat::Raw, 0).unwrap();
            prop_assert_eq!(raw, mine.concat());
            prop_assert_eq!(sent.pages, mine.len() as u64);
            let (records, sent) = scan(&range, cuts, expected, PageFormat::Records, 0).unwrap();
            prop_assert_eq!(&records, &range);
            prop_assert_eq!(sent.bytes, mine.concat().len() as u64);
        }
    }

    #[test]
    fn a_read_resumed_after_any_page_emits_the_rest(
        pages in some_pages(), cuts in 1usize..100, skip in 0u64..30,
    ) {
        let image = image(&pages);
        let (object, footer) = (joined(&image), &image.footer);
        let partition = first_partition(footer);
        let mine = pages_of(&pages, partition);
        let skip = skip.min(mine.len() as u64);
        let (range, expected) = partition_range(footer, partition);
        let range = object.slice(range);
        let (records, sent) = scan(&range, cuts, expected, PageFormat::Records, skip).unwrap();
        prop_assert_eq!(sent.pages, mine.len() as u64 - skip);
        let (rest, blocks) = parse_records(&records);
        prop_assert_eq!(&rest[..], &mine[skip as usize..]);
        prop_assert_eq!(sent.blocks, blocks);
    }

    #[test]
    fn a_partial_page_that_was_discarded_and_arrives_again_is_emitted_once(
        pages in some_pages(), cuts in 1usize..100, skip in 0u64..5,
        discard in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let image = image(&pages);
        let (object, footer) = (joined(&image), &image.footer);
        let partition = first_partition(footer);
        let skip = skip.min(pages_of(&pages, partition).len() as u64);
        let (range, expected) = partition_range(footer, partition);
        let range = object.slice(range);
        let (whole, sent) = scan(&range, cuts, expected, PageFormat::Records, skip).unwrap();
        let mut scanner = Scanner::new(expected, PageFormat::Records, skip);
        let (mut out, mut at, mut size) = (Vec::new(), 0, cuts);
        for discard in discard.iter().cycle() {
            let end = (at + size).min(range.len());
            scanner.push(range.slice(at..end), &mut out).unwrap();
            (at, size) = (end, cuts);
            if at == range.len() {
                break;
            }
            if *discard && scanner.has_partial() {
                let (offset, item) = scanner.discard_partial();
                at = offset as usize;
                size = cuts.max(FRAME_HEADER_LEN).max(item.unwrap_or(0) as usize);
            }
        }
        prop_assert_eq!(out.concat(), whole);
        prop_assert_eq!(scanner.finish().unwrap(), sent);
    }

    #[test]
    fn any_flipped_bit_in_a_range_is_detected(
        pages in some_pages(), position: prop::sample::Index, bit in 0u8..8, cuts in 1usize..100,
    ) {
        let image = image(&pages);
        let object = joined(&image);
        let (range, expected) = partition_range(&image.footer, first_partition(&image.footer));
        let mut damaged = object[range].to_vec();
        let position = position.index(damaged.len());
        damaged[position] ^= 1 << bit;
        prop_assert!(scan(&damaged.into(), cuts, expected, PageFormat::Records, 0).is_err());
    }

    #[test]
    fn any_flipped_bit_in_footer_or_trailer_is_detected(
        pages in some_pages(), position: prop::sample::Index, bit in 0u8..8,
    ) {
        let image = image(&pages);
        let mut object = joined(&image).to_vec();
        let start = image.footer.blocks.end() as usize;
        let position = start + position.index(object.len() - start);
        object[position] ^= 1 << bit;
        prop_assert!(decode(&object).is_err());
    }

    #[test]
    fn a_footer_is_no_longer_than_the_bounds_by_which_segments_are_sealed(pages in some_pages()) {
        let image = image(&pages);
        let commits = image.footer.commits.iter().map(|c| max_commit_record(c.predecessors.len()));
        let most = MAX_FIXED_PART
            + image.footer.blocks.len() as u64 * MAX_BLOCK_ENTRY
            + image.footer.sinks.len() as u64 * MAX_SINK_ENTRY
            + commits.sum::<u64>();
        prop_assert!(image.footer_length <= most);
    }

    #[test]
    fn a_segment_cut_short_anywhere_is_refused(pages in some_pages(), cut: prop::sample::Index) {
        let object = joined(&image(&pages));
        let cut = cut.index(object.len());
        prop_assert!(decode(&object[..cut]).is_err());
    }

    #[test]
    fn scanning_any_bytes_does_not_panic(bytes: Vec<u8>, cuts in 1usize..100) {
        let expected = Expected { partition: 0, pages: 1, checksum: 0 };
        let _ = scan(&bytes.into(), cuts, expected, PageFormat::Records, 0);
    }

    #[test]
    fn decoding_any_footer_does_not_panic(bytes: Vec<u8>) {
        let trailer = Trailer {
            footer_offset: 16,
            footer_length: bytes.len() as u32,
            footer_crc: checksum(&bytes),
        };
        let _ = Footer::decode(&bytes, &trailer);
    }
}

fn parse_records(mut bytes: &[u8]) -> (Vec<Vec<u8>>, u32) {
    let (mut pages, mut blocks) = (Vec::new(), 0);
    while !bytes.is_empty() {
        assert!(has_marker(bytes, BLOCK_MARKER));
        let record = BlockRecord::decode(bytes[..RECORD_LEN].try_into().unwrap()).unwrap();
        blocks += 1;
        bytes = &bytes[RECORD_LEN..];
        let end = bytes.len() - record.frames_length as usize;
        for _ in 0..record.pages {
            let length = FrameHeader::decode(bytes).length as usize;
            pages.push(bytes[FRAME_HEADER_LEN..FRAME_HEADER_LEN + length].to_vec());
            bytes = &bytes[FRAME_HEADER_LEN + length..];
        }
        assert_eq!(bytes.len(), end);
    }
    (pages, blocks)
}

#[test]
fn a_range_of_another_segment_with_the_same_shape_is_refused() {
    let one = image(&[(1, 0, b"aaaa".to_vec())]);
    let other = image(&[(1, 0, b"bbbb".to_vec())]);
    let (range, expected) = partition_range(&one.footer, 0);
    let swapped = joined(&other).slice(range);
    let error = scan(&swapped, 100, expected, PageFormat::Records, 0).unwrap_err();
    assert_eq!(error, ScanError::RangeChecksum);
}

#[test]
fn an_unknown_format_version_is_named() {
    let mut object = joined(&image(&[(1, 0, b"aaaa".to_vec())])).to_vec();
    let at = object.len() - 40 + 24;
    object[at] = 9;
    let error = decode(&object).unwrap_err();
    assert!(error.to_string().contains("format version 9"), "{error}");
}

#[test]
fn a_segment_may_hold_commit_records_alone() {
    let image = image(&[]);
    let footer = decode(&joined(&image)).unwrap();
    assert_eq!(footer.commits.len(), 1);
    assert_eq!(footer.blocks.end(), SEGMENT_HEADER_LEN as u64);
}

#[test]
fn version_1_segments_stay_readable_for_ever() {
    let pages = [
        (1, 0, b"first".to_vec()),
        (0, 2, b"second".to_vec()),
        (1, 2, vec![0xab; 300]),
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/segment-v1.seg");
    let golden = std::fs::read(path).expect("tests/golden/segment-v1.seg is part of the project");
    assert_eq!(joined(&image(&pages)), golden);
    assert_eq!(decode(&golden).unwrap(), image(&pages).footer);
}

/// Each of the two sizes in a trailer is compared with that of the object.
#[test]
fn a_trailer_of_an_object_of_another_size_is_refused() {
    let trailer = Trailer {
        footer_offset: 100,
        footer_length: 20,
        footer_crc: 7,
    };
    let encoded = trailer.encode();
    let size = 100 + 20 + encoded.len() as u64;
    assert_eq!(Trailer::decode(&encoded, size), Ok(trailer));
    for other in [size - 1, size + 1] {
        let refused = Trailer::decode(&encoded, other);
        assert!(
            matches!(refused, Err(FormatError::SizeMismatch { .. })),
            "{refused:?}"
        );
    }
    // The recorded size is right, and the footer does not end where the trailer begins.
    let mut shifted = encoded;
    shifted[..8].copy_from_slice(&99_u64.to_le_bytes());
    let crc = checksum(&shifted[..28]);
    shifted[28..32].copy_from_slice(&crc.to_le_bytes());
    let refused = Trailer::decode(&shifted, size);
    assert!(
        matches!(refused, Err(FormatError::SizeMismatch { .. })),
        "{refused:?}"
    );
}
