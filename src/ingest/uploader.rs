//! Carries one sealed segment to a base directory and decides the sinks that finish with it.
//!
//! Does: wait for the earlier segments of those sinks, make the object, store it, keep it hot. Does
//! not: decide when to seal. Invariant: a commit record is written only when every earlier segment
//! of its attempt is durable, so that a record never promises what is not there, whenever the
//! process dies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::Ingest;
use super::exchange::{ExchangeState, Pages, PendingCommit, Sealed};
use super::sink::{SinkState, UploadSlot};
use crate::cache::hot::HotSegment;
use crate::id::{BaseName, ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::memory::WeakReservation;
use crate::segment::footer::CommitRecord;
use crate::segment::writer::{SegmentDraft, SegmentImage, write_segment};
use crate::storage::StorageError;

/// How long after an upload it is looked whether the exchange is still open.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// Uploads a segment to its end, whatever happens to those who wait for it.
pub async fn upload(
    ingest: Ingest,
    state: Arc<Mutex<ExchangeState>>,
    exchange: ExchangeId,
    sealed: Sealed,
) {
    let metrics = Arc::clone(&ingest.shared.parts.metrics);
    metrics.uploads_in_flight.inc();
    let (has_commits, follower) = (!sealed.commits.is_empty(), sealed.follower);
    let bytes = sealed.pages.bytes;
    let stored = carry(&ingest, &state, &exchange, sealed).await;
    state.lock().upload_ended(bytes);
    ingest
        .shared
        .in_flight_bytes
        .fetch_sub(bytes, Ordering::AcqRel);
    metrics.uploads_in_flight.dec();
    if follower {
        state.lock().follower_uploaded();
    } else if has_commits {
        let now = ingest.shared.parts.runtime.clock.now();
        state.lock().commit_uploaded(now);
    }
    ingest.follow_up(&state, &exchange);
    ingest.look_again(&state, &exchange);
    if stored {
        remove_if_closed(&ingest, &state, &exchange).await;
    }
}

async fn carry(
    ingest: &Ingest,
    state: &Arc<Mutex<ExchangeState>>,
    exchange: &ExchangeId,
    sealed: Sealed,
) -> bool {
    let parts = &ingest.shared.parts;
    let Sealed {
        sequence,
        pages,
        commits,
        follower,
        uploaded,
    } = sealed;
    let Pages {
        mut pieces, memory, ..
    } = pages;
    let (records, broken) = commit_records(commits).await;
    for (attempt, reason) in broken {
        fail(ingest, state, attempt, &reason);
    }
    let committing: Vec<TaskAttempt> = records.iter().map(|r| r.attempt).collect();
    pieces.retain(|piece| still_wanted(state, piece.sink));
    let mut writers: Vec<TaskAttempt> = pieces.iter().map(|p| p.sink).collect();
    writers.sort_unstable();
    writers.dedup();
    if pieces.is_empty() && records.is_empty() {
        uploaded.send_replace(Some(Err("its sinks are gone".into())));
        return false;
    }
    let segment = SegmentId {
        daemon: parts.daemon,
        sequence,
    };
    let image = write_segment(SegmentDraft {
        exchange: exchange.clone(),
        segment,
        sealed_millis: parts.runtime.clock.wall_millis(),
        runs: pieces,
        commits: records,
    });
    match store(ingest, exchange, segment, image, memory, follower).await {
        Ok(address) => {
            uploaded.send_replace(Some(Ok(address.base.clone())));
            for attempt in committing {
                finish(ingest, state, attempt);
            }
            true
        }
        Err(error) => {
            let reason: Arc<str> = error.to_string().into();
            tracing::error!(%exchange, %segment, %error, "a segment could not be written");
            uploaded.send_replace(Some(Err(Arc::clone(&reason))));
            doubt(state, &committing);
            for attempt in committing.into_iter().chain(writers) {
                fail(ingest, state, attempt, &reason);
            }
            false
        }
    }
}

/// Waits until the earlier segments of each attempt have ended; answers the records of those
/// attempts whose segments are all durable, and why the others are not.
async fn commit_records(
    commits: Vec<PendingCommit>,
) -> (Vec<CommitRecord>, Vec<(TaskAttempt, Arc<str>)>) {
    let (mut records, mut broken) = (Vec::new(), Vec::new());
    for PendingCommit {
        attempt,
        totals,
        earlier,
    } in commits
    {
        match wait_for(earlier).await {
            Ok(predecessors) => records.push(CommitRecord {
                attempt,
                totals,
                predecessors,
            }),
            Err(reason) => broken.push((attempt, reason)),
        }
    }
    (records, broken)
}

async fn wait_for(earlier: Vec<UploadSlot>) -> Result<Vec<(BaseName, u64)>, Arc<str>> {
    let mut places = Vec::with_capacity(earlier.len());
    for mut slot in earlier {
        let ended = slot
            .uploaded
            .wait_for(Option::is_some)
            .await
            .map(|end| end.clone());
        match ended {
            Ok(Some(Ok(base))) => places.push((base, slot.sequence)),
            Ok(Some(Err(reason))) => return Err(reason),
            Ok(None) | Err(_) => return Err("an earlier segment was given up".into()),
        }
    }
    Ok(places)
}

fn still_wanted(state: &Arc<Mutex<ExchangeState>>, attempt: TaskAttempt) -> bool {
    let state = state.lock();
    !state.closed
        && state
            .sink(attempt)
            .is_some_and(|sink| !matches!(sink.state(), SinkState::Aborted | SinkState::Failed(_)))
}

async fn store(
    ingest: &Ingest,
    exchange: &ExchangeId,
    segment: SegmentId,
    image: SegmentImage,
    memory: Vec<WeakReservation>,
    follower: bool,
) -> Result<SegmentAddress, StorageError> {
    let parts = &ingest.shared.parts;
    // A few records, one such upload for each exchange: not worth a turn behind whole segments.
    let _permit = match follower {
        true => None,
        false => Some(ingest.shared.uploads.acquire(exchange.query(), 1).await),
    };
    let content = image.content.clone();
    let address = parts
        .storage
        .put_segment(exchange, segment, content)
        .await?;
    parts.metrics.segments_written.inc();
    parts.metrics.segment_bytes_written.inc_by(image.size);
    let footer = Arc::new(image.footer);
    let hot = HotSegment::new(address.clone(), footer, image.content, memory);
    parts.hot.insert(hot);
    Ok(address)
}

fn finish(ingest: &Ingest, state: &Arc<Mutex<ExchangeState>>, attempt: TaskAttempt) {
    if state.lock().decide(attempt, SinkState::Finished) {
        ingest.shared.parts.metrics.sinks_finished.inc();
        ingest.shared.parts.metrics.sinks_open.dec();
    }
}

fn doubt(state: &Arc<Mutex<ExchangeState>>, committing: &[TaskAttempt]) {
    let mut state = state.lock();
    for attempt in committing {
        if let Some(sink) = state.sink_mut(*attempt) {
            sink.doubt();
        }
    }
}

fn fail(
    ingest: &Ingest,
    state: &Arc<Mutex<ExchangeState>>,
    attempt: TaskAttempt,
    reason: &Arc<str>,
) {
    if state
        .lock()
        .decide(attempt, SinkState::Failed(Arc::clone(reason)))
    {
        ingest.shared.parts.metrics.sinks_failed.inc();
        ingest.shared.parts.metrics.sinks_open.dec();
    }
}

/// A segment that landed after its exchange was closed is nobody's: takes it away again, unless the
/// exchange is announced after all (this daemon may have been stopped since its look). Those who
/// waited for it have been answered by now, so this costs no client any time, and one look serves
/// all segments that landed before it.
async fn remove_if_closed(
    ingest: &Ingest,
    state: &Arc<Mutex<ExchangeState>>,
    exchange: &ExchangeId,
) {
    let parts = &ingest.shared.parts;
    if !state.lock().closed {
        if !state.lock().begin_look() {
            return;
        }
        parts.runtime.clock.sleep(LOOK_AFTER).await;
        state.lock().end_look();
        match parts.gate.is_open(exchange).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, %exchange,
                    "whether the exchange is still open is not known; the sweeper will look again");
                return;
            }
        }
    }
    parts.commits.forget(exchange);
    if let Err(error) = parts.storage.remove_unannounced(exchange).await {
        tracing::warn!(%error, %exchange, "what a late writer left stays for the sweeper");
    }
}
