//! Encodes batches and decodes read streams incrementally: a truncated stream yields the complete
//! pages before the cut.
//!
//! Written from `docs/protocol.md`, not from the daemon's code. Every error here is corruption; a
//! truncated stream is not an error.

use anyhow::{Result, bail, ensure};
use crc_fast::{CrcAlgorithm, checksum};
use serde_json::Value;

const BLOCK: u32 = 0xFFFF_FFF0;
const END: u32 = 0xFFFF_FFF1;
const ERROR: u32 = 0xFFFF_FFF2;
const FRAME: usize = 12;

pub fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("32 bits")
}

/// Appends a frame to a batch, and its CRC to those that the finish request will be checked by.
pub fn put_frame(batch: &mut Vec<u8>, crcs: &mut Vec<u8>, partition: u32, page: &[u8]) {
    let start = batch.len();
    batch.extend(partition.to_le_bytes());
    batch.extend(u32::try_from(page.len()).expect("small").to_le_bytes());
    batch.extend(page);
    let crc = crc32c(&batch[start..]).to_le_bytes();
    batch.splice(start + 8..start + 8, crc);
    crcs.extend(crc);
}

/// An event in a read stream.
#[derive(Debug)]
pub enum Event {
    Page {
        partition: u32,
        task: u32,
        attempt: u32,
        page: Vec<u8>,
    },
    /// The end record, with the right counts.
    End,
    Problem(Value),
}

#[derive(Debug)]
struct Block {
    partition: u32,
    task: u32,
    attempt: u32,
    pages_left: u32,
    bytes_left: u64,
}

/// The state of a decoder.
#[derive(Debug, Default)]
pub struct ReadStream {
    buffer: Vec<u8>,
    block: Option<Block>,
    blocks: u32,
    pages: u64,
    bytes: u64,
    ended: bool,
}

impl ReadStream {
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>> {
        ensure!(!self.ended, "{} bytes after the end", bytes.len());
        self.buffer.extend(bytes);
        let (mut events, mut at) = (Vec::new(), 0);
        while let Some((length, event)) = self.next(at)? {
            at += length;
            events.extend(event);
        }
        self.buffer.drain(..at);
        ensure!(
            !self.ended || self.buffer.is_empty(),
            "{} bytes after the end",
            self.buffer.len()
        );
        Ok(events)
    }

    /// The next complete record or frame: its length, and its event if it has one.
    fn next(&mut self, at: usize) -> Result<Option<(usize, Option<Event>)>> {
        let rest = &self.buffer[at..];
        if self.ended || rest.len() < 8 {
            return Ok(None);
        }
        if let Some(block) = &mut self.block {
            let Some((length, event)) = block.frame(rest)? else {
                return Ok(None);
            };
            self.pages += 1;
            self.bytes += (length - FRAME) as u64;
            if block.pages_left == 0 {
                ensure!(
                    block.bytes_left == 0,
                    "a block has {} bytes left after its pages",
                    block.bytes_left
                );
                self.block = None;
            }
            return Ok(Some((length, Some(event))));
        }
        match u32_at(rest, 0) {
            BLOCK if rest.len() >= 32 => {
                self.block = Some(Block::of(rest)?);
                self.blocks += 1;
                Ok(Some((32, None)))
            }
            END if rest.len() >= 32 => {
                check_record(rest)?;
                let stated = (u32_at(rest, 4), u64_at(rest, 8), u64_at(rest, 16));
                let received = (self.blocks, self.pages, self.bytes);
                ensure!(
                    stated == received,
                    "the end record counts {stated:?}, received were {received:?}"
                );
                self.ended = true;
                Ok(Some((32, Some(Event::End))))
            }
            ERROR if rest.len() >= 8 + u32_at(rest, 4) as usize => {
                let length = 8 + u32_at(rest, 4) as usize;
                self.ended = true;
                let problem = serde_json::from_slice(&rest[8..length])?;
                Ok(Some((length, Some(Event::Problem(problem)))))
            }
            BLOCK | END | ERROR => Ok(None),
            other => bail!("no record starts with {other:#x}"),
        }
    }
}

impl Block {
    fn of(record: &[u8]) -> Result<Self> {
        check_record(record)?;
        let block = Self {
            partition: u32_at(record, 4),
            task: u32_at(record, 8),
            attempt: u32_at(record, 12),
            pages_left: u32_at(record, 16),
            bytes_left: u64_at(record, 20),
        };
        ensure!(block.pages_left > 0, "a block without pages: {block:?}");
        Ok(block)
    }

    fn frame(&mut self, rest: &[u8]) -> Result<Option<(usize, Event)>> {
        let length = FRAME + u32_at(rest, 4) as usize;
        if rest.len() < length {
            return Ok(None);
        }
        ensure!(
            u32_at(rest, 0) == self.partition,
            "a frame of another partition"
        );
        let crc = crc32c(&[&rest[..8], &rest[FRAME..length]].concat());
        ensure!(crc == u32_at(rest, 8), "CRC mismatch of a page in {self:?}");
        ensure!(
            self.bytes_left >= length as u64,
            "a block is shorter than its pages: {self:?}"
        );
        self.pages_left -= 1;
        self.bytes_left -= length as u64;
        let event = Event::Page {
            partition: self.partition,
            task: self.task,
            attempt: self.attempt,
            page: rest[FRAME..length].to_vec(),
        };
        Ok(Some((length, event)))
    }
}

fn check_record(record: &[u8]) -> Result<()> {
    let matches = crc32c(&record[..28]) == u32_at(record, 28);
    ensure!(matches, "CRC mismatch of the record {:?}", &record[..32]);
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
