//! Segments that this daemon wrote, held in memory until the memory is needed.
//!
//! Does: serve footers and ranges without a request to a base directory. When writers need memory,
//! it moves the oldest segment to the read pool, or evicts it if that has no free memory. Does not:
//! reserve memory; the bytes own the reservations of their batches. Invariant: every segment here
//! is durable in the base directory that its address names.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::lru::Lru;
use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, Reclaim, WeakReservation};
use crate::segment::footer::Footer;

/// A segment in memory.
#[derive(Debug)]
pub struct HotSegment {
    pub address: SegmentAddress,
    pub footer: Arc<Footer>,
    /// The slices of the object, each with its offset.
    content: Vec<(u64, Bytes)>,
    size: u64,
    reservations: Vec<WeakReservation>,
}

impl HotSegment {
    /// A segment with the object's bytes, in order, and the reservations that they hold in the
    /// write pool.
    pub fn new(
        address: SegmentAddress,
        footer: Arc<Footer>,
        content: Vec<Bytes>,
        reservations: Vec<WeakReservation>,
    ) -> Self {
        let mut size = 0;
        let slices = content.into_iter().map(|bytes| {
            let offset = size;
            size += bytes.len() as u64;
            (offset, bytes)
        });
        Self {
            address,
            footer,
            content: slices.collect(),
            size,
            reservations,
        }
    }

    /// Moves the reservations to another pool. Returns the bytes released in the former pool, or
    /// `None` if the other is full; reservations that have moved by then stay there until the
    /// segment is dropped.
    fn transfer_to(&self, pool: &MemoryPool) -> Option<u64> {
        let moved = self.reservations.iter().map(|r| r.transfer_to(pool));
        moved.sum()
    }

    /// Whether the segment has all of a range.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.end <= self.size && range.start <= range.end
    }

    /// The slices of a range, without a copy; `None` if the segment is shorter.
    pub fn range(&self, range: Range<u64>) -> Option<Vec<Bytes>> {
        self.first_slices(range, usize::MAX)
    }

    /// The first slices of a range, at most `most`, without a copy; `None` if the segment is
    /// shorter.
    pub fn first_slices(&self, range: Range<u64>, most: usize) -> Option<Vec<Bytes>> {
        if !self.contains(&range) {
            return None;
        }
        let at_or_before = |(offset, _): &(u64, _)| *offset <= range.start;
        let first = self.content.partition_point(at_or_before).saturating_sub(1);
        let mut out = Vec::new();
        for (offset, bytes) in &self.content[first..] {
            if *offset >= range.end || out.len() == most {
                break;
            }
            let from = range.start.saturating_sub(*offset);
            let to = (range.end - offset).min(bytes.len() as u64);
            if from < to {
                out.push(bytes.slice(index(from)..index(to)));
            }
        }
        Some(out)
    }
}

/// An offset within a slice in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("at most the length of a slice")
}

type Segments = Lru<SegmentId, Arc<HotSegment>>;

/// All hot segments of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct HotSegments {
    segments: Arc<SegmentMaps>,
    write_pool: MemoryPool,
}

/// The segments in memory; frees memory of the write pool. It must not own that pool, which owns
/// it.
///
/// A segment is in at most one of the two maps. Code that locks both locks `written` first.
struct SegmentMaps {
    /// Segments with reservations in the write pool; never marked as used, so the oldest is
    /// evicted first.
    written: Mutex<Segments>,
    /// Segments whose reservations have moved to the read pool.
    transferred: Arc<Mutex<Segments>>,
    read_pool: MemoryPool,
}

impl Reclaim for SegmentMaps {
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        self.written.lock().victim_last_use(of_query)
    }

    fn reclaim(&self, of_query: Option<&str>) -> Option<u64> {
        // `written` stays locked until the segment is in `transferred`, so that `get` and `forget`
        // cannot miss it. Releasing reservations under this lock grants them to waiters, which is
        // safe: waking a task only schedules it, and nothing that runs here locks `written` again.
        let mut written = self.written.lock();
        let (id, segment, size) = written.evict(of_query)?;
        let Some(freed) = segment.transfer_to(&self.read_pool) else {
            return Some(size);
        };
        let exchange = segment.address.exchange.clone();
        let tick = self.read_pool.next_use_tick();
        let mut transferred = self.transferred.lock();
        transferred.insert(id, exchange, segment, size, tick);
        Some(freed)
    }
}

