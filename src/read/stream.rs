//! Turns the planned parts of a handle into one verified stream.
//!
//! Does: fetch some parts ahead, in order; scan each range; end with an end record. Does not:
//! reserve memory (the fetched bytes own their reservation). Invariant: a stream that waits for
//! memory holds none, except for verified bytes that its client has not received yet. Otherwise a
//! stream could wait for what it holds itself, and enough streams for what the others hold. Three
//! rules ensure it. Memory for parts is requested in the order in which they are emitted, so no
//! part waits for what a later one holds. A part that is already in memory requests none, so it
//! holds nothing before its turn; if it was evicted by then, all later parts are postponed and it
//! requests memory before them. If a part ends inside a page while memory is short, the partial
//! page is discarded and fetched again as a whole.
//!
//! A copy in memory may be damaged although the stored segment is intact. So if a part fails
//! verification, nothing of it is emitted, all copies of its segment are evicted, and the rest of
//! the range is fetched once more from the base directory; a second failure is an error.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, BoxStream, FuturesOrdered, StreamExt as _};

use super::error::ReadError;
use super::fetch::{Fetcher, MAX_SLICES, PlannedPart, PlannedRange};
use crate::catalog::handle::Handle;
use crate::segment::layout::end_record;
use crate::segment::scan::{Expected, PageFormat, ScanError, Scanner, Sent};

/// Bytes of a response, in order. An error ends the stream.
pub type ByteStream = BoxStream<'static, Result<Bytes, ReadError>>;

/// By how much the number of fetches may exceed the setting if the parts are small. A base
/// directory serves 64 requests at a time, shared by all readers.
const SMALL_PARTS: usize = 4;

/// The most memory that a stream needs for the slices of pages on their way to the client: 32 bytes
/// each for those that are scanned, those that are ready, and those that the connection holds, 17
/// frames of 128.
pub const MAX_SLICES_SIZE: u64 = 112 << 10;
/// What the slices of one page need at most: its own, and the space of vectors that grow.
const SLICES_PER_PAGE: u64 = 64;

/// Memory that a stream of this many pages needs for slices.
pub(super) fn slices_size(pages: u64) -> u64 {
    pages.saturating_mul(SLICES_PER_PAGE).min(MAX_SLICES_SIZE)
}

/// The bytes of a part, in one or more slices.
type Fetched = Result<Vec<Bytes>, ReadError>;

struct Reading {
    fetcher: Fetcher,
    concurrency: usize,
    handle: Handle,
    format: PageFormat,
    /// Index of the first range that is not planned yet.
    next_range: usize,
    /// The rest of the range before it.
    planned: Option<PlannedRange>,
    /// The parts that are fetched ahead, in order.
    ahead: VecDeque<PlannedPart>,
    /// One for each of them; `None` if the part was in memory, to be read in its turn.
    fetches: FuturesOrdered<BoxFuture<'static, Option<Fetched>>>,
    /// Bytes of all parts in `ahead`.
    bytes_ahead: u64,
    /// Planned parts that follow those in `ahead`.
    postponed: VecDeque<PlannedPart>,
    /// Pages of the next range that the client already has.
    skip: u64,
    scanning: Option<Scanning>,
    /// The part that is being scanned, with its bytes that have not been.
    unscanned: Option<(PlannedPart, VecDeque<Bytes>)>,
    ready: VecDeque<Bytes>,
    sent: Sent,
    ended: bool,
}

/// The range that is being scanned.
struct Scanning {
    range: usize,
    scanner: Scanner,
    /// Damage was found in it before.
    retried: bool,
}

/// Opens the stream of a handle after `skip` pages.
pub(super) fn stream(
    fetcher: Fetcher,
    concurrency: usize,
    handle: Handle,
    mut skip: u64,
    format: PageFormat,
) -> ByteStream {
    // Ranges that the client already has are not fetched.
    let mut next_range = 0;
    while let Some(range) = handle.ranges.get(next_range)
        && range.pages <= skip
    {
        skip -= range.pages;
        next_range += 1;
    }
    let reading = Reading {
        next_range,
        planned: None,
        fetcher,
        concurrency,
        handle,
        format,
        ahead: VecDeque::new(),
        fetches: FuturesOrdered::new(),
        bytes_ahead: 0,
        postponed: VecDeque::new(),
        skip,
        scanning: None,
        unscanned: None,
        ready: VecDeque::new(),
        sent: Sent::default(),
        ended: false,
    };
    stream::unfold(reading, |mut reading| async move {
        let item = reading.next().await?;
        if item.is_err() {
            reading.ended = true;
            reading.ready.clear();
        }
        Some((item, reading))
    })
    .boxed()
}

