//! The problem types against the table of `docs/protocol.md`, and the map of each module's errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::catalog::Totals;
use crate::catalog::handle::SealError;
use crate::exchange::{ExchangeSpec, MarkerError};
use crate::id::{BaseName, DaemonId, ExchangeId, SegmentAddress, SegmentId, SinkId, TaskAttempt};
use crate::ingest::{ClientTotals, SinkFailure, TooMuchStored};
use crate::memory::MemoryPool;
use crate::read::Damage;
use crate::segment::scan::ScanError;
use crate::storage::StoreError;

/// The rows of the table: slug to status and retryable. A row may name two slugs.
fn documented() -> BTreeMap<String, (u16, bool)> {
    let page = include_str!("../../../docs/protocol.md");
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| slug |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let slugs: Vec<&str> = cells[1]
            .split('/')
            .map(|s| s.trim().trim_matches('`'))
            .collect();
        let statuses: Vec<u16> = cells[2]
            .split('/')
            .map(|s| s.trim().parse().unwrap())
            .collect();
        let retryable = match cells[3] {
            "yes" => true,
            "no" => false,
            other => panic!("retryable is yes or no, not {other}"),
        };
        for (i, slug) in slugs.iter().enumerate() {
            let status = statuses[i.min(statuses.len() - 1)];
            assert!(
                table
                    .insert((*slug).to_owned(), (status, retryable))
                    .is_none()
            );
        }
    }
    table
}

#[test]
fn slugs_statuses_and_retryable_are_those_of_the_protocol_page() {
    let ours: BTreeMap<String, (u16, bool)> = ProblemType::ALL
        .iter()
        .map(|s| (s.as_str().to_owned(), (s.status(), s.retryable())))
        .collect();
    assert_eq!(ours.len(), ProblemType::ALL.len());
    assert_eq!(ours, documented());
}

fn exchange() -> ExchangeId {
    "q-1".parse().unwrap()
}

fn sink() -> SinkId {
    SinkId {
        exchange: exchange(),
        task_attempt: TaskAttempt::new(3, 1).unwrap(),
    }
}

fn segment() -> SegmentAddress {
    SegmentAddress {
        exchange: exchange(),
        base: "main".parse::<BaseName>().unwrap(),
        segment: SegmentId {
            daemon: DaemonId(1),
            sequence: 2,
        },
    }
}

fn storage(kind: StoreErrorKind) -> StorageError {
    StorageError {
        base: "main".into(),
        operation: "get",
        object: "x".into(),
        source: StoreError::new(kind, "no").into(),
    }
}

fn assert_slugs(cases: Vec<(Problem, ProblemType)>) {
    for (problem, slug) in cases {
        assert_eq!(problem.problem_type(), slug, "{}", problem.detail);
        assert!(!problem.detail.is_empty());
    }
}

#[test]
fn every_storage_failure_has_the_same_problem_through_every_module() {
    for (kind, slug) in [
        (StoreErrorKind::NotFound, ProblemType::DataLost),
        (StoreErrorKind::Unavailable, ProblemType::StorageUnavailable),
        (StoreErrorKind::Refused, ProblemType::StorageUnavailable),
        (StoreErrorKind::Corrupt, ProblemType::DataCorrupt),
    ] {
        let inner = || storage(kind);
        let commit = CatalogError::Storage(inner());
        assert_slugs(vec![
            (inner().into(), slug),
            (IngestError::Catalog(commit.clone()).into(), slug),
            (ReadError::Storage(inner()).into(), slug),
            (ReadError::Catalog(commit.clone()).into(), slug),
            (commit.into(), slug),
            (ExchangeError::Storage(inner()).into(), slug),
        ]);
    }
}

#[test]
fn a_problem_keeps_the_remedy_of_its_storage_error_unless_another_daemon_may_help() {
    for (kind, remedy) in [
        (StoreErrorKind::NotFound, Remedy::DataLost),
        (StoreErrorKind::Unavailable, Remedy::Retry),
        (StoreErrorKind::Refused, Remedy::Retry),
        (StoreErrorKind::Corrupt, Remedy::Retry),
    ] {
        let error = storage(kind);
        let another_may_help = matches!(kind, StoreErrorKind::Refused | StoreErrorKind::Corrupt);
        assert_eq!(error.remedy() != remedy, another_may_help);
        assert_eq!(Problem::from(error).problem_type().remedy(), remedy);
    }
}

#[tokio::test]
async fn every_ingest_error_has_its_problem() {
    let over = MemoryPool::new("write", 1)
        .reserve("q", 2)
        .await
        .unwrap_err();
    let claim = ClientTotals {
        batches: 1,
        pages: 2,
        bytes: 3,
        checksum: None,
    };
    let held = Totals::default();
    let full = IngestError::Full {
        what: "the list of exchanges",
        limit: 1,
        setting: "limits.max_exchanges",
    };
    let failed = IngestError::SinkFailed {
        sink: sink(),
        source: Arc::new(SinkFailure::SegmentDropped),
    };
    let too_much = TooMuchStored {
        query: "q".to_owned(),
        stored: 1,
        size: 2,
        limit: 2,
    };
    let mismatch = IngestError::CountMismatch {
        sink: sink(),
        claim,
        held,
    };
    assert_slugs(vec![
        (
            IngestError::SinkNotFound { sink: sink() }.into(),
            ProblemType::SinkNotFound,
        ),
        (
            IngestError::SinkAborted { sink: sink() }.into(),
            ProblemType::SinkAborted,
        ),
        (
            IngestError::TooMuchStored(too_much).into(),
            ProblemType::TooMuchStored,
        ),
        (
            IngestError::SinkFinished { sink: sink() }.into(),
            ProblemType::SinkFinished,
        ),
        (failed.into(), ProblemType::SinkFailed),
        (mismatch.into(), ProblemType::CountMismatch),
        (
            IngestError::ExchangeClosed {
                exchange: exchange(),
            }
            .into(),
            ProblemType::ExchangeClosed,
        ),
        (IngestError::Draining.into(), ProblemType::Draining),
        (full.into(), ProblemType::Overloaded),
        (
            IngestError::OverCapacity(over).into(),
            ProblemType::BodyTooLarge,
        ),
    ]);
}

