//! How the bytes of a range are fetched. Pure.
//!
//! Neighbouring partitions lie side by side in a segment. A range that is short against a chunk is
//! therefore fetched with all of its chunk, which stays in memory for the readers of the
//! neighbours, if enough of these read at this daemon; any other range is fetched as it is, in
//! parts of at most a chunk. Invariant: the parts of a range cover it exactly once, in order.

use std::ops::{Range, RangeInclusive};

/// One piece of a range and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes, for this reader alone.
    Exact(Range<u64>),
    /// `wanted`, out of a chunk that is shared.
    Shared {
        /// The chunk's number in the segment.
        chunk: u64,
        /// The bytes to fetch.
        fetch: Range<u64>,
        /// The bytes wanted of them.
        wanted: Range<u64>,
    },
}

impl Part {
    /// The bytes wanted.
    pub fn wanted(&self) -> &Range<u64> {
        match self {
            Self::Exact(range) | Self::Shared { wanted: range, .. } => range,
        }
    }

    /// How many bytes have to be fetched for it.
    pub fn fetched(&self) -> u64 {
        match self {
            Self::Exact(range) | Self::Shared { fetch: range, .. } => range.end - range.start,
        }
    }
}

/// What one request costs, in bytes that could be fetched instead. A base directory answers 64
/// requests at a time, some 1,600 a second at 40 ms each; so many MiB a second are more than a
/// network of 10 Gbit/s carries.
const REQUEST: u64 = 1 << 20;

/// The smallest chunk that is worth sharing.
const SMALLEST: u64 = 64 << 10;

/// The size of shared chunks for a handle of so many ranges: halved until one chunk for each of
/// them fits into half of the cache. Whoever reads the next partition goes through the same
/// segments in the same order: were there more chunks than the cache holds, each would be gone
/// before its next reader comes. `None` if even the smallest are too large.
pub fn shared_size(chunk_size: u64, ranges: usize, cache_share: u64) -> Option<u64> {
    let most = cache_share / 2 / (ranges as u64).max(1);
    let mut size = chunk_size;
    while size > most && size / 2 >= SMALLEST {
        size /= 2;
    }
    (size <= most).then_some(size)
}

/// Whether a range is short enough to be fetched with its neighbours at all.
pub fn is_short(length: u64, chunk_size: u64) -> bool {
    length < chunk_size / 2
}

/// Whether a short range is better fetched with its whole chunk, of which `density` is the share
/// that this daemon will be asked for, as far as can be told. One request for the chunk stands
/// against one for each range in it that is read here.
pub fn is_shared(length: u64, blocks_end: u64, chunk_size: u64, density: f64) -> bool {
    let chunk = chunk_size.min(blocks_end);
    let readers = density * chunk as f64 / length as f64;
    chunk <= REQUEST || readers * (REQUEST + length) as f64 >= (REQUEST + chunk) as f64
}

/// The shared chunks of a segment: each of `size` bytes, counted from the beginning of the segment,
/// but the last one ends with the blocks. What would be less than a quarter of a chunk behind it is
/// part of it: a segment of a little more than two chunks costs two requests.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    size: u64,
    blocks_end: u64,
    last: u64,
}

impl Chunks {
    /// The chunks of a segment whose blocks end at `blocks_end`.
    pub fn new(size: u64, blocks_end: u64) -> Self {
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

    /// The numbers of those that a range of bytes lies in.
    pub fn of(&self, range: &Range<u64>) -> RangeInclusive<u64> {
        self.number(range.start)..=self.number(range.end - 1)
    }

    /// Where one ends.
    pub fn end(&self, chunk: u64) -> u64 {
        match chunk == self.last {
            true => self.blocks_end,
            false => (chunk + 1) * self.size,
        }
    }

    /// Cuts a range of bytes into parts of chunks.
    pub fn cut(&self, range: Range<u64>) -> Vec<Part> {
        let part = |chunk| {
            let fetch = chunk * self.size..self.end(chunk);
            let wanted = range.start.max(fetch.start)..range.end.min(fetch.end);
            Part::Shared {
                chunk,
                fetch,
                wanted,
            }
        };
        self.of(&range).map(part).collect()
    }
}

/// Cuts a range into parts for one reader alone: one of `first` bytes, then of `chunk_size`.
pub fn rest(range: Range<u64>, first: u64, chunk_size: u64) -> Vec<Part> {
    let (mut at, mut size, mut cut) = (range.start, first, Vec::new());
    while at < range.end {
        let end = at.saturating_add(size).min(range.end);
        cut.push(Part::Exact(at..end));
        (at, size) = (end, chunk_size);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_range_once_and_fetch_only_blocks(
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
        fn a_rest_is_covered_once(
            start in 16u64..5000, length in 1u64..5000, first in 1u64..9000, chunk in 1u64..1000,
        ) {
            let mut at = start;
            for part in rest(start..start + length, first, chunk) {
                prop_assert_eq!(part.wanted().start, at);
                at = part.wanted().end;
            }
            prop_assert_eq!(at, start + length);
        }
    }

    #[test]
    fn short_neighbours_share_a_chunk() {
        let cut = |range, blocks_end| Chunks::new(400, blocks_end).cut(range);
        let shared = |range, blocks_end| match &cut(range, blocks_end)[..] {
            [Part::Shared { chunk, fetch, .. }] => (*chunk, fetch.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(shared(410..430, 1000), (1, 400..800));
        assert_eq!(shared(430..460, 1000), (1, 400..800));
        assert_eq!(shared(900..950, 1000), (2, 800..1000));
        assert!(is_short(199, 400) && !is_short(200, 400));
        // A little that is left at the end goes with what is before it.
        assert_eq!(shared(810..830, 900), (2, 800..900));
        assert_eq!(shared(810..830, 899), (1, 400..899));
        assert_eq!(shared(790..810, 899), (1, 400..899));
        assert_eq!(shared(790..800, 800), (1, 400..800));
        assert_eq!(shared(20..30, 40), (0, 0..40));
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
        // A small chunk that was configured is not made smaller.
        assert_eq!(shared_size(100 << 10, 2, 1 << 20), Some(100 << 10));
        assert_eq!(shared_size(100 << 10, 6, 1 << 20), None);
    }

    proptest! {
        /// Number and end name a chunk, whatever sizes the readers of a segment use.
        #[test]
        fn chunks_of_different_sizes_are_told_apart(
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
    fn a_chunk_is_fetched_where_enough_of_it_is_read_here() {
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
        // Nothing is known yet: only what costs hardly more than a request.
        assert!(!shared(1, 0.0));
        assert!(is_shared(1 << 10, 1 << 20, 8 << 20, 0.0));
    }
}
