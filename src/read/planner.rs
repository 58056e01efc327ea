//! How the bytes of a range are fetched. Pure.
//!
//! Neighbouring partitions lie side by side in a segment. A range that is short against a chunk is
//! therefore fetched with all of its chunk, which stays in memory for the readers of the
//! neighbours; a long range is fetched as it is, in parts of at most a chunk, since nobody else
//! would want it. Invariant: the parts of a range cover it exactly once, in order.

use std::ops::Range;

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
}

/// Cuts `range` of a segment whose blocks end at `blocks_end` into parts.
pub fn parts(range: Range<u64>, blocks_end: u64, chunk_size: u64) -> Vec<Part> {
    let length = range.end - range.start;
    if length >= chunk_size / 2 {
        return rest(range, chunk_size, chunk_size);
    }
    let chunks = range.start / chunk_size..=(range.end - 1) / chunk_size;
    chunks
        .map(|chunk| {
            let start = chunk * chunk_size;
            let fetch = start..(start + chunk_size).min(blocks_end);
            let wanted = range.start.max(fetch.start)..range.end.min(fetch.end);
            Part::Shared {
                chunk,
                fetch,
                wanted,
            }
        })
        .collect()
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
            for part in parts(start..end, blocks_end, chunk) {
                let wanted = part.wanted().clone();
                prop_assert_eq!(wanted.start, at);
                prop_assert!(wanted.end > wanted.start);
                at = wanted.end;
                if let Part::Shared { fetch, .. } = part {
                    prop_assert!(fetch.start <= wanted.start && wanted.end <= fetch.end);
                    prop_assert!(fetch.end <= blocks_end && fetch.end - fetch.start <= chunk);
                }
            }
            prop_assert_eq!(at, end);
        }
    }

    #[test]
    fn short_neighbours_share_a_chunk_and_long_ranges_are_fetched_alone() {
        let shared = |range| match &parts(range, 1000, 400)[..] {
            [Part::Shared { chunk, fetch, .. }] => (*chunk, fetch.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(shared(410..430), (1, 400..800));
        assert_eq!(shared(430..460), (1, 400..800));
        assert_eq!(shared(900..950), (2, 800..1000));
        assert_eq!(
            parts(100..900, 1000, 400),
            [Part::Exact(100..500), Part::Exact(500..900)]
        );
    }
}
