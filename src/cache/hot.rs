//! Segments that this daemon wrote lately, kept in memory while nobody needs the room.
//!
//! Does: answer footers and ranges without a request to a base directory; give the memory for
//! writing back, the oldest segment first, and have the segment stay in the memory for reading if
//! there is room that no reader wants. Does not: reserve memory itself: the bytes carry the
//! reservation of their batch. Invariant: what is here is durable in the base directory which its
//! address names.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, Reclaim, WeakReservation};
use crate::segment::footer::Footer;

/// A segment in memory.
#[derive(Debug)]
pub struct HotSegment {
    /// Where it lies.
    pub address: SegmentAddress,
    /// Its footer.
    pub footer: Arc<Footer>,
    content: Vec<Bytes>,
    starts: Vec<u64>,
    size: u64,
    memory: Vec<WeakReservation>,
}

impl HotSegment {
    /// Takes the pieces of an object, in order, and what they hold of the memory for writing.
    pub fn new(
        address: SegmentAddress,
        footer: Arc<Footer>,
        content: Vec<Bytes>,
        memory: Vec<WeakReservation>,
    ) -> Self {
        let mut size = 0;
        let starts = content
            .iter()
            .map(|piece| {
                let start = size;
                size += piece.len() as u64;
                start
            })
            .collect();
        Self {
            address,
            footer,
            content,
            starts,
            size,
            memory,
        }
    }

    /// Has its bytes held from another pool; answers how many the former one got back, or `None`
    /// if the other is full. What has been carried over by then goes with the segment.
    fn transfer_to(&self, to: &MemoryPool) -> Option<u64> {
        self.memory.iter().map(|held| held.transfer_to(to)).sum()
    }

    /// The pieces of a range, without a copy; `None` if the segment is shorter.
    pub fn range(&self, range: Range<u64>) -> Option<Vec<Bytes>> {
        if range.end > self.size || range.start > range.end {
            return None;
        }
        let first = self
            .starts
            .partition_point(|start| *start <= range.start)
            .saturating_sub(1);
        let mut out = Vec::new();
        for (piece, start) in self.content[first..].iter().zip(&self.starts[first..]) {
            if *start >= range.end {
                break;
            }
            let from = range.start.saturating_sub(*start) as usize;
            let to = (range.end - start).min(piece.len() as u64) as usize;
            if from < to {
                out.push(piece.slice(from..to));
            }
        }
        Some(out)
    }
}

struct State {
    segments: HashMap<SegmentId, Arc<HotSegment>>,
    /// Held from the memory for writing, the oldest first.
    written: VecDeque<SegmentId>,
    /// Held from the memory for reading, with the stamp of their last use.
    carried: LruCache<SegmentId, u64>,
}

impl State {
    fn new() -> Self {
        Self {
            segments: HashMap::new(),
            written: VecDeque::new(),
            carried: LruCache::unbounded(),
        }
    }

    fn is_of(&self, id: SegmentId, query: Option<&str>) -> bool {
        let segment = self.segments.get(&id);
        query.is_none_or(|query| segment.is_some_and(|s| s.address.exchange.query() == query))
    }

    /// Drops a segment that is in neither queue any more.
    fn drop_segment(&mut self, id: SegmentId) -> u64 {
        self.segments.remove(&id).map_or(0, |s| s.size)
    }

    fn remove_where(&mut self, gone: impl Fn(&HotSegment) -> bool) {
        let is_gone = |id: &SegmentId| self.segments.get(id).is_some_and(|s| gone(s));
        let (mut dropped, written): (VecDeque<_>, VecDeque<_>) =
            self.written.iter().copied().partition(is_gone);
        let carried = self.carried.iter().map(|(id, _)| *id);
        dropped.extend(carried.filter(is_gone));
        self.written = written;
        for id in dropped {
            self.carried.pop(&id);
            self.drop_segment(id);
        }
    }

    fn next_written(&self, of_query: Option<&str>) -> Option<usize> {
        self.written.iter().position(|id| self.is_of(*id, of_query))
    }

    fn next_carried(&self, of_query: Option<&str>) -> Option<(SegmentId, u64)> {
        let mut longest_ago_first = self.carried.iter().rev();
        let next = longest_ago_first.find(|(id, _)| self.is_of(**id, of_query));
        next.map(|(id, stamp)| (*id, *stamp))
    }
}

/// All hot segments of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct HotSegments {
    state: Arc<Mutex<State>>,
    write_pool: MemoryPool,
    read_pool: MemoryPool,
}

/// Gives the memory for writing back what is kept of it.
struct Written {
    state: Arc<Mutex<State>>,
    read_pool: MemoryPool,
}

impl Reclaim for Written {
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        // Nothing else is kept there, so any time will do.
        self.state.lock().next_written(of_query).map(|_| 0)
    }

    fn reclaim(&self, of_query: Option<&str>) -> Option<u64> {
        let mut state = self.state.lock();
        let at = state.next_written(of_query)?;
        let id = state.written.remove(at)?;
        let pool = &self.read_pool;
        let carried = state.segments.get(&id).and_then(|s| s.transfer_to(pool));
        let Some(freed) = carried else {
            return Some(state.drop_segment(id));
        };
        state.carried.put(id, pool.next_use_tick());
        Some(freed)
    }
}

/// Gives the memory for reading back what was carried over into it.
struct Carried(Arc<Mutex<State>>);

impl Reclaim for Carried {
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        self.0.lock().next_carried(of_query).map(|(_, stamp)| stamp)
    }

    fn reclaim(&self, of_query: Option<&str>) -> Option<u64> {
        let mut state = self.0.lock();
        let (id, _) = state.next_carried(of_query)?;
        state.carried.pop(&id);
        Some(state.drop_segment(id))
    }
}

