//! `stopover inspect EXCHANGE`: what the base directories hold of an exchange.
//!
//! Does: read its markers and the footers of its segments, with the configuration of the daemons
//! and without one of them. Does not: read pages, or change anything. Invariant: a segment that
//! cannot be read is named, and then the exit code is 1.

use std::collections::BTreeMap;
use std::process::ExitCode;

use futures::stream::{self, StreamExt as _};

use super::exchange_view::{CommittedView, ExchangeView, ListedView, SegmentView, ShareView};
use super::inspect_footer::{InspectError, read_footer};
use super::progress::Progress;
use super::{async_runtime, failure, print};
use crate::config::Config;
use crate::exchange::{ExchangeOverview, overview_of};
use crate::id::{ExchangeId, SegmentId, TaskAttempt};
use crate::runtime::Runtime;
use crate::segment::footer::{CommitRecord, Totals};
use crate::storage::{Identification, ListedSegment, Storage};
use crate::telemetry::logs::printable;

/// Footers read at a time.
const CONCURRENCY: usize = 16;

/// The parts of a footer that are printed.
struct Read {
    sealed_millis: u64,
    commits: Vec<CommitRecord>,
}

/// Prints what there is.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn inspect_exchange(
    exchange: &ExchangeId,
    json: bool,
    config: &Config,
) -> Result<ExitCode, ExitCode> {
    let system = Runtime::system();
    let found = async_runtime::block_on(async {
        let bases = &config.base_directories;
        let storage = Storage::open_with(bases, Identification::Require, &system)?;
        // The digest is read from a base directory on the list of members; without the list,
        // everything else is printed.
        if let Err(error) = storage.check_members().await {
            eprintln!("stopover: {}", printable(&error.to_string()));
        }
        let overview = overview_of(&storage, exchange).await?;
        let listed = storage.list_segments(exchange).await?;
        let read = read_footers(&storage, &listed).await;
        Ok::<_, InspectError>((overview, listed, read))
    });
    let (overview, listed, read) = found.map_err(failure)?.map_err(failure)?;
    if overview.bases.is_empty() {
        eprintln!("stopover: no configured base directory holds anything of {exchange}");
        return Err(ExitCode::FAILURE);
    }
    let whole = view(overview, &listed, &read, system.clock.wall_millis());
    print(&match json {
        true => whole.as_json(),
        false => printable(&whole.as_text()),
    });
    let mut code = ExitCode::SUCCESS;
    for (segment, read) in listed.iter().zip(&read) {
        if let Err(error) = read {
            let text = format!("{} cannot be inspected: {error}", segment.address);
            eprintln!("stopover: {}", printable(&text));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

async fn read_footers(
    storage: &Storage,
    listed: &[ListedSegment],
) -> Vec<Result<Read, InspectError>> {
    let progress = Progress::bar(listed.len() as u64, "footers");
    let reads = stream::iter(listed.to_vec()).map(async |segment| {
        let tail = async |max| Ok(storage.get_tail(&segment.address, max).await?);
        let read = read_footer(tail).await;
        progress.advance(1);
        read.map(|found| Read {
            sealed_millis: found.footer.sealed_millis,
            commits: found.footer.commits,
        })
    });
    reads.buffered(CONCURRENCY).collect().await
}

fn view(
    overview: ExchangeOverview,
    listed: &[ListedSegment],
    read: &[Result<Read, InspectError>],
    now: u64,
) -> ExchangeView {
    // Of two commits of one attempt, that in the segment with the lower id counts.
    let mut committed: BTreeMap<TaskAttempt, (SegmentId, Totals)> = BTreeMap::new();
    let mut segments = Vec::with_capacity(listed.len());
    for (at, read) in listed.iter().zip(read) {
        let id = at.address.segment;
        for record in read.iter().flat_map(|read| &read.commits) {
            let entry = committed.entry(record.attempt);
            entry.or_insert((id, record.totals));
        }
        segments.push(SegmentView {
            segment: id.to_string(),
            daemon: id.daemon.to_string(),
            base: at.address.base.to_string(),
            size: at.size,
            sealed_millis: read.as_ref().map_or(0, |read| read.sealed_millis),
        });
    }
    let committed = committed
        .into_iter()
        .map(|(attempt, (segment, totals))| CommittedView {
            task: attempt.task,
            attempt: attempt.attempt,
            pages: totals.pages,
            bytes: totals.bytes,
            segment: segment.to_string(),
        });
    ExchangeView {
        listed: listed_view(overview, now),
        committed: committed.collect(),
        segments,
    }
}

fn listed_view(overview: ExchangeOverview, now: u64) -> ListedView {
    let bases = overview.bases.iter().map(|(base, share)| ShareView {
        base: base.clone(),
        marker: share.marker,
        segments: share.segments,
        bytes: share.bytes,
    });
    ListedView {
        exchange: overview.exchange.to_string(),
        query: overview.exchange.query().to_owned(),
        state: overview.state.name().to_owned(),
        partitions: overview.spec.as_ref().map(|spec| spec.partitions),
        ordered: overview.spec.as_ref().map(|spec| spec.ordered),
        age_seconds: overview.age(now).map(|age| age.as_secs()),
        lease_seconds: overview.lease.map(|lease| lease.as_secs()),
        lease_left_seconds: overview.lease_left().map(|left| left.as_secs()),
        bytes: overview.bytes(),
        base_directories: bases.collect(),
    }
}
