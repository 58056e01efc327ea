//! Frames and read records as `docs/protocol.md` specifies them, for clients of the simulation.
//!
//! Shares no code with the daemon. Invariant: bytes that violate the specification are an error.

use crc_fast::{CrcAlgorithm, checksum};

/// A page that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPage {
    pub partition: u32,
    pub task: u32,
    pub attempt: u32,
    pub page: Vec<u8>,
}

/// How a read ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With an end record whose counts are right.
    Complete,
    /// With an error record of this `type`.
    Problem(String),
    /// Without an end record.
    Missing,
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Encodes pages as a batch.
pub fn batch(pages: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (partition, page) in pages {
        let start = out.len();
        out.extend(partition.to_le_bytes());
        out.extend((page.len() as u32).to_le_bytes());
        out.extend(page);
        let crc = crc32c(&out[start..]);
        out.splice(start + 8..start + 8, crc.to_le_bytes());
    }
    out
}

/// The checksum that a finish request states.
pub fn finish_checksum(pages: &[(u32, Vec<u8>)]) -> u32 {
    let mut fields = Vec::new();
    for page in pages {
        fields.extend_from_slice(&batch(std::slice::from_ref(page))[8..12]);
    }
    crc32c(&fields)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Decodes a stream of records up to its end or to where it breaks off.
pub fn decode(stream: &[u8]) -> Result<(Vec<ReadPage>, End), String> {
    let (mut pages, mut at, mut blocks) = (Vec::new(), 0, 0);
    while stream.len() - at >= 8 {
        let rest = &stream[at..];
        match u32_at(rest, 0) {
            0xFFFF_FFF0 => match block(rest, &mut pages)? {
                Some(length) => at += length,
                None => return Ok((pages, End::Missing)),
            },
            0xFFFF_FFF1 if rest.len() < 32 => return Ok((pages, End::Missing)),
            0xFFFF_FFF1 => {
                end(rest, blocks, &pages)?;
                return Ok((pages, End::Complete));
            }
            0xFFFF_FFF2 => {
                let body = serde_json::from_slice(&rest[8..]).unwrap_or(serde_json::Value::Null);
                let problem_type = problem_type(&body);
                return Ok((pages, End::Problem(problem_type)));
            }
            other => return Err(format!("no record starts with {other:#x}")),
        }
        blocks += 1;
    }
    Ok((pages, End::Missing))
}

/// Encodes a complete stream, with one block for each page.
pub fn encode(pages: &[ReadPage]) -> Vec<u8> {
    let mut out = Vec::new();
    for page in pages {
        let frame = batch(&[(page.partition, page.page.clone())]);
        let numbers = [0xFFFF_FFF0, page.partition, page.task, page.attempt, 1];
        let mut record: Vec<u8> = numbers.iter().flat_map(|n: &u32| n.to_le_bytes()).collect();
        record.extend((frame.len() as u64).to_le_bytes());
        record.extend(crc32c(&record).to_le_bytes());
        out.extend(record);
        out.extend(frame);
    }
    let sent: usize = pages.iter().map(|page| page.page.len()).sum();
    let mut end = 0xFFFF_FFF1_u32.to_le_bytes().to_vec();
    end.extend((pages.len() as u32).to_le_bytes());
    end.extend((pages.len() as u64).to_le_bytes());
    end.extend((sent as u64).to_le_bytes());
    end.extend(0_u32.to_le_bytes());
    end.extend(crc32c(&end).to_le_bytes());
    out.extend(end);
    out
}

/// The last component of the `type` of a problem document.
pub fn problem_type(problem: &serde_json::Value) -> String {
    let kind = problem["type"].as_str().unwrap_or("?");
    kind.rsplit(':').next().unwrap_or(kind).to_owned()
}

/// Decodes one block; returns its length, or `None` if the stream ends inside it.
fn block(bytes: &[u8], pages: &mut Vec<ReadPage>) -> Result<Option<usize>, String> {
    if bytes.len() < 32 {
        return Ok(None);
    }
    if crc32c(&bytes[..28]) != u32_at(bytes, 28) {
        return Err("checksum mismatch in a block record".into());
    }
    let (partition, task, attempt) = (u32_at(bytes, 4), u32_at(bytes, 8), u32_at(bytes, 12));
    let (count, length) = (u32_at(bytes, 16), u64_at(bytes, 20) as usize);
    let mut at = 32;
    for _ in 0..count {
        if bytes.len() < at + 12 {
            return Ok(None);
        }
        let size = u32_at(bytes, at + 4) as usize;
        if bytes.len() < at + 12 + size {
            return Ok(None);
        }
        let page = bytes[at + 12..at + 12 + size].to_vec();
        if bytes[at..at + 12 + size] != batch(&[(partition, page.clone())]) {
            return Err("checksum mismatch in a page, or a page of another partition".into());
        }
        pages.push(ReadPage {
            partition,
            task,
            attempt,
            page,
        });
        at += 12 + size;
    }
    if at != 32 + length {
        return Err("the length of a block differs from its record".into());
    }
    Ok(Some(at))
}

fn end(bytes: &[u8], blocks: u32, pages: &[ReadPage]) -> Result<(), String> {
    let sent: usize = pages.iter().map(|p| p.page.len()).sum();
    let matches = crc32c(&bytes[..28]) == u32_at(bytes, 28)
        && u32_at(bytes, 4) == blocks
        && u64_at(bytes, 8) == pages.len() as u64
        && u64_at(bytes, 16) == sent as u64
        && bytes.len() == 32;
    matches
        .then_some(())
        .ok_or_else(|| "the end record does not match what was read".to_owned())
}
