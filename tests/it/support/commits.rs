//! Segments that commit attempts without a page.

use std::ops::Range;

use stopover::app::Daemon;
use stopover::id::{ExchangeId, SegmentId, TaskAttempt};
use stopover::segment::footer::{CommitRecord, Totals};
use stopover::segment::writer::{SegmentDraft, write_segment};

/// Stores a segment that commits the first attempts of these tasks.
pub async fn commit_empty(
    at: &Daemon,
    exchange: &ExchangeId,
    segment: SegmentId,
    tasks: Range<u32>,
) {
    let commits = tasks.map(|task| CommitRecord {
        attempt: TaskAttempt::new(task, 0).unwrap(),
        totals: Totals::default(),
        predecessors: Vec::new(),
    });
    let image = write_segment(SegmentDraft {
        exchange: exchange.clone(),
        segment,
        sealed_millis: 0,
        runs: Vec::new(),
        commits: commits.collect(),
    });
    let storage = &at.storage;
    let stored = storage.put_segment(exchange, segment, image.content).await;
    stored.unwrap();
}
