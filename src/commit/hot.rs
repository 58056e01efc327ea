//! Segments that this daemon wrote lately, kept in memory while nobody needs the room.
//!
//! Does: answer footers and ranges without a request to a base directory; give memory back, the
//! oldest segment first. Does not: reserve memory itself: the bytes carry the reservation of their
//! batch. Invariant: what is here is durable in the base directory which its address names.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, Reclaim};
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
}

impl HotSegment {
    /// Takes the pieces of an object, in order.
    pub fn new(address: SegmentAddress, footer: Arc<Footer>, content: Vec<Bytes>) -> Self {
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
        }
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

#[derive(Default)]
struct State {
    segments: HashMap<SegmentId, Arc<HotSegment>>,
    oldest_first: VecDeque<SegmentId>,
    bytes: u64,
}

impl State {
    fn remove(&mut self, id: SegmentId) -> u64 {
        let size = self.segments.remove(&id).map_or(0, |s| s.size);
        self.bytes -= size;
        size
    }

    /// Drops the oldest, of one query if one is named, until so much is freed.
    fn reclaim(&mut self, bytes: u64, of_query: Option<&str>) -> u64 {
        let mut freed = 0;
        let mut kept = VecDeque::new();
        while freed < bytes {
            let Some(id) = self.oldest_first.pop_front() else {
                break;
            };
            if of_query.is_none_or(|query| self.is_of(id, query)) {
                freed += self.remove(id);
            } else {
                kept.push_back(id);
            }
        }
        kept.append(&mut self.oldest_first);
        self.oldest_first = kept;
        freed
    }

    fn is_of(&self, id: SegmentId, query: &str) -> bool {
        let segment = self.segments.get(&id);
        segment.is_some_and(|s| s.address.exchange.query() == query)
    }
}

/// All hot segments of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct HotSegments {
    state: Arc<Mutex<State>>,
    pool: MemoryPool,
}

struct Reclaimer(Arc<Mutex<State>>);

impl Reclaim for Reclaimer {
    fn reclaim(&self, bytes: u64, of_query: Option<&str>) -> u64 {
        self.0.lock().reclaim(bytes, of_query)
    }
}

impl HotSegments {
    /// An empty tier over the pool that its bytes are reserved from.
    pub fn new(pool: MemoryPool) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        pool.add_reclaimer(Arc::new(Reclaimer(Arc::clone(&state))));
        Self { state, pool }
    }

    /// Keeps a durable segment, unless somebody waits for the memory that it holds.
    pub fn insert(&self, segment: HotSegment) {
        {
            let mut state = self.state.lock();
            let id = segment.address.segment;
            state.bytes += segment.size;
            state.segments.insert(id, Arc::new(segment));
            state.oldest_first.push_back(id);
        }
        self.pool.reclaim_for_waiting();
    }

    /// A segment, if it is still here.
    pub fn get(&self, id: SegmentId) -> Option<Arc<HotSegment>> {
        self.state.lock().segments.get(&id).cloned()
    }

    /// Drops a segment, the copy in memory only.
    pub fn remove(&self, at: &SegmentAddress) {
        let mut state = self.state.lock();
        if state
            .segments
            .get(&at.segment)
            .is_some_and(|s| s.address == *at)
        {
            state.remove(at.segment);
            state.oldest_first.retain(|id| *id != at.segment);
        }
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// The exchanges of which any segment is kept.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        let state = self.state.lock();
        let segments = state.segments.values();
        segments.map(|s| s.address.exchange.clone()).collect()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        let mut state = self.state.lock();
        let gone: Vec<SegmentId> = state
            .segments
            .values()
            .filter(|s| s.address.exchange == *exchange)
            .map(|s| s.address.segment)
            .collect();
        for id in &gone {
            state.remove(*id);
        }
        state.oldest_first.retain(|id| !gone.contains(id));
    }
}