impl HotSegments {
    /// No segments yet, for the pool that segments are written from and the one that may hold them
    /// afterwards.
    pub fn new(write_pool: MemoryPool, read_pool: MemoryPool) -> Self {
        let segments = Arc::new(SegmentMaps {
            written: Mutex::new(Lru::new()),
            transferred: Lru::registered(&read_pool),
            read_pool,
        });
        write_pool.add_reclaimer(Arc::clone(&segments) as Arc<dyn Reclaim>);
        Self {
            segments,
            write_pool,
        }
    }

    /// Caches a durable segment. If a writer waits for memory, the oldest segments are evicted at
    /// once.
    pub fn insert(&self, segment: HotSegment) {
        let (id, size) = (segment.address.segment, segment.size);
        let exchange = segment.address.exchange.clone();
        let mut written = self.segments.written.lock();
        written.insert(id, exchange, Arc::new(segment), size, 0);
        drop(written);
        self.write_pool.reclaim_for_waiters();
    }

    /// A segment of this exchange, if it is still in memory. The exchange is compared, since a
    /// forged handle, or an object copied under another key, can name a segment of another
    /// exchange.
    pub fn get(&self, exchange: &ExchangeId, id: SegmentId) -> Option<Arc<HotSegment>> {
        let written = self.segments.written.lock().peek(&id).cloned();
        let found = written.or_else(|| {
            let tick = self.segments.read_pool.next_use_tick();
            self.segments.transferred.lock().get(&id, tick).cloned()
        });
        found.filter(|segment| segment.address.exchange == *exchange)
    }

    /// Removes a segment from memory; the stored object stays.
    pub fn remove(&self, at: &SegmentAddress) {
        for segments in [&self.segments.written, &*self.segments.transferred] {
            let mut segments = segments.lock();
            if segments.peek(&at.segment).is_some_and(|s| s.address == *at) {
                segments.remove(&at.segment);
            }
        }
    }

    /// Bytes that are cached.
    pub fn bytes(&self) -> u64 {
        let written = self.segments.written.lock();
        written.bytes() + self.segments.transferred.lock().bytes()
    }

    /// The segments of an exchange that are in memory.
    pub fn ids(&self, exchange: &ExchangeId) -> Vec<SegmentId> {
        let mut ids = self.segments.written.lock().keys(exchange);
        ids.extend(self.segments.transferred.lock().keys(exchange));
        ids
    }

    /// The segments of an exchange that are in memory, with their content.
    pub fn of_exchange(&self, exchange: &ExchangeId) -> Vec<Arc<HotSegment>> {
        let ids = self.ids(exchange).into_iter();
        ids.filter_map(|id| self.get(exchange, id)).collect()
    }