impl HotSegments {
    /// An empty tier over the pool that segments are written from, and the one that may hold them
    /// afterwards.
    pub fn new(write_pool: MemoryPool, read_pool: MemoryPool) -> Self {
        let state = Arc::new(Mutex::new(State::new()));
        let hot = Self {
            state: Arc::clone(&state),
            write_pool,
            read_pool,
        };
        // A pool must not own itself: no reclaimer has the pool that it is for.
        hot.read_pool
            .add_reclaimer(Arc::new(Carried(Arc::clone(&state))));
        let read_pool = hot.read_pool.clone();
        hot.write_pool
            .add_reclaimer(Arc::new(Written { state, read_pool }));
        hot
    }

    /// Keeps a durable segment, unless somebody waits for the memory that it holds.
    pub fn insert(&self, segment: HotSegment) {
        {
            let mut state = self.state.lock();
            let id = segment.address.segment;
            state.segments.insert(id, Arc::new(segment));
            state.written.push_back(id);
        }
        self.write_pool.reclaim_for_waiters();
    }

    /// A segment, if it is still here.
    pub fn get(&self, id: SegmentId) -> Option<Arc<HotSegment>> {
        let mut state = self.state.lock();
        if let Some(stamp) = state.carried.get_mut(&id) {
            *stamp = self.read_pool.next_use_tick();
        }
        state.segments.get(&id).cloned()
    }

    /// Drops a segment, the copy in memory only.
    pub fn remove(&self, at: &SegmentAddress) {
        self.state.lock().remove_where(|s| s.address == *at);
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.state.lock().segments.values().map(|s| s.size).sum()
    }

    /// The exchanges of which any segment is kept.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        let state = self.state.lock();
        let segments = state.segments.values();
        segments.map(|s| s.address.exchange.clone()).collect()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.state
            .lock()
            .remove_where(|s| s.address.exchange == *exchange);
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

        /// Keeps a segment of one batch of `bytes`, which a query wrote.
        fn keep(&self, query: &str, sequence: u64, bytes: usize) {
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

        fn has(&self) -> Vec<u64> {
            let state = self.hot.state.lock();
            let mut has: Vec<u64> = state.segments.keys().map(|id| id.sequence).collect();
            has.sort_unstable();
            has
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

    #[test]
    fn what_writers_need_the_room_of_stays_for_readers_until_they_need_it() {
        let daemon = Daemon::new(100, 100);
        daemon.keep("q", 1, 40);
        daemon.keep("q", 2, 50);
        let writing = daemon.write.try_reserve("q", 60).unwrap();
        assert_eq!((daemon.has(), daemon.used()), (vec![1, 2], (60, 90)));
        assert!(daemon.hot.get(id(1)).is_some(), "and so it was used last");
        let reading = daemon.read.try_reserve("q", 40).unwrap();
        assert_eq!((daemon.has(), daemon.used()), (vec![1], (60, 80)));
        daemon.hot.forget(&"q".parse().unwrap());
        assert_eq!((daemon.has(), daemon.used()), (vec![], (60, 40)));
        drop((writing, reading));
        assert_eq!((daemon.hot.bytes(), daemon.used()), (0, (0, 0)));
    }

    #[test]
    fn a_daemon_that_goes_takes_its_segments_along() {
        let daemon = Daemon::new(100, 100);
        daemon.keep("q", 1, 40);
        daemon.keep("q", 2, 40);
        drop(daemon.write.try_reserve("q", 60));
        assert_eq!(daemon.used(), (40, 40));
        let state = Arc::downgrade(&daemon.hot.state);
        drop(daemon);
        assert!(state.upgrade().is_none());
    }

    #[test]
    fn where_readers_have_no_room_the_oldest_goes() {
        let daemon = Daemon::new(100, 30);
        daemon.keep("q", 1, 40);
        daemon.keep("q", 2, 20);
        daemon.keep("q", 3, 40);
        let _writing = daemon.write.try_reserve("q", 50).unwrap();
        assert_eq!((daemon.has(), daemon.used()), (vec![2, 3], (90, 20)));
    }

    #[test]
    fn what_a_reader_still_holds_is_counted_where_it_was_carried_to() {
        let daemon = Daemon::new(100, 100);
        daemon.keep("q", 1, 80);
        let slice = daemon.hot.get(id(1)).unwrap().range(10..20).unwrap();
        let _writing = daemon.write.try_reserve("q", 60).unwrap();
        assert_eq!(daemon.used(), (60, 80));
        assert!(
            daemon.read.try_reserve("q", 40).is_none(),
            "given up in vain"
        );
        assert_eq!((daemon.has(), daemon.used()), (vec![], (60, 80)));
        drop(slice);
        assert_eq!(daemon.used(), (60, 0));
    }

    #[test]
    fn a_query_at_its_limit_gives_back_its_own() {
        let daemon = {
            let write = MemoryPool::limited("write", 100, Some(50));
            let read = MemoryPool::limited("read", 100, Some(50));
            let hot = HotSegments::new(write.clone(), read.clone());
            Daemon { hot, write, read }
        };
        daemon.keep("q", 1, 40);
        daemon.keep("r", 2, 40);
        let _writing = daemon.write.try_reserve("r", 20).unwrap();
        assert_eq!((daemon.has(), daemon.used()), (vec![1, 2], (60, 40)));
        let _reading = daemon.read.try_reserve("r", 20).unwrap();
        assert_eq!((daemon.has(), daemon.used()), (vec![1], (60, 20)));
    }
}
