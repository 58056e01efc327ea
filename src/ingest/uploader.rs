//! Uploads one sealed segment and settles the sinks that commit with it.
//!
//! Does: wait for the earlier segments of those sinks, encode the segment, store it, and cache it
//! as a hot segment. Does not: decide when to seal. Invariant: a commit record is stored only after
//! every earlier segment of its attempt, so that whenever the process dies, a record never names
//! missing data. However an upload ends, even by a panic, its sinks are settled and its slot and
//! bytes are released.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;

use super::error::SinkFailure;
use super::exchange::{CommitKind, Pages, PendingCommit, Sealed, SharedExchange};
use super::service::Ingest;
use super::sink::{PriorSegment, Sink, SinkState};
use super::stored::TooMuchStored;
use crate::cache::hot::HotSegment;
use crate::id::{BaseName, SegmentAddress, SegmentId, TaskAttempt};
use crate::memory::WeakReservation;
use crate::segment::footer::CommitRecord;
use crate::segment::frame::Run;
use crate::segment::writer::{SegmentDraft, SegmentImage, SinkRun, write_segment};
use crate::telemetry::traces::{Span, SpanRef, waiting};

/// How long after an upload the exchange is checked to be open: one check for all segments that
/// are stored meanwhile.
const OPEN_CHECK_DELAY: Duration = Duration::from_millis(500);

/// Uploads a segment completely, even if no request waits for it any more.
pub(super) async fn upload(ingest: Ingest, exchange: SharedExchange, sealed: Sealed) {
    let deps = &ingest.shared.deps;
    let (bytes, kind) = (sealed.pages.bytes, sealed.kind);
    deps.metrics.uploads_in_flight.inc();
    let contents = Contents::of(&sealed);
    let span = contents.span(&exchange, &sealed);
    let storing = span.run(store_and_settle(&ingest, &exchange, sealed));
    let outcome = AssertUnwindSafe(storing);
    let stored = outcome.catch_unwind().await.unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        tracing::error!(exchange = %exchange.id(), message,
            "the upload of a segment panicked; its sinks fail, and Trino runs their tasks again");
        contents.fail(&ingest, &exchange, SinkFailure::Panicked { message });
        // Perhaps.
        true
    });
    drop(span);
    let now = deps.runtime.clock.now();
    exchange.lock().upload_completed(bytes, kind, now);
    let in_flight = &ingest.shared.in_flight_bytes;
    in_flight.fetch_sub(bytes, Ordering::AcqRel);
    deps.metrics.uploads_in_flight.dec();
    ingest.start_deferred_commits(&exchange);
    ingest.reevaluate_seal(&exchange);
    if stored {
        remove_if_closed(&ingest, &exchange).await;
    }
}

/// The sinks whose pages or commits are in a segment.
struct Contents {
    committing: Vec<TaskAttempt>,
    writers: BTreeSet<TaskAttempt>,
}

impl Contents {
    fn of(sealed: &Sealed) -> Self {
        Self {
            committing: sealed.commits.iter().map(|c| c.attempt).collect(),
            writers: sealed.pages.batches.iter().map(|(sink, _)| *sink).collect(),
        }
    }

    /// The span of the segment: below that of the first sink in it, with links to those of others.
    fn span(&self, exchange: &SharedExchange, sealed: &Sealed) -> Span {
        let spans: Vec<SpanRef> = {
            let state = exchange.lock();
            let sinks = self.committing.iter().chain(&self.writers);
            let sinks: BTreeSet<TaskAttempt> = sinks.copied().collect();
            let spans = sinks.iter().filter_map(|attempt| state.sink(*attempt));
            spans
                .map(Sink::span)
                .filter(|span| !span.is_none())
                .collect()
        };
        let Some((first, others)) = spans.split_first() else {
            return Span::none();
        };
        let span = first.child("segment");
        others.iter().for_each(|other| span.link(other));
        span.set("stopover.exchange", exchange.id());
        span.set_number("stopover.segment", sealed.sequence);
        span.set_number("stopover.bytes", sealed.pages.bytes);
        span.set_number("stopover.sinks", spans.len() as u64);
        span.set_number("stopover.commits", self.committing.len() as u64);
        span
    }

