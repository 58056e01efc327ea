//! What the pages hold, and what a reader must therefore find.
//!
//! A page tells its exchange, task, attempt, partition and position, and the rest of it follows
//! from these; so whoever reads a page can say whether it is the right one, in the right place,
//! byte for byte. Pure.

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

/// Which page of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId {
    pub exchange: u64,
    pub task: u32,
    pub attempt: u32,
    pub partition: u32,
    /// Of the pages of this attempt for this partition, from 0.
    pub position: u32,
}

impl PageId {
    /// The whole page.
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

    /// Which page this is, if it is exactly one of ours.
    pub fn of(page: &[u8]) -> Result<Self> {
        ensure!(
            page.len() >= HEAD,
            "a page of {} bytes is none of ours",
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
        ensure!(id.page() == page, "{id:?} holds other bytes than it should");
        Ok(id)
    }

    fn hash(&self) -> u64 {
        let place = u64::from(self.partition) << 32 | u64::from(self.position);
        let writer = u64::from(self.task) << 32 | u64::from(self.attempt);
        mix(&[self.exchange, writer, place])
    }
}

/// Most pages are small, a few are large, as Trino's are.
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
    /// Some attempts write nothing at all.
    pub fn draw(rng: &Random, partitions: u32) -> Self {
        let batches = rng.next_u64() % 7;
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
            let held = content.0.entry(partition).or_default();
            let id = PageId {
                exchange,
                task,
                attempt,
                partition,
                position: held.pages,
            };
            held.bytes += length(id.hash()) as u64;
            held.pages += 1;
        }
        content
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub pages: u32,
    pub bytes: u64,
}

/// What there is, by partition.
#[derive(Clone, Debug, Default)]
pub struct Content(pub BTreeMap<u32, Held>);

impl Content {
    pub fn total(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(pages, bytes), held| {
            (pages + u64::from(held.pages), bytes + held.bytes)
        })
    }
}

/// All that was read of one exchange, to be compared with what must be there.
#[derive(Debug, Default)]
pub struct Seen {
    /// Positions by partition and task.
    pages: BTreeMap<(u32, u32), Vec<u32>>,
}

impl Seen {
    pub fn add(&mut self, pages: &[PageId]) {
        for id in pages {
            let positions = self.pages.entry((id.partition, id.task)).or_default();
            positions.push(id.position);
        }
    }

    /// Every page of each task exactly once.
    pub fn check(mut self, expected: &BTreeMap<u32, Content>) -> Result<()> {
        for (task, content) in expected {
            for (partition, held) in &content.0 {
                let mut positions = self.pages.remove(&(*partition, *task)).unwrap_or_default();
                positions.sort_unstable();
                ensure!(
                    positions == (0..held.pages).collect::<Vec<_>>(),
                    "task {task}, partition {partition}: {} pages are there, read were those at \
                     {positions:?}",
                    held.pages
                );
            }
        }
        ensure!(
            self.pages.is_empty(),
            "pages came that nobody has chosen: {:?}",
            self.pages
        );
        Ok(())
    }
}
