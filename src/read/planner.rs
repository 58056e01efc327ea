//! Decides how the bytes of a range are fetched. Pure.
//!
//! Neighbouring partitions are adjacent in a segment. If a range is short compared to a chunk, and
//! enough of the neighbouring partitions are read at this daemon, the whole chunk is fetched and
//! cached for their readers. Any other range is fetched as it is, in parts of at most a chunk.
//! Invariant: the parts of a range cover it exactly once, in order. They are made one at a time, so
//! that a range of any length needs the same memory.

use std::ops::{Range, RangeInclusive};

/// Consecutive bytes of a range, and how to get them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Fetched for this reader alone.
    Exact(Range<u64>),
    /// Part of a chunk that is shared with other readers.
    Shared {
        /// Number of the chunk in the segment.
        chunk: u64,
        /// The bytes of the chunk.
        fetch: Range<u64>,
        /// The bytes of the range in it.
        wanted: Range<u64>,
    },
}

impl Part {
    /// The bytes of the range.
    pub(super) fn wanted(&self) -> &Range<u64> {
        match self {
            Self::Exact(range) | Self::Shared { wanted: range, .. } => range,
        }
    }

    /// What is left of it after its first bytes; `None` if that is nothing.
    pub(super) fn after(&self, bytes: u64) -> Option<Self> {
        let mut rest = self.clone();
        let (Self::Exact(range) | Self::Shared { wanted: range, .. }) = &mut rest;
        range.start += bytes;
        (!range.is_empty()).then_some(rest)
    }

    /// Number of bytes that are fetched for it.
    pub(super) fn fetched(&self) -> u64 {
        match self {
            Self::Exact(range) | Self::Shared { fetch: range, .. } => range.end - range.start,
        }
    }
}

/// Cost of one request, in bytes that could be transferred instead. A base directory serves 64
/// requests at a time, about 1,600 a second at 40 ms each; as many MiB a second exceed a network of
/// 10 Gbit/s.
const REQUEST_COST: u64 = 1 << 20;

/// The smallest chunk that is worth sharing, in bytes.
const MIN_SHARED_SIZE: u64 = 64 << 10;

/// The size of shared chunks for a handle with this many ranges: halved until one chunk for each
/// range fits into half of the cache. The reader of the next partition reads the same segments in
/// the same order, so if the cache held fewer chunks, each would be evicted just before it is
/// needed. `None` if even the smallest chunks are too large.
pub(super) fn shared_size(chunk_size: u64, ranges: usize, cache_share: u64) -> Option<u64> {
    let most = cache_share / 2 / (ranges as u64).max(1);
    let mut size = chunk_size;
    while size > most && size / 2 >= MIN_SHARED_SIZE {
        size /= 2;
    }
    (size <= most).then_some(size)
}

/// Whether a range is short enough to be fetched with its whole chunk.
pub(super) fn is_short(length: u64, chunk_size: u64) -> bool {
    length < chunk_size / 2
}

/// Whether it is cheaper to fetch the whole chunk of a short range. `density` is the estimated
/// share of the chunk that this daemon will read. One request for the chunk is compared with one
/// for each range in it that is read here.
pub(super) fn is_shared(length: u64, blocks_end: u64, chunk_size: u64, density: f64) -> bool {
    let chunk = chunk_size.min(blocks_end);
    let readers = density * chunk as f64 / length as f64;
    chunk <= REQUEST_COST
        || readers * (REQUEST_COST + length) as f64 >= (REQUEST_COST + chunk) as f64
}

/// The shared chunks of a segment: each of `size` bytes from the beginning of the segment, except
/// the last one, which ends with the blocks. A remainder of less than a quarter of a chunk belongs
/// to the chunk before it, so a segment of slightly more than two chunks costs two requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    size: u64,
    blocks_end: u64,
    last: u64,
}

impl Chunks {
    /// The chunks of a segment whose blocks end at `blocks_end`.
    pub(super) fn new(size: u64, blocks_end: u64) -> Self {
        let (full, rest) = (blocks_end / size, blocks_end % size);
        let last = match rest < size.div_ceil(4) {
            true => full.saturating_sub(1),
            false => full,
        };
        Self {
            size,
            blocks_end,
            last,
        }
    }

    fn number(&self, offset: u64) -> u64 {
        (offset / self.size).min(self.last)
    }