    /// The exchanges that have a segment here.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        let mut exchanges = self.segments.written.lock().exchanges();
        exchanges.extend(self.segments.transferred.lock().exchanges());
        exchanges
    }

    /// Removes the segments of a closed exchange from memory.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.segments.written.lock().forget(exchange);
        self.segments.transferred.lock().forget(exchange);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DaemonId;
    use crate::memory::ReservedBytes;
    use crate::segment::blocks::Blocks;

    struct Daemon {
        hot: HotSegments,
        write: MemoryPool,
        read: MemoryPool,
    }

    impl Daemon {
        fn new(write: u64, read: u64) -> Self {
            let (write, read) = (
                MemoryPool::new("write", write),
                MemoryPool::new("read", read),
            );
            let hot = HotSegments::new(write.clone(), read.clone());
            Self { hot, write, read }
        }

        /// Inserts a segment of one batch of `bytes`, written by a query.
        fn insert(&self, query: &str, sequence: u64, bytes: usize) {
            let reserved = self.write.try_reserve(query, bytes as u64).unwrap();
            let (content, memory) =
                ReservedBytes::into_transferable(vec![0; bytes].into(), reserved);
            let exchange: ExchangeId = query.parse().unwrap();
            let segment = id(sequence);
            let footer = Footer {
                exchange: exchange.clone(),
                segment,
                sealed_millis: 0,
                sinks: Vec::new(),
                blocks: Blocks::default(),
                commits: Vec::new(),
            };
            let address = SegmentAddress {
                exchange,
                base: "a".parse().unwrap(),
                segment,
            };
            let segment = HotSegment::new(address, Arc::new(footer), vec![content], vec![memory]);
            self.hot.insert(segment);
        }

        fn cached(&self) -> Vec<u64> {
            let queries = ["q", "r"].map(|query| query.parse().unwrap());
            let of = |n: &u64, query: &ExchangeId| self.hot.get(query, id(*n)).is_some();
            let present = |n: &u64| queries.iter().any(|query| of(n, query));
            (1..=3).filter(present).collect()
        }

        fn used(&self) -> (u64, u64) {
            (self.write.used(), self.read.used())
        }
    }

    fn id(sequence: u64) -> SegmentId {
        SegmentId {
            daemon: DaemonId(1),
            sequence,
        }
    }

    fn exchange(name: &str) -> ExchangeId {
        name.parse().unwrap()
    }

    #[test]
    fn a_segment_is_served_to_its_own_exchange_only() {
        // Story: a handle with a valid checksum named a segment of another exchange. Without this
        // comparison no check failed, and such a handle read another query's pages.
        let daemon = Daemon::new(100, 100);
        daemon.insert("q", 1, 40);
        assert!(daemon.hot.get(&exchange("q"), id(1)).is_some());
        assert!(daemon.hot.get(&exchange("r"), id(1)).is_none());
        // The same after it has moved to the pool for reading.
        let _writing = daemon.write.try_reserve("q", 90).unwrap();
        assert_eq!(daemon.used(), (90, 40));
        assert!(daemon.hot.get(&exchange("q"), id(1)).is_some());
        assert!(daemon.hot.get(&exchange("r"), id(1)).is_none());
    }

    #[test]
    fn any_range_of_a_segment_is_served_from_its_slices_and_none_beyond_it() {
        let object: Vec<u8> = (0..10).collect();
        let slices = [0..3, 3..3, 3..4, 4..10].map(|part| object[part].to_vec().into());
        let daemon = Daemon::new(100, 100);
        daemon.insert("q", 1, 1);
        let other = daemon.hot.get(&exchange("q"), id(1)).unwrap();
        let (address, footer) = (other.address.clone(), Arc::clone(&other.footer));
        let segment = HotSegment::new(address, footer, slices.into(), Vec::new());
        for start in 0..=10 {
            for end in start..=10 {
                let whole = segment.range(start..end).unwrap().concat();
                assert_eq!(whole, object[index(start)..index(end)], "{start}..{end}");
                for most in 0..4 {
                    let first = segment.first_slices(start..end, most).unwrap();
                    assert!(first.len() <= most && first.iter().all(|s| !s.is_empty()));
                    assert!(whole.starts_with(&first.concat()));
                    let all = segment.range(start..end).unwrap().len();
                    assert_eq!(first.len(), all.min(most), "{start}..{end}");
                }
            }
            assert!(segment.range(start..11).is_none());
        }
        let (start, before) = (5, 4);
        assert!(segment.range(start..before).is_none());
    }

    #[test]
    fn a_segment_is_removed_by_its_whole_address_from_either_pool() {
        let daemon = Daemon::new(100, 100);
        daemon.insert("q", 1, 40);
        daemon.insert("q", 2, 40);
        let writing = daemon.write.try_reserve("q", 60).unwrap();
        let at = |base: &str, sequence| SegmentAddress {
            exchange: exchange("q"),
            base: base.parse().unwrap(),
            segment: id(sequence),
        };
        let hot = &daemon.hot;
        let of = |name| hot.of_exchange(&exchange(name)).len();
        assert_eq!((hot.bytes(), of("q"), of("r")), (80, 2, 0));
        assert_eq!(hot.exchanges(), [exchange("q")].into());
        let mut ids = hot.ids(&exchange("q"));
        ids.sort_unstable();
        assert_eq!(ids, [id(1), id(2)]);
        hot.remove(&at("b", 1));
        assert_eq!(daemon.cached(), [1, 2], "it lies elsewhere");
        hot.remove(&at("a", 1));
        assert_eq!((daemon.cached(), hot.bytes()), (vec![2], 40));
        hot.remove(&at("a", 2));
        assert_eq!((daemon.cached(), hot.bytes()), (vec![], 0));
        drop(writing);
        assert_eq!(daemon.used(), (0, 0));
    }

    #[test]
    fn a_segment_that_writers_displace_stays_for_readers_until_they_need_the_memory() {
        let daemon = Daemon::new(100, 100);
        daemon.insert("q", 1, 40);
        daemon.insert("q", 2, 50);
        let writing = daemon.write.try_reserve("q", 60).unwrap();
        assert_eq!((daemon.cached(), daemon.used()), (vec![1, 2], (60, 90)));
        assert!(
            daemon.hot.get(&exchange("q"), id(1)).is_some(),
            "now the most recently used"
        );
        let reading = daemon.read.try_reserve("q", 40).unwrap();
        assert_eq!((daemon.cached(), daemon.used()), (vec![1], (60, 80)));
        daemon.hot.forget(&"q".parse().unwrap());
        assert_eq!((daemon.cached(), daemon.used()), (vec![], (60, 40)));
        drop((writing, reading));
        assert_eq!((daemon.hot.bytes(), daemon.used()), (0, (0, 0)));
    }

    #[test]
    fn dropping_a_daemon_drops_its_segments() {
        let daemon = Daemon::new(100, 100);
        daemon.insert("q", 1, 40);
        daemon.insert("q", 2, 40);
        drop(daemon.write.try_reserve("q", 60));
        assert_eq!(daemon.used(), (40, 40));
        let segments = Arc::downgrade(&daemon.hot.segments);
        drop(daemon);
        assert!(segments.upgrade().is_none());
    }

    #[test]
    fn the_oldest_segment_is_evicted_if_the_read_pool_has_no_room() {
        let daemon = Daemon::new(100, 30);
        daemon.insert("q", 1, 40);
        daemon.insert("q", 2, 20);
        daemon.insert("q", 3, 40);
        let _writing = daemon.write.try_reserve("q", 50).unwrap();
        assert_eq!((daemon.cached(), daemon.used()), (vec![2, 3], (90, 20)));
    }

    #[test]
    fn bytes_that_a_reader_still_holds_count_in_the_pool_that_they_moved_to() {
        let daemon = Daemon::new(100, 100);
        daemon.insert("q", 1, 80);
        let segment = daemon.hot.get(&exchange("q"), id(1)).unwrap();
        let slice = segment.range(10..20).unwrap();
        drop(segment);
        let _writing = daemon.write.try_reserve("q", 60).unwrap();
        assert_eq!(daemon.used(), (60, 80));
        assert!(
            daemon.read.try_reserve("q", 40).is_none(),
            "evicted, but still in use"
        );
        assert_eq!((daemon.cached(), daemon.used()), (vec![], (60, 80)));
        drop(slice);
        assert_eq!(daemon.used(), (60, 0));
    }

    #[test]
    fn a_query_at_its_limit_has_its_own_segments_evicted() {
        let daemon = {
            let write = MemoryPool::limited("write", 100, Some(50));
            let read = MemoryPool::limited("read", 100, Some(50));
            let hot = HotSegments::new(write.clone(), read.clone());
            Daemon { hot, write, read }
        };
        daemon.insert("q", 1, 40);
        daemon.insert("r", 2, 40);
        let _writing = daemon.write.try_reserve("r", 20).unwrap();
        assert_eq!((daemon.cached(), daemon.used()), (vec![1, 2], (60, 40)));
        let _reading = daemon.read.try_reserve("r", 20).unwrap();
        assert_eq!((daemon.cached(), daemon.used()), (vec![1], (60, 20)));
    }
}
