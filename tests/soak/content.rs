//! The content of pages, and what a reader must therefore receive.
//!
//! A page starts with its exchange, task, attempt, partition and position; its other bytes are
//! derived from these. So a reader can check every byte of a page and its place. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use stopover::runtime::Random;

const HEAD: usize = 28;

/// Mixes a few numbers into one.
pub fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x5EED, |state, number| {
        Random::seeded(state ^ number.wrapping_mul(0xA24B_AED4_963E_E407)).next_u64()
    })
}

/// Identifies a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId {
    pub exchange: u64,
    pub task: u32,
    pub attempt: u32,
    pub partition: u32,
    /// Index among the pages of this attempt for this partition, from 0.
    pub position: u32,
}

impl PageId {
    /// The bytes of this page.
    pub fn page(&self) -> Vec<u8> {
        let hash = self.hash();
        let length = length(hash);
        let mut page = Vec::with_capacity(length + 8);
        page.extend(self.exchange.to_le_bytes());
        for part in [self.task, self.attempt, self.partition, self.position] {
            page.extend(part.to_le_bytes());
        }
        page.extend(u32::try_from(length).expect("small").to_le_bytes());
        let mut state = hash;
        while page.len() < length {
            state = state
                .rotate_left(23)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(hash);
            page.extend(state.to_le_bytes());
        }
        page.truncate(length);
        page
    }

    /// Identifies a page, and checks all of its bytes.
    pub fn of(page: &[u8]) -> Result<Self> {
        ensure!(
            page.len() >= HEAD,
            "a page of {} bytes is too short",
            page.len()
        );
        let at = |i: usize| u32::from_le_bytes(page[i..i + 4].try_into().expect("four bytes"));
        let id = Self {
            exchange: u64::from_le_bytes(page[..8].try_into().expect("eight bytes")),
            task: at(8),
            attempt: at(12),
            partition: at(16),
            position: at(20),
        };
        ensure!(
            at(24) as usize == page.len(),
            "{id:?} has {} bytes, not {}",
            page.len(),
            at(24)
        );
        ensure!(id.page() == page, "{id:?} has wrong bytes");
        Ok(id)
    }

    fn hash(&self) -> u64 {
        let target = u64::from(self.partition) << 32 | u64::from(self.position);
        let writer = u64::from(self.task) << 32 | u64::from(self.attempt);
        mix(&[self.exchange, writer, target])
    }
}

/// Most pages are small and a few are large, as in Trino.
fn length(hash: u64) -> usize {
    let (kind, size) = (hash % 100, (hash >> 8) as usize);
    match kind {
        0..70 => HEAD + size % 600,
        70..95 => 600 + size % 20_000,
        95..99 => 20_000 + size % 180_000,
        _ => 200_000 + size % 800_000,
    }
}

/// What one attempt writes: for each batch the partitions of its pages, ascending.
#[derive(Clone, Debug)]
pub struct AttemptPlan {
    pub batches: Vec<Vec<u32>>,
}

impl AttemptPlan {
    /// Draws a plan; some attempts write nothing.
    pub fn draw(rng: &Random, partitions: u32) -> Self {
        // Small ones, which have a home, are common.
        let batches = match rng.next_u64() % 10 {
            0..7 => rng.next_u64() % 7,
            _ => 1,
        };
        let batches = (0..batches).map(|_| {
            let pages = 1 + rng.next_u64() % 30;
            let draw = |_| (rng.next_u64() % u64::from(partitions)) as u32;
            let mut batch: Vec<u32> = (0..pages).map(draw).collect();
            batch.sort_unstable();
            batch
        });
        Self {
            batches: batches.collect(),
        }
    }

    /// Pages and page bytes by partition.
    pub fn content(&self, exchange: u64, task: u32, attempt: u32) -> Content {
        let mut content = Content::default();
        for &partition in self.batches.iter().flatten() {
            let totals = content.0.entry(partition).or_default();
            let id = PageId {
                exchange,
                task,
                attempt,
                partition,
                position: totals.pages,
            };
            totals.bytes += length(id.hash()) as u64;
            totals.pages += 1;
        }
        content
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub pages: u32,
    pub bytes: u64,
}

/// Totals by partition.
#[derive(Clone, Debug, Default)]
pub struct Content(pub BTreeMap<u32, Totals>);

impl Content {
    pub fn total(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(pages, bytes), totals| {
            (pages + u64::from(totals.pages), bytes + totals.bytes)
        })
    }
}

/// All pages read from one exchange, to be compared with what was written.
#[derive(Debug, Default)]
pub struct PagesRead {
    /// Positions by partition and task.
    pages: BTreeMap<(u32, u32), Vec<u32>>,
}

impl PagesRead {
    pub fn add(&mut self, pages: &[PageId]) {
        for id in pages {
            let positions = self.pages.entry((id.partition, id.task)).or_default();
            positions.push(id.position);
        }
    }

    /// Checks that every page of each task was read exactly once, and no other.
    pub fn check(mut self, expected: &BTreeMap<u32, Content>) -> Result<()> {
        for (task, content) in expected {
            for (partition, totals) in &content.0 {
                let mut positions = self.pages.remove(&(*partition, *task)).unwrap_or_default();
                positions.sort_unstable();
                ensure!(
                    positions == (0..totals.pages).collect::<Vec<_>>(),
                    "task {task}, partition {partition}: {} pages were written, read were those at \
                     {positions:?}",
                    totals.pages
                );
            }
        }
        ensure!(
            self.pages.is_empty(),
            "read pages of attempts that were not chosen: {:?}",
            self.pages
        );
        Ok(())
    }
}