    /// The numbers of the chunks that a range of bytes touches.
    pub(super) fn of(&self, range: &Range<u64>) -> RangeInclusive<u64> {
        self.number(range.start)..=self.number(range.end - 1)
    }

    /// Offset at which a chunk ends.
    pub(super) fn end(&self, chunk: u64) -> u64 {
        match chunk == self.last {
            true => self.blocks_end,
            false => (chunk + 1) * self.size,
        }
    }

    /// Cuts a range at chunk boundaries into shared parts.
    pub(super) fn cut(self, range: Range<u64>) -> Parts {
        let cut = Cut::Shared(self);
        Parts { rest: range, cut }
    }

    /// The part of a range that is in the chunk of its first byte.
    fn first_part(&self, range: &Range<u64>) -> Part {
        let chunk = self.number(range.start);
        let fetch = chunk * self.size..self.end(chunk);
        let wanted = range.start..range.end.min(fetch.end);
        Part::Shared {
            chunk,
            fetch,
            wanted,
        }
    }
}

/// The parts of a range that have not been made yet.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    rest: Range<u64>,
    cut: Cut,
}

#[derive(Debug, Clone)]
enum Cut {
    Shared(Chunks),
    /// The size of the next part, and of those after it.
    Exact(u64, u64),
}

impl Parts {
    /// The parts of a range for one reader alone: the first of `first` bytes, the others of
    /// `chunk_size`.
    pub(super) fn exact(range: Range<u64>, first: u64, chunk_size: u64) -> Self {
        let cut = Cut::Exact(first, chunk_size);
        Self { rest: range, cut }
    }