fn fetch(fetcher: &Fetcher, planned: PlannedPart) -> BoxFuture<'static, Fetched> {
    let fetcher = fetcher.clone();
    async move { fetcher.get(&planned).await }.boxed()
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(Ok(bytes));
            }
            if self.ended {
                return None;
            }
            if let Some((planned, slices)) = self.unscanned.take() {
                if let Err(error) = self.scan_slices(planned, slices) {
                    return Some(Err(error));
                }
                if self.ready.len() >= MAX_SLICES {
                    // A part of tiny pages in memory would otherwise delay all other tasks of this
                    // thread.
                    tokio::task::yield_now().await;
                }
                continue;
            }
            self.fetch_ahead();
            if self.fetches.is_empty() {
                self.ended = true;
                return self.end().map(Ok);
            }
            let fetched = match self.fetched().await {
                None => {
                    self.discard_partial_page();
                    continue;
                }
                Some(Some(fetched)) => fetched,
                Some(None) => match self.read_cached() {
                    None => continue,
                    Some(fetched) => fetched,
                },
            };
            let Some(planned) = self.ahead.pop_front() else {
                continue;
            };
            self.bytes_ahead -= planned.part.fetched();
            match fetched {
                Ok(slices) => {
                    let planned = self.postpone_rest(planned, &slices);
                    self.unscanned = Some((planned, slices.into()));
                }
                Err(error @ ReadError::Corrupt { .. }) => {
                    if let Err(error) = self.retry_corrupt_range(&planned, error) {
                        return Some(Err(error));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// If the slices are only the beginning of a part, makes the rest the next one.
    fn postpone_rest(&mut self, mut planned: PlannedPart, slices: &[Bytes]) -> PlannedPart {
        let length = slices.iter().map(Bytes::len).sum::<usize>() as u64;
        if let Some(part) = planned.part.after(length) {
            let last = std::mem::take(&mut planned.last);
            let rest = PlannedPart {
                part,
                last,
                ..planned.clone()
            };
            self.bytes_ahead += rest.part.fetched();
            self.fetches.push_front(std::future::ready(None).boxed());
            self.ahead.push_front(rest);
        }
        planned
    }

    /// What the first fetch returns; `None` if a partial page is held and memory becomes short
    /// first.
    async fn fetched(&mut self) -> Option<Option<Fetched>> {
        let scanning = self.scanning.as_ref();
        let has_partial = scanning.is_some_and(|s| s.scanner.has_partial());
        let next = self.fetches.next();
        if !has_partial {
            return next.await;
        }
        tokio::select! {
            biased;
            fetched = next => fetched,
            () = self.fetcher.deps.pool.shortage_begins() => None,
        }
    }

    /// The first part, which was in memory when it was planned. If it is not any more, it is
    /// fetched and all later parts are postponed, since they may hold what it has to wait for.
    fn read_cached(&mut self) -> Option<Fetched> {
        let planned = self.ahead.front()?.clone();
        let mut fetch = fetch(&self.fetcher, planned.clone());
        if let Some(fetched) = (&mut fetch).now_or_never() {
            return Some(fetched);
        }
        self.fetches = FuturesOrdered::new();
        self.fetches.push_back(fetch.map(Some).boxed());
        self.bytes_ahead = planned.part.fetched();
        for later in self.ahead.drain(1..).rev() {
            self.postponed.push_front(later);
        }
        None
    }

    /// Discards the partial page and everything that was fetched ahead, to fetch again from that
    /// page on.
    fn discard_partial_page(&mut self) {
        let Some(Scanning { range, scanner, .. }) = &mut self.scanning else {
            return;
        };
        let (range, (consumed, item)) = (*range, scanner.discard_partial());
        self.restart(range, consumed, item);
    }

    /// Fetches again from `consumed` bytes of a range on.
    fn restart(&mut self, range: usize, consumed: u64, item: Option<u64>) {
        self.fetches = FuturesOrdered::new();
        self.ahead.clear();
        self.bytes_ahead = 0;
        self.postponed.clear();
        self.unscanned = None;
        let rest = self.fetcher.plan_rest(&self.handle, range, consumed, item);
        self.planned = Some(rest);
        self.next_range = range + 1;
    }

    /// Fetches the rest of a damaged range again, or returns the error if that was done before.
    fn retry_corrupt_range(
        &mut self,
        planned: &PlannedPart,
        error: ReadError,
    ) -> Result<(), ReadError> {
        self.fetcher.deps.metrics.integrity_failures.inc();
        self.fetcher.evict_segment(&planned.address);
        let scanning = self.scan(planned.range);
        if std::mem::replace(&mut scanning.retried, true) {
            return Err(error);
        }
        tracing::warn!(%error, "damaged bytes read; fetching the range again without caches");
        let (consumed, _) = scanning.scanner.discard_partial();
        self.restart(planned.range, consumed, None);
        Ok(())
    }

    fn scan(&mut self, range: usize) -> &mut Scanning {
        self.scanning.get_or_insert_with(|| {
            let Handle {
                partition, ranges, ..
            } = &self.handle;
            let expected = Expected {
                partition: *partition,
                pages: ranges[range].pages,
                checksum: ranges[range].checksum,
            };
            Scanning {
                range,
                scanner: Scanner::new(expected, self.format, std::mem::take(&mut self.skip)),
                retried: false,
            }
        })
    }

    /// Starts fetches in order.
    fn fetch_ahead(&mut self) {
        let memory_short = self.fetcher.deps.pool.waiting() > 0;
        while self.may_fetch(memory_short) {
            let Some(planned) = self.next_part() else {
                return;
            };
            self.bytes_ahead += planned.part.fetched();
            // The first part may hold what it finds in memory: nothing is held besides.
            let later = !self.ahead.is_empty();
            self.fetches
                .push_back(match later && self.fetcher.is_cached(&planned) {
                    true => std::future::ready(None).boxed(),
                    false => fetch(&self.fetcher, planned.clone()).map(Some).boxed(),
                });
            self.ahead.push_back(planned);
        }
    }

    /// While others wait for memory, only the part that is needed next. Otherwise as many parts as
    /// the setting allows, and more while all together are smaller than one chunk: an exchange may
    /// have many small segments in a remote store.
    fn may_fetch(&self, memory_short: bool) -> bool {
        let in_flight = self.ahead.len();
        if memory_short {
            return in_flight == 0;
        }
        let small = self.bytes_ahead < self.fetcher.chunk_size;
        in_flight < self.concurrency || (small && in_flight < self.concurrency * SMALL_PARTS)
    }

    fn next_part(&mut self) -> Option<PlannedPart> {
        if let Some(postponed) = self.postponed.pop_front() {
            return Some(postponed);
        }
        loop {
            if let Some(part) = self.planned.as_mut().and_then(Iterator::next) {
                return Some(part);
            }
            if self.next_range == self.handle.ranges.len() {
                return None;
            }
            self.planned = Some(self.fetcher.plan(&self.handle, self.next_range));
            self.next_range += 1;
        }
    }

    /// Scans slices of a part; if they are damaged, fetches the rest of the range again.
    ///
    /// # Errors
    /// The range was found damaged before.
    fn scan_slices(
        &mut self,
        planned: PlannedPart,
        slices: VecDeque<Bytes>,
    ) -> Result<(), ReadError> {
        let Err(error) = self.accept(&planned, slices) else {
            return Ok(());
        };
        let error = ReadError::Corrupt {
            segment: planned.address.clone(),
            source: Box::new(error.into()),
        };
        self.retry_corrupt_range(&planned, error)
    }

    /// Scans slices of a part and emits what was verified; the rest stays unscanned once many pages
    /// are ready. On failure nothing is emitted and the scanner is unchanged.
    fn accept(
        &mut self,
        planned: &PlannedPart,
        mut slices: VecDeque<Bytes>,
    ) -> Result<(), ScanError> {
        let scanning = self.scan(planned.range);
        let mut scanner = scanning.scanner.clone();
        let mut out = Vec::new();
        while out.len() < MAX_SLICES
            && let Some(slice) = slices.pop_front()
        {
            let rest = scanner.push_until(slice, &mut out, MAX_SLICES)?;
            if !rest.is_empty() {
                slices.push_front(rest);
            }
        }
        if planned.last && slices.is_empty() {
            let sent = scanner.finish()?;
            self.scanning = None;
            self.count(&sent);
            self.sent.blocks += sent.blocks;
            self.sent.pages += sent.pages;
            self.sent.bytes += sent.bytes;
        } else {
            scanning.scanner = scanner;
        }
        if !slices.is_empty() {
            self.unscanned = Some((planned.clone(), slices));
        }
        self.ready.extend(out);
        Ok(())
    }

    fn end(&self) -> Option<Bytes> {
        let Sent {
            blocks,
            pages,
            bytes,
        } = self.sent;
        let record = || Bytes::copy_from_slice(&end_record(blocks, pages, bytes));
        (self.format == PageFormat::Records).then(record)
    }

    /// Counts a range as served. This cannot wait for the end of the stream: a response with a
    /// known length is complete before that, and its stream is dropped at that point.
    fn count(&self, sent: &Sent) {
        let metrics = &self.fetcher.deps.metrics;
        metrics.pages_read.inc_by(sent.pages);
        metrics.bytes_read.inc_by(sent.bytes);
    }
}