#[test]
fn the_problem_names_the_expected_batch() {
    let problem = Problem::from(IngestError::BatchOutOfOrder {
        sink: sink(),
        given: 9,
        expected: 4,
    });
    let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
    assert_eq!(json["type"], "urn:stopover:problem:batch-out-of-order");
    assert_eq!(json["expected"], 4);
    assert_eq!(json["status"], 409);
}

#[test]
fn every_catalog_and_read_error_has_its_problem() {
    let not_committed = CatalogError::NotCommitted {
        attempt: TaskAttempt::new(1, 0).unwrap(),
        exchange: exchange(),
    };
    let corrupt = CatalogError::CountMismatch {
        segment: segment(),
        attempt: TaskAttempt::new(1, 0).unwrap(),
        recorded: (1, 1),
        found: (0, 0),
    };
    let lost = CatalogError::Lost { segment: segment() };
    let invalid = ReadError::InvalidHandle(SealError::TooShort.into());
    let read_corrupt = ReadError::Corrupt {
        segment: segment(),
        source: Box::new(Damage::Scan(ScanError::PageChecksum)),
    };
    let no_partition = ReadError::NoSuchPartition {
        partition: 5,
        partitions: 5,
    };
    let beyond = ReadError::SkipBeyondEnd { skip: 2, pages: 1 };
    let read_lost = ReadError::Lost { segment: segment() };
    assert_slugs(vec![
        (not_committed.into(), ProblemType::AttemptNotCommitted),
        (
            CatalogError::ChosenTwice { task: 1 }.into(),
            ProblemType::InvalidRequest,
        ),
        (corrupt.into(), ProblemType::DataCorrupt),
        (lost.into(), ProblemType::DataLost),
        (invalid.into(), ProblemType::InvalidHandle),
        (beyond.into(), ProblemType::InvalidRequest),
        (no_partition.into(), ProblemType::InvalidRequest),
        (read_lost.into(), ProblemType::DataLost),
        (read_corrupt.into(), ProblemType::DataCorrupt),
    ]);
}

#[test]
fn every_exchange_and_frame_error_has_its_problem() {
    let spec = ExchangeSpec {
        partitions: 1,
        ordered: false,
    };
    let conflict = ExchangeError::Conflict {
        exchange: exchange(),
        before: spec.clone(),
        now: spec,
    };
    let unreadable = ExchangeError::Unreadable {
        exchange: exchange(),
        source: MarkerError::Checksum,
    };
    let too_many = ExchangeError::TooManyPartitions {
        partitions: 2,
        limit: 1,
    };
    let out_of_range = FrameError::PartitionOutOfRange {
        offset: 0,
        partition: 5,
        partitions: 5,
    };
    let too_large = FrameError::PageTooLarge {
        offset: 0,
        length: 2,
        limit: 1,
    };
    let damaged = FrameError::ChecksumMismatch { offset: 0 };
    assert_slugs(vec![
        (
            ExchangeError::NotFound {
                exchange: exchange(),
                places: "a".into(),
            }
            .into(),
            ProblemType::ExchangeNotFound,
        ),
        (
            ExchangeError::Contended {
                exchange: exchange(),
            }
            .into(),
            ProblemType::StorageUnavailable,
        ),
        (
            ExchangeError::Closed {
                exchange: exchange(),
            }
            .into(),
            ProblemType::ExchangeClosed,
        ),
        (conflict.into(), ProblemType::ExchangeConflict),
        (too_many.into(), ProblemType::InvalidRequest),
        (
            ExchangeError::NoPartitions.into(),
            ProblemType::InvalidRequest,
        ),
        (unreadable.into(), ProblemType::DataCorrupt),
        (
            FrameError::Truncated { offset: 0 }.into(),
            ProblemType::InvalidFrame,
        ),
        (out_of_range.into(), ProblemType::InvalidFrame),
        (
            FrameError::EmptyPage { offset: 0 }.into(),
            ProblemType::InvalidFrame,
        ),
        (too_large.into(), ProblemType::PageTooLarge),
        (damaged.into(), ProblemType::ChecksumMismatch),
    ]);
}

#[test]
fn the_cause_of_a_bug_is_logged_and_hidden_from_the_client() {
    let problem = Problem::internal("index out of bounds in a secret place");
    assert!(
        !String::from_utf8(problem.to_json())
            .unwrap()
            .contains("secret")
    );
    assert!(problem.cause().contains("secret"));
}

#[test]
fn a_long_detail_is_truncated() {
    let problem = Problem::invalid("é".repeat(5000));
    assert_eq!(problem.body().detail.chars().count(), MAX_DETAIL + 1);
}
