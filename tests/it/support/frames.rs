//! Encodes frames and decodes read records as `docs/protocol.md` defines them.
//!
//! A second implementation, so that the daemon's code is not tested against itself.

use crc_fast::{CrcAlgorithm, checksum};

const BLOCK: u32 = 0xFFFF_FFF0;
const ERROR: u32 = 0xFFFF_FFF2;

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).unwrap()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn frame(partition: u32, page: &[u8]) -> Vec<u8> {
    let mut checked = partition.to_le_bytes().to_vec();
    checked.extend(u32::try_from(page.len()).unwrap().to_le_bytes());
    checked.extend(page);
    let crc = crc32c(&checked);
    let mut frame = checked[..8].to_vec();
    frame.extend(crc.to_le_bytes());
    frame.extend(page);
    frame
}

pub fn batch(pages: &[(u32, &[u8])]) -> Vec<u8> {
    pages
        .iter()
        .flat_map(|(partition, page)| frame(*partition, page))
        .collect()
}

/// The checksum that a finish may claim: over the `crc` fields, in the order they were sent.
pub fn finish_checksum(pages: &[(u32, &[u8])]) -> u32 {
    let fields: Vec<u8> = pages
        .iter()
        .flat_map(|(partition, page)| frame(*partition, page)[8..12].to_vec())
        .collect();
    crc32c(&fields)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPage {
    pub partition: u32,
    pub task: u32,
    pub attempt: u32,
    pub page: Vec<u8>,
}

/// How a read stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With an end record that counts everything sent.
    Complete,
    /// With an error record.
    Problem(serde_json::Value),
    /// Without either.
    Missing,
}

/// Parses a stream of records and checks everything that the protocol promises.
pub fn parse(stream: &[u8]) -> (Vec<ReadPage>, End) {
    let (mut pages, mut blocks, mut at) = (Vec::new(), 0, 0);
    while at < stream.len() {
        let record = &stream[at..];
        match u32_at(record, 0) {
            BLOCK => {
                at += block(record, &mut pages);
                blocks += 1;
            }
            0xFFFF_FFF1 => {
                assert_eq!(
                    crc32c(&record[..28]),
                    u32_at(record, 28),
                    "the end record's CRC"
                );
                assert_eq!(u32_at(record, 4), blocks, "blocks");
                assert_eq!(u64_at(record, 8), pages.len() as u64, "pages");
                let bytes: usize = pages.iter().map(|p| p.page.len()).sum();
                assert_eq!(u64_at(record, 16), bytes as u64, "page bytes");
                assert_eq!(u32_at(record, 24), 0);
                assert_eq!(record.len(), 32, "bytes after the end record");
                return (pages, End::Complete);
            }
            ERROR => {
                let length = u32_at(record, 4) as usize;
                assert_eq!(record.len(), 8 + length, "bytes after the error record");
                let problem = serde_json::from_slice(&record[8..]).unwrap();
                return (pages, End::Problem(problem));
            }
            other => panic!("no record begins with {other:#x} at byte {at}"),
        }
    }
    (pages, End::Missing)
}

/// Parses one block and returns its length: that of the pages so far if an error record ends it.
fn block(record: &[u8], pages: &mut Vec<ReadPage>) -> usize {
    assert_eq!(
        crc32c(&record[..28]),
        u32_at(record, 28),
        "a block record's CRC"
    );
    let (partition, task, attempt) = (u32_at(record, 4), u32_at(record, 8), u32_at(record, 12));
    let (count, bytes) = (u32_at(record, 16), u64_at(record, 20));
    let end = 32 + usize::try_from(bytes).unwrap();
    let mut at = 32;
    for _ in 0..count {
        if u32_at(record, at) == ERROR {
            return at;
        }
        assert_eq!(
            u32_at(record, at),
            partition,
            "a frame of another partition"
        );
        let length = u32_at(record, at + 4) as usize;
        let page = record[at + 12..at + 12 + length].to_vec();
        assert_eq!(
            frame(partition, &page),
            record[at..at + 12 + length],
            "a page's CRC"
        );
        pages.push(ReadPage {
            partition,
            task,
            attempt,
            page,
        });
        at += 12 + length;
    }
    assert_eq!(at, end, "a block's bytes");
    end
}
