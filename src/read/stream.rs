//! Turns the planned parts of a handle into one checked stream.
//!
//! Does: fetch some parts ahead, in order; scan each range; end with an end record. Does not:
//! reserve memory (the fetched bytes bring their reservation). Invariant: a stream that waits for
//! memory holds none, but for what its client has not taken yet. For parts are asked for in the
//! order in which they are given out, so that none waits for what a later one holds; and when a
//! part ends amid a page while memory is short, that beginning of a page is dropped and fetched
//! again with its rest. Otherwise enough streams could each wait for what the others hold.
//!
//! Damage may have been done to the copy in memory or on its way here. So where a part does not
//! fit, nothing of it is given out, every copy of its segment that is kept here is dropped, and the
//! range is fetched once more from the base directory, from the first page that is still owed; what
//! does not fit then is an error.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, FuturesOrdered, StreamExt as _};

use super::fetch::{Fetcher, PlannedPart};
use super::{ByteStream, PageFormat, ReadError};
use crate::catalog::handle::{Handle, HandleRange};
use crate::id::SegmentAddress;
use crate::segment::layout::end_record;
use crate::segment::scan::{Expected, Output, ScanError, Scanner, Sent};

/// How many small parts are fetched ahead for each of any size. A base directory answers 64
/// requests at a time, those of all readers together.
const SMALL_PARTS: usize = 4;

type Fetched = (PlannedPart, Result<Vec<Bytes>, ReadError>);

struct Reading {
    fetcher: Fetcher,
    concurrency: usize,
    handle: Handle,
    format: PageFormat,
    /// The first range that is not planned yet.
    next_range: usize,
    planned: VecDeque<PlannedPart>,
    fetches: FuturesOrdered<BoxFuture<'static, Fetched>>,
    /// Bytes that these fetch.
    ahead: u64,
    /// Pages of the next range that the client has already.
    skip: u64,
    scanning: Option<Scanning>,
    ready: VecDeque<Bytes>,
    sent: Sent,
    ended: bool,
}

/// The range that is being scanned.
struct Scanning {
    range: usize,
    scanner: Scanner,
    /// Damage was found in it before.
    fetched_anew: bool,
}