    /// Whether all parts have been made.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if self.rest.is_empty() {
            return None;
        }
        let part = match &mut self.cut {
            Cut::Shared(chunks) => chunks.first_part(&self.rest),
            Cut::Exact(size, later) => {
                let end = self.rest.start.saturating_add(*size).min(self.rest.end);
                *size = *later;
                Part::Exact(self.rest.start..end)
            }
        };
        self.rest.start = part.wanted().end;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shared_parts_cover_the_range_once_and_fetch_only_blocks(
            start in 16u64..5000, length in 1u64..5000, rest in 0u64..5000, chunk in 2u64..1000,
        ) {
            let (end, blocks_end) = (start + length, start + length + rest);
            let mut at = start;
            for part in Chunks::new(chunk, blocks_end).cut(start..end) {
                let wanted = part.wanted().clone();
                prop_assert_eq!(wanted.start, at);
                prop_assert!(wanted.end > wanted.start);
                at = wanted.end;
                if let Part::Shared { fetch, .. } = part {
                    prop_assert!(fetch.start <= wanted.start && wanted.end <= fetch.end);
                    prop_assert!(fetch.end <= blocks_end);
                    prop_assert!(fetch.end - fetch.start <= chunk + chunk / 4);
                }
            }
            prop_assert_eq!(at, end);
        }
    }

    proptest! {
        #[test]
        fn exact_parts_cover_the_range_once(
            start in 16u64..5000, length in 1u64..5000, first in 1u64..9000, chunk in 1u64..1000,
        ) {
            let mut at = start;
            for part in Parts::exact(start..start + length, first, chunk) {
                prop_assert_eq!(part.wanted().start, at);
                at = part.wanted().end;
            }
            prop_assert_eq!(at, start + length);
        }
    }

    /// Story: all parts of a range were made before the first was fetched. A handle that claimed a
    /// range of 2^48 bytes used 5 GB.
    #[test]
    fn the_parts_of_the_longest_range_need_the_memory_of_one() {
        const LONGEST: u64 = 1 << 48;
        assert!(size_of::<Parts>() <= 64);
        let exact = Parts::exact(16..LONGEST, 100, 50);
        let wanted: Vec<_> = exact.take(2).map(|part| part.wanted().clone()).collect();
        assert_eq!(wanted, [16..116, 116..166]);
        let shared = Chunks::new(100, LONGEST).cut(16..LONGEST);
        let wanted: Vec<_> = shared.take(2).map(|part| part.wanted().clone()).collect();
        assert_eq!(wanted, [16..100, 100..200]);
    }

    #[test]
    fn short_adjacent_ranges_share_a_chunk() {
        let cut =
            |range, blocks_end| -> Vec<Part> { Chunks::new(400, blocks_end).cut(range).collect() };
        let shared = |range, blocks_end| match &cut(range, blocks_end)[..] {
            [Part::Shared { chunk, fetch, .. }] => (*chunk, fetch.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(shared(410..430, 1000), (1, 400..800));
        assert_eq!(shared(430..460, 1000), (1, 400..800));
        assert_eq!(shared(900..950, 1000), (2, 800..1000));
        assert!(is_short(199, 400) && !is_short(200, 400));
        // A short remainder at the end belongs to the chunk before it.
        assert_eq!(shared(810..830, 900), (2, 800..900));
        assert_eq!(shared(810..830, 899), (1, 400..899));
        assert_eq!(shared(790..810, 899), (1, 400..899));
        assert_eq!(shared(790..800, 800), (1, 400..800));
        assert_eq!(shared(20..30, 40), (0, 0..40));
    }

    #[test]
    fn a_part_costs_what_is_fetched_for_it_and_its_rest_begins_behind_its_first_bytes() {
        let mut parts = Parts::exact(100..170, 50, 50);
        let exact = parts.next().unwrap();
        assert!(!parts.is_empty(), "the next one is the last");
        assert_eq!((exact.fetched(), parts.next().unwrap().fetched()), (50, 20));
        assert!(parts.is_empty());
        assert_eq!(exact.after(20), Some(Part::Exact(120..150)));
        assert_eq!(exact.after(50), None);
        let shared = Chunks::new(400, 1000).cut(410..430).next().unwrap();
        assert_eq!(shared.fetched(), 400);
        let rest = shared.after(5).unwrap();
        assert_eq!((rest.wanted().clone(), rest.fetched()), (415..430, 400));
    }

    #[test]
    fn a_range_that_ends_with_a_chunk_does_not_touch_the_next_one() {
        let chunks = Chunks::new(400, 2000);
        assert_eq!(chunks.of(&(0..400)), 0..=0);
        assert_eq!(chunks.of(&(399..401)), 0..=1);
        assert_eq!(chunks.of(&(400..1200)), 1..=2);
    }

    #[test]
    fn a_chunk_of_each_range_fits_into_half_of_the_cache() {
        let size = |ranges| shared_size(8 << 20, ranges, 256 << 20);
        assert_eq!(size(1), Some(8 << 20));
        assert_eq!(size(16), Some(8 << 20));
        assert_eq!(size(17), Some(4 << 20));
        assert_eq!(size(64), Some(2 << 20));
        assert_eq!(size(2048), Some(64 << 10));
        assert_eq!(size(2049), None, "each range is fetched alone");
        // A chunk that is configured small is not made smaller.
        assert_eq!(shared_size(100 << 10, 2, 1 << 20), Some(100 << 10));
        assert_eq!(shared_size(100 << 10, 6, 1 << 20), None);
    }

    proptest! {
        /// Number and end identify a chunk, whatever sizes the readers of a segment use.
        #[test]
        fn chunks_of_different_sizes_are_distinct(
            base in 1u64..10_000, halvings in 1u32..8, blocks_end in 1u64..100_000,
        ) {
            let (large, small) = (base << halvings, base);
            let (large, small) = (Chunks::new(large, blocks_end), Chunks::new(small, blocks_end));
            for chunk in large.of(&(0..blocks_end)) {
                let same = chunk <= small.last && large.end(chunk) == small.end(chunk);
                prop_assert!(!same || chunk == 0, "{chunk}");
            }
        }
    }

    #[test]
    fn a_chunk_is_fetched_if_enough_of_it_is_read_here() {
        const SEGMENT: u64 = 64 << 20;
        let shared = |kib: u64, density| is_shared(kib << 10, SEGMENT, 8 << 20, density);
        // Everything is read here, whatever the size.
        assert!(shared(1, 1.0) && shared(1300, 1.0) && shared(4095, 1.0));
        // Of 50 partitions every third: two of the six in a chunk.
        assert!(!shared(1300, 0.33));
        // Of 1,000 every third: twenty-seven.
        assert!(shared(65, 0.33));
        // One of two hundred, as on a large cluster.
        assert!(!shared(1300, 0.005) && !shared(65, 0.005));
        // No reads were recorded yet: only chunks that cost little more than a request are shared.
        assert!(!shared(1, 0.0));
        assert!(is_shared(1 << 10, 1 << 20, 8 << 20, 0.0));
    }
}
