//! Turns the planned parts of a handle into one checked stream.
//!
//! Does: fetch some parts ahead, in order; scan each range; end with an end record. Does not:
//! reserve memory (the fetched bytes bring their reservation). Invariant: a stream that waits for
//! memory holds none, but for what its client has not taken yet. For parts are asked for in the
//! order in which they are given out, so that none waits for what a later one holds; and when a
//! part ends amid a page while memory is short, that beginning of a page is dropped and fetched
//! again with its rest. Otherwise enough streams could each wait for what the others hold.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, FuturesOrdered, StreamExt as _};

use super::fetch::{Fetcher, PlannedPart};
use super::{ByteStream, PageFormat, ReadError};
use crate::commit::handle::{Handle, HandleRange};
use crate::id::SegmentAddress;
use crate::segment::layout::end_record;
use crate::segment::scan::{Expected, Output, ScanError, Scanner, Sent};

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
    /// Pages of the next range that the client has already.
    skip: u64,
    /// The range that is being scanned, and its scanner.
    scanning: Option<(usize, Scanner)>,
    ready: VecDeque<Bytes>,
    sent: Sent,
    ended: bool,
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
            if let Err(error) = pieces.and_then(|pieces| self.take(&planned, pieces)) {
                return Some(Err(error));
            }
        }
    }

    /// The next part; `None` if memory becomes short first while the beginning of a page is held.
    async fn fetched(&mut self) -> Option<Fetched> {
        let holds = self.scanning.as_ref().is_some_and(|(_, s)| s.holds());
        let next = self.fetches.next();
        if !holds {
            return next.await;
        }
        tokio::select! {
            biased;
            fetched = next => fetched,
            () = self.fetcher.parts().pool.until_short() => None,
        }
    }

    /// Drops the beginning of a page and all that was fetched ahead, to begin again with that page.
    fn let_go(&mut self) {
        let Some((index, scanner)) = &mut self.scanning else {
            return;
        };
        let (taken, item) = scanner.let_go();
        self.fetches = FuturesOrdered::new();
        let rest = self.fetcher.plan_rest(&self.handle, *index, taken, item);
        self.planned = rest.into();
        self.next_range = *index + 1;
    }

    /// Starts fetches in order; while others wait for memory, only the one that is needed now.
    fn fetch_ahead(&mut self) {
        let pressed = self.fetcher.parts().pool.waiting() > 0;
        let most = if pressed { 1 } else { self.concurrency };
        while self.fetches.len() < most {
            let Some(planned) = self.next_part() else {
                return;
            };
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

    fn next_part(&mut self) -> Option<PlannedPart> {
        while self.planned.is_empty() && self.next_range < self.handle.ranges.len() {
            self.planned = self.fetcher.plan(&self.handle, self.next_range).into();
            self.next_range += 1;
        }
        self.planned.pop_front()
    }

    fn take(&mut self, planned: &PlannedPart, pieces: Vec<Bytes>) -> Result<(), ReadError> {
        let range = &self.handle.ranges[planned.range];
        let expected = expected(&self.handle, range);
        let output = match self.format {
            PageFormat::Raw => Output::Pages,
            PageFormat::Records => Output::Records,
        };
        let skip = std::mem::take(&mut self.skip);
        let begin = || (planned.range, Scanner::new(expected, output, skip));
        let (_, scanner) = self.scanning.get_or_insert_with(begin);
        let mut out = Vec::new();
        for piece in pieces {
            let pushed = scanner.push(piece, &mut out);
            pushed.map_err(|e| self.fetcher.corrupt(&planned.address, e))?;
        }
        self.ready.extend(out);
        if planned.last {
            let (_, scanner) = self.scanning.take().expect("just used");
            let sent = scanner
                .finish()
                .map_err(|e| self.fetcher.corrupt(&planned.address, e))?;
            self.sent.blocks += sent.blocks;
            self.sent.pages += sent.pages;
            self.sent.bytes += sent.bytes;
        }
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

impl Fetcher {
    fn corrupt(&self, address: &SegmentAddress, error: ScanError) -> ReadError {
        self.parts().metrics.corruptions.inc();
        self.distrust(address);
        ReadError::Corrupt {
            segment: address.clone(),
            reason: error.to_string().into(),
        }
    }
}