    /// Settles those that are not settled yet as failed. Their commit may have been applied even if
    /// the last try of the PUT was refused: an earlier try, at another base directory or before a
    /// retry, may have succeeded.
    fn fail(
        self,
        ingest: &Ingest,
        exchange: &SharedExchange,
        failure: SinkFailure,
    ) -> Arc<SinkFailure> {
        let failure = Arc::new(failure);
        exchange.lock().mark_outcome_unknown(&self.committing);
        for attempt in self.committing.into_iter().chain(self.writers) {
            let failed = SinkState::Failed(Arc::clone(&failure));
            settle(ingest, exchange, attempt, failed);
        }
        failure
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

/// Stores the segment and settles its sinks; `false` if nothing was stored.
async fn store_and_settle(ingest: &Ingest, exchange: &SharedExchange, sealed: Sealed) -> bool {
    let records = commit_records(ingest, exchange, sealed.commits).await;
    let Pages {
        mut batches,
        memory,
        ..
    } = sealed.pages;
    batches.retain(|(sink, _)| is_needed(exchange, *sink));
    let runs = batches.iter().flat_map(|(_, runs)| runs);
    let pages = runs.map(|run| run.pages as usize).sum();
    if batches.is_empty() && records.is_empty() {
        let dropped = Arc::new(SinkFailure::SegmentDropped);
        sealed.outcome.report(Err(dropped));
        return false;
    }
    let committing: Vec<TaskAttempt> = records.iter().map(|r| r.attempt).collect();
    let contents = Contents {
        committing: committing.clone(),
        writers: batches.iter().map(|(sink, _)| *sink).collect(),
    };
    let segment = SegmentId {
        daemon: ingest.shared.deps.daemon,
        sequence: sealed.sequence,
    };
    let runtime = &ingest.shared.deps.runtime;
    let draft = SegmentDraft {
        exchange: exchange.id().clone(),
        segment,
        sealed_millis: runtime.clock.wall_millis(),
        runs: sink_runs(batches),
        commits: records,
    };
    let write = || write_segment(draft);
    let image = runtime.tasks.compute(pages, write).await;
    match store(ingest, exchange, segment, sealed.kind, image, memory).await {
        Ok(address) => {
            sealed.outcome.report(Ok(address.base));
            for attempt in committing {
                settle(ingest, exchange, attempt, SinkState::Finished);
            }
            true
        }
        Err(error) => {
            SpanRef::current().fail(&error);
            tracing::error!(exchange = %exchange.id(), %segment, %error,
                "segment upload failed; its sinks fail");
            let failure = contents.fail(ingest, exchange, error);
            sealed.outcome.report(Err(failure));
            false
        }
    }
}

fn sink_runs(batches: Vec<(TaskAttempt, Vec<Run>)>) -> Vec<SinkRun> {
    let count = batches.iter().map(|(_, runs)| runs.len()).sum();
    let mut all = Vec::with_capacity(count);
    for (sink, runs) in batches {
        all.extend(runs.into_iter().map(|run| SinkRun { sink, run }));
    }
    all
}

/// Waits for the uploads of each attempt's earlier segments. Returns the commit records of attempts
/// whose segments are all stored; the others fail.
async fn commit_records(
    ingest: &Ingest,
    exchange: &SharedExchange,
    commits: Vec<PendingCommit>,
) -> Vec<CommitRecord> {
    let mut records = Vec::new();
    for commit in commits {
        let (attempt, totals) = (commit.attempt, commit.totals);
        let stored = wait_until_stored(commit.prior_segments);
        match waiting("wait for earlier segments", stored).await {
            Ok(predecessors) => records.push(CommitRecord {
                attempt,
                totals,
                predecessors,
            }),
            Err(failure) => settle(ingest, exchange, attempt, SinkState::Failed(failure)),
        }
    }
    records
}

async fn wait_until_stored(
    segments: Vec<PriorSegment>,
) -> Result<Vec<(BaseName, u64)>, Arc<SinkFailure>> {
    let mut stored = Vec::with_capacity(segments.len());
    for segment in segments {
        stored.push((segment.outcome.wait().await?, segment.sequence));
    }
    Ok(stored)
}

/// Whether the pages of an attempt may still be read.
fn is_needed(exchange: &SharedExchange, attempt: TaskAttempt) -> bool {
    let state = exchange.lock();
    let sink = state.sink(attempt).map(|sink| sink.state());
    !state.closed && !matches!(sink, None | Some(SinkState::Aborted | SinkState::Failed(_)))
}

async fn store(
    ingest: &Ingest,
    exchange: &SharedExchange,
    segment: SegmentId,
    kind: CommitKind,
    image: SegmentImage,
    memory: Vec<WeakReservation>,
) -> Result<SegmentAddress, SinkFailure> {
    let deps = &ingest.shared.deps;
    let (length, limit) = (image.footer_length, ingest.max_footer_size());
    if length > limit {
        return Err(SinkFailure::FooterTooLarge { length, limit });
    }
    // Deferred commits use no upload slot: they are a few records, in one upload at a time for each
    // exchange, and would otherwise wait behind whole segments.
    let _permit = match kind {
        CommitKind::Deferred => None,
        _ => {
            let slot = ingest.shared.uploads.acquire(exchange.query(), 1);
            Some(waiting("wait for upload slot", slot).await)
        }
    };
    count_stored(ingest, exchange, image.size)?;
    let content = image.content.clone();
    let stored = deps.storage.put_segment(exchange.id(), segment, content);
    let address = stored
        .await
        .inspect_err(|_| discount_stored(ingest, exchange, image.size))?;
    deps.metrics.segments_written.inc();
    deps.metrics.segment_bytes_written.inc_by(image.size);
    let mut state = exchange.lock();
    if state.add_stored(&address.base, image.size) {
        let size = i64::try_from(image.size).unwrap_or(i64::MAX);
        deps.storage.metrics().add_stored(&address.base, size);
    }
    drop(state);
    let footer = Arc::new(image.footer);
    deps.catalog.remember(&address, &footer);
    let hot = HotSegment::new(address.clone(), footer, image.content, memory);
    deps.hot.insert(hot);
    Ok(address)
}

/// Counts a segment for its query, which must not exceed its limit. One of a closed exchange is not
/// counted: it is removed as soon as it is stored.
fn count_stored(
    ingest: &Ingest,
    exchange: &SharedExchange,
    size: u64,
) -> Result<(), TooMuchStored> {
    let mut state = exchange.lock();
    if !state.closed {
        ingest.shared.stored.add(exchange.query(), size)?;
        state.stored_bytes += size;
    }
    Ok(())
}

fn discount_stored(ingest: &Ingest, exchange: &SharedExchange, size: u64) {
    let mut state = exchange.lock();
    if !state.closed {
        state.stored_bytes -= size;
        ingest.shared.stored.remove(exchange.query(), size);
    }
}

fn settle(ingest: &Ingest, exchange: &SharedExchange, attempt: TaskAttempt, to: SinkState) {
    let metrics = &ingest.shared.deps.metrics;
    let settled = match to {
        SinkState::Finished => &metrics.sinks_finished,
        _ => &metrics.sinks_failed,
    };
    if exchange.lock().settle(attempt, to) {
        settled.inc();
        metrics.sinks_open.dec();
    }
}

/// Removes a segment that was stored after its exchange had been closed, unless the exchange turns
/// out to be announced (this daemon may have been stopped since the check). The clients have been
/// answered by now, so this delays none of them.
async fn remove_if_closed(ingest: &Ingest, exchange: &SharedExchange) {
    let (deps, id) = (&ingest.shared.deps, exchange.id());
    if !exchange.lock().closed {
        if std::mem::replace(&mut exchange.lock().open_check_scheduled, true) {
            return;
        }
        deps.runtime.clock.sleep(OPEN_CHECK_DELAY).await;
        // The marker may be written later than this segment. Its state is read below in any case.
        let _ = deps.exchanges.wait_for_marker(id).await;
        exchange.lock().open_check_scheduled = false;
        match deps.exchanges.is_open(id).await {
            Ok(true) => return,
            Ok(false) => ingest.forget(id),
            Err(error) => {
                tracing::warn!(exchange = %id, %error,
                    "cannot check whether the exchange is open; the next sweep checks it");
                return;
            }
        }
    }
    deps.catalog.forget(id);
    if let Err(error) = deps.storage.remove_unannounced(id).await {
        tracing::warn!(exchange = %id, %error,
            "cannot remove a segment that was stored after its exchange was closed; a sweep will");
    }
}