/// Opens the stream.
pub fn stream(
    fetcher: Fetcher,
    concurrency: usize,
    handle: Handle,
    skip: u64,
    format: PageFormat,
) -> ByteStream {
    let (first_range, skip) = skip_ranges(&handle, skip);
    let reading = Reading {
        next_range: first_range,
        planned: VecDeque::new(),
        fetcher,
        concurrency,
        handle,
        format,
        fetches: FuturesOrdered::new(),
        ahead: 0,
        skip,
        scanning: None,
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

/// Ranges that the client has whole are not fetched: the first range to read, and the pages to skip
/// in it.
fn skip_ranges(handle: &Handle, mut skip: u64) -> (usize, u64) {
    for (index, range) in handle.ranges.iter().enumerate() {
        if skip < range.pages {
            return (index, skip);
        }
        skip -= range.pages;
    }
    (handle.ranges.len(), 0)
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
            self.fetch_ahead();
            if self.fetches.is_empty() {
                self.ended = true;
                self.count();
                return self.end().map(Ok);
            }
            let Some((planned, pieces)) = self.fetched().await else {
                self.let_go();
                continue;
            };
            self.ahead -= planned.part.fetched();
            match pieces.and_then(|pieces| self.take(&planned, pieces)) {
                Ok(()) => {}
                Err(error @ ReadError::Corrupt { .. }) => {
                    if let Err(error) = self.look_again(&planned, error) {
                        return Some(Err(error));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next part; `None` if memory becomes short first while the beginning of a page is held.
    async fn fetched(&mut self) -> Option<Fetched> {
        let holds = self
            .scanning
            .as_ref()
            .is_some_and(|s| s.scanner.has_partial());
        let next = self.fetches.next();
        if !holds {
            return next.await;
        }
        tokio::select! {
            biased;
            fetched = next => fetched,
            () = self.fetcher.parts().pool.shortage_begins() => None,
        }
    }

    /// Drops the beginning of a page and all that was fetched ahead, to begin again with that page.
    fn let_go(&mut self) {
        let Some(Scanning { range, scanner, .. }) = &mut self.scanning else {
            return;
        };
        let (range, (taken, item)) = (*range, scanner.discard_partial());
        self.restart(range, taken, item);
    }

    /// Begins again after so many bytes of a range.
    fn restart(&mut self, range: usize, taken: u64, item: Option<u64>) {
        self.fetches = FuturesOrdered::new();
        self.ahead = 0;
        let rest = self.fetcher.plan_rest(&self.handle, range, taken, item);
        self.planned = rest.into();
        self.next_range = range + 1;
    }

    /// After damage in a range: begins again with what is still owed of it, or gives the error back
    /// if that was done before.
    fn look_again(&mut self, planned: &PlannedPart, error: ReadError) -> Result<(), ReadError> {
        self.fetcher.parts().metrics.corruptions.inc();
        self.fetcher.distrust(&planned.address);
        let scanning = self.scan(planned.range);
        if std::mem::replace(&mut scanning.fetched_anew, true) {
            return Err(error);
        }
        tracing::warn!(%error, "fetched again: the damage may be only to the copy that was here");
        let (taken, _) = scanning.scanner.discard_partial();
        self.restart(planned.range, taken, None);
        Ok(())
    }

    fn scan(&mut self, range: usize) -> &mut Scanning {
        self.scanning.get_or_insert_with(|| {
            let expected = expected(&self.handle, &self.handle.ranges[range]);
            let output = match self.format {
                PageFormat::Raw => Output::Pages,
                PageFormat::Records => Output::Records,
            };
            Scanning {
                range,
                scanner: Scanner::new(expected, output, std::mem::take(&mut self.skip)),
                fetched_anew: false,
            }
        })
    }

    /// Starts fetches in order.
    fn fetch_ahead(&mut self) {
        let pressed = self.fetcher.parts().pool.waiting() > 0;
        while self.may_fetch(pressed) {
            let Some(planned) = self.next_part() else {
                return;
            };
            self.ahead += planned.part.fetched();
            let fetcher = self.fetcher.clone();
            self.fetches.push_back(
                async move {
                    let pieces = fetcher.get(&planned).await;
                    (planned, pieces)
                }
                .boxed(),
            );
        }
    }

    /// While others wait for memory, only what is needed now. Otherwise as many parts as the
    /// setting says, and more while all together are no more than one large one: where an exchange
    /// has many small segments far away, each would else be waited for in turn.
    fn may_fetch(&self, pressed: bool) -> bool {
        let under_way = self.fetches.len();
        if pressed {
            return under_way == 0;
        }
        let small = self.ahead < self.fetcher.chunk_size();
        under_way < self.concurrency || (small && under_way < self.concurrency * SMALL_PARTS)
    }

    fn next_part(&mut self) -> Option<PlannedPart> {
        while self.planned.is_empty() && self.next_range < self.handle.ranges.len() {
            self.planned = self.fetcher.plan(&self.handle, self.next_range).into();
            self.next_range += 1;
        }
        self.planned.pop_front()
    }

    /// Scans a part: all of it is given out, or nothing of it and the scanner stands where it did.
    fn take(&mut self, planned: &PlannedPart, pieces: Vec<Bytes>) -> Result<(), ReadError> {
        let scanning = self.scan(planned.range);
        let mut scanner = scanning.scanner.clone();
        let mut out = Vec::new();
        let pushed = pieces
            .into_iter()
            .try_for_each(|piece| scanner.push(piece, &mut out));
        pushed.map_err(|error| corrupt(&planned.address, error))?;
        if planned.last {
            let sent = scanner
                .finish()
                .map_err(|error| corrupt(&planned.address, error))?;
            self.scanning = None;
            self.sent.blocks += sent.blocks;
            self.sent.pages += sent.pages;
            self.sent.bytes += sent.bytes;
        } else {
            scanning.scanner = scanner;
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
        match self.format {
            PageFormat::Raw => None,
            PageFormat::Records => Some(Bytes::copy_from_slice(&end_record(blocks, pages, bytes))),
        }
    }

    fn count(&self) {
        let metrics = &self.fetcher.parts().metrics;
        metrics.pages_read.inc_by(self.sent.pages);
        metrics.bytes_read.inc_by(self.sent.bytes);
    }
}

fn expected(handle: &Handle, range: &HandleRange) -> Expected {
    Expected {
        partition: handle.partition,
        pages: range.pages,
        checksum: range.checksum,
    }
}

fn corrupt(address: &SegmentAddress, error: ScanError) -> ReadError {
    ReadError::Corrupt {
        segment: address.clone(),
        reason: error.to_string().into(),
    }
}
